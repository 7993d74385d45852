/** Reductions made of sums and maxima, with gradients of their own. */
import { apply, empty, formatShape, operation, sizeOf, view, zeros } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { evaluate } from '../elementwise/chain.ts';
import type { Expression } from '../elementwise/chain.ts';
import {
  countReduced,
  keptAxes,
  keptShape,
  MAX,
  MAX_OF_SIZES,
  reduceAxes,
  reducedShape,
  SHARE,
  SUM,
  SUM_OF_SIZES,
  SUM_OF_SQUARES,
} from './reduce.ts';
import type { Attributes, ReduceOptions } from './reduce.ts';

// Where the largest is infinite, ∞ − ∞ would be neither the share 0 nor the sum ∞.
const SHIFTED: Expression = { name: 'shiftedExp', f: 'exp(x - clamp(y, -3.4028234e38, 3.4028234e38))', dtype: 'f32' };

const logSumExpOp = operation<readonly [Tensor], Attributes>({
  name: 'logSumExp',
  shape([x], attributes) {
    if (countReduced(x.shape, attributes.keep) === 0)
      throw new Error(`[logSumExp] log Σ exp over no elements is undefined: ${formatShape(x.shape)}`);
    return reducedShape(x.shape, attributes);
  },
  forward(ctx, [x], { keep }, shape) {
    if (x.size === 0) return empty(x.device, shape, x.dtype);
    const highest = reduceAxes(x, keep, MAX);
    const total = reduceAxes(evaluate(SHIFTED, [x, highest]), keep, SUM);
    // Not the result, which loses digits of small shares where the values are large.
    ctx.save(x, highest, total);
    return view(evaluate({ name: 'shiftedLog', f: 'log(x) + y', dtype: x.dtype }, [total, highest]), 0, shape);
  },
  backward(ctx, [grad]) {
    if (sizeOf(ctx.inputShape(0)) === 0) return [ctx.gradient(0)];
    const [x, highest, total] = ctx.saved as [Tensor, Tensor, Tensor];
    const share = { ...SHARE, dtype: x.dtype };
    return [evaluate(share, [evaluate(SHIFTED, [x, highest]), view(grad!, 0, total.shape), total], ctx.target(0))];
  },
});

const varianceOp = operation<readonly [Tensor], Attributes & { correction: number }>({
  name: 'variance',
  shape([x], attributes) {
    const count = countReduced(x.shape, attributes.keep);
    if (count <= attributes.correction)
      throw new Error(
        `[variance] ${count} elements of ${formatShape(x.shape)} with correction ${attributes.correction} leave none to divide by`,
      );
    return reducedShape(x.shape, attributes);
  },
  forward(ctx, [x], { keep, correction }, shape) {
    if (x.size === 0) return empty(x.device, shape, x.dtype);
    const count = countReduced(x.shape, keep);
    // The mean first, in f32: E[x²] − E[x]² would cancel where the mean is large.
    const mean = reduceAxes(x, keep, SUM, { scale: 1 / count, dtype: 'f32' });
    const deviations = evaluate({ name: 'deviation', f: 'x - y', dtype: 'f32' }, [x, mean]);
    ctx.save(x, mean);
    return view(
      reduceAxes(deviations, keep, SUM_OF_SQUARES, { scale: 1 / (count - correction), dtype: x.dtype }),
      0,
      shape,
    );
  },
  backward(ctx, [grad], { keep, correction }) {
    if (sizeOf(ctx.inputShape(0)) === 0) return [ctx.gradient(0)];
    const [x, mean] = ctx.saved as [Tensor, Tensor];
    const alpha = 2 / (countReduced(x.shape, keep) - correction);
    const slope = { name: 'varianceSlope', f: 'alpha * (x - y) * z', alpha };
    return [evaluate(slope, [x, mean, view(grad!, 0, mean.shape)], ctx.target(0))];
  },
});

const normOp = operation<readonly [Tensor], Attributes & { order: number }>({
  name: 'norm',
  shape([x], attributes) {
    const { order } = attributes;
    if (order !== 1 && order !== 2 && order !== Infinity)
      throw new Error(`[norm] the order must be 1, 2 or Infinity, not ${order}`);
    return reducedShape(x.shape, attributes);
  },
  forward(ctx, [x], { keep, order }, shape) {
    if (x.size === 0) return zeros(x.device, shape, x.dtype);
    let out: Tensor;
    if (keep.every(Boolean)) out = evaluate({ name: 'size', f: 'abs(x)' }, [x]);
    else if (order === 2)
      out = evaluate({ name: 'root', f: 'sqrt(x)', dtype: x.dtype }, [
        reduceAxes(x, keep, SUM_OF_SQUARES, { dtype: 'f32' }),
      ]);
    else out = reduceAxes(x, keep, order === 1 ? SUM_OF_SIZES : MAX_OF_SIZES);
    ctx.save(x, out);
    return view(out, 0, shape);
  },
  backward(ctx, [grad], { keep, order }) {
    if (sizeOf(ctx.inputShape(0)) === 0) return [ctx.gradient(0)];
    const [x, out] = ctx.saved as [Tensor, Tensor];
    const g = view(grad!, 0, keptShape(x.shape, keep));
    const target = ctx.target(0);
    if (order === 1) return [evaluate({ name: 'signed', f: 'sign(x) * y' }, [x, g], target)];
    if (order === 2)
      return [evaluate({ name: 'normGradient', f: 'select(x / y * z, 0.0, y == 0.0)' }, [x, out, g], target)];
    const peaks = evaluate({ name: 'peak', f: 'select(0.0, sign(x), abs(x) == y)', dtype: 'f32' }, [x, out]);
    const tied = reduceAxes(peaks, keep, SUM_OF_SIZES);
    const share = { name: 'peakShare', f: 'x * y / max(z, 1.0)', dtype: x.dtype }; // 0 where all are
    return [evaluate(share, [peaks, g, tied], target)];
  },
});

/** log Σ exp(x) over `axes` (all by default), safe for all values but NaN; −∞ where all are. Throws where it would be of no elements. */
export const logSumExp = (x: Tensor, axes?: readonly number[], { keepDims = false }: ReduceOptions = {}): Tensor =>
  apply(logSumExpOp, [x], { keep: keptAxes('logSumExp', x, axes), keepDims });

export interface VarianceOptions extends ReduceOptions {
  /** What is taken off the number of elements before dividing by it: 0 by default; 1 makes an estimate unbiased. */
  correction?: number;
}

/** Variance over `axes` (all by default). Throws where nothing is left to divide by. */
export const variance = (
  x: Tensor,
  axes?: readonly number[],
  { keepDims = false, correction = 0 }: VarianceOptions = {},
): Tensor => apply(varianceOp, [x], { keep: keptAxes('variance', x, axes), keepDims, correction });

export interface NormOptions extends ReduceOptions {
  /** 1, 2 (the default) or Infinity. */
  order?: number;
}

/**
 * Norm of the vectors that `axes` (all by default) make: Σ|x| (order 1), √Σx² (2) or max |x| (Infinity); 0 of no elements.
 * Gradients where it has a kink: 0 at x = 0 for orders 1 and 2, equal shares among the largest for Infinity.
 */
export const norm = (x: Tensor, axes?: readonly number[], { keepDims = false, order = 2 }: NormOptions = {}): Tensor =>
  apply(normOp, [x], { keep: keptAxes('norm', x, axes), keepDims, order });
