import fc from 'fast-check';
import type { Shape } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { Rows, Sample } from '../row.ts';

const sample = (shape: Shape, size: [number, number]): Sample<{ size: [number, number] }> => ({
  inputs: [shape],
  attributes: { size },
});

export const resizeRows: Rows<'upsampleNearest'> = {
  upsampleNearest: {
    call: (operation, [x], { size }) => operation(x!, size),
    reference([x], { size: [outH, outW] }) {
      const [n, c, inH, inW] = x!.shape as [number, number, number, number];
      return nd([n, c, outH, outW], (i) => {
        const column = Math.floor(((i % outW) * inW) / outW);
        const row = Math.floor(((Math.floor(i / outW) % outH) * inH) / outH);
        const plane = Math.floor(i / (outW * outH));
        return x!.data[(plane * inH + row) * inW + column]!;
      });
    },
    samples: [
      sample([2, 3, 4, 4], [8, 8]),
      sample([2, 3, 4, 5], [8, 10]),
      sample([1, 2, 4, 5], [7, 9]),
      sample([1, 1, 3, 4], [5, 8]), // only the width doubles
      sample([1, 2, 1, 1], [3, 2]),
      sample([2, 1, 7, 6], [3, 4]), // smaller
      { ...sample([1, 4, 1025, 1], [1025, 1025]), name: 'past 65,535 workgroups', forwardOnly: true },
    ],
    gradient: [0],
    bench: [{ ...sample([8, 96, 8, 8], [16, 16]), flops: 0 }],
    arbitrary: fc
      .tuple(
        fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 4, maxLength: 4 }),
        fc.tuple(fc.integer({ min: 1, max: 11 }), fc.integer({ min: 1, max: 11 })),
      )
      .map(([shape, size]) => sample(shape, size)),
    bad: [
      [(operation, t) => operation(t([2, 3, 4]), [8, 8]), /x must be \(N, C, H, W\) with pixels, not \(2, 3, 4\)/],
      [(operation, t) => operation(t([1, 1, 2, 2]), [0, 4]), /whole numbers ≥ 1, not \(0, 4\)/],
    ],
  },
};
