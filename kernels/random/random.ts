import { apply, empty, operation, typed, wgsl } from '../../engine/index.ts';
import type { Device, Key, Shape, Tensor } from '../../engine/index.ts';

wgsl(import.meta.url, './turns.wgsl');
wgsl(import.meta.url, './philox.wgsl');
const source = wgsl(import.meta.url, './random.wgsl');

/** Which numbers of a key's stream: those of another sample or step are independent of these. */
export interface Counter {
  sample?: number; // u32
  step?: number; // u32
}

/** Fills `out`; the name of the operation chooses what with. */
function draw(
  name: 'randomWords' | 'randomUniform' | 'randomNormal' | 'dropout',
  out: Tensor,
  key: Key,
  { sample = 0, step = 0 }: Counter,
  params: Record<string, number> = {},
  x?: Tensor,
): Tensor {
  for (const count of [sample, step])
    if (!Number.isInteger(count) || count < 0 || count > 0xffffffff)
      throw new Error(`[${name}] sample and step are whole numbers from 0 to 2^32 - 1, not ${count}`);
  out.device.run(
    out.device.kernel(source, {
      ...typed(out),
      WORDS: name === 'randomWords',
      UNIFORM: name === 'randomUniform',
      NORMAL: name === 'randomNormal',
      DROPOUT: name === 'dropout',
    }),
    x ? [out, x] : [out],
    { size: out.size, sample, step, low: key.low, high: key.high, ...params },
    Math.ceil(out.size / 256),
  );
  return out;
}

/** Philox's words themselves (u32): the same on the host and on every adapter. */
export const randomWords = (device: Device, shape: Shape, key: Key, counter: Counter = {}): Tensor =>
  draw('randomWords', empty(device, shape, 'u32'), key, counter);

export interface RandomOptions extends Counter {
  /** f32 by default; f16 has the same numbers, rounded. */
  dtype?: 'f32' | 'f16';
}

/** Uniform in [low, high), in steps of (high − low) / 2²⁴; rounding may give `high` itself where `low` is not 0, or in f16. */
export const randomUniform = (
  device: Device,
  shape: Shape,
  key: Key,
  { low = 0, high = 1, dtype = 'f32', ...counter }: RandomOptions & { low?: number; high?: number } = {},
): Tensor => draw('randomUniform', empty(device, shape, dtype), key, counter, { start: low, span: high - low });

/** Standard normal values. The words behind them are the same everywhere, the values within rounding. */
export const randomNormal = (
  device: Device,
  shape: Shape,
  key: Key,
  { dtype = 'f32', ...counter }: RandomOptions = {},
): Tensor => draw('randomNormal', empty(device, shape, dtype), key, counter);

interface Dropout {
  p: number;
  key: Key;
  counter: Counter;
}

// Forward and gradient are the same map, x ↦ mask · x / (1 − p): the mask is drawn again from its counter, not stored.
const mask = (x: Tensor, out: Tensor, { p, key, counter }: Dropout): Tensor =>
  draw(
    'dropout',
    out,
    key,
    counter,
    { threshold: Math.min(Math.round(p * 2 ** 32), 0xffffffff), scale: 1 / (1 - p) },
    x,
  );

const dropoutOp = operation<readonly [Tensor], Dropout>({
  name: 'dropout',
  shape([x], { p }) {
    if (!(p >= 0 && p < 1)) throw new Error(`[dropout] p is a probability from 0 to below 1, not ${p}`);
    return x.shape;
  },
  forward: (ctx, [x], attributes, shape) => mask(x, empty(ctx.device, shape, x.dtype), attributes),
  backward: (ctx, [grad], attributes) => [mask(grad!, ctx.gradient(0), attributes)],
});

/** Sets each element to 0 with probability p and scales the others by 1 / (1 − p) (Srivastava et al., 2014). */
export const dropout = (x: Tensor, p: number, key: Key, counter: Counter = {}): Tensor =>
  apply(dropoutOp, [x], { p, key, counter });
