import { apply, empty, formatShape, isStorageFormat, operation, sizeOf } from '../../engine/index.ts';
import type { Shape, Tensor } from '../../engine/index.ts';
import { broadcastShape } from '../elementwise/chain.ts';
import { transpose } from '../layout/layout.ts';
import { sum } from '../reduce/reduce.ts';
import { refuseGradient } from './formats.ts';
import { multiply } from './product.ts';

export interface MatmulOptions {
  /** a lies as (…, k, m). */
  transposeA?: boolean;
  /** b lies as (…, n, k). */
  transposeB?: boolean;
}

/** The dtypes of an operation whose second input may be in a storage format, or f16 beside f32; this checks the latter. */
const WEIGHT_SECOND = ['float', 'any'] as const;

function checkWeight(operation: string, x: Tensor, weight: Tensor): void {
  const widened = weight.dtype === 'f16' && x.dtype === 'f32';
  if (weight.dtype !== x.dtype && !widened && !isStorageFormat(weight.dtype))
    throw new Error(`[${operation}] input 1 is ${weight.dtype}; ${x.dtype}, as input 0, or a storage format is needed`);
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
  dtypes: WEIGHT_SECOND,
  shape([a, b], options) {
    checkWeight('matmul', a, b);
    return plan(a.shape, b.shape, options).shape;
  },
  forward(ctx, [a, b], options, shape) {
    if (ctx.needs[1]) refuseGradient('matmul', b, a);
    ctx.save(a, b);
    const out = empty(a.device, shape, a.dtype);
    const { batch, m, n, k, sharedA, sharedB, transposeA, transposeB } = plan(a.shape, b.shape, options);
    const all = { n, k, sharedA, sharedB, transposeA, transposeB, rows: m };
    // A batch on one shared B is one tall matrix.
    const tall = sharedB && !transposeA && !sharedA;
    multiply(a, b, out, tall ? { ...all, m: batch * m } : { ...all, m, batch });
    return out;
  },
  backward(ctx, [grad], options) {
    const [a, b] = ctx.saved as [Tensor, Tensor];
    const { m, n, k, batch, sharedA, sharedB, transposeA, transposeB } = plan(a.shape, b.shape, options);
    // The gradient of a shared operand is the sum over the batch.
    const over = (shared: boolean) => (shared ? { sum: batch } : { batch });
    let gradA: Tensor | null = null;
    if (ctx.needs[0]) {
      const byRows = { m, n: k, k: n, transposeB: !transposeB, sharedB, ...over(sharedA) };
      if (transposeA && isStorageFormat(b.dtype)) {
        // Kernels read formats as the second operand alone: (m, k) = grad · op(B)ᵀ, which is then turned.
        const rank = a.shape.length;
        const turned = empty(a.device, [...a.shape.slice(0, -2), m, k], a.dtype);
        multiply(grad!, b, turned, byRows);
        gradA = transpose(turned, [...a.shape.slice(0, -2).keys(), rank - 1, rank - 2]);
      } else if (transposeA) {
        gradA = ctx.gradient(0); // (k, m) = op(B) · gradᵀ
        multiply(b, grad!, gradA, { m: k, n: m, k: n, transposeA: transposeB, transposeB: true, sharedA: sharedB, ...over(sharedA) }); // prettier-ignore
      } else {
        gradA = ctx.gradient(0); // (m, k) = grad · op(B)ᵀ
        multiply(grad!, b, gradA, byRows);
      }
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
 * a single matrix that all share. With a transpose option that operand lies the other way round. f32 or f16, added in f32;
 * b may be in a storage format (bf16, q8, q4), or in f16 beside f32, and has no gradient then.
 *
 * The order of additions follows from m, n and k alone: the same matrices give the same bits whatever the batch.
 */
export const matmul = (a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor => apply(matmulOp, [a, b], options);

const linearOp = operation<readonly [Tensor, Tensor, Tensor | null], object>({
  name: 'linear',
  dtypes: WEIGHT_SECOND,
  shape([x, weight, bias]) {
    checkWeight('linear', x, weight);
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
    if (ctx.needs[1]) refuseGradient('linear', weight, x);
    ctx.save(x, weight);
    const out = empty(x.device, shape, x.dtype);
    const [n, k] = weight.shape as [number, number];
    const m = sizeOf(x.shape.slice(0, -1));
    const rows = rowsOfSample(x.shape);
    multiply(x, weight, out, { m, n, k, rows, transposeB: true, bias: bias ? { values: bias, along: 'row' } : undefined }); // prettier-ignore
    return out;
  },
  backward(ctx, [grad]) {
    const [x, weight] = ctx.saved as [Tensor, Tensor];
    const [n, k] = weight.shape as [number, number];
    const m = sizeOf(x.shape.slice(0, -1));
    let gradX: Tensor | null = null;
    if (ctx.needs[0]) {
      gradX = ctx.gradient(0); // (m, k) = grad · weight
      multiply(grad!, weight, gradX, { m, n: k, k: n, rows: rowsOfSample(x.shape) });
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

/** Rows of one sample: of (…, T, in) they are T. Those of (N, in) may be samples themselves: any number, then. */
const rowsOfSample = (shape: Shape): number => (shape.length === 1 ? 1 : shape.length === 2 ? Infinity : shape.at(-2)!);

/**
 * x · weightᵀ + bias: x (…, in), weight (out, in), bias (out); gives (…, out). f32 or f16, added in f32; the weight may be in
 * a storage format (bf16, q8, q4), or in f16 beside f32, and has no gradient then.
 *
 * The order of additions follows from T of (…, T, in), never from what stands before it: the same sample gives the same
 * bits whatever the batch. Up to four rows (decoding) take a kernel that reads the weight once and splits `in` among the
 * lanes. (N, in) is taken for N samples and never does: write (N, 1, in) for that.
 */
export const linear = (x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor =>
  apply(linearOp, [x, weight, bias], {});
