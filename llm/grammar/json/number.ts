import { Frame, Interned } from '../automaton.ts';
import type { Move, Outcome, Shortest } from '../automaton.ts';
import { Unsupported } from '../refusal.ts';
import type { Decimal } from './decimal.ts';
import { farthest, Line, nearest, stripped } from './line.ts';
import type { Completions, Span } from './line.ts';

/** What a number may be asked: to be less than a bound (or equal to it), a multiple, one of some. */
export type NumberTest =
  | { readonly kind: 'below'; readonly bound: Decimal; readonly inclusive: boolean }
  | { readonly kind: 'multiple'; readonly of: Decimal }
  | { readonly kind: 'among'; readonly values: readonly Decimal[] };

/** How many digits may stand before the point, behind it and in the exponent. */
export interface NumberLimits {
  readonly whole: number;
  readonly fraction: number;
  readonly exponent: number;
}

/** Enough for every text in which JavaScript prints a number: 21 digits up to 1e+21, 22 behind the point from 1e-6. */
export const limits: NumberLimits = { whole: 21, fraction: 24, exponent: 3 };

/** The texts of numbers as automata. */
export interface Numbers {
  /** After the first byte, a minus sign or a digit. */
  open(byte: number): Frame | null;
}

/**
 * The numbers of RFC 8259 by what the tests say of their exact value: `outcome` makes of the truths how the number ends, or
 * null where it is not wanted. Null where none is; where one is, but none within the limits, that is refused by name.
 *
 * The value decides, but not every text of it is offered, so that digits already written rule out what they seem to:
 * - where any truths are wanted, every text;
 * - else an exponent goes with one digit before the point, not 0 (1.5e-7, 3E05). Under a maximum of 100 no 250 begins 250e-1;
 * - where of those only integers are wanted, they are written in digits, and only what has more digits than `whole` with an
 *   exponent (1.5e+21; as many digits behind the point as `whole` at most, so that all are integers). 1.0 and 1e2 are not
 *   offered.
 *
 * No text is offered that JavaScript reads as infinite, or as zero though it is not; exponents that are not scientific (12e3,
 * 0.5e3) stop where that could come.
 *
 * `sole`: the one outcome, where there is but one.
 *
 * Numbers have no end of their own: a frame whose number is wanted ends at white space, a comma or a closing bracket,
 * which is not consumed.
 */
export function numbers(
  tests: readonly NumberTest[],
  outcome: (truths: readonly boolean[]) => Outcome | null,
  { whole, fraction, exponent }: NumberLimits = limits,
  sole: Outcome | null = null,
): Numbers | null {
  const most = 10 ** exponent - 1;
  const [lowest, highest] = [Math.max(-most, nearest.lead), Math.min(most, farthest.lead)];
  const real = { whole, fraction, exponent, lowest, highest, scientific: true, integers: false };
  const line = new Line(tests, outcome, false);
  if (line.everything) return new Reader({ ...real, scientific: false }, line, sole);
  const one: NumberTest = { kind: 'multiple', of: { digits: 1n, exponent: 0 } };
  const fractional = new Line(
    [...tests, one],
    (truths) => (truths.at(-1) ? null : outcome(truths.slice(0, -1))),
    false,
  );
  if (new Reader(real, fractional, sole).any) return new Reader(real, line, sole);
  const integer = { ...real, fraction: Math.min(fraction, whole), lowest: whole, integers: true };
  const reader = new Reader(integer, new Line(tests, outcome, true), sole);
  if (reader.any) return reader;
  if (line.wantsSome) {
    throw new Unsupported(
      `[grammar] multipleOf: the only numbers within the bounds have more than ${whole} digits before the point or ` +
        `${fraction} behind it, and are not written`,
    );
  }
  return null;
}

/** Which texts are offered. */
interface Form extends NumberLimits {
  /** Of exponents. */
  readonly lowest: number;
  readonly highest: number;
  /** An exponent needs one digit before the point, not 0. */
  readonly scientific: boolean;
  /** A fraction needs an exponent. */
  readonly integers: boolean;
}

type Phase = 'sign' | 'zero' | 'whole' | 'point' | 'fraction' | 'e' | 'exponent sign' | 'exponent';

