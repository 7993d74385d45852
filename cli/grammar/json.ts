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
