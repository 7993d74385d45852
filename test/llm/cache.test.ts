/** Caches: chunks, rings that turn, sequences of several lengths, what a cache can do with a sequence, and its memory. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Device } from '../../engine/index.ts';
import { noGrad, scope, write } from '../../engine/index.ts';
import { cacheBytes, KeyValueCache } from '../../llm/cache.ts';
import type { CacheFormat } from '../../llm/cache.ts';
import { cacheOwner, restoreCache, saveCache } from '../../llm/cache_file.ts';
import type { CacheOwner } from '../../llm/cache_file.ts';
import { parseTransformerConfig } from '../../llm/config.ts';
import { Transformer } from '../../llm/model.ts';
import { declare } from '../../nn/module.ts';
import { bytesSource, readSafetensors } from '../../nn/safetensors.ts';
import { plainDevice } from '../device.ts';
import { cachedLogits, difference, MIXED, randomIds, randomModel, wholeLogits } from './tiny.ts';

let device: Device;
let model: Transformer;
beforeAll(async () => {
  device = await plainDevice();
  model = randomModel(device, MIXED).model;
});
afterAll(() => model.release());

/**
 * How far logits may be apart that are computed by other kernels (a product of one row adds in another order than one of
 * many): three layers of products of 32 and 48 terms in f32, each off by a few units of 2⁻²⁴.
 */
const ROUNDING = 3e-6;
const LENGTH = 40; // the rings of 8 positions turn four times

const one = (sizes: readonly number[]) => sizes.map((size) => [size]);
/** Parts of so many tokens in all. */
const cut = (sizes: readonly number[], total: number): number[] => {
  const parts: number[] = [];
  let rest = total;
  for (let i = 0; rest > 0; i++) {
    const part = Math.min(rest, sizes[i % sizes.length]!);
    parts.push(part);
    rest -= part;
  }
  return parts;
};

describe('prefill by chunks', () => {
  const ids = randomIds(LENGTH, MIXED.vocab_size);

  it('gives the logits of the whole text for any chunks', async () => {
    const [whole] = await wholeLogits(model, [ids]);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 6 }), async (sizes) => {
        const [logits] = await cachedLogits(model, [ids], one(cut(sizes, LENGTH)));
        expect(difference(logits!, whole!)).toBeLessThan(ROUNDING);
      }),
      { numRuns: 12, seed: 6, examples: [[[1]], [[8]], [[9]], [[10]], [[20]]] },
    );
  });

  it.each([
    ['f16', 2e-3], // 2⁻¹¹ of each key and value
    ['q8', 3e-2], // half of 1/127 of the largest of 32
  ] as const)('of a cache in %s, within its rounding, whatever the chunks', async (dtype, limit) => {
    const json = { ...MIXED, head_dim: 32 };
    const { model } = randomModel(device, json);
    const [whole] = await wholeLogits(model, [ids]);
    const by = async (sizes: readonly number[]) => {
      const cache = new KeyValueCache(device, model.config, { batch: 1, capacity: LENGTH, dtype });
      const [logits] = await cachedLogits(model, [ids], one(cut(sizes, LENGTH)), cache);
      cache.release();
      return logits!;
    };
    const found = [await by([1]), await by([7, 3]), await by([40])];
    const errors = found.map((logits) => difference(logits, whole!));
    for (const error of errors) {
      expect(error).toBeLessThan(limit);
      expect(error).toBeGreaterThan(ROUNDING); // it is rounded
    }
    model.release();
  });
});

describe('a batch', () => {
  const texts = [1, 2, 3].map((seed) => randomIds(24, MIXED.vocab_size, seed));

  it('of sequences that grow by numbers of their own, 0 among them, gives what each gives alone', async () => {
    const parts = [[5, 12, 0], [1, 0, 3], [1, 1, 1], [0, 9, 0], [9, 1, 1], [8, 1, 19]]; // prettier-ignore
    const together = await cachedLogits(model, texts, parts);
    for (const [b, text] of texts.entries()) {
      const [whole] = await wholeLogits(model, [text]);
      expect(difference(together[b]!, whole!)).toBeLessThan(ROUNDING);
    }
  });

  it('has each sequence’s bits as alone, by the same parts', async () => {
    const sizes = [11, 1, 1, 11];
    const together = await cachedLogits(model, texts, sizes.map((size) => [size, size, size])); // prettier-ignore
    for (const [b, text] of texts.entries()) {
      const [alone] = await cachedLogits(model, [text], one(sizes));
      expect(together[b]).toEqual(alone);
    }
  });
});

