import { compare, gcd, isMultiple, scientific, tenTo } from './decimal.ts';
import type { Decimal, Scientific } from './decimal.ts';
import type { NumberTest } from './number.ts';

/**
 * The numbers that begin with `digits` (none: any digits, the first other than 0): for each place of the first digit from
 * 10^from to 10^to, those that have no digit below the lowest place. That is 10^-depth, or, where `relative`, `depth` places
 * below the first digit.
 */
export interface Span {
  readonly from: number;
  readonly to: number;
  readonly depth: number;
  readonly relative: boolean;
}

/** A number's possible endings, without its sign. */
export interface Completions {
  readonly digits: string;
  readonly spans: readonly Span[];
  readonly zero: boolean;
}

/** A number at which truths change, without its sign. */
interface Cut extends Scientific {
  readonly value: Decimal;
  /** Whether it is a bound. */
  readonly bound: boolean;
  readonly region: number;
}

/** The numbers between two cuts, themselves left out; null: zero below, or nothing above. */
interface Interval {
  readonly above: Cut | null;
  readonly below: Cut | null;
  readonly patterns: readonly number[] | 'all';
}

/** Numbers of one sign, by what they are without it. */
interface Side {
  readonly cuts: readonly Cut[];
  /** The cuts by their digits: what lies between two neighbours is told apart from no cut by its place alone. */
  readonly digits: readonly Cut[];
  /** Of the interval behind so many cuts. */
  readonly regions: readonly number[];
  /** What is wanted: cuts by their digits, and intervals. */
  readonly points: readonly Cut[];
  readonly intervals: readonly Interval[];
}

/** Of the different divisors of one number; each doubles the combinations that are looked at. */
const most = 8;

/**
 * The line of numbers, cut where a bound or one of some values lies: at each cut and between each two all truths but those
 * of multiples are constant. A region is 2i for the interval below the i-th cut and 2i + 1 for the cut; which multiples a
 * number is is a pattern of bits. Zero is a cut always.
 */
export class Line {
  private readonly tests: readonly NumberTest[];
  /** By test: the cut of a bound, the bit of a multiple (−1: all numbers are). */
  private readonly places: readonly number[];
  private readonly among: readonly (ReadonlySet<number> | null)[];
  private readonly multiples: readonly Decimal[];
  private readonly zero: number;
  private readonly positive: Side;
  private readonly negative: Side;
  private readonly zeroWanted: boolean;
  private readonly period: bigint;
  /** The lowest and the highest place of a first digit between which multiples depend on it. */
  private readonly kinks: readonly [number, number];
  readonly wants: (truths: readonly boolean[]) => boolean;
  /** Whether all is wanted, whatever the truths. */
  readonly everything: boolean;

