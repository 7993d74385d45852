import { apply, formatShape, noGrad, operation } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { takeDistinct } from '../indexing/indexing.ts';
import { resolveAxis, withExtent } from '../layout/axis.ts';
import { order } from './order.ts';

interface Attributes {
  readonly axis: number;
  readonly keep: number;
  readonly descending: boolean;
}

/** Places have no gradient: a small change of x leaves them as they are. */
const orderOp = operation<readonly [Tensor], Attributes>({
  name: 'sort',
  dtypes: 'alike',
  shape: ([x], { axis, keep }) => withExtent(x.shape, axis, keep),
  forward: (_ctx, [x], { axis, keep, descending }) => order(x, axis, keep, descending),
  backward: () => [null],
});

const places = (x: Tensor, attributes: Attributes): Tensor => noGrad(x.device, () => apply(orderOp, [x], attributes));

export interface SortOptions {
  /** The last by default; negative ones count from the end. */
  axis?: number;
  /** The largest first. */
  descending?: boolean;
}

/** Elements in order with their places (i32) in x. */
export interface Sorted {
  readonly values: Tensor;
  readonly indices: Tensor;
}

/**
 * The places (i32) that put x in order along an axis. The sort is stable: equal elements, of which −0 and 0 are two, stay in
 * the order they had. NaN counts as larger than all else.
 */
export function argSort(x: Tensor, { axis = -1, descending = false }: SortOptions = {}): Tensor {
  const k = resolveAxis('argSort', axis, x.shape);
  return places(x, { axis: k, keep: x.shape[k]!, descending });
}

/** x in order along an axis, as `argSort` has it. Gradients go back to where the values came from. */
export function sort(x: Tensor, { axis = -1, descending = false }: SortOptions = {}): Sorted {
  const k = resolveAxis('sort', axis, x.shape);
  const indices = places(x, { axis: k, keep: x.shape[k]!, descending });
  return { values: takeDistinct(x, k, indices), indices };
}

export interface TopKOptions {
  /** The last by default; negative ones count from the end. */
  axis?: number;
  /** The smallest in place of the largest. */
  smallest?: boolean;
}

/**
 * The k largest elements along an axis, the largest first; of equal ones, the one that stands first. NaN counts as larger
 * than all else. Gradients go back to where the values came from.
 */
export function topK(x: Tensor, k: number, { axis = -1, smallest = false }: TopKOptions = {}): Sorted {
  const along = resolveAxis('topK', axis, x.shape);
  const n = x.shape[along]!;
  if (!Number.isInteger(k) || k < 0 || k > n)
    throw new Error(`[topK] k is a whole number from 0 to ${n}, the extent of axis ${along} of ${formatShape(x.shape)}, not ${k}`);
  const indices = places(x, { axis: along, keep: k, descending: !smallest });
  return { values: takeDistinct(x, along, indices), indices };
} // prettier-ignore
