import { apply, empty, formatShape, operation, sizeOf, view, wgsl } from '../../engine/index.ts';
import type { Defines, Shape, Tensor } from '../../engine/index.ts';
import { resolveAxis } from './axis.ts';
import { wordsOf } from './words.ts';

const copySource = wgsl(import.meta.url, './copy.wgsl');
const transposeSource = wgsl(import.meta.url, './transpose.wgsl');

/** dst[row, at + i] = src[row, i + shift] for i < width, 0 outside of the source's row; all in elements. */
function copyRows(
  rows: number,
  width: number,
  src: { tensor: Tensor; width: number; shift: number },
  dst: { tensor: Tensor; width: number; at: number },
): void {
  const { device } = dst.tensor;
  const { defines, elements } = wordsOf(dst.tensor.dtype, [width, src.width, src.shift, dst.width, dst.at]);
  const size = (rows * width) / elements;
  device.run(
    device.kernel(copySource, defines),
    [src.tensor, dst.tensor],
    {
      size,
      width: width / elements,
      at: dst.at / elements,
      dstWidth: dst.width / elements,
      shift: src.shift / elements,
      srcWidth: src.width / elements,
    },
    Math.ceil(size / 64),
  );
}

const concatOp = operation<readonly Tensor[], { axis: number }>({
  name: 'concat',
  dtypes: 'alike',
  shape(inputs, { axis }) {
    const { shape } = inputs[0]!;
    inputs.forEach((input, i) => {
      if (input.shape.length !== shape.length || input.shape.some((extent, k) => k !== axis && extent !== shape[k]))
        throw new Error(
          `[concat] tensor ${i} is ${formatShape(input.shape)}, the first ${formatShape(shape)}: all extents but that of axis ${axis} must agree`,
        );
    });
    return shape.map((extent, k) => (k === axis ? inputs.reduce((sum, input) => sum + input.shape[k]!, 0) : extent));
  },
  forward(_ctx, inputs, { axis }, shape) {
    const out = empty(inputs[0]!.device, shape, inputs[0]!.dtype);
    const rows = sizeOf(shape.slice(0, axis));
    const dstWidth = sizeOf(shape.slice(axis));
    let at = 0;
    for (const tensor of inputs) {
      const width = sizeOf(tensor.shape.slice(axis));
      copyRows(rows, width, { tensor, width, shift: 0 }, { tensor: out, width: dstWidth, at });
      at += width;
    }
    return out;
  },
  backward(ctx, [grad], { axis }) {
    const rows = sizeOf(grad!.shape.slice(0, axis));
    const srcWidth = sizeOf(grad!.shape.slice(axis));
    let shift = 0;
    return ctx.needs.map((needed, i) => {
      const width = sizeOf(ctx.inputShape(i).slice(axis));
      const begin = shift;
      shift += width;
      if (!needed) return null;
      const tensor = ctx.gradient(i);
      copyRows(rows, width, { tensor: grad!, width: srcWidth, shift: begin }, { tensor, width, at: 0 });
      return tensor;
    });
  },
});

/** Joins tensors along `axis` (negative: from the end); their other extents agree. */
export function concat(tensors: readonly Tensor[], axis: number): Tensor {
  if (tensors.length === 0) throw new Error('[concat] needs at least one tensor');
  return apply(concatOp, tensors, { axis: resolveAxis('concat', axis, tensors[0]!.shape) });
}

interface SliceAttributes {
  axis: number;
  start: number;
  end: number;
}

const sliceOp = operation<readonly [Tensor], SliceAttributes>({
  name: 'slice',
  dtypes: 'alike',
  shape([x], { axis, start, end }) {
    const extent = x.shape[axis]!;
    if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || start > end || end > extent)
      throw new Error(
        `[slice] ${start} to ${end} does not lie within axis ${axis} of ${formatShape(x.shape)}: 0 ≤ start ≤ end ≤ ${extent}`,
      );
    return x.shape.map((e, k) => (k === axis ? end - start : e));
  },
  forward(_ctx, [x], { axis, start }, shape) {
    const out = empty(x.device, shape, x.dtype);
    const inner = sizeOf(shape.slice(axis + 1));
    const width = shape[axis]! * inner;
    copyRows(
      sizeOf(shape.slice(0, axis)),
      width,
      { tensor: x, width: x.shape[axis]! * inner, shift: start * inner },
      { tensor: out, width, at: 0 },
    );
    return out;
  },
  backward(ctx, [grad], { axis, start }) {
    const shape = ctx.inputShape(0);
    const dx = ctx.gradient(0);
    const inner = sizeOf(shape.slice(axis + 1));
    const width = shape[axis]! * inner;
    copyRows(
      sizeOf(shape.slice(0, axis)),
      width,
      { tensor: grad!, width: grad!.shape[axis]! * inner, shift: -start * inner },
      { tensor: dx, width, at: 0 },
    );
    return [dx];
  },
});

