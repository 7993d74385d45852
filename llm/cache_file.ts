/** A sequence of a cache as a safetensors file: a long prompt that is read once and gone on from many times. */
import { f16ToF32 } from '../engine/index.ts';
import { encodeSafetensors, SafetensorsError } from '../nn/safetensors.ts';
import type { Safetensors, Writable } from '../nn/safetensors.ts';
import type { KeyValueCache } from './cache.ts';
import type { TransformerConfig } from './config.ts';

const FORMAT = 'dawngrad cache 1';

/** What a file says of itself beside the keys and values. */
export interface CacheManifest {
  /** Tokens of the sequence. */
  readonly length: number;
  /** What the caller gave. */
  readonly notes: Readonly<Record<string, string>>;
}

/** SHA-256 of a configuration: caches of models that compute otherwise differ in it. */
export async function configHash(config: TransformerConfig): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify(config));
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The name of what keys and values are stored as. */
const formatOf = ({ layers }: KeyValueCache): string => layers[0]?.keys.dtype ?? 'f32';

/**
 * The bytes of a file that `restoreCache` reads: what layers keep of a sequence, and of which model it is. `notes` come
 * back as they are: the tokens, say, and a hash of the weights.
 */
export async function* saveCache(
  cache: KeyValueCache,
  sequence: number,
  notes: Readonly<Record<string, string>> = {},
): AsyncGenerator<Uint8Array> {
  const length = cache.lengths[sequence]!;
  const tensors = new Map<string, Writable>();
  for (const { name, dtype, shape, window } of cache.parts(sequence, length)) {
    const read = async () => {
      const buffer = await cache.device.read(window, window.bytes);
      if (dtype === 'u32') return new Int32Array(buffer);
      return dtype === 'f32' ? new Float32Array(buffer) : f16ToF32(new Uint16Array(buffer));
    };
    tensors.set(name, { dtype: DTYPES[dtype], shape, data: read });
  }
  const manifest = {
    format: FORMAT,
    config: await configHash(cache.config),
    length: String(length),
    dtype: formatOf(cache),
  };
  const noted = Object.entries(notes).map(([key, value]) => [`note.${key}`, value]);
  yield* encodeSafetensors(tensors, { ...manifest, ...Object.fromEntries(noted) } as Record<string, string>);
}

const DTYPES = { f32: 'F32', f16: 'F16', u32: 'I32' } as const;

/**
 * Puts a saved sequence in the place of one of the cache's. Throws, before anything is changed, where the file is none of
 * `saveCache`, of another configuration or format, or longer than the cache.
 */
export async function restoreCache(cache: KeyValueCache, sequence: number, file: Safetensors): Promise<CacheManifest> {
  const { metadata, tensors, name } = file;
  const fail = (what: string): never => {
    throw new SafetensorsError(`[cache] ${name}: ${what}`);
  };
  if (metadata['format'] !== FORMAT) fail(`is no saved cache: its format is ${JSON.stringify(metadata['format'])}, not "${FORMAT}"`); // prettier-ignore
  if (metadata['config'] !== (await configHash(cache.config)))
    fail('was saved of a model with another configuration: its keys and values mean nothing to this one');
  const length = Number(metadata['length']);
  if (!/^\d+$/.test(metadata['length'] ?? '') || !Number.isSafeInteger(length))
    fail(`has the length ${JSON.stringify(metadata['length'])}; it must be a number of tokens`);
  const dtype = formatOf(cache);
  if (metadata['dtype'] !== dtype)
    fail(`holds ${metadata['dtype']}, the cache ${dtype}; make the cache in that format`);
  if (length > cache.capacity) fail(`has ${length} tokens, the cache holds ${cache.capacity}`);
  const parts = cache.parts(sequence, length);
  for (const part of parts) {
    const info = file.info(part.name);
    if (info.dtype !== DTYPES[part.dtype] || info.shape.join() !== part.shape.join())
      fail(`${part.name} is ${info.dtype} (${info.shape.join(', ')}), not ${DTYPES[part.dtype]} (${part.shape.join(', ')})`); // prettier-ignore
  }
  const unknown = [...tensors.keys()].find((key) => !parts.some((part) => part.name === key));
  if (unknown !== undefined) fail(`has the tensor ${JSON.stringify(unknown)}, which no layer knows`);
  for (const { name, window } of parts) {
    const bytes = await file.bytes(name);
    if (bytes.length > 0) cache.device.stream.write(window, bytes as Uint8Array<ArrayBuffer>);
  }
  cache.lengths[sequence] = length;
  cache.summarize([sequence]);
  const notes = Object.entries(metadata).filter(([key]) => key.startsWith('note.'));
  return { length, notes: Object.fromEntries(notes.map(([key, value]) => [key.slice(5), value])) };
}
