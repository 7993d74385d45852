import { derived, empty, formatShape, noGrad, sameShape, scope, wgsl } from '../../engine/index.ts';
import type { Parameter, Tensor } from '../../engine/index.ts';
import { sum } from '../reduce/reduce.ts';

const adamwSource = wgsl(import.meta.url, './adamw.wgsl');
const normSource = wgsl(import.meta.url, './norm.wgsl');
const lerpSource = wgsl(import.meta.url, './lerp.wgsl');

/** Most elements of a tile: what one workgroup of the optimizer's kernels goes through. */
export const TILE = 4096;

/**
 * How a chunk of an arena is divided. `tiles` (u32, (tiles, 3)) gives each tile's first element (a multiple of four), its
 * count (at most `TILE`) and its segment; `segments` (f32, (segments, 3)) gives each parameter's factor of the learning
 * rate, its weight decay, and 1 where it is frozen.
 */
export interface Layout {
  readonly tiles: Tensor;
  readonly segments: Tensor;
}

/**
 * Over the gradients of every chunk: (sum of squares, number of values that are not finite), as a tensor (2,). Frozen
 * segments and what lies between tiles do not count; values that are not finite are left out of the sum.
 */
export function gradientNorm(chunks: readonly (Layout & { readonly gradients: Tensor })[]): Tensor {
  const device = chunks[0]!.gradients.device;
  requireF32('gradientNorm', ...chunks.map(({ gradients }) => gradients));
  return noGrad(device, () =>
    scope(device, () => {
      const total = chunks.reduce((count, { tiles }) => count + tiles.shape[0]!, 0);
      const partials = empty(device, [total * 64, 2]);
      let before = 0;
      for (const { gradients, tiles, segments } of chunks) {
        const count = tiles.shape[0]!;
        device.run(device.kernel(normSource), [gradients, tiles, segments, partials], { tiles: count, before }, count);
        before += count;
      }
      return sum(partials, [0]);
    }),
  );
}

/** Arenas hold f32: the master weights and what is kept for them. */
function requireF32(operation: string, ...arenas: Tensor[]): void {
  for (const { dtype, shape } of arenas)
    if (dtype !== 'f32')
      throw new Error(`[${operation}] ${formatShape(shape)} is ${dtype}; what lies in arenas is f32`);
}

/** One chunk with what AdamW keeps for it; all four arrays have the chunk's shape. */
export interface AdamWChunk extends Layout {
  readonly parameters: Tensor;
  readonly gradients: Tensor;
  readonly first: Tensor;
  readonly second: Tensor;
}

export interface AdamWSettings {
  readonly learningRate: Parameter;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Gradients are scaled by min(1, maxNorm / (norm + 1e-6)); `Infinity` leaves them as they are. */
  readonly maxNorm: number;
  /** The number of this step, from 1: for the corrections of the moments' bias. */
  readonly step: Parameter;
}

/**
 * AdamW (Loshchilov & Hutter, 2019), as PyTorch computes it, in place on a chunk's parameters and moments, in one
 * dispatch. `norm` is what `gradientNorm` gave: it is read on the device, and where it is not finite nothing changes.
 */
export function adamw(
  { parameters, gradients, first, second, tiles, segments }: AdamWChunk,
  norm: Tensor,
  { learningRate, beta1, beta2, epsilon, maxNorm, step }: AdamWSettings,
): void {
  for (const other of [gradients, first, second])
    if (!sameShape(other.shape, parameters.shape))
      throw new Error(
        `[adamw] parameters, gradients and moments have one shape, got ${formatShape(parameters.shape)} and ${formatShape(other.shape)}`,
      );
  requireF32('adamw', parameters, gradients, first, second, norm);
  const device = parameters.device;
  const count = tiles.shape[0]!;
  device.run(
    device.kernel(adamwSource),
    [parameters, gradients, first, second, tiles, segments, norm],
    {
      tiles: count,
      rate: learningRate,
      beta1,
      share1: 1 - beta1,
      beta2,
      share2: 1 - beta2,
      bias1: derived(step, (t) => 1 - beta1 ** t),
      root_bias2: derived(step, (t) => Math.sqrt(1 - beta2 ** t)),
      epsilon,
      max_norm: Math.min(maxNorm, 3.4e38), // infinity is no value that WGSL promises to handle
    },
    count,
  );
}

/** target += share · (source − target), in place; sizes are multiples of four, as an arena's chunks are. */
export function lerp(target: Tensor, source: Tensor, share: number): void {
  if (!sameShape(target.shape, source.shape) || target.size % 4 !== 0)
    throw new Error(
      `[lerp] needs equal shapes of a multiple of four elements, got ${formatShape(target.shape)} and ${formatShape(source.shape)}`,
    );
  requireF32('lerp', target, source);
  const device = target.device;
  device.run(device.kernel(lerpSource), [target, source], { size: target.size, share }, Math.ceil(target.size / 256));
}
