import { apply, empty, formatShape, operation, reshape, sameShape, sizeOf, tensor, typed, view, wgsl, zeros } from '../../engine/index.ts'; // prettier-ignore
import type { DType, Shape, Tensor } from '../../engine/index.ts';
import { cached, evaluate, operandOf } from '../elementwise/chain.ts';
import type { Expression } from '../elementwise/chain.ts';
import { cast, scaled } from '../elementwise/elementwise.ts';
import { around, resolveAxis } from '../layout/axis.ts';
import { walkRows } from './rows.ts';

const rowsSource = wgsl(import.meta.url, './reduce.wgsl');
const columnsSource = wgsl(import.meta.url, './reduce_columns.wgsl');
const argSource = wgsl(import.meta.url, './arg.wgsl');
const prodBackwardSource = wgsl(import.meta.url, './prod_backward.wgsl');

/** Elements of a piece of columns. */
const COLUMN_PIECE = 128;
/** Rows shorter than this are walked by an invocation each, as columns are. */
const SHORT = 16;

/** What is made of elements: `map` of an element v, then `combine` of two such a and b. */
interface Kind {
  readonly map: string;
  readonly combine: 'a + b' | 'max(a, b)' | 'a * b';
}
export const SUM: Kind = { map: 'v', combine: 'a + b' };
export const SUM_OF_SIZES: Kind = { map: 'abs(v)', combine: 'a + b' };
export const SUM_OF_SQUARES: Kind = { map: 'v * v', combine: 'a + b' };
export const MAX: Kind = { map: 'v', combine: 'max(a, b)' };
export const MAX_OF_SIZES: Kind = { map: 'abs(v)', combine: 'max(a, b)' };
/** The smallest element, negated. */
const NEGATED_MIN: Kind = { map: '-v', combine: 'max(a, b)' };
const PRODUCT: Kind = { map: 'v', combine: 'a * b' };

/** Whether (outer, n, inner) is walked as rows: products are too few to be worth a kernel of their own. */
const byRows = (n: number, inner: number, { combine }: Kind) => inner === 1 && n >= SHORT && combine !== 'a * b';

/** (outer, n, inner) → (outer, pieces, inner). */
function reducePieces(
  x: Tensor,
  [outer, n, inner]: readonly [number, number, number],
  kind: Kind,
  piece: number,
  scale: number,
  dtype: DType,
): Tensor {
  const { device } = x;
  const { map, combine } = kind;
  const pieces = Math.ceil(n / piece);
  const out = empty(device, [outer, pieces, inner], dtype);
  const rowwise = byRows(n, inner, kind);
  const operand = operandOf(x, (rowwise ? n : inner) % 4 === 0, 'reduce');
  const { vec4, windows } = operand;
  const width = vec4 ? 4 : 1;
  const defines = () => ({
    OUT: dtype,
    MAP: map,
    OPERAND: operand.text,
    OUT_AT: `@group(0) @binding(${windows.length})\n`,
    FIELDS: `${operand.fields}\n`,
    ...(operand.f16 || dtype === 'f16' ? { F16: true } : {}),
  });
  const key = `${map} ${combine} ${dtype} ${operand.key}`;
  const shared = { pieces, scale, ...operand.params };
  const bound = [...windows, out.window()];
  if (rowwise) {
    const walk = walkRows(x, Math.min(n, piece), vec4);
    const rows = outer * pieces;
    const kernel = cached(device, `rows ${walk.lanes} ${key}`, () =>
      walk.kernel(rowsSource, { ...defines(), MAX: combine === 'max(a, b)' }),
    );
    const params = { ...shared, rows, n: n / width, piece: piece / width };
    device.dispatch(kernel, bound, params, Math.ceil(rows / walk.rows));
  } else {
    const columns = inner / width;
    const outputs = outer * pieces * columns;
    const kernel = cached(device, `columns ${key}`, () =>
      device.kernel(columnsSource, { ...defines(), COMBINE: combine, VEC4: vec4 }),
    );
    const params = { ...shared, outputs, n, inner: columns, piece };
    device.dispatch(kernel, bound, params, Math.ceil(outputs / 64));
  }
  return out;
}

