import { formatShape, sizeOf } from '../../engine/index.ts';
import type { Shape } from '../../engine/index.ts';

/** The axis counted from the front; negative ones count from the end. */
export function resolveAxis(name: string, axis: number, shape: Shape): number {
  const rank = shape.length;
  if (!Number.isInteger(axis) || axis < -rank || axis >= rank)
    throw new Error(`[${name}] axis ${axis} does not exist in ${formatShape(shape)}`);
  return axis < 0 ? axis + rank : axis;
}

/** `shape` with another extent along `axis`. */
export const withExtent = (shape: Shape, axis: number, extent: number): Shape =>
  shape.map((own, i) => (i === axis ? extent : own));

/** How a kernel along one axis sees `shape`: (outer, extent of the axis, inner). */
export const around = (shape: Shape, axis: number): { outer: number; extent: number; inner: number } => ({
  outer: sizeOf(shape.slice(0, axis)),
  extent: shape[axis]!,
  inner: sizeOf(shape.slice(axis + 1)),
});
