import fc from 'fast-check';
import type { HostRandom, Shape, Tensor } from '../../../engine/index.ts';
import type { CrossEntropyOptions, HuberOptions, LinearCrossEntropyOptions } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { InputSpec, NdArray, Row, Rows, Sample } from '../row.ts';

const weights = (samples: number): InputSpec => ({ shape: [samples], value: (random) => random.uniform() });

/** Targets below `columns`, one in five of them ignored. */
const targets = (rows: number, columns: number, ignored = -100): InputSpec => ({
  shape: [rows],
  dtype: 'i32',
  value: (random: HostRandom) => (random.uniform() < 0.2 ? ignored : random.below(columns)),
});

const crossEntropySample = (rows: number, columns: number): Sample<CrossEntropyOptions> => ({
  inputs: [[rows, columns], targets(rows, columns)],
  attributes: {},
});

type Loss = (a: Tensor, b: Tensor, options?: HuberOptions) => Tensor;
/** A loss of elements a and b. */
type Element = (a: number, b: number, delta: number) => number;

/** Σₙ wₙ · (mean, or with `whole` sum, of the sample's losses); wₙ is 1/N without weights. */
function compare([a, b, w]: NdArray[], loss: (a: number, b: number) => number, whole = false): NdArray {
  const samples = a!.shape[0] ?? 1;
  const length = a!.data.length / samples;
  const total = a!.data.reduce((sum, v, i) => {
    const weight = w ? w.data[Math.floor(i / length)]! : 1 / samples;
    return sum + (weight * loss(v, b!.data[i]!)) / (whole ? 1 : length);
  }, 0);
  return nd([], () => total);
}

const probability = (shape: Shape): InputSpec => ({ shape, value: (random) => 0.02 + 0.96 * random.uniform() });

/** A row of a loss whose inputs `a` and `b` make from a shape. */
function pointwise(
  name: string,
  loss: Element,
  {
    a,
    b,
    whole = false,
    gradient,
    delta,
  }: {
    a: (shape: Shape) => InputSpec;
    b: (shape: Shape) => InputSpec;
    whole?: boolean;
    gradient: number[];
    delta?: number;
  },
): Row<Loss, HuberOptions> {
  const sample = (shape: Shape, weighted: boolean): Sample<HuberOptions> => ({
    inputs: [a(shape), b(shape), weighted ? weights(shape[0]!) : null],
    attributes: delta === undefined ? {} : { delta },
  });
  return {
    call: (operation, [x, y, w], attributes) => operation(x!, y!, { ...attributes, ...(w ? { weights: w } : {}) }),
    reference: (inputs, attributes) => compare(inputs, (x, y) => loss(x, y, attributes.delta ?? 1), whole),
    samples: [
      sample([2, 3, 5], false),
      sample([], false),
      sample([1], false),
      sample([300], false),
      sample([3, 4, 8], true),
      sample([2, 3, 5], true),
      sample([2, 70, 71], true),
    ],
    gradient,
    arbitrary: fc
      .tuple(fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 }), fc.boolean())
      .map(([shape, weighted]) => sample(shape, weighted)),
    bad: [
      [(operation, t) => operation(t([2, 3]), t([2, 4])), new RegExp(`\\[${name}\\] shapes differ: \\(2, 3\\) and \\(2, 4\\)`)],
      [(operation, t) => operation(t([0, 3]), t([0, 3])), /mean over no elements/],
      [(operation, t) => operation(t([2, 3]), t([2, 3]), { weights: t([3]) }), /one a sample, \(2,\), not \(3,\)/],
      ...(gradient.length === 1 ? [[refusesTarget, new RegExp(`\\[${name}\\] targets are constants`)] as const] : []),
      ...(delta === undefined ? [] : [[refusesDelta, /delta must be above 0, not 0/] as const]),
    ],
  }; // prettier-ignore
}

const refusesTarget = (operation: Loss, t: (shape: Shape) => Tensor): unknown => {
  const target = t([2, 3]);
  target.requiresGrad = true;
  return operation(t([2, 3]), target);
};
const refusesDelta = (operation: Loss, t: (shape: Shape) => Tensor): unknown => operation(t([2]), t([2]), { delta: 0 });