  /** `integers`: that only integers are asked about, all of which are multiples of 1, of 0.5 and the like. */
  constructor(tests: readonly NumberTest[], wanted: (truths: readonly boolean[]) => boolean, integers: boolean) {
    this.tests = tests;
    this.wants = wanted;
    const cuts = new Map<string, Decimal>([['0 0', { digits: 0n, exponent: 0 }]]);
    const name = ({ digits, exponent }: Decimal): string => `${digits} ${exponent}`;
    const bounds = new Set<string>();
    const multiples = new Map<string, Decimal>();
    for (const test of tests) {
      if (test.kind === 'multiple') multiples.set(name(test.of), test.of);
      else if (test.kind === 'among') for (const value of test.values) cuts.set(name(value), value);
      else {
        cuts.set(name(test.bound), test.bound);
        bounds.add(name(test.bound));
      }
    }
    const one = { digits: 1n, exponent: 0 };
    this.multiples = [...multiples.values()].filter((of) => !(integers && isMultiple(one, of)));
    if (this.multiples.length > most) {
      const listed = this.multiples.map(({ digits, exponent }) => `${digits}e${exponent}`).join(', ');
      throw new Error(`[grammar] multipleOf ${listed} of one number: more than ${most} of them are not supported`);
    }
    const sorted = [...cuts].map(([key, value]) => ({ key, value, ...scientific(value) }));
    const sign = ({ value }: { value: Decimal }): number => Number(value.digits > 0n) - Number(value.digits < 0n);
    sorted.sort((a, b) => sign(a) - sign(b) || sign(a) * compare(a, b));
    const places = new Map(sorted.map(({ key }, i) => [key, i]));
    this.zero = places.get('0 0')!;
    this.places = tests.map((test) => {
      if (test.kind === 'multiple') return this.multiples.indexOf(multiples.get(name(test.of))!);
      return test.kind === 'below' ? places.get(name(test.bound))! : 0;
    });
    this.among = tests.map((test) =>
      test.kind === 'among' ? new Set(test.values.map((value) => places.get(name(value))!)) : null,
    );
    this.period = this.multiples.reduce((all, { digits }) => (all / gcd(all, digits)) * digits, 1n);
    this.kinks = [
      Math.min(0, ...this.multiples.map((of) => scientific(of).lead - 1)),
      Math.max(0, ...this.multiples.map((of) => of.exponent + of.digits.toString(2).length)),
    ];

    const all = 1 << this.multiples.length;
    const patterns = (region: number): readonly number[] | 'all' => {
      const found = Array.from({ length: all }, (_, pattern) => pattern).filter((pattern) =>
        wanted(this.truths(region, pattern)),
      );
      return found.length === all ? 'all' : found;
    };
    const cut = (i: number): Cut => {
      const { key, value, mantissa, lead } = sorted[i]!;
      const digits = value.digits < 0n ? -value.digits : value.digits;
      return { mantissa, lead, value: { ...value, digits }, bound: bounds.has(key), region: 2 * i + 1 };
    };
    const side = (from: number, step: 1 | -1): Side => {
      const cuts: Cut[] = [];
      for (let i = from; sorted[i] !== undefined; i += step) cuts.push(cut(i));
      const regions = [from - (step - 1) / 2, ...cuts.map((_, i) => from + step * (i + 1) - (step - 1) / 2)].map(
        (cut) => 2 * cut,
      );
      const byDigits = (a: Cut, b: Cut): number =>
        Number(a.mantissa > b.mantissa) - Number(a.mantissa < b.mantissa) || a.lead - b.lead;
      const digits = [...cuts].sort(byDigits);
      const points = digits.filter(({ region, value }) => wanted(this.truths(region, this.pattern(value))));
      const intervals: Interval[] = [];
      let current: readonly number[] | 'all' = [];
      for (let i = 0; i < regions.length; i++) {
        // Bounds alone change what holds beside a cut.
        if (i === 0 || cuts[i - 1]!.bound) current = patterns(regions[i]!);
        if (current.length > 0)
          intervals.push({ above: cuts[i - 1] ?? null, below: cuts[i] ?? null, patterns: current });
      }
      return { cuts, digits, regions, points, intervals };
    };
    this.positive = side(this.zero + 1, 1);
    this.negative = side(this.zero - 1, -1);
    this.zeroWanted = wanted(this.truths(2 * this.zero + 1, all - 1));
    this.everything =
      this.zeroWanted &&
      [this.positive, this.negative].every(
        ({ cuts, points, regions, intervals }) =>
          points.length === cuts.length &&
          intervals.length === regions.length &&
          intervals.every(({ patterns }) => patterns === 'all'),
      );
  }

  private truths(region: number, pattern: number): boolean[] {
    return this.tests.map((test, i) => {
      const place = this.places[i]!;
      if (test.kind === 'multiple') return place < 0 || ((pattern >> place) & 1) === 1;
      if (test.kind === 'among') return region % 2 === 1 && this.among[i]!.has((region - 1) / 2);
      return region < 2 * place + 1 || (test.inclusive && region === 2 * place + 1);
    });
  }

