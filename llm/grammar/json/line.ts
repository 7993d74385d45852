import type { Outcome } from '../automaton.ts';
import { Unsupported } from '../refusal.ts';
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

/** A number at which outcomes change, without its sign; as a place on the line, zero is none. */
interface Cut extends Scientific {
  readonly outcome: Outcome | null;
}

/** The numbers between two others, themselves left out. */
interface Interval {
  readonly above: Scientific;
  readonly below: Scientific;
  /** By pattern. */
  readonly outcomes: readonly (Outcome | null)[];
  /** Those that are wanted. */
  readonly patterns: readonly number[];
}

/** Numbers of one sign, by what they are without it. */
interface Side {
  readonly cuts: readonly Cut[];
  /** Before the first cut, between each two, behind the last. */
  readonly intervals: readonly Interval[];
  /** The cuts by their digits: what lies between two neighbours is told apart from no cut by its place alone. */
  readonly byDigits: readonly Cut[];
  /** Places of a first digit: only these and those where multiples do may differ from the next below or above. */
  readonly leads: ReadonlySet<number>;
}

/**
 * Numbers other than zero lie between these two, themselves left out: what is nearer to zero or farther from it, JavaScript
 * may read as zero or infinite. 5e-324 and 1.7976931348623157e308 are the ends of what it prints.
 */
export const nearest: Scientific = { mantissa: '4', lead: -324 };
export const farthest: Scientific = { mantissa: '17976931348623158', lead: 308 };

/** Of the different divisors of one number other than 1; each doubles the combinations that are looked at. */
const most = 8;

/**
 * The line of numbers, cut where a bound or one of some values lies: at each cut and between each two all truths but those
 * of multiples are constant. Which multiples a number is is a pattern of bits.
 */
export class Line {
  private readonly multiples: readonly Decimal[];
  private readonly zero: Outcome | null;
  private readonly positive: Side;
  private readonly negative: Side;
  /** The least number that all digits of multiples divide. */
  private readonly period: bigint;
  /** Below the first place no multiple has its first digit; where a number's last is above the second, all are alike. */
  private readonly kinks: readonly [number, number];
  /** Whether all is wanted, whatever the truths. */
  readonly everything: boolean;

  /**
   * `outcome`: of the tests' truths, null where they are not wanted. `integers`: that only integers are asked about, all of
   * which are multiples of 1, of 0.5 and the like.
   */
  constructor(
    tests: readonly NumberTest[],
    outcome: (truths: readonly boolean[]) => Outcome | null,
    integers: boolean,
  ) {
    const name = ({ digits, exponent }: Decimal): string => `${digits} ${exponent}`;
    const nought: Decimal = { digits: 0n, exponent: 0 };
    const values = new Map([[name(nought), nought]]);
    const bounds = new Set<string>();
    const multiples = new Map<string, Decimal>();
    for (const test of tests) {
      if (test.kind === 'multiple') multiples.set(name(test.of), test.of);
      else if (test.kind === 'among') for (const value of test.values) values.set(name(value), value);
      else {
        values.set(name(test.bound), test.bound);
        bounds.add(name(test.bound));
      }
    }
    this.multiples = [...multiples.values()].filter((of) => !(integers && isMultiple({ digits: 1n, exponent: 0 }, of)));
    const others = this.multiples.filter(({ digits, exponent }) => digits !== 1n || exponent !== 0);
    if (others.length > most) {
      const listed = others.map(({ digits, exponent }) => `${digits}e${exponent}`).join(', ');
      throw new Unsupported(
        `[grammar] multipleOf ${listed} of one number: more than ${most} of them are not supported`,
      );
    }
    this.period = this.multiples.reduce((all, { digits }) => (all / gcd(all, digits)) * digits, 1n);
    this.kinks = [
      Math.min(...this.multiples.map((of) => scientific(of).lead - 1)),
      Math.max(...this.multiples.map((of) => of.exponent + of.digits.toString(2).length)),
    ];

    // By region: 2i is the interval below the i-th value, 2i + 1 the value.
    const sorted = [...values].map(([key, value]) => ({ key, value, ...scientific(value) }));
    const sign = ({ value }: { value: Decimal }): number => Number(value.digits > 0n) - Number(value.digits < 0n);
    sorted.sort((a, b) => sign(a) - sign(b) || sign(a) * compare(a, b));
    const places = new Map(sorted.map(({ key }, i) => [key, i]));
    const truths = tests.map((test): ((region: number, pattern: number) => boolean) => {
      if (test.kind === 'among') {
        const regions = new Set(test.values.map((value) => 2 * places.get(name(value))! + 1));
        return (region) => regions.has(region);
      }
      if (test.kind === 'below') {
        const region = 2 * places.get(name(test.bound))! + Number(test.inclusive);
        return (other) => other <= region;
      }
      const bit = this.multiples.indexOf(multiples.get(name(test.of))!);
      return (_, pattern) => bit < 0 || ((pattern >> bit) & 1) === 1;
    });
    const at = (region: number, pattern: number): Outcome | null =>
      outcome(truths.map((truth) => truth(region, pattern)));
    const patterns = Array.from({ length: 1 << this.multiples.length }, (_, pattern) => pattern);
    const side = (step: 1 | -1): Side => {
      const cuts: Cut[] = [];
      const intervals: Interval[] = [];
      const beside = (i: number): (Outcome | null)[] => patterns.map((pattern) => at(2 * i + 1 + step, pattern));
      let outcomes = beside(zero);
      const interval = (below: Scientific): void => {
        const wanted = patterns.filter((pattern) => outcomes[pattern] !== null);
        intervals.push({ above: cuts.at(-1) ?? nearest, below, outcomes, patterns: wanted });
      };
      for (let i = zero + step; sorted[i] !== undefined; i += step) {
        const { key, mantissa, lead, value } = sorted[i]!;
        const pattern = this.pattern(value);
        const cut = { mantissa, lead, outcome: at(2 * i + 1, pattern) };
        if (compare(cut, farthest) >= 0) break;
        // Bounds alone change what holds beside them.
        const next = bounds.has(key) ? beside(i) : outcomes;
        const same = cut.outcome === outcomes[pattern] && next.every((so, pattern) => so === outcomes[pattern]);
        if (!same && compare(cut, nearest) > 0) {
          interval(cut);
          cuts.push(cut);
        }
        outcomes = next;
      }
      interval(farthest);
      const order = (a: string, b: string): number => Number(a > b) - Number(a < b);
      const byDigits = [...cuts].sort((a, b) => order(a.mantissa, b.mantissa) || a.lead - b.lead);
      const leads = new Set(cuts.flatMap(({ lead }) => [lead - 1, lead, lead + 1]));
      return { cuts, intervals, byDigits, leads };
    };
    const zero = places.get(name(nought))!;
    this.zero = at(2 * zero + 1, patterns.at(-1)!);
    this.positive = side(1);
    this.negative = side(-1);
    this.everything =
      this.zero !== null &&
      [this.positive, this.negative].every(
        ({ cuts, intervals }) =>
          cuts.every((cut) => cut.outcome !== null) &&
          intervals.every((interval) => interval.patterns.length === patterns.length),
      );
  }

