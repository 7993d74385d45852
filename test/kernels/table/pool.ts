import fc from 'fast-check';
import type { Shape } from '../../../engine/index.ts';
import type { PoolOptions } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { NdArray, Rows, Sample } from '../row.ts';
import { apart } from './places.ts';

type Pair = readonly [number, number];
interface Attributes {
  kernel: Pair;
  stride: Pair;
  padding: Pair;
  countPadding?: boolean;
}

const pooled = (
  shape: Shape,
  kernel: Pair,
  { stride = kernel, padding = [0, 0], ...rest }: { stride?: Pair; padding?: Pair; countPadding?: boolean } = {},
): Sample<Attributes> => ({ inputs: [apart(shape)], attributes: { kernel, stride, padding, ...rest } });

/** Each window's pixels that exist, in row-major order, to `f`. */
function windows(x: NdArray, { kernel, stride, padding }: Attributes, f: (pixels: number[]) => number): NdArray {
  const [n, c, h, w] = x.shape as [number, number, number, number];
  const [outH, outW] = [h, w].map((e, i) => Math.floor((e + 2 * padding[i]! - kernel[i]!) / stride[i]!) + 1);
  return nd([n, c, outH!, outW!], (i) => {
    const plane = Math.floor(i / (outH! * outW!)) * h * w;
    const y0 = (Math.floor(i / outW!) % outH!) * stride[0] - padding[0];
    const x0 = (i % outW!) * stride[1] - padding[1];
    const pixels: number[] = [];
    for (let y = y0; y < y0 + kernel[0]; y++)
      for (let column = x0; column < x0 + kernel[1]; column++)
        if (y >= 0 && y < h && column >= 0 && column < w) pixels.push(x.data[plane + y * w + column]!);
    return f(pixels);
  });
}

const options = ({ stride, padding }: Attributes): PoolOptions => ({ stride, padding });

const samples = [
  pooled([2, 3, 4, 6], [2, 2]),
  pooled([1, 2, 7, 6], [3, 2], { stride: [2, 1], padding: [1, 1] }), // windows overlap
  pooled([1, 1, 5, 5], [2, 2], { stride: [3, 3] }), // some pixels are in no window
  pooled([1, 2, 3, 4], [3, 4]),
  pooled([0, 2, 4, 4], [2, 2]),
];

const arbitrary = fc
  .record({
    shape: fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 4, maxLength: 4 }),
    kernel: fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 4 })),
    stride: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
    padding: fc.tuple(fc.nat({ max: 2 }), fc.nat({ max: 2 })),
  })
  .map(({ shape, kernel, stride, padding }) => {
    const fits = kernel.map((extent, i) => Math.min(extent, shape[2 + i]!)) as [number, number];
    const inside = padding.map((p, i) => Math.min(p, Math.floor(fits[i]! / 2))) as [number, number];
    return pooled(shape, fits, { stride, padding: inside });
  });

export const poolRows: Rows<'averagePool2d' | 'maxPool2d'> = {
  averagePool2d: {
    call: (operation, [x], attributes: Attributes) =>
      operation(x!, attributes.kernel, { ...options(attributes), countPadding: attributes.countPadding ?? true }),
    reference: ([x], attributes: Attributes) =>
      windows(x!, attributes, (pixels) => {
        const area = attributes.kernel[0] * attributes.kernel[1];
        const count = (attributes.countPadding ?? true) ? area : pixels.length;
        return pixels.reduce((sum, value) => sum + value, 0) / count;
      }),
    samples: [...samples, pooled([1, 2, 5, 4], [3, 3], { stride: [2, 2], padding: [1, 1], countPadding: false })],
    gradient: [0],
    arbitrary,
    bad: [
      [
        (operation, t) => operation(t([2, 3, 4]), 2),
        /\[averagePool2d\] x must be \(N, C, H, W\) with pixels, not \(2, 3, 4\)/,
      ],
      [
        (operation, t) => operation(t([1, 1, 4, 4]), 2, { padding: 2 }),
        /padding \(2, 2\) must be at most half the kernel/,
      ],
    ],
  },
  maxPool2d: {
    call: (operation, [x], attributes: Attributes) => operation(x!, attributes.kernel, options(attributes)),
    reference: ([x], attributes: Attributes) => windows(x!, attributes, (pixels) => Math.max(...pixels)),
    samples,
    gradient: [0],
    arbitrary,
    bad: [
      // A window that holds padding alone would have no largest element.
      [
        (operation, t) => operation(t([1, 2, 7, 0]), 2, { padding: 1 }),
        /\[maxPool2d\] x must be \(N, C, H, W\) with pixels, not \(1, 2, 7, 0\)/,
      ],
      [(operation, t) => operation(t([1, 1, 4, 4]), [5, 2]), /kernel \(5, 2\) does not fit into \(1, 1, 4, 4\)/],
      [
        (operation, t) => operation(t([1, 1, 4, 4]), 2, { stride: 0 }),
        /the stride must be whole numbers ≥ 1, not \(0, 0\)/,
      ],
    ],
  },
};
