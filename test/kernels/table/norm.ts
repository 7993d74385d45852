import fc from 'fast-check';
import { sizeOf } from '../../../engine/index.ts';
import type { Shape } from '../../../engine/index.ts';
import type { RmsNormOptions } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { InputSpec, NdArray, Rows, Sample } from '../row.ts';

interface GroupAttributes {
  groups: number;
  eps?: number;
  silu?: boolean;
}

/** Normalises each run of `length` elements; element i then has weight and bias `parameter(i)`. */
function normalise(
  [x, weight, bias]: NdArray[],
  length: number,
  eps: number,
  parameter: (i: number) => number,
): NdArray {
  const out = nd(x!.shape);
  for (let begin = 0; begin < out.data.length; begin += length) {
    const row = x!.data.subarray(begin, begin + length);
    const mean = row.reduce((sum, v) => sum + v, 0) / length;
    const variance = row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / length;
    row.forEach((v, k) => {
      const p = parameter(begin + k);
      out.data[begin + k] = ((v - mean) / Math.sqrt(variance + eps)) * weight!.data[p]! + bias!.data[p]!;
    });
  }
  return out;
}

const groupSample = (shape: Shape, attributes: GroupAttributes, x: InputSpec = shape): Sample<GroupAttributes> => ({
  inputs: [x, [shape[1]!], [shape[1]!]],
  attributes,
});

const layerSample = (shape: Shape, x: InputSpec = shape): Sample<{ eps?: number }> => ({
  inputs: [x, [shape.at(-1)!], [shape.at(-1)!]],
  attributes: {},
});

const rmsSample = (shape: Shape, attributes: RmsNormOptions): Sample<RmsNormOptions> => ({
  inputs: [shape, [shape.at(-1)!]],
  attributes,
});

/** Values about 1 that vary in the third digit: E[x²] − E[x]² would cancel. */
const faint = (shape: Shape): InputSpec => ({ shape, value: (random) => 1 + 0.003 * random.uniform() });
/** Finite differences of 1e-5 are too coarse there; the recording `group_norm_eps6` has the gradients. */
const smallVariance = { name: 'small variance', forwardOnly: true };

