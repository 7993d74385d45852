import { apply, empty, formatShape, operation, wgsl } from '../../engine/index.ts';
import type { KernelSource, Shape, Tensor } from '../../engine/index.ts';
import { multiply, roundsFor } from '../matmul/product.ts';
import { sum } from '../reduce/reduce.ts';

const tiled = {
  product: wgsl(import.meta.url, './conv2d.wgsl'),
  weight: wgsl(import.meta.url, './conv2d_weight.wgsl'),
};
const broadcast = {
  product: wgsl(import.meta.url, './conv2d_subgroup.wgsl'),
  weight: wgsl(import.meta.url, './conv2d_weight_subgroup.wgsl'),
};

export interface Conv2dOptions {
  /** Step of the window, one number or [vertical, horizontal]; 1 by default. */
  stride?: number | readonly [number, number];
  /** Zeros around the picture: one number, or [top, bottom, left, right]; 0 by default. */
  padding?: number | readonly [number, number, number, number];
}

/** Everything that the kernels need to know of a convolution. */
interface Geometry {
  batch: number;
  channels: number; // of the input
  h: number;
  w: number;
  rows: number; // channels of the result
  oh: number;
  ow: number;
  kh: number;
  kw: number;
  stride_y: number;
  stride_x: number;
  top: number;
  left: number;
}

function geometry(x: Shape, weight: Shape, { stride = 1, padding = 0 }: Conv2dOptions): Geometry {
  if (x.length !== 4) throw new Error(`[conv2d] x is (batch, channels, height, width), not ${formatShape(x)}`);
  if (weight.length !== 4)
    throw new Error(`[conv2d] the weight is (out, in, height, width), not ${formatShape(weight)}`);
  const [batch, channels, h, w] = x as [number, number, number, number];
  const [rows, inputs, kh, kw] = weight as [number, number, number, number];
  if (inputs !== channels)
    throw new Error(
      `[conv2d] x ${formatShape(x)} has ${channels} channels, the weight ${formatShape(weight)} takes ${inputs}`,
    );
  const [stride_y, stride_x] = typeof stride === 'number' ? [stride, stride] : stride;
  const [top, bottom, left, right] = typeof padding === 'number' ? [padding, padding, padding, padding] : padding;
  if (![stride_y, stride_x].every((step) => Number.isInteger(step) && step >= 1))
    throw new Error(`[conv2d] the stride must be whole numbers from 1, not ${stride_y}, ${stride_x}`);
  if (![top, bottom, left, right].every((side) => Number.isInteger(side) && side >= 0))
    throw new Error(`[conv2d] the padding must be whole numbers from 0, not ${top}, ${bottom}, ${left}, ${right}`);
  const oh = Math.floor((h + top + bottom - kh) / stride_y) + 1;
  const ow = Math.floor((w + left + right - kw) / stride_x) + 1;
  if (oh < 1 || ow < 1)
    throw new Error(
      `[conv2d] a ${kh}×${kw} window does not fit into x ${formatShape(x)} with ${top + bottom} padding rows and ${left + right} columns`,
    );
  return { batch, channels, h, w, rows, oh, ow, kh, kw, stride_y, stride_x, top, left };
}

/** A 1×1 window that sees every pixel once is a matrix product of the weight and the picture (channels, pixels). */
const pointwise = (g: Geometry): boolean =>
  g.kh === 1 && g.kw === 1 && g.stride_y === 1 && g.stride_x === 1 && g.oh === g.h && g.ow === g.w;

function run(
  variants: { tiled: KernelSource; broadcast: KernelSource },
  defines: Record<string, boolean>,
  tensors: Tensor[],
  params: Geometry,
  columns: number,
): void {
  const device = tensors[0]!.device;
  const { software, subgroupSize } = device.profile;
  if (software && subgroupSize > 0) {
    const rounds = roundsFor(params.rows, subgroupSize);
    const kernel = device.kernel(variants.broadcast, {
      SUBGROUPS: true,
      SUBGROUP: `${subgroupSize}u`,
      ROUNDS: `${rounds}u`,
      ...defines,
    });
    const tiles = Math.ceil(params.rows / (4 * rounds)) * Math.ceil(columns / (4 * subgroupSize));
    device.run(kernel, tensors, { ...params }, tiles);
  } else {
    const tiles = Math.ceil(params.rows / 64) * Math.ceil(columns / 64);
    device.run(device.kernel(variants.tiled, defines), tensors, { ...params }, tiles);
  }
}

