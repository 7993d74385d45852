import { formatShape } from '../../engine/index.ts';
import type { Shape } from '../../engine/index.ts';

/** One number for both directions, or [vertical, horizontal]. */
export type Pair = number | readonly [number, number];

export interface Conv2dOptions {
  /** Step of the window; 1 by default. */
  stride?: Pair;
  /** Zeros around the picture: one number, or [top, bottom, left, right]; 0 by default. */
  padding?: number | readonly [number, number, number, number];
  /** From one pixel that the window sees to the next; 1 by default. */
  dilation?: Pair;
  /** Parts that the channels are cut into, convolved each for itself; 1 by default. Depthwise: as many as channels. */
  groups?: number;
}

/**
 * Everything that the kernels need to know of a convolution from a picture (batch, groups · channels, h, w) to results
 * (batch, groups · rows, oh, ow). A transposed convolution is the same one read from its results to the picture.
 */
export interface Geometry {
  batch: number;
  groups: number;
  channels: number; // of the picture, in a group
  rows: number; // channels of the results, in a group
  h: number;
  w: number;
  oh: number;
  ow: number;
  kh: number;
  kw: number;
  stride_y: number;
  stride_x: number;
  dilation_y: number;
  dilation_x: number;
  top: number;
  left: number;
}

/** The same convolution read the other way: the kernels' picture is the results, and their results the picture. */
export const reversed = (g: Geometry): Geometry => ({
  ...g,
  channels: g.rows,
  rows: g.channels,
  h: g.oh,
  w: g.ow,
  oh: g.h,
  ow: g.w,
});

type Window = Omit<Geometry, 'batch' | 'channels' | 'rows' | 'h' | 'w' | 'oh' | 'ow'> & {
  bottom: number;
  right: number;
};

const both = (pair: Pair): readonly [number, number] => (typeof pair === 'number' ? [pair, pair] : pair);

/** Throws unless all are whole numbers from `least`. */
function checkWhole(name: string, what: string, values: readonly number[], least: number): void {
  if (!values.every((value) => Number.isInteger(value) && value >= least))
    throw new Error(`[${name}] the ${what} must be whole numbers from ${least}, not ${values.join(', ')}`);
}

type Name = 'conv2d' | 'conv1d' | 'convTranspose2d';

function window(name: Name, x: Shape, weight: Shape, options: Conv2dOptions): Window {
  const { stride = 1, padding = 0, dilation = 1, groups = 1 } = options;
  const flat = name === 'conv1d';
  const [rank, extents] = flat ? [3, 'length'] : [4, 'height, width'];
  if (x.length !== rank) throw new Error(`[${name}] x is (batch, channels, ${extents}), not ${formatShape(x)}`);
  const sides = name === 'convTranspose2d' ? 'in, out / groups' : 'out, in / groups';
  if (weight.length !== rank || weight.slice(2).includes(0))
    throw new Error(`[${name}] the weight is (${sides}, ${extents}), not ${formatShape(weight)}`);
  const [stride_y, stride_x] = both(stride);
  const [dilation_y, dilation_x] = both(dilation);
  const [top, bottom, left, right] = typeof padding === 'number' ? [padding, padding, padding, padding] : padding;
  checkWhole(name, 'stride', flat ? [stride_x] : [stride_y, stride_x], 1);
  checkWhole(name, 'dilation', flat ? [dilation_x] : [dilation_y, dilation_x], 1);
  checkWhole(name, 'padding', flat ? [left, right] : [top, bottom, left, right], 0);
  checkWhole(name, 'groups', [groups], 1);
  const cut = name === 'convTranspose2d' ? { x } : { x, 'the weight': weight };
  for (const [what, shape] of Object.entries(cut)) {
    const extent = shape[what === 'x' ? 1 : 0]!;
    if (extent % groups !== 0)
      throw new Error(
        `[${name}] ${what} ${formatShape(shape)} has ${extent} channels, which ${groups} groups don't divide`,
      );
  }
  const [kh, kw] = flat ? [1, weight[2]!] : [weight[2]!, weight[3]!];
  return { groups, kh, kw, stride_y, stride_x, dilation_y, dilation_x, top, bottom, left, right };
}

