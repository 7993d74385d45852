/** The keys and indices that lead to where a beginning of a JSON document breaks off. */
export function pathOf(prefix: string): (string | number)[] {
  const path: (string | number)[] = [];
  let key: string | null = null;
  for (const [token, whole] of prefix.matchAll(/"(?:[^"\\]|\\.)*(?:(")|$)|[[\]{},:]/gs)) {
    if (token === '{') path.push('');
    else if (token === '[') path.push(0);
    else if (token === '}' || token === ']') path.pop();
    else if (token === ',') {
      const last = path.pop();
      path.push(typeof last === 'number' ? last + 1 : '');
    } else if (token === ':') path.splice(-1, 1, `.${key}`);
    else if (whole) key = JSON.parse(token) as string;
  }
  // Between members no key leads on: the place is the object itself.
  while (path.at(-1) === '') path.pop();
  return path.map((step) => (typeof step === 'string' ? step.slice(1) : step));
}
