import { NONE, type Span } from './language.ts';

/**
 * How many code points the texts of a set have: sorted ranges, both ends included, no two of which touch. No text has
 * another number; of those below `sure` each is some text's.
 */
export interface Sizes {
  readonly ranges: readonly Range[];
  readonly sure: number;
}

type Range = readonly [min: number, max: number];

/** So many ranges are kept: behind them it is not known which numbers are left out. */
const RANGES = 64;

/** Of no text. */
export const NO_SIZE: Sizes = { ranges: [], sure: Infinity };

/** Of texts of which nothing is known. */
export const ANY_SIZE: Sizes = { ranges: [[0, Infinity]], sure: 0 };

/** Of texts with so many code points, all of them. */
export function sized(min: number, max: number): Sizes {
  return { ranges: [[min, max]], sure: Infinity };
}

const ONE_EMPTY = sized(0, 0);

/** The numbers to which a label belongs. */
export function sizesOf(spans: readonly Span[]): Sizes {
  const ranges: Range[] = [];
  spans.forEach(({ below, label }, i) => {
    if (label !== NONE) ranges.push([i === 0 ? 0 : spans[i - 1]!.below, below - 1]);
  });
  return sizes(ranges, Infinity);
}

/** The least number that may be some text's; Infinity where there is none. */
export function fewest({ ranges }: Sizes): number {
  return ranges[0]?.[0] ?? Infinity;
}

/** Whether there is a text; null where that is not known. */
export function some(of: Sizes): boolean | null {
  if (of.ranges.length === 0) return false;
  return fewest(of) < of.sure ? true : null;
}

/** Of the texts of both sets. */
export function either(...sets: readonly Sizes[]): Sizes {
  return sizes(
    sets.flatMap(({ ranges }) => ranges),
    Math.min(...sets.map(({ sure }) => sure)),
  );
}

/** The numbers that are none of these. */
export function others({ ranges, sure }: Sizes): Sizes {
  const gaps: Range[] = [];
  let from = 0;
  for (const [min, max] of ranges) {
    if (from < Math.min(min, sure)) gaps.push([from, Math.min(min, sure) - 1]);
    from = max + 1;
  }
  if (from < sure) gaps.push([from, sure - 1]);
  return sure === Infinity ? { ranges: gaps, sure } : sizes([...gaps, [sure, Infinity]], sure);
}

/** Of texts that are in all sets, of which all but one are told by the number alone. */
export function both(sets: readonly Sizes[]): Sizes {
  const [first, ...others] = sets;
  let ranges = first!.ranges;
  for (const other of others) {
    const common: Range[] = [];
    for (let [i, j] = [0, 0]; i < ranges.length && j < other.ranges.length;) {
      const [min, max] = ranges[i]!;
      const [least, most] = other.ranges[j]!;
      if (Math.max(min, least) <= Math.min(max, most)) common.push([Math.max(min, least), Math.min(max, most)]);
      if (max < most) i += 1;
      else j += 1;
    }
    ranges = common;
  }
  return sizes(ranges, Math.min(...sets.map(({ sure }) => sure)));
}

/** Of a text of one set and then one of the other. */
export function behind(one: Sizes, other: Sizes): Sizes {
  if (one.ranges.length === 0 || other.ranges.length === 0) return NO_SIZE;
  const ranges = one.ranges.flatMap(([min, max]) =>
    other.ranges.map(([least, most]): Range => [min + least, max + most]),
  );
  return sizes(ranges, Math.min(one.sure + fewest(other), other.sure + fewest(one)));
}

/** Of `min` to `max` texts of the set, one behind the other. */
export function times(of: Sizes, min: number, max: number): Sizes {
  if (max === 0) return ONE_EMPTY;
  const [range] = of.ranges;
  if (range === undefined) return min === 0 ? ONE_EMPTY : of;
  const [least, most] = range;
  // The numbers of k texts and of k + 1 touch, from `min` on.
  const touch = min === max || (most - least) * min + 1 >= least;
  if (of.ranges.length === 1 && of.sure === Infinity && touch) return sized(least * min, most === 0 ? 0 : most * max);
  return behind(exactly(of, min), upTo(of, max - min));
}

/** Of so many texts: each has as many code points as the shortest, and some more. */
function exactly(of: Sizes, count: number): Sizes {
  const least = fewest(of);
  const more = { ranges: of.ranges.map(([min, max]): Range => [min - least, max - least]), sure: of.sure - least };
  return behind(sized(least * count, least * count), upTo(more, count));
}

/** Of at most so many texts. */
function upTo(of: Sizes, count: number): Sizes {
  if (count === 0) return ONE_EMPTY;
  const optional = either(of, ONE_EMPTY);
  const found = count === Infinity ? null : power(optional, count);
  if (found !== null) return found;
  const any = closure(optional);
  // As far as more texts than `count` have more code points than that.
  const known = count === Infinity ? Infinity : (count + 1) * leastOf(optional);
  const most = highest(of) === 0 ? 0 : highest(of) * count;
  return { ranges: both([any, sized(0, most)]).ranges, sure: Math.min(any.sure, known) };
}

/** Of `count` texts; null where too many ranges come of them. */
function power(of: Sizes, count: number): Sizes | null {
  let result = ONE_EMPTY;
  for (let [left, square] = [count, of]; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) result = behind(result, square);
    if (left > 1) square = behind(square, square);
    if (Math.min(result.sure, square.sure) < Infinity) return null;
  }
  return result;
}

/** Of any number of texts of the set, which has the empty one. */
function closure(of: Sizes): Sizes {
  const least = leastOf(of);
  if (least === Infinity) return of;
  for (let [count, found] = [1, of]; ; count *= 2, found = behind(found, found)) {
    // More than `count` texts that are not empty have as many code points as that.
    const known = Math.min((count + 1) * least, found.sure);
    // From a range as long as the shortest text on, each number is the one so much below it and that text.
    const full = found.ranges.find(([min, max]) => max - min + 1 >= least);
    if (full && full[0] <= known && full[0] + least < found.sure) {
      return { ranges: [...found.ranges.filter(([min]) => min < full[0]), [full[0], Infinity]], sure: Infinity };
    }
    if (found.sure < Infinity) {
      const below = found.ranges.filter(([min]) => min < known);
      return sizes([...below, [known, Infinity]], known);
    }
  }
}

/** The least number but 0. */
function leastOf({ ranges }: Sizes): number {
  const [first, second] = ranges;
  return first === undefined ? Infinity : first[0] > 0 ? first[0] : first[1] > 0 ? 1 : (second?.[0] ?? Infinity);
}

function highest({ ranges }: Sizes): number {
  return ranges.at(-1)![1];
}

/** Ranges in any order. */
function sizes(all: Iterable<Range>, sure: number): Sizes {
  const ranges: [number, number][] = [];
  for (const [min, max] of [...all].sort((a, b) => a[0] - b[0])) {
    const before = ranges.at(-1);
    if (before && min <= before[1] + 1) before[1] = Math.max(before[1], max);
    else ranges.push([min, max]);
  }
  if (ranges.length <= RANGES) return { ranges, sure };
  const [, known] = ranges[RANGES - 1]!;
  return {
    ranges: [...ranges.slice(0, RANGES), [ranges[RANGES]![0], ranges.at(-1)![1]]],
    sure: Math.min(sure, known + 1),
  };
}