/** What has been written of a number. */
interface Prefix {
  readonly phase: Phase;
  readonly negative: boolean;
  /** Digits before the point, without a 0. */
  readonly whole: number;
  /** Digits behind it. */
  readonly fraction: number;
  /** The digits from the first that is not 0. */
  readonly digits: string;
  readonly exponent: { readonly negative: boolean; readonly value: number; readonly digits: number };
}

class Reader implements Numbers {
  private readonly form: Form;
  private readonly line: Line;
  /** The outcome of all numbers, where they have one. */
  readonly sole: Outcome | null;
  private readonly frames = new Interned<NumberFrame | null>();

  constructor(form: Form, line: Line, sole: Outcome | null) {
    this.form = form;
    this.line = line;
    this.sole = sole;
  }

  /** Whether there is a number at all. */
  get any(): boolean {
    return BEGIN.some((byte) => this.open(byte) !== null);
  }

  open(byte: number): NumberFrame | null {
    const exponent = { negative: false, value: 0, digits: 0 };
    const prefix: Prefix = { phase: 'sign', negative: false, whole: 0, fraction: 0, digits: '', exponent };
    return byte === minus ? this.frame({ ...prefix, negative: true }) : this.step(prefix, null, byte);
  }

  step(prefix: Prefix, settled: Outcome | null, byte: number): NumberFrame | null {
    const next = this.next(prefix, byte);
    if (next === null) return null;
    return settled === null ? this.frame(next) : this.settled(next, settled);
  }

  /** The state of a number that begins so, where it can be completed; equal states are one frame. */
  private frame(prefix: Prefix): NumberFrame | null {
    const completions = this.completions(prefix);
    if (!completions.zero && completions.spans.length === 0) return null;
    const { phase, negative, whole, fraction, digits, exponent } = prefix;
    const shared = this.line.shared(negative, completions);
    if (shared !== undefined) return shared === null ? null : this.settled(prefix, shared);
    const key = [
      ...[negative, phase, whole, fraction, digits.length, this.line.key(negative, digits)],
      whole === 1 ? magnitude(digits) : '',
      ...[exponent.negative, exponent.value, exponent.digits],
    ].join(' ');
    return this.frames.get(key, () =>
      this.line.wantsAny(negative, completions) ? new NumberFrame(this, prefix, null, null) : null,
    );
  }

  /** The state of a number whose outcome is known, whatever follows: it counts digits. */
  private settled(prefix: Prefix, outcome: Outcome): NumberFrame | null {
    if (!this.completable(prefix)) return null;
    const { form } = this;
    const { phase, fraction } = prefix;
    const whole = phase === 'whole' ? prefix.whole : Math.min(prefix.whole, 2);
    const digits = whole === 1 ? magnitude(prefix.digits) : '';
    const counted =
      phase === 'e'
        ? this.range(prefix)
        : phase.startsWith('e')
          ? this.suffixes(prefix)
          : [whole, phase === 'fraction' ? fraction : 0, digits];
    const name = ['number', form.whole, form.fraction, form.exponent, form.lowest, form.scientific, form.integers];
    const key = [...name, phase, ...counted, outcome].join(' ');
    return this.frames.get(key, () => new NumberFrame(this, { ...prefix, digits }, outcome, key));
  }

  /** What `byte` makes of the text, as far as its form goes. */
  private next(prefix: Prefix, byte: number): Prefix | null {
    const { form } = this;
    const { phase, whole, fraction, exponent } = prefix;
    const digit = byte >= zero && byte <= nine ? String.fromCharCode(byte) : null;
    const digits = prefix.digits === '' && digit === '0' ? '' : prefix.digits + (digit ?? '');
    if (phase === 'sign') {
      if (digit === null) return null;
      return digit === '0' ? { ...prefix, phase: 'zero' } : { ...prefix, phase: 'whole', whole: 1, digits };
    }
    if (phase === 'e' || phase === 'exponent sign' || phase === 'exponent') {
      if (phase === 'e' && (byte === plus || byte === minus)) {
        return { ...prefix, phase: 'exponent sign', exponent: { ...exponent, negative: byte === minus } };
      }
      if (digit === null || exponent.digits === form.exponent) return null;
      const value = exponent.value * 10 + Number(digit);
      return { ...prefix, phase: 'exponent', exponent: { ...exponent, value, digits: exponent.digits + 1 } };
    }
    if (digit !== null) {
      if (phase === 'whole') return whole < form.whole ? { ...prefix, whole: whole + 1, digits } : null;
      if (phase === 'zero' || fraction === form.fraction) return null;
      return { ...prefix, phase: 'fraction', fraction: fraction + 1, digits };
    }
    if (byte === point)
      return phase !== 'fraction' && phase !== 'point' && form.fraction > 0 ? { ...prefix, phase: 'point' } : null;
    if (byte === e || byte === E)
      return phase !== 'point' && this.exponential(prefix) ? { ...prefix, phase: 'e' } : null;
    return null;
  }

