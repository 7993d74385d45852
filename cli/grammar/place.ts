/** Where a beginning of a JSON document breaks off. */
export interface Place {
  /** The keys and indices that lead there. Between members no key leads on: the place is the object itself. */
  readonly path: readonly (string | number)[];
  /** The keys that the innermost object has, where one is open and no array in it. */
  readonly keys: readonly string[] | null;
  /** Whether the next key is still to come there. */
  readonly between: boolean;
  /** Whether it breaks off within a key, or a text. */
  readonly quoted: boolean;
}

export function placeOf(prefix: string): Place {
  const open: ({ readonly keys: string[]; key: string | null } | { index: number })[] = [];
  let text = '';
  let quoted = false;
  for (const [token, whole] of prefix.matchAll(/"(?:[^"\\]|\\.)*(?:(")|\\?$)|[[\]{},:]/gs)) {
    const inner = open.at(-1);
    if (token === '{') open.push({ keys: [], key: null });
    else if (token === '[') open.push({ index: 0 });
    else if (token === '}' || token === ']') open.pop();
    else if (token === ',' && inner) {
      if ('index' in inner) inner.index += 1;
      else inner.key = null;
    } else if (token === ':' && inner && 'keys' in inner) {
      inner.key = text;
      inner.keys.push(text);
    } else if (whole) text = JSON.parse(token) as string;
    else if (token.startsWith('"')) quoted = true;
  }
  const inner = open.at(-1);
  return {
    path: open.map((one) => ('index' in one ? one.index : one.key)).filter((step) => step !== null),
    keys: inner && 'keys' in inner ? inner.keys : null,
    between: inner !== undefined && 'keys' in inner && inner.key === null,
    quoted,
  };
}