  /** Which multiples the number is. */
  private pattern(value: Decimal): number {
    return this.multiples.reduce((bits, of, i) => bits | (Number(isMultiple(value, of)) << i), 0);
  }

  private side(negative: boolean): Side {
    return negative ? this.negative : this.positive;
  }

  /** Of the number whose first digit is worth 10^lead; no digits: of zero. */
  outcome(negative: boolean, digits: string, lead: number): Outcome | null {
    const mantissa = stripped(digits);
    if (mantissa === '') return this.zero;
    const { cuts, intervals } = this.side(negative);
    const number = { mantissa, lead };
    const i = first(cuts, (cut) => compare(cut, number) >= 0);
    if (cuts[i] !== undefined && compare(cuts[i]!, number) === 0) return cuts[i]!.outcome;
    return intervals[i]!.outcomes[this.pattern({ digits: BigInt(mantissa), exponent: lead - mantissa.length + 1 })]!;
  }

  /** The outcome that all these numbers share; undefined where a cut or a multiple may tell them apart. */
  shared(negative: boolean, { digits, spans, zero }: Completions): Outcome | null | undefined {
    if (spans.length === 0) return this.zero;
    const { cuts, intervals } = this.side(negative);
    const lowest = { mantissa: stripped(digits) || '1', lead: Math.min(...spans.map(({ from }) => from)) };
    const highest = Math.max(...spans.map(({ to }) => to));
    const i = first(cuts, (cut) => compare(cut, lowest) >= 0);
    const next = cuts[i];
    if (next !== undefined && next.lead < highest) return undefined;
    if (next?.lead === highest && (next.mantissa < digits || begins(next, digits))) return undefined;
    const outcome = intervals[i]!.outcomes[0]!;
    if (zero && (i > 0 || this.zero !== outcome)) return undefined;
    return intervals[i]!.outcomes.every((other) => other === outcome) ? outcome : undefined;
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
    const cuts = this.side(negative).byDigits;
    const i = first(cuts, (cut) => cut.mantissa >= mantissa);
    const place = cuts[i] !== undefined && begins(cuts[i], digits) ? `=${digits}` : i;
    if (this.multiples.length === 0) return `${place}`;
    return `${place} ${digits.length - mantissa.length} ${BigInt(mantissa) % this.period}`;
  }

