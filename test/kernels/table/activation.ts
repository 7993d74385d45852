import fc from 'fast-check';
import { nd } from '../row.ts';
import type { Rows } from '../row.ts';
import { erf } from './elementwise.ts';

export const activationRows: Rows<'geglu' | 'swiglu'> = {
  geglu: {
    call: (operation, [x]) => operation(x!),
    reference([x]) {
      const width = x!.shape.at(-1)! / 2;
      return nd([...x!.shape.slice(0, -1), width], (i) => {
        const left = Math.floor(i / width) * 2 * width + (i % width);
        const v = x!.data[left + width]!;
        return x!.data[left]! * 0.5 * v * (1 + erf(v / Math.SQRT2));
      });
    },
    samples: [
      { inputs: [[2, 5, 24]], attributes: {} },
      { inputs: [[3, 10]], attributes: {} },
      { inputs: [[2]], attributes: {} },
      { inputs: [[3, 64]], attributes: {} },
      { name: 'past 65,535 workgroups', inputs: [[700_011, 12]], attributes: {}, forwardOnly: true },
    ],
    gradient: [0],
    bench: [{ inputs: [[512, 768]], attributes: {}, flops: 6 * 512 * 384 }],
    arbitrary: fc
      .tuple(fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 2 }), fc.integer({ min: 1, max: 12 }))
      .map(([outer, half]) => ({ inputs: [[...outer, 2 * half]], attributes: {} })),
    bad: [
      [(operation, t) => operation(t([2, 5])), /must be even, to be halved: \(2, 5\)/],
      [(operation, t) => operation(t([])), /must be even, to be halved: \(\)/],
    ],
  },
  swiglu: {
    call: (operation, [gate, up]) => operation(gate!, up!),
    reference: ([gate, up]) =>
      nd(gate!.shape, (i) => (gate!.data[i]! / (1 + Math.exp(-gate!.data[i]!))) * up!.data[i]!),
    samples: [
      {
        inputs: [
          [2, 5, 7],
          [2, 5, 7],
        ],
        attributes: {},
      },
      {
        inputs: [
          [3, 8],
          [3, 8],
        ],
        attributes: {},
      },
      { inputs: [[0], [0]], attributes: {} },
    ],
    gradient: [0, 1],
    bench: [
      {
        inputs: [
          [512, 384],
          [512, 384],
        ],
        attributes: {},
        flops: 5 * 512 * 384,
      },
    ],
    arbitrary: fc
      .array(fc.integer({ min: 0, max: 9 }), { maxLength: 3 })
      .map((shape) => ({ inputs: [shape, shape], attributes: {} })),
    bad: [
      [(operation, t) => operation(t([2, 5]), t([2, 4])), /gate is \(2, 5\) and up is \(2, 4\); they must be alike/],
    ],
  },
};
