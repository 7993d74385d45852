/**
 * Storage formats of weights, on the host. Kernels compute in f32 and decode as they read (kernels/matmul/formats.ts).
 *
 * - bf16: the upper half of an f32, rounded to nearest, ties to even; two to a word, the first one low.
 * - q8: x ≈ d · q with q in −128 … 127, a scale d (f16) for each block of 32 neighbours: 8.5 bits a value.
 * - q4: x ≈ d · q with q in −8 … 7 (stored as q + 8), likewise: 4.5 bits a value. A minimum beside the scale (5 bits a
 *   value) lowers the error of normal values from 8.2 to 7.8 % only, where half a bit is worth a quarter of it.
 *
 * q8 and q4 are the numbers of GGUF's Q8_0 and Q4_0 in another order, so that such blocks convert without loss
 * (`packBlocks`): all quants in words, the first one lowest; then, from a multiple of 256 bytes on, all scales, two to a
 * word. So kernels read quants as whole aligned words, and both parts can be bound from any multiple of 256 bytes on.
 */
import { f16ToF32, f32ToF16 } from './float16.ts';

export type StorageFormat = 'bf16' | 'q8' | 'q4';

/** Neighbours of q8 and q4 that share a scale. */
export const BLOCK = 32;

/** Bits of a value, without its share of the scale. */
const BITS: Record<StorageFormat, number> = { bf16: 16, q8: 8, q4: 4 };

export const STORAGE_FORMATS = Object.keys(BITS) as readonly StorageFormat[];

/** Rows of a tensor in this format are multiples of so many values. */
export const formatMultiple = (format: StorageFormat): number => (format === 'bf16' ? 4 : BLOCK);

export const isStorageFormat = (dtype: string): dtype is StorageFormat => dtype in BITS;

/** Where the scales begin, in bytes; the end of a format without scales. */
export function scalesOffset(size: number, format: StorageFormat): number {
  const bytes = (size * BITS[format]) / 8;
  return format === 'bf16' ? Math.ceil(bytes / 4) * 4 : Math.ceil(bytes / 256) * 256;
}

/** Bytes of `size` values with their scales. */
export const formatBytes = (size: number, format: StorageFormat): number =>
  scalesOffset(size, format) + (format === 'bf16' ? 0 : Math.ceil(size / BLOCK / 2) * 4);

/** Quants q of q8 or q4, and the f16 bits of the blocks' scales. */
export interface Blocks {
  readonly quants: Int8Array;
  readonly scales: Uint16Array;
}

/** What lies in memory for such blocks. */
export function packBlocks({ quants, scales }: Blocks, format: 'q8' | 'q4'): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(formatBytes(quants.length, format));
  if (format === 'q8') bytes.set(quants);
  else for (let i = 0; i < quants.length; i++) bytes[i >> 1]! |= (quants[i]! + 8) << (4 * (i & 1));
  new Uint16Array(bytes.buffer).set(scales, scalesOffset(quants.length, format) / 2);
  return bytes;
}

export function unpackBlocks(buffer: ArrayBuffer, size: number, format: 'q8' | 'q4'): Blocks {
  const bytes = new Uint8Array(buffer);
  const quants = new Int8Array(size);
  if (format === 'q8') quants.set(bytes.subarray(0, size));
  else for (let i = 0; i < size; i++) quants[i] = ((bytes[i >> 1]! >> (4 * (i & 1))) & 15) - 8;
  return { quants, scales: new Uint16Array(buffer, scalesOffset(size, format), size / BLOCK) };
}

/** Rounds values to a format. Throws where one is not finite, or too large for a scale in f16. */
export function encode(values: ArrayLike<number>, format: StorageFormat): Uint8Array<ArrayBuffer> {
  if (format === 'bf16') return encodeBf16(values);
  const quants = new Int8Array(values.length);
  const wanted = new Float32Array(1);
  const scales = new Uint16Array(values.length / BLOCK);
  const quantize = format === 'q8' ? quantizeQ8 : quantizeQ4;
  for (let block = 0; block < scales.length; block++) {
    const start = block * BLOCK;
    wanted[0] = quantize(values, start, quants);
    scales[block] = f32ToF16(wanted)[0]!;
  }
  return packBlocks({ quants, scales }, format);
}

