import type { CodePoints } from './parse.ts';

/** Bytes from one to another, both included. */
export interface Bytes {
  readonly from: number;
  readonly to: number;
}

/** A set of bytes, as 256 bits. */
export type Bits = Uint32Array;

export function bits(ranges: readonly Bytes[]): Bits {
  const set = new Uint32Array(8);
  for (const { from, to } of ranges) for (let byte = from; byte <= to; byte++) set[byte >>> 5]! |= 1 << (byte & 31);
  return set;
}

export function hasBit(set: Bits, byte: number): boolean {
  return ((set[byte >>> 5]! >>> (byte & 31)) & 1) === 1;
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

/** The first bytes of a character: the code points that it may be, and how many bytes are still to come. */
export interface Begun extends CodePoints {
  readonly left: number;
}

/** What a character's first byte says of it; null: no character begins so. */
export function begun(byte: number): Begun | null {
  if (byte < 0x80) return { from: byte, to: byte, left: 0 };
  if (byte < 0xc2 || byte > 0xf4) return null;
  const left = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
  const low = (byte & (0x3f >> left)) * 64 ** left;
  // Not what fewer bytes are for, no surrogates, nothing above U+10FFFF.
  const from = Math.max(low, LONGEST[left - 1]! + 1);
  const to = byte === 0xed ? 0xd7ff : Math.min(low + 64 ** left - 1, LONGEST[3]!);
  return { from, to, left };
}

/** The character after one more byte; null where there is none. */
export function continued({ from, to, left }: Begun, byte: number): Begun | null {
  if ((byte & 0xc0) !== 0x80) return null;
  const width = 64 ** (left - 1);
  const low = from - (from % (64 * width)) + (byte & 0x3f) * width;
  const next = { from: Math.max(from, low), to: Math.min(to, low + width - 1), left: left - 1 };
  return next.from <= next.to ? next : null;
}
