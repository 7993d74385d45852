import { apply, empty, formatShape, operation, reshape, sameShape, sizeOf, view, wgsl } from '../../engine/index.ts';
import type { Shape, Tensor } from '../../engine/index.ts';
import { scaled } from '../elementwise/elementwise.ts';

const source = wgsl(import.meta.url, './reduce.wgsl');
const CHUNK = 128;

/** Sum over axis groups, innermost group first; `keep` says for each axis whether it survives. Returns a flat result. */
function reduce(x: Tensor, keep: readonly boolean[], scale: number): Tensor {
  let shape = [...x.shape];
  let current = x;
  const kept = [...keep];
  for (;;) {
    const last = kept.lastIndexOf(false);
    if (last < 0) break;
    let first = last;
    while (first > 0 && !kept[first - 1]) first--;
    const outer = sizeOf(shape.slice(0, first));
    const n = sizeOf(shape.slice(first, last + 1));
    const inner = sizeOf(shape.slice(last + 1));
    const final = kept.indexOf(false) === first;
    current = sumMiddle(current, outer, n, inner, final ? scale : 1);
    shape = [...shape.slice(0, first), ...shape.slice(last + 1)];
    kept.splice(first, last + 1 - first);
  }
  return current;
}

/** (outer, n, inner) → (outer, inner). */
function sumMiddle(x: Tensor, outer: number, n: number, inner: number, scale: number): Tensor {
  const device = x.device;
  let current = x;
  do {
    const chunks = Math.max(1, Math.ceil(n / CHUNK));
    const outputs = outer * chunks * inner;
    const out = empty(device, [outer, chunks, inner]);
    const vec4 = inner === 1 && n % 4 === 0;
    const params = { outputs, n, inner, chunks, chunk: CHUNK, scale: chunks === 1 ? scale : 1 };
    device.run(device.kernel(source, { VEC4: vec4 }), [current, out], params, Math.ceil(outputs / 64));
    current = out;
    n = chunks;
  } while (n > 1);
  return current;
}

interface Attributes {
  /** For each axis whether it survives. */
  keep: readonly boolean[];
  keepDims: boolean;
  scale: number;
}

const sumOp = operation<readonly [Tensor], Attributes>({
  name: 'sum',
  shape: ([x], { keep, keepDims }) =>
    keepDims ? x.shape.map((extent, i) => (keep[i] ? extent : 1)) : x.shape.filter((_, i) => keep[i]),
  forward(_ctx, [x], { keep, scale }, shape) {
    if (keep.every(Boolean)) return scaled(x, scale);
    return view(reduce(x, keep, scale), 0, shape);
  },
  backward(ctx, [grad], { keep, scale }) {
    const shape = ctx.inputShape(0);
    const spread = view(
      grad!,
      0,
      shape.map((extent, i) => (keep[i] ? extent : 1)),
    );
    return [scaled(spread, scale, ctx.gradient(0))];
  },
});

export interface ReduceOptions {
  /** Leaves reduced axes as 1. */
  keepDims?: boolean;
}

function reduction(
  name: string,
  x: Tensor,
  axes: readonly number[] | undefined,
  keepDims: boolean,
  mean: boolean,
): Tensor {
  const rank = x.shape.length;
  const keep = Array<boolean>(rank).fill(axes !== undefined);
  for (const axis of axes ?? []) {
    if (!Number.isInteger(axis) || axis < -rank || axis >= rank)
      throw new Error(`[${name}] axis ${axis} does not exist in ${formatShape(x.shape)}`);
    keep[axis < 0 ? axis + rank : axis] = false;
  }
  const count = x.shape.reduce((product, extent, i) => (keep[i] ? product : product * extent), 1);
  if (mean && count === 0) throw new Error(`[${name}] the mean over no elements is undefined: ${formatShape(x.shape)}`);
  return apply(sumOp, [x], { keep, keepDims, scale: mean ? 1 / count : 1 });
}

/** Sum over `axes` (all by default; negative ones count from the end). */
export const sum = (x: Tensor, axes?: readonly number[], { keepDims = false }: ReduceOptions = {}): Tensor =>
  reduction('sum', x, axes, keepDims, false);

/** Mean over `axes` (all by default). */
export const mean = (x: Tensor, axes?: readonly number[], { keepDims = false }: ReduceOptions = {}): Tensor =>
  reduction('mean', x, axes, keepDims, true);

/** Sums `x` down to `shape`, undoing a broadcast: the gradient of every broadcasting operation. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const lead = x.shape.length - shape.length;
  const keep = x.shape.map((extent, i) => i >= lead && shape[i - lead] === extent);
  return reshape(apply(sumOp, [x], { keep, keepDims: false, scale: 1 }), shape);
}
