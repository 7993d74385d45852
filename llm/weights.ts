/** What a decoder's weights are kept in, and what rounding them costs. */
import { decode, encode, f16ToF32, f32ToF16, formatMultiple, formatShape, isStorageFormat } from '../engine/index.ts';
import { WEIGHT_FORMATS } from '../nn/module.ts';
import type { LoadOptions, WeightFormat, Weights } from '../nn/module.ts';

export interface TransformerOptions {
  /**
   * What the weights of products and the table of embeddings are kept in, f32 by default; norms and biases are f32. The
   * model is trained in f32 alone. Rows in q8 and q4 are multiples of 32 values.
   */
  readonly weights?: WeightFormat;
}

/** What `Module.load` is told for a decoder. */
export const loadOptions = ({ weights = 'f32' }: TransformerOptions): LoadOptions => {
  if (!WEIGHT_FORMATS.includes(weights))
    throw new Error(`[load] weights are ${WEIGHT_FORMATS.join(', ')}, not ${String(weights)}`);
  return { format: (_, shape) => (shape.length === 2 ? weights : 'f32') };
};

export interface WeightError {
  readonly name: string;
  readonly shape: readonly number[];
  readonly format: WeightFormat;
  /** ‖w − ŵ‖ / ‖w‖; 0 where all weights are. */
  readonly relative: number;
  /** The largest |w − ŵ|. */
  readonly largest: number;
}

/** Values as a format holds them. */
export function rounded(values: Float32Array, format: WeightFormat): Float32Array {
  if (format === 'f32') return values;
  if (format === 'f16') return f16ToF32(f32ToF16(values));
  return decode(encode(values, format).buffer, values.length, format);
}

/**
 * The error of each tensor of a file that a model would keep in `format`: of those with two dimensions, as
 * `loadTransformer` does. On the host, one tensor at a time; what the file has in the format's own blocks has none. Throws on
 * rows and values that the format doesn't hold.
 */
export async function* weightErrors(weights: Weights, format: WeightFormat): AsyncGenerator<WeightError> {
  for (const [name, { shape }] of weights.tensors) {
    if (shape.length !== 2) continue;
    if (isStorageFormat(format) && shape[1]! % formatMultiple(format) !== 0)
      throw new Error(`[weights] ${weights.name}: ${name} is ${formatShape(shape)}, and rows in ${format} are multiples of ${formatMultiple(format)}; take f16`); // prettier-ignore
    const own = (format === 'q8' || format === 'q4') && (await weights.blocks?.(name, format));
    const values = own ? new Float32Array(0) : await weights.floats(name);
    const kept = roundedOf(values, format, `${weights.name}: ${name}`);
    let [errors, squares, largest] = [0, 0, 0];
    for (let i = 0; i < values.length; i++) {
      const error = Math.abs(values[i]! - kept[i]!);
      errors += error ** 2;
      squares += values[i]! ** 2;
      if (error > largest) largest = error;
    }
    yield { name, shape, format, relative: squares === 0 ? 0 : Math.sqrt(errors / squares), largest };
  }
}

function roundedOf(values: Float32Array, format: WeightFormat, name: string): Float32Array {
  try {
    return rounded(values, format);
  } catch (error) {
    throw new Error(`[weights] ${name}: ${(error as Error).message}`, { cause: error });
  }
}
