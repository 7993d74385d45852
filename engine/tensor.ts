import type { Device } from './device.ts';
import { f16ToF32, f32ToF16 } from './float16.ts';
import { decode, encode, formatBytes, formatMultiple, isStorageFormat, STORAGE_FORMATS } from './formats.ts';
import type { StorageFormat } from './formats.ts';
import type { Defines } from './kernel.ts';
import { ALIGNMENT, GUARD_BYTES } from './memory.ts';
import type { Storage } from './memory.ts';
import type { Window } from './stream.ts';
import { checkShape, formatShape, sizeOf } from './shape.ts';
import type { Shape } from './shape.ts';
import type { TapeNode } from './tape.ts';

/** What kernels compute with, and the formats that weights are stored in (engine/formats.ts). */
export type DType = 'f32' | 'f16' | 'i32' | 'u32' | StorageFormat;
export type HostArray = Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

const BYTES: Record<Exclude<DType, StorageFormat>, number> = { f32: 4, f16: 2, i32: 4, u32: 4 };
const DTYPES: readonly string[] = [...Object.keys(BYTES), ...STORAGE_FORMATS];

/** Throws where a program without types asks for a dtype that there isn't. */
export function requireDType(operation: string, dtype: DType): void {
  if (!DTYPES.includes(dtype)) throw new Error(`[${operation}] ${dtype} is no dtype: there are ${DTYPES.join(', ')}`);
}

/** What a kernel is specialised by to read and write `array<$T>` of this dtype; it computes in f32 either way. */
export const typed = ({ dtype }: { dtype: DType }): Defines =>
  dtype === 'f16' ? { T: 'f16', F16: true } : { T: dtype };

/** Bytes that a tensor occupies; odd f16 counts are padded to whole words. */
export function byteLength(size: number, dtype: DType): number {
  if (isStorageFormat(dtype)) return formatBytes(size, dtype);
  return Math.ceil((size * BYTES[dtype]) / 4) * 4;
}

/** A contiguous array on the device, row-major. Operations on tensors are functions. */
export class Tensor {
  readonly device: Device;
  readonly storage: Storage;
  /** Where the tensor begins in its storage, in bytes: a multiple of 256. */
  readonly offset: number;
  readonly shape: Shape;
  readonly dtype: DType;
  /** Number of elements. */
  readonly size: number;
  /** Set on leaves (parameters): `backward` accumulates into `grad`. */
  requiresGrad = false;
  grad: Tensor | null = null;
  /** Where the gradient of a leaf is to lie (an arena's window); without it, `backward` takes fresh memory. */
  gradTarget: Tensor | null = null;
  /** The operation that made this tensor, while the tape records. */
  node: TapeNode | null = null;
  #window: Window | null = null;

  /** Wraps held storage; the tensor belongs to the innermost scope, or to the caller. */
  constructor(device: Device, storage: Storage, offset: number, shape: Shape, dtype: DType) {
    this.device = device;
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.dtype = dtype;
    this.size = sizeOf(shape);
    device.scope?.tensors.push(this);
  }

  /** True for leaves that want a gradient and for what was computed from them. */
  get tracked(): boolean {
    return this.requiresGrad || this.node !== null;
  }

