/** Elements and rows by indices that are data, and the sums that are their gradients. */
import {
  apply,
  clear,
  copy,
  empty,
  formatShape,
  noGrad,
  operation,
  sameShape,
  typed,
  wgsl,
} from '../../engine/index.ts';
import type { Context, DType, Shape, Tensor } from '../../engine/index.ts';
import { around, resolveAxis, withExtent } from '../layout/axis.ts';
import { wordsOf, wordWith } from '../layout/words.ts';
import { sortedPairs } from '../sort/order.ts';

const gatherSource = wgsl(import.meta.url, './gather.wgsl');
const addRunsSource = wgsl(import.meta.url, './add_runs.wgsl');
const oneHotSource = wgsl(import.meta.url, './one_hot.wgsl');

/** Whether one list of indices serves all lines, or every element of the result has its own. */
type Sharing = 'shared' | 'own';

/** out[o, k, i] = x[o, index, i] around an axis, and `missing` for an index that is none of x's. */
function gatherInto(out: Tensor, x: Tensor, axis: number, indices: Tensor, sharing: Sharing, missing: number): void {
  const { extent: count, inner } = around(out.shape, axis);
  const { defines, elements } = wordsOf(x.dtype, [sharing === 'shared' ? inner : 1]);
  const size = out.size / elements;
  const kernel = x.device.kernel(gatherSource, { ...defines, SHARED: sharing === 'shared' });
  const params = { size, n: x.shape[axis]!, count, inner: inner / elements, missing: wordWith(x.dtype, missing) };
  x.device.run(kernel, [x, indices, out], params, Math.ceil(size / 64));
}

/** out[o, index, i] = x[o, k, i]: the way back where no index occurs twice in a line. */
function scatterInto(out: Tensor, x: Tensor, axis: number, indices: Tensor): void {
  const { extent: count, inner } = around(x.shape, axis);
  const { defines } = wordsOf(x.dtype, [1]);
  const kernel = x.device.kernel(gatherSource, { ...defines, SCATTER: true });
  const params = { size: x.size, n: out.shape[axis]!, count, inner };
  x.device.run(kernel, [x, indices, out], params, Math.ceil(x.size / 64));
}

/**
 * out[o, index, i] += Σ source[o, k, i] over all k with that index. `pairs` are the sorted indices; `first` is the index of
 * out's first place along the axis.
 */
export function addRuns(out: Tensor, source: Tensor, axis: number, pairs: Tensor, sharing: Sharing, first = 0): void {
  const { extent: count, inner } = around(source.shape, axis);
  const unit = sharing === 'shared' && inner % 4 === 0 ? 4 : 1;
  const size = source.size / unit;
  const kernel = out.device.kernel(addRunsSource, { ...typed(out), VEC4: unit === 4, SHARED: sharing === 'shared' });
  const params = { size, first, n: out.shape[axis]!, count, inner: inner / unit };
  out.device.run(kernel, [pairs, source, out], params, Math.ceil(size / 64));
}

/** The gradient of input 0, from a gradient that was gathered by the saved indices. */
function gathered(ctx: Context, grad: Tensor, axis: number, sharing: Sharing): Tensor {
  const indices = ctx.saved[0]!;
  const dx = ctx.gradient(0);
  clear(dx);
  addRuns(dx, grad, axis, sortedPairs(indices, sharing === 'shared' ? 0 : axis), sharing);
  return dx;
}

/** What stands for an element that does not exist. */
const nothing = ({ dtype }: Tensor): number => (dtype === 'f32' || dtype === 'f16' ? NaN : 0);

/** Refuses indices whose extents, but for that of the axis, are not those of x. */
function checkIndices(name: string, x: Shape, indices: Shape, axis: number): void {
  if (indices.length !== x.length || indices.some((extent, k) => k !== axis && extent !== x[k]))
    throw new Error(
      `[${name}] the indices are ${formatShape(indices)}, x is ${formatShape(x)}: all extents but that of axis ${axis} must agree`,
    );
}

interface Gather {
  readonly axis: number;
  /** No index occurs twice in a line: the gradient is moved, not added. */
  readonly distinct: boolean;
}

const gatherOp = operation<readonly [Tensor, Tensor], Gather>({
  name: 'gather',
  dtypes: ['alike', 'i32'],
  shape([x, indices], { axis }) {
    checkIndices('gather', x.shape, indices.shape, axis);
    return indices.shape;
  },
  forward(ctx, [x, indices], { axis }, shape) {
    const out = empty(x.device, shape, x.dtype);
    gatherInto(out, x, axis, indices, 'own', nothing(x));
    ctx.save(indices);
    return out;
  },
  backward(ctx, [grad], { axis, distinct }) {
    if (!distinct) return [gathered(ctx, grad!, axis, 'own'), null];
    const dx = ctx.gradient(0);
    clear(dx);
    scatterInto(dx, grad!, axis, ctx.saved[0]!);
    return [dx, null];
  },
});