/** Sums of pieces of a fixed length along the middle of (outer, n, inner). */
export const pieceSums = (x: Tensor, shape: readonly [number, number, number], piece: number): Tensor =>
  reducePieces(x, shape, SUM, piece, 1, 'f32');

interface ReduceAs {
  /** What the result is multiplied by. */
  readonly scale?: number;
  /** The result's; that of x by default. In between everything is f32. */
  readonly dtype?: DType;
}

/**
 * Reduces the axes that `keep` doesn't name, innermost group of neighbours first, without a record on the tape. Gives the
 * kept axes' shape with 1 for the others. x has elements.
 */
export function reduceAxes(x: Tensor, keep: readonly boolean[], kind: Kind, as: ReduceAs = {}): Tensor {
  const { scale = 1, dtype = x.dtype } = as;
  let shape = [...x.shape];
  const kept = [...keep];
  let current = x;
  let { map } = kind;
  for (;;) {
    const last = kept.lastIndexOf(false);
    if (last < 0) break;
    let first = last;
    while (first > 0 && !kept[first - 1]) first--;
    const outer = sizeOf(shape.slice(0, first));
    const inner = sizeOf(shape.slice(last + 1));
    let n = sizeOf(shape.slice(first, last + 1));
    do {
      const piece = byRows(n, inner, kind) ? walkRows(current, n).piece : COLUMN_PIECE;
      const final = n <= piece && kept.indexOf(false) === first;
      const step = { ...kind, map };
      current = reducePieces(current, [outer, n, inner], step, piece, final ? scale : 1, final ? dtype : 'f32');
      map = 'v';
      n = Math.ceil(n / piece);
    } while (n > 1);
    shape = [...shape.slice(0, first), ...shape.slice(last + 1)];
    kept.splice(first, last + 1 - first);
  }
  return view(current, 0, keptShape(x.shape, keep));
}

/** `shape` with 1 in place of the reduced axes. */
export const keptShape = (shape: Shape, keep: readonly boolean[]): Shape =>
  shape.map((extent, i) => (keep[i] ? extent : 1));

/** For each axis whether it survives a reduction over `axes` (all by default; negative ones count from the end). */
export function keptAxes(name: string, x: Tensor, axes: readonly number[] | undefined): boolean[] {
  if (axes !== undefined && !Array.isArray(axes))
    throw new Error(`[${name}] the axes are an array, as in ${name}(x, [0, -1]), not ${JSON.stringify(axes)}`);
  const keep = x.shape.map(() => axes !== undefined);
  for (const axis of axes ?? []) keep[resolveAxis(name, axis, x.shape)] = false;
  return keep;
}

/** Elements that make one element of the result. */
export const countReduced = (shape: Shape, keep: readonly boolean[]): number =>
  shape.reduce((product, extent, i) => (keep[i] ? product : product * extent), 1);

export interface Attributes {
  /** For each axis whether it survives. */
  readonly keep: readonly boolean[];
  readonly keepDims: boolean;
}

/** The shape of a reduction's result. */
export const reducedShape = (shape: Shape, { keep, keepDims }: Attributes): Shape =>
  keepDims ? keptShape(shape, keep) : shape.filter((_, i) => keep[i]);

const scaledSumOp = (name: 'sum' | 'mean') =>
  operation<readonly [Tensor], Attributes & { scale: number }>({
    name,
    shape: ([x], attributes) => reducedShape(x.shape, attributes),
    forward(_ctx, [x], { keep, scale }, shape) {
      if (x.size === 0) return zeros(x.device, shape, x.dtype);
      if (keep.every(Boolean)) return scaled(x, scale);
      return view(reduceAxes(x, keep, SUM, { scale }), 0, shape);
    },
    backward(ctx, [grad], { keep, scale }) {
      const spread = view(grad!, 0, keptShape(ctx.inputShape(0), keep));
      return [scaled(spread, scale, ctx.gradient(0))];
    },
  });
