/** Values that arithmetic likes to get wrong, and how close results must come on them: by backward error. */
import { HostRandom, randomKey } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { forward, FORWARD_TOLERANCE, makeInputs, rows } from './rows.ts';
import type { AnyRow, AnySample, Made } from './rows.ts';
import { nd } from './row.ts';
import type { NdArray } from './row.ts';

/** All f32: zeros, ones, subnormal and tiny ones, large ones. */
const SPECIAL = [0, -0, 1, -1, 2 ** -149, -(2 ** -140), 2 ** -126, 1e-20, -1e-20, 0.5, 3, 88.8, -88.8, 65_504, -1e15, 1e15]; // prettier-ignore

/**
 * What fills the inputs that have no values of their own. Squares and products of two of the largest still fit into f32:
 * where they don't, infinity is the right answer and there is nothing to compare.
 */
const KINDS = {
  special: (random) => (random.uniform() < 0.5 ? SPECIAL[random.below(SPECIAL.length)]! : random.normal(1)[0]!),
  zeros: (random) => (random.below(2) === 0 ? 0 : -0),
  equal: () => 0.1,
  tiny: (random) => 1e-15 * random.normal(1)[0]!,
  huge: (random) => 1e15 * random.normal(1)[0]!,
  'far from zero': (random) => 1e4 + random.normal(1)[0]!,
} satisfies Record<string, (random: HostRandom) => number>;

export type Kind = keyof typeof KINDS;
export const kinds = Object.keys(KINDS) as Kind[];

/** The sample with values of `kind` in the inputs that have none of their own. */
export const filled = (sample: AnySample, kind: Kind): AnySample => ({
  ...sample,
  inputs: sample.inputs.map((spec) => (spec === null || 'shape' in spec ? spec : { shape: spec, value: KINDS[kind] })),
});

/** Throws where the device's forward pass on such values is not what the row's reference says. */
export async function checkValues(
  device: Device,
  operation: string,
  plain: AnySample,
  kind: Kind,
  seed: number,
): Promise<void> {
  const row = rows.get(operation)!;
  const sample = filled(plain, kind);
  const inputs = makeInputs(sample, seed);
  const { data } = await forward(device, operation, sample.attributes, inputs);
  const expected = row.reference(inputs as NdArray[], sample.attributes);
  const limit = 2 ** 127;
  const largest = expected.data.reduce((most, v) => (Math.abs(v) < limit ? Math.max(most, Math.abs(v)) : most), 0);
  const tolerance = row.tolerance ?? FORWARD_TOLERANCE;
  const slack = new Float64Array(expected.data.length);
  const allowed = (i: number) => tolerance * (Math.abs(expected.data[i]!) + largest) + slack[i]! + 4 * 2 ** -126;
  const wrong = () =>
    expected.data.findIndex(
      // beyond f32, or not a number: anything may be there
      (v, i) => Math.abs(v) < limit && slack[i]! < limit && !(Math.abs(data[i]! - v) <= allowed(i)),
    );
  const random = new HostRandom(randomKey(seed, 'rounding'));
  // Of several that tie for a maximum each must come first once: where the first few don't explain a result, many are tried.
  for (const times of [4, 400]) {
    condition(slack, row, sample, inputs, expected, random, times);
    const at = wrong();
    if (at < 0) return;
    if (times === 4) continue;
    throw new Error(
      `${operation}, values ${kind}: element ${at} is ${data[at]}, expected ${expected.data[at]} (± ${allowed(at).toExponential(1)})`,
    );
  }
}

/**
 * How far each element of the result may be off besides: by as much as the exact result moves when the inputs are rounded
 * as often as the row's tolerance allows (backward error: what cancels is lost in any order), and when subnormal inputs
 * count as zero, as WGSL lets an adapter do. Widens `slack` by so many random roundings.
 */
function condition(
  slack: Float64Array,
  row: AnyRow,
  sample: AnySample,
  inputs: Made,
  expected: NdArray,
  random: HostRandom,
  times: number,
): void {
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
  for (let i = 0; i < times; i++) widen((value) => value * (1 + unit * (2 * random.uniform() - 1)), 2);
  widen((value) => (Math.abs(value) < 2 ** -126 ? 0 : value), 1);
}
