import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { Frame } from '../../../../llm/grammar/automaton.ts';
import { decimal, reduced } from '../../../../llm/grammar/json/decimal.ts';
import type { Decimal } from '../../../../llm/grammar/json/decimal.ts';
import * as json from '../../../../llm/grammar/json/number.ts';
import type { NumberLimits, NumberTest } from '../../../../llm/grammar/json/number.ts';
import { Unsupported } from '../../../../llm/grammar/refusal.ts';

const bitsOf = (truths: readonly boolean[]): number => truths.reduce((bits, so) => bits * 2 + Number(so), 0);

/** Numbers whose truths are wanted, each vector of truths an outcome of its own. */
interface Numbers extends json.Numbers {
  truths(outcome: number): readonly boolean[];
}

function numbers(
  tests: readonly NumberTest[],
  wanted: (truths: readonly boolean[]) => boolean,
  limits?: NumberLimits,
): Numbers | null {
  const found = json.numbers(tests, (truths) => (wanted(truths) ? bitsOf(truths) : null), limits);
  const truths = (outcome: number): boolean[] => tests.map((_, i) => ((outcome >> (tests.length - 1 - i)) & 1) === 1);
  return found && { open: (byte) => found.open(byte), truths };
}

/** Null also where there are numbers, but beyond the limits. */
function numbersOrNone(...of: Parameters<typeof numbers>): Numbers | null {
  try {
    return numbers(...of);
  } catch (error) {
    if (error instanceof Unsupported) return null;
    throw error;
  }
}

/** The oracle's numbers: exact, in units of 10^-places. */
type Scale = (number: string | Decimal) => bigint;

function scale(places: number): Scale {
  return (number) => {
    const text = typeof number === 'string' ? number : `${number.digits}e${number.exponent}`;
    const [mantissa = '', exponent = '0'] = text.toLowerCase().split('e');
    const [whole = '', fraction = ''] = mantissa.split('.');
    const magnitude =
      BigInt(whole.replace('-', '') + fraction) * 10n ** BigInt(Number(exponent) - fraction.length + places);
    return text.startsWith('-') ? -magnitude : magnitude;
  };
}

function truthOf(test: NumberTest, scale: Scale): (number: bigint) => boolean {
  if (test.kind === 'among') {
    const values = new Set(test.values.map(scale));
    return (number) => values.has(number);
  }
  const other = scale(test.kind === 'below' ? test.bound : test.of);
  if (test.kind === 'multiple') return (number) => number % other === 0n;
  return (number) => number < other || (test.inclusive && number === other);
}

/** All texts of RFC 8259 within the limits, whose exponents have one digit, behind a small e. */
function texts({ whole, fraction }: NumberLimits): string[] {
  const digits = (length: number): string[] =>
    Array.from({ length: 10 ** length }, (_, i) => String(i).padStart(length, '0'));
  const wholes = ['0'];
  for (let i = 1; i <= whole; i++) wholes.push(...digits(i).filter((text) => !text.startsWith('0')));
  const fractions = [''];
  for (let i = 1; i <= fraction; i++) fractions.push(...digits(i).map((text) => `.${text}`));
  const exponents = [''];
  for (const sign of ['', '+', '-']) exponents.push(...digits(1).map((text) => `e${sign}${text}`));
  return ['', '-'].flatMap((sign) =>
    wholes.flatMap((whole) =>
      fractions.flatMap((fraction) => exponents.map((exponent) => sign + whole + fraction + exponent)),
    ),
  );
}

/** A number of 10^-places in digits. */
function plainText(number: bigint, places: number): string {
  const digits = String(number < 0n ? -number : number).padStart(places + 1, '0');
  const fraction = digits.slice(-places).replace(/0+$/, '');
  return `${number < 0n ? '-' : ''}${digits.slice(0, -places)}${fraction && `.${fraction}`}`;
}

/** Whether a number in digits is within the limits. */
function written(text: string): boolean {
  const [mantissa = ''] = text.split('e');
  const [whole = '', fraction = ''] = mantissa.replace('-', '').split('.');
  return whole.length <= 21 && fraction.length <= 24;
}

