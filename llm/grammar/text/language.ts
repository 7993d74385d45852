import type { Sizes } from './sizes.ts';

/**
 * A set of texts as a deterministic automaton over Unicode code points, built as it is walked: what `pattern`, `enum`,
 * `format`, lengths and the keys of objects are made of. JSON's quotes and escapes, and UTF-8, come on top (json/string.ts).
 * Surrogates are no code points here: no language holds a text with one.
 */
export interface Language {
  /** Languages of one key are equal. */
  readonly key: string;
  /** DEAD in the empty language alone, which is `none`. */
  readonly start: number;
  /** The state after `codePoint`, or DEAD, from which nothing is accepted. */
  step(state: number, codePoint: number): number;
  /** Which code points lead on from `state`, as sorted, disjoint ranges (both ends included); the others lead to DEAD. */
  ranges(state: number): readonly Range[];
  /** What the text that led to `state` is: NONE where it is not in the language, else a number from 0 on (see `words`). */
  label(state: number): number;
  /**
   * Where the number of code points that follow `state` is known to decide the label alone: the labels by that number;
   * else null.
   */
  spans(state: number): readonly Span[] | null;
  /**
   * Where this is the same of two states: the next `most` code points do the same from both, and as many bytes as from one
   * lead to the end of a text then. Null: nothing is known.
   */
  near?(state: number, most: number): string | null;
  /** How many code points follow `state` to the end of a text, where all of them are so. */
  sizes(state: number, made: Made): Sizes;
  /** A few code points, of different kinds where it tells these apart: what can be known of one alone is asked of them. */
  readonly letters: readonly number[];
  /** Of a list of texts: them, with their labels. */
  readonly texts?: ReadonlyMap<string, number>;
}

export interface Range {
  readonly from: number;
  readonly to: number;
  readonly state: number;
}

/** Fewer than `below` code points, and no fewer than the span before, give this label. The last one's `below` is Infinity. */
export interface Span {
  readonly below: number;
  readonly label: number;
}

/** The state from which nothing is accepted. Every other state leads to an accepting one. */
export const DEAD = -1;

/** The label of a text outside the language. */
export const NONE = -1;

/** No text. */
export const none: Language = {
  key: 'none',
  start: DEAD,
  step: () => DEAD,
  ranges: () => [],
  label: () => NONE,
  spans: () => [{ below: Infinity, label: NONE }],
  sizes: () => ({ ranges: [], sure: Infinity }),
  letters: [],
};

/** All code points: two ranges, as the surrogates lie between. */
export const CODE_POINTS: readonly (readonly [from: number, to: number])[] = [
  [0, 0xd7ff],
  [0xe000, 0x10ffff],
];

/** Code points that take one byte wherever they are written. */
export const SHORT: readonly (readonly [from: number, to: number])[] = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0x7f],
];

/** Of which code points a text is: of any, of some that are `SHORT`, or of this one alone. */
export type Made = 'any' | 'short' | number;

/** So many letters are asked about. */
export const LETTERS = 8;

export function isShort(codePoint: number): boolean {
  return SHORT.some(([from, to]) => from <= codePoint && codePoint <= to);
}

/** Spans whose neighbours have different labels: equal lists are equal functions. */
export function spans(list: readonly Span[]): readonly Span[] {
  return list.filter(({ label }, i) => label !== list[i + 1]?.label);
}

/** Whether a range of the list meets from … to. */
export function meets(ranges: readonly Range[], from: number, to: number): boolean {
  const first = firstFrom(ranges, from);
  return first < ranges.length && ranges[first]!.from <= to;
}

/** The place of the first range that ends at `codePoint` or behind it. */
export function firstFrom(ranges: readonly Range[], codePoint: number): number {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[middle]!.to < codePoint) low = middle + 1;
    else high = middle;
  }
  return low;
}
