/**
 * How kernels read a matrix of any dtype, storage formats among them: `formats.wgsl`, inserted for one of their inputs.
 *
 *     @group(0) @binding(0) var<storage, read> ids: array<i32>;
 *     $TABLE                                     // declares the input and load_table(i): elements 4·i … 4·i + 3, in f32
 *     …
 *     let x = load_table((row * params.width + column) / 4u);
 *
 *     device.kernel(source, { FORMAT: table.dtype, TABLE: reader('table', table.dtype, 1, 3) })
 *     device.run(kernel, [ids, table, out, ...scalesOf(table)], …)
 *
 * `FORMAT` puts the format into the kernel's name; the inserted text itself doesn't show there. Rows begin at multiples of
 * four elements: storage formats see to that, and f32 and f16 are read so where the extent allows it.
 */
import { isStorageFormat, preprocess, scalesOffset, Tensor, wgsl } from '../../engine/index.ts';
import type { DType } from '../../engine/index.ts';

const source = wgsl(import.meta.url, './formats.wgsl');
const texts = new Map<string, string>();

/** Formats that bind their scales beside their values. */
export const hasScales = (dtype: DType): dtype is 'q8' | 'q4' => dtype === 'q8' || dtype === 'q4';

/**
 * The text that declares input `name` at `binding` (and its scales at `scales`, if it has any) and `load_<name>`. Scales
 * that are read by the same binding, `'inside'`, begin at the word that the kernel's `scales_at_<name>()` says.
 */
export function reader(name: string, dtype: DType, binding: number, scales: number | 'inside'): string {
  const key = `${name} ${dtype} ${binding} ${scales}`;
  let text = texts.get(key);
  if (text === undefined) {
    const defines = {
      NAME: name,
      BINDING: binding,
      SCALES: scales,
      INSIDE: scales === 'inside',
      BLOCKS: hasScales(dtype),
      [dtype.toUpperCase()]: true,
    };
    texts.set(key, (text = preprocess(source.name, source.text!, defines)));
  }
  return text;
}

/** What is bound beside a tensor: its scales, if it has any. */
export function scalesOf(weight: Tensor): Tensor[] {
  if (!hasScales(weight.dtype)) return [];
  const offset = scalesOffset(weight.size, weight.dtype);
  weight.storage.retain();
  return [new Tensor(weight.device, weight.storage, weight.offset + offset, [Math.ceil(weight.size / 64)], 'u32')];
}

/**
 * Throws, in the name of an operation, where a gradient by a weight in a storage format is asked for, or by one of another
 * dtype than `beside`: call it where `ctx.needs` says so.
 */
export function refuseGradient(operation: string, weight: Tensor, beside = weight): void {
  const { dtype } = weight;
  if (isStorageFormat(dtype) || dtype !== beside.dtype)
    throw new Error(
      `[${operation}] a weight in ${dtype} is stored, not trained: it has no gradient. Keep it in f32 for that`,
    );
}
