import fc from 'fast-check';
import { sizeOf } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { NdArray, Rows, Sample } from '../row.ts';

export function softmaxReference(x: NdArray): NdArray {
  const length = x.shape.at(-1)!;
  const out = nd(x.shape);
  for (let begin = 0; begin < out.data.length; begin += length) {
    const row = x.data.subarray(begin, begin + length);
    const highest = row.reduce((most, v) => Math.max(most, v), -Infinity);
    const total = row.reduce((sum, v) => sum + Math.exp(v - highest), 0);
    row.forEach((v, k) => (out.data[begin + k] = Math.exp(v - highest) / total));
  }
  return out;
}

export function logSoftmaxReference(x: NdArray): NdArray {
  const length = x.shape.at(-1)!;
  const out = nd(x.shape);
  for (let begin = 0; begin < out.data.length; begin += length) {
    const row = x.data.subarray(begin, begin + length);
    const highest = row.reduce((most, v) => Math.max(most, v), -Infinity);
    const rest = Math.log(row.reduce((sum, v) => sum + Math.exp(v - highest), 0));
    row.forEach((v, k) => (out.data[begin + k] = v - highest - rest));
  }
  return out;
}

/** Exponentials or logarithms of a row: their samples are the same. */
const samples: Sample<object>[] = [
  { inputs: [[3, 4, 19]], attributes: {} },
  { inputs: [[1]], attributes: {} },
  { inputs: [[5, 8]], attributes: {} },
  { inputs: [[2, 1500]], attributes: {} },
  {
    name: 'values far from zero and apart',
    inputs: [{ shape: [4, 32], value: (random, i) => (i < 64 ? 1e4 : -1e4) + 60 * random.uniform() }],
    attributes: {},
  },
  {
    name: 'a long row of nearly equal values',
    inputs: [{ shape: [2, 8192], value: (_, i) => 1e-5 * i }],
    attributes: {},
    forwardOnly: true,
  },
  {
    name: 'the lowest finite value, as masks have it',
    inputs: [{ shape: [3, 8], value: (_, i) => (i < 12 ? -3.4028234663852886e38 : i < 16 ? -3.402e38 : 0) }],
    attributes: {},
    forwardOnly: true, // no finite difference changes such a value
  },
  { name: 'no rows', inputs: [[0, 5]], attributes: {} },
  { name: 'no columns', inputs: [[3, 0]], attributes: {} },
  { name: 'past 65,535 workgroups', inputs: [[65_540, 3]], attributes: {}, forwardOnly: true },
];

const shared = {
  samples,
  gradient: [0],
  arbitrary: fc
    .array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 3 })
    .map((shape) => ({ inputs: [shape], attributes: {} })),
};

const bench = [
  [1024, 1024],
  [512, 77],
  [2000, 300],
].map((shape) => ({ inputs: [shape], attributes: {}, flops: 5 * sizeOf(shape) }));

export const softmaxRows: Rows<'softmax' | 'logSoftmax'> = {
  softmax: {
    ...shared,
    call: (operation, [x]) => operation(x!),
    reference: ([x]) => softmaxReference(x!),
    bench,
    bad: [[(operation, t) => operation(t([])), /\[softmax\] x must have a last dimension, not \(\)/]],
  },
  logSoftmax: {
    ...shared,
    call: (operation, [x]) => operation(x!),
    reference: ([x]) => logSoftmaxReference(x!),
    bad: [[(operation, t) => operation(t([])), /\[logSoftmax\] x must have a last dimension, not \(\)/]],
  },
};
