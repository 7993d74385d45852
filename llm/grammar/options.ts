/** Refuses options that are none, or have a key that is not `known`; names the nearest one that is. `where`: a call as it is written. */
export function checkOptions(where: string, options: unknown, known: readonly string[]): void {
  const all = known.join(', ');
  if (!isObject(options)) throw new Error(`[grammar] ${where}: options are ${shown(options)}; they must be { ${all} }`);
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    const nearest = known.reduce((best, other) => (distance(key, other) < distance(key, best) ? other : best));
    throw new Error(`[grammar] ${where}: option ${key} is not known; did you mean ${nearest}? There are: ${all}`);
  }
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value in an error: what it is, not all of it. */
export function shown(value: unknown): string {
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return 'a list';
  if (isObject(value)) return `an object { ${Object.keys(value).slice(0, 5).join(', ')} }`;
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}

/** How many characters have to be changed, put in or left out (Levenshtein 1966). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const before = row;
    row = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = before[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(changed, before[j]! + 1, row[j - 1]! + 1));
    }
  }
  return row.at(-1)!;
}
