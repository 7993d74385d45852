import fc from 'fast-check';
import { sizeOf } from '../../../engine/index.ts';
import type { Shape } from '../../../engine/index.ts';
import type { argmax, NormOptions, sum, VarianceOptions } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { InputSpec, NdArray, Row, Rows, Sample } from '../row.ts';

interface Attributes {
  axes?: number[];
  keepDims?: boolean;
}

/** Calls `f` with the values that make each element of the result, in order. */
function reduce(x: NdArray, { axes, keepDims }: Attributes, f: (values: number[]) => number): NdArray {
  const rank = x.shape.length;
  const gone = x.shape.map((_, i) => axes === undefined || axes.includes(i) || axes.includes(i - rank));
  const kept = x.shape.map((extent, i) => (gone[i] ? 1 : extent));
  const values: number[][] = Array.from({ length: sizeOf(kept) }, () => []);
  for (let index = 0; index < x.data.length; index++) {
    let rest = index;
    let at = 0;
    let step = 1;
    for (let i = rank - 1; i >= 0; i--) {
      if (!gone[i]) at += (rest % x.shape[i]!) * step;
      rest = Math.floor(rest / x.shape[i]!);
      step *= kept[i]!;
    }
    values[at]!.push(x.data[index]!);
  }
  return { shape: keepDims ? kept : x.shape.filter((_, i) => !gone[i]), data: Float64Array.from(values, f) };
}

const add = (values: number[]) => values.reduce((total, v) => total + v, 0);
const mean = (values: number[]) => add(values) / values.length;
const most = (values: number[]) => values.reduce((highest, v) => Math.max(highest, v));

const samples: Sample<Attributes>[] = [
  { inputs: [[]], attributes: {} },
  { inputs: [[1]], attributes: {} },
  { inputs: [[300]], attributes: {} },
  { inputs: [[301]], attributes: { axes: [0], keepDims: true } },
  { inputs: [[3, 4, 5]], attributes: { axes: [1] } },
  { inputs: [[3, 4, 5]], attributes: { axes: [0, 2] } },
  { inputs: [[3, 4, 5]], attributes: { axes: [] } },
  { inputs: [[3, 4, 8]], attributes: { axes: [-1], keepDims: true } },
  { inputs: [[2, 3, 40]], attributes: { axes: [-1] } },
  { inputs: [[200, 2]], attributes: { axes: [0] } },
  { inputs: [[3, 5, 8]], attributes: { axes: [1] } },
  { inputs: [[2, 1030]], attributes: { axes: [1] } },
  { name: 'none of the kept', inputs: [[0, 3]], attributes: { axes: [1] } },
];

/** No elements for what has a value there. */
const noElements: Sample<Attributes> = { name: 'no elements', inputs: [[3, 0]], attributes: { axes: [1] } };

const arbitrary = (largest = 7): fc.Arbitrary<Sample<Attributes>> =>
  fc
    .array(fc.integer({ min: 1, max: largest }), { minLength: 1, maxLength: 4 })
    .chain((shape) => fc.tuple(fc.constant(shape), fc.subarray(shape.map((_, i) => i)), fc.boolean()))
    .map(([shape, axes, keepDims]) => ({ inputs: [shape], attributes: { axes, keepDims } }));

const row = (name: string, f: (values: number[]) => number): Row<typeof sum, Attributes> => ({
  call: (operation, [x], { axes, keepDims }) => operation(x!, axes, { keepDims }),
  reference: ([x], attributes) => reduce(x!, attributes, f),
  samples,
  gradient: [0],
  arbitrary: arbitrary(),
  bad: [[(operation, t) => operation(t([2, 3]), [2]), new RegExp(`\\[${name}\\] axis 2 does not exist in \\(2, 3\\)`)]],
});

/** Which of two equal elements counts is a matter of the gradient's rule: see reduce.test.ts. */
const tied = (shape: Shape): InputSpec => ({ shape, value: (random) => random.below(3) });

const extremum = (name: 'max' | 'min', f: (values: number[]) => number) => ({
  ...row(name, f),
  samples: [
    ...samples,
    { name: 'ties', inputs: [tied([4, 20])], attributes: { axes: [1] }, forwardOnly: true },
    {
      name: 'all below zero',
      inputs: [{ shape: [3, 6], value: (random) => -1e30 * (1 + random.uniform()) } as InputSpec],
      attributes: { axes: [1] },
      forwardOnly: true, // finite differences of 1e-5 vanish there
    },
  ],
  bad: [
    ...row(name, f).bad!,
    [(operation, t) => operation(t([3, 0]), [1]), new RegExp(`\\[${name}\\] there is no ${name} of no elements`)],
  ] as Row<typeof sum>['bad'],
});

interface ArgAttributes {
  axis?: number;
  keepDims?: boolean;
}