/** The part of x with start ≤ index < end along `axis` (negative: from the end). */
export const slice = (x: Tensor, axis: number, start: number, end: number): Tensor =>
  apply(sliceOp, [x], { axis: resolveAxis('slice', axis, x.shape), start, end });

/** A dimension of a transposition: its extent and how many elements apart its neighbours are, in x and in the result. */
interface Dimension {
  extent: number;
  from: number;
  to: number;
}

/** The result's dimensions, without those of extent 1, and with those joined that stay together. */
function dimensionsOf(shape: Shape, permutation: readonly number[]): Dimension[] {
  const joined: Dimension[] = [];
  let to = 1;
  for (const axis of permutation.toReversed()) {
    const extent = shape[axis]!;
    const from = sizeOf(shape.slice(axis + 1));
    if (extent === 1) continue;
    const inner = joined[0];
    if (inner && from === inner.from * inner.extent) inner.extent *= extent;
    else joined.unshift({ extent, from, to });
    to *= extent;
  }
  return joined;
}

function permute(x: Tensor, permutation: readonly number[], target?: Tensor): Tensor {
  const { device } = x;
  const shape = permutation.map((axis) => x.shape[axis]!);
  const dimensions = dimensionsOf(x.shape, permutation);
  if (dimensions.length <= 1) return view(x, 0, shape); // nothing moves
  if (dimensions.length > 4)
    throw new Error(
      `[transpose] (${permutation.join(', ')}) of ${formatShape(x.shape)} moves more than four groups of axes; do it in two steps`,
    );
  const out = target ?? empty(device, shape, x.dtype);
  while (dimensions.length < 4) dimensions.unshift({ extent: 1, from: 0, to: 0 });
  const last = dimensions[3]!;
  const contiguous = dimensions.find(({ from }) => from === 1)!;
  const wide = last.extent % 4 === 0 && contiguous.extent % 4 === 0;
  const tile = wide && contiguous !== last;
  // Steps from unit to unit in T: a vec4 or a block covers four elements of `last`, a block also four of `contiguous`.
  const units = dimensions.map((dimension) => {
    if (!wide) return dimension;
    const four = dimension === last || dimension === contiguous ? 4 : 1;
    return {
      extent: dimension.extent / four,
      from: (dimension.from * four) / 4,
      to: (dimension.to * four) / 4,
    };
  });
  const [d0, d1, d2, d3] = units as [Dimension, Dimension, Dimension, Dimension];
  const size = d0.extent * d1.extent * d2.extent * d3.extent;
  const params = {
    size, n1: d1.extent, n2: d2.extent, n3: d3.extent,
    from0: d0.from, from1: d1.from, from2: d2.from, from3: d3.from,
    to0: d0.to, to1: d1.to, to2: d2.to, to3: d3.to,
    fromRow: tile ? last.from / 4 : 0,
    toRow: tile ? contiguous.to / 4 : 0,
  }; // prettier-ignore
  const half = x.dtype === 'f16';
  const defines: Defines = { W: half ? 'f16' : 'u32', WIDE: wide, TILE: tile };
  const kernel = device.kernel(transposeSource, half ? { ...defines, F16: true } : defines);
  device.run(kernel, [x, out], params, Math.ceil(size / 64));
  return out;
}

const transposeOp = operation<readonly [Tensor], { permutation: readonly number[] }>({
  name: 'transpose',
  dtypes: 'alike',
  shape([x], { permutation }) {
    if (permutation.length !== x.shape.length || x.shape.some((_, axis) => !permutation.includes(axis)))
      throw new Error(
        `[transpose] (${permutation.join(', ')}) is no order of the ${x.shape.length} axes of ${formatShape(x.shape)}`,
      );
    return permutation.map((axis) => x.shape[axis]!);
  },
  forward: (_ctx, [x], { permutation }) => permute(x, permutation),
  backward(ctx, [grad], { permutation }) {
    const inverse = permutation.map((_, axis) => permutation.indexOf(axis));
    return [permute(grad!, inverse, ctx.gradient(0))];
  },
});

/** Axis i of the result is axis `permutation[i]` of x. */
export const transpose = (x: Tensor, permutation: readonly number[]): Tensor =>
  apply(transposeOp, [x], { permutation });
