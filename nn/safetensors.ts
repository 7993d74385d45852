/**
 * The safetensors format (https://github.com/huggingface/safetensors): 8 bytes of header length (u64, little endian),
 * a JSON header { name: { dtype, shape, data_offsets: [start, end] }, "__metadata__": { string: string } }, then the
 * tensors' bytes, which the ranges cover without gap or overlap.
 *
 * The reader trusts no number in the file: all are checked against the file's size before memory is taken for them.
 * It knows bytes, not files, so that it serves a browser too; files are in `files.ts`.
 */
import { f16ToF32, f32ToF16 } from '../engine/float16.ts';
import { decode } from '../engine/formats.ts';

const ITEM_BYTES = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1 };
export type SafetensorsDType = keyof typeof ITEM_BYTES;

/** The reference implementation's limit; SD 1.5's largest header has 130 KB. */
const MAX_HEADER = 100_000_000;

/** A file, or bytes in memory, read by ranges: `read` returns end − start bytes in a buffer of their own. */
export interface ByteSource {
  readonly name: string;
  readonly size: number;
  read(start: number, end: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

export interface TensorInfo {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** Byte range in the file. */
  readonly start: number;
  readonly end: number;
}

export class SafetensorsError extends Error {
  override name = 'SafetensorsError';
}

/** Bytes in memory as a source. */
export function bytesSource(bytes: Uint8Array, name = 'bytes'): ByteSource {
  return {
    name,
    size: bytes.length,
    // Not slice(): a Node Buffer's gives a view of the same memory.
    read: (start, end) => Promise.resolve(new Uint8Array(bytes.subarray(start, end))),
    close: () => Promise.resolve(),
  };
}

/** An open safetensors file: names, shapes and types at hand, data read when asked for. */
export class Safetensors {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #source: ByteSource;

  constructor(source: ByteSource, tensors: Map<string, TensorInfo>, metadata: Record<string, string>) {
    this.#source = source;
    this.tensors = tensors;
    this.metadata = metadata;
  }

  /** What the file is called in messages. */
  get name(): string {
    return this.#source.name;
  }

  /** What is known of a tensor; an error where the file has none of that name. */
  info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (!info) throw new SafetensorsError(`[safetensors] ${this.name}: there is no tensor "${name}" in it`);
    return info;
  }

  /** A tensor's bytes as they are stored, little endian, at the start of a buffer of their own. */
  bytes(name: string): Promise<Uint8Array> {
    const { start, end } = this.info(name);
    return this.#source.read(start, end);
  }

  /** A floating-point tensor as f32: F16 and BF16 exactly, F64 rounded. */
  async floats(name: string): Promise<Float32Array> {
    const { dtype } = this.info(name);
    if (!(dtype in FLOATS)) this.#fail(name, `is ${dtype}, where a floating-point type is needed`);
    return FLOATS[dtype as keyof typeof FLOATS]((await this.bytes(name)).buffer as ArrayBuffer);
  }

  /** An integer or boolean tensor as i32; an I64 value that does not fit is an error. */
  async integers(name: string): Promise<Int32Array> {
    const { dtype } = this.info(name);
    if (dtype in FLOATS) this.#fail(name, `is ${dtype}, where an integer type is needed`);
    const buffer = (await this.bytes(name)).buffer as ArrayBuffer;
    if (dtype !== 'I64') return Int32Array.from(INTEGERS[dtype as keyof typeof INTEGERS](buffer));
    const wide = new BigInt64Array(buffer);
    const at = wide.findIndex((value) => value !== BigInt.asIntN(32, value));
    if (at >= 0) this.#fail(name, `has the value ${wide[at]} at element ${at}, which does not fit into 32 bits`);
    return Int32Array.from(wide, Number);
  }

  /** A tensor of any type: floats as f32, integers and booleans as i32. */
  read(name: string): Promise<Float32Array | Int32Array> {
    return this.info(name).dtype in FLOATS ? this.floats(name) : this.integers(name);
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  #fail(name: string, what: string): never {
    throw new SafetensorsError(`[safetensors] ${this.name}: tensor "${name}" ${what}`);
  }
}

const FLOATS = {
  F64: (b: ArrayBuffer) => Float32Array.from(new Float64Array(b)),
  F32: (b: ArrayBuffer) => new Float32Array(b),
  F16: (b: ArrayBuffer) => f16ToF32(new Uint16Array(b)),
  BF16: (b: ArrayBuffer) => decode(b, b.byteLength / 2, 'bf16'),
};

/** The integers of at most 32 bits. */
const INTEGERS = {
  I32: (b: ArrayBuffer) => new Int32Array(b),
  I16: (b: ArrayBuffer) => new Int16Array(b),
  I8: (b: ArrayBuffer) => new Int8Array(b),
  U8: (b: ArrayBuffer) => new Uint8Array(b),
  BOOL: (b: ArrayBuffer) => new Uint8Array(b),
};

/** Reads and checks the header of a safetensors file. Throws `SafetensorsError`, naming file, tensor and fault. */
export async function readSafetensors(source: ByteSource): Promise<Safetensors> {
  const fail = (what: string): never => {
    throw new SafetensorsError(`[safetensors] ${source.name}: ${what}`);
  };
  if (source.size < 8) fail(`${source.size} bytes are too few: a file begins with 8 bytes of header length`);
  const prefix = await source.read(0, 8);
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER)) {
    fail(`its header would have ${length} bytes, at most ${MAX_HEADER} are accepted; is it a safetensors file?`);
  }
  const dataStart = 8 + Number(length);
  if (dataStart > source.size) {
    fail(`it is truncated: the header ends at byte ${dataStart}, the file at byte ${source.size}`);
  }
  const header = parseHeader(await source.read(8, dataStart), fail);

  const tensors = new Map<string, TensorInfo>();
  let metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') {
      if (!isRecord(entry) || Object.values(entry).some((value) => typeof value !== 'string')) {
        fail('"__metadata__" must be an object of strings');
      }
      metadata = entry as Record<string, string>;
    } else {
      tensors.set(name, checkEntry(name, entry, dataStart, source.size, fail));
    }
  }

  // The ranges, in order of place, must tile the data: no gap, no overlap, nothing left over.
  let at = dataStart;
  let before = 'the header';
  const placed = [...tensors].sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  for (const [name, { start, end }] of placed) {
    const fault = start < at ? 'overlaps' : 'leaves a gap after';
    if (start !== at) fail(`tensor "${name}" starts at byte ${start} and ${fault} ${before}, which ends at byte ${at}`);
    at = end;
    before = `tensor "${name}"`;
  }
  if (at !== source.size) fail(`${source.size - at} bytes follow ${before}, where the file should end at byte ${at}`);
  return new Safetensors(source, tensors, metadata);
}