const arg = (name: 'argmax' | 'argmin', sign: number): Row<typeof argmax, ArgAttributes> => ({
  call: (operation, [x], { axis, keepDims }) => operation(x!, axis, { keepDims }),
  reference: ([x], { axis = -1, keepDims }) =>
    reduce(x!, { axes: [axis], keepDims }, (values) => {
      const signed = values.map((v) => sign * v);
      return signed.indexOf(most(signed));
    }),
  samples: [
    { inputs: [[3, 7]], attributes: {} },
    { inputs: [[1]], attributes: {} },
    { inputs: [[4, 1, 3]], attributes: { axis: 1 } },
    { inputs: [[3, 4, 5]], attributes: { axis: 1, keepDims: true } },
    { inputs: [[2, 300]], attributes: { axis: -1 } },
    { inputs: [[200, 2]], attributes: { axis: 0 } },
    { inputs: [[0, 5]], attributes: {} },
    { name: 'ties', inputs: [tied([5, 200])], attributes: {} },
  ],
  gradient: 'none',
  arbitrary: fc
    .array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 })
    .chain((shape) => fc.tuple(fc.constant(shape), fc.integer({ min: 0, max: shape.length - 1 }), fc.boolean()))
    .map(([shape, axis, keepDims]) => ({ inputs: [tied(shape)], attributes: { axis, keepDims } })),
  bad: [
    [(operation, t) => operation(t([2, 3]), 2), new RegExp(`\\[${name}\\] axis 2 does not exist in \\(2, 3\\)`)],
    [(operation, t) => operation(t([2, 0])), new RegExp(`\\[${name}\\] there is none of no elements: \\(2, 0\\)`)],
    [(operation, t) => operation(t([2], 'i32')), new RegExp(`\\[${name}\\] input 0 is i32`)],
  ],
});

/** Factors near 1, with a zero now and then. */
const factors = (shape: Shape, zeros = 0): InputSpec => ({
  shape,
  value: (random) => (random.uniform() < zeros ? 0 : (0.7 + 0.6 * random.uniform()) * (random.below(2) ? 1 : -1)),
});

type Names =
  'sum' | 'mean' | 'max' | 'min' | 'prod' | 'argmax' | 'argmin' | 'logSumExp' | 'variance' | 'norm' | 'cumulativeSum';

const orders = [1, 2, Infinity] as const;

