import fc from 'fast-check';
import { sizeOf } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { NdArray, Row, Rows, Sample } from '../row.ts';
import type { sum } from '../../../kernels/index.ts';

interface Attributes {
  axes?: number[];
  keepDims?: boolean;
}

function reduce(x: NdArray, { axes, keepDims }: Attributes, mean: boolean): NdArray {
  const rank = x.shape.length;
  const gone = x.shape.map((_, i) => axes === undefined || axes.includes(i) || axes.includes(i - rank));
  const kept = x.shape.map((extent, i) => (gone[i] ? 1 : extent));
  const out = nd(kept);
  for (let index = 0; index < x.data.length; index++) {
    let rest = index;
    let at = 0;
    let step = 1;
    for (let i = rank - 1; i >= 0; i--) {
      if (!gone[i]) at += (rest % x.shape[i]!) * step;
      rest = Math.floor(rest / x.shape[i]!);
      step *= kept[i]!;
    }
    out.data[at]! += x.data[index]!;
  }
  const count = sizeOf(x.shape) / sizeOf(kept);
  if (mean) for (let i = 0; i < out.data.length; i++) out.data[i]! /= count;
  return keepDims ? out : { shape: x.shape.filter((_, i) => !gone[i]), data: out.data };
}

const samples: Sample<Attributes>[] = [
  { inputs: [[]], attributes: {} },
  { inputs: [[1]], attributes: {} },
  { inputs: [[300]], attributes: {} },
  { inputs: [[301]], attributes: { axes: [0], keepDims: true } },
  { inputs: [[3, 4, 5]], attributes: { axes: [1] } },
  { inputs: [[3, 4, 5]], attributes: { axes: [0, 2] } },
  { inputs: [[3, 4, 8]], attributes: { axes: [-1], keepDims: true } },
  { inputs: [[200, 2]], attributes: { axes: [0] } },
];

const arbitrary: fc.Arbitrary<Sample<Attributes>> = fc
  .array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 4 })
  .chain((shape) => fc.tuple(fc.constant(shape), fc.subarray(shape.map((_, i) => i)), fc.boolean()))
  .map(([shape, axes, keepDims]) => ({ inputs: [shape], attributes: { axes, keepDims } }));

const row = (mean: boolean): Row<typeof sum, Attributes> => ({
  call: (operation, [x], { axes, keepDims }) => operation(x!, axes, { keepDims }),
  reference: ([x], attributes) => reduce(x!, attributes, mean),
  samples,
  gradient: [0],
  arbitrary,
  bad: [[(operation, t) => operation(t([2, 3]), [2]), /axis 2 does not exist in \(2, 3\)/]],
});

export const reduceRows: Rows<'sum' | 'mean'> = {
  sum: {
    ...row(false),
    samples: [...samples, { name: 'no elements', inputs: [[3, 0]], attributes: { axes: [1] }, forwardOnly: true }],
  },
  mean: { ...row(true), bad: [[(operation, t) => operation(t([0])), /mean over no elements/]] },
};
