import fc from 'fast-check';
import { nd } from '../row.ts';
import type { NdArray, Rows, Sample } from '../row.ts';
import type { Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions } from '../../../kernels/index.ts';

type Four = [number, number, number, number];

const both = (pair: number | readonly [number, number] = 1) =>
  (typeof pair === 'number' ? [pair, pair] : pair) as [number, number];
const sides = (padding: Conv2dOptions['padding'] = 0) =>
  (typeof padding === 'number' ? [padding, padding, padding, padding] : padding) as Four;

/**
 * Every product of a pixel and a weight that a convolution adds into a result: the definition, for conv2d and its adjoint.
 * `picture` is (batch, in, h, w), `results` (batch, out, oh, ow), `weight` (out, in / groups, kh, kw).
 */
function visit(
  picture: readonly number[],
  results: readonly number[],
  weight: readonly number[],
  { stride, padding, dilation, groups = 1 }: Conv2dOptions,
  add: (result: number, pixel: number, weight: number) => void,
): void {
  const [batch, inputs, h, w] = picture as Four;
  const [, outputs, oh, ow] = results as Four;
  const [, channels, kh, kw] = weight as Four;
  const [[sy, sx], [dy, dx], [top, , left]] = [both(stride), both(dilation), sides(padding)];
  const rows = outputs / groups;
  for (let n = 0; n < batch; n++)
    for (let o = 0; o < outputs; o++)
      for (let oy = 0; oy < oh; oy++)
        for (let ox = 0; ox < ow; ox++)
          for (let c = 0; c < channels; c++)
            for (let ky = 0; ky < kh; ky++)
              for (let kx = 0; kx < kw; kx++) {
                const y = oy * sy + ky * dy - top;
                const x = ox * sx + kx * dx - left;
                if (y < 0 || y >= h || x < 0 || x >= w) continue;
                const channel = Math.floor(o / rows) * channels + c;
                add(
                  ((n * outputs + o) * oh + oy) * ow + ox,
                  ((n * inputs + channel) * h + y) * w + x,
                  ((o * channels + c) * kh + ky) * kw + kx,
                );
              }
}

/** Results that begin with their channel's bias. */
function biased(shape: Four, bias: NdArray | null | undefined): NdArray {
  const [, channels, h, w] = shape;
  return nd(shape, (i) => (bias ? bias.data[Math.floor(i / (h * w)) % channels]! : 0));
}

function convolve(x: NdArray, weight: NdArray, bias: NdArray | null | undefined, options: Conv2dOptions): NdArray {
  const [[sy, sx], [dy, dx], [top, bottom, left, right]] = [
    both(options.stride),
    both(options.dilation),
    sides(options.padding),
  ];
  const [batch, , h, w] = x.shape as Four;
  const [outputs, , kh, kw] = weight.shape as Four;
  const oh = Math.floor((h + top + bottom - dy * (kh - 1) - 1) / sy) + 1;
  const ow = Math.floor((w + left + right - dx * (kw - 1) - 1) / sx) + 1;
  const out = biased([batch, outputs, oh, ow], bias);
  visit(x.shape, out.shape, weight.shape, options, (result, pixel, at) => {
    out.data[result]! += x.data[pixel]! * weight.data[at]!;
  });
  return out;
}

function convolveTransposed(
  x: NdArray,
  weight: NdArray,
  bias: NdArray | null | undefined,
  options: ConvTranspose2dOptions,
): NdArray {
  const [[sy, sx], [dy, dx], [top, bottom, left, right]] = [
    both(options.stride),
    both(options.dilation),
    sides(options.padding),
  ];
  const [ey, ex] = both(options.outputPadding ?? 0);
  const [batch, , oh, ow] = x.shape as Four;
  const [, channels, kh, kw] = weight.shape as Four;
  const h = (oh - 1) * sy + dy * (kh - 1) + 1 + ey - top - bottom;
  const w = (ow - 1) * sx + dx * (kw - 1) + 1 + ex - left - right;
  const out = biased([batch, channels * (options.groups ?? 1), h, w], bias);
  visit(out.shape, x.shape, weight.shape, options, (result, pixel, at) => {
    out.data[pixel]! += x.data[result]! * weight.data[at]!;
  });
  return out;
}