const normal = (shape: Shape): InputSpec => shape;
const huber: Element = (a, b, delta) => {
  const d = Math.abs(a - b);
  return d <= delta ? (d * d) / 2 : delta * (d - delta / 2);
};
const crossEntropyOf: Element = (p, t) => -(t * Math.log(p) + (1 - t) * Math.log(1 - p));
const mse = pointwise('mse', (a, b) => (a - b) ** 2, { a: normal, b: normal, gradient: [0, 1] });
const l1 = pointwise('l1', (a, b) => Math.abs(a - b), { a: normal, b: normal, gradient: [0, 1] });
const bce = pointwise('bce', crossEntropyOf, { a: probability, b: probability, gradient: [0] });

/** log softmax(x · weightᵀ)[target] of each row; null where it is ignored. */
function logProbabilities([x, weight, goals]: NdArray[], { ignore = -100, softcap = 0 }: LinearCrossEntropyOptions) {
  const [rows, inner] = x!.shape as [number, number];
  const columns = weight!.shape[0]!;
  return Array.from({ length: rows }, (_, r) => {
    const goal = goals!.data[r]!;
    if (goal === ignore) return null;
    const logits = Array.from({ length: columns }, (_, v) => {
      let z = 0;
      for (let d = 0; d < inner; d++) z += x!.data[r * inner + d]! * weight!.data[v * inner + d]!;
      return softcap > 0 ? softcap * Math.tanh(z / softcap) : z;
    });
    const highest = Math.max(...logits);
    // By distance from the largest, as crossEntropy's.
    return logits[goal]! - highest - Math.log(logits.reduce((sum, z) => sum + Math.exp(z - highest), 0));
  });
}

const linearSample = (
  rows: number,
  inner: number,
  columns: number,
  attributes: LinearCrossEntropyOptions = {},
): Sample<LinearCrossEntropyOptions> => ({
  inputs: [[rows, inner], [columns, inner], targets(rows, columns, attributes.ignore)],
  attributes,
});

/** Bytes of so many rows of logits. */
const chunks = (rows: number, columns: number, more: LinearCrossEntropyOptions = {}): LinearCrossEntropyOptions => ({
  chunkBytes: rows * columns * 4,
  ...more,
});

const linearBad = (name: string): NonNullable<Row<LinearLoss>['bad']> => [
  [(operation, t) => operation(t([2, 3, 4]), t([5, 4]), t([2], 'i32')), /x must be \(R, D\), not \(2, 3, 4\)/],
  [(operation, t) => operation(t([2, 3]), t([5, 4]), t([2], 'i32')), /the weight must be \(V, 3\) .*not \(5, 4\)/],
  [(operation, t) => operation(t([2, 3]), t([5, 3]), t([3], 'i32')), /targets must be \(2,\).*not \(3,\)/],
  [(operation, t) => operation(t([2, 3]), t([5, 3]), t([2])), new RegExp(`\\[${name}\\] input 2 is f32; i32 is needed`)],
  [(operation, t) => operation(t([2, 3]), t([5, 3], 'f16'), t([2], 'i32')), /the weight is f16; f32, as x, or a storage format/],
  [(operation, t) => operation(t([2, 3]), t([5, 3]), t([2], 'i32'), { softcap: -1 }), /softcap must be above 0/],
  [(operation, t) => operation(t([2, 3]), t([5, 3]), t([2], 'i32'), { chunkBytes: 0 }), /chunkBytes must be above 0/],
]; // prettier-ignore

type LinearLoss = (x: Tensor, weight: Tensor, goals: Tensor, options?: LinearCrossEntropyOptions) => Tensor;

