/** The rows of the operations' table: everything that tests and benchmarks need to know of an operation. */
import type fc from 'fast-check';
import {
  decode,
  encode,
  f16ToF32,
  f32ToF16,
  formatShape,
  HostRandom,
  isStorageFormat,
  sameShape,
  sizeOf,
} from '../../engine/index.ts';
import type { DType, Shape, StorageFormat, Tensor } from '../../engine/index.ts';
import type * as operations from '../../kernels/index.ts';

/** A host array in float64, row-major. */
export interface NdArray {
  readonly shape: Shape;
  readonly data: Float64Array;
}

export function nd(shape: Shape, fill: (index: number) => number = () => 0): NdArray {
  const data = new Float64Array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) data[i] = fill(i);
  return { shape, data };
}

/** How one input is made: a shape of normal values, or a shape with its own values or dtype. */
export type InputSpec =
  | Shape
  | {
      readonly shape: Shape;
      /** Values for a storage format are rounded to it. */
      readonly dtype?: 'f32' | 'i32' | 'u32' | StorageFormat;
      /** Value i from a seeded generator; standard normal when absent. */
      readonly value?: (random: HostRandom, i: number) => number;
    };

export interface Sample<A> {
  readonly name?: string;
  /** `null` where an optional input is left out. */
  readonly inputs: readonly (InputSpec | null)[];
  readonly attributes: A;
  /** Compares the forward pass only: shapes too large for gradients on the host. */
  readonly forwardOnly?: boolean;
}

/** One operation `F`; `A` is what it takes besides tensors. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- any operation's signature
export interface Row<F extends (...args: any[]) => unknown, A = any> {
  /** Calls the operation. */
  readonly call: (operation: F, inputs: Tensor[], attributes: A) => Tensor;
  /** The same in float64, written from the definition and independent of the kernels. */
  readonly reference: (inputs: NdArray[], attributes: A) => NdArray;
  readonly samples: readonly Sample<A>[];
  /** Which inputs have a gradient; `'none'` where the operation has none. */
  readonly gradient: readonly number[] | 'none';
  /** Random samples for property tests; their shapes stay small. */
  readonly arbitrary?: fc.Arbitrary<Sample<A>>;
  /** Calls that must throw, with what the message must match. `t` makes a tensor of a shape. */
  readonly bad?: readonly (readonly [(operation: F, t: (shape: Shape, dtype?: DType) => Tensor) => unknown, RegExp])[];
  /**
   * |error| ≤ relative · (|reference| + largest |reference|). The default, 2e-6, is 17 units of f32's rounding (2⁻²³):
   * short chains of correctly rounded operations and sums of a few hundred terms. A row that needs more says why.
   */
  readonly tolerance?: number;
  /** The same for gradients; twice the forward's by default. */
  readonly gradientTolerance?: number;
  /**
   * f16 storage: the first sample is run so as well, its floats rounded to f16. Results and gradients may then be off by
   * so many units of f16's rounding (2⁻¹¹) more; 1 and 4 by default: a result is rounded once, a gradient is made from
   * saved values that were rounded as well. A row that needs more says why; `'none'`: so does one that takes f32 alone.
   */
  readonly f16?: number | 'none';
  /** What the benchmark runs, and the arithmetic operations of one forward pass. */
  readonly bench?: readonly (Sample<A> & { readonly flops: number })[];
}

type Callable<T> = { [K in keyof T as T[K] extends (...args: never[]) => unknown ? K : never]: T[K] };
type Operations = Callable<typeof operations>;

/** Helpers that `kernels/` exports and that are no operations. */
type NotAnOperation =
  | 'appendSummaries'
  | 'attentionWithLogSumExp'
  | 'cacheGather'
  | 'cacheWrite'
  | 'clearCounts'
  | 'composedGuidedStep'
  | 'decodeAttention'
  | 'decodeGate'
  | 'decodeNorm'
  | 'decodeProduct'
  | 'decodeProject'
  | 'decodeStates'
  | 'decodes'
  | 'decodeSamples'
  | 'emptySummaries'
  | 'encodeSampling'
  | 'fromBlocks'
  | 'mostNodesScored'
  | 'nodeCount'
  | 'quantize'
  | 'ropeFrequencies'
  | 'ropeTable'
  | 'sampledTokens'
  | 'samplingParameters'
  | 'tokenIds';