/** (batch, channels, height, width) → rows with a window. */
export const sample = (
  x: Four,
  rows: number,
  window: number | [number, number],
  { bias = true, ...attributes }: Conv2dOptions & { bias?: boolean } = {},
): Sample<Conv2dOptions> => {
  const [kh, kw] = both(window);
  return { inputs: [x, [rows, x[1] / (attributes.groups ?? 1), kh, kw], bias ? [rows] : null], attributes };
};

/** The same the other way: (batch, channels, height, width) → rows. */
export const transposedSample = (
  x: Four,
  rows: number,
  window: number | [number, number],
  { bias = true, ...attributes }: ConvTranspose2dOptions & { bias?: boolean } = {},
): Sample<ConvTranspose2dOptions> => {
  const [kh, kw] = both(window);
  return { inputs: [x, [x[1], rows / (attributes.groups ?? 1), kh, kw], bias ? [rows] : null], attributes };
};

const lengthSample = (x: [number, number, number], rows: number, window: number, { bias = true, ...attributes }: Conv1dOptions & { bias?: boolean } = {}): Sample<Conv1dOptions> =>
  ({ inputs: [x, [rows, x[1] / (attributes.groups ?? 1), window], bias ? [rows] : null], attributes }); // prettier-ignore

/** An array of (batch, channels, length) as one of (batch, channels, 1, length). */
const row = ({ shape: [a, b, length], data }: NdArray): NdArray => ({ shape: [a!, b!, 1, length!], data });

const extent = (max: number) => fc.integer({ min: 1, max });
const side = fc.integer({ min: 0, max: 2 });

