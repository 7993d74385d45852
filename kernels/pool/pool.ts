import { apply, empty, formatShape, operation, typed, wgsl } from '../../engine/index.ts';
import type { Defines, Shape, Tensor } from '../../engine/index.ts';

const forwardSource = wgsl(import.meta.url, './pool.wgsl');
const backwardSource = wgsl(import.meta.url, './pool_backward.wgsl');

/** One number for both, or [vertical, horizontal]. */
type Pair = number | readonly [number, number];

const both = (pair: Pair): readonly [number, number] => (typeof pair === 'number' ? [pair, pair] : pair);

interface Attributes {
  readonly kernel: readonly [number, number];
  readonly stride: readonly [number, number];
  readonly padding: readonly [number, number];
  readonly countPadding: boolean;
}

function poolShape(name: string, { shape }: Tensor, { kernel, stride, padding }: Attributes): Shape {
  const fail = (message: string): never => {
    throw new Error(`[${name}] ${message}`);
  };
  if (shape.length !== 4 || shape[2] === 0 || shape[3] === 0)
    fail(`x must be (N, C, H, W) with pixels, not ${formatShape(shape)}`);
  for (const [what, pair, least] of [['kernel', kernel, 1], ['stride', stride, 1], ['padding', padding, 0]] as const)
    if (!pair.every((extent) => Number.isInteger(extent) && extent >= least))
      fail(`the ${what} must be whole numbers ≥ ${least}, not ${formatShape(pair)}`); // prettier-ignore
  // So that every window holds a pixel.
  if (padding.some((p, i) => 2 * p > kernel[i]!))
    fail(`the padding ${formatShape(padding)} must be at most half the kernel ${formatShape(kernel)}`);
  const size = [0, 1].map((i) => {
    const room = shape[2 + i]! + 2 * padding[i]! - kernel[i]!;
    if (room < 0)
      fail(`the kernel ${formatShape(kernel)} does not fit into ${formatShape(shape)} with padding ${formatShape(padding)}`);
    return Math.floor(room / stride[i]!) + 1;
  }); // prettier-ignore
  return [shape[0]!, shape[1]!, ...size];
}

function run(
  source: typeof forwardSource,
  defines: Defines,
  buffers: readonly Tensor[],
  [input, output]: readonly [Shape, Shape],
  { kernel, stride, padding }: Attributes,
): void {
  const { device, size } = buffers[1]!; // one invocation for each element written
  device.run(
    device.kernel(source, { ...typed(buffers[1]!), ...defines }),
    buffers,
    {
      size,
      inH: input[2]!, inW: input[3]!,
      outH: output[2]!, outW: output[3]!,
      kernelH: kernel[0], kernelW: kernel[1],
      strideH: stride[0], strideW: stride[1],
      top: padding[0], left: padding[1],
    },
    Math.ceil(size / 64),
  ); // prettier-ignore
}

const averagePool2dOp = operation<readonly [Tensor], Attributes>({
  name: 'averagePool2d',
  shape: ([x], attributes) => poolShape('averagePool2d', x, attributes),
  forward(_ctx, [x], attributes, shape) {
    const out = empty(x.device, shape, x.dtype);
    run(forwardSource, { COUNT_INSIDE: !attributes.countPadding }, [x, out], [x.shape, shape], attributes);
    return out;
  },
  backward(ctx, [grad], attributes) {
    const dx = ctx.gradient(0);
    run(backwardSource, { COUNT_INSIDE: !attributes.countPadding }, [grad!, dx], [dx.shape, grad!.shape], attributes);
    return [dx];
  },
});

const maxPool2dOp = operation<readonly [Tensor], Attributes>({
  name: 'maxPool2d',
  shape: ([x], attributes) => poolShape('maxPool2d', x, attributes),
  forward(ctx, [x], attributes, shape) {
    const out = empty(x.device, shape, x.dtype);
    const buffers = [x, out];
    if (ctx.needs[0]) {
      const origin = empty(x.device, shape, 'u32');
      ctx.save(origin);
      buffers.push(origin);
    }
    run(forwardSource, { MAX: true, ARGMAX: ctx.needs[0]! }, buffers, [x.shape, shape], attributes);
    return out;
  },
  backward(ctx, [grad], attributes) {
    const dx = ctx.gradient(0);
    run(backwardSource, { MAX: true }, [grad!, dx, ctx.saved[0]!], [dx.shape, grad!.shape], attributes);
    return [dx];
  },
});

export interface PoolOptions {
  /** From window to window; the kernel's extents by default, so that windows do not overlap. */
  stride?: Pair;
  /** Places around the plane that windows may reach into, at most half the kernel; 0 by default. */
  padding?: Pair;
}

const attributesOf = (kernel: Pair, { stride = kernel, padding = 0 }: PoolOptions, countPadding = true): Attributes => ({
  kernel: both(kernel),
  stride: both(stride),
  padding: both(padding),
  countPadding,
}); // prettier-ignore

/**
 * The mean of each window of x (N, C, H, W). Padding counts as zeros, or, with `countPadding: false`, not at all. The result
 * has ⌊(H + 2 padding − kernel) / stride⌋ + 1 rows, and columns alike.
 */
export const averagePool2d = (
  x: Tensor,
  kernel: Pair,
  { countPadding = true, ...options }: PoolOptions & { countPadding?: boolean } = {},
): Tensor => apply(averagePool2dOp, [x], attributesOf(kernel, options, countPadding));

/** The largest element of each window of x (N, C, H, W), as `averagePool2d` has them; the gradient goes to the first such. */
export const maxPool2d = (x: Tensor, kernel: Pair, options: PoolOptions = {}): Tensor =>
  apply(maxPool2dOp, [x], attributesOf(kernel, options));
