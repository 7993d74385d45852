/** The sort behind `sort`, `argSort`, `topK` and every sum over equal indices. */
import { empty, typed, view, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { around, withExtent } from '../layout/axis.ts';

const runsSource = wgsl(import.meta.url, './sort_runs.wgsl');
const mergeSource = wgsl(import.meta.url, './sort_merge.wgsl');

/**
 * Elements that the first pass orders by counting: a multiple of the 64 of its workgroups. On the software adapter, (8, 4096)
 * took 22 ms with 64, 14 with 128, 18 with 256 and 35 with 512.
 */
const RUN = 128;
/**
 * Comparisons up to which counting alone orders whole lines, in one dispatch: for 616 ids 0.9 ms on the software adapter, where
 * four dispatches took 0.6, but a dispatch on a GPU costs more than the comparisons.
 */
const FEW = 2 ** 19;

interface Order {
  readonly axis: number;
  readonly descending: boolean;
  /** Elements of each line that are wanted: its first ones. */
  readonly keep: number;
  /** What comes out: see `order` and `sortedPairs`. */
  readonly pairs: boolean;
}

/**
 * A stable merge sort of every line of x along an axis, in passes that hold no state between elements: runs of 128 are
 * ordered by counting, then two runs at a time are merged by binary search, log₂(n / 128) times. n · (128 + log² n)
 * loads a line; where only the first k are wanted, runs are cut to k as they grow.
 */
function run(x: Tensor, { axis, descending, keep, pairs }: Order): Tensor {
  const { device } = x;
  const { outer, extent, inner } = around(x.shape, axis);
  const lines = outer * inner;
  if (keep === 0) return empty(device, withExtent(x.shape, axis, 0), 'i32');
  // Elements of a line of n that are left when each run of `of` is cut to `to`.
  const cut = (n: number, of: number, to: number) => Math.floor(n / of) * to + Math.min(n % of, to);
  const first = lines * extent ** 2 <= FEW ? Math.ceil(extent / 64) * 64 : RUN;
  let length = Math.min(first, keep);
  let n = cut(extent, first, length);
  // Passes write from one of two buffers into the other, and the last one into the result.
  const buffers: Tensor[] = [];
  let passes = 0;
  const next = (kept: number, last: boolean): Tensor => {
    if (last && !pairs) return empty(device, withExtent(x.shape, axis, kept), 'i32');
    const shape = [lines, kept, 2];
    return view((buffers[passes++ % 2] ??= empty(device, shape, 'u32')), 0, shape);
  };
  let last = extent <= first;
  let current = next(n, last);
  const kind = {
    FLOAT: x.dtype === 'f32' || x.dtype === 'f16',
    SIGNED: x.dtype === 'i32',
    UNSIGNED: x.dtype === 'u32',
  };
  device.run(
    device.kernel(runsSource, { ...typed(x), ...kind, DESCENDING: descending, ORDER: last && !pairs }),
    [x, current],
    { lines, n: extent, inner, run: first, keep: length, kept: n },
    lines * Math.ceil(extent / 64),
  );
  while (!last) {
    last = n <= 2 * length;
    const longer = Math.min(2 * length, keep);
    const kept = cut(n, 2 * length, longer);
    const merged = next(kept, last);
    device.run(
      device.kernel(mergeSource, { ORDER: last && !pairs }),
      [current, merged],
      { size: lines * n, n, inner, run: length, keep: longer, kept },
      Math.ceil((lines * n) / 64),
    );
    [current, n, length] = [merged, kept, longer];
  }
  return current;
}

/** Places (i32) of the first `keep` elements of each line in order; see `sort` for what order means. */
export const order = (x: Tensor, axis: number, keep: number, descending: boolean): Tensor =>
  run(x, { axis, descending, keep, pairs: false });

/** For indices (i32): (lines, extent, 2) in u32: each line's indices in rising order, with 2³¹ added, and their places. */
export const sortedPairs = (indices: Tensor, axis: number): Tensor =>
  run(indices, { axis, descending: false, keep: indices.shape[axis]!, pairs: true });