  private pattern(value: Decimal): number {
    return this.multiples.reduce((bits, of, i) => bits | (Number(isMultiple(value, of)) << i), 0);
  }

  private side(negative: boolean): Side {
    return negative ? this.negative : this.positive;
  }

  private region(side: Side, number: Scientific): number {
    const i = first(side.cuts, (cut) => compare(cut, number) >= 0);
    const cut = side.cuts[i];
    return cut !== undefined && compare(cut, number) === 0 ? cut.region : side.regions[i]!;
  }

  /** Of the number whose first digit is worth 10^lead; no digits: of zero. */
  truthsOf(negative: boolean, digits: string, lead: number): boolean[] {
    const mantissa = stripped(digits);
    if (mantissa === '') return this.truths(2 * this.zero + 1, (1 << this.multiples.length) - 1);
    const value = { digits: BigInt(mantissa), exponent: lead - mantissa.length + 1 };
    return this.truths(this.region(this.side(negative), { mantissa, lead }), this.pattern(value));
  }

  /** The truths that all these numbers share, or null where a cut or a multiple may tell them apart. */
  shared(negative: boolean, { digits, spans, zero }: Completions): boolean[] | null {
    if (this.multiples.length > 0) return null;
    const zeroes = this.truths(2 * this.zero + 1, 0);
    if (spans.length === 0) return zeroes;
    const side = this.side(negative);
    const lowest = { mantissa: stripped(digits) || '1', lead: Math.min(...spans.map(({ from }) => from)) };
    const i = first(side.cuts, (cut) => compare(cut, lowest) >= 0);
    const next = side.cuts[i];
    const highest = Math.max(...spans.map(({ to }) => to));
    if (next !== undefined && next.lead < highest) return null;
    if (next !== undefined && next.lead === highest && (next.mantissa < digits || begins(next, digits))) return null;
    const truths = this.truths(side.regions[i]!, 0);
    return !zero || (i === 0 && truths.every((truth, k) => truth === zeroes[k])) ? truths : null;
  }

  /**
   * What tells numbers that begin with as many digits, and as many behind the point, apart, whatever follows: between
   * which cuts' digits theirs lie (all of them, where a cut begins with them), and for multiples of u × 10^v how many zeros
   * they end with and the rest modulo u. For appended digits r of f places make M × 10^f + r, which u × 10^e divides,
   * where e < f, by M modulo u and r alone, and where e ≥ f if r is 0 and u × 10^(e−f) divides M.
   */
  key(negative: boolean, digits: string): string {
    if (digits === '') return '';
    const mantissa = stripped(digits);
    const cuts = this.side(negative).digits;
    const i = first(cuts, (cut) => cut.mantissa >= mantissa);
    const place = cuts[i] !== undefined && begins(cuts[i], digits) ? `=${digits}` : i;
    if (this.multiples.length === 0) return `${place}`;
    return `${place} ${digits.length - mantissa.length} ${BigInt(mantissa) % this.period}`;
  }

  /** Whether one of the numbers is wanted. */
  wantsAny(negative: boolean, { digits, spans, zero }: Completions): boolean {
    if (zero && this.zeroWanted) return true;
    if (spans.length === 0) return false;
    const { points, intervals } = this.side(negative);
    const mantissa = stripped(digits);
    for (let i = first(points, (point) => point.mantissa >= mantissa); i < points.length; i++) {
      const { lead, value } = points[i]!;
      if (!begins(points[i]!, digits)) break;
      if (spans.some((span) => span.from <= lead && lead <= span.to && value.exponent >= lowest(span, lead)))
        return true;
    }
    return spans.some((span) => intervals.some((interval) => this.meets(interval, digits, span)));
  }