  /** Whether one of the numbers is wanted. */
  wantsAny(negative: boolean, { digits, spans, zero }: Completions): boolean {
    if (zero && this.zero !== null) return true;
    if (spans.length === 0) return false;
    const side = this.side(negative);
    const start = stripped(digits);
    for (let i = first(side.byDigits, (cut) => cut.mantissa >= start); i < side.byDigits.length; i++) {
      const { mantissa, lead, outcome } = side.byDigits[i]!;
      if (!begins(side.byDigits[i]!, digits)) break;
      const reached = ({ from, to, depth, relative }: Span): boolean =>
        from <= lead && lead <= to && lead - mantissa.length + 1 >= (relative ? lead : 0) - depth;
      if (outcome !== null && spans.some(reached)) return true;
    }
    const [lowest, highest] = this.kinks;
    for (const { from, to, depth, relative } of spans) {
      for (let lead = Math.max(from, nearest.lead); lead <= Math.min(to, farthest.lead); lead++) {
        const alike = relative && lead > Math.max(from, nearest.lead + 1) && lead < Math.min(to, farthest.lead - 1);
        if (alike && !side.leads.has(lead) && !(lead >= lowest && lead <= highest + depth)) continue;
        if (this.meets(side, digits, lead, (relative ? lead : 0) - depth)) return true;
      }
    }
    return false;
  }

  /** Whether a number is wanted that takes however many digits to write. Bounds alone have short numbers between them. */
  get wantsSome(): boolean {
    if (this.multiples.length === 0) return false;
    // Two digits below all that cuts and multiples have, there are numbers on both sides of each, and such as are no multiples.
    const cuts = [...this.positive.cuts, ...this.negative.cuts];
    const lowest = [
      ...cuts.map(({ mantissa, lead }) => lead - mantissa.length + 1),
      ...this.multiples.map(({ exponent }) => exponent),
    ];
    const depth = lowest.reduce((depth, place) => Math.max(depth, -place), 0) + 2;
    const spans = [{ from: Math.max(nearest.lead, -depth), to: farthest.lead, depth, relative: false }];
    return [false, true].some((negative) => this.wantsAny(negative, { digits: '', zero: true, spans }));
  }

  /** Whether a wanted number between cuts has these first digits, the first worth 10^lead, and none below 10^unit. */
  private meets({ cuts, intervals }: Side, digits: string, lead: number, unit: number): boolean {
    const start = { mantissa: stripped(digits) || '1', lead };
    // The numbers are i × 10^unit for i from `least` to `most`.
    const scale = tenTo(lead - Math.max(0, digits.length - 1) - unit);
    const least = (digits === '' ? 1n : BigInt(digits)) * scale;
    const most = (digits === '' ? 10n : BigInt(digits) + 1n) * scale - 1n;
    for (let i = first(cuts, (cut) => compare(cut, start) >= 0); i < intervals.length; i++) {
      const { above, below, patterns } = intervals[i]!;
      let [low, high] = [least, most];
      if (above.lead === lead) {
        const [next] = around(above, unit);
        if (next > low) low = next;
      }
      if (below.lead === lead) {
        const [, last] = around(below, unit);
        if (last < high) high = last;
      }
      if (above.lead <= lead && below.lead >= lead && low <= high) {
        if (patterns.some((pattern) => this.divides(pattern, low, high, unit))) return true;
      }
      // The next interval lies beyond.
      if (below.lead > lead || high === most) break;
    }
    return false;
  }

  /** Whether i × 10^unit, for an i from `low` to `high`, is a multiple of what the pattern has and of nothing else. */
  private divides(pattern: number, low: bigint, high: bigint, unit: number): boolean {
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
    const last = start + (1n << BigInt(others.length)) - 1n;
    for (let i = start; i <= last && i * all <= high; i++) if (others.every((other) => i % other !== 0n)) return true;
    return false;
  }
}

/** The least integer i such that i × 10^unit is above the number, and the largest such that it is below. */
function around({ mantissa, lead }: Scientific, unit: number): [bigint, bigint] {
  const exponent = lead - mantissa.length + 1 - unit;
  const scale = tenTo(Math.abs(exponent));
  if (exponent >= 0) return [BigInt(mantissa) * scale + 1n, BigInt(mantissa) * scale - 1n];
  // Its last digit is not 0, so that it lies between two.
  return [BigInt(mantissa) / scale + 1n, BigInt(mantissa) / scale];
}

/** Of what i is a multiple where i × 10^unit is one of `of`. */
function divisor({ digits, exponent }: Decimal, unit: number): bigint {
  if (exponent > unit) return digits * tenTo(exponent - unit);
  // No power of 2 or 5 in `digits` is higher than its number of bits.
  return digits / gcd(digits, tenTo(Math.min(unit - exponent, digits.toString(2).length)));
}

/** Without the zeros at the end. */
export function stripped(digits: string): string {
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
