/** What JSON.stringify writes of a value that is JSON, without its limit on depth. Throws for 1e400, which is null there. */
export function jsonText(value: unknown): string {
  const parts: string[] = [];
  // What is still to be written, last first: texts as they are, values in a box.
  const open: (string | { readonly value: unknown })[] = [{ value }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (typeof next === 'string') {
      parts.push(next);
      continue;
    }
    const { value } = next;
    if (typeof value === 'number' && !Number.isFinite(value)) {
      throw new Error('[grammar] a number is beyond the range of doubles');
    }
    if (typeof value !== 'object' || value === null) {
      parts.push(JSON.stringify(value));
      continue;
    }
    const members = Array.isArray(value)
      ? value.map((item: unknown, index) => [index === 0 ? '' : ',', { value: item }] as const)
      : Object.entries(value).map(
          ([key, member], index) =>
            [`${index === 0 ? '' : ','}${JSON.stringify(key)}:`, { value: member as unknown }] as const,
        );
    const [first, last] = Array.isArray(value) ? '[]' : '{}';
    parts.push(first!);
    open.push(last!);
    // One by one: a call has no room for a hundred thousand.
    for (const [before, member] of members.reverse()) open.push(member, before);
  }
  return parts.join('');
}

/** A member of a JSON object as it is written. */
export interface MemberText {
  readonly key: string;
  /** Of its value. */
  readonly text: string;
  /** The first key that comes twice in one object of the value: of such members JSON.parse keeps the last alone. */
  readonly twice: string | null;
}

/** The members of a JSON text that is an object. */
export function membersOf(text: string): MemberText[] {
  const members: MemberText[] = [];
  // Of what is open: an object's keys, null of an array.
  const open: (Set<string> | null)[] = [];
  let member: { readonly key: string; readonly from: number; twice: string | null } | null = null;
  let string = '';
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at]!;
    if (character === '"') {
      const from = at;
      for (at += 1; text[at] !== '"'; at += 1) if (text[at] === '\\') at += 1;
      string = text.slice(from, at + 1);
    } else if (character === ':') {
      // What stands before a colon is a key.
      const key = JSON.parse(string) as string;
      if (member === null) member = { key, from: at + 1, twice: null };
      else if (open.at(-1)!.has(key)) member.twice ??= key;
      open.at(-1)!.add(key);
    } else if (character === '{' || character === '[') {
      open.push(character === '{' ? new Set() : null);
    } else if (character === ',' || character === '}' || character === ']') {
      if (open.length === 1 && member !== null) {
        members.push({ key: member.key, text: text.slice(member.from, at).trim(), twice: member.twice });
        member = null;
      }
      if (character !== ',') open.pop();
    }
  }
  return members;
}
