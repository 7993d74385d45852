/**
 * The GGUF format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3, little endian: metadata by
 * key, then each tensor's name, dimensions (the fastest first), type and offset, then their bytes. The header is read and
 * written by @huggingface/gguf; the tensors' blocks are decoded here.
 *
 * No number of the header is trusted: counts, lengths and ranges are checked against the file's size before memory is taken
 * for them. It knows bytes, not files, so that it serves a browser too.
 */
import type { GGUFParseOutput, GGUFTypedMetadata, MetadataValue } from '@huggingface/gguf';
import { BLOCK, decode, encode, f16ToF32, f32ToF16, sizeOf, unpackBlocks } from '../engine/index.ts';
import type { Blocks, Shape } from '../engine/index.ts';
import type { ByteSource } from './safetensors.ts';

export class GgufError extends Error {
  override name = 'GgufError';
}

/** The library's numbers of the types of metadata. */
export const VALUE = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10 } as const;
const VALUE_BYTES: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};

/** The types that are read: their number, and values and bytes of a block. */
const TYPES = {
  F32: { id: 0, block: 1, bytes: 4, floats: (b: Uint8Array, size: number) => new Float32Array(b.buffer, 0, size) },
  F16: { id: 1, block: 1, bytes: 2, floats: (b: Uint8Array, size: number) => f16ToF32(new Uint16Array(b.buffer, 0, size)) }, // prettier-ignore
  BF16: { id: 30, block: 1, bytes: 2, floats: (b: Uint8Array, size: number) => decode(b.buffer as ArrayBuffer, size, 'bf16') }, // prettier-ignore
  Q8_0: { id: 8, block: 32, bytes: 34, floats: (b: Uint8Array) => scaled(blocksOf(b, 'Q8_0')) },
  Q4_0: { id: 2, block: 32, bytes: 18, floats: (b: Uint8Array) => scaled(blocksOf(b, 'Q4_0')) },
  Q4_K: { id: 12, block: 256, bytes: 144, floats: q4k },
  Q6_K: { id: 14, block: 256, bytes: 210, floats: q6k },
} as const;
export type GgufType = keyof typeof TYPES;

/** Those that are not, by their numbers, for messages. */
const OTHERS: Readonly<Record<number, string>> = {
  3: 'Q4_1', 6: 'Q5_0', 7: 'Q5_1', 9: 'Q8_1', 10: 'Q2_K', 11: 'Q3_K', 13: 'Q5_K', 15: 'Q8_K', 16: 'IQ2_XXS', 17: 'IQ2_XS',
  18: 'IQ3_XXS', 19: 'IQ1_S', 20: 'IQ4_NL', 21: 'IQ3_S', 22: 'IQ2_S', 23: 'IQ4_XS', 24: 'I8', 25: 'I16', 26: 'I32', 27: 'I64',
  28: 'F64', 29: 'IQ1_M', 34: 'TQ1_0', 35: 'TQ2_0', 39: 'MXFP4',
}; // prettier-ignore

export interface GgufTensor {
  readonly type: GgufType;
  /** Rows last, as elsewhere here: the reverse of the file's. */
  readonly shape: Shape;
  /** Byte range in the file. */
  readonly start: number;
  readonly end: number;
}

/** An open GGUF file: metadata, names, shapes and types at hand, data read when asked for. */
export class Gguf {
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  readonly #source: ByteSource;

  constructor(source: ByteSource, metadata: Map<string, MetadataValue>, tensors: Map<string, GgufTensor>) {
    this.#source = source;
    this.metadata = metadata;
    this.tensors = tensors;
  }

  /** What the file is called in messages. */
  get name(): string {
    return this.#source.name;
  }

  info(name: string): GgufTensor {
    const info = this.tensors.get(name);
    if (!info) throw new GgufError(`[gguf] ${this.name}: there is no tensor "${name}" in it`);
    return info;
  }

