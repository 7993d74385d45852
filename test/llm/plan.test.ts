/** The plan of a model's memory against what the device then counts. */
import { expect, it } from 'vitest';
import { mebibytes, noGrad, release, scope } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { rehearsal } from '../../engine/index.ts';
import { KeyValueCache } from '../../llm/cache.ts';
import { parseTransformerConfig } from '../../llm/config.ts';
import { describePlan, planTransformer } from '../../llm/plan.ts';
import { plainDevice } from '../device.ts';
import { MIXED, randomIds, randomModel } from './tiny.ts';

it('is what a prefill by chunks and a step then take', async () => {
  const like = await plainDevice();
  const config = parseTransformerConfig(MIXED);
  const size = { batch: 2, capacity: 40 };
  const plan = planTransformer(rehearsal(like), config, { cache: size, chunk: 13 });
  expect(plan.cache.map(({ name, count }) => [name, count])).toEqual([
    ['window 8 + 2 sinks', 2],
    ['full', 1],
  ]);

  const device = await openNodeDevice(); // of its own, so that it counts this alone
  const { model } = randomModel(device, MIXED);
  const cache = new KeyValueCache(device, config, size);
  const run = (length: number) => {
    const ids = [1, 2].map((seed) => randomIds(length, 40, seed));
    const step = cache.step(length);
    const before = device.stream.dispatches;
    release(
      noGrad(device, () =>
        scope(device, () => {
          const states = model.forward(ids, { step });
          return length === 1 ? model.logits(states) : states;
        }),
      ),
    );
    return device.stream.dispatches - before;
  };
  for (const length of [13, 13]) run(length);
  device.memory.resetPeak();
  const base = device.memory.live;
  run(13);
  const activations = device.memory.peak - base;
  expect(plan.activations / activations).toBeGreaterThan(0.98);
  expect(plan.activations / activations).toBeLessThan(1.1); // and the logits
  expect(run(1)).toBe(plan.dispatches.token);
  const kept = device.memory.usage.get('key-value cache')!.live;
  const planned = plan.cache.reduce((sum, { bytes }) => sum + bytes, 0);
  expect(Math.abs(kept / planned - 1)).toBeLessThan(0.02);
  // What is printed adds up to what is allocated.
  const weights = [...model.namedParameters().values()].reduce((sum, { size }) => sum + 4 * size, 0);
  expect(plan.weights.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(weights);
  expect(plan.total / (weights + kept + activations)).toBeGreaterThan(0.98);
  expect(plan.total / (weights + kept + activations)).toBeLessThan(1.1);
  expect(plan.total).toBe(weights + planned + plan.activations);
  expect(describePlan(plan)).toContain(`together: ${mebibytes(plan.total)}`);
  device.destroy();
});

it('says what a Llama of 8 billion takes at 131,072 tokens, without memory for it', async () => {
  const json = {
    model_type: 'llama',
    vocab_size: 128_256,
    hidden_size: 4096,
    intermediate_size: 14_336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    max_position_embeddings: 131_072,
    tie_word_embeddings: false,
  };
  const config = parseTransformerConfig(json);
  const dry = rehearsal(await plainDevice());
  const size = { batch: 1, capacity: 131_072, dtype: 'f16' } as const;
  // What a binding holds on this adapter is less than its cache: planned on one that binds all.
  Object.defineProperty(dry, 'bindingLimit', { value: 2 ** 33 });
  const plan = planTransformer(dry, config, { weights: 'q8', cache: size, chunk: 64, dtype: 'f16' });
  const [cache] = plan.cache;
  expect(cache).toEqual({ name: 'full', count: 32, bytes: 2 ** 34, formula: '32 · 2 · 1 · 131072 · 8 · 128 · 2' }); // 128 KiB a token
  expect(describePlan(plan)).toContain('cache of 32 layers (full): 16384.0 MiB');
  const q8 = plan.weights.find(({ name }) => name === 'q8')!;
  expect(q8.bytes / (8.03e9 * (8.5 / 8))).toBeCloseTo(1, 2);
  expect(plan.dispatches.token).toBe(32 * 6 + 5); // embedding and last norm, each with a rounding to f16, and the head
});

it.each([
  ['f32', 'f32', 'pooled'],
  ['f16', 'f16', 'boxes'],
  ['q8', 'q8', 'pooled'],
  ['q4', 'f32', 'boxes'],
] as const)('says where its bytes come from: weights in %s, a cache in %s, %s', async (weights, dtype, summary) => {
  const layer_types = ['full_attention', 'sliding_attention', 'tree_attention'];
  const json = { ...MIXED, head_dim: 64, hidden_size: 64, intermediate_size: 64, layer_types, tree: { block: 4, fanout: 2, beam: 2, summary } }; // prettier-ignore
  const dry = rehearsal(await plainDevice());
  const plan = planTransformer(dry, parseTransformerConfig(json), { weights, cache: { batch: 3, capacity: 50, dtype }, chunk: 7 }); // prettier-ignore
  expect(plan.cache.length).toBe(3);
  for (const { formula, bytes } of [...plan.weights, ...plan.cache]) {
    const worth = formula.replaceAll('·', '*').replaceAll(/[^-+*/() 0-9]/g, '?');
    expect(new Function(`return ${worth}`)()).toBe(bytes);
  }
});

it('refuses a chunk that leaves no room, and formats that rows don’t fit', async () => {
  const config = parseTransformerConfig({ ...MIXED, intermediate_size: 40 });
  const dry = rehearsal(await plainDevice());
  const cache = { batch: 1, capacity: 16 };
  expect(() => planTransformer(dry, config, { cache, chunk: 16 })).toThrow(
    /\[plan\] a chunk of 16 tokens: it must be 1 to 15/,
  );
  expect(() => planTransformer(dry, config, { cache, chunk: 4, weights: 'q8' })).toThrow(
    /down_proj.weight is \(32, 40\): rows in q8 are multiples of 32/,
  );
});
