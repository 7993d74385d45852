import { apply, empty, formatShape, operation, wgsl } from '../../engine/index.ts';
import type { Shape, Tensor } from '../../engine/index.ts';

const forwardSource = wgsl(import.meta.url, './upsample.wgsl');
const backwardSource = wgsl(import.meta.url, './upsample_backward.wgsl');

/** Extents of the kernels' planes: in vec2 and vec4 where the width doubles. */
function planes(input: Shape, output: Shape) {
  const [n, c, inH, inW] = input as [number, number, number, number];
  const [, , outH, outW] = output as [number, number, number, number];
  const twice = outW === 2 * inW && inW % 2 === 0;
  return { count: n * c, twice, extents: { inH, inW: twice ? inW / 2 : inW, outH, outW: twice ? outW / 4 : outW } };
}

const upsampleNearestOp = operation<readonly [Tensor], { size: readonly [number, number] }>({
  name: 'upsampleNearest',
  shape([x], { size }) {
    if (x.shape.length !== 4 || x.shape[2] === 0 || x.shape[3] === 0)
      throw new Error(`[upsampleNearest] x must be (N, C, H, W) with pixels, not ${formatShape(x.shape)}`);
    if (!size.every((extent) => Number.isInteger(extent) && extent >= 1))
      throw new Error(`[upsampleNearest] the size must be whole numbers ≥ 1, not ${formatShape(size)}`);
    return [x.shape[0]!, x.shape[1]!, ...size];
  },
  forward(_ctx, [x], _, shape) {
    const { device } = x;
    const out = empty(device, shape);
    const { count, twice, extents } = planes(x.shape, shape);
    const size = count * extents.outH * extents.outW;
    const kernel = device.kernel(forwardSource, { TWICE: twice });
    device.run(kernel, [x, out], { size, ...extents }, Math.ceil(size / 64));
    return out;
  },
  backward(ctx, [grad]) {
    const { device } = ctx;
    const dx = ctx.gradient(0);
    const { count, twice, extents } = planes(dx.shape, grad!.shape);
    const size = count * extents.inH * extents.inW;
    const kernel = device.kernel(backwardSource, { TWICE: twice });
    device.run(kernel, [grad!, dx], { size, ...extents }, Math.ceil(size / 64));
    return [dx];
  },
});

/** x (N, C, H, W) resized to (N, C, …size): pixel (y, x) copies (⌊y · H / outH⌋, ⌊x · W / outW⌋). */
export const upsampleNearest = (x: Tensor, size: readonly [number, number]): Tensor =>
  apply(upsampleNearestOp, [x], { size });