/** Rows of 128 bytes: a chunk is a multiple of two of them. */
const linearSamples = [
  linearSample(14, 32, 64, chunks(4, 64, { softcap: 2 })), // three chunks and a part of one
  linearSample(11, 32, 37, chunks(1, 37)),
  linearSample(9, 5, 12),
  linearSample(66, 4, 20, chunks(16, 20, { ignore: 3 })),
  linearSample(3, 8, 1500),
  { name: 'no rows', ...linearSample(0, 8, 5) },
  { name: 'all ignored', inputs: [[3, 4], [8, 4], { shape: [3], dtype: 'i32', value: () => -100 }], attributes: {} },
  {
    name: 'a weight in 8 bits',
    inputs: [[6, 64], { shape: [40, 64], dtype: 'q8' }, targets(6, 40)],
    attributes: chunks(2, 40),
  },
] as const satisfies Sample<LinearCrossEntropyOptions>[];

export const lossRows: Rows<
  | 'mse'
  | 'l1'
  | 'huber'
  | 'smoothL1'
  | 'bce'
  | 'bceWithLogits'
  | 'kl'
  | 'crossEntropy'
  | 'linearCrossEntropy'
  | 'linearLogProbabilities'
> = {
  mse: {
    ...mse,
    samples: [
      ...mse.samples,
      { name: 'past 65,535 workgroups', inputs: [[65_540, 3], [65_540, 3], weights(65_540)], attributes: {}, forwardOnly: true },
    ], // prettier-ignore
    bench: [
      { inputs: [[8, 4, 64, 64], [8, 4, 64, 64], null], attributes: {}, flops: 3 * 131_072 },
      { inputs: [[1, 4, 64, 64], [1, 4, 64, 64], null], attributes: {}, flops: 3 * 16_384 },
    ], // prettier-ignore
  },
  l1: {
    ...l1,
    // Among so many elements some lie within a finite difference of the kink.
    samples: l1.samples.map((sample, i) => ({ ...sample, forwardOnly: i === l1.samples.length - 1 })),
  },
  huber: pointwise('huber', huber, { a: normal, b: normal, gradient: [0, 1], delta: 0.75 }),
  smoothL1: pointwise('smoothL1', (a, b, delta) => huber(a, b, delta) / delta, {
    a: normal,
    b: normal,
    gradient: [0, 1],
    delta: 0.75,
  }),
  bce: {
    ...bce,
    samples: [
      ...bce.samples,
      {
        name: 'certainties',
        inputs: [
          { shape: [4], value: (_, i) => [0, 1, 0, 1][i]! },
          { shape: [4], value: (_, i) => [0, 1, 1, 0][i]! },
          null,
        ],
        attributes: {},
        forwardOnly: true,
      },
    ],
    reference: (inputs) =>
      compare(inputs, (p, t) => {
        const log = (x: number) => Math.max(Math.log(x), -100);
        return -(t * log(p) + (1 - t) * log(1 - p));
      }),
  },
  bceWithLogits: pointwise('bceWithLogits', (x, t) => Math.max(x, 0) - x * t + Math.log1p(Math.exp(-Math.abs(x))), {
    a: (shape) => ({ shape, value: (random) => 40 * (random.uniform() - 0.5) }),
    b: probability,
    gradient: [0],
  }),
  kl: pointwise('kl', (logQ, p) => (p === 0 ? 0 : p * (Math.log(p) - logQ)), {
    a: normal,
    b: (shape) => ({ shape, value: (random) => Math.max(0, random.uniform() - 0.1) }),
    gradient: [0],
    whole: true,
  }),
  crossEntropy: {
    call: (operation, [logits, goals], attributes) => operation(logits!, goals!, attributes),
    reference([logits, goals], { ignore = -100, smoothing = 0 }) {
      const [rows, columns] = logits!.shape as [number, number];
      let total = 0;
      let count = 0;
      for (let r = 0; r < rows; r++) {
        const goal = goals!.data[r]!;
        if (goal === ignore) continue;
        const row = logits!.data.subarray(r * columns, (r + 1) * columns);
        const highest = row.reduce((most, v) => Math.max(most, v), -Infinity);
        // All by distance from the largest: float64, too, would lose a log Σ beside it where it is huge.
        const logSum = Math.log(row.reduce((sum, v) => sum + Math.exp(v - highest), 0));
        const mean = row.reduce((sum, v) => sum + (v - highest), 0) / columns;
        total += logSum - (1 - smoothing) * (row[goal]! - highest) - smoothing * mean;
        count++;
      }
      return nd([], () => total / Math.max(count, 1));
    },
    samples: [
      crossEntropySample(14, 37),
      crossEntropySample(5, 64),
      crossEntropySample(2, 1500),
      crossEntropySample(300, 3),
      { inputs: [[1, 1], { shape: [1], dtype: 'i32', value: () => 0 }], attributes: {} },
      { inputs: [[6, 8], targets(6, 8, 3)], attributes: { ignore: 3 } },
      { ...crossEntropySample(6, 10), attributes: { smoothing: 0.1 } },
      { ...crossEntropySample(5, 12), attributes: { smoothing: 1 } },
      { name: 'no rows', inputs: [[0, 8], targets(0, 8)], attributes: {} },
      { name: 'all ignored', inputs: [[3, 8], { shape: [3], dtype: 'i32', value: () => -100 }], attributes: {} },
      {
        name: 'logits far from zero and apart',
        inputs: [
          { shape: [4, 32], value: (random, i) => (i < 64 ? 1e3 : -1e3) + 60 * random.uniform() },
          targets(4, 32),
        ],
        attributes: {},
      },
      {
        name: 'the lowest finite value, as masks have it',
        inputs: [
          { shape: [2, 8], value: (_, i) => (i < 12 ? -3.4028234663852886e38 : 0) },
          { shape: [2], dtype: 'i32', value: (_, i) => 7 * i },
        ],
        attributes: {},
        forwardOnly: true, // no finite difference changes such a value
      },
      { ...crossEntropySample(65_540, 3), name: 'past 65,535 workgroups', forwardOnly: true },
    ],
    gradient: [0],
    arbitrary: fc
      .tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 40 }))
      .map(([rows, columns]) => crossEntropySample(rows, columns)),
    bad: [
      [(operation, t) => operation(t([2, 3, 4]), t([2], 'i32')), /logits must be \(R, V\), not \(2, 3, 4\)/],
      [(operation, t) => operation(t([2, 3]), t([3], 'i32')), /targets must be \(2,\).*not \(3,\)/],
      [(operation, t) => operation(t([2, 3]), t([2])), /\[crossEntropy\] input 1 is f32; i32 is needed/],
      [
        (operation, t) => operation(t([2, 3]), t([2], 'i32'), { smoothing: 1.5 }),
        /smoothing must lie in 0 … 1, not 1.5/,
      ],
    ],
  },
  linearCrossEntropy: {
    call: (operation, [x, weight, goals], attributes) => operation(x!, weight!, goals!, attributes),
    reference(inputs, attributes) {
      const counted = logProbabilities(inputs, attributes).filter((value) => value !== null);
      return nd([], () => -counted.reduce((sum, value) => sum + value, 0) / Math.max(counted.length, 1));
    },
    samples: linearSamples,
    gradient: [0, 1],
    arbitrary: fc
      .tuple(
        fc.integer({ min: 1, max: 40 }),
        fc.constantFrom(3, 4, 32, 64),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 12 }),
      )
      .map(([rows, inner, columns, chunk]) => linearSample(rows, inner, columns, chunks(chunk, columns))),
    bad: linearBad('linearCrossEntropy'),
    bench: [{ ...linearSample(512, 256, 8192), flops: 2 * 512 * 256 * 8192 }],
  },
  linearLogProbabilities: {
    call: (operation, [x, weight, goals], attributes) => operation(x!, weight!, goals!, attributes),
    reference: (inputs, attributes) => {
      const values = logProbabilities(inputs, attributes);
      return nd([values.length], (i) => values[i] ?? 0);
    },
    samples: linearSamples,
    gradient: 'none',
    bad: [
      ...linearBad('linearLogProbabilities'),
      [
        (operation, t) => {
          const x = t([2, 3]);
          x.requiresGrad = true;
          return operation(x, t([5, 3]), t([2], 'i32'));
        },
        /\[linearLogProbabilities\] has no gradient/,
      ],
    ],
  },
};
