/**
 * A set of texts as a deterministic automaton over Unicode code points, built as it is walked: what `pattern`, `enum`,
 * `format`, lengths and the keys of objects are made of. JSON's quotes and escapes, and UTF-8, come on top (json/string.ts).
 * Surrogates are no code points here: no language holds a text with one.
 */
export interface Language {
  /** Languages of one key are equal. */
  readonly key: string;
  readonly start: number;
  /** The state after `codePoint`, or DEAD, from which nothing is accepted. */
  step(state: number, codePoint: number): number;
  /** Which code points lead on from `state`, as sorted, disjoint ranges (both ends included); the others lead to DEAD. */
  ranges(state: number): readonly Range[];
  /** What the text that led to `state` is: NONE where it is not in the language, else a number from 0 on (see `words`). */
  label(state: number): number;
}

export interface Range {
  readonly from: number;
  readonly to: number;
  readonly state: number;
}

/** The state from which nothing is accepted. Every other state leads to an accepting one. */
export const DEAD = -1;

/** The label of a text outside the language. */
export const NONE = -1;