const plain = /^-?\d+(\.\d+)?$/;
const scientific = /^-?[1-9](\.\d+)?e/;
const byte = (text: string): number => text.charCodeAt(0);

function read(numbers: Numbers, text: string): Frame | null {
  let frame = numbers.open(byte(text));
  for (const character of text.slice(1)) {
    if (frame === null) return null;
    const move = frame.move(byte(character));
    if (move !== null && move.kind !== 'frame') throw new Error(`a number ended at ${character} of ${text}`);
    frame = move;
  }
  return frame;
}

/** What is accepted, by text (a large E does what a small one does); every frame on the way has to lead to a number. */
function accepted(numbers: Numbers): Map<string, readonly boolean[]> {
  const found = new Map<string, readonly boolean[]>();
  const checked = new Set<Frame>();
  const walk = (text: string, frame: Frame): void => {
    const before = found.size;
    const outcome = frame.end();
    if (outcome !== null) found.set(text, numbers.truths(outcome));
    if (!checked.has(frame)) {
      checked.add(frame);
      expect(frame.move(byte('E'))).toBe(frame.move(byte('e')));
      const pop = outcome === null ? null : { kind: 'pop', outcome, consumed: false };
      for (const end of ' \t\n\r,]}') expect(frame.move(byte(end))).toEqual(pop);
      for (const other of 'x"[{:/') expect(frame.move(byte(other))).toBe(null);
    }
    for (const character of '0123456789.e+-') {
      const move = frame.move(byte(character));
      if (move === null) continue;
      if (move.kind !== 'frame') throw new Error(`a number ended at ${character} behind ${text}`);
      walk(text + character, move);
    }
    if (found.size === before) throw new Error(`nothing is wanted that begins with ${text}`);
  };
  for (const character of '-0123456789') {
    const frame = numbers.open(byte(character));
    if (frame !== null) walk(character, frame);
  }
  return found;
}

const arbitraryDecimal = fc
  .tuple(
    fc.oneof(fc.integer({ min: -12, max: 12 }), fc.integer({ min: -1200, max: 1200 })),
    fc.integer({ min: -3, max: 3 }),
  )
  .map(([digits, exponent]) => reduced(BigInt(digits), exponent));

const arbitraryTest: fc.Arbitrary<NumberTest> = fc.oneof(
  fc.record({ kind: fc.constant('below' as const), bound: arbitraryDecimal, inclusive: fc.boolean() }),
  fc
    .tuple(fc.constantFrom(1, 1, 2, 3, 4, 5, 7, 11, 25, 125), fc.integer({ min: -3, max: 2 }))
    .map(([digits, exponent]) => ({ kind: 'multiple' as const, of: reduced(BigInt(digits), exponent) })),
  fc.record({
    kind: fc.constant('among' as const),
    values: fc.array(arbitraryDecimal, { minLength: 1, maxLength: 5 }),
  }),
);

/** Any Boolean function of the truths, as a table. */
const arbitraryWish = fc
  .array(arbitraryTest, { maxLength: 4 })
  .chain((tests) =>
    fc.tuple(
      fc.constant(tests),
      fc.oneof(
        fc.array(fc.boolean(), { minLength: 2 ** tests.length, maxLength: 2 ** tests.length }),
        fc.nat(2 ** tests.length - 1).map((only) => Array.from({ length: 2 ** tests.length }, (_, i) => i === only)),
      ),
    ),
  )
  .map(([tests, table]) => ({
    tests,
    wanted: (truths: readonly boolean[]): boolean => table[bitsOf(truths)]!,
  }));

interface Wish {
  readonly tests: readonly NumberTest[];
  readonly wanted: (truths: readonly boolean[]) => boolean;
}

