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

/** Where a number other than zero stands: its digits without zeros at either end, the first of them worth 10^lead. */
export interface Scientific {
  readonly mantissa: string;
  readonly lead: number;
}

/** Of the number without its sign; 0.012 is '12' with lead −2. */
export function scientific({ digits, exponent }: Decimal): Scientific {
  const mantissa = String(digits < 0n ? -digits : digits);
  return { mantissa, lead: mantissa.length - 1 + exponent };
}

/** Less than 0 where the first is smaller. Texts of digits compare as fractions do: '2' < '21' < '3'. */
export function compare(a: Scientific, b: Scientific): number {
  return a.lead - b.lead || Number(a.mantissa > b.mantissa) - Number(a.mantissa < b.mantissa);
}

export function isMultiple(value: Decimal, of: Decimal): boolean {
  if (value.digits === 0n) return true;
  // Its last digit is not 0, so that it is no multiple of a higher power of ten.
  if (value.exponent < of.exponent) return false;
  return (value.digits * tenTo(value.exponent - of.exponent)) % of.digits === 0n;
}

const powers: bigint[] = [1n];

export function tenTo(exponent: number): bigint {
  if (exponent > 1000) return 10n ** BigInt(exponent);
  for (let i = powers.length; i <= exponent; i++) powers.push(powers[i - 1]! * 10n);
  return powers[exponent]!;
}

export function gcd(a: bigint, b: bigint): bigint {
  while (b !== 0n) [a, b] = [b, a % b];
  return a;
}
