/** Operations that take elements from other places along an axis: pad, flip, roll, tile; and stack, split, repeat. */
import { apply, empty, formatShape, operation, reshape, typed, wgsl } from '../../engine/index.ts';
import type { Shape, Tensor } from '../../engine/index.ts';
import { around, resolveAxis, withExtent } from './axis.ts';
import { concat, slice } from './layout.ts';
import { wordsOf, wordWith } from './words.ts';

const forwardSource = wgsl(import.meta.url, './remap.wgsl');
const backwardSource = wgsl(import.meta.url, './remap_backward.wgsl');

/** How a place j of the result names one of x; see remap.wgsl. */
type Map = 'CONSTANT' | 'REPLICATE' | 'REFLECT' | 'WRAP' | 'FLIP';

interface Attributes {
  readonly axis: number;
  /** Extent of the result along the axis. */
  readonly length: number;
  readonly map: Map;
  readonly at: number;
  /** Of `CONSTANT`: what stands outside of x. */
  readonly fill: number;
}

/** The operation of the given name that follows such a map. */
const remapping = (name: string) =>
  operation<readonly [Tensor], Attributes>({
    name,
    dtypes: 'alike',
    shape: ([x], { axis, length }) => withExtent(x.shape, axis, length),
    forward(_ctx, [x], { axis, length, map, at, fill }, shape) {
      const out = empty(x.device, shape, x.dtype);
      const { extent, inner } = around(x.shape, axis);
      const { defines, elements } = wordsOf(x.dtype, [inner]);
      const size = out.size / elements;
      const params = { size, n: extent, length, inner: inner / elements, at };
      x.device.run(
        x.device.kernel(forwardSource, { ...defines, [map]: true }),
        [x, out],
        map === 'CONSTANT' ? { ...params, fill: wordWith(x.dtype, fill) } : params,
        Math.ceil(size / 64),
      );
      return out;
    },
    backward(ctx, [grad], { axis, length, map, at }) {
      const dx = ctx.gradient(0);
      const { extent, inner } = around(dx.shape, axis);
      const unit = inner % 4 === 0 ? 4 : 1;
      const size = dx.size / unit;
      const kernel = dx.device.kernel(backwardSource, { ...typed(dx), VEC4: unit === 4, [map]: true });
      dx.device.run(kernel, [grad!, dx], { size, n: extent, length, inner: inner / unit, at }, Math.ceil(size / 64));
      return [dx];
    },
  });

const padOp = remapping('pad');
const flipOp = remapping('flip');
const rollOp = remapping('roll');
const tileOp = remapping('tile');

export interface PadOptions {
  /**
   * What stands in the new places: a constant (the default), the values mirrored at the edge, which itself is not
   * repeated, or the edge's value.
   */
  mode?: 'constant' | 'reflect' | 'replicate';
  /** The constant; 0 by default. */
  value?: number;
}

/**
 * Widens axes: `padding` gives [before, after] for each of the last axes, in the axes' order: `[[1, 1], [2, 0]]` pads the
 * last but one by a row on both sides and the last by two columns in front.
 */
export function pad(
  x: Tensor,
  padding: readonly (readonly [before: number, after: number])[],
  { mode = 'constant', value = 0 }: PadOptions = {},
): Tensor {
  const { shape } = x;
  if (padding.length > shape.length)
    throw new Error(`[pad] ${padding.length} axes are to be padded, ${formatShape(shape)} has ${shape.length}`);
  let result = x;
  padding.forEach(([before, after], i) => {
    const axis = shape.length - padding.length + i;
    const n = shape[axis]!;
    if (![before, after].every((count) => Number.isInteger(count) && count >= 0))
      throw new Error(`[pad] axis ${axis} is to be padded by ${before} and ${after}: these are whole numbers ≥ 0; slice cuts`);
    if (mode === 'reflect' && Math.max(before, after) >= Math.max(n, 1))
      throw new Error(`[pad] reflecting, axis ${axis} of ${formatShape(shape)} can be padded by at most ${n - 1}, not ${Math.max(before, after)}`);
    if (mode === 'replicate' && n === 0 && before + after > 0)
      throw new Error(`[pad] axis ${axis} of ${formatShape(shape)} has no edge to replicate`);
    if (before + after === 0) return;
    const map = mode === 'constant' ? 'CONSTANT' : mode === 'reflect' ? 'REFLECT' : 'REPLICATE';
    result = apply(padOp, [result], { axis, length: before + n + after, map, at: before, fill: value });
  }); // prettier-ignore
  return result === x ? reshape(x, shape) : result;
}