type Fail = (what: string) => never;

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseHeader(bytes: Uint8Array, fail: Fail): Record<string, unknown> {
  let text = '';
  let header: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch (error) {
    fail(`its header is not JSON in UTF-8: ${(error as Error).message}`);
  }
  if (!text.startsWith('{') || !isRecord(header)) return fail('its header must be a JSON object beginning with "{"');
  const twice = duplicateKey(text);
  if (twice !== undefined) fail(`its header has the key ${twice} twice`);
  return header;
}

/** The first key, as written, that stands twice in one object of a valid JSON text (JSON.parse keeps the last in silence). */
function duplicateKey(json: string): string | undefined {
  const open: Set<string>[] = [];
  const colon = /\s*:/y;
  for (let i = 0; i < json.length; i++) {
    if (json[i] === '{') open.push(new Set());
    else if (json[i] === '}') open.pop();
    else if (json[i] === '"') {
      const start = i++;
      while (json[i] !== '"') i += json[i] === '\\' ? 2 : 1;
      colon.lastIndex = i + 1;
      if (!colon.test(json)) continue; // a value
      const key = json.slice(start, i + 1);
      const name = JSON.parse(key) as string; // "a" and "\u0061" are one key
      if (open[open.length - 1].has(name)) return key;
      open[open.length - 1].add(name);
    }
  }
  return undefined;
}

/** A value from the file as JSON for a message, if it is short and shallow enough for that. */
function show(value: unknown): string {
  try {
    const json = JSON.stringify(value) ?? 'missing';
    return json.length <= 100 ? json : `${json.slice(0, 100)}…`;
  } catch {
    return '(nested too deeply to show)';
  }
}

