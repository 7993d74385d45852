import { apply, empty, formatShape, operation, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { ERF } from '../elementwise/functions.ts';

const source = wgsl(import.meta.url, './geglu.wgsl');

/** Dispatches over the halves of x (…, 2D); `buffers` are the bindings. */
function run(x: Tensor, buffers: readonly Tensor[], backward: boolean): void {
  const { device } = x;
  const columns = x.shape.at(-1)! / 2;
  const vec4 = columns % 4 === 0;
  const unit = vec4 ? 4 : 1;
  const size = x.size / 2 / unit;
  const kernel = device.kernel(source, { VEC4: vec4, BACKWARD: backward, ERF });
  device.run(kernel, buffers, { size, width: columns / unit }, Math.ceil(size / 64));
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
    const out = empty(x.device, shape);
    run(x, [x, out], false);
    ctx.save(x);
    return out;
  },
  backward(ctx, [grad]) {
    const x = ctx.saved[0]!;
    const dx = ctx.gradient(0);
    run(x, [x, grad!, dx], true);
    return [dx];
  },
});

/** u · gelu(v), where u and v are the halves of the last dimension of x (…, 2D) (Shazeer, 2020, "GLU variants"). */
export const geglu = (x: Tensor): Tensor => apply(gegluOp, [x], {});