  private meets({ above, below, patterns }: Interval, digits: string, span: Span): boolean {
    const from = Math.max(span.from, above?.lead ?? -Infinity);
    const to = Math.min(span.to, below?.lead ?? Infinity);
    const at = (lead: number): boolean => {
      const unit = lowest(span, lead);
      // The numbers are i × 10^unit for i from `low` to `high`.
      const scale = tenTo(lead - Math.max(0, digits.length - 1) - unit);
      let low = (digits === '' ? 1n : BigInt(digits)) * scale;
      let high = (digits === '' ? 10n : BigInt(digits) + 1n) * scale - 1n;
      if (above?.lead === lead) {
        const next = floor(above.value, unit) + 1n;
        if (next > low) low = next;
      }
      if (below?.lead === lead) {
        const last = -floor({ ...below.value, digits: -below.value.digits }, unit) - 1n;
        if (last < high) high = last;
      }
      return (
        low <= high && (patterns === 'all' || patterns.some((pattern) => this.meetsPattern(pattern, low, high, unit)))
      );
    };
    if (from > to) return false;
    if (!span.relative) {
      for (let lead = from; lead <= to; lead++) if (at(lead)) return true;
      return false;
    }
    // Within an interval, what is below the lowest kink or above the highest is alike.
    if (at(from) || (to > from && at(to))) return true;
    const clamp = (lead: number): number => Math.min(Math.max(lead, from + 1), to - 1);
    if (to - from > 1) {
      const [lowKink, highKink] = this.kinks;
      for (let lead = clamp(lowKink); lead <= clamp(highKink + span.depth); lead++) if (at(lead)) return true;
    }
    return false;
  }

  /** Whether i × 10^unit, for an i from `low` to `high`, is a multiple of what the pattern has and of nothing else. */
  private meetsPattern(pattern: number, low: bigint, high: bigint, unit: number): boolean {
    let all = 1n;
    const divisors = this.multiples.map((of) => divisor(of, unit));
    divisors.forEach((divisor, k) => {
      if ((pattern >> k) & 1) all = (all / gcd(all, divisor)) * divisor;
    });
    const others = divisors.filter((_, k) => !((pattern >> k) & 1)).map((divisor) => divisor / gcd(divisor, all));
    if (others.includes(1n)) return false;
    // n arithmetic progressions that cover 2^n integers in a row cover all (Crittenden and Vanden Eynden 1970, "Any n
    // arithmetic progressions covering the first 2^n integers cover all integers"), and these do not cover 1.
    const start = (low + all - 1n) / all;
    const most = start + (1n << BigInt(others.length)) - 1n;
    for (let i = start; i <= most && i * all <= high; i++) if (others.every((other) => i % other !== 0n)) return true;
    return false;
  }
}

function lowest(span: Span, lead: number): number {
  return span.relative ? lead - span.depth : -span.depth;
}

/** The largest integer i such that i × 10^unit is not above the number. */
function floor({ digits, exponent }: Decimal, unit: number): bigint {
  if (exponent >= unit) return digits * tenTo(exponent - unit);
  const scale = tenTo(unit - exponent);
  return digits / scale - (digits < 0n && digits % scale !== 0n ? 1n : 0n);
}

/** Of what i is a multiple where i × 10^unit is one of `of`. */
function divisor({ digits, exponent }: Decimal, unit: number): bigint {
  if (exponent > unit) return digits * tenTo(exponent - unit);
  // No power of 2 or 5 in `digits` is higher than its number of bits.
  return digits / gcd(digits, tenTo(Math.min(unit - exponent, digits.toString(2).length)));
}

function stripped(digits: string): string {
  let end = digits.length;
  while (end > 0 && digits[end - 1] === '0') end -= 1;
  return digits.slice(0, end);
}

/** Whether the number's digits, zeros behind them, begin with these. */
function begins({ mantissa }: Scientific, digits: string): boolean {
  return mantissa.padEnd(digits.length, '0').startsWith(digits);
}

/** The first place in a sorted list from which on all are so. */
function first<T>(list: readonly T[], so: (item: T) => boolean): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (so(list[middle]!)) high = middle;
    else low = middle + 1;
  }
  return low;
}
