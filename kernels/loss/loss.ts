import { apply, empty, formatShape, operation, sameShape, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { walkRows } from '../reduce/rows.ts';
import { NAN_BITS, rowMean } from './row_mean.ts';

const crossEntropySource = wgsl(import.meta.url, './cross_entropy.wgsl');
const crossEntropyBackwardSource = wgsl(import.meta.url, './cross_entropy_backward.wgsl');

const crossEntropyOp = operation<readonly [Tensor, Tensor], { ignored: number; smoothing: number }>({
  name: 'crossEntropy',
  dtypes: ['float', 'i32'],
  shape([logits, targets], { smoothing }) {
    if (logits.shape.length !== 2)
      throw new Error(`[crossEntropy] logits must be (R, V), not ${formatShape(logits.shape)}`);
    if (!sameShape(targets.shape, [logits.shape[0]!]))
      throw new Error(
        `[crossEntropy] targets must be ${formatShape([logits.shape[0]!])} for logits ${formatShape(logits.shape)}, not ${formatShape(targets.shape)}`,
      );
    if (!(smoothing >= 0 && smoothing <= 1))
      throw new Error(`[crossEntropy] smoothing must lie in 0 … 1, not ${smoothing}`);
    return [];
  },
  forward(ctx, [logits, targets], { ignored, smoothing }) {
    const { device } = logits;
    const [rows, columns] = logits.shape as [number, number];
    const walk = walkRows(logits, columns);
    const losses = empty(device, [rows]);
    const stats = empty(device, [rows, 2]);
    device.run(
      walk.kernel(crossEntropySource),
      [logits, targets, losses, stats],
      { rows, columns: columns / walk.width, ignored, nan: NAN_BITS, smoothing },
      Math.ceil(rows / walk.rows),
    );
    const { mean, count } = rowMean(losses, targets, ignored);
    ctx.save(logits, targets, stats, count);
    return mean;
  },
  backward(ctx, [grad], { ignored, smoothing }) {
    const [logits, targets, stats, count] = ctx.saved as [Tensor, Tensor, Tensor, Tensor];
    const { device } = logits;
    const [rows, columns] = logits.shape as [number, number];
    const walk = walkRows(logits, columns);
    const dlogits = ctx.gradient(0);
    device.run(
      walk.kernel(crossEntropyBackwardSource),
      [logits, targets, stats, count, grad!, dlogits],
      { rows, columns: columns / walk.width, ignored, smoothing },
      Math.ceil(rows / walk.rows),
    );
    return [dlogits, null];
  },
});

export interface CrossEntropyOptions {
  /** Rows with this target don't count; −100 by default. */
  ignore?: number;
  /** Share of each target that is spread evenly over all V classes (Szegedy et al., 2016); 0 by default. */
  smoothing?: number;
}

/**
 * Mean over the rows of −log softmax(logits)[target], without the rows whose target is `ignore` (0 where all are ignored).
 * logits (R, V), targets i32 (R). A target outside 0 … V − 1 makes the loss NaN. A scalar, f32.
 */
export const crossEntropy = (
  logits: Tensor,
  targets: Tensor,
  { ignore = -100, smoothing = 0 }: CrossEntropyOptions = {},
): Tensor => apply(crossEntropyOp, [logits, targets], { ignored: ignore, smoothing });
