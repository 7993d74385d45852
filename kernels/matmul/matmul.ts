import { apply, empty, formatShape, operation, sizeOf } from '../../engine/index.ts';
import type { Shape, Tensor } from '../../engine/index.ts';
import { broadcastShape } from '../elementwise/chain.ts';
import { sum } from '../reduce/reduce.ts';
import { multiply } from './product.ts';

export interface MatmulOptions {
  /** a lies as (…, k, m). */
  transposeA?: boolean;
  /** b lies as (…, n, k). */
  transposeB?: boolean;
}

/** The two operands' extents, and the batch that they form. */
function plan(a: Shape, b: Shape, { transposeA = false, transposeB = false }: MatmulOptions) {
  if (a.length < 2 || b.length < 2)
    throw new Error(
      `[matmul] operands are matrices or batches of them: a is ${formatShape(a)}, b is ${formatShape(b)}`,
    );
  const [batchA, batchB] = [a.slice(0, -2), b.slice(0, -2)];
  const [k, m] = transposeA ? [a.at(-2)!, a.at(-1)!] : [a.at(-1)!, a.at(-2)!];
  const [n, inner] = transposeB ? [b.at(-2)!, b.at(-1)!] : [b.at(-1)!, b.at(-2)!];
  if (k !== inner) {
    const described = (name: string, shape: Shape, transposed: boolean) =>
      `${name} is ${formatShape(shape)}${transposed ? ' transposed' : ''}`;
    throw new Error(
      `[matmul] inner dimensions differ: ${described('a', a, transposeA)}, ${described('b', b, transposeB)}`,
    );
  }
  const shape = broadcastShape('matmul', batchA, batchB);
  const batch = sizeOf(shape);
  const sharedA = sizeOf(batchA) === 1;
  const sharedB = sizeOf(batchB) === 1;
  if ((!sharedA && sizeOf(batchA) !== batch) || (!sharedB && sizeOf(batchB) !== batch))
    throw new Error(
      `[matmul] batches ${formatShape(batchA)} and ${formatShape(batchB)} must be equal, or one of them a single matrix`,
    );
  return { m, n, k, batch, sharedA, sharedB, transposeA, transposeB, shape: [...shape, m, n] };
}

const matmulOp = operation<readonly [Tensor, Tensor], MatmulOptions>({
  name: 'matmul',
  shape: ([a, b], options) => plan(a.shape, b.shape, options).shape,
  forward(ctx, [a, b], options, shape) {
    ctx.save(a, b);
    const out = empty(a.device, shape);
    const { batch, m, ...rest } = plan(a.shape, b.shape, options);
    // A batch on one shared B is one tall matrix.
    const tall = rest.sharedB && !rest.transposeA && !rest.sharedA;
    multiply(a, b, out, tall ? { ...rest, m: batch * m } : { ...rest, m, batch });
    return out;
  },
  backward(ctx, [grad], options) {
    const [a, b] = ctx.saved as [Tensor, Tensor];
    const { m, n, k, batch, sharedA, sharedB, transposeA, transposeB } = plan(a.shape, b.shape, options);
    // The gradient of a shared operand is the sum over the batch.
    const over = (shared: boolean) => (shared ? { sum: batch } : { batch });
    let gradA: Tensor | null = null;
    if (ctx.needs[0]) {
      gradA = ctx.gradient(0);
      if (transposeA)
        // (k, m) = op(B) · gradᵀ
        multiply(b, grad!, gradA, { m: k, n: m, k: n, transposeA: transposeB, transposeB: true, sharedA: sharedB, ...over(sharedA) }); // prettier-ignore
      // (m, k) = grad · op(B)ᵀ
      else multiply(grad!, b, gradA, { m, n: k, k: n, transposeB: !transposeB, sharedB, ...over(sharedA) });
    }
    let gradB: Tensor | null = null;
    if (ctx.needs[1]) {
      gradB = ctx.gradient(1);
      if (transposeB)
        // (n, k) = gradᵀ · op(A)
        multiply(grad!, a, gradB, { m: n, n: k, k: m, transposeA: true, transposeB: transposeA, sharedB: sharedA, ...over(sharedB) }); // prettier-ignore
      // (k, n) = op(A)ᵀ · grad
      else multiply(a, grad!, gradB, { m: k, n, k: m, transposeA: !transposeA, sharedA, ...over(sharedB) });
    }
    return [gradA, gradB];
  },
});

/**
 * Matrix product a · b of (…, m, k) and (…, k, n), giving (…, m, n). Leading batch dimensions are equal, or one operand is
 * a single matrix that all share. With a transpose option that operand lies the other way round.
 */
export const matmul = (a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor => apply(matmulOp, [a, b], options);

const linearOp = operation<readonly [Tensor, Tensor, Tensor | null], object>({
  name: 'linear',
  shape([x, weight, bias]) {
    if (weight.shape.length !== 2)
      throw new Error(`[linear] the weight is (out, in), not ${formatShape(weight.shape)}`);
    const [outputs, inputs] = weight.shape as [number, number];
    if (x.shape.at(-1) !== inputs)
      throw new Error(
        `[linear] the last dimension of x ${formatShape(x.shape)} must be ${inputs}, the weight is ${formatShape(weight.shape)}`,
      );
    if (bias && (bias.shape.length !== 1 || bias.size !== outputs))
      throw new Error(
        `[linear] the bias must be ${formatShape([outputs])} for a weight ${formatShape(weight.shape)}, not ${formatShape(bias.shape)}`,
      );
    return [...x.shape.slice(0, -1), outputs];
  },
  forward(ctx, [x, weight, bias], _, shape) {
    ctx.save(x, weight);
    const out = empty(x.device, shape);
    const [n, k] = weight.shape as [number, number];
    const m = sizeOf(x.shape.slice(0, -1));
    multiply(x, weight, out, { m, n, k, transposeB: true, bias: bias ? { values: bias, along: 'row' } : undefined });
    return out;
  },
  backward(ctx, [grad]) {
    const [x, weight] = ctx.saved as [Tensor, Tensor];
    const [n, k] = weight.shape as [number, number];
    const m = sizeOf(x.shape.slice(0, -1));
    let gradX: Tensor | null = null;
    if (ctx.needs[0]) {
      gradX = ctx.gradient(0); // (m, k) = grad · weight
      multiply(grad!, weight, gradX, { m, n: k, k: n });
    }
    let gradWeight: Tensor | null = null;
    let gradBias: Tensor | null = null;
    if (ctx.needs[1]) {
      gradWeight = ctx.gradient(1); // (n, k) = gradᵀ · x; the bias takes the sum of gradᵀ's rows along
      if (ctx.needs[2] && k > 0) gradBias = ctx.gradient(2);
      multiply(grad!, x, gradWeight, { m: n, n: k, k: m, transposeA: true, rowSum: gradBias ?? undefined });
    }
    // No product to take it along: the weight is frozen, or has no elements.
    if (ctx.needs[2] && !gradBias) gradBias = sum(grad!, leading(grad!.shape.length - 1));
    return [gradX, gradWeight, gradBias];
  },
});

const leading = (count: number) => Array.from({ length: count }, (_, axis) => axis);

/** x · weightᵀ + bias: x (…, in), weight (out, in), bias (out); gives (…, out). */
export const linear = (x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor =>
  apply(linearOp, [x, weight, bias], {});
