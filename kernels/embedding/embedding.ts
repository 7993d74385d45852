import {
  apply,
  byteLength,
  clear,
  empty,
  formatShape,
  isStorageFormat,
  operation,
  scalesOffset,
  Tensor,
  tensor,
  typed,
  view,
  wgsl,
} from '../../engine/index.ts';
import type { Device, Shape } from '../../engine/index.ts';
import { addRuns } from '../indexing/indexing.ts';
import { reader, refuseGradient } from '../matmul/formats.ts';
import { sortedPairs } from '../sort/order.ts';

const source = wgsl(import.meta.url, './embedding.wgsl');

const NAN_BITS = 0x7fc00000;

/** Rows of a table that are bound at once: (rows, D) from row `first` on. */
interface Part {
  readonly first: number;
  readonly rows: number;
}

/** Cuts a table into parts that can be bound, and that begin where bindings may: at multiples of 256 bytes. */
function partsOf({ device, shape, dtype }: Tensor): Part[] {
  const [rows, columns] = shape as [number, number];
  const bytes = byteLength(columns * 4096, dtype) / 4096; // of a row, with its share of the scales
  if (rows * bytes <= device.bindingLimit) return [{ first: 0, rows }];
  // Elements in 256 bytes of values and, in a block format, of scales.
  const granule = dtype === 'q8' || dtype === 'q4' ? 4096 : 128;
  let step = 1;
  while ((step * columns) % granule !== 0) step *= 2;
  const most = Math.floor(device.bindingLimit / bytes / step) * step;
  if (most === 0)
    throw new Error(
      `[embedding] ${step} rows of the table ${formatShape(shape)} exceed the ${device.bindingLimit} bytes that can be bound at once here`,
    );
  return Array.from({ length: Math.ceil(rows / most) }, (_, i) => ({
    first: i * most,
    rows: Math.min(most, rows - i * most),
  }));
}

/** What is bound for a part of a table: its values and, in a block format, their scales. */
function bindingsOf(table: Tensor, { first, rows }: Part): Tensor[] {
  const { dtype, storage, device } = table;
  const columns = table.shape[1]!;
  if (!isStorageFormat(dtype)) return [view(table, byteLength(first * columns, dtype), [rows, columns])];
  const words = (offset: number, bytes: number): Tensor => {
    storage.retain();
    return new Tensor(device, storage, table.offset + offset, [Math.ceil(bytes / 4)], 'u32');
  };
  const at = scalesOffset(first * columns, dtype);
  const values = words(at, scalesOffset(rows * columns, dtype));
  if (dtype === 'bf16') return [values];
  const scales = scalesOffset(table.size, dtype) + (first * columns) / 16; // f16 for 32 values
  return [values, words(scales, (rows * columns) / 16)];
}

const embeddingOp = operation<readonly [Tensor, Tensor], { dtype: 'f32' | 'f16' }>({
  name: 'embedding',
  dtypes: ['any', 'i32'],
  shape([table, ids]) {
    if (table.dtype === 'i32' || table.dtype === 'u32')
      throw new Error(`[embedding] the table is ${table.dtype}; f32, f16, bf16, q8 or q4 is needed`);
    if (table.shape.length !== 2)
      throw new Error(`[embedding] the table must be (V, D), not ${formatShape(table.shape)}`);
    return [...ids.shape, table.shape[1]!];
  },
  forward(ctx, [table, ids], { dtype }, shape) {
    if (ctx.needs[0]) refuseGradient('embedding', table);
    const { device } = table;
    const [total, columns] = table.shape as [number, number];
    const unit = columns % 4 === 0 ? 4 : 1;
    const out = empty(device, shape, isStorageFormat(table.dtype) ? dtype : table.dtype);
    const size = out.size / unit;
    const text = unit === 4 ? reader('table', table.dtype, 1, 3) : '';
    const kernel = device.kernel(source, { ...typed(out), VEC4: unit === 4, FORMAT: table.dtype, TABLE: text });
    for (const part of partsOf(table)) {
      const [values, ...scales] = bindingsOf(table, part) as [Tensor, ...Tensor[]];
      const params = { size, ...part, total, width: columns / unit, nan: NAN_BITS };
      device.run(kernel, [ids, values, out, ...scales], params, Math.ceil(size / 64));
    }
    ctx.save(ids);
    return out;
  },
  backward(ctx, [grad]) {
    const ids = ctx.saved[0]!;
    const dtable = ctx.gradient(0);
    const pairs = sortedPairs(view(ids, 0, [ids.size]), 0);
    const rows = view(grad!, 0, [ids.size, dtable.shape[1]!]);
    clear(dtable);
    for (const part of partsOf(dtable)) {
      const [values] = bindingsOf(dtable, part);
      addRuns(values!, rows, 0, pairs, 'shared', part.first);
    }
    return [dtable, null];
  },
});

export interface EmbeddingOptions {
  /** Of the result where the table is in a storage format (bf16, q8, q4), f32 by default; else it is the table's. */
  dtype?: 'f32' | 'f16';
}

/**
 * Rows of a table (V, D) by i32 ids (…): (…, D). An id outside 0 … V − 1 gives a row of NaN and no gradient; `tokenIds`
 * refuses such ids on the host. The table may be larger than what the adapter binds at once, and stored in bf16, q8 or q4,
 * which gets no gradient.
 */
export const embedding = (table: Tensor, ids: Tensor, { dtype = 'f32' }: EmbeddingOptions = {}): Tensor =>
  apply(embeddingOp, [table, ids], { dtype });

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
