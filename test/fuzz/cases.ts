/** One random case of a row: a sample, values of some kind, a dtype; and how it is written down. */
import fc from 'fast-check';
import type { Device } from '../../engine/index.ts';
import { checkSample } from '../kernels/check.ts';
import { makeInputs } from '../kernels/rows.ts';
import type { AnyRow, AnySample } from '../kernels/rows.ts';
import { checkValues, filled, kinds } from '../kernels/values.ts';
import type { Kind } from '../kernels/values.ts';

export interface Case {
  readonly sample: AnySample;
  /** `normal`: as the row makes them, with gradients; otherwise the forward pass alone. */
  readonly kind: 'normal' | Kind;
  readonly half: boolean;
  readonly seed: number;
}

/** The row's own random samples, and its fixed ones. */
export function cases(row: AnyRow): fc.Arbitrary<Case> {
  const small = row.samples.filter(({ forwardOnly }) => !forwardOnly);
  const fixed = fc.constantFrom(...(small.length > 0 ? small : row.samples));
  const sample = row.arbitrary
    ? fc.oneof({ withCrossShrink: true }, { arbitrary: row.arbitrary, weight: 4 }, { arbitrary: fixed, weight: 1 })
    : fixed;
  const half = row.f16 === 'none' ? fc.constant(false) : fc.boolean();
  const kind = fc.constantFrom('normal' as const, 'normal' as const, ...kinds);
  return fc
    .record({ sample, kind, half, seed: fc.nat() })
    .map((made) => ({ ...made, half: made.half && made.kind === 'normal' }));
}

/** Throws where the device's result is not what the row's reference says. */
export function checkCase(device: Device, operation: string, { sample, kind, half, seed }: Case): Promise<void> {
  if (kind === 'normal') return checkSample(device, operation, sample, seed, half);
  return checkValues(device, operation, sample, kind, seed);
}

/** The case as a sample that can be pasted into the row, its values written out. */
export function written(one: Case): string {
  const sample = one.kind === 'normal' ? one.sample : filled(one.sample, one.kind);
  const inputs = makeInputs(sample, one.seed, one.half).map((input) => {
    if (!input) return 'null';
    const shape = `[${input.shape.join(', ')}]`;
    const dtype = input.dtype === 'f32' || input.dtype === 'f16' ? '' : `dtype: '${input.dtype}', `;
    const values = Array.from(input.data, (value) => (Object.is(value, -0) ? '-0' : String(value)));
    return `{ shape: ${shape}, ${dtype}value: (_, i) => [${values.join(', ')}][i]! }`;
  });
  const attributes = JSON.stringify(sample.attributes, (_, value: unknown) => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value)); // prettier-ignore
  return `{ name: 'found by fuzzing', inputs: [${inputs.join(', ')}], attributes: ${attributes ?? '{}'} },`;
}