const sumOp = scaledSumOp('sum');
const meanOp = scaledSumOp('mean');

const HIT: Expression = { name: 'hit', f: 'select(0.0, 1.0, x == y)', dtype: 'f32' };
/** The part x of z, of what y is. */
export const SHARE: Expression = { name: 'share', f: 'x * y / z' };

const extremumOp = (name: 'max' | 'min') =>
  operation<readonly [Tensor], Attributes>({
    name,
    shape([x], attributes) {
      if (countReduced(x.shape, attributes.keep) === 0)
        throw new Error(`[${name}] there is no ${name} of no elements: ${formatShape(x.shape)}`);
      return reducedShape(x.shape, attributes);
    },
    forward(ctx, [x], { keep }, shape) {
      if (x.size === 0) return empty(x.device, shape, x.dtype);
      const [kind, scale] = name === 'max' ? [MAX, 1] : [NEGATED_MIN, -1];
      const out = keep.every(Boolean) ? scaled(x, 1) : view(reduceAxes(x, keep, kind, { scale }), 0, shape);
      ctx.save(x, out);
      return out;
    },
    backward(ctx, [grad], { keep }) {
      if (sizeOf(ctx.inputShape(0)) === 0) return [ctx.gradient(0)];
      const [x, out] = ctx.saved as [Tensor, Tensor];
      const shape = keptShape(x.shape, keep);
      const hits = evaluate(HIT, [x, view(out, 0, shape)]);
      const tied = reduceAxes(hits, keep, SUM);
      const share = { ...SHARE, dtype: x.dtype };
      return [evaluate(share, [hits, view(grad!, 0, shape), tied], ctx.target(0))];
    },
  });
const maxOp = extremumOp('max');
const minOp = extremumOp('min');

const prodOp = operation<readonly [Tensor], { first: number; last: number }>({
  name: 'prod',
  shape: ([x], { first, last }) => x.shape.filter((_, i) => i < first || i > last),
  forward(ctx, [x], { first, last }, shape) {
    ctx.save(x);
    if (x.size === 0) return tensor(x.device, new Float32Array(sizeOf(shape)).fill(1), shape, { dtype: x.dtype });
    const keep = x.shape.map((_, i) => i < first || i > last);
    return view(reduceAxes(x, keep, PRODUCT), 0, shape);
  },
  backward(ctx, [grad], { first, last }) {
    const x = ctx.saved[0]!;
    const { device, shape } = x;
    const dx = ctx.gradient(0);
    const n = sizeOf(shape.slice(first, last + 1));
    const inner = sizeOf(shape.slice(last + 1));
    const results = sizeOf(shape.slice(0, first)) * inner;
    const kernel = device.kernel(prodBackwardSource, typed(x));
    device.run(kernel, [x, grad!, dx], { results, n, inner }, Math.ceil(results / 64));
    return [dx];
  },
});

const argOp = (name: 'argmax' | 'argmin') =>
  operation<readonly [Tensor], { axis: number; keepDims: boolean }>({
    name,
    shape([x], { axis, keepDims }) {
      if (x.shape[axis] === 0)
        throw new Error(`[${name}] there is none of no elements: ${formatShape(x.shape)}, axis ${axis}`);
      return keepDims ? x.shape.with(axis, 1) : x.shape.toSpliced(axis, 1);
    },
    forward(_ctx, [x], { axis }, shape) {
      const { device } = x;
      const { outer, extent, inner } = around(x.shape, axis);
      const sign = name === 'argmax' ? 1 : -1;
      let n = extent;
      let found: readonly Tensor[] | null = null; // values and places of the pass before
      for (;;) {
        const pieces = Math.ceil(n / COLUMN_PIECE);
        const outputs = outer * pieces * inner;
        const next: readonly Tensor[] = [empty(device, [outputs]), empty(device, [outputs], 'i32')];
        device.run(
          device.kernel(argSource, found ? { FIRST: false } : { ...typed(x), FIRST: true }),
          found ? [found[0]!, ...next, found[1]!] : [x, ...next],
          { outputs, n, inner, pieces, piece: COLUMN_PIECE, sign: found ? 1 : sign },
          Math.ceil(outputs / 64),
        );
        if (pieces === 1) return view(next[1]!, 0, shape);
        [found, n] = [next, pieces];
      }
    },
    backward: () => [null],
  });