/** The elements along `axis` in reverse order. */
export function flip(x: Tensor, axis: number): Tensor {
  const k = resolveAxis('flip', axis, x.shape);
  return apply(flipOp, [x], { axis: k, length: x.shape[k]!, map: 'FLIP', at: 0, fill: 0 });
}

/** The elements along `axis` moved on by `shift` places (back where it is negative); what leaves the end enters in front. */
export function roll(x: Tensor, shift: number, axis: number): Tensor {
  if (!Number.isInteger(shift)) throw new Error(`[roll] shift must be a whole number, not ${shift}`);
  const k = resolveAxis('roll', axis, x.shape);
  const n = x.shape[k]!;
  const at = n === 0 ? 0 : (n - (shift % n)) % n;
  return apply(rollOp, [x], { axis: k, length: n, map: 'WRAP', at, fill: 0 });
}

function checkCount(name: string, count: number): void {
  if (!Number.isInteger(count) || count < 0)
    throw new Error(`[${name}] the number of copies must be a whole number ≥ 0, not ${count}`);
}

/** `count` copies of the whole of x, one after the other along `axis`: a b → a b a b. */
export function tile(x: Tensor, count: number, axis: number): Tensor {
  checkCount('tile', count);
  const k = resolveAxis('tile', axis, x.shape);
  return apply(tileOp, [x], { axis: k, length: count * x.shape[k]!, map: 'WRAP', at: 0, fill: 0 });
}

/** `count` copies of each element along `axis`, side by side: a b → a a b b. */
export function repeat(x: Tensor, count: number, axis: number): Tensor {
  checkCount('repeat', count);
  const k = resolveAxis('repeat', axis, x.shape);
  const apart: Shape = [...x.shape.slice(0, k + 1), 1, ...x.shape.slice(k + 1)];
  return reshape(tile(reshape(x, apart), count, k + 1), withExtent(x.shape, k, count * x.shape[k]!));
}

/** Joins tensors of one shape along a new axis (negative: from the end of the result). */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  const first = tensors[0];
  if (!first) throw new Error('[stack] needs at least one tensor');
  const { shape } = first;
  const k = resolveAxis('stack', axis, [...shape, tensors.length]);
  tensors.forEach((tensor, i) => {
    if (tensor.shape.length !== shape.length || tensor.shape.some((extent, axis) => extent !== shape[axis]))
      throw new Error(`[stack] tensor ${i} is ${formatShape(tensor.shape)}, the first ${formatShape(shape)}: all must be alike`);
  }); // prettier-ignore
  const apart = [...shape.slice(0, k), 1, ...shape.slice(k)];
  return concat(
    tensors.map((tensor) => reshape(tensor, apart)),
    k,
  );
}

/** Cuts x along `axis` into parts of the given extents, which add up to the axis's. */
export function split(x: Tensor, extents: readonly number[], axis: number): Tensor[] {
  const k = resolveAxis('split', axis, x.shape);
  if (!extents.every((extent) => Number.isInteger(extent) && extent >= 0) || sum(extents) !== x.shape[k])
    throw new Error(`[split] the parts ${formatShape(extents)} do not add up to axis ${k} of ${formatShape(x.shape)}`);
  return extents.map((extent, i) => {
    const start = sum(extents.slice(0, i));
    return slice(x, k, start, start + extent);
  });
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
