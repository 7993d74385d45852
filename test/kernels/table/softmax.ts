import fc from 'fast-check';
import { nd } from '../row.ts';
import type { NdArray, Rows } from '../row.ts';

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

export const softmaxRows: Rows<'softmax'> = {
  softmax: {
    call: (operation, [x]) => operation(x!),
    reference: ([x]) => softmaxReference(x!),
    samples: [
      { inputs: [[3, 4, 19]], attributes: {} },
      { inputs: [[1]], attributes: {} },
      { inputs: [[5, 8]], attributes: {} },
      { inputs: [[2, 1500]], attributes: {} },
      {
        name: 'values far from zero and apart',
        inputs: [{ shape: [4, 32], value: (random, i) => (i < 64 ? 1e4 : -1e4) + 60 * random.uniform() }],
        attributes: {},
      },
      { name: 'past 65,535 workgroups', inputs: [[65_540, 3]], attributes: {}, forwardOnly: true },
    ],
    gradient: [0],
    bench: [{ inputs: [[1024, 1024]], attributes: {}, flops: 5 * 1024 * 1024 }],
    arbitrary: fc
      .array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 3 })
      .map((shape) => ({ inputs: [shape], attributes: {} })),
    bad: [[(operation, t) => operation(t([])), /must have a last dimension, not \(\)/]],
  },
};