  /** A tensor's values as f32. */
  async floats(name: string): Promise<Float32Array<ArrayBuffer>> {
    const { type, shape, start, end } = this.info(name);
    return TYPES[type].floats(await this.#source.read(start, end), sizeOf(shape)) as Float32Array<ArrayBuffer>;
  }

  /** The blocks of one that is stored in this format (q8 is Q8_0, q4 is Q4_0); null where it is in another. */
  async blocks(name: string, format: 'q8' | 'q4'): Promise<Blocks | null> {
    const { type, start, end } = this.info(name);
    if (type !== (format === 'q8' ? 'Q8_0' : 'Q4_0')) return null;
    return blocksOf(await this.#source.read(start, end), type);
  }

  close(): Promise<void> {
    return this.#source.close();
  }
}

/** Reads and checks the header of a GGUF file. Throws `GgufError`, naming file, key or tensor, and fault. */
export async function readGguf(source: ByteSource): Promise<Gguf> {
  const fail = (what: string): never => {
    throw new GgufError(`[gguf] ${source.name}: ${what}`);
  };
  checkBeginning(source.size, new DataView((await source.read(0, Math.min(24, source.size))).buffer), fail);
  const { gguf } = await import('@huggingface/gguf');
  const header = (await gguf('https://file', { typedMetadata: true, fetch: rangesOf(source) }).catch((error: unknown) =>
    fail(error instanceof GgufError ? error.message : `its header is damaged: ${(error as Error).message}`),
  )) as Header;
  await checkTexts(header, source, fail);
  const entries = Object.entries(header.typedMetadata).filter(([key]) => !COUNTS.includes(key));
  const metadata = new Map(entries.map(([key, { value }]) => [key, value]));
  return new Gguf(source, metadata, placeTensors(header, metadata, source.size, fail));
}

type Fail = (what: string) => never;

/** What the library puts among the metadata. */
const COUNTS = ['version', 'tensor_count', 'kv_count'];

/** Magic number, version and counts. */
function checkBeginning(size: number, view: DataView, fail: Fail): void {
  if (size < 24)
    fail(`${size} bytes are too few: a GGUF file begins with 24 bytes of magic number, version and counts`);
  if (view.getUint32(0) !== 0x47475546) fail('it does not begin with "GGUF": it is no GGUF file');
  const version = view.getUint32(4, true);
  if (version !== 2 && version !== 3)
    fail(
      [2, 3].includes(view.getUint32(4)) ? 'it is big endian, which is not read' : `version ${version} is not read; 2 and 3 are`, // prettier-ignore
    );
  const [tensors, keys] = [view.getBigUint64(8, true), view.getBigUint64(16, true)];
  // A tensor takes at least 24 bytes of the header (no dimensions, no name), a key 13.
  if (tensors * 24n + keys * 13n > BigInt(size - 24))
    fail(`it would have ${tensors} tensors and ${keys} keys, for which ${size} bytes are too few`);
}

/** The ranges of the source that the library asks for, as a server would give them. */
function rangesOf(source: ByteSource): typeof fetch {
  return async (_, request) => {
    const [from, to] = /(\d+)-(\d+)/.exec(new Headers(request?.headers).get('range')!)!.slice(1).map(Number) as [number, number]; // prettier-ignore
    if (from >= source.size) throw new GgufError('it is truncated: its header goes on behind the end of the file');
    const bytes = await source.read(from, Math.min(to + 1, source.size));
    return new Response(bytes as Uint8Array<ArrayBuffer>);
  };
}

/**
 * The texts of the metadata as they stand in the file, in place of the library's, which have lost a byte order mark (some
 * vocabularies have it as a token) or what lies behind the end of a range. So no key stands twice, and nothing was read from
 * behind the end.
 */
async function checkTexts(
  { typedMetadata, tensorInfos, tensorInfoByteRange }: Header,
  source: ByteSource,
  fail: Fail,
): Promise<void> {
  const [start, end] = tensorInfoByteRange;
  if (end > source.size) fail(`it is truncated: its header ends at byte ${end}, the file at byte ${source.size}`);
  const bytes = await source.read(0, start);
  const view = new DataView(bytes.buffer, bytes.byteOffset, start);
  const twice = () => fail('a key of its metadata stands there twice');
  let at = 24;
  const text = (): string => {
    const from = at + 8;
    if (from > start) return twice();
    at = from + Number(view.getBigUint64(at, true));
    if (at > start) return twice();
    try {
      return decoder.decode(bytes.subarray(from, at));
    } catch {
      return fail('a text in it is not UTF-8');
    }
  };
  for (const [key, entry] of Object.entries(typedMetadata)) {
    if (COUNTS.includes(key)) continue;
    if (text() !== key) twice();
    at += 4;
    const { type, subType, value } = entry;
    if (type === VALUE.string) entry.value = text();
    else if (type !== VALUE.array) at += VALUE_BYTES[type]!;
    else if (subType === VALUE.array) fail('lists of lists are not read');
    else {
      const items = value as MetadataValue[];
      at += 12;
      if (subType === VALUE.string) entry.value = items.map(text);
      else at += items.length * VALUE_BYTES[subType!]!;
    }
  }
  if (at !== start) twice();
  for (const { name, n_dims } of tensorInfos) at += 24 + utf8.encode(name).length + 8 * n_dims;
  if (at !== end) fail('the name of a tensor is not UTF-8');
}

const utf8 = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** What is used of the library's result. */
interface Header extends Pick<GGUFParseOutput, 'tensorInfos' | 'tensorInfoByteRange'> {
  readonly typedMetadata: Readonly<
    Record<string, { readonly type: number; readonly subType?: number; value: MetadataValue }>
  >;
}

/** The tensors' ranges, in the file and apart from one another. */
function placeTensors(
  { tensorInfos, tensorInfoByteRange }: Header,
  metadata: ReadonlyMap<string, MetadataValue>,
  size: number,
  failFile: Fail,
): Map<string, GgufTensor> {
  const alignment = Number(metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT);
  if (!(Number.isInteger(Math.log2(alignment)) && alignment <= 2 ** 20))
    failFile(`general.alignment is ${String(metadata.get('general.alignment'))}; it must be a power of two`);
  const dataStart = padded(tensorInfoByteRange[1], alignment);
  const tensors = new Map<string, GgufTensor>();
  for (const { name, shape: dims, dtype, offset } of tensorInfos) {
    const fail: Fail = (what) => failFile(`tensor "${name}" ${what}`);
    if (tensors.has(name)) fail('stands there twice');
    const type = (Object.keys(TYPES) as GgufType[]).find((key) => TYPES[key].id === (dtype as number));
    if (!type)
      return fail(
        `is of type ${OTHERS[dtype] ?? `number ${String(dtype)}`}; read are ${Object.keys(TYPES).join(', ')}`,
      );
    if (dims.length > 4) fail(`has ${dims.length} dimensions; there are at most 4`);
    const shape = dims.map(Number).reverse();
    const { block, bytes } = TYPES[type];
    const count = dims.reduce((product, dim) => product * dim, 1n);
    const described = `of shape (${dims.toReversed().join(', ')}) and type ${type}`;
    if (count === 0n || count > BigInt(Number.MAX_SAFE_INTEGER)) return fail(`${described} has no size that could be`);
    if ((shape.at(-1) ?? 1) % block !== 0) fail(`${described} needs rows of multiples of ${block} values`);
    const needed = (count / BigInt(block)) * BigInt(bytes);
    if (offset % BigInt(alignment) !== 0n) fail(`begins at byte ${offset} of the data, no multiple of ${alignment}`);
    if (BigInt(dataStart) + offset + needed > BigInt(size))
      fail(`${described} needs ${needed} bytes from byte ${offset} of the data on, of which there are ${Math.max(0, size - dataStart)}: the file is truncated or damaged`); // prettier-ignore
    const start = dataStart + Number(offset);
    tensors.set(name, { type, shape, start, end: start + Number(needed) });
  }
  let [before, end] = ['the header', dataStart];
  for (const [name, tensor] of [...tensors].sort(([, a], [, b]) => a.start - b.start)) {
    if (tensor.start < end) failFile(`tensor "${name}" overlaps ${before}`);
    [before, end] = [`tensor "${name}"`, tensor.end];
  }
  return tensors;
}

const DEFAULT_ALIGNMENT = 32;
const padded = (at: number, alignment: number): number => Math.ceil(at / alignment) * alignment;

/** The bits of an f16 in each block, `at` bytes from its beginning, widened. */
function halvesAt(bytes: Uint8Array, stride: number, at: number): Float32Array {
  const halves = new Uint16Array(bytes.length / stride);
  for (let block = 0; block < halves.length; block++)
    halves[block] = bytes[block * stride + at]! | (bytes[block * stride + at + 1]! << 8);
  return f16ToF32(halves);
}

/** Q8_0: a scale (f16) and 32 quants. Q4_0: a scale and 16 bytes, whose lower halves are the first 16 quants plus 8. */
function blocksOf(bytes: Uint8Array, type: 'Q8_0' | 'Q4_0'): Blocks {
  const stride = TYPES[type].bytes;
  const count = bytes.length / stride;
  const quants = new Int8Array(count * BLOCK);
  const scales = new Uint16Array(count);
  for (let block = 0; block < count; block++) {
    const from = block * stride;
    scales[block] = bytes[from]! | (bytes[from + 1]! << 8);
    if (type === 'Q8_0') quants.set(bytes.subarray(from + 2, from + stride), block * BLOCK);
    else
      for (let i = 0; i < 16; i++) {
        quants[block * BLOCK + i] = (bytes[from + 2 + i]! & 15) - 8;
        quants[block * BLOCK + 16 + i] = (bytes[from + 2 + i]! >> 4) - 8;
      }
  }
  return { quants, scales };
}

function scaled({ quants, scales }: Blocks): Float32Array {
  const wide = f16ToF32(scales);
  return Float32Array.from(quants, (q, i) => q * wide[i >> 5]!);
}

/**
 * Q4_K: 256 values in 8 groups of 32, x = d · s · q − m · t. d and m are f16; s and t have 6 bits a group, in 12 bytes: the
 * first four of s, the first four of t (their upper two bits are those of the last four), the last four's lower four bits.
 * Then the quants, of two groups in 32 bytes: the lower halves and the upper ones.
 */
function q4k(bytes: Uint8Array, size: number): Float32Array {
  const stride = TYPES.Q4_K.bytes;
  const [d, m] = [halvesAt(bytes, stride, 0), halvesAt(bytes, stride, 2)];
  const out = new Float32Array(size);
  for (let block = 0; block < d.length; block++) {
    const packed = bytes.subarray(block * stride + 4, block * stride + 16);
    const quants = bytes.subarray(block * stride + 16, (block + 1) * stride);
    for (let group = 0; group < 8; group++) {
      const i = group & 3;
      const [s, t] =
        group < 4
          ? [packed[i]! & 63, packed[i + 4]! & 63]
          : [(packed[i + 8]! & 15) | ((packed[i]! >> 6) << 4), (packed[i + 8]! >> 4) | ((packed[i + 4]! >> 6) << 4)];
      const [scale, least] = [Math.fround(d[block]! * s), Math.fround(m[block]! * t)];
      const from = (group >> 1) * 32;
      const shift = 4 * (group & 1);
      for (let j = 0; j < 32; j++)
        out[block * 256 + group * 32 + j] = scale * ((quants[from + j]! >> shift) & 15) - least;
    }
  }
  return out;
}

/**
 * Q6_K: 256 values in 16 groups of 16, x = d · s · (q − 32). 128 bytes have the quants' lower four bits, 64 the upper two, then
 * s (signed bytes) and d (f16). Of each half of 128 values the lower bits of the first 64 are the lower halves of its bytes,
 * and the upper bits of values j, 32 + j, 64 + j and 96 + j share a byte.
 */
function q6k(bytes: Uint8Array, size: number): Float32Array {
  const stride = TYPES.Q6_K.bytes;
  const d = halvesAt(bytes, stride, 208);
  const scales = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  const out = new Float32Array(size);
  for (let block = 0; block < d.length; block++) {
    const from = block * stride;
    for (let i = 0; i < 256; i++) {
      const [half, j] = [i >> 7, i & 127];
      const low = (bytes[from + half * 64 + (j & 63)]! >> (4 * (j >> 6))) & 15;
      const high = (bytes[from + 128 + half * 32 + (j & 31)]! >> (2 * (j >> 5))) & 3;
      const scale = Math.fround(d[block]! * scales[from + 192 + (i >> 4)]!);
      out[block * 256 + i] = scale * ((low | (high << 4)) - 32);
    }
  }
  return out;
}

/** A value to write: with a type of `VALUE`, and of a list its items' type. */
export interface GgufValue {
  readonly type: number;
  readonly value: MetadataValue;
  readonly subType?: number;
}
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** A tensor to write. */
export interface GgufWritable {
  readonly type: 'F32' | 'F16' | 'Q8_0';
  readonly shape: Shape;
  /** Called when its turn comes, so that one tensor at a time is in memory; blocks for Q8_0 alone. */
  readonly data: () => Promise<Float32Array | Blocks>;
}

/** A GGUF file, version 3, as chunks of bytes: the tensors in their order. */
export async function* encodeGguf(
  metadata: GgufMetadata,
  tensors: ReadonlyMap<string, GgufWritable>,
): AsyncGenerator<Uint8Array> {
  const { serializeGgufMetadata } = await import('@huggingface/gguf');
  const count = { value: BigInt(tensors.size), type: VALUE.u64 };
  const fixed = { version: { value: 3, type: VALUE.u32 }, tensor_count: count, kv_count: count };
  const keys = serializeGgufMetadata({ ...Object.fromEntries(metadata), ...fixed } as unknown as GGUFTypedMetadata, { alignment: 1 }); // prettier-ignore
  const infos: Uint8Array[] = [];
  let at = 0;
  for (const [name, { type, shape }] of tensors) {
    const { id, block, bytes } = TYPES[type];
    if ((shape.at(-1) ?? 1) % block !== 0)
      throw new GgufError(`[gguf] tensor "${name}" has rows of ${shape.at(-1)} values; ${type} needs multiples of ${block}`); // prettier-ignore
    const text = utf8.encode(name);
    const info = new Uint8Array(24 + text.length + 8 * shape.length);
    const view = new DataView(info.buffer);
    view.setBigUint64(0, BigInt(text.length), true);
    info.set(text, 8);
    let place = 8 + text.length;
    view.setUint32(place, shape.length, true);
    shape.toReversed().forEach((dim, i) => view.setBigUint64(place + 4 + 8 * i, BigInt(dim), true));
    place += 4 + 8 * shape.length;
    view.setUint32(place, id, true);
    view.setBigUint64(place + 4, BigInt(at), true);
    infos.push(info);
    at += padded((sizeOf(shape) / block) * bytes, DEFAULT_ALIGNMENT);
  }
  const header = keys.length + infos.reduce((sum, { length }) => sum + length, 0);
  yield* [keys, ...infos, new Uint8Array(padded(header, DEFAULT_ALIGNMENT) - header)];
  for (const [name, { type, shape, data }] of tensors) {
    const values = await data();
    const length = 'quants' in values ? values.quants.length : values.length;
    if (length !== sizeOf(shape))
      throw new GgufError(`[gguf] tensor "${name}" of shape (${shape.join(', ')}) needs ${sizeOf(shape)} values, there are ${length}`); // prettier-ignore
    const bytes = toBytes(values, type);
    yield bytes;
    yield new Uint8Array(padded(bytes.length, DEFAULT_ALIGNMENT) - bytes.length);
  }
}

function toBytes(values: Float32Array | Blocks, type: GgufWritable['type']): Uint8Array {
  if (type === 'Q8_0') {
    const blocks = 'quants' in values ? values : unpackBlocks(encode(values, 'q8').buffer, values.length, 'q8');
    const { bytes: stride } = TYPES.Q8_0;
    const bytes = new Uint8Array(blocks.scales.length * stride);
    const signed = new Int8Array(bytes.buffer);
    blocks.scales.forEach((scale, block) => {
      bytes[block * stride] = scale & 255;
      bytes[block * stride + 1] = scale >> 8;
      signed.set(blocks.quants.subarray(block * BLOCK, (block + 1) * BLOCK), block * stride + 2);
    });
    return bytes;
  }
  const floats = 'quants' in values ? scaled(values) : values;
  const stored = type === 'F16' ? f32ToF16(floats) : floats;
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}
