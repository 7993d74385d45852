import fc from 'fast-check';
import type { Shape } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { Rows, Sample } from '../row.ts';

const sample = (shape: Shape, size: [number, number]): Sample<{ size: [number, number] }> => ({
  inputs: [shape],
  attributes: { size },
});

const bilinear = (shape: Shape, size: [number, number], alignCorners = false) => ({
  inputs: [shape],
  attributes: { size, alignCorners },
});

export const resizeRows: Rows<'upsampleNearest' | 'resizeBilinear'> = {
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
  resizeBilinear: {
    call: (operation, [x], { size, alignCorners }) => operation(x!, size, { alignCorners }),
    reference([x], { size, alignCorners }: { size: [number, number]; alignCorners: boolean }) {
      const [n, c, ...extents] = x!.shape as [number, number, number, number];
      const [height, width] = extents;
      // The two neighbours of output i along extent k, and the share of the second one.
      const neighbours = (i: number, k: 0 | 1): [number, number, number] => {
        const [from, to] = [extents[k], size[k]];
        const place = alignCorners ? (to === 1 ? 0 : (i * (from - 1)) / (to - 1)) : ((i + 0.5) * from) / to - 0.5;
        const inside = Math.min(Math.max(place, 0), from - 1);
        const low = Math.floor(inside);
        return [low, Math.min(low + 1, from - 1), inside - low];
      };
      return nd([n, c, ...size], (i) => {
        const plane = Math.floor(i / (size[0] * size[1])) * height;
        const [top, bottom, down] = neighbours(Math.floor(i / size[1]) % size[0], 0);
        const [left, right, across] = neighbours(i % size[1], 1);
        const line = (y: number) =>
          x!.data[(plane + y) * width + left]! * (1 - across) + x!.data[(plane + y) * width + right]! * across;
        return line(top) * (1 - down) + line(bottom) * down;
      });
    },
    samples: [
      bilinear([2, 3, 4, 5], [8, 10]),
      bilinear([1, 2, 5, 4], [7, 9], true),
      bilinear([1, 2, 9, 7], [4, 3]), // smaller
      bilinear([1, 2, 9, 7], [4, 1], true),
      bilinear([2, 1, 1, 1], [3, 2]),
      bilinear([2, 1, 1, 3], [2, 3], true),
      bilinear([0, 1, 2, 2], [3, 3]),
    ],
    gradient: [0],
    arbitrary: fc
      .tuple(
        fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 4, maxLength: 4 }),
        fc.tuple(fc.integer({ min: 1, max: 11 }), fc.integer({ min: 1, max: 11 })),
        fc.boolean(),
      )
      .map(([shape, size, alignCorners]) => bilinear(shape, size, alignCorners)),
    bad: [
      [(operation, t) => operation(t([1, 1, 0, 2]), [8, 8]), /\[resizeBilinear\] x must be \(N, C, H, W\) with pixels/],
      [(operation, t) => operation(t([1, 1, 2, 40_000]), [2, 40_000]), /from 40000 to 40000 pixels/],
    ],
  },
};