/**
 * Of x (batch, in, h, w) with a weight (out, in / groups, kh, kw), or for conv1d without heights: a picture of one row.
 * Throws the errors that users see.
 */
export function convolution(name: 'conv2d' | 'conv1d', x: Shape, weight: Shape, options: Conv2dOptions): Geometry {
  const { bottom, right, ...win } = window(name, x, weight, options);
  const { groups, kh, kw, stride_y, stride_x, dilation_y, dilation_x, top, left } = win;
  const flat = name === 'conv1d';
  const [batch, inputs] = x as [number, number];
  const [h, w] = flat ? [1, x[2]!] : [x[2]!, x[3]!];
  const [outputs, channels] = weight as [number, number];
  if (channels * groups !== inputs)
    throw new Error(
      `[${name}] x ${formatShape(x)} has ${inputs} channels, the weight ${formatShape(weight)} takes ${channels * groups}` +
        (groups > 1 ? ` in ${groups} groups` : ''),
    );
  const [spanY, spanX] = [dilation_y * (kh - 1) + 1, dilation_x * (kw - 1) + 1];
  const oh = Math.floor((h + top + bottom - spanY) / stride_y) + 1;
  const ow = Math.floor((w + left + right - spanX) / stride_x) + 1;
  if (oh < 1 || ow < 1)
    throw new Error(
      flat
        ? `[conv1d] a window of ${spanX} does not fit into x ${formatShape(x)} with ${left + right} zeros at its ends`
        : `[conv2d] a ${spanY}×${spanX} window does not fit into x ${formatShape(x)} with ${top + bottom} padding rows and ${left + right} columns`,
    );
  return { ...win, batch, channels, rows: outputs / groups, h, w, oh, ow };
}

export interface ConvTranspose2dOptions extends Conv2dOptions {
  /** Rows and columns that the result has more at its bottom and right: which of the sizes that conv2d maps to x's. */
  outputPadding?: Pair;
}

/** Of x (batch, in, oh, ow), the results, with a weight (in, out / groups, kh, kw). */
export function transposedConvolution(x: Shape, weight: Shape, options: ConvTranspose2dOptions): Geometry {
  const { bottom, right, ...win } = window('convTranspose2d', x, weight, options);
  const { groups, kh, kw, stride_y, stride_x, dilation_y, dilation_x, top, left } = win;
  const [batch, inputs, oh, ow] = x as [number, number, number, number];
  const [outputs, channels] = weight as [number, number];
  if (outputs !== inputs)
    throw new Error(
      `[convTranspose2d] x ${formatShape(x)} has ${inputs} channels, the weight ${formatShape(weight)} takes ${outputs}`,
    );
  const [extraY, extraX] = both(options.outputPadding ?? 0);
  checkWhole('convTranspose2d', 'output padding', [extraY, extraX], 0);
  if (extraY >= Math.max(stride_y, dilation_y) || extraX >= Math.max(stride_x, dilation_x))
    throw new Error(
      `[convTranspose2d] the output padding ${extraY}, ${extraX} must be below the stride ${stride_y}, ${stride_x} or the dilation ${dilation_y}, ${dilation_x}`,
    );
  const h = (oh - 1) * stride_y + dilation_y * (kh - 1) + 1 + extraY - top - bottom;
  const w = (ow - 1) * stride_x + dilation_x * (kw - 1) + 1 + extraX - left - right;
  if (oh < 1 || ow < 1 || h < 1 || w < 1)
    throw new Error(
      `[convTranspose2d] nothing is left of x ${formatShape(x)} without ${top + bottom} padding rows and ${left + right} columns`,
    );
  return { ...win, batch, channels, rows: inputs / groups, h, w, oh, ow };
}