const argmaxOp = argOp('argmax');
const argminOp = argOp('argmin');

export interface ReduceOptions {
  /** Leaves reduced axes as 1. */
  keepDims?: boolean;
}

type Reduction = (x: Tensor, axes?: readonly number[], options?: ReduceOptions) => Tensor;

/** Sum over `axes` (all by default; negative ones count from the end). Of no elements it is 0. */
export const sum: Reduction = (x, axes, { keepDims = false } = {}) =>
  apply(sumOp, [x], { keep: keptAxes('sum', x, axes), keepDims, scale: 1 });

/** Mean over `axes` (all by default). Throws where it would be over no elements. */
export const mean: Reduction = (x, axes, { keepDims = false } = {}) => {
  const keep = keptAxes('mean', x, axes);
  const count = countReduced(x.shape, keep);
  if (count === 0) throw new Error(`[mean] the mean over no elements is undefined: ${formatShape(x.shape)}`);
  return apply(meanOp, [x], { keep, keepDims, scale: 1 / count });
};

/**
 * The largest element over `axes` (all by default). Its gradient goes to that element; where several are equal they share
 * it in equal parts. Whether a NaN counts is left open, as by WGSL's `max`. Throws where it would be of no elements.
 */
export const max: Reduction = (x, axes, { keepDims = false } = {}) =>
  apply(maxOp, [x], { keep: keptAxes('max', x, axes), keepDims });

/** The smallest element over `axes` (all by default); gradient and errors as for `max`. */
export const min: Reduction = (x, axes, { keepDims = false } = {}) =>
  apply(minOp, [x], { keep: keptAxes('min', x, axes), keepDims });

/** Product over `axes` (all by default). Of no elements it is 1. */
export const prod: Reduction = (x, axes, { keepDims = false } = {}) => {
  const keep = keptAxes('prod', x, axes);
  // Neighbouring axes go as one, others after each other: what lies between may be beyond f16 where the result isn't.
  const groups = keep.filter((kept, i) => !kept && keep[i - 1] !== false).length;
  const widened = x.dtype === 'f16' && groups > 1;
  let result = widened ? cast(x, 'f32') : x;
  for (let last = keep.length - 1; last >= 0; last--) {
    if (keep[last]) continue;
    let first = last;
    while (first > 0 && !keep[first - 1]) first--;
    result = apply(prodOp, [result], { first, last });
    last = first;
  }
  return reshape(widened ? cast(result, 'f16') : result, reducedShape(x.shape, { keep, keepDims }));
};

/** Where along `axis` the largest element stands: i32, the first one's place where several are equal, NaN aside. No gradient. */
export const argmax = (x: Tensor, axis = -1, { keepDims = false }: ReduceOptions = {}): Tensor =>
  apply(argmaxOp, [x], { axis: resolveAxis('argmax', axis, x.shape), keepDims });

/** Where along `axis` the smallest element stands; as `argmax`. */
export const argmin = (x: Tensor, axis = -1, { keepDims = false }: ReduceOptions = {}): Tensor =>
  apply(argminOp, [x], { axis: resolveAxis('argmin', axis, x.shape), keepDims });

/** Sums `x` down to `shape`, undoing a broadcast: the gradient of every broadcasting operation. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const lead = x.shape.length - shape.length;
  const keep = x.shape.map((extent, i) => i >= lead && shape[i - lead] === extent);
  return reshape(apply(sumOp, [x], { keep, keepDims: false, scale: 1 }), shape);
}
