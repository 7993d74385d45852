import {
  apply,
  empty,
  formatMultiple,
  formatShape,
  isStorageFormat,
  operation,
  tensor,
  wgsl,
} from '../../engine/index.ts';
import type { Device, Shape, StorageFormat, Tensor } from '../../engine/index.ts';
import { reader, scalesOf } from './formats.ts';

const source = wgsl(import.meta.url, './dequantize.wgsl');

/**
 * A weight in a storage format that `linear`, `matmul` (as b) and `embedding` read directly: bf16 (16 bits a value), q8 (8.5)
 * or q4 (4.5); engine/formats.ts defines them. Rounded on the host. Throws where rows are no multiple of 4 (bf16) or 32
 * values, and where a value of q8 or q4 is not finite or too large.
 */
export function quantize(device: Device, values: ArrayLike<number>, shape: Shape, format: StorageFormat): Tensor {
  const multiple = formatMultiple(format);
  if (shape.length === 0 || shape.at(-1)! % multiple !== 0)
    throw new Error(
      `[quantize] rows in ${format} are multiples of ${multiple} values; ${formatShape(shape)} has rows of ${shape.at(-1) ?? 1}`,
    );
  return tensor(device, values, shape, { dtype: format });
}

const dequantizeOp = operation<readonly [Tensor], object>({
  name: 'dequantize',
  dtypes: 'any',
  shape([x]) {
    if (!isStorageFormat(x.dtype)) throw new Error(`[dequantize] ${x.dtype} is no storage format (bf16, q8, q4)`);
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