export const normRows: Rows<'groupNorm' | 'layerNorm' | 'rmsNorm'> = {
  groupNorm: {
    call: (operation, [x, weight, bias], { groups, ...options }) => operation(x!, weight!, bias!, groups, options),
    reference(inputs, { groups, eps = 1e-5, silu = false }) {
      const [, c, ...spatial] = inputs[0]!.shape;
      const inner = sizeOf(spatial);
      const out = normalise(inputs, (c! / groups) * inner, eps, (i) => Math.floor(i / inner) % c!);
      return silu ? nd(out.shape, (i) => out.data[i]! / (1 + Math.exp(-out.data[i]!))) : out;
    },
    samples: [
      groupSample([2, 6, 4, 4], { groups: 3 }),
      groupSample([2, 6, 4, 4], { groups: 3, silu: true }),
      groupSample([1, 12, 17], { groups: 4, eps: 1e-6, silu: true }),
      groupSample([3, 4, 3, 5], { groups: 4 }),
      groupSample([2, 5, 7], { groups: 1 }),
      groupSample([2, 8], { groups: 2 }),
      groupSample([1, 48, 16, 16], { groups: 16, silu: true }),
      { ...groupSample([1, 12, 17], { groups: 4, eps: 1e-6 }, faint([1, 12, 17])), ...smallVariance },
      groupSample([2, 16, 20, 20], { groups: 2 }), // 3200 elements a group: several rounds of any number of lanes
      { ...groupSample([0, 4, 3], { groups: 2 }), name: 'no samples' },
    ],
    gradient: [0, 1, 2],
    bench: [
      { ...groupSample([8, 48, 16, 16], { groups: 16, silu: true }), flops: 8 * 98_304 },
      { ...groupSample([8, 144, 4, 4], { groups: 16, silu: true }), flops: 8 * 18_432 },
      { ...groupSample([4, 16, 64, 64], { groups: 8, silu: true }), flops: 8 * 262_144 },
    ],
    // the backward pass cancels twice along the group; SiLU's slope adds an exponential
    gradientTolerance: 8e-6,
    arbitrary: fc
      .record({
        n: fc.integer({ min: 1, max: 3 }),
        groups: fc.integer({ min: 1, max: 4 }),
        channels: fc.integer({ min: 1, max: 3 }),
        spatial: fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 2 }),
        silu: fc.boolean(),
      })
      .filter(({ channels, spatial }) => channels * sizeOf(spatial) >= 4) // fewer give variances near 0: ill-conditioned
      .map(({ n, groups, channels, spatial, silu }) =>
        groupSample([n, groups * channels, ...spatial], { groups, silu, eps: 0.1 }),
      ),
    bad: [
      [
        (operation, t) => operation(t([2, 6, 4]), t([6]), t([6]), 4),
        /6 channels of x \(2, 6, 4\) do not divide into 4/,
      ],
      [(operation, t) => operation(t([6]), t([6]), t([6]), 2), /x must be \(N, C, …\), not \(6,\)/],
      [
        (operation, t) => operation(t([2, 6, 4]), t([6]), t([4]), 2),
        /bias must be \(6,\) for x \(2, 6, 4\), not \(4,\)/,
      ],
    ],
  },
  layerNorm: {
    call: (operation, [x, weight, bias], { eps }) => operation(x!, weight!, bias!, eps),
    reference(inputs, { eps = 1e-5 }) {
      const length = inputs[0]!.shape.at(-1)!;
      return normalise(inputs, length, eps, (i) => i % length);
    },
    samples: [
      layerSample([3, 7, 20]),
      layerSample([5, 13]),
      layerSample([16]),
      layerSample([1, 1, 300]),
      layerSample([70, 12]), // three chunks of the parameters' gradients
      layerSample([2, 1500]),
      { ...layerSample([4, 64], faint([4, 64])), ...smallVariance },
      { ...layerSample([0, 8]), name: 'no rows' },
      { ...layerSample([65_540, 4]), name: 'past 65,535 workgroups', forwardOnly: true },
    ],
    gradient: [0, 1, 2],
    gradientTolerance: 8e-6, // as for groupNorm
    bench: [
      [1024, 320],
      [2048, 48],
      [77, 768],
      [2000, 300],
    ].map((shape) => ({
      ...layerSample(shape),
      flops: 8 * sizeOf(shape),
    })),
    arbitrary: fc
      .tuple(fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 2 }), fc.integer({ min: 4, max: 40 }))
      .map(([outer, length]) => ({ ...layerSample([...outer, length]), attributes: { eps: 0.1 } })),
    bad: [
      [(operation, t) => operation(t([]), t([1]), t([1])), /must have a last dimension to normalise, not \(\)/],
      [(operation, t) => operation(t([2, 6]), t([2]), t([6])), /weight must be \(6,\) for x \(2, 6\), not \(2,\)/],
    ],
  },
  rmsNorm: {
    call: (operation, [x, weight], attributes) => operation(x!, weight!, attributes),
    reference([x, weight], { eps = 1e-6, offset = 0 }) {
      const length = x!.shape.at(-1)!;
      const out = nd(x!.shape);
      for (let begin = 0; begin < out.data.length; begin += length) {
        const row = x!.data.subarray(begin, begin + length);
        const square = row.reduce((sum, v) => sum + v * v, 0) / length;
        row.forEach((v, k) => (out.data[begin + k] = (v / Math.sqrt(square + eps)) * (offset + weight!.data[k]!)));
      }
      return out;
    },
    samples: [
      rmsSample([3, 7, 20], {}),
      rmsSample([3, 7, 20], { offset: 1 }),
      rmsSample([5, 13], { eps: 1e-5 }),
      rmsSample([16], {}),
      rmsSample([70, 12], {}),
      rmsSample([2, 1500], {}),
      rmsSample([4, 1], { eps: 0.5 }),
      { ...rmsSample([0, 8], {}), name: 'no rows' },
      {
        name: 'equal values',
        inputs: [{ shape: [2, 4096], value: () => 0.1 }, [4096]],
        attributes: {},
        forwardOnly: true,
      },
      {
        name: 'eps under the root counts',
        inputs: [{ shape: [3, 16], value: (random) => 1e-3 * (random.uniform() - 0.5) }, [16]],
        attributes: { eps: 1e-6 },
        forwardOnly: true, // as for the small variance
      },
    ],
    gradient: [0, 1],
    gradientTolerance: 8e-6, // as for groupNorm
    bench: [{ ...rmsSample([1024, 320], {}), flops: 5 * 1024 * 320 }],
    arbitrary: fc
      .tuple(
        fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 2 }),
        fc.integer({ min: 1, max: 40 }),
        fc.constantFrom(0, 1),
      )
      .map(([outer, length, offset]) => rmsSample([...outer, length], { eps: 0.1, offset })),
    bad: [
      [(operation, t) => operation(t([]), t([1])), /\[rmsNorm\] x must have a last dimension to normalise, not \(\)/],
      [(operation, t) => operation(t([2, 6]), t([2])), /\[rmsNorm\] weight must be \(6,\) for x \(2, 6\), not \(2,\)/],
    ],
  },
};
