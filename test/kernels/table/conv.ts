import fc from 'fast-check';
import { nd } from '../row.ts';
import type { NdArray, Rows, Sample } from '../row.ts';
import type { Conv2dOptions } from '../../../kernels/index.ts';

/** The definition: a window of the padded picture times the weight. */
function convolve(
  x: NdArray,
  weight: NdArray,
  bias: NdArray | null,
  { stride = 1, padding = 0 }: Conv2dOptions,
): NdArray {
  const [batch, channels, h, w] = x.shape as [number, number, number, number];
  const [rows, , kh, kw] = weight.shape as [number, number, number, number];
  const [sy, sx] = typeof stride === 'number' ? [stride, stride] : stride;
  const [top, bottom, left, right] = typeof padding === 'number' ? [padding, padding, padding, padding] : padding;
  const oh = Math.floor((h + top + bottom - kh) / sy) + 1;
  const ow = Math.floor((w + left + right - kw) / sx) + 1;
  const out = nd([batch, rows, oh, ow]);
  let index = 0;
  for (let n = 0; n < batch; n++)
    for (let o = 0; o < rows; o++)
      for (let oy = 0; oy < oh; oy++)
        for (let ox = 0; ox < ow; ox++) {
          let total = bias ? bias.data[o]! : 0;
          for (let c = 0; c < channels; c++)
            for (let ky = 0; ky < kh; ky++)
              for (let kx = 0; kx < kw; kx++) {
                const y = oy * sy + ky - top;
                const z = ox * sx + kx - left;
                if (y >= 0 && y < h && z >= 0 && z < w)
                  total +=
                    x.data[((n * channels + c) * h + y) * w + z]! *
                    weight.data[((o * channels + c) * kh + ky) * kw + kx]!;
              }
          out.data[index++] = total;
        }
  return out;
}

/** (batch, channels, height, width) → rows with a window. */
const sample = (
  x: [number, number, number, number],
  rows: number,
  window: number | [number, number],
  { bias = true, ...attributes }: Conv2dOptions & { bias?: boolean } = {},
): Sample<Conv2dOptions> => {
  const [kh, kw] = typeof window === 'number' ? [window, window] : window;
  return { inputs: [x, [rows, x[1], kh, kw], bias ? [rows] : null], attributes };
};

const extent = (max: number) => fc.integer({ min: 1, max });
const side = fc.integer({ min: 0, max: 2 });

export const convRows: Rows<'conv2d'> = {
  conv2d: {
    call: (operation, [x, weight, bias], options: Conv2dOptions) => operation(x!, weight!, bias ?? null, options),
    reference: ([x, weight, bias], options: Conv2dOptions) => convolve(x!, weight!, bias ?? null, options),
    samples: [
      sample([2, 4, 8, 8], 8, 3, { padding: 1 }),
      sample([1, 1, 1, 1], 1, 1),
      sample([1, 1, 1, 1], 1, 3, { padding: 1 }),
      sample([2, 3, 1, 1], 5, 3, { padding: 1 }), // 1×1 pictures
      sample([2, 3, 5, 7], 4, 3, { padding: 1, bias: false }),
      sample([1, 5, 9, 6], 3, [3, 2], { padding: [0, 2, 1, 0] }),
      sample([2, 6, 8, 8], 7, 3, { stride: 2, padding: 1 }),
      sample([2, 4, 7, 9], 6, 3, { stride: 2, padding: [0, 1, 0, 1] }),
      sample([1, 3, 11, 8], 2, [5, 3], { stride: [3, 2], padding: [2, 1, 0, 3] }),
      sample([1, 2, 6, 6], 3, 2, { stride: 3 }), // pixels that no window sees
      sample([2, 34, 6, 6], 37, 3, { padding: 1 }), // past a tile of 32, with tails in both
      sample([1, 66, 3, 4], 68, 3, { padding: 1 }), // past a tile of 64
      sample([2, 8, 4, 4], 12, 1), // 1×1: a matrix product, vec4
      sample([2, 0, 4, 4], 3, 3), // no channels
      sample([2, 0, 4, 4], 3, 1),
      sample([3, 5, 3, 3], 34, 1), // scalar
      sample([2, 6, 5, 4], 4, 1, { bias: false }),
      sample([2, 6, 5, 5], 4, 1, { stride: 2 }), // 1×1 that is no matrix product
      sample([2, 6, 5, 5], 4, 1, { padding: 1 }),
      {
        ...sample([1, 1, 1449, 1449], 1, 1, { padding: 1, bias: false }), // 65,613 tiles of 32 positions
        name: 'past 65,535 workgroups',
        forwardOnly: true,
      },
    ],
    gradient: [0, 1, 2],
    arbitrary: fc
      .record({
        x: fc.tuple(extent(3), extent(9), extent(8), extent(8)),
        rows: extent(9),
        window: fc.tuple(extent(3), extent(3)),
        stride: fc.tuple(extent(3), extent(3)),
        padding: fc.tuple(side, side, side, side),
        bias: fc.boolean(),
      })
      .filter(({ x, window, padding }) => x[2] + padding[0] + padding[1] >= window[0] && x[3] + padding[2] + padding[3] >= window[1])
      .map(({ x, rows, window, ...options }) => sample(x, rows, window, options)),
    bad: [
      [(operation, t) => operation(t([4, 8, 8]), t([4, 4, 3, 3])), /\[conv2d\] x is \(batch, channels, height, width\), not \(4, 8, 8\)/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 4, 3])), /\[conv2d\] the weight is \(out, in, height, width\), not \(4, 4, 3\)/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 3, 3, 3])), /\[conv2d\] x \(1, 4, 8, 8\) has 4 channels, the weight \(4, 3, 3, 3\) takes 3/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([6, 4, 3, 3]), t([4])), /\[conv2d\] the bias must be \(6,\)/],
      [(operation, t) => operation(t([1, 4, 2, 8]), t([6, 4, 3, 3])), /\[conv2d\] a 3×3 window does not fit into x \(1, 4, 2, 8\)/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([6, 4, 3, 3]), null, { stride: 0 }), /\[conv2d\] the stride must be whole numbers from 1/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([6, 4, 3, 3]), null, { padding: -1 }), /\[conv2d\] the padding must be whole numbers from 0/],
    ],
    bench: ([[1, 64, 32], [4, 128, 16]] as const).map(([batch, channels, size]) => ({
      ...sample([batch, channels, size, size], channels, 3, { padding: 1 }),
      name: `3×3, ${channels} channels, ${size}×${size}, batch ${batch}`,
      flops: 2 * batch * size * size * channels * channels * 9,
    })),
  },
}; // prettier-ignore
