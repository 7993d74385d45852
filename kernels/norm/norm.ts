import { apply, empty, formatShape, operation, sizeOf, typed, wgsl } from '../../engine/index.ts';
import type { Context, Shape, Tensor } from '../../engine/index.ts';
import { walkRows } from '../reduce/rows.ts';

const forwardSource = wgsl(import.meta.url, './norm.wgsl');
const backwardSource = wgsl(import.meta.url, './norm_backward.wgsl');
const layerSharesSource = wgsl(import.meta.url, './layer_norm_shares.wgsl');
const parametersSource = wgsl(import.meta.url, './norm_parameters.wgsl');

/** Rows whose shares of layer norm's parameter gradients one invocation adds. */
const CHUNK = 32;
/** Invocations of a workgroup there. */
const BLOCK = 32;

/** How x is seen: rows that are normalised each, of channels with `inner` elements each. */
interface Rows {
  readonly rows: number;
  readonly groups: number;
  readonly channels: number; // of one row
  readonly inner: number;
}

/** Which norm the kernels compute. */
interface Kind {
  /** One channel, with a weight for each element. */
  readonly layer?: boolean;
  /** Neither mean nor bias. */
  readonly rms?: boolean;
  readonly silu?: boolean;
  /** What is added to the weight. */
  readonly offset?: number;
}

type Inputs = readonly [x: Tensor, weight: Tensor, bias?: Tensor];

function checkParameters(name: string, [x, weight, bias]: Inputs, channels: number): Shape {
  for (const [what, tensor] of [
    ['weight', weight],
    ['bias', bias],
  ] as const)
    if (tensor && (tensor.shape.length !== 1 || tensor.shape[0] !== channels))
      throw new Error(
        `[${name}] ${what} must be ${formatShape([channels])} for x ${formatShape(x.shape)}, not ${formatShape(tensor.shape)}`,
      );
  return x.shape;
}

/** How the rows are walked, the kernels' flags, and where the lanes stand. */
function plan(x: Tensor, { rows, groups, channels, inner }: Rows, { layer, rms, silu, offset = 0 }: Kind) {
  const walk = walkRows(x, channels * inner, inner % 4 === 0);
  const perChannel = inner / walk.width;
  const across = Math.min(walk.lanes, 2 ** Math.ceil(Math.log2(Math.max(perChannel, 1))));
  return {
    walk,
    flags: { LAYER: layer ?? false, RMS: rms ?? false, SILU: silu ?? false },
    params: { rows, groups, channels, inner: perChannel, across, offset },
    workgroups: Math.ceil(rows / walk.rows),
  };
}

function forward(ctx: Context, [x, weight, bias]: Inputs, view: Rows, eps: number, kind: Kind): Tensor {
  const { device } = x;
  const out = empty(device, x.shape, x.dtype);
  const stats = empty(device, [view.rows, 3]); // a value of the row, the mean's difference from it, 1/σ
  const { walk, flags, params, workgroups } = plan(x, view, kind);
  const buffers = [x, weight, out, stats, ...(bias ? [bias] : [])];
  device.run(walk.kernel(forwardSource, flags), buffers, { ...params, eps }, workgroups);
  ctx.save(x, weight, stats, ...(kind.silu ? [bias!] : []));
  return out;
}

function backward(ctx: Context, grad: Tensor, view: Rows, kind: Kind): (Tensor | null)[] {
  const [x, weight, stats, bias] = ctx.saved as [Tensor, Tensor, Tensor, Tensor?];
  const { device } = x;
  const { layer = false, rms = false } = kind;
  const channels = weight.size;
  const parts = layer ? Math.ceil(view.rows / CHUNK) : view.rows / view.groups;
  const { walk, flags, params, workgroups } = plan(x, view, kind);
  const shares = empty(device, [2, parts, channels]);
  const dx = ctx.gradient(0);
  const buffers = [x, weight, stats, grad, dx];
  if (!layer) buffers.push(shares);
  if (bias) buffers.push(bias);
  device.run(walk.kernel(backwardSource, flags), buffers, params, workgroups);
  if (!ctx.needs[1] && !ctx.needs[2]) return [dx, null, null];
  if (layer) {
    const blocks = Math.ceil(params.inner / BLOCK);
    device.run(
      device.kernel(layerSharesSource, { ...typed(x), VEC4: walk.width === 4 }),
      [x, stats, grad, shares],
      { rows: view.rows, columns: params.inner, blocks, chunks: parts, chunk: CHUNK },
      blocks * parts,
    );
  }
  const gradients = rms ? [ctx.gradient(1)] : [ctx.gradient(1), ctx.gradient(2)];
  device.run(
    device.kernel(parametersSource, { ...typed(weight), BIAS: !rms }),
    [shares, ...gradients],
    { parts, channels },
    Math.ceil(channels / 64),
  );
  return [dx, ...gradients];
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

const groupNormOp = operation<readonly [Tensor, Tensor, Tensor], GroupNormAttributes>({
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
    forward(ctx, inputs, groupRows(inputs[0].shape, groups), eps, { silu }),
  backward: (ctx, [grad], { groups, silu }) => backward(ctx, grad!, groupRows(ctx.inputShape(0), groups), { silu }),
});

const layerRows = (shape: Shape): Rows => ({
  rows: sizeOf(shape.slice(0, -1)),
  groups: 1,
  channels: 1,
  inner: shape.at(-1)!,
});

function checkLayer(name: string, inputs: Inputs): Shape {
  const { shape } = inputs[0];
  if (shape.length < 1) throw new Error(`[${name}] x must have a last dimension to normalise, not ()`);
  return checkParameters(name, inputs, shape.at(-1)!);
}

const layerNormOp = operation<readonly [Tensor, Tensor, Tensor], { eps: number }>({
  name: 'layerNorm',
  shape: (inputs) => checkLayer('layerNorm', inputs),
  forward: (ctx, inputs, { eps }) => forward(ctx, inputs, layerRows(inputs[0].shape), eps, { layer: true }),
  backward: (ctx, [grad]) => backward(ctx, grad!, layerRows(ctx.inputShape(0)), { layer: true }),
});

const rmsNormOp = operation<readonly [Tensor, Tensor], { eps: number; offset: number }>({
  name: 'rmsNorm',
  shape: (inputs) => checkLayer('rmsNorm', inputs),
  forward: (ctx, inputs, { eps, offset }) =>
    forward(ctx, inputs, layerRows(inputs[0].shape), eps, { layer: true, rms: true, offset }),
  backward: (ctx, [grad], { offset }) =>
    backward(ctx, grad!, layerRows(ctx.inputShape(0)), { layer: true, rms: true, offset }),
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

export interface RmsNormOptions {
  /** Added to the mean square, under the root. */
  eps?: number;
  /** Added to the weight: 0 as in Llama, 1 as in Gemma, whose weights are stored as differences from 1. */
  offset?: number;
}

/** x / √(mean(x²) + eps) · (offset + weight) over the last dimension of x (…, D) (Zhang & Sennrich, 2019); weight is (D). */
export const rmsNorm = (x: Tensor, weight: Tensor, { eps = 1e-6, offset = 0 }: RmsNormOptions = {}): Tensor =>
  apply(rmsNormOp, [x, weight], { eps, offset });
