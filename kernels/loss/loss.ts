import { apply, empty, formatShape, operation, sameShape, sizeOf, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { sum } from '../reduce/reduce.ts';
import { rowDefines } from '../reduce/rows.ts';

const mseSource = wgsl(import.meta.url, './mse.wgsl');
const mseBackwardSource = wgsl(import.meta.url, './mse_backward.wgsl');
const crossEntropySource = wgsl(import.meta.url, './cross_entropy.wgsl');
const crossEntropyMeanSource = wgsl(import.meta.url, './cross_entropy_mean.wgsl');
const crossEntropyBackwardSource = wgsl(import.meta.url, './cross_entropy_backward.wgsl');

const NAN_BITS = 0x7fc00000;

const mseOp = operation<readonly [Tensor, Tensor, Tensor | null], object>({
  name: 'mse',
  shape([a, b, weights]) {
    if (!sameShape(a.shape, b.shape))
      throw new Error(`[mse] shapes differ: ${formatShape(a.shape)} and ${formatShape(b.shape)}`);
    if (a.size === 0) throw new Error(`[mse] the mean over no elements is undefined: ${formatShape(a.shape)}`);
    if (weights && !sameShape(weights.shape, [a.shape[0] ?? 1]))
      throw new Error(
        `[mse] weights must be one a sample, ${formatShape([a.shape[0] ?? 1])}, not ${formatShape(weights.shape)}`,
      );
    if (weights?.tracked) throw new Error('[mse] weights are constants; they cannot require a gradient');
    return [];
  },
  forward(ctx, [a, b, weights]) {
    const { device } = a;
    const samples = a.shape[0] ?? 1;
    const length = a.size / samples;
    const vec4 = length % 4 === 0;
    const losses = empty(device, [samples]);
    device.run(
      device.kernel(mseSource, { ...rowDefines(device, length, vec4), WEIGHTS: weights !== null }),
      weights ? [a, b, losses, weights] : [a, b, losses],
      { samples, length: vec4 ? length / 4 : length, scale: 1 / (weights ? length : a.size) },
      samples,
    );
    ctx.save(a, b, ...(weights ? [weights] : []));
    return sum(losses);
  },
  backward(ctx, [grad]) {
    const [a, b, weights] = ctx.saved as [Tensor, Tensor, Tensor?];
    const { device } = a;
    const length = sizeOf(a.shape.slice(1));
    const scale = 2 / (weights ? length : a.size);
    const kernel = device.kernel(mseBackwardSource, { WEIGHTS: weights !== undefined });
    return [scale, -scale].map((signed, i) => {
      if (!ctx.needs[i]) return null;
      const target = ctx.gradient(i);
      device.run(
        kernel,
        weights ? [a, b, grad!, target, weights] : [a, b, grad!, target],
        { size: a.size, length, scale: signed },
        Math.ceil(a.size / 64),
      );
      return target;
    });
  },
});

export interface MseOptions {
  /** (N): weight of each sample; 1/N by default. Constants. */
  weights?: Tensor;
}

/**
 * Σₙ wₙ · mean((aₙ − bₙ)²) over the samples n, the first dimension of a and b (N, …): the mean squared error unless
 * `weights` say otherwise (a prior-preservation term, a weighting by noise level). A scalar.
 */
export const mse = (a: Tensor, b: Tensor, { weights }: MseOptions = {}): Tensor =>
  apply(mseOp, [a, b, weights ?? null], {});

const crossEntropyOp = operation<readonly [Tensor, Tensor], { ignored: number }>({
  name: 'crossEntropy',
  dtypes: ['float', 'i32'],
  shape([logits, targets]) {
    if (logits.shape.length !== 2)
      throw new Error(`[crossEntropy] logits must be (R, V), not ${formatShape(logits.shape)}`);
    if (!sameShape(targets.shape, [logits.shape[0]!]))
      throw new Error(
        `[crossEntropy] targets must be ${formatShape([logits.shape[0]!])} for logits ${formatShape(logits.shape)}, not ${formatShape(targets.shape)}`,
      );
    return [];
  },
  forward(ctx, [logits, targets], { ignored }, shape) {
    const { device } = logits;
    const [rows, columns] = logits.shape as [number, number];
    const vec4 = columns % 4 === 0;
    const losses = empty(device, [rows]);
    const stats = empty(device, [rows, 2]);
    device.run(
      device.kernel(crossEntropySource, rowDefines(device, columns, vec4)),
      [logits, targets, losses, stats],
      { rows, columns: vec4 ? columns / 4 : columns, ignored, nan: NAN_BITS },
      rows,
    );
    const out = empty(device, shape);
    const count = empty(device, [1]);
    device.run(
      device.kernel(crossEntropyMeanSource, rowDefines(device, rows, false)),
      [losses, targets, out, count],
      { rows, ignored },
      1,
    );
    ctx.save(logits, targets, stats, count);
    return out;
  },
  backward(ctx, [grad], { ignored }) {
    const [logits, targets, stats, count] = ctx.saved as [Tensor, Tensor, Tensor, Tensor];
    const { device } = logits;
    const [rows, columns] = logits.shape as [number, number];
    const vec4 = columns % 4 === 0;
    const dlogits = ctx.gradient(0);
    device.run(
      device.kernel(crossEntropyBackwardSource, rowDefines(device, columns, vec4)),
      [logits, targets, stats, count, grad!, dlogits],
      { rows, columns: vec4 ? columns / 4 : columns, ignored },
      rows,
    );
    return [dlogits, null];
  },
});

export interface CrossEntropyOptions {
  /** Rows with this target don't count. */
  ignore?: number;
}

/**
 * Mean over the rows of −log softmax(logits)[target], without the rows whose target is `ignore` (0 where all are ignored).
 * logits (R, V), targets i32 (R). A target outside 0 … V − 1 makes the loss NaN. A scalar.
 */
export const crossEntropy = (logits: Tensor, targets: Tensor, { ignore = -100 }: CrossEntropyOptions = {}): Tensor =>
  apply(crossEntropyOp, [logits, targets], { ignored: ignore });
