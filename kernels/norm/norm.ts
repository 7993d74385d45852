import { apply, empty, formatShape, operation, sizeOf, wgsl } from '../../engine/index.ts';
import type { Context, Shape, Tensor } from '../../engine/index.ts';
import { rowDefines } from '../reduce/rows.ts';

const forwardSource = wgsl(import.meta.url, './norm.wgsl');
const backwardSource = wgsl(import.meta.url, './norm_backward.wgsl');
const layerSharesSource = wgsl(import.meta.url, './layer_norm_shares.wgsl');
const parametersSource = wgsl(import.meta.url, './norm_parameters.wgsl');

/** Rows whose shares of layer norm's parameter gradients one workgroup adds. */
const CHUNK = 32;

/** How x is seen: rows that are normalised each, of channels with `inner` elements each. */
interface Rows {
  readonly rows: number;
  readonly groups: number;
  readonly channels: number; // of one row
  readonly inner: number;
}

type Inputs = readonly [Tensor, Tensor, Tensor];

function checkParameters(name: string, [x, weight, bias]: Inputs, channels: number): Shape {
  for (const [what, tensor] of [
    ['weight', weight],
    ['bias', bias],
  ] as const)
    if (tensor.shape.length !== 1 || tensor.shape[0] !== channels)
      throw new Error(
        `[${name}] ${what} must be ${formatShape([channels])} for x ${formatShape(x.shape)}, not ${formatShape(tensor.shape)}`,
      );
  return x.shape;
}

function variant(x: Tensor, { channels, inner }: Rows, layer: boolean, silu: boolean) {
  const vec4 = inner % 4 === 0;
  const defines = { ...rowDefines(x.device, channels * inner, vec4), LAYER: layer, SILU: silu };
  return { defines, width: vec4 ? 4 : 1 };
}

function forward(
  ctx: Context,
  [x, weight, bias]: Inputs,
  view: Rows,
  eps: number,
  layer: boolean,
  silu: boolean,
): Tensor {
  const { device } = x;
  const out = empty(device, x.shape);
  const stats = empty(device, [view.rows, 3]); // mean, its rest, 1/σ
  const { defines, width } = variant(x, view, layer, silu);
  const params = { ...view, inner: view.inner / width, eps };
  device.run(device.kernel(forwardSource, defines), [x, weight, bias, out, stats], params, view.rows);
  ctx.save(x, weight, stats, ...(silu ? [bias] : []));
  return out;
}

function backward(ctx: Context, grad: Tensor, view: Rows, layer: boolean, silu: boolean): (Tensor | null)[] {
  const [x, weight, stats, bias] = ctx.saved as [Tensor, Tensor, Tensor, Tensor?];
  const { device } = x;
  const channels = weight.size;
  const parts = layer ? Math.ceil(view.rows / CHUNK) : view.rows / view.groups;
  const { defines, width } = variant(x, view, layer, silu);
  const inner = view.inner / width;
  const shares = empty(device, [2, parts, channels]);
  const dx = ctx.gradient(0);
  const buffers = [x, weight, stats, grad, dx];
  if (!layer) buffers.push(shares);
  if (bias) buffers.push(bias);
  device.run(device.kernel(backwardSource, defines), buffers, { ...view, inner }, view.rows);
  if (!ctx.needs[1] && !ctx.needs[2]) return [dx, null, null];
  if (layer)
    device.run(
      device.kernel(layerSharesSource, rowDefines(device, channels, width === 4)),
      [x, stats, grad, shares],
      { rows: view.rows, columns: inner, chunks: parts, chunk: CHUNK },
      parts,
    );
  const [dweight, dbias] = [ctx.gradient(1), ctx.gradient(2)];
  device.run(device.kernel(parametersSource), [shares, dweight, dbias], { parts, channels }, Math.ceil(channels / 64));
  return [dx, dweight, dbias];
}

interface GroupNormAttributes {
  groups: number;
  eps: number;
  silu: boolean;
}

const groupRows = ([n, c, ...spatial]: Shape, groups: number): Rows => ({
  rows: n! * groups,
  groups,
  channels: c! / groups,
  inner: sizeOf(spatial),
});

const groupNormOp = operation<Inputs, GroupNormAttributes>({
  name: 'groupNorm',
  shape(inputs, { groups }) {
    const { shape } = inputs[0];
    if (shape.length < 2) throw new Error(`[groupNorm] x must be (N, C, …), not ${formatShape(shape)}`);
    if (!Number.isInteger(groups) || groups < 1 || shape[1]! % groups !== 0)
      throw new Error(
        `[groupNorm] ${shape[1]} channels of x ${formatShape(shape)} do not divide into ${groups} groups`,
      );
    return checkParameters('groupNorm', inputs, shape[1]!);
  },
  forward: (ctx, inputs, { groups, eps, silu }) =>
    forward(ctx, inputs, groupRows(inputs[0].shape, groups), eps, false, silu),
  backward: (ctx, [grad], { groups, silu }) => backward(ctx, grad!, groupRows(ctx.inputShape(0), groups), false, silu),
});

const layerRows = (shape: Shape): Rows => ({
  rows: sizeOf(shape.slice(0, -1)),
  groups: 1,
  channels: 1,
  inner: shape.at(-1)!,
});

const layerNormOp = operation<Inputs, { eps: number }>({
  name: 'layerNorm',
  shape(inputs) {
    const { shape } = inputs[0];
    if (shape.length < 1) throw new Error('[layerNorm] x must have a last dimension to normalise, not ()');
    return checkParameters('layerNorm', inputs, shape.at(-1)!);
  },
  forward: (ctx, inputs, { eps }) => forward(ctx, inputs, layerRows(inputs[0].shape), eps, true, false),
  backward: (ctx, [grad]) => backward(ctx, grad!, layerRows(ctx.inputShape(0)), true, false),
});

export interface GroupNormOptions {
  /** Added to the variance. */
  eps?: number;
  /** Applies x · σ(x) to the result, in the same kernel. */
  silu?: boolean;
}

/**
 * Group normalisation (Wu & He, 2018) of x (N, C, …) over each sample's groups of neighbouring channels, with the biased
 * variance; weight and bias are (C). With `silu` it is `silu(groupNorm(…))`, fused.
 */
export const groupNorm = (
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  groups: number,
  { eps = 1e-5, silu = false }: GroupNormOptions = {},
): Tensor => apply(groupNormOp, [x, weight, bias], { groups, eps, silu });

/** Layer normalisation (Ba et al., 2016) of x (…, D) over its last dimension; weight and bias are (D). */
export const layerNorm = (x: Tensor, weight: Tensor, bias: Tensor, eps = 1e-5): Tensor =>
  apply(layerNormOp, [x, weight, bias], { eps });
