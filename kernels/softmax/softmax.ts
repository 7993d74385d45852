import { apply, empty, operation, sizeOf, wgsl } from '../../engine/index.ts';
import type { KernelSource, Tensor } from '../../engine/index.ts';
import { rowDefines } from '../reduce/rows.ts';

const forwardSource = wgsl(import.meta.url, './softmax.wgsl');
const backwardSource = wgsl(import.meta.url, './softmax_backward.wgsl');

/** Runs a kernel over the rows that the last dimension makes. */
function runRows(source: KernelSource, tensors: readonly Tensor[]): void {
  const { device, shape } = tensors[0]!;
  const columns = shape.at(-1)!;
  const vec4 = columns % 4 === 0;
  const rows = sizeOf(shape.slice(0, -1));
  const kernel = device.kernel(source, rowDefines(device, columns, vec4));
  device.run(kernel, tensors, { rows, columns: vec4 ? columns / 4 : columns }, rows);
}

const softmaxOp = operation<readonly [Tensor], object>({
  name: 'softmax',
  shape([x]) {
    if (x.shape.length < 1) throw new Error('[softmax] x must have a last dimension, not ()');
    return x.shape;
  },
  forward(ctx, [x], _, shape) {
    const out = empty(x.device, shape);
    runRows(forwardSource, [x, out]);
    ctx.save(out);
    return out;
  },
  backward(ctx, [grad]) {
    const dx = ctx.gradient(0);
    runRows(backwardSource, [ctx.saved[0]!, grad!, dx]);
    return [dx];
  },
});

/** exp(x) / Σ exp(x) over the last dimension of x (…, D); safe for any finite values. */
export const softmax = (x: Tensor): Tensor => apply(softmaxOp, [x], {});
