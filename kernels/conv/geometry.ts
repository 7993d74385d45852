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
export type Geometry = {
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
};

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

/** What a convolution's options say, checked. */
interface Window {
  groups: number;
  kh: number;
  kw: number;
  stride: readonly [y: number, x: number];
  dilation: readonly [y: number, x: number];
  padding: readonly [top: number, bottom: number, left: number, right: number];
}

const both = (pair: Pair): readonly [number, number] => (typeof pair === 'number' ? [pair, pair] : pair);

/** Throws unless all are whole numbers from `least`. */
function checkWhole(name: string, what: string, values: readonly number[], least: number): void {
  for (const value of values)
    if (!Number.isInteger(value) || value < least)
      throw new Error(`[${name}] the ${what} must be whole numbers from ${least}, not ${values.join(', ')}`);
}

function checkGroups(name: string, what: string, shape: Shape, extent: number, groups: number): void {
  if (extent % groups !== 0)
    throw new Error(
      `[${name}] ${what} ${formatShape(shape)} has ${extent} channels, which ${groups} groups don't divide`,
    );
}

type Name = 'conv2d' | 'conv1d' | 'convTranspose2d';

function window(name: Name, x: Shape, weight: Shape, options: Conv2dOptions): Window {
  const { groups = 1 } = options;
  const flat = name === 'conv1d';
  const [rank, extents] = flat ? [3, 'length'] : [4, 'height, width'];
  if (x.length !== rank) throw new Error(`[${name}] x is (batch, channels, ${extents}), not ${formatShape(x)}`);
  const [kh, kw] = flat ? [1, weight[2]!] : [weight[2]!, weight[3]!];
  if (weight.length !== rank || kh === 0 || kw === 0) {
    const channels = name === 'convTranspose2d' ? 'in, out / groups' : 'out, in / groups';
    throw new Error(`[${name}] the weight is (${channels}, ${extents}), not ${formatShape(weight)}`);
  }
  const stride = both(options.stride ?? 1);
  const dilation = both(options.dilation ?? 1);
  const sides = options.padding ?? 0;
  const padding = typeof sides === 'number' ? ([sides, sides, sides, sides] as const) : sides;
  checkWhole(name, 'stride', flat ? [stride[1]] : stride, 1);
  checkWhole(name, 'dilation', flat ? [dilation[1]] : dilation, 1);
  checkWhole(name, 'padding', flat ? padding.slice(2) : padding, 0);
  checkWhole(name, 'groups', [groups], 1);
  checkGroups(name, 'x', x, x[1]!, groups);
  if (name !== 'convTranspose2d') checkGroups(name, 'the weight', weight, weight[0]!, groups);
  return { groups, kh, kw, stride, dilation, padding };
}

/**
 * Of x (batch, in, h, w) with a weight (out, in / groups, kh, kw), or for conv1d without heights: a picture of one row.
 * Throws the errors that users see.
 */
export function convolution(name: 'conv2d' | 'conv1d', x: Shape, weight: Shape, options: Conv2dOptions): Geometry {
  const { groups, kh, kw, stride, dilation, padding } = window(name, x, weight, options);
  const [stride_y, stride_x] = stride;
  const [dilation_y, dilation_x] = dilation;
  const [top, bottom, left, right] = padding;
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
  return {
    batch, groups, channels, rows: outputs / groups, h, w, oh, ow, kh, kw,
    stride_y, stride_x, dilation_y, dilation_x, top, left,
  }; // prettier-ignore
}

export interface ConvTranspose2dOptions extends Conv2dOptions {
  /** Rows and columns that the result has more at its bottom and right: which of the sizes that conv2d maps to x's. */
  outputPadding?: Pair;
}

/** Of x (batch, in, oh, ow), the results, with a weight (in, out / groups, kh, kw). */
export function transposedConvolution(x: Shape, weight: Shape, options: ConvTranspose2dOptions): Geometry {
  const { groups, kh, kw, stride, dilation, padding } = window('convTranspose2d', x, weight, options);
  const [stride_y, stride_x] = stride;
  const [dilation_y, dilation_x] = dilation;
  const [top, bottom, left, right] = padding;
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
  return {
    batch, groups, channels, rows: inputs / groups, h, w, oh, ow, kh, kw,
    stride_y, stride_x, dilation_y, dilation_x, top, left,
  }; // prettier-ignore
}