  /** The window that kernels bind; computes a pending content. Throws when the tensor was released. */
  window(): Window {
    if (this.storage.released)
      throw new Error(
        `[tensor] ${formatShape(this.shape)} is used after its release: return it from its scope, or keep() it`,
      );
    return (this.#window ??= windowOf(this.storage, this.offset, byteLength(this.size, this.dtype)));
  }

  /** Copies the values to the host. f16 and storage formats are widened to f32. */
  async read(): Promise<HostArray> {
    const buffer = await this.device.read(this.window(), byteLength(this.size, this.dtype));
    if (this.dtype === 'i32') return new Int32Array(buffer);
    if (this.dtype === 'u32') return new Uint32Array(buffer);
    if (this.dtype === 'f32') return new Float32Array(buffer);
    if (isStorageFormat(this.dtype)) return decode(buffer, this.size, this.dtype);
    return f16ToF32(new Uint16Array(buffer)).slice(0, this.size);
  }

  /** The value of a tensor of one element. */
  async item(): Promise<number> {
    if (this.size !== 1) throw new Error(`[tensor] item() needs one element, not ${formatShape(this.shape)}`);
    return (await this.read())[0]!;
  }
}

/**
 * `bytes` of a storage from a byte offset, as kernels bind them: rounded up to 16 so that the last `vec4f` is whole (size
 * classes leave room for it).
 */
export function windowOf(storage: Storage, offset: number, bytes: number): Window {
  const { block } = storage;
  // With guard words a whole tensor's window covers them too, so that writes past its end are seen.
  if (block.guarded && offset === 0 && bytes === block.used) return { block, offset, bytes: block.bytes + GUARD_BYTES };
  return { block, offset, bytes: Math.max(16, Math.ceil(bytes / 16) * 16) };
}

/** f16 becomes f32 where the adapter has no f16, so that programs run alike. */
export const computedDType = (device: Device, dtype: DType): DType =>
  dtype === 'f16' && !device.profile.f16 ? 'f32' : dtype;

/**
 * Uninitialised memory of the given shape; f16 as `computedDType` says. Sizes are rounded up to classes, so that memory is
 * found again; `exact`: not so, for what is large and lives long.
 */
export const empty = (
  device: Device,
  shape: Shape,
  dtype: DType = 'f32',
  tag?: string,
  { exact = false }: { exact?: boolean } = {},
): Tensor => allocate(device, shape, dtype, tag, { exact });

/** `how`: see `Pool.allocate`. */
function allocate(
  device: Device,
  shape: Shape,
  asked: DType,
  tag: string | undefined,
  how: { exact?: boolean; unused?: boolean },
): Tensor {
  checkShape('empty', shape);
  requireDType('empty', asked);
  const dtype = computedDType(device, asked);
  if (isStorageFormat(dtype) && !((shape.at(-1) ?? 1) % formatMultiple(dtype) === 0))
    throw new Error(
      `[empty] rows in ${dtype} are multiples of ${formatMultiple(dtype)} values; ${formatShape(shape)} has rows of ${shape.at(-1) ?? 1}`,
    );
  const storage = device.memory.allocate(byteLength(sizeOf(shape), dtype), tag, how);
  return new Tensor(device, storage, 0, shape, dtype);
}

/** Zeros of the given shape; f16 as `computedDType` says. */
export function zeros(device: Device, shape: Shape, dtype: DType = 'f32', tag?: string): Tensor {
  const result = empty(device, shape, dtype, tag);
  clear(result);
  return result;
}

/** Sets all of a tensor to 0. */
export function clear(target: Tensor): void {
  // The tensor alone: with guard words the window reaches further.
  target.device.stream.clear({ ...target.window(), bytes: byteLength(target.size, target.dtype) });
}

/** Copies a tensor's values into another one of its size and dtype. */
export function copy(source: Tensor, target: Tensor): void {
  target.device.stream.copy(source.window(), target.window(), byteLength(source.size, source.dtype));
}

export interface TensorOptions {
  dtype?: DType;
  /** What the memory is accounted under. */
  tag?: string;
}

/** A tensor with the host's values. f32 by default, i32 and u32 from arrays of that type. */
export function tensor(
  device: Device,
  data: ArrayLike<number>,
  shape: Shape = [data?.length],
  { dtype = defaultDType(data), tag }: TensorOptions = {},
): Tensor {
  if (!(device as Device | undefined)?.memory)
    throw new Error('[tensor] a device comes first: tensor(device, data, shape)');
  requireFlat('tensor', data);
  checkShape('tensor', shape);
  requireDType('tensor', dtype);
  if (data.length !== sizeOf(shape))
    throw new Error(`[tensor] ${formatShape(shape)} needs ${sizeOf(shape)} values, got ${data.length}`);
  const result = allocate(device, shape, dtype, tag, { unused: true }); // a replay writes no host values: they stay where they are
  write(result, data);
  return result;
}

/** Overwrites a tensor with the host's values. */
export function write(target: Tensor, data: ArrayLike<number>): void {
  requireFlat('write', data);
  if (data.length !== target.size)
    throw new Error(`[write] ${formatShape(target.shape)} needs ${target.size} values, got ${data.length}`);
  if (target.size === 0) return;
  target.device.stream.write(target.window(), toBytes(data, target.dtype));
}

/** A tensor that shares the memory of `source` from a byte offset (a multiple of 256): the windows of an arena. */
export function view(source: Tensor, offset: number, shape: Shape): Tensor {
  if (offset % ALIGNMENT !== 0) throw new Error(`[view] offsets are multiples of ${ALIGNMENT} bytes, not ${offset}`);
  const bytes = byteLength(sizeOf(shape), source.dtype);
  if (isStorageFormat(source.dtype) && (offset !== 0 || sizeOf(shape) !== source.size))
    throw new Error(`[view] a tensor in ${source.dtype} has no windows: its scales lie behind all of its values`);
  if (offset + bytes > byteLength(source.size, source.dtype))
    throw new Error(
      `[view] ${formatShape(shape)} at byte ${offset} reaches past the end of ${formatShape(source.shape)}`,
    );
  source.storage.retain();
  return new Tensor(source.device, source.storage, source.offset + offset, shape, source.dtype);
}

/** Throws where a program without types gives something else for values. */
function requireFlat(operation: string, data: ArrayLike<unknown> | null | undefined): void {
  if (typeof data?.length !== 'number')
    throw new Error(`[${operation}] the data must be an array of numbers, not ${String(data)}`);
  if (typeof data[0] === 'object')
    throw new Error(
      `[${operation}] the data are nested; give flat data and a shape: tensor(device, [1, 2, 3, 4], [2, 2])`,
    );
}

function defaultDType(data: ArrayLike<number>): DType {
  if (data instanceof Int32Array) return 'i32';
  if (data instanceof Uint32Array) return 'u32';
  return 'f32';
}

/** Throws on a number that the dtype does not hold, which a typed array would bend into one that it does. */
function wholeNumbers(
  data: ArrayLike<number>,
  dtype: 'i32' | 'u32',
): Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer> {
  const values = dtype === 'i32' ? Int32Array.from(data) : Uint32Array.from(data);
  const bent = values.findIndex((value, i) => value !== data[i]);
  if (bent >= 0)
    throw new Error(
      `[tensor] element ${bent} is ${data[bent]}, which ${dtype} does not hold: give whole numbers in its range`,
    );
  return values;
}

function toBytes(data: ArrayLike<number>, dtype: DType): ArrayBufferView<ArrayBuffer> {
  if (dtype === 'f32')
    return data instanceof Float32Array ? (data as Float32Array<ArrayBuffer>) : Float32Array.from(data);
  if (dtype === 'i32')
    return data instanceof Int32Array ? (data as Int32Array<ArrayBuffer>) : wholeNumbers(data, dtype);
  if (dtype === 'u32')
    return data instanceof Uint32Array ? (data as Uint32Array<ArrayBuffer>) : wholeNumbers(data, dtype);
  if (isStorageFormat(dtype)) return encode(data, dtype);
  const padded = new Float32Array(Math.ceil(data.length / 2) * 2);
  padded.set(data);
  return f32ToF16(padded);
}