describe('a sequence', () => {
  const ids = randomIds(30, MIXED.vocab_size);
  const make = (batch: number, dtype: CacheFormat = 'f32', capacity = 32) =>
    new KeyValueCache(device, model.config, { batch, capacity, dtype });
  const last = (logits: Float32Array) => logits.slice(-MIXED.vocab_size);

  it('forks: the copies go on as the first would', async () => {
    const cache = make(3);
    await cachedLogits(model, [ids, ids, ids], [[20, 0, 0]], cache);
    cache.fork(0, [2, 1]);
    expect(cache.lengths).toEqual([20, 20, 20]);
    const tails = [1, 2, 3].map((seed) => randomIds(5, MIXED.vocab_size, 10 + seed));
    const logits = await cachedLogits(model, tails, Array(5).fill([1, 1, 1]), cache);
    for (const [b, tail] of tails.entries()) {
      const [whole] = await wholeLogits(model, [[...ids.slice(0, 20), ...tail]]);
      expect(difference(last(logits[b]!), last(whole!))).toBeLessThan(ROUNDING);
    }
    cache.release();
  });

  it('is cut to a prefix, as far as its windows keep it, and goes on otherwise', async () => {
    const cache = make(1);
    const check = async (length: number, tail: number[]) => {
      cache.truncate(0, length);
      const [logits] = await cachedLogits(model, [tail], [[tail.length]], cache);
      const [whole] = await wholeLogits(model, [[...ids.slice(0, length), ...tail]]);
      expect(difference(last(logits!), last(whole!))).toBeLessThan(ROUNDING);
    };
    await cachedLogits(model, [ids], [[10]], cache); // sinks and window are full, but nothing is written over
    await check(4, [7, 8, 9]);
    cache.reset();
    await cachedLogits(model, [ids], [[25]], cache);
    expect(() => cache.truncate(0, 23)).toThrow(
      /sequence 0 has 25 tokens, of which windows keep the last 8 and the first 2: it can be cut to 24, or to 2 or fewer, not to 23/,
    );
    expect(() => cache.truncate(0, 26)).toThrow(/has 25 tokens; it cannot be cut to 26/);
    expect(() => cache.truncate(1, 0)).toThrow(/there is no sequence 1: the cache has 0 to 0/);
    await check(24, [3]);
    await check(2, [1, 2, 3]);
    cache.reset(0);
    expect(cache.lengths).toEqual([0]);
    cache.release();
  });

  const OWNER: CacheOwner = { name: 'a', weights: 'w' };
  const bytesOf = async (cache: KeyValueCache, sequence: number, tokens: readonly number[], owner = OWNER) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of saveCache(cache, sequence, tokens, owner)) chunks.push(chunk);
    return Buffer.concat(chunks);
  };
  const open = (bytes: Uint8Array) => readSafetensors(bytesSource(bytes, 'a.cache'));

  it.each(['f32', 'f16', 'q8'] as const)('is saved and comes back, bit for bit, in %s', async (dtype) => {
    const { model } = randomModel(device, { ...MIXED, head_dim: 32 });
    const cache = new KeyValueCache(device, model.config, { batch: 2, capacity: 32, dtype });
    await cachedLogits(model, [ids, ids.slice(3)], [[0, 21]], cache);
    const own = ids.slice(3, 24);
    const bytes = await bytesOf(cache, 1, own);
    await expect(bytesOf(cache, 1, ids)).rejects.toThrow('sequence 1 has 21 tokens, and 30 are said to be them');
    const other = new KeyValueCache(device, model.config, { batch: 1, capacity: 40, dtype });
    expect(await restoreCache(other, 0, await open(bytes), OWNER)).toEqual(own);
    const tail = [[1, 2, 3]];
    const [after] = await cachedLogits(model, tail, one([1, 1, 1]), other);
    const [, before] = await cachedLogits(model, [[0, 0, 0], ...tail], [[0, 1], [0, 1], [0, 1]], cache); // prettier-ignore
    expect(after).toEqual(before);
    for (const used of [cache, other]) used.release();
    model.release();
  });

  it('of layers with trees forks and comes back with what queries descend by', async () => {
    // Without sinks, whose leaf would take the beam's one place: then any summaries would do.
    const tree = { block: 4, fanout: 2, beam: 1 };
    const { model } = randomModel(device, {
      ...MIXED,
      layer_types: Array(3).fill('tree_attention'),
      attention_sinks: 0,
      tree,
    });
    const make = (batch: number, capacity: number) =>
      new KeyValueCache(device, model.config, { batch, capacity, dtype: 'f32' });
    const cache = make(2, 32);
    await cachedLogits(model, [ids, ids], [[25, 3]], cache);
    const file = await bytesOf(cache, 0, ids.slice(0, 25));
    cache.fork(0, [1]);
    const tails = [[7, 8, 9], [7, 8, 9]]; // prettier-ignore
    const [first, second] = await cachedLogits(model, tails, Array(3).fill([1, 1]), cache);
    expect(second).toEqual(first);
    const other = make(1, 48);
    await restoreCache(other, 0, await open(file), OWNER);
    const [restored] = await cachedLogits(model, [tails[0]!], one([1, 1, 1]), other);
    expect(restored).toEqual(first);
    for (const used of [cache, other, model]) used.release();
  });

  it('is not restored from another model, another format, a shorter cache’s length or a damaged file', async () => {
    const cache = make(1);
    await cachedLogits(model, [ids], [[20]], cache);
    const bytes = await bytesOf(cache, 0, ids.slice(0, 20));
    const refused = async (into: KeyValueCache, message: RegExp, file = bytes, owner = OWNER) => {
      await expect(open(file).then((opened) => restoreCache(into, 0, opened, owner))).rejects.toThrow(message);
      expect(into.lengths).toEqual([0]);
      into.release();
    };
    const config = parseTransformerConfig({ ...MIXED, sliding_window: 9 });
    await refused(new KeyValueCache(device, config, { batch: 1, capacity: 32 }), /\[cache\] a.cache: was saved of "a", which has another configuration than "b"/, bytes, { name: 'b', weights: 'w' }); // prettier-ignore
    await refused(make(1), /\[cache\] a.cache: was saved of "a" with other weights than "b" has, or with these in another format/, bytes, { name: 'b', weights: 'v' }); // prettier-ignore
    await refused(make(1, 'f16'), /a.cache: holds f32, the cache f16; make the cache in that format/);
    await refused(make(1, 'f32', 19), /a.cache: has 20 tokens, the cache holds 19/);
    await refused(make(1), /truncated|damaged|needs/, bytes.subarray(0, bytes.length - 4));
    const replaced = (from: string, to: string) => Buffer.from(bytes.toString('latin1').replace(from, to), 'latin1');
    await refused(make(1), /is no saved cache/, replaced('dawngrad cache 2', 'dawngrad cache 1'));
    await refused(make(1), /layers.0.keys is F32 \(10, 2, 8\), not F32 \(9, 2, 8\)/, replaced('"length":"20"', '"length":"09"')); // prettier-ignore
    await refused(make(1), /a.cache: has the token 40; the model's are 0 to 39/, await bytesOf(cache, 0, [...ids.slice(0, 19), 40])); // prettier-ignore
    cache.release();
  });

  it('is of a model by all bytes of its weights, and by what they are kept in', async () => {
    const json = { ...MIXED, hidden_size: 64, head_dim: 32, intermediate_size: 64 };
    const owners: CacheOwner[] = [];
    const look = async (model: Transformer) => owners.push(await cacheOwner(model, 'x'));
    const first = randomModel(device, json).model;
    await look(first);
    expect(await cacheOwner(first, 'y')).toEqual({ name: 'y', weights: owners[0]!.weights });
    const again = randomModel(device, json).model;
    expect(await cacheOwner(again, 'x')).toEqual(owners[0]);
    // One weight in its last bit; then each matrix as a format keeps it.
    const { weight } = again.model.layers[2]!.mlp.down_proj;
    const values = (await weight.read()) as Float32Array<ArrayBuffer>;
    const bits = new Uint32Array(values.buffer);
    bits[bits.length - 1]! ^= 1;
    write(weight, values);
    await look(again);
    const weights = first.namedParameters();
    const floats = async (name: string) => (await weights.get(name)!.read()) as Float32Array;
    const source = { name: 'first', tensors: weights, floats };
    for (const format of ['f16', 'bf16', 'q8', 'q4'] as const) {
      const model = declare(() => new Transformer(device, first.config));
      await model.load(source, { format: (_, shape) => (shape.length === 2 ? format : 'f32') });
      await look(model);
      model.release();
    }
    expect(new Set(owners.map(({ weights }) => weights)).size).toBe(6);
    for (const model of [first, again]) model.release();
  });
});

