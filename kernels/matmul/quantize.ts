import {
  apply,
  BLOCK,
  empty,
  formatMultiple,
  formatShape,
  isStorageFormat,
  operation,
  packBlocks,
  sizeOf,
  STORAGE_FORMATS,
  tensor,
  wgsl,
} from '../../engine/index.ts';
import type { Blocks, Device, Shape, StorageFormat, Tensor } from '../../engine/index.ts';
import { reader, scalesOf } from './formats.ts';

const source = wgsl(import.meta.url, './dequantize.wgsl');

/**
 * A weight in a storage format that `linear`, `matmul` (as b) and `embedding` read directly: bf16 (16 bits a value), q8 (8.5)
 * or q4 (4.5); engine/formats.ts defines them. Rounded on the host. Throws where rows are no multiple of 4 (bf16) or 32
 * values, and where a value of q8 or q4 is not finite or too large.
 */
export function quantize(device: Device, values: ArrayLike<number>, shape: Shape, format: StorageFormat): Tensor {
  checkRows('quantize', shape, format, STORAGE_FORMATS);
  return tensor(device, values, shape, { dtype: format });
}

/**
 * A weight in q8 or q4 from blocks that are quantised already, such as GGUF's Q8_0 and Q4_0 (whose quants are 0 … 15, less
 * 8), without a change: x = scale · quant, 32 neighbours of a row to a scale.
 */
export function fromBlocks(device: Device, blocks: Blocks, shape: Shape, format: 'q8' | 'q4'): Tensor {
  checkRows('fromBlocks', shape, format, ['q8', 'q4']);
  const { quants, scales } = blocks;
  const size = sizeOf(shape);
  if (quants.length !== size || scales.length !== size / BLOCK)
    throw new Error(
      `[fromBlocks] ${formatShape(shape)} needs ${size} quants and ${size / BLOCK} scales, got ${quants.length} and ${scales.length}`,
    );
  const result = empty(device, shape, format);
  if (size > 0) device.stream.write(result.window(), packBlocks(blocks, format));
  return result;
}

function checkRows(operation: string, shape: Shape, format: StorageFormat, formats: readonly StorageFormat[]): void {
  if (!formats.includes(format))
    throw new Error(`[${operation}] ${format} is none of the formats ${formats.join(', ')}`);
  const multiple = formatMultiple(format);
  if (shape.length === 0 || shape.at(-1)! % multiple !== 0)
    throw new Error(
      `[${operation}] rows in ${format} are multiples of ${multiple} values; ${formatShape(shape)} has rows of ${shape.at(-1) ?? 1}`,
    );
}

const dequantizeOp = operation<readonly [Tensor], object>({
  name: 'dequantize',
  dtypes: 'any',
  shape([x]) {
    if (!isStorageFormat(x.dtype))
      throw new Error(`[dequantize] ${x.dtype} is no storage format (${STORAGE_FORMATS.join(', ')})`);
    return x.shape;
  },
  forward(_ctx, [x], _, shape) {
    const { device, dtype } = x;
    const out = empty(device, shape);
    const kernel = device.kernel(source, { FORMAT: dtype, X: reader('x', dtype, 0, 2) });
    device.run(kernel, [x, out, ...scalesOf(x)], { size: x.size / 4 }, Math.ceil(x.size / 256));
    return out;
  },
  backward(_ctx, _grads) {
    throw new Error('[dequantize] stored weights are not trained: there is no gradient');
  },
});

/** The values, in f32, that a tensor in a storage format stands for. No gradient. */
export const dequantize = (x: Tensor): Tensor => apply(dequantizeOp, [x], {});
