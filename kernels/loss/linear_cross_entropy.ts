import {
  ALIGNMENT,
  apply,
  empty,
  formatShape,
  isStorageFormat,
  operation,
  sameShape,
  view,
  wgsl,
  zeros,
} from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { evaluate } from '../elementwise/chain.ts';
import { div } from '../elementwise/elementwise.ts';
import { neg } from '../elementwise/functions.ts';
import { refuseGradient } from '../matmul/formats.ts';
import { multiply } from '../matmul/product.ts';
import { walkRows } from '../reduce/rows.ts';
import { NAN_BITS, rowMean } from './row_mean.ts';

const source = wgsl(import.meta.url, './linear_cross_entropy.wgsl');

/** Bytes of logits that are held at once: 128 rows of a vocabulary of 131,072. */
const CHUNK_BYTES = 64 * 2 ** 20;

interface Attributes {
  readonly ignored: number;
  readonly softcap: number;
  readonly chunkBytes: number;
}

/** What a walk over the chunks leaves behind. */
interface Walked {
  /** (R), f32 */
  readonly losses: Tensor;
  /** (R, D), like x: the gradient of the losses' sum; null where it isn't wanted. */
  readonly dx: Tensor | null;
  /** (V, D), f32, likewise. */
  readonly dweight: Tensor | null;
}

function checkShapes(name: string, x: Tensor, weight: Tensor, targets: Tensor, { softcap, chunkBytes }: Attributes) {
  if (weight.dtype !== x.dtype && !isStorageFormat(weight.dtype))
    throw new Error(`[${name}] the weight is ${weight.dtype}; ${x.dtype}, as x, or a storage format is needed`);
  if (x.shape.length !== 2) throw new Error(`[${name}] x must be (R, D), not ${formatShape(x.shape)}`);
  if (weight.shape.length !== 2 || weight.shape[1] !== x.shape[1])
    throw new Error(
      `[${name}] the weight must be (V, ${x.shape[1]!}) for x ${formatShape(x.shape)}, not ${formatShape(weight.shape)}`,
    );
  if (!sameShape(targets.shape, [x.shape[0]!]))
    throw new Error(
      `[${name}] targets must be ${formatShape([x.shape[0]!])} for x ${formatShape(x.shape)}, not ${formatShape(targets.shape)}`,
    );
  if (!(softcap >= 0)) throw new Error(`[${name}] softcap must be above 0, or 0 for none, not ${softcap}`);
  if (!(chunkBytes > 0)) throw new Error(`[${name}] chunkBytes must be above 0, not ${chunkBytes}`);
}

const rowBytes = ({ shape, dtype }: Tensor): number => shape[1]! * (dtype === 'f16' ? 2 : 4);

/** Rows of a chunk: what the budget holds of f32 logits, at least as many as let the next chunk begin at a window. */
function chunkRows(x: Tensor, columns: number, chunkBytes: number): number {
  const { bindingLimit } = x.device;
  const fit = Math.floor(Math.min(chunkBytes, bindingLimit) / (4 * columns));
  const row = rowBytes(x);
  let step = 1;
  while ((step * row) % ALIGNMENT !== 0) step *= 2;
  return Math.max(step, Math.floor(fit / step) * step);
}

/**
 * The losses of all rows and, where wanted, the gradients of their sum, chunk after chunk: logits, statistics, derivative
 * by the logits in the logits' place, and from it the rows of dx and a share of dweight, added in the chunks' order.
 */
function walkChunks(
  x: Tensor,
  weight: Tensor,
  targets: Tensor,
  { ignored, softcap, chunkBytes }: Attributes,
  wanted: { dx: boolean; dweight: boolean },
): Walked {
  const { device } = x;
  const [rows, inner] = x.shape as [number, number];
  const columns = weight.shape[0]!;
  const losses = empty(device, [rows]);
  const dx = wanted.dx ? empty(device, x.shape, x.dtype) : null;
  // No row, or none with elements: nothing is added.
  const dweight = wanted.dweight ? (x.size === 0 ? zeros : empty)(device, weight.shape) : null;
  const most = Math.min(rows, chunkRows(x, columns, chunkBytes));
  const memory = empty(device, [most, columns]);
  for (let first = 0; first < rows; first += most) {
    const m = Math.min(most, rows - first);
    const offset = first * rowBytes(x);
    const part = view(x, offset, [m, inner]);
    const logits = view(memory, 0, [m, columns]);
    // The kernel, and with it the order of additions, doesn't depend on the number of rows.
    multiply(part, weight, logits, { m, n: columns, k: inner, rows: Infinity, transposeB: true });
    const walk = walkRows(logits, columns);
    device.run(
      walk.kernel(source, { GRADIENT: dx !== null || dweight !== null, SOFTCAP: softcap > 0 }),
      [logits, targets, losses],
      { first, rows: m, columns: columns / walk.width, ignored, nan: NAN_BITS, cap: softcap },
      Math.ceil(m / walk.rows),
    );
    if (dx) multiply(logits, weight, view(dx, offset, [m, inner]), { m, n: inner, k: columns, rows: Infinity });
    if (dweight) multiply(logits, part, dweight, { m: columns, n: inner, k: m, transposeA: true, added: first > 0 });
  }
  return { losses, dx, dweight };
}

