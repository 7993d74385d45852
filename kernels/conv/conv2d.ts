import { apply, empty, formatShape, operation } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { sum } from '../reduce/reduce.ts';
import { convolution, transposedConvolution } from './geometry.ts';
import type { Conv2dOptions, ConvTranspose2dOptions } from './geometry.ts';
import { backwardToInput, backwardToWeight, forward } from './passes.ts';

export type { Conv2dOptions, ConvTranspose2dOptions } from './geometry.ts';

type Inputs = readonly [x: Tensor, weight: Tensor, bias: Tensor | null];

function checkBias(name: string, weight: Tensor, bias: Tensor | null, outputs: number): void {
  if (bias && (bias.shape.length !== 1 || bias.size !== outputs))
    throw new Error(
      `[${name}] the bias must be ${formatShape([outputs])} for a weight ${formatShape(weight.shape)}, not ${formatShape(bias.shape)}`,
    );
}

/** conv2d, and conv1d: what differs is how their shapes are read. */
const convolutionOp = (name: 'conv2d' | 'conv1d') =>
  operation<Inputs, Conv2dOptions>({
    name,
    shape([x, weight, bias], options) {
      const { batch, oh, ow } = convolution(name, x.shape, weight.shape, options);
      const outputs = weight.shape[0]!;
      checkBias(name, weight, bias, outputs);
      return name === 'conv1d' ? [batch, outputs, ow] : [batch, outputs, oh, ow];
    },
    forward(ctx, [x, weight, bias], options, shape) {
      ctx.save(x, weight);
      const out = empty(x.device, shape, x.dtype);
      forward(convolution(name, x.shape, weight.shape, options), x, weight, out, bias);
      return out;
    },
    backward(ctx, [grad], options) {
      const [x, weight] = ctx.saved as [Tensor, Tensor];
      const g = convolution(name, x.shape, weight.shape, options);
      const [gradX, gradWeight] = [0, 1].map((i) => (ctx.needs[i] ? ctx.gradient(i) : null)) as [Tensor, Tensor];
      let gradBias: Tensor | null = null;
      if (gradX) backwardToInput(g, grad!, weight, gradX, null);
      if (gradWeight) {
        const rowSum = ctx.needs[2] && weight.size > 0 ? ctx.gradient(2) : null;
        if (backwardToWeight(g, x, grad!, gradWeight, rowSum)) gradBias = rowSum;
      }
      if (ctx.needs[2]) gradBias ??= sum(grad!, name === 'conv1d' ? [0, 2] : [0, 2, 3]);
      return [gradX, gradWeight, gradBias];
    },
  });

const conv2dOp = convolutionOp('conv2d');
const conv1dOp = convolutionOp('conv1d');

/**
 * 2-D convolution (cross-correlation, as in every deep-learning library) of x (batch, in, height, width) with
 * weight (out, in / groups, kernel height, kernel width) and bias (out), giving (batch, out, height′, width′).
 */
export const conv2d = (x: Tensor, weight: Tensor, bias: Tensor | null = null, options: Conv2dOptions = {}): Tensor =>
  apply(conv2dOp, [x, weight, bias], options);

const convTranspose2dOp = operation<Inputs, ConvTranspose2dOptions>({
  name: 'convTranspose2d',
  shape([x, weight, bias], options) {
    const { batch, groups, channels, h, w } = transposedConvolution(x.shape, weight.shape, options);
    checkBias('convTranspose2d', weight, bias, groups * channels);
    return [batch, groups * channels, h, w];
  },
  // The passes of conv2d with the parts of x and result exchanged: its gradient by inputs is the forward pass here.
  forward(ctx, [x, weight, bias], options, shape) {
    ctx.save(x, weight);
    const out = empty(x.device, shape, x.dtype);
    backwardToInput(transposedConvolution(x.shape, weight.shape, options), x, weight, out, bias);
    return out;
  },
  backward(ctx, [grad], options) {
    const [x, weight] = ctx.saved as [Tensor, Tensor];
    const g = transposedConvolution(x.shape, weight.shape, options);
    const [gradX, gradWeight] = [0, 1].map((i) => (ctx.needs[i] ? ctx.gradient(i) : null)) as [Tensor, Tensor];
    if (gradX) forward(g, grad!, weight, gradX, null);
    if (gradWeight) backwardToWeight(g, grad!, x, gradWeight, null);
    return [gradX, gradWeight, ctx.needs[2] ? sum(grad!, [0, 2, 3]) : null];
  },
});

/**
 * Transposed 2-D convolution of x (batch, in, height, width) with weight (in, out / groups, kernel height, kernel width) and
 * bias (out): the adjoint of the conv2d that has these options, so its height is
 * (height − 1) · stride − padding + dilation · (kernel height − 1) + 1 + output padding, and the width alike.
 */
export const convTranspose2d = (
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  options: ConvTranspose2dOptions = {},
): Tensor => apply(convTranspose2dOp, [x, weight, bias], options);

export interface Conv1dOptions {
  stride?: number;
  /** Zeros at the ends: one number, or [before, after]. */
  padding?: number | readonly [number, number];
  dilation?: number;
  groups?: number;
}

/**
 * 1-D convolution of x (batch, in, length) with weight (out, in / groups, kernel) and bias (out), giving
 * (batch, out, length′): conv2d of a picture that is one row.
 */
export function conv1d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  { stride = 1, padding = 0, dilation = 1, groups = 1 }: Conv1dOptions = {},
): Tensor {
  const [before, after] = typeof padding === 'number' ? [padding, padding] : padding;
  const options = { stride: [1, stride], padding: [0, 0, before, after], dilation: [1, dilation], groups } as const;
  return apply(conv1dOp, [x, weight, bias], options);
}
