/** Caches of keys and values: how new ones come in, and how a window comes out in order. */
import { BLOCK, empty, formatShape, scalesOffset, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';

const writeSource = wgsl(import.meta.url, './cache_write.wgsl');
const gatherSource = wgsl(import.meta.url, './cache_gather.wgsl');
// Included by both.
wgsl(import.meta.url, './slot.wgsl');
wgsl(import.meta.url, './q8.wgsl');
wgsl(import.meta.url, './cached.wgsl');

export interface CacheOptions {
  /** Tokens that each sequence has already, u32 (B). */
  readonly starts: Tensor;
  /** How many of the T new ones are there, u32 (B). */
  readonly counts: Tensor;
  /** First positions that keep their slots; the others share the rest of them in turn. */
  readonly sinks?: number;
}

/** Keys and values: (B, T, KV, D) each, or (B, slots, KV, D) in a cache. */
export interface KeysValues {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** The word at which the scales begin of what is kept in q8; 0 of other dtypes. */
export const scalesAt = ({ size, dtype }: Tensor): number => (dtype === 'q8' ? scalesOffset(size, dtype) / 4 : 0);

function check(name: string, cache: KeysValues, fresh: KeysValues, { starts, counts, sinks = 0 }: CacheOptions): void {
  const fail = (what: string): never => {
    throw new Error(`[${name}] ${what}`);
  };
  const form = ({ shape, dtype }: Tensor) => `${dtype} ${formatShape(shape)}`;
  for (const [what, { keys, values }] of Object.entries({ cache, fresh }))
    if (keys.shape.length !== 4 || form(keys) !== form(values))
      fail(`the ${what} keys and values must be (B, T, KV, D), both alike: ${form(keys)} and ${form(values)}`);
  const [batch, slots, ...row] = cache.keys.shape;
  const [b, , ...own] = fresh.keys.shape;
  if (b !== batch || own.some((extent, i) => extent !== row[i]))
    fail(`keys ${form(fresh.keys)} do not fit into a cache ${form(cache.keys)}`);
  const [kv, dim] = row as [number, number];
  if (cache.keys.dtype === 'q8' && (kv * dim) % 64 !== 0)
    fail(`a cache in q8 needs heads that come to a multiple of 64 columns, not ${kv} of ${dim}`);
  for (const [what, given] of Object.entries({ starts, counts }))
    if (given.dtype !== 'u32' || given.size !== batch) fail(`${what} must be u32 (${batch}), not ${form(given)}`);
  if (sinks >= slots!) fail(`${sinks} sinks leave none of the ${slots} slots for what follows them`);
}

const sizes = (cache: Tensor, fresh: Tensor, sinks: number) => ({
  row: cache.shape[2]! * cache.shape[3]!,
  length: fresh.shape[1]!,
  slots: cache.shape[1]!,
  sinks,
  scales: scalesAt(cache),
  block: BLOCK,
});

/** What specialises both kernels. */
function definesOf({ dtype: C }: Tensor, { dtype: T }: Tensor) {
  const q8 = C === 'q8';
  return { T, C: q8 ? 'u32' : C, F16: T === 'f16' || C === 'f16', Q8: q8 };
}

/**
 * Writes new keys and values into a cache, in place. Position p < `sinks` lies in slot p, the others in turn in the slots
 * behind: of what no longer fits, the last stay. The cache may be f16 beside f32, or q8 beside both: a scale for each 32
 * neighbours of a head, rounded to by the device. No gradient.
 */
export function cacheWrite(cache: KeysValues, fresh: KeysValues, options: CacheOptions): void {
  check('cacheWrite', cache, fresh, options);
  const { starts, counts, sinks = 0 } = options;
  const { device, size } = fresh.keys;
  device.run(
    device.kernel(writeSource, definesOf(cache.keys, fresh.keys)),
    [fresh.keys, fresh.values, starts, counts, cache.keys, cache.values],
    { size, ...sizes(cache.keys, fresh.keys, sinks) },
    Math.ceil(size / (cache.keys.dtype === 'q8' ? 64 : 1) / 64),
  );
}

/**
 * The keys and values that T new queries with a window of slots − sinks see, in order: sinks, those of the cache that the
 * first of them reaches, the new ones; (B, slots − 1 + T, KV, D), of which min(start, slots − 1) + count count. No gradient.
 */
export function cacheGather(cache: KeysValues, fresh: KeysValues, options: CacheOptions): KeysValues {
  check('cacheGather', cache, fresh, options);
  const { starts, counts, sinks = 0 } = options;
  const { device } = fresh.keys;
  const [batch, slots, kv, dim] = cache.keys.shape as [number, number, number, number];
  const seen = slots - 1 + fresh.keys.shape[1]!;
  const [keys, values] = [
    empty(device, [batch, seen, kv, dim], fresh.keys.dtype),
    empty(device, [batch, seen, kv, dim], fresh.keys.dtype),
  ];
  device.run(
    device.kernel(gatherSource, definesOf(cache.keys, fresh.keys)),
    [cache.keys, cache.values, fresh.keys, fresh.values, starts, counts, keys, values],
    { size: keys.size, ...sizes(cache.keys, fresh.keys, sinks), seen },
    Math.ceil(keys.size / (cache.keys.dtype === 'q8' ? 32 : 1) / 64),
  );
  return { keys, values };
}
