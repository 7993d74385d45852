import type { CodePoints } from './parse.ts';

/** Bytes from one to another, both included. */
export interface Bytes {
  readonly from: number;
  readonly to: number;
}

/** The last code points that take one, two, three and four bytes. */
const LONGEST = [0x7f, 0x7ff, 0xffff, 0x10ffff];
/** Ones at the places that all continuation bytes share. */
const LEADS = [0, 0xc0, 0xe0, 0xf0];

/** The UTF-8 of these code points as sequences of byte ranges, no two of which overlap. Surrogates are left out. */
export function utf8(range: CodePoints): Bytes[][] {
  const { from, to } = range;
  if (from > to) return [];
  if (from <= 0xdfff && to >= 0xd800) {
    return [...utf8({ from, to: Math.min(to, 0xd7ff) }), ...utf8({ from: Math.max(from, 0xe000), to })];
  }
  const length = LONGEST.findIndex((last) => from <= last) + 1;
  const longest = LONGEST[length - 1]!;
  if (to > longest) return [...utf8({ from, to: longest }), ...utf8({ from: longest + 1, to })];
  // Where two ends differ before their last i bytes, those must run over everything.
  for (let i = 1; i < length; i++) {
    const low = 64 ** i - 1;
    if ((from | low) === (to | low)) continue;
    if ((from & low) !== 0) return [...utf8({ from, to: from | low }), ...utf8({ from: (from | low) + 1, to })];
    if ((to & low) !== low) return [...utf8({ from, to: (to & ~low) - 1 }), ...utf8({ from: to & ~low, to })];
  }
  const first = encoded(from, length);
  const last = encoded(to, length);
  return [first.map((byte, i) => ({ from: byte, to: last[i]! }))];
}

function encoded(codePoint: number, length: number): number[] {
  return Array.from({ length }, (_, i) => {
    const bits = codePoint >> (6 * (length - 1 - i));
    return i === 0 ? LEADS[length - 1]! | bits : 0x80 | (bits & 0x3f);
  });
}