  /** Whether an exponent may follow, now or behind a fraction. */
  private exponential({ whole }: Prefix): boolean {
    return (whole === 1 || !this.form.scientific) && this.form.lowest <= this.form.highest;
  }

  /** Whether the text can be completed, as far as its form goes. */
  private completable(prefix: Prefix): boolean {
    if (prefix.phase === 'point' || prefix.phase === 'fraction') return !this.form.integers || this.exponential(prefix);
    return !prefix.phase.startsWith('e') || this.exponents(prefix).length > 0;
  }

  /** Whether the text is a number. */
  private complete(prefix: Prefix): boolean {
    const { phase, exponent } = prefix;
    if (phase === 'exponent') {
      const [lowest, highest] = this.range(prefix);
      const value = exponent.negative ? -exponent.value : exponent.value;
      return value >= lowest && value <= highest;
    }
    return phase === 'zero' || phase === 'whole' || (phase === 'fraction' && !this.form.integers);
  }

  /** From where to where the exponent may be. */
  private range({ whole, digits }: Prefix): [number, number] {
    const { form } = this;
    const mantissa = stripped(digits);
    const [low, high] =
      whole === 1
        ? [
            mantissa > nearest.mantissa ? nearest.lead : nearest.lead + 1,
            mantissa < farthest.mantissa ? farthest.lead : farthest.lead - 1,
          ]
        : [nearest.lead + 1 + form.fraction, farthest.lead - form.whole];
    return [Math.max(low, form.lowest), Math.min(high, form.highest)];
  }

  /** How many digits may follow in the exponent, and from which number to which. */
  private suffixes(prefix: Prefix): [number, number, number][] {
    const { negative, value, digits } = prefix.exponent;
    const [lowest, highest] = this.range(prefix);
    const [least, most] = negative ? [-highest, -lowest] : [lowest, highest];
    const suffixes: [number, number, number][] = [];
    for (let more = digits === 0 ? 1 : 0; more <= this.form.exponent - digits; more++) {
      const base = value * 10 ** more;
      const [from, to] = [Math.max(least - base, 0), Math.min(most - base, 10 ** more - 1)];
      if (from <= to) suffixes.push([more, from, to]);
    }
    return suffixes;
  }

  /** From where to where the exponents lie that one begun so can become. */
  private exponents(prefix: Prefix): [number, number][] {
    const { negative, value } = prefix.exponent;
    if (prefix.phase === 'e') return [this.range(prefix)].filter(([lowest, highest]) => lowest <= highest);
    return this.suffixes(prefix).map(([more, from, to]) => {
      const base = value * 10 ** more;
      return negative ? [-base - to, -base - from] : [base + from, base + to];
    });
  }

