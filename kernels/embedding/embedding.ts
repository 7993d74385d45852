import { apply, byteLength, empty, formatShape, operation, tensor, wgsl } from '../../engine/index.ts';
import type { Device, Shape, Tensor } from '../../engine/index.ts';

const forwardSource = wgsl(import.meta.url, './embedding.wgsl');
const backwardSource = wgsl(import.meta.url, './embedding_backward.wgsl');

const NAN_BITS = 0x7fc00000;

const embeddingOp = operation<readonly [Tensor, Tensor], object>({
  name: 'embedding',
  dtypes: ['float', 'i32'],
  shape([table, ids]) {
    if (table.shape.length !== 2)
      throw new Error(`[embedding] the table must be (V, D), not ${formatShape(table.shape)}`);
    return [...ids.shape, table.shape[1]!];
  },
  forward(ctx, [table, ids], _, shape) {
    const { device } = table;
    const [rows, columns] = table.shape as [number, number];
    const vec4 = columns % 4 === 0;
    const width = vec4 ? columns / 4 : columns;
    const out = empty(device, shape);
    const size = ids.size * width;
    device.run(
      device.kernel(forwardSource, { VEC4: vec4 }),
      [table, ids, out],
      { size, rows, width, nan: NAN_BITS },
      Math.ceil(size / 64),
    );
    ctx.save(ids);
    return out;
  },
  backward(ctx, [grad]) {
    const ids = ctx.saved[0]!;
    const { device } = ids;
    const [rows, columns] = ctx.inputShape(0) as [number, number];
    const vec4 = columns % 4 === 0;
    const dtable = ctx.gradient(0);
    device.stream.clear({ ...dtable.window(), bytes: byteLength(dtable.size, dtable.dtype) });
    device.run(
      device.kernel(backwardSource, { VEC4: vec4 }),
      [ids, grad!, dtable],
      { positions: ids.size, rows, width: vec4 ? columns / 4 : columns },
      ids.size,
    );
    return [dtable, null];
  },
});

/**
 * Rows of a table (V, D) by i32 ids (…): (…, D). An id outside 0 … V − 1 gives a row of NaN and no gradient; `tokenIds`
 * refuses such ids on the host.
 */
export const embedding = (table: Tensor, ids: Tensor): Tensor => apply(embeddingOp, [table, ids], {});

/** Ids of the host as a tensor for a table of `rows` rows; throws where one is out of range. */
export function tokenIds(device: Device, ids: ArrayLike<number>, shape: Shape, rows: number): Tensor {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (!Number.isInteger(id) || id < 0 || id >= rows)
      throw new Error(
        `[embedding] id ${id} at position ${i} is no row of a table of ${rows}: ids are 0 to ${rows - 1}`,
      );
  }
  return tensor(device, ids, shape, { dtype: 'i32' });
}