/**
 * out[…, k, …] = x[…, indices[…, k, …], …] along an axis: one element for each of the indices (i32), whose shape is that of x
 * but along the axis. An index outside of 0 … n − 1 gives NaN (0 for whole numbers) and no gradient. The gradient adds what
 * was taken more than once in the order of the places: it sorts the indices.
 */
export const gather = (x: Tensor, indices: Tensor, axis: number): Tensor =>
  apply(gatherOp, [x, indices], { axis: resolveAxis('gather', axis, x.shape), distinct: false });

/** The same for indices of which none occurs twice in a line, as a sort gives them. */
export const takeDistinct = (x: Tensor, axis: number, indices: Tensor): Tensor =>
  apply(gatherOp, [x, indices], { axis, distinct: true });

const scatterAddOp = operation<readonly [Tensor, Tensor, Tensor], { axis: number }>({
  name: 'scatterAdd',
  dtypes: ['float', 'i32'],
  shape([x, indices, source], { axis }) {
    checkIndices('scatterAdd', x.shape, indices.shape, axis);
    if (!sameShape(source.shape, indices.shape))
      throw new Error(
        `[scatterAdd] the source is ${formatShape(source.shape)}, the indices ${formatShape(indices.shape)}: they must be alike`,
      );
    return x.shape;
  },
  forward(ctx, [x, indices, source], { axis }, shape) {
    const out = empty(x.device, shape, x.dtype);
    copy(x, out);
    addRuns(out, source, axis, sortedPairs(indices, axis), 'own');
    ctx.save(indices);
    return out;
  },
  backward(ctx, [grad], { axis }) {
    if (!ctx.needs[2]) return [grad!, null, null];
    const dsource = ctx.gradient(2);
    gatherInto(dsource, grad!, axis, ctx.saved[0]!, 'own', 0);
    return [grad!, null, dsource];
  },
});

/**
 * x with every element of `source` added at its index (i32) along an axis: out[…, indices[…, k, …], …] += source[…, k, …].
 * `indices` and `source` have the shape of x but along the axis. Indices outside of x add nothing. The sum has one order, that
 * of k, without atomics: the indices of a line are sorted first, at k · log² k.
 */
export const scatterAdd = (x: Tensor, indices: Tensor, source: Tensor, axis: number): Tensor =>
  apply(scatterAddOp, [x, indices, source], { axis: resolveAxis('scatterAdd', axis, x.shape) });

const indexSelectOp = operation<readonly [Tensor, Tensor], { axis: number }>({
  name: 'indexSelect',
  dtypes: ['alike', 'i32'],
  shape([x, indices], { axis }) {
    if (indices.shape.length !== 1)
      throw new Error(`[indexSelect] the indices must be a list (K,), not ${formatShape(indices.shape)}`);
    return withExtent(x.shape, axis, indices.size);
  },
  forward(ctx, [x, indices], { axis }, shape) {
    const out = empty(x.device, shape, x.dtype);
    gatherInto(out, x, axis, indices, 'shared', nothing(x));
    ctx.save(indices);
    return out;
  },
  backward: (ctx, [grad], { axis }) => [gathered(ctx, grad!, axis, 'shared'), null],
});

/**
 * The parts of x at the indices (K,) of an axis: out[…, k, …] = x[…, indices[k], …]. What is outside of x, and the gradient,
 * are as with `gather`.
 */
export const indexSelect = (x: Tensor, indices: Tensor, axis: number): Tensor =>
  apply(indexSelectOp, [x, indices], { axis: resolveAxis('indexSelect', axis, x.shape) });

const oneHotOp = operation<readonly [Tensor], { classes: number; dtype: DType }>({
  name: 'oneHot',
  dtypes: ['i32'],
  shape([ids], { classes }) {
    if (!Number.isInteger(classes) || classes < 1)
      throw new Error(`[oneHot] the number of classes must be a whole number ≥ 1, not ${classes}`);
    return [...ids.shape, classes];
  },
  forward(_ctx, [ids], { classes, dtype }, shape) {
    const out = empty(ids.device, shape, dtype);
    const kernel = ids.device.kernel(oneHotSource, typed(out));
    ids.device.run(kernel, [ids, out], { size: out.size, classes }, Math.ceil(out.size / 64));
    return out;
  },
  backward: () => [null],
});

/** ids (…) → (…, classes): 1 at each id's class, else 0; an id that is no class gives zeros. */
export const oneHot = (ids: Tensor, classes: number, { dtype = 'f32' }: { dtype?: 'f32' | 'f16' | 'i32' | 'u32' } = {}): Tensor =>
  noGrad(ids.device, () => apply(oneHotOp, [ids], { classes, dtype })); // prettier-ignore