const product = { tiled: tiled.product, broadcast: broadcast.product };
const weightProduct = { tiled: tiled.weight, broadcast: broadcast.weight };

const conv2dOp = operation<readonly [Tensor, Tensor, Tensor | null], Conv2dOptions>({
  name: 'conv2d',
  shape([x, weight, bias], options) {
    const { batch, rows, oh, ow } = geometry(x.shape, weight.shape, options);
    if (bias && (bias.shape.length !== 1 || bias.size !== rows))
      throw new Error(
        `[conv2d] the bias must be ${formatShape([rows])} for a weight ${formatShape(weight.shape)}, not ${formatShape(bias.shape)}`,
      );
    return [batch, rows, oh, ow];
  },
  forward(ctx, [x, weight, bias], options, shape) {
    ctx.save(x, weight);
    const out = empty(x.device, shape);
    const g = geometry(x.shape, weight.shape, options);
    if (pointwise(g))
      multiply(weight, x, out, {
        m: g.rows,
        n: g.h * g.w,
        k: g.channels,
        batch: g.batch,
        sharedA: true,
        bias: bias ? { values: bias, along: 'column' } : undefined,
      });
    else {
      const tensors = bias ? [x, weight, out, bias] : [x, weight, out];
      run(product, { BIAS: bias !== null }, tensors, g, g.batch * g.oh * g.ow);
    }
    return out;
  },
  backward(ctx, [grad], options) {
    const [x, weight] = ctx.saved as [Tensor, Tensor];
    const g = geometry(x.shape, weight.shape, options);
    const shared = { batch: g.batch, k: g.rows };
    let gradX: Tensor | null = null;
    if (ctx.needs[0]) {
      gradX = ctx.gradient(0);
      if (pointwise(g))
        multiply(weight, grad!, gradX, { ...shared, m: g.channels, n: g.h * g.w, transposeA: true, sharedA: true });
      else {
        // The kernel's picture is the gradient and its result the input's.
        const back = { ...g, channels: g.rows, rows: g.channels, h: g.oh, w: g.ow, oh: g.h, ow: g.w };
        run(product, { TRANSPOSED: true, BIAS: false }, [grad!, weight, gradX], back, g.batch * g.h * g.w);
      }
    }
    let gradWeight: Tensor | null = null;
    let gradBias: Tensor | null = null;
    if (ctx.needs[1]) {
      gradWeight = ctx.gradient(1);
      if (ctx.needs[2] && weight.size > 0) gradBias = ctx.gradient(2);
      if (pointwise(g))
        multiply(grad!, x, gradWeight, {
          m: g.rows,
          n: g.channels,
          k: g.h * g.w,
          transposeB: true,
          sum: g.batch,
          rowSum: gradBias ?? undefined,
        });
      else {
        const tensors = gradBias ? [x, grad!, gradWeight, gradBias] : [x, grad!, gradWeight];
        run(weightProduct, { ROW_SUM: gradBias !== null }, tensors, g, g.channels * g.kh * g.kw);
      }
    }
    // No product to take it along: the weight is frozen, or has no elements.
    if (ctx.needs[2] && !gradBias) gradBias = sum(grad!, [0, 2, 3]);
    return [gradX, gradWeight, gradBias];
  },
});

/**
 * 2-D convolution (cross-correlation, as in every deep-learning library) of x (batch, in, height, width) with
 * weight (out, in, kernel height, kernel width) and bias (out), giving (batch, out, height′, width′).
 */
export const conv2d = (x: Tensor, weight: Tensor, bias: Tensor | null = null, options: Conv2dOptions = {}): Tensor =>
  apply(conv2dOp, [x, weight, bias], options);
