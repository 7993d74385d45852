import { apply, empty, formatShape, operation, typed, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { around, resolveAxis } from '../layout/axis.ts';
import { pieceSums } from './reduce.ts';

const source = wgsl(import.meta.url, './scan.wgsl');

/** Elements that one invocation walks. */
const PIECE = 64;

/** Cumulative sums along the middle of x (outer, n, inner) into `out`. */
function scan(
  x: Tensor,
  [outer, n, inner]: readonly [number, number, number],
  reverse: boolean,
  out: Tensor = empty(x.device, x.shape, x.dtype),
): Tensor {
  const { device } = x;
  const pieces = Math.ceil(n / PIECE);
  let carries: Tensor | null = null;
  if (pieces > 1) carries = scan(pieceSums(x, [outer, n, inner], PIECE), [outer, pieces, inner], reverse);
  const vec4 = inner % 4 === 0;
  const columns = vec4 ? inner / 4 : inner;
  const walks = outer * pieces * columns;
  device.run(
    device.kernel(source, { ...typed(x), VEC4: vec4, CARRY: carries !== null }),
    carries ? [x, out, carries] : [x, out],
    { walks, n, inner: columns, pieces, piece: PIECE, reverse: Number(reverse) },
    Math.ceil(walks / 64),
  );
  return out;
}

const cumulativeSumOp = operation<readonly [Tensor], { axis: number }>({
  name: 'cumulativeSum',
  shape([x]) {
    if (x.shape.length === 0) throw new Error(`[cumulativeSum] x must have an axis, not ${formatShape(x.shape)}`);
    return x.shape;
  },
  forward(_ctx, [x], { axis }) {
    const { outer, extent, inner } = around(x.shape, axis);
    return scan(x, [outer, extent, inner], false);
  },
  backward(ctx, [grad], { axis }) {
    const { outer, extent, inner } = around(grad!.shape, axis);
    return [scan(grad!, [outer, extent, inner], true, ctx.gradient(0))];
  },
});

/** Sums of x up to each place along `axis`, itself included; shaped as x. */
export const cumulativeSum = (x: Tensor, axis = -1): Tensor =>
  apply(cumulativeSumOp, [x], { axis: x.shape.length === 0 ? 0 : resolveAxis('cumulativeSum', axis, x.shape) });
