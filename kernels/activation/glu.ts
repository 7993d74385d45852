/** Gated linear units (Shazeer, 2020, "GLU variants improve transformer"). */
import { apply, empty, formatShape, operation, sameShape, typed, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { ERF } from '../elementwise/functions.ts';

const source = wgsl(import.meta.url, './glu.wgsl');

/** Dispatches over the halves of x (…, 2D); `buffers` are the bindings. */
function gelu(x: Tensor, buffers: readonly Tensor[], backward: boolean): void {
  const { device } = x;
  const columns = x.shape.at(-1)! / 2;
  const unit = columns % 4 === 0 ? 4 : 1;
  const size = x.size / 2 / unit;
  const defines = { ...typed(x), VEC4: unit === 4, HALVES: true, GELU: true, BACKWARD: backward, ERF };
  device.run(device.kernel(source, defines), buffers, { size, width: columns / unit }, Math.ceil(size / 64));
}

const gegluOp = operation<readonly [Tensor], object>({
  name: 'geglu',
  shape([{ shape }]) {
    const last = shape.at(-1);
    if (last === undefined || last % 2 !== 0)
      throw new Error(`[geglu] the last dimension must be even, to be halved: ${formatShape(shape)}`);
    return [...shape.slice(0, -1), last / 2];
  },
  forward(ctx, [x], _, shape) {
    const out = empty(x.device, shape, x.dtype);
    gelu(x, [x, out], false);
    ctx.save(x);
    return out;
  },
  backward(ctx, [grad]) {
    const x = ctx.saved[0]!;
    const dx = ctx.gradient(0);
    gelu(x, [x, grad!, dx], true);
    return [dx];
  },
});

/** u · gelu(v), where u and v are the halves of the last dimension of x (…, 2D). */
export const geglu = (x: Tensor): Tensor => apply(gegluOp, [x], {});

/** Dispatches over two tensors, by four: what is past the end of a tensor is nobody's. */
function silu(buffers: readonly Tensor[], backward: boolean): void {
  const { device } = buffers[0]!;
  const size = Math.ceil(buffers[0]!.size / 4);
  const kernel = device.kernel(source, { ...typed(buffers[0]!), VEC4: true, BACKWARD: backward });
  device.run(kernel, buffers, { size }, Math.ceil(size / 64));
}

const swigluOp = operation<readonly [Tensor, Tensor], object>({
  name: 'swiglu',
  shape([gate, up]) {
    if (!sameShape(gate.shape, up.shape))
      throw new Error(`[swiglu] gate is ${formatShape(gate.shape)} and up is ${formatShape(up.shape)}; they must be alike`);
    return gate.shape;
  },
  forward(ctx, [gate, up], _, shape) {
    const out = empty(gate.device, shape, gate.dtype);
    silu([up, gate, out], false);
    ctx.save(gate, up);
    return out;
  },
  backward(ctx, [grad]) {
    const [gate, up] = ctx.saved as [Tensor, Tensor];
    const [dgate, dup] = [ctx.gradient(0), ctx.gradient(1)];
    silu([up, gate, grad!, dup, dgate], true);
    return [dgate, dup];
  },
}); // prettier-ignore

/** silu(gate) · up, element by element: what Llama's feed-forward layers have between their products. */
export const swiglu = (gate: Tensor, up: Tensor): Tensor => apply(swigluOp, [gate, up], {});
