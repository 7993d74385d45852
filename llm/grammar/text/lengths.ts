import { CODE_POINTS, DEAD, NONE, none, type Language, type Span } from './language.ts';
import { sizesOf } from './sizes.ts';

/** All texts of `min` to `max` code points. A state is how many have come, no further than counting matters. */
function lengths(min: number, max: number): Language {
  const limited = max < Infinity;
  const spansOf = (state: number): readonly Span[] => [
    ...(state < min ? [{ below: min - state, label: NONE }] : []),
    ...(limited ? [{ below: max - state + 1, label: 0 }] : []),
    { below: Infinity, label: limited ? NONE : 0 },
  ];
  const step = (state: number): number => (state < max ? (limited || state < min ? state + 1 : state) : DEAD);
  return {
    key: `lengths ${min} ${max}`,
    start: 0,
    step,
    ranges: (state) => {
      const next = step(state);
      return next === DEAD ? [] : CODE_POINTS.map(([from, to]) => ({ from, to, state: next }));
    },
    label: (state) => (state >= min ? 0 : NONE),
    spans: spansOf,
    sizes: (state) => sizesOf(spansOf(state)),
    letters: [],
  };
}

/** Every text. */
export const all: Language = lengths(0, Infinity);

/** Texts of at least `count` code points. */
export function atLeast(count: number): Language {
  return lengths(Math.max(0, Math.ceil(count)), Infinity);
}

/** Texts of at most `count` code points. */
export function atMost(count: number): Language {
  return count < 0 ? none : lengths(0, Math.floor(count));
}