function agree({ tests, wanted }: Wish, limits: NumberLimits, all: readonly { text: string; value: bigint }[]): void {
  const scaled = scale(15);
  const oracles = tests.map((test) => truthOf(test, scaled));
  const truths = all.map(({ value }) => oracles.map((truth) => truth(value)));
  const one = scaled('1');
  const integers = !all.some(({ value }, i) => value % one !== 0n && wanted(truths[i]!));
  const expected = new Map<string, boolean[]>();
  all.forEach(({ text }, i) => {
    if (!wanted(truths[i]!)) return;
    if (integers && !/^-?\d+$/.test(text)) {
      const [mantissa = '', exponent = ''] = text.split('e');
      if (Number(exponent) < limits.whole || mantissa.replace(/^-?\d\.?/, '').length > limits.whole) return;
    }
    expected.set(text, truths[i]!);
  });
  const reader = numbersOrNone(tests, wanted, limits);
  const found = reader === null ? new Map<string, boolean[]>() : accepted(reader);
  expect([...found.keys()].filter((text) => !expected.has(text))).toEqual([]);
  expect([...expected.keys()].filter((text) => !found.has(text))).toEqual([]);
  const wrong = [...expected].filter(([text, truths]) => truths.some((so, i) => so !== found.get(text)![i]));
  expect(wrong).toEqual([]);
}

