/** A set of code points: sorted ranges, both ends included, no two of which touch. */
export type Points = readonly (readonly [from: number, to: number])[];

const LAST = 0x10ffff;

/** Of ranges in any order. */
export function union(...sets: readonly Points[]): Points {
  const joined: [number, number][] = [];
  for (const [from, to] of sets.flat().sort((a, b) => a[0] - b[0])) {
    const before = joined.at(-1);
    if (before && from <= before[1] + 1) before[1] = Math.max(before[1], to);
    else joined.push([from, to]);
  }
  return joined;
}

export function complement(points: Points): Points {
  const gaps: [number, number][] = [];
  let from = 0;
  for (const [first, last] of points) {
    if (from < first) gaps.push([from, first - 1]);
    from = last + 1;
  }
  if (from <= LAST) gaps.push([from, LAST]);
  return gaps;
}

/** Of the characters of a text. */
export function points(characters: string): Points {
  return union(Array.from(characters, (character) => [character.codePointAt(0)!, character.codePointAt(0)!] as const));
}

// As typed arrays have their units on every platform that runs JavaScript today.
const UTF16 = new TextDecoder('utf-16le');

const properties = new Map<string, Points>();

/** The code points with a Unicode property, named as in `\p{…}`, as the platform's Unicode has it; null: it knows none. */
export function property(name: string): Points | null {
  let found = properties.get(name);
  if (!found) {
    let runs: RegExp;
    try {
      runs = new RegExp(`(\\p{${name}}+)|\\P{${name}}+`, 'gu');
    } catch {
      return null;
    }
    const ranges: [number, number][] = [];
    const BLOCK = 0x800; // divides the surrogates' place
    for (let block = 0; block <= LAST; block += BLOCK) {
      if (block === 0xd800) continue;
      const width = block < 0x10000 ? 1 : 2;
      for (const { 1: run, index } of consecutive(block, BLOCK).matchAll(runs)) {
        if (run === undefined) continue;
        ranges.push([block + index / width, block + (index + run.length) / width - 1]);
      }
    }
    properties.set(name, (found = union(ranges)));
  }
  return found;
}

/** The text of `count` code points from `first` on, all of them in UTF-16's one unit or all in two. */
function consecutive(first: number, count: number): string {
  const width = first < 0x10000 ? 1 : 2;
  const units = new Uint16Array(count * width);
  for (let i = 0; i < count; i += 1) {
    if (width === 1) units[i] = first + i;
    else {
      units[2 * i] = 0xd800 + ((first + i - 0x10000) >> 10);
      units[2 * i + 1] = 0xdc00 + ((first + i) & 0x3ff);
    }
  }
  return UTF16.decode(units);
}