export const reduceRows: Rows<Names> = {
  sum: {
    ...row('sum', add),
    samples: [
      ...samples,
      noElements,
      // Term by term, each rounding would be in the same direction.
      { name: 'equal values', inputs: [{ shape: [3, 5000], value: () => 0.1 }], attributes: { axes: [1] } },
      { name: 'equal values in columns', inputs: [{ shape: [5000, 3], value: () => 0.1 }], attributes: { axes: [0] } },
    ],
    bench: [
      { inputs: [[1024, 1024]], attributes: {}, flops: 1024 * 1024 },
      { inputs: [[2048, 320]], attributes: { axes: [0] }, flops: 2048 * 320 },
      { inputs: [[2048, 320]], attributes: { axes: [1] }, flops: 2048 * 320 },
    ],
  },
  mean: {
    ...row('mean', mean),
    bad: [
      [(operation, t) => operation(t([0])), /mean over no elements/],
      [(operation, t) => operation(t([2], 'i32')), /\[mean\] input 0 is i32; f32 or f16 is needed/],
    ],
  },
  max: extremum('max', most),
  min: extremum('min', (values) => -most(values.map((v) => -v))),
  prod: {
    ...row('prod', (values) => values.reduce((product, v) => product * v, 1)),
    samples: [
      ...samples.slice(0, 2),
      ...samples.slice(4, 9).map(({ inputs: [shape], attributes }) => ({ inputs: [factors(shape as Shape)], attributes })),
      { inputs: [factors([200, 2])], attributes: { axes: [0] } },
      { name: 'zeros', inputs: [factors([30, 4], 0.25)], attributes: { axes: [1] } },
      noElements,
    ],
    arbitrary: arbitrary(4).map(({ inputs: [shape], attributes }) => ({ inputs: [factors(shape as Shape)], attributes })),
    tolerance: 2e-5, // 200 roundings, and as many of the quotients in the gradient
  }, // prettier-ignore
  argmax: arg('argmax', 1),
  argmin: arg('argmin', -1),
  logSumExp: {
    ...row('logSumExp', (values) => {
      const highest = most(values);
      return highest + Math.log(add(values.map((v) => Math.exp(v - highest))));
    }),
    samples: [
      ...samples,
      {
        name: 'values far from zero and apart',
        inputs: [{ shape: [4, 32], value: (random, i) => (i < 64 ? 1e3 : -1e3) + 60 * random.uniform() }],
        attributes: { axes: [1] },
      },
    ],
    bad: [
      [(operation, t) => operation(t([2, 3]), [2]), /\[logSumExp\] axis 2 does not exist in \(2, 3\)/],
      [(operation, t) => operation(t([0])), /over no elements is undefined/],
    ],
  },
  variance: {
    call: (operation, [x], { axes, ...options }) => operation(x!, axes, options),
    reference: ([x], { correction = 0, ...attributes }) =>
      reduce(x!, attributes, (values) => {
        const middle = mean(values);
        return add(values.map((v) => (v - middle) ** 2)) / (values.length - correction);
      }),
    samples: [
      { inputs: [[300]], attributes: {} },
      { inputs: [[3, 4, 5]], attributes: { axes: [0, 2], correction: 1 } },
      { inputs: [[3, 4, 8]], attributes: { axes: [-1], keepDims: true } },
      { inputs: [[1]], attributes: {} },
      { inputs: [[0, 3]], attributes: { axes: [1] } },
      {
        name: 'small variance',
        inputs: [{ shape: [4, 64], value: (random) => 1 + 0.003 * random.uniform() }],
        attributes: { axes: [1] },
        forwardOnly: true, // finite differences of 1e-5 are too coarse
      },
    ] satisfies Sample<Attributes & VarianceOptions>[],
    gradient: [0],
    arbitrary: arbitrary(),
    bad: [
      [(operation, t) => operation(t([2, 3]), [2]), /\[variance\] axis 2 does not exist/],
      [(operation, t) => operation(t([2, 0]), [1]), /\[variance\] 0 elements of \(2, 0\) with correction 0 leave none/],
      [(operation, t) => operation(t([2, 1]), [1], { correction: 1 }), /1 elements .* correction 1 leave none/],
    ],
  },
  norm: {
    call: (operation, [x], { axes, ...options }) => operation(x!, axes, options),
    reference: ([x], { order = 2, ...attributes }) =>
      reduce(x!, attributes, (values) => {
        const sizes = values.map(Math.abs);
        if (order === 1) return add(sizes);
        return order === 2 ? Math.sqrt(add(values.map((v) => v * v))) : sizes.reduce((a, b) => Math.max(a, b), 0);
      }),
    samples: orders.flatMap((order): Sample<Attributes & NormOptions>[] => [
      { inputs: [[300]], attributes: { order } },
      { inputs: [[3, 4, 5]], attributes: { axes: [0, 2], order } },
      { inputs: [[3, 4, 8]], attributes: { axes: [-1], keepDims: true, order } },
      { inputs: [[2, 3]], attributes: { axes: [], order } },
      { inputs: [[]], attributes: { order } },
      { inputs: [[3, 0]], attributes: { axes: [1], order } },
    ]),
    gradient: [0],
    arbitrary: fc
      .tuple(arbitrary(), fc.constantFrom(...orders))
      .map(([{ inputs, attributes }, order]) => ({ inputs, attributes: { ...attributes, order } })),
    bad: [
      [(operation, t) => operation(t([2, 3]), [2]), /\[norm\] axis 2 does not exist/],
      [
        (operation, t) => operation(t([2]), [0], { order: 3 as 2 }),
        /\[norm\] the order must be 1, 2 or Infinity, not 3/,
      ],
    ],
  },
  cumulativeSum: {
    call: (operation, [x], { axis }) => operation(x!, axis),
    reference([x], { axis = -1 }) {
      const { shape, data } = x!;
      const at = axis < 0 ? axis + shape.length : axis;
      const step = sizeOf(shape.slice(at + 1));
      const out = nd(shape);
      for (let i = 0; i < data.length; i++) {
        const first = Math.floor(i / step) % shape[at]! === 0;
        out.data[i] = data[i]! + (first ? 0 : out.data[i - step]!);
      }
      return out;
    },
    samples: [
      { inputs: [[3, 5]], attributes: {} },
      { inputs: [[1]], attributes: {} },
      { inputs: [[300]], attributes: {} },
      { inputs: [[5, 4, 3]], attributes: { axis: 1 } },
      { inputs: [[150, 2, 4]], attributes: { axis: 0 } },
      { name: 'three passes', inputs: [[64 * 64 + 3]], attributes: {}, forwardOnly: true },
      { inputs: [[0, 3]], attributes: {} },
      { inputs: [[3, 0]], attributes: {} },
    ],
    gradient: [0],
    arbitrary: fc
      .array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 })
      .chain((shape) => fc.tuple(fc.constant(shape), fc.integer({ min: -shape.length, max: shape.length - 1 })))
      .map(([shape, axis]) => ({ inputs: [shape], attributes: { axis } })),
    bad: [
      [(operation, t) => operation(t([2, 3]), 2), /\[cumulativeSum\] axis 2 does not exist in \(2, 3\)/],
      [(operation, t) => operation(t([])), /\[cumulativeSum\] x must have an axis, not \(\)/],
    ],
  },
};