/** Every exported operation must have a row: leaving one out does not compile. */
export type Table = {
  readonly [K in Exclude<keyof Operations, NotAnOperation>]: Row<Extract<Operations[K], (...args: never[]) => unknown>>;
};

/** A part of the table: the rows of one family. */
export type Rows<K extends keyof Table> = Pick<Table, K>;

/** Values that a storage format holds as they are: a block rounded once may take another scale when it is rounded again. */
function stored(values: Float64Array, format: StorageFormat): Float64Array {
  const rounded = Float64Array.from(decode(encode(values, format).buffer, values.length, format));
  return rounded.every((value, i) => value === values[i]) ? rounded : stored(rounded, format);
}

/** Values of an input, the same for the same seed; `half`: floats rounded to f16. */
export function makeInput(spec: InputSpec, random: HostRandom, half = false): NdArray & { dtype: DType } {
  const { shape, dtype = 'f32', value } = 'shape' in spec ? spec : { shape: spec };
  const normal = value ? null : random.normal(sizeOf(shape));
  const { data } = nd(shape, (i) => (normal ? normal[i]! : Math.fround(value!(random, i))));
  if (isStorageFormat(dtype)) return { shape, data: stored(data, dtype), dtype };
  if (!half || dtype !== 'f32') return { shape, data, dtype };
  return { shape, data: Float64Array.from(f16ToF32(f32ToF16(Float32Array.from(data)))), dtype: 'f16' };
}

/** Applies `f` to elements of operands that broadcast to `shape`. */
export function broadcastMap(f: (...values: number[]) => number, ...operands: NdArray[]): NdArray {
  const rank = Math.max(...operands.map((operand) => operand.shape.length));
  const shape = Array.from({ length: rank }, (_, i) =>
    operands.reduce((extent, { shape: s }) => {
      const own = s[i - rank + s.length] ?? 1;
      return own === 1 ? extent : own;
    }, 1),
  );
  return nd(shape, (index) => {
    const values = operands.map(({ shape: s, data }) => {
      let at = 0;
      let step = 1;
      let rest = index;
      for (let i = rank - 1; i >= 0; i--) {
        const position = rest % shape[i]!;
        rest = Math.floor(rest / shape[i]!);
        const own = s[i - rank + s.length] ?? 1;
        if (own !== 1) at += position * step;
        step *= own;
      }
      return data[at]!;
    });
    return f(...values);
  });
}

/**
 * Throws with the place of the worst element unless `actual` is within tolerance of `expected`; `floor` is an error that
 * is not counted, of any size of value.
 */
export function expectClose(
  what: string,
  actual: ArrayLike<number>,
  expected: NdArray,
  tolerance: number,
  shape: Shape = expected.shape,
  floor = 0,
): void {
  if (!sameShape(shape, expected.shape))
    throw new Error(`${what}: shape ${formatShape(shape)}, expected ${formatShape(expected.shape)}`);
  let largest = 0;
  for (const value of expected.data) largest = Math.max(largest, Math.abs(value));
  let worst = -1;
  let at = 0;
  for (let i = 0; i < expected.data.length; i++) {
    const e = expected.data[i]!;
    const error = Math.max(0, Math.abs(actual[i]! - e) - floor) / (Math.abs(e) + largest + 1e-30);
    if (!(error <= worst)) [worst, at] = [error, i]; // a NaN error is the worst
    if (Number.isNaN(error)) break;
  }
  if (!(worst <= tolerance))
    throw new Error(
      `${what}: element ${at} is ${actual[at]}, expected ${expected.data[at]} (error ${worst.toExponential(2)} > ${tolerance})`,
    );
}