/** One tensor's entry, its byte range made absolute. */
function checkEntry(name: string, entry: unknown, dataStart: number, size: number, failFile: Fail): TensorInfo {
  const fail: Fail = (what) => failFile(`tensor "${name}" ${what}`);
  if (!isRecord(entry)) return fail('must be an object with dtype, shape and data_offsets');
  for (const key of Object.keys(entry)) {
    if (!['dtype', 'shape', 'data_offsets'].includes(key)) fail(`has an unknown field "${key}"`);
  }
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string' || !Object.hasOwn(ITEM_BYTES, dtype)) {
    return fail(`has dtype ${show(dtype)}; known are ${Object.keys(ITEM_BYTES).join(', ')}`);
  }
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    return fail(`has shape ${show(shape)}; it must be a list of integers from 0 up`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount) || offsets[0] > offsets[1]) {
    return fail(`has data_offsets ${show(offsets)}; they must be two integers, start ≤ end`);
  }
  const dataSize = size - dataStart;
  if (offsets[1] > dataSize) {
    fail(`ends at byte ${offsets[1]} of the data, of which there are ${dataSize}: the file is truncated or damaged`);
  }
  let bytes = ITEM_BYTES[dtype as SafetensorsDType];
  for (const dim of shape) {
    bytes *= dim;
    if (!Number.isSafeInteger(bytes)) return fail(`has shape (${shape.join(', ')}), whose size is beyond counting`);
  }
  if (bytes !== offsets[1] - offsets[0]) {
    fail(
      `of shape (${shape.join(', ')}) and type ${dtype} needs ${bytes} bytes, its range has ${offsets[1] - offsets[0]}`,
    );
  }
  return { dtype: dtype as SafetensorsDType, shape, start: dataStart + offsets[0], end: dataStart + offsets[1] };
}

/** A tensor to write. `data` may be a function, called when its turn comes, so that one tensor at a time is in memory. */
export interface Writable {
  readonly dtype: 'F32' | 'F16' | 'I64' | 'I32';
  readonly shape: readonly number[];
  readonly data: HostData | (() => HostData | Promise<HostData>);
}
type HostData = Float32Array | Int32Array;

/**
 * A safetensors file as chunks of bytes. Floats go to F32 or F16 (rounded to nearest even), integers to I32 or I64. The
 * widest types come first and the header is padded to 8 bytes, so every tensor is aligned; among equals names are in order,
 * so the same tensors give the same bytes. Loaders of PyTorch weights want `metadata` to have `format: 'pt'`.
 */
export async function* encodeSafetensors(
  tensors: ReadonlyMap<string, Writable>,
  metadata: Record<string, string> = {},
): AsyncGenerator<Uint8Array> {
  const placed = [...tensors].sort(
    ([a, x], [b, y]) => ITEM_BYTES[y.dtype] - ITEM_BYTES[x.dtype] || (a < b ? -1 : a > b ? 1 : 0),
  );
  const header: Record<string, unknown> = Object.create(null); // a tensor may be called "__proto__"
  if (Object.keys(metadata).length > 0) header['__metadata__'] = metadata;
  let at = 0;
  for (const [name, { dtype, shape }] of placed) {
    if (name === '__metadata__') throw new SafetensorsError('[safetensors] "__metadata__" cannot be a tensor\'s name');
    const end = at + ITEM_BYTES[dtype] * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype, shape, data_offsets: [at, end] };
    at = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const prefix = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20); // padded with spaces
  new DataView(prefix.buffer).setBigUint64(0, BigInt(prefix.length - 8), true);
  prefix.set(json, 8);
  yield prefix;
  for (const [name, tensor] of placed) {
    const data = typeof tensor.data === 'function' ? await tensor.data() : tensor.data;
    const size = tensor.shape.reduce((a, b) => a * b, 1);
    if (data.length !== size) {
      throw new SafetensorsError(
        `[safetensors] tensor "${name}" of shape (${tensor.shape.join(', ')}) needs ${size} values, there are ${data.length}`,
      );
    }
    yield toBytes(name, tensor.dtype, data);
  }
}

function toBytes(name: string, dtype: Writable['dtype'], data: HostData): Uint8Array {
  if (data instanceof Float32Array !== (dtype === 'F32' || dtype === 'F16')) {
    const kind = data instanceof Float32Array ? 'floats' : 'integers';
    throw new SafetensorsError(`[safetensors] tensor "${name}" has ${kind}, which cannot be written as ${dtype}`);
  }
  const stored: ArrayBufferView =
    dtype === 'F16'
      ? f32ToF16(data as Float32Array)
      : dtype === 'I64'
        ? BigInt64Array.from(data as Int32Array, BigInt)
        : data;
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}
