/** One random case of a row: a sample, values of some kind, a dtype; how it is judged, and how it is written down. */
import fc from 'fast-check';
import { HostRandom, randomKey } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { checkSample, forward, FORWARD_TOLERANCE, makeInputs, rows } from '../kernels/check.ts';
import type { AnyRow, AnySample, Made } from '../kernels/check.ts';
import { nd } from '../kernels/row.ts';
import type { NdArray } from '../kernels/row.ts';

/** Values that arithmetic likes to get wrong, all f32: zeros, ones, subnormal and tiny ones, large ones. */
const SPECIAL = [
  0,
  -0,
  1,
  -1,
  2 ** -149,
  -(2 ** -140),
  2 ** -126,
  1e-20,
  -1e-20,
  0.5,
  3,
  88.8,
  -88.8,
  65_504,
  -1e15,
  1e15,
];

/**
 * What the inputs that have no values of their own are filled with. Squares and products of two of the largest still fit
 * into f32: where they don't, infinity is the right answer and there is nothing to compare.
 */
const KINDS = {
  special: (random) => (random.uniform() < 0.5 ? SPECIAL[random.below(SPECIAL.length)]! : random.normal(1)[0]!),
  zeros: (random) => (random.below(2) === 0 ? 0 : -0),
  equal: () => 0.1,
  tiny: (random) => 1e-15 * random.normal(1)[0]!,
  huge: (random) => 1e15 * random.normal(1)[0]!,
  'far from zero': (random) => 1e4 + random.normal(1)[0]!,
} satisfies Record<string, (random: HostRandom) => number>;

export interface Case {
  readonly sample: AnySample;
  /** `normal`: as the row makes them, with gradients; otherwise the forward pass alone. */
  readonly kind: 'normal' | keyof typeof KINDS;
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
  const kind = fc.constantFrom('normal' as const, 'normal' as const, ...(Object.keys(KINDS) as (keyof typeof KINDS)[]));
  return fc
    .record({ sample, kind, half, seed: fc.nat() })
    .map((made) => ({ ...made, half: made.half && made.kind === 'normal' }));
}

/** The sample with this case's values in the inputs that have none of their own. */
const filled = ({ sample, kind }: Case): AnySample => ({
  ...sample,
  inputs: sample.inputs.map((spec) =>
    spec === null || 'shape' in spec || kind === 'normal' ? spec : { shape: spec, value: KINDS[kind] },
  ),
});

/** Throws where the device's result is not what the row's reference says. */
export async function checkCase(device: Device, operation: string, one: Case): Promise<void> {
  const { kind, half, seed } = one;
  const sample = filled(one);
  if (kind === 'normal') return checkSample(device, operation, sample, seed, half);
  const row = rows.get(operation)!;
  const inputs = makeInputs(sample, seed);
  const { data } = await forward(device, operation, sample.attributes, inputs);
  const expected = row.reference(inputs as NdArray[], sample.attributes);
  const slack = conditioning(row, sample, inputs, expected, seed);
  const limit = 2 ** 127;
  const largest = expected.data.reduce((most, v) => (Math.abs(v) < limit ? Math.max(most, Math.abs(v)) : most), 0);
  const tolerance = row.tolerance ?? FORWARD_TOLERANCE;
  expected.data.forEach((value, i) => {
    if (!(Math.abs(value) < limit) || !(slack[i]! < limit)) return; // beyond f32, or not a number: anything may be there
    const allowed = tolerance * (Math.abs(value) + largest) + slack[i]! + 4 * 2 ** -126;
    if (!(Math.abs(data[i]! - value) <= allowed))
      throw new Error(`${operation}: element ${i} is ${data[i]}, expected ${value} (± ${allowed.toExponential(1)})`);
  });
}

/**
 * How far each element of the result may be off besides: by as much as the exact result moves when the inputs are rounded
 * as often as the row's tolerance allows (backward error: what cancels is lost in any order), and when subnormal inputs
 * count as zero, as WGSL lets an adapter do.
 */
function conditioning(row: AnyRow, sample: AnySample, inputs: Made, expected: NdArray, seed: number): Float64Array {
  const slack = new Float64Array(expected.data.length);
  const widen = (change: (value: number) => number, factor: number) => {
    const moved = row.reference(
      inputs.map(
        (input) => input && (input.dtype === 'f32' ? nd(input.shape, (i) => change(input.data[i]!)) : input),
      ) as NdArray[],
      sample.attributes,
    );
    moved.data.forEach((value, i) => (slack[i] = Math.max(slack[i]!, factor * Math.abs(value - expected.data[i]!))));
  };
  const unit = 4 * Math.max(row.tolerance ?? 0, FORWARD_TOLERANCE);
  const random = new HostRandom(randomKey(seed, 'rounding'));
  for (let i = 0; i < 4; i++) widen((value) => value * (1 + unit * (random.below(2) === 0 ? 1 : -1)), 2);
  widen((value) => (Math.abs(value) < 2 ** -126 ? 0 : value), 1);
  return slack;
}

/** The case as a sample that can be pasted into the row, its values written out. */
export function written(one: Case): string {
  const sample = filled(one);
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
