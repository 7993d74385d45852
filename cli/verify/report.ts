/** Comparing values with recorded ones, and the table that says how it went. */
import { z } from 'zod';

/** Largest deviation allowed: |a − b| ≤ atol + rtol·|b| + atolOfMax·max|b|, or ‖a − b‖ ≤ relL2·‖b‖ of the whole tensor. */
const limit = z.strictObject({
  atol: z.number().min(0).optional(),
  rtol: z.number().min(0).optional(),
  atolOfMax: z.number().min(0).optional(),
  relL2: z.number().min(0).optional(),
});
export type Limit = z.infer<typeof limit>;

const recording = z.looseObject({
  case: z.string().min(1),
  kind: z.string(),
  dir: z.string(),
  limits: z.record(z.string(), limit).optional(),
  torch_f32_vs_f64: z.record(z.string(), z.unknown()).default({}),
});
/** One case of a manifest; what only its kind knows is read by that kind. */
export type Recording = z.infer<typeof recording>;
export const manifestSchema = z.looseObject({ cases: z.array(recording).min(1) });

export interface Row {
  readonly case: string;
  readonly quantity: string;
  /** Of the element whose error is the largest part of its limit. */
  readonly error: number;
  readonly limit: number;
  readonly ok: boolean;
  /** Why it failed, where that is no matter of numbers. */
  readonly reason?: string;
}

export interface NotRun {
  readonly case: string;
  readonly what: string;
  readonly reason: string;
}

export const EXACT: Limit = {};

/** What a case's checks report to. */
export class Report {
  readonly rows: Row[] = [];
  readonly notRun: NotRun[] = [];
  readonly #recording: Recording;
  readonly #onRow: (row: Row) => void;

  constructor(of: Recording, onRow: (row: Row) => void = () => {}) {
    this.#recording = of;
    this.#onRow = onRow;
  }

  /**
   * The manifest's limit for a class of quantities (`output`, `grad`, …) or, where the manifest has one, for a sub-case.
   * Throws where it has neither: a check without a limit would be no check.
   */
  limit(kind: string, subCase?: string): Limit {
    const limits = this.#recording.limits ?? {};
    const found = (subCase !== undefined ? limits[subCase] : undefined) ?? limits[kind];
    if (!found) throw new Error(`the manifest has no limits.${kind} for the case ${this.#recording.case}`);
    return found;
  }

  /** How far PyTorch's own f32 was from its float64, 0 where that is not recorded. */
  spread(key: string): number {
    const value = this.#recording.torch_f32_vs_f64[key];
    return typeof value === 'number' && value > 0 ? value : 0;
  }

  /**
   * Compares with the recorded values and adds a row. `spread`: PyTorch's own deviation; ten times that is always
   * allowed, since other orders of summation give as much. A function as `quantity` gets the index of the worst element.
   */
  compare(
    quantity: string | ((worst: number) => string),
    actual: ArrayLike<number>,
    expected: ArrayLike<number>,
    allowed: Limit,
    spread = 0,
  ): void {
    const { at, ...found } = deviation(actual, expected, allowed, spread);
    const name = typeof quantity === 'string' ? quantity : quantity(at);
    this.#add({ case: this.#recording.case, quantity: name, ...found });
  }

  fail(quantity: string, reason: string): void {
    this.#add({ case: this.#recording.case, quantity, error: NaN, limit: NaN, ok: false, reason });
  }

  skip(what: string, reason: string): void {
    this.notRun.push({ case: this.#recording.case, what, reason });
  }

  #add(row: Row): void {
    this.rows.push(row);
    this.#onRow(row);
  }
}

type Deviation = Pick<Row, 'error' | 'limit' | 'ok' | 'reason'> & { at: number };

/** How far `actual` is from `expected`. A gradient that is zero in theory has no relative error: |a| ≤ 10⁻⁶ there. */
export function deviation(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  allowed: Limit,
  spread = 0,
): Deviation {
  if (actual.length !== expected.length)
    return { error: NaN, limit: NaN, ok: false, at: 0, reason: `${actual.length} values for ${expected.length}` };
  if (expected.length === 0) return { error: NaN, limit: NaN, ok: false, at: 0, reason: 'no values to compare' };
  if (allowed.relL2 !== undefined && norm(expected) > 0) {
    const error = norm(Float64Array.from(actual, (a, i) => a - expected[i]!)) / norm(expected);
    const bound = Math.max(allowed.relL2, 10 * spread);
    return { error, limit: bound, ok: error <= bound, at: 0 };
  }
  const zero = allowed.relL2 !== undefined ? 1e-6 : 0;
  const { atol = 0, rtol = 0, atolOfMax = 0 } = allowed;
  const absolute = Math.max(atol + atolOfMax * largest(expected), 10 * spread, zero);
  let worst = { error: 0, limit: absolute, ok: true, at: 0 };
  let share = -1;
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!);
    const bound = absolute + rtol * Math.abs(expected[i]!);
    const part = error === 0 ? 0 : error / bound;
    if (part <= share) continue;
    share = part;
    worst = { error, limit: bound, ok: error <= bound, at: i };
    if (Number.isNaN(part)) break;
  }
  return worst;
}

/** The largest magnitude. */
export function largest(values: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]!));
  return most;
}

/** ‖values‖, in float64. */
export function norm(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return Math.sqrt(sum);
}

const COLUMNS = { case: 16, quantity: 98, error: 10, limit: 10 };

const columns = (name: string, quantity: string, error: string, bound: string, verdict: string): string =>
  `${name.padEnd(COLUMNS.case)} ${quantity.padEnd(COLUMNS.quantity)} ${error.padStart(COLUMNS.error)} ${bound.padStart(COLUMNS.limit)}  ${verdict}`;

export const tableHead = (): string => columns('case', 'quantity', 'error', 'limit', 'verdict');

export function tableRow(row: Row): string {
  const figure = (value: number) => (row.reason === undefined ? value.toExponential(2) : '');
  const verdict = row.ok ? 'verified' : row.reason === undefined ? 'failed' : `failed: ${row.reason}`;
  return columns(row.case, row.quantity, figure(row.error), figure(row.limit), verdict);
}