const linearCrossEntropyOp = operation<readonly [Tensor, Tensor, Tensor], Attributes>({
  name: 'linearCrossEntropy',
  dtypes: ['float', 'any', 'i32'],
  shape([x, weight, targets], attributes) {
    checkShapes('linearCrossEntropy', x, weight, targets, attributes);
    return [];
  },
  forward(ctx, [x, weight, targets], attributes) {
    if (ctx.needs[1]) refuseGradient('linearCrossEntropy', weight);
    const wanted = { dx: ctx.needs[0]!, dweight: ctx.needs[1]! };
    const { losses, dx, dweight } = walkChunks(x, weight, targets, attributes, wanted);
    const { mean, count } = rowMean(losses, targets, attributes.ignored);
    ctx.save(count, ...[dx, dweight].filter((gradient) => gradient !== null));
    return mean;
  },
  backward(ctx, [grad]) {
    const [count, ...gradients] = ctx.saved as [Tensor, ...Tensor[]];
    const scale = div(grad!, count);
    return [0, 1, 2].map((i) => {
      if (!ctx.needs[i]) return null;
      const expression = { name: 'scaledBy', f: 'x * y', dtype: ctx.inputDType(i) };
      return evaluate(expression, [gradients.shift()!, scale], ctx.target(i));
    });
  },
});

const linearLogProbabilitiesOp = operation<readonly [Tensor, Tensor, Tensor], Attributes>({
  name: 'linearLogProbabilities',
  dtypes: ['float', 'any', 'i32'],
  shape([x, weight, targets], attributes) {
    checkShapes('linearLogProbabilities', x, weight, targets, attributes);
    return [x.shape[0]!];
  },
  forward(ctx, [x, weight, targets], attributes) {
    if (ctx.needs.includes(true))
      throw new Error(
        '[linearLogProbabilities] has no gradient; call it within noGrad, or train with linearCrossEntropy',
      );
    return neg(walkChunks(x, weight, targets, attributes, { dx: false, dweight: false }).losses);
  },
  backward: () => [null, null, null],
});

export interface LinearCrossEntropyOptions {
  /** Rows with this target don't count; −100 by default. */
  ignore?: number;
  /** Logits z become softcap · tanh(z / softcap) (Gemma 2); 0, the default, leaves them as they are. */
  softcap?: number;
  /**
   * Bytes of logits, f32, that are held at once: 64 MiB by default. Rows are taken in chunks of so many bytes, or of a few
   * rows where one alone is larger; the chunks are the same for any number of rows.
   */
  chunkBytes?: number;
}

const attributesOf = ({ ignore = -100, softcap = 0, chunkBytes = CHUNK_BYTES }: LinearCrossEntropyOptions) => ({
  ignored: ignore,
  softcap,
  chunkBytes,
});

/**
 * The mean of −log softmax(x · weightᵀ)[target] over the rows, without those whose target is `ignore` (0 where all are): a
 * language model's head and its loss in one, whose logits are never whole in memory. x (R, D), weight (V, D), targets i32
 * (R); f32 or f16 (logits, their derivative and sums are f32), and the weight may be in a storage format where it has no
 * gradient. A target outside 0 … V − 1 makes the loss NaN. A scalar, f32, with the bits of `crossEntropy(linear(x, weight))`
 * in f32.
 *
 * Gradients are made in the forward pass, while a chunk's logits are there, and kept: dx (R, D) and dweight (V, D) in f32;
 * the backward pass scales them by the upstream gradient (Liger Kernel: Hsu et al., 2024). Making the logits again in the
 * backward pass would save those two and cost a fourth product.
 */
export const linearCrossEntropy = (
  x: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: LinearCrossEntropyOptions = {},
): Tensor => apply(linearCrossEntropyOp, [x, weight, targets], attributesOf(options));

/**
 * log softmax(x · weightᵀ)[target] of each row, (R), f32: for perplexity and evaluation, with no gradient. Inputs and options
 * as of `linearCrossEntropy`; an ignored row gives 0, a target outside 0 … V − 1 NaN.
 */
export const linearLogProbabilities = (
  x: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: LinearCrossEntropyOptions = {},
): Tensor => apply(linearLogProbabilitiesOp, [x, weight, targets], attributesOf(options));
