/** A sequence of a cache as a safetensors file: a long prompt that is read once and gone on from many times. */
import { byteLength, f16ToF32 } from '../engine/index.ts';
import { encodeSafetensors, SafetensorsError } from '../nn/safetensors.ts';
import type { Safetensors, Writable } from '../nn/safetensors.ts';
import type { KeyValueCache } from './cache.ts';
import type { TransformerConfig } from './config.ts';
import type { Transformer } from './model.ts';

const FORMAT = 'dawngrad cache 2';
const TOKENS = 'tokens';

/** Which model keys and values are of. */
export interface CacheOwner {
  /** What people call it; said where it is not the right one. */
  readonly name: string;
  /** SHA-256 of its weights as they are kept: those of one model in f16 and in q8 differ. */
  readonly weights: string;
}

/** Bytes of a weight that are on the host at a time. */
const PART = 2 ** 24;

async function sha256(bytes: Uint8Array<ArrayBuffer> | ArrayBuffer): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

const hashText = (text: string): Promise<string> => sha256(new TextEncoder().encode(text));

/**
 * Says who a model is, by names, shapes, formats and all bytes of its weights: what is taught to a model may be a single row
 * of a table, which no sample of bytes would find. Good as long as the weights stay what they are. It reads them all back
 * (0.4 GiB a second on two processor cores), so ask once a model.
 */
export async function cacheOwner(model: Transformer, name: string): Promise<CacheOwner> {
  const { device } = model;
  const lines: string[] = [];
  for (const [path, tensor] of model.namedParameters()) {
    const [window, bytes] = [tensor.window(), byteLength(tensor.size, tensor.dtype)];
    const parts: string[] = [];
    for (let at = 0; at < bytes; at += PART) {
      const size = Math.min(PART, bytes - at);
      parts.push(await sha256(await device.read({ ...window, offset: window.offset + at, bytes: size }, size)));
    }
    lines.push([path, tensor.dtype, ...tensor.shape, ...parts].join(' '));
  }
  return { name, weights: await hashText(lines.sort().join('\n')) };
}

/** Caches of models that compute otherwise differ in it. */
const configHash = (config: TransformerConfig): Promise<string> => hashText(JSON.stringify(config));

/** The name of what keys and values are stored as. */
const formatOf = ({ layers }: KeyValueCache): string => layers[0]?.keys.dtype ?? 'f32';

/**
 * The bytes of a file that `restoreCache` reads: what layers keep of a sequence, its `tokens`, and of which model it is.
 * Throws where these are not as many as the sequence has.
 */
export async function* saveCache(
  cache: KeyValueCache,
  sequence: number,
  tokens: readonly number[],
  owner: CacheOwner,
): AsyncGenerator<Uint8Array> {
  const length = cache.lengths[sequence]!;
  if (tokens.length !== length)
    throw new Error(`[cache] sequence ${sequence} has ${length} tokens, and ${tokens.length} are said to be them`);
  const tensors = new Map<string, Writable>();
  tensors.set(TOKENS, { dtype: 'I32', shape: [length], data: Int32Array.from(tokens) });
  for (const { name, dtype, shape, window } of cache.parts(sequence, length)) {
    const read = async () => {
      const buffer = await cache.device.read(window, window.bytes);
      if (dtype === 'u32') return new Int32Array(buffer);
      return dtype === 'f32' ? new Float32Array(buffer) : f16ToF32(new Uint16Array(buffer));
    };
    tensors.set(name, { dtype: DTYPES[dtype], shape, data: read });
  }
  yield* encodeSafetensors(tensors, {
    format: FORMAT,
    model: owner.name,
    config: await configHash(cache.config),
    weights: owner.weights,
    length: String(length),
    dtype: formatOf(cache),
  });
}

const DTYPES = { f32: 'F32', f16: 'F16', u32: 'I32' } as const;

/**
 * Puts a saved sequence in the place of one of the cache's, and gives its tokens: what goes on otherwise than these has to be
 * cut back (`Prefix` does so). Throws, before anything is changed, where the file is none of `saveCache`, of another model
 * than `owner` or another format, or longer than the cache.
 */
export async function restoreCache(
  cache: KeyValueCache,
  sequence: number,
  file: Safetensors,
  owner: CacheOwner,
): Promise<number[]> {
  const { metadata, tensors, name } = file;
  const fail = (what: string): never => {
    throw new SafetensorsError(`[cache] ${name}: ${what}`);
  };
  if (metadata['format'] !== FORMAT) fail(`is no saved cache: its format is ${JSON.stringify(metadata['format'])}, not "${FORMAT}"`); // prettier-ignore
  const [theirs, ours] = [metadata['model'] ?? '', owner.name].map((model) => JSON.stringify(model));
  if (metadata['config'] !== (await configHash(cache.config)))
    fail(`was saved of ${theirs}, which has another configuration than ${ours}: its keys and values mean nothing to this one`); // prettier-ignore
  if (metadata['weights'] !== owner.weights)
    fail(`was saved of ${theirs} with other weights than ${ours} has, or with these in another format: its keys and values mean nothing to this one`); // prettier-ignore
  const length = Number(metadata['length']);
  if (!/^\d+$/.test(metadata['length'] ?? '') || !Number.isSafeInteger(length))
    fail(`has the length ${JSON.stringify(metadata['length'])}; it must be a number of tokens`);
  const dtype = formatOf(cache);
  if (metadata['dtype'] !== dtype)
    fail(`holds ${metadata['dtype']}, the cache ${dtype}; make the cache in that format`);
  if (length > cache.capacity) fail(`has ${length} tokens, the cache holds ${cache.capacity}`);
  const parts = cache.parts(sequence, length);
  const wanted = [...parts.map(({ name, dtype, shape }) => ({ name, dtype: DTYPES[dtype], shape })), { name: TOKENS, dtype: 'I32', shape: [length] }]; // prettier-ignore
  for (const { name, dtype, shape } of wanted) {
    const info = file.info(name);
    if (info.dtype !== dtype || info.shape.join() !== shape.join())
      fail(`${name} is ${info.dtype} (${info.shape.join(', ')}), not ${dtype} (${shape.join(', ')})`);
  }
  const unknown = [...tensors.keys()].find((key) => !wanted.some(({ name }) => name === key));
  if (unknown !== undefined) fail(`has the tensor ${JSON.stringify(unknown)}, which no layer knows`);
  const tokens = Array.from(await file.integers(TOKENS));
  const { vocabulary } = cache.config;
  const wrong = tokens.find((token) => !(token >= 0 && token < vocabulary));
  if (wrong !== undefined) fail(`has the token ${wrong}; the model's are 0 to ${vocabulary - 1}`);
  for (const { name, window } of parts) {
    const bytes = await file.bytes(name);
    if (bytes.length > 0) cache.device.stream.write(window, bytes as Uint8Array<ArrayBuffer>);
  }
  cache.lengths[sequence] = length;
  cache.summarize([sequence]);
  return tokens;
}