  /** All numbers whose texts begin so. */
  private completions(prefix: Prefix): Completions {
    const { form } = this;
    const { phase, fraction, digits } = prefix;
    const lead = digits.length - 1 - fraction;
    if (phase.startsWith('e')) {
      const spans = this.exponents(prefix).map(([from, to]): Span => {
        return { from: lead + from, to: lead + to, depth: digits.length - 1, relative: true };
      });
      return digits === '' ? { digits, zero: spans.length > 0, spans: [] } : { digits, zero: false, spans };
    }
    // In digits alone, then with an exponent.
    const alone = !form.integers || phase === 'sign' || phase === 'zero' || phase === 'whole';
    const depth = form.integers ? 0 : form.fraction;
    const [from, to] = [
      digits === '' ? -depth : lead,
      phase === 'sign' || phase === 'whole' ? form.whole - 1 : digits === '' ? -fraction - 1 : lead,
    ];
    const spans: Span[] = alone ? [{ from, to, depth, relative: false }] : [];
    if (phase === 'sign' || this.exponential(prefix)) {
      const [low, high] = form.scientific ? [0, 0] : [from, to];
      spans.push({ from: low + form.lowest, to: high + form.highest, depth: form.fraction, relative: true });
    }
    return { digits, zero: digits === '' && alone, spans: spans.filter((span) => span.from <= span.to) };
  }

  /** How the number that has been written ends; null where it is none, or not wanted. */
  ending(prefix: Prefix, settled: Outcome | null): Outcome | null {
    if (!this.complete(prefix)) return null;
    if (settled !== null) return settled;
    const { negative, digits, fraction, exponent } = prefix;
    const lead = digits.length - 1 - fraction + (exponent.negative ? -exponent.value : exponent.value);
    return this.line.outcome(negative, digits, lead);
  }
}

/** Bytes with which numbers begin, and with which they go on. */
const BEGIN = [...'-0123456789'].map((text) => text.charCodeAt(0));
const GO_ON = [...'0123456789.eE+-'].map((text) => text.charCodeAt(0));

/** So many states are looked at for the nearest that is a number. */
const NEAR = 1000;

/** The fewest characters of one of the numbers; null where that is far to see. */
export function shortestNumber(numbers: Numbers): number | null {
  const left = toEnd(BEGIN.map((byte) => numbers.open(byte)).filter((frame) => frame !== null));
  return left === null ? null : 1 + left;
}

/** How many characters lead from the nearest of the frames to a number; null where that is far to see. */
function toEnd(frames: readonly Frame[]): number | null {
  const seen = new Set(frames);
  let level = frames;
  for (let count = 0; level.length > 0 && seen.size <= NEAR; count += 1) {
    if (level.some((frame) => frame.end() !== null)) return count;
    const next: Frame[] = [];
    for (const frame of level) {
      for (const byte of GO_ON) {
        const move = frame.move(byte);
        if (move?.kind !== 'frame' || seen.has(move)) continue;
        seen.add(move);
        next.push(move);
      }
    }
    level = next;
  }
  return null;
}

/** Bytes that may stand behind a value. */
const behind = new Set([...' \t\n\r,]}'].map((text) => text.charCodeAt(0)));
const [minus, plus, point, zero, nine, e, E] = [...'-+.09eE'].map((text) => text.charCodeAt(0)) as [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
];

/** Digits that decide as much about the exponent as these, whatever follows them. */
function magnitude(digits: string): string {
  if (farthest.mantissa.startsWith(digits)) return digits;
  if (digits < farthest.mantissa) return '10';
  if (stripped(digits) === nearest.mantissa) return nearest.mantissa;
  return digits < nearest.mantissa ? '2' : '5';
}

class NumberFrame extends Frame {
  private readonly reader: Reader;
  private readonly prefix: Prefix;
  /** How the number will end in any case, where that is known. */
  private readonly settled: Outcome | null;
  private readonly name: string | null;
  private left: number | null | undefined;

  constructor(reader: Reader, prefix: Prefix, settled: Outcome | null, name: string | null) {
    super();
    this.reader = reader;
    this.prefix = prefix;
    this.settled = settled;
    this.name = name;
  }

  override get signature(): string | null {
    return this.name;
  }

  override get shortest(): Shortest | null {
    const outcome = this.settled ?? this.reader.sole;
    if (outcome === null) return null;
    if (this.left === undefined) this.left = toEnd([this]);
    return this.left === null ? null : { outcome, bytes: this.left };
  }

  protected override step(byte: number): Move {
    const next = this.reader.step(this.prefix, this.settled, byte);
    if (next !== null || !behind.has(byte)) return next;
    const outcome = this.end();
    return outcome === null ? null : { kind: 'pop', outcome, consumed: false };
  }

  override end(): Outcome | null {
    return this.reader.ending(this.prefix, this.settled);
  }
}
