import { apply, empty, formatShape, operation, sizeOf, typed, wgsl } from '../../engine/index.ts';
import type { KernelSource, Shape, Tensor } from '../../engine/index.ts';

const forwardSource = wgsl(import.meta.url, './upsample.wgsl');
const backwardSource = wgsl(import.meta.url, './upsample_backward.wgsl');
const bilinearSource = wgsl(import.meta.url, './bilinear.wgsl');
const bilinearBackwardSource = wgsl(import.meta.url, './bilinear_backward.wgsl');

/** Runs the kernel that `source` has for these extents; `each` is the side that has one invocation a pixel. */
function run(source: KernelSource, buffers: readonly Tensor[], input: Shape, output: Shape, each: Shape): void {
  const { device } = buffers[0]!;
  const [inH, inW] = input.slice(2) as [number, number];
  const [outH, outW] = output.slice(2) as [number, number];
  const twice = outH === 2 * inH && outW === 2 * inW && inW % 2 === 0;
  const size = twice ? sizeOf(input) / 2 : sizeOf(each);
  const params: Record<string, number> = twice ? { size, width: inW / 2 } : { size, inH, inW, outH, outW };
  device.run(device.kernel(source, { ...typed(buffers[1]!), TWICE: twice }), buffers, params, Math.ceil(size / 64));
}

function resizedShape(name: string, { shape }: Tensor, size: readonly [number, number]): Shape {
  if (shape.length !== 4 || shape[2] === 0 || shape[3] === 0)
    throw new Error(`[${name}] x must be (N, C, H, W) with pixels, not ${formatShape(shape)}`);
  if (!size.every((extent) => Number.isInteger(extent) && extent >= 1))
    throw new Error(`[${name}] the size must be whole numbers ≥ 1, not ${formatShape(size)}`);
  return [shape[0]!, shape[1]!, ...size];
}

const upsampleNearestOp = operation<readonly [Tensor], { size: readonly [number, number] }>({
  name: 'upsampleNearest',
  shape: ([x], { size }) => resizedShape('upsampleNearest', x, size),
  forward(_ctx, [x], _, shape) {
    const out = empty(x.device, shape, x.dtype);
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

interface Bilinear {
  readonly size: readonly [number, number];
  readonly alignCorners: boolean;
}

/** The place of output i along an extent is (scale · i + shift) / unit, in pixels of the input. */
function places(input: number, output: number, alignCorners: boolean): [scale: number, shift: number, unit: number] {
  if (alignCorners) return [input - 1, 0, Math.max(output - 1, 1)];
  return [2 * input, input - output, 2 * output]; // (i + ½) · input / output − ½
}

function bilinear(
  source: KernelSource,
  buffers: readonly Tensor[],
  input: Shape,
  output: Shape,
  aligned: boolean,
): void {
  const [inH, inW] = input.slice(2) as [number, number];
  const [outH, outW] = output.slice(2) as [number, number];
  const [scaleH, shiftH, unitH] = places(inH, outH, aligned);
  const [scaleW, shiftW, unitW] = places(inW, outW, aligned);
  const { device, size } = buffers[1]!; // one invocation for each element written
  const params = { size, inH, inW, outH, outW, scaleH, shiftH, unitH, scaleW, shiftW, unitW };
  device.run(device.kernel(source, typed(buffers[1]!)), buffers, params, Math.ceil(size / 64));
}

const resizeBilinearOp = operation<readonly [Tensor], Bilinear>({
  name: 'resizeBilinear',
  shape([x], { size }) {
    const shape = resizedShape('resizeBilinear', x, size);
    for (const i of [2, 3])
      if (2 * x.shape[i]! * shape[i]! > 0x7fffffff)
        throw new Error(`[resizeBilinear] from ${x.shape[i]} to ${shape[i]} pixels: their product must be below 2^30`);
    return shape;
  },
  forward(_ctx, [x], { alignCorners }, shape) {
    const out = empty(x.device, shape, x.dtype);
    bilinear(bilinearSource, [x, out], x.shape, shape, alignCorners);
    return out;
  },
  backward(ctx, [grad], { alignCorners }) {
    const dx = ctx.gradient(0);
    bilinear(bilinearBackwardSource, [grad!, dx], dx.shape, grad!.shape, alignCorners);
    return [dx];
  },
});

/**
 * x (N, C, H, W) resized to (N, C, …size) by bilinear interpolation, without antialiasing. Pixels are areas: the picture's
 * edges coincide, and what lies beyond the outermost centres is theirs. With `alignCorners` they are points, and the centres
 * of the corner pixels coincide. Both as PyTorch has them.
 */
export const resizeBilinear = (
  x: Tensor,
  size: readonly [number, number],
  { alignCorners = false }: { alignCorners?: boolean } = {},
): Tensor => apply(resizeBilinearOp, [x], { size, alignCorners });