describe('numbers', () => {
  for (const [whole, fraction, runs] of [
    [2, 1, 40],
    [1, 2, 6],
    [2, 0, 60],
    [3, 1, 10],
  ] as const) {
    it(`are those of all texts with ${whole} and ${fraction} digits that are wanted`, () => {
      const limits = { whole, fraction, exponent: 1 };
      const all = texts(limits)
        .filter((text) => plain.test(text) || scientific.test(text))
        .map((text) => ({ text, value: scale(15)(text) }));
      fc.assert(
        fc.property(arbitraryWish, (wish) => {
          // Where any truths are wanted, other texts are offered too.
          const reader = numbersOrNone(wish.tests, wish.wanted, limits);
          fc.pre(reader === null || read(reader, '0e0') === null);
          agree(wish, limits, all);
        }),
        { numRuns: runs, seed: 5 },
      );
    });
  }

  it('are of any text where any is wanted, with their truths', () => {
    const limits = { whole: 2, fraction: 1, exponent: 1 };
    const all = texts(limits).map((text) => ({ text, value: scale(15)(text) }));
    fc.assert(
      fc.property(fc.array(arbitraryTest, { maxLength: 3 }), (tests) => {
        const reader = numbers(tests, () => true, limits)!;
        const found = accepted(reader);
        expect(found.size).toBe(all.length);
        const oracles = tests.map((test) => truthOf(test, scale(15)));
        const wrong = all.filter(({ text, value }) => {
          const truths = found.get(text);
          return truths === undefined || oracles.some((truth, i) => truth(value) !== truths[i]);
        });
        expect(wrong).toEqual([]);
      }),
      { numRuns: 5, seed: 5 },
    );
  });

  it('print as JavaScript prints them, within any bounds', () => {
    const number = fc.oneof(
      fc.double({ noDefaultInfinity: true, noNaN: true }),
      fc.integer({ min: -1e6, max: 1e6 }).map((n) => n / 100),
      fc.maxSafeInteger(),
      fc
        .tuple(fc.integer({ min: -999, max: 999 }), fc.integer({ min: -30, max: 30 }))
        .map(([n, e]) => Number(`${n}e${e}`)),
    );
    const test: fc.Arbitrary<NumberTest> = fc.oneof(
      fc.record({ kind: fc.constant('below' as const), bound: number.map(decimal), inclusive: fc.boolean() }),
      fc.record({ kind: fc.constant('multiple' as const), of: number.filter((n) => n > 0).map(decimal) }),
      fc.record({ kind: fc.constant('multiple' as const), of: fc.constantFrom(1, 0.01, 5, 1e-8).map(decimal) }),
      fc.record({ kind: fc.constant('among' as const), values: fc.array(number.map(decimal), { maxLength: 20 }) }),
    );
    const scaled = scale(1100);
    fc.assert(
      fc.property(
        fc.array(test, { maxLength: 4 }),
        fc.array(number, { minLength: 20, maxLength: 20 }),
        (tests, some) => {
          const values = [...some, ...tests.flatMap((test) => (test.kind === 'among' ? test.values : []))].map(
            (value) => (typeof value === 'number' ? value : Number(`${value.digits}e${value.exponent}`)),
          );
          const oracles = tests.map((test) => truthOf(test, scaled));
          const [first, ...others] = values.map((value) =>
            oracles.map((truth) => truth(scaled(JSON.stringify(value)))),
          );
          // What the first is, and what every other of the others is.
          const wish = new Set([first!, ...others.filter((_, i) => i % 2 === 0)].map(String));
          const reader = numbers(tests, (truths) => wish.has(String(truths)))!;
          [first!, ...others].forEach((truths, i) => {
            const text = JSON.stringify(values[i]);
            const outcome = read(reader, text)?.end() ?? null;
            expect(outcome !== null, text).toBe(wish.has(String(truths)));
            if (outcome !== null) expect(reader.truths(outcome)).toEqual(truths);
          });
        },
      ),
      { numRuns: 300, seed: 5 },
    );
  });

  const below = (bound: number, inclusive = true): NumberTest => ({ kind: 'below', bound: decimal(bound), inclusive });
  const multiple = (of: number): NumberTest => ({ kind: 'multiple', of: decimal(of) });
  const among = (...values: number[]): NumberTest => ({ kind: 'among', values: values.map((value) => decimal(value)) });
  /** At least `minimum`, at most `maximum`, and multiples. */
  const between = (minimum: number, maximum: number, ...multiples: number[]): Numbers | null =>
    numbers(
      [below(minimum, false), below(maximum), ...multiples.map(multiple)],
      ([low, ...rest]) => !low && rest.every(Boolean),
    );

  it('are none where the bounds leave none', () => {
    expect(between(5, 4)).toBe(null);
    expect(between(0.2, 0.8, 1)).toBe(null);
    expect(between(1, 6, 7)).toBe(null);
    expect(between(1e22 + 2 ** 21, 1e22 + 2 ** 22, 1e30)).toBe(null);
    expect(between(5, 5)).not.toBe(null);
    expect(numbers([below(5), below(5, false)], ([most, less]) => most! && !less)).not.toBe(null);
    expect(numbers([below(5, false), below(5, true)], ([less, most]) => less! && !most)).toBe(null);
    expect(numbers([multiple(6), multiple(2), multiple(3)], ([six, two, three]) => !six && two! && three!)).toBe(null);
    expect(numbers([among()], ([one]) => one!)).toBe(null);
    // Out of the limits' reach.
    expect(numbers([{ kind: 'among', values: [decimal('1e-2000')] }], ([one]) => one!)).toBe(null);
    expect(numbers([{ kind: 'among', values: [decimal('1e2000'), decimal(7)] }], ([one]) => one!)).not.toBe(null);
  });

  const offers = (numbers: Numbers | null, text: string): boolean => (read(numbers!, text)?.end() ?? null) !== null;

  it('are exact where floating point is not', () => {
    const cents = between(0, 1e9, 0.01);
    for (const text of ['0.07', '19.99', '1.15', '4.350', '1e2', '1.999e1', '0'])
      expect(offers(cents, text), text).toBe(true);
    for (const text of ['0.001', '19.999', '-0.01', '1e-3']) expect(offers(cents, text), text).toBe(false);
    expect(read(cents!, '19.999')).toBe(null);
    const small = numbers([multiple(1e-8)], ([so]) => so!);
    expect(offers(small, '12391239123')).toBe(true);
    expect(offers(small, '1.00000001')).toBe(true);
    expect(offers(small, '10.000000001')).toBe(false);
    const huge = numbers([multiple(1e308)], ([so]) => so!);
    for (const text of ['0', '-0', '1e+308', '1.7e+308']) expect(offers(huge, text), text).toBe(text !== '1.7e+308');
    const most = between(0, Number.MAX_VALUE);
    expect(offers(most, '1.7976931348623157e+308')).toBe(true);
    expect(offers(most, '1.7976931348623158e+308')).toBe(false);
  });

  it('are multiples at any number of digits', () => {
    expect(between(1e15, 1e300, 2)).not.toBe(null);
    const one = numbers([among(1e16, 5, 1e22, 1e300), multiple(5)], (truths) => truths.every(Boolean));
    for (const text of ['10000000000000000', '5', '1e+22', '1e+300']) expect(offers(one, text), text).toBe(true);
    const seen = { wanted: 0, unwanted: 0 };
    const part = (length: number): fc.Arbitrary<string> =>
      fc.string({ unit: fc.constantFrom(...'0123456789'), minLength: 0, maxLength: length });
    const text = fc
      .tuple(
        fc.constantFrom('', '-'),
        fc.integer({ min: 1, max: 9 }),
        part(20),
        part(24),
        fc.integer({ min: -60, max: 60 }),
      )
      .map(([sign, first, whole, fraction, exponent]) => {
        // Scientific, or in digits.
        if (whole === '') return `${sign}${first}${fraction && `.${fraction}`}e${exponent}`;
        return `${sign}${first}${whole}${exponent % 2 === 0 && fraction !== '' ? `.${fraction}` : ''}`;
      });
    const arbitrary = fc
      .tuple(fc.constantFrom(1, 2, 3, 4, 5, 7, 9, 12, 125, 1001, 65_537), fc.integer({ min: -20, max: 20 }))
      .map(([digits, exponent]) => reduced(BigInt(digits), exponent));
    const scaled = scale(100);
    fc.assert(
      fc.property(
        fc.array(arbitrary, { minLength: 1, maxLength: 3 }),
        fc.boolean(),
        text,
        fc.nat(1000),
        (divisors, negated, text, factor) => {
          const tests = divisors.map((of): NumberTest => ({ kind: 'multiple', of }));
          const oracles = tests.map((test) => truthOf(test, scaled));
          const reader = numbers(tests, (truths) => truths.every(Boolean) !== negated)!;
          // A number of any digits, and a multiple of all that has as many.
          const all = divisors.reduce((all, of) => all * scaled(of), 1n) / scaled('1') ** BigInt(divisors.length - 1);
          const near = all === 0n ? 0n : (scaled(text) / all) * all + all * BigInt(factor);
          for (const candidate of [text, plainText(near, 100)]) {
            const wanted = oracles.every((truth) => truth(scaled(candidate))) !== negated;
            if (!written(candidate)) continue;
            const whole = /^-?\d+$/.test(candidate);
            // Where only integers are wanted, they are written in digits.
            if (!whole && !negated && divisors.some(({ exponent }) => exponent >= 0)) continue;
            seen[wanted ? 'wanted' : 'unwanted'] += 1;
            expect(offers(reader, candidate), candidate).toBe(wanted);
          }
        },
      ),
      { numRuns: 1500, seed: 6 },
    );
    expect(seen.wanted).toBeGreaterThan(500);
    expect(seen.unwanted).toBeGreaterThan(500);
  });

  it('are refused where the only ones are too long to be written', () => {
    const long = 1.0000000000000001e30;
    expect(() => between(1.2345678901234567e55, 1.2345678901234569e55, long)).toThrow('[grammar] multipleOf: the only');
    // A half behind thirty digits.
    expect(() => numbers([below(1e30), multiple(1)], ([small, one]) => !small && !one)).toThrow('[grammar] multipleOf');
    expect(between(long, long, 7)).toBe(null);
    expect(between(3, 4, long)).toBe(null);
  });

  it('are neither infinite nor zero to JavaScript where they are not', () => {
    const any = numbers([], () => true);
    const positive = numbers([below(0)], ([so]) => !so);
    const integer = numbers([multiple(1)], ([so]) => so!);
    for (const text of ['1.7976931348623157e+308', '1.79e308', '1e308', '9.9e307']) {
      for (const numbers of [any, positive, integer]) expect(offers(numbers, text), text).toBe(true);
    }
    for (const text of ['5e-324', '4.1e-324', '1e-323', '2.5e-323']) {
      for (const numbers of [any, positive]) expect(offers(numbers, text), text).toBe(true);
    }
    for (const text of [
      '1.7976931348623158e308',
      '1.8e308',
      '2e308',
      '1e309',
      '1e999',
      '4e-324',
      '4.0e-324',
      '1e-324',
      '1e-999',
    ]) {
      for (const numbers of [any, positive, integer]) expect(offers(numbers, text), text).toBe(false);
    }
    fc.assert(
      fc.property(fc.constantFrom(any, positive, integer), fc.infiniteStream(fc.nat(1000)), (numbers, choices) => {
        let text = '';
        let frame: Frame | null = null;
        for (let last: Frame | null = null; ; last = frame) {
          const next = [...'0123456789.eE+-'].filter((character) => {
            const move = last === null ? numbers!.open(byte(character)) : last.move(byte(character));
            return move?.kind === 'frame';
          });
          const choice = choices.next().value!;
          if (last?.end() !== undefined && last?.end() !== null && (next.length === 0 || choice % 8 === 0)) break;
          // Exponents more often than digits.
          const character =
            (choice % 3 === 0 && next.find((character) => 'eE'.includes(character))) || next[choice % next.length]!;
          text += character;
          frame = read(numbers!, text);
        }
        expect(Number.isFinite(JSON.parse(text)), text).toBe(true);
        expect(JSON.parse(text) === 0, text).toBe(/^[-0.]*(e|$)/i.test(text));
      }),
      { numRuns: 3000, seed: 5 },
    );
  });

  it('that are integers are written in digits, or as JavaScript prints large ones', () => {
    const integer = numbers([multiple(1)], ([so]) => so!);
    for (const text of ['0', '-7', '9007199254740993', '100000000000000000000', '1e+21', '1.2345678910111214e+52']) {
      expect(offers(integer, text), text).toBe(true);
    }
    for (const text of ['1.0', '1e2', '01', '1.5', '0.0', '1e-0', '1e20'])
      expect(offers(integer, text), text).toBe(false);
    // Digits rule out what they seem to.
    const percent = between(0, 100, 1);
    expect(read(percent!, '101')).toBe(null);
    expect(read(percent!, '1.')).toBe(null);
    expect(read(percent!, '-1')).toBe(null);
    expect(offers(percent, '-0')).toBe(true);
  });

  it('are told from thousands of values by their digits', () => {
    const values = Array.from({ length: 10_000 }, (_, i) => (i * 7919 - 3e7) / (i % 3 === 0 ? 1000 : 1));
    const one = numbers([among(...values)], ([so]) => so!);
    const set = new Set(values);
    const wrong = values.filter(
      (value) => !offers(one, JSON.stringify(value)) || offers(one, JSON.stringify(value + 1)) !== set.has(value + 1),
    );
    expect(wrong).toEqual([]);
    const other = numbers([among(...values)], ([so]) => !so!);
    for (const value of values.slice(0, 1000)) {
      expect(offers(other, JSON.stringify(value))).toBe(false);
      expect(offers(other, JSON.stringify(value + 1))).toBe(!set.has(value + 1));
    }
  });

  it('share few states where nothing but the count of digits tells them apart', () => {
    const states = (numbers: Numbers | null): { all: Set<Frame>; signatures: Set<string> } => {
      const all = new Set<Frame>();
      const walk = (frame: Frame): void => {
        if (all.has(frame)) return;
        all.add(frame);
        for (const character of '0123456789.eE+-') {
          const move = frame.move(byte(character));
          if (move?.kind === 'frame') walk(move);
        }
      };
      for (const character of '-0123456789') {
        const frame = numbers!.open(byte(character));
        if (frame !== null) walk(frame);
      }
      return { all, signatures: new Set([...all].flatMap(({ signature }) => signature ?? [])) };
    };
    const any = states(numbers([], () => true));
    expect(any.all.size).toBeLessThan(250);
    expect(any.signatures.size).toBe(any.all.size);
    expect(states(numbers([], () => true)).signatures).toEqual(any.signatures);
    expect(states(between(-(2 ** 31), 2 ** 31 - 1, 1)).all.size).toBeLessThan(250);
    const positive = states(numbers([below(0, false)], ([less]) => !less));
    expect([...positive.all].filter(({ signature }) => signature === null).length).toBeLessThan(30);
  });

  it('refuse more divisors than can be told apart', () => {
    const tests = [2, 3, 5, 7, 11, 13, 17, 19, 23].map(multiple);
    expect(() => numbers(tests, (truths) => truths.every(Boolean))).toThrow('[grammar] multipleOf 2e0, 3e0');
  });
});
