import fc from 'fast-check';
import type { HostRandom } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { InputSpec, Rows, Sample } from '../row.ts';

const weights = (samples: number): InputSpec => ({ shape: [samples], value: (random) => random.uniform() });

/** Targets below `columns`, one in five of them ignored. */
const targets = (rows: number, columns: number, ignored = -100): InputSpec => ({
  shape: [rows],
  dtype: 'i32',
  value: (random: HostRandom) => (random.uniform() < 0.2 ? ignored : random.below(columns)),
});

const crossEntropySample = (rows: number, columns: number): Sample<{ ignore?: number }> => ({
  inputs: [[rows, columns], targets(rows, columns)],
  attributes: {},
});

export const lossRows: Rows<'mse' | 'crossEntropy'> = {
  mse: {
    call: (operation, [a, b, w]) => operation(a!, b!, { weights: w ?? undefined }),
    reference([a, b, w]) {
      const samples = a!.shape[0] ?? 1;
      const length = a!.data.length / samples;
      const loss = a!.data.reduce((sum, v, i) => {
        const weight = w ? w.data[Math.floor(i / length)]! : 1 / samples;
        return sum + (weight * (v - b!.data[i]!) ** 2) / length;
      }, 0);
      return nd([], () => loss);
    },
    samples: [
      { inputs: [[2, 3, 5], [2, 3, 5], null], attributes: {} },
      { inputs: [[], [], null], attributes: {} },
      { inputs: [[300], [300], null], attributes: {} },
      { inputs: [[3, 4, 8], [3, 4, 8], weights(3)], attributes: {} },
      { inputs: [[2, 3, 5], [2, 3, 5], weights(2)], attributes: {} },
      { inputs: [[2, 70, 71], [2, 70, 71], weights(2)], attributes: {} },
      { name: 'past 65,535 workgroups', inputs: [[65_540, 3], [65_540, 3], weights(65_540)], attributes: {}, forwardOnly: true },
    ], // prettier-ignore
    gradient: [0, 1],
    arbitrary: fc
      .tuple(fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 }), fc.boolean())
      .map(([shape, weighted]) => ({ inputs: [shape, shape, weighted ? weights(shape[0]!) : null], attributes: {} })),
    bad: [
      [(operation, t) => operation(t([2, 3]), t([2, 4])), /shapes differ: \(2, 3\) and \(2, 4\)/],
      [(operation, t) => operation(t([0, 3]), t([0, 3])), /mean over no elements/],
      [(operation, t) => operation(t([2, 3]), t([2, 3]), { weights: t([3]) }), /one a sample, \(2,\), not \(3,\)/],
    ],
  },
  crossEntropy: {
    call: (operation, [logits, goals], { ignore }) => operation(logits!, goals!, { ignore }),
    reference([logits, goals], { ignore = -100 }) {
      const [rows, columns] = logits!.shape as [number, number];
      let total = 0;
      let count = 0;
      for (let r = 0; r < rows; r++) {
        const goal = goals!.data[r]!;
        if (goal === ignore) continue;
        const row = logits!.data.subarray(r * columns, (r + 1) * columns);
        const highest = row.reduce((most, v) => Math.max(most, v), -Infinity);
        total += highest + Math.log(row.reduce((sum, v) => sum + Math.exp(v - highest), 0)) - row[goal]!;
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
      { name: 'all ignored', inputs: [[3, 8], { shape: [3], dtype: 'i32', value: () => -100 }], attributes: {} },
      {
        name: 'logits far from zero and apart',
        inputs: [
          { shape: [4, 32], value: (random, i) => (i < 64 ? 1e3 : -1e3) + 60 * random.uniform() },
          targets(4, 32),
        ],
        attributes: {},
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
    ],
  },
};