export function decode(buffer: ArrayBuffer, size: number, format: StorageFormat): Float32Array<ArrayBuffer> {
  if (format === 'bf16') {
    const words = Uint32Array.from(new Uint16Array(buffer, 0, size), (bits) => bits << 16);
    return new Float32Array(words.buffer);
  }
  const blocks = unpackBlocks(buffer, size, format);
  const scales = f16ToF32(blocks.scales);
  return Float32Array.from(blocks.quants, (q, i) => q * scales[i >> 5]!);
}

function encodeBf16(values: ArrayLike<number>): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Float32Array.from(values).buffer);
  const halves = new Uint16Array(Math.ceil(words.length / 2) * 2);
  words.forEach((word, i) => {
    const nan = (word & 0x7fffffff) > 0x7f800000;
    halves[i] = nan ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  });
  return new Uint8Array(halves.buffer);
}

/** The nearest number with f16's 11 bits and exponents, of those below its largest. */
function roundToF16(value: number): number {
  const unit = 2 ** Math.max(Math.floor(Math.log2(Math.abs(value))) - 10, -24);
  return value === 0 ? 0 : Math.round(value / unit) * unit;
}

/** The value of largest magnitude in the block that begins at `start`. */
function extreme(values: ArrayLike<number>, start: number, format: StorageFormat, steps: number): number {
  let most = 0;
  for (let i = start; i < start + BLOCK; i++) {
    if (!(Math.abs(values[i]!) <= 65504 * steps))
      throw new Error(`[quantize] value ${i} is ${values[i]}: ${format} holds finite values up to ${65504 * steps}`);
    if (Math.abs(values[i]!) > Math.abs(most)) most = values[i]!;
  }
  return most;
}

function quantizeQ8(values: ArrayLike<number>, start: number, quants: Int8Array): number {
  const most = Math.abs(extreme(values, start, 'q8', 127));
  let scale = roundToF16(most / 127);
  // Among subnormal scales the nearest may be so far below that the largest value would be cut.
  if (most > 127.5 * scale) scale += 2 ** -24;
  for (let i = start; i < start + BLOCK; i++)
    quants[i] = scale === 0 ? 0 : Math.max(-127, Math.min(127, Math.round(values[i]! / scale)));
  return scale;
}

/** The nearest q of q4, given 1 / scale. */
const nearest = (value: number, inverse: number): number =>
  Math.max(-8, Math.min(7, Math.floor(value * inverse + 0.5)));

/**
 * The scale of least squared error among some: the largest value at −8 (as Q4_0 has it), at −9 (cut) or at −7, each also
 * refitted to the quants that it gives. That lowers the error of normal values from 8.6 to 8.2 %; twice as many, to 8.1.
 */
function quantizeQ4(values: ArrayLike<number>, start: number, quants: Int8Array): number {
  const most = extreme(values, start, 'q4', 7);
  let best = 0;
  let least = Infinity;
  /** Tries a scale; gives the one that fits its quants best. */
  const refit = (scale: number): number => {
    let error = 0;
    let xq = 0;
    let qq = 0;
    for (let i = start; i < start + BLOCK; i++) {
      const value = values[i]!;
      const q = nearest(value, 1 / scale);
      error += (value - q * scale) ** 2;
      xq += value * q;
      qq += q * q;
    }
    if (error < least) [least, best] = [error, scale];
    return qq === 0 ? 0 : roundToF16(xq / qq);
  };
  for (const steps of [-8, -9, -7]) {
    const scale = roundToF16(most / steps);
    const refitted = scale === 0 ? 0 : refit(scale);
    if (refitted !== 0 && refitted !== scale) refit(refitted);
    if (least === 0) break;
  }
  for (let i = start; i < start + BLOCK; i++) quants[i] = best === 0 ? 0 : nearest(values[i]!, 1 / best);
  return best;
}
