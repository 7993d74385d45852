/** A tensor's extents, outermost first; `[]` is a scalar. */
export type Shape = readonly number[];

/** Number of elements: the product of the extents (1 for a scalar). */
export function sizeOf(shape: Shape): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/** How a shape is written in messages: `(2, 3)`, `(5,)`, `()`. */
export function formatShape(shape: Shape): string {
  return shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((extent, i) => extent === b[i]);
}

/** Throws where a program without types gives something else for a shape: `x.size`, say. */
export function requireShape(operation: string, shape: Shape): void {
  if (!Array.isArray(shape)) throw new Error(`[${operation}] a shape is an array of extents, not ${String(shape)}`);
}

/** Throws unless every extent is a whole number ≥ 0 and the element count is exact in an index of 32 bits. */
export function checkShape(operation: string, shape: Shape): void {
  requireShape(operation, shape);
  if (!shape.every((extent) => Number.isInteger(extent) && extent >= 0))
    throw new Error(`[${operation}] extents must be whole numbers ≥ 0, not ${formatShape(shape)}`);
  if (sizeOf(shape) > 0xffffffff)
    throw new Error(`[${operation}] ${formatShape(shape)} has more elements than 32-bit indices reach (4,294,967,295)`);
}
