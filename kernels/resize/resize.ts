import { apply, empty, formatShape, operation, sizeOf, wgsl } from '../../engine/index.ts';
import type { KernelSource, Shape, Tensor } from '../../engine/index.ts';

const forwardSource = wgsl(import.meta.url, './upsample.wgsl');
const backwardSource = wgsl(import.meta.url, './upsample_backward.wgsl');

/** Runs the kernel that `source` has for these extents; `each` is the side that has one invocation a pixel. */
function run(source: KernelSource, buffers: readonly Tensor[], input: Shape, output: Shape, each: Shape): void {
  const { device } = buffers[0]!;
  const [inH, inW] = input.slice(2) as [number, number];
  const [outH, outW] = output.slice(2) as [number, number];
  const twice = outH === 2 * inH && outW === 2 * inW && inW % 2 === 0;
  const size = twice ? sizeOf(input) / 2 : sizeOf(each);
  const params: Record<string, number> = twice ? { size, width: inW / 2 } : { size, inH, inW, outH, outW };
  device.run(device.kernel(source, { TWICE: twice }), buffers, params, Math.ceil(size / 64));
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
    const out = empty(x.device, shape);
    run(forwardSource, [x, out], x.shape, shape, shape);
    return out;
  },
  backward(ctx, [grad]) {
    const dx = ctx.gradient(0);
    run(backwardSource, [grad!, dx], dx.shape, grad!.shape, dx.shape);
    return [dx];
  },
});

/** x (N, C, H, W) resized to (N, C, …size): pixel (y, x) copies (⌊y · H / outH⌋, ⌊x · W / outW⌋). */
export const upsampleNearest = (x: Tensor, size: readonly [number, number]): Tensor =>
  apply(upsampleNearestOp, [x], { size });
