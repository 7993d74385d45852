import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { compare, decimal, gcd, isMultiple, scientific, tenTo } from '../../../../llm/grammar/json/decimal.ts';

const number = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.integer(),
  fc.integer().map((n) => n / 1000),
);

describe('decimals', () => {
  it('are what was printed', () => {
    fc.assert(
      fc.property(number, (value) => {
        const { digits, exponent } = decimal(value);
        expect(Number(`${digits}e${exponent}`)).toBe(value + 0);
        expect(digits === 0n ? exponent : Number(digits % 10n !== 0n)).toBe(digits === 0n ? 0 : 1);
      }),
      { seed: 5 },
    );
    expect(decimal('-1.500e+2')).toEqual({ digits: -15n, exponent: 1 });
    expect(() => decimal(Infinity)).toThrow('[grammar] Infinity is not a finite decimal number');
  });

  it('compare as numbers do', () => {
    const positive = number.map(Math.abs).filter((value) => value > 0);
    fc.assert(
      fc.property(positive, positive, (a, b) => {
        expect(Math.sign(compare(scientific(decimal(a)), scientific(decimal(-b))))).toBe(
          Math.sign(Number(a > b) - Number(a < b)),
        );
      }),
      { seed: 5 },
    );
    expect(scientific(decimal(0.012))).toEqual({ mantissa: '12', lead: -2 });
  });

  it('are multiples exactly', () => {
    const small = fc.tuple(fc.integer({ min: -2000, max: 2000 }), fc.integer({ min: -3, max: 3 }));
    fc.assert(
      fc.property(
        small,
        small.filter(([digits]) => digits > 0),
        ([a, e], [b, f]) => {
          const whole = (digits: number, exponent: number): bigint => BigInt(digits) * tenTo(exponent + 3);
          expect(isMultiple(decimal(`${a}e${e}`), decimal(`${b}e${f}`))).toBe(whole(a, e) % whole(b, f) === 0n);
        },
      ),
      { numRuns: 500, seed: 5 },
    );
    expect(isMultiple(decimal(19.99), decimal(0.01))).toBe(true);
    expect(isMultiple(decimal(1e308), decimal(1e-308))).toBe(true);
    expect(gcd(12n, 18n)).toBe(6n);
  });
});