export const convRows: Rows<'conv2d' | 'convTranspose2d' | 'conv1d'> = {
  conv2d: {
    call: (operation, [x, weight, bias], options: Conv2dOptions) => operation(x!, weight!, bias ?? null, options),
    reference: ([x, weight, bias], options: Conv2dOptions) => convolve(x!, weight!, bias, options),
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
      sample([1, 32, 5, 8], 36, 3, { padding: 1 }), // Winograd, four tiles of a row at once; an odd last line
      sample([3, 36, 4, 5], 32, 3, { padding: [1, 0, 0, 2], bias: false }), // tiles past edges, and no multiple of four
      sample([1, 32, 2, 3], 32, 3, { padding: 3 }), // more padding than the window reaches
      sample([1, 32, 9, 3], 32, 3), // a column of results
      sample([2, 5, 9, 8], 4, 3, { dilation: [2, 3], padding: [2, 2, 3, 3] }),
      sample([2, 3, 9, 10], 4, 3, { dilation: 2, stride: 2, padding: 2 }), // a stride and a dilation with a common divisor
      sample([1, 3, 9, 11], 4, [2, 3], { dilation: [3, 1], stride: [2, 3], padding: 1 }),
      sample([2, 6, 7, 6], 9, 3, { groups: 3, padding: 1 }),
      sample([1, 70, 5, 4], 66, [1, 2], { groups: 2, stride: 2 }), // groups past a tile of 32
      sample([2, 10, 6, 7], 10, 3, { groups: 10, padding: 1 }), // depthwise
      sample([1, 5, 7, 6], 15, 3, { groups: 5, padding: 1, stride: 2, dilation: 2 }), // depthwise, three each
      sample([2, 6, 4, 4], 4, 1, { groups: 2 }),
      {
        ...sample([1, 1, 1449, 1449], 1, 1, { padding: 1, bias: false }), // 65,613 tiles of 32 positions
        name: 'past 65,535 workgroups',
        forwardOnly: true,
      },
    ],
    gradient: [0, 1, 2],
    arbitrary: fc
      .record({
        size: fc.tuple(extent(3), extent(8), extent(8)),
        each: fc.tuple(extent(5), extent(5)),
        window: fc.tuple(extent(3), extent(3)),
        stride: fc.tuple(extent(3), extent(3)),
        dilation: fc.tuple(extent(2), extent(2)),
        padding: fc.tuple(side, side, side, side),
        groups: extent(3),
        bias: fc.boolean(),
      })
      .filter(({ size: [, h, w], window: [kh, kw], dilation: [dy, dx], padding: [top, bottom, left, right] }) => h + top + bottom > dy * (kh - 1) && w + left + right > dx * (kw - 1))
      .map(({ size: [batch, h, w], each: [channels, rows], window, ...options }) => sample([batch, channels * options.groups, h, w], rows * options.groups, window, options)),
    bad: [
      [(operation, t) => operation(t([4, 8, 8]), t([4, 4, 3, 3])), /\[conv2d\] x is \(batch, channels, height, width\), not \(4, 8, 8\)/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 4, 3])), /\[conv2d\] the weight is \(out, in \/ groups, height, width\), not \(4, 4, 3\)/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 3, 3, 3])), /\[conv2d\] x \(1, 4, 8, 8\) has 4 channels, the weight \(4, 3, 3, 3\) takes 3/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 4, 3, 3]), null, { groups: 2 }), /\[conv2d\] x \(1, 4, 8, 8\) has 4 channels, the weight \(4, 4, 3, 3\) takes 8 in 2 groups/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([3, 2, 3, 3]), null, { groups: 2 }), /\[conv2d\] the weight \(3, 2, 3, 3\) has 3 channels, which 2 groups don't divide/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([6, 4, 3, 3]), t([4])), /\[conv2d\] the bias must be \(6,\)/],
      [(operation, t) => operation(t([1, 4, 2, 8]), t([6, 4, 3, 3])), /\[conv2d\] a 3×3 window does not fit into x \(1, 4, 2, 8\)/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([6, 4, 3, 3]), null, { stride: 0 }), /\[conv2d\] the stride must be whole numbers from 1/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([6, 4, 3, 3]), null, { padding: -1 }), /\[conv2d\] the padding must be whole numbers from 0/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([6, 4, 3, 3]), null, { dilation: 1.5 }), /\[conv2d\] the dilation must be whole numbers from 1/],
      [(operation, t) => operation(t([1, 4, 4, 4]), t([6, 4, 3, 3]), null, { dilation: 2 }), /\[conv2d\] a 5×5 window does not fit/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 4, 3, 3]), null, { groups: 0 }), /\[conv2d\] the groups must be whole numbers from 1/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 4, 3, 3], 'f16')), /\[conv2d\] input 1 is f16; f32/],
    ],
    bench: [
      ...([[1, 64, 32], [4, 128, 16]] as const).map(([batch, channels, size]) => ({
        ...sample([batch, channels, size, size], channels, 3, { padding: 1 }),
        name: `3×3, ${channels} channels, ${size}×${size}, batch ${batch}`,
        flops: 2 * batch * size * size * channels * channels * 9,
      })),
      {
        ...sample([8, 96, 16, 16], 96, 3, { stride: 2, padding: 1 }),
        name: '3×3 of stride 2, 96 channels, 16×16, batch 8',
        flops: 2 * 8 * 8 * 8 * 96 * 96 * 9,
      },
      {
        ...sample([8, 96, 16, 16], 96, 3, { groups: 96, padding: 1 }),
        name: '3×3 depthwise, 96 channels, 16×16, batch 8',
        flops: 2 * 8 * 16 * 16 * 96 * 9,
      },
    ],
  },
  convTranspose2d: {
    call: (operation, [x, weight, bias], options: ConvTranspose2dOptions) => operation(x!, weight!, bias ?? null, options),
    reference: ([x, weight, bias], options: ConvTranspose2dOptions) => convolveTransposed(x!, weight!, bias, options),
    samples: [
      transposedSample([2, 4, 5, 6], 6, 3, { stride: 2, padding: 1, outputPadding: 1 }),
      transposedSample([1, 1, 1, 1], 1, 1),
      transposedSample([2, 3, 4, 5], 4, [2, 3], { stride: [2, 3], padding: [0, 1, 2, 0], bias: false }),
      transposedSample([2, 3, 4, 4], 5, 4, { stride: 2, padding: 1 }),
      transposedSample([1, 2, 3, 3], 2, 2, { stride: 3, outputPadding: [2, 1] }), // pixels that nothing reaches
      transposedSample([2, 6, 4, 4], 4, 3, { groups: 2, stride: 2, padding: 1 }),
      transposedSample([1, 5, 4, 5], 5, 3, { groups: 5, stride: 2, outputPadding: 1 }), // depthwise
      transposedSample([1, 3, 5, 4], 4, 3, { dilation: 2, stride: 2, padding: 1 }),
      transposedSample([1, 3, 5, 4], 4, 3, { dilation: [3, 2], outputPadding: [2, 1] }),
      transposedSample([2, 8, 4, 4], 12, 1), // a matrix product
      transposedSample([1, 32, 4, 3], 36, 3, { padding: 1 }), // Winograd
      transposedSample([1, 34, 5, 4], 37, 3, { padding: 1 }),
      transposedSample([2, 0, 3, 3], 3, 3),
    ],
    gradient: [0, 1, 2],
    arbitrary: fc
      .record({
        size: fc.tuple(extent(3), extent(6), extent(6)),
        each: fc.tuple(extent(5), extent(5)),
        window: fc.tuple(extent(3), extent(3)),
        stride: fc.tuple(extent(3), extent(3)),
        padding: fc.tuple(fc.integer({ min: 0, max: 1 }), fc.constant(0), fc.constant(0), fc.integer({ min: 0, max: 1 })),
        groups: extent(2),
        bias: fc.boolean(),
      })
      .filter(({ size: [, h, w], window: [kh, kw], stride: [sy, sx] }) => (h - 1) * sy + kh > 1 && (w - 1) * sx + kw > 1)
      .map(({ size: [batch, h, w], each: [channels, rows], window, ...options }) => transposedSample([batch, channels * options.groups, h, w], rows * options.groups, window, options)),
    bad: [
      [(operation, t) => operation(t([4, 8, 8]), t([4, 4, 3, 3])), /\[convTranspose2d\] x is \(batch, channels, height, width\)/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 4, 3])), /\[convTranspose2d\] the weight is \(in, out \/ groups, height, width\)/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([3, 4, 3, 3])), /\[convTranspose2d\] x \(1, 4, 8, 8\) has 4 channels, the weight \(3, 4, 3, 3\) takes 3/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 4, 3, 3]), null, { groups: 3 }), /\[convTranspose2d\] x \(1, 4, 8, 8\) has 4 channels, which 3 groups don't divide/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 6, 3, 3]), t([4])), /\[convTranspose2d\] the bias must be \(6,\)/],
      [(operation, t) => operation(t([1, 4, 8, 8]), t([4, 6, 3, 3]), null, { stride: 2, outputPadding: 2 }), /\[convTranspose2d\] the output padding 2, 2 must be below the stride 2, 2/],
      [(operation, t) => operation(t([1, 4, 1, 1]), t([4, 6, 3, 3]), null, { padding: 2 }), /\[convTranspose2d\] nothing is left of x \(1, 4, 1, 1\)/],
    ],
  },
  conv1d: {
    call: (operation, [x, weight, bias], options: Conv1dOptions) => operation(x!, weight!, bias ?? null, options),
    reference([x, weight, bias], { stride = 1, padding = 0, dilation = 1, groups = 1 }: Conv1dOptions) {
      const [before, after] = both(padding);
      const { shape, data } = convolve(row(x!), row(weight!), bias, { stride: [1, stride], padding: [0, 0, before, after], dilation: [1, dilation], groups });
      return { shape: [shape[0]!, shape[1]!, shape[3]!], data };
    },
    samples: [
      lengthSample([2, 3, 9], 4, 3, { padding: 1 }),
      lengthSample([1, 4, 10], 6, 3, { stride: 2, dilation: 2, padding: [4, 0], groups: 2, bias: false }), // causal
      lengthSample([2, 5, 7], 3, 1),
    ],
    gradient: [0, 1, 2],
    bad: [
      [(operation, t) => operation(t([4, 8]), t([4, 4, 3])), /\[conv1d\] x is \(batch, channels, length\), not \(4, 8\)/],
      [(operation, t) => operation(t([1, 4, 8]), t([4, 4])), /\[conv1d\] the weight is \(out, in \/ groups, length\), not \(4, 4\)/],
      [(operation, t) => operation(t([1, 4, 8]), t([6, 3, 3])), /\[conv1d\] x \(1, 4, 8\) has 4 channels, the weight \(6, 3, 3\) takes 3/],
      [(operation, t) => operation(t([1, 4, 8]), t([6, 4, 3]), null, { dilation: 4 }), /\[conv1d\] a window of 9 does not fit into x \(1, 4, 8\) with 0 zeros/],
      [(operation, t) => operation(t([1, 4, 8]), t([6, 4, 3]), null, { stride: 0 }), /\[conv1d\] the stride must be whole numbers from 1, not 0/],
      [(operation, t) => operation(t([1, 4, 8]), t([6, 4, 3]), t([4])), /\[conv1d\] the bias must be \(6,\)/],
    ],
  },
}; // prettier-ignore
