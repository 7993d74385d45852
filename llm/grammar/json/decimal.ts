/** A decimal number, exactly: digits × 10^exponent, with no trailing zero in `digits`; zero is 0 × 10^0. */
export interface Decimal {
  readonly digits: bigint;
  readonly exponent: number;
}

/** Of a finite number as JavaScript prints it (its shortest text), or of a JSON number's text. */
export function decimal(value: number | string): Decimal {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(String(value));
  if (!match) throw new Error(`[grammar] ${value} is not a finite decimal number`);
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = match;
  return reduced(BigInt(sign + whole + fraction), Number(exponent) - fraction.length);
}

export function reduced(digits: bigint, exponent: number): Decimal {
  if (digits === 0n) return { digits: 0n, exponent: 0 };
  while (digits % 10n === 0n) {
    digits /= 10n;
    exponent += 1;
  }
  return { digits, exponent };
}
