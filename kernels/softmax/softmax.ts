import { apply, empty, operation, sizeOf, wgsl } from '../../engine/index.ts';
import type { KernelSource, Tensor } from '../../engine/index.ts';
import { walkRows } from '../reduce/rows.ts';

const forwardSource = wgsl(import.meta.url, './softmax.wgsl');
const backwardSource = wgsl(import.meta.url, './softmax_backward.wgsl');

/** Runs a kernel over the rows that the last dimension makes. */
function runRows(source: KernelSource, tensors: readonly Tensor[], log: boolean): void {
  const { device, shape } = tensors[0]!;
  const columns = shape.at(-1)!;
  const rows = sizeOf(shape.slice(0, -1));
  const walk = walkRows(tensors[0]!, columns);
  device.run(
    walk.kernel(source, { LOG: log }),
    tensors,
    { rows, columns: columns / walk.width },
    Math.ceil(rows / walk.rows),
  );
}

const rowsOperation = (name: string, log: boolean) =>
  operation<readonly [Tensor], object>({
    name,
    shape([x]) {
      if (x.shape.length < 1) throw new Error(`[${name}] x must have a last dimension, not ()`);
      return x.shape;
    },
    forward(ctx, [x], _, shape) {
      const out = empty(x.device, shape, x.dtype);
      runRows(forwardSource, [x, out], log);
      ctx.save(out);
      return out;
    },
    backward(ctx, [grad]) {
      const dx = ctx.gradient(0);
      runRows(backwardSource, [ctx.saved[0]!, grad!, dx], log);
      return [dx];
    },
  });

const softmaxOp = rowsOperation('softmax', false);
const logSoftmaxOp = rowsOperation('logSoftmax', true);

/** exp(x) / Σ exp(x) over the last dimension of x (…, D); safe for any finite values. */
export const softmax = (x: Tensor): Tensor => apply(softmaxOp, [x], {});

/** log softmax(x) over the last dimension of x (…, D), without the underflow of small probabilities. */
export const logSoftmax = (x: Tensor): Tensor => apply(logSoftmaxOp, [x], {});