describe('sizes', () => {
  it('are refused where they are none, over the context, or over the capacity', () => {
    const make = (batch: number, capacity: number, dtype: CacheFormat = 'f32') =>
      new KeyValueCache(device, model.config, { batch, capacity, dtype });
    expect(() => make(0, 8)).toThrow(/batch is 0; it must be a whole number from 1 on/);
    expect(() => make(1, 1.5)).toThrow(/capacity is 1.5/);
    expect(() => make(1, 65)).toThrow(/a capacity of 65 tokens is over the model's context of 64/);
    expect(() => make(1, 8, 'q8')).toThrow(/q8 rounds blocks of 32 columns.* 2 key heads of 8 columns/);
    const cache = make(2, 8);
    expect(() => cache.step(9)).toThrow(/sequence 0 has 0 tokens and gets 9 more: over the 8 that the cache holds/);
    expect(() => cache.step(2, [1])).toThrow(/2 sequences have 0 to 2 new tokens each, not 1/);
    expect(() => cache.step(2, [1, 3])).toThrow(/not 1, 3/);
    const step = cache.step(8, [8, 0]);
    noGrad(device, () =>
      scope(
        device,
        () =>
          void model.forward(
            [1, 2].map(() => randomIds(8, 40)),
            { step },
          ),
      ),
    );
    expect(() => cache.step(1)).toThrow(/sequence 0 has 8 tokens and gets 1 more/);
    expect(() => model.forward([[1]], { step: cache.step(1, [0, 1]) })).toThrow(
      /the step is for ids \(2, 1\), not \(1, 1\)/,
    );
    cache.release();
  });

  // Llama-like shapes of which no extent is a power of two.
  const json = { ...MIXED, head_dim: 32, num_attention_heads: 6, num_key_value_heads: 3, sliding_window: 1000, attention_sinks: 4, max_position_embeddings: 8000 }; // prettier-ignore
  it.each(['f32', 'f16'] as const)('in %s are what the formula says', (dtype) => {
    const config = parseTransformerConfig(json);
    const used = () => device.memory.usage.get('key-value cache')?.live ?? 0;
    const before = used();
    const size = { batch: 3, capacity: 7001, dtype };
    const cache = new KeyValueCache(device, config, size);
    const bytes = { f32: 4, f16: 2 }[dtype];
    expect(cacheBytes(config, size)).toBe(2 * 3 * (7001 + 2 * 1004) * 3 * 32 * bytes);
    expect(Math.abs((used() - before) / cacheBytes(config, size) - 1)).toBeLessThan(0.02);
    cache.release();
    expect(used()).toBe(before);
  });
  it('in q8 are a little over a quarter', () => {
    const config = parseTransformerConfig({ ...json, num_key_value_heads: 2 });
    const [q8, f32] = (['q8', 'f32'] as const).map((dtype) => cacheBytes(config, { batch: 1, capacity: 7001, dtype }));
    expect(q8! / f32!).toBeCloseTo(8.5 / 32, 3);
  });
});
