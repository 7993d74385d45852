import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HostRandom, noGrad, randomKey, release, scope } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { KeyValueCache } from '../../llm/cache.ts';
import { Transformer } from '../../llm/model.ts';
import { plainDevice } from '../device.ts';

const LENGTH = 90;
const VOCABULARY = 40;
/** Orders of summation differ with the shape of a product; logits are about 1. */
const ROUNDING = 2e-5;

const json = (kind: 'full' | 'tree', tree: object = {}) => ({
  model_type: 'dawngrad',
  vocab_size: VOCABULARY,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 128,
  layer_types: ['sliding_attention', `${kind}_attention`],
  sliding_window: 8,
  no_rope: [`${kind}_attention`],
  ...(kind === 'tree' && { tree: { block: 4, fanout: 2, beam: 3, ...tree } }),
});

describe('a model with a tree layer', () => {
  let device: Device;
  const models: Transformer[] = [];
  const random = new HostRandom(randomKey(1, 'text'));
  const text = Array.from({ length: LENGTH }, () => random.below(VOCABULARY));
  beforeAll(async () => {
    device = await plainDevice();
  });
  afterAll(() => models.forEach((model) => model.release()));

  const make = (config: object): Transformer => {
    const model = Transformer.fromConfig(device, config);
    model.initialize(7);
    models.push(model);
    return model;
  };
  const logitsOf = async (model: Transformer, ids: readonly number[], cache?: KeyValueCache): Promise<number[]> => {
    const step = cache?.step(ids.length);
    const logits = noGrad(device, () => scope(device, () => model.logits(model.forward([ids], step ? { step } : {}))));
    const values = Array.from((await logits.read()) as Float32Array);
    release(logits);
    return values;
  };
  const furthest = (a: readonly number[], b: readonly number[]) => {
    expect(a.length).toBe(b.length);
    return Math.max(...a.map((value, i) => Math.abs(value - b[i]!)));
  };

  it('is a model with full attention where the beam takes all leaves, and another one where it does not', async () => {
    const full = await logitsOf(make(json('full')), text);
    for (const summary of ['pooled', 'boxes'])
      expect(furthest(await logitsOf(make(json('tree', { beam: 32, summary })), text), full)).toBeLessThan(ROUNDING);
    expect(furthest(await logitsOf(make(json('tree')), text), full)).toBeGreaterThan(1e-3);
  });

  it.each(['pooled', 'boxes'])('gives the same by chunks and token by token, with %s summaries', async (summary) => {
    const model = make(json('tree', { summary }));
    const whole = await logitsOf(model, text);
    for (const chunks of [
      [33, 1, 7, 49],
      [61, ...Array.from({ length: 29 }, () => 1)],
    ]) {
      const cache = new KeyValueCache(device, model.config, { batch: 1, capacity: LENGTH });
      const parts: number[] = [];
      let done = 0;
      for (const chunk of chunks) {
        parts.push(...(await logitsOf(model, text.slice(done, done + chunk), cache)));
        done += chunk;
      }
      expect(furthest(parts, whole)).toBeLessThan(ROUNDING);
      cache.release();
    }
  });

  it('gives the same over a cache in q8, to its rounding, by any chunks', async () => {
    const model = make({ ...json('tree'), head_dim: 32 });
    const by = async (chunks: readonly number[]) => {
      const cache = new KeyValueCache(device, model.config, { batch: 1, capacity: LENGTH, dtype: 'q8' });
      const parts: number[] = [];
      for (const chunk of chunks) parts.push(...(await logitsOf(model, text.slice(cache.lengths[0]!, cache.lengths[0]! + chunk), cache))); // prettier-ignore
      cache.release();
      return parts;
    };
    const once = await by([LENGTH]);
    // Where sums differ in the last bit, a key or a value may round to its neighbour: by 1/127 of the largest of 32.
    for (const chunks of [[33, 1, 7, 49], Array.from({ length: LENGTH }, () => 1)])
      expect(furthest(await by(chunks), once)).toBeLessThan(1e-2);
  });

  it('sees nothing of what comes later', async () => {
    const model = make(json('tree'));
    const whole = await logitsOf(model, text);
    const changed = await logitsOf(model, text.map((id, i) => (i < 71 ? id : (id + 1) % VOCABULARY))); // prettier-ignore
    expect(changed.slice(0, 71 * VOCABULARY)).toEqual(whole.slice(0, 71 * VOCABULARY));
    expect(furthest(changed.slice(71 * VOCABULARY), whole.slice(71 * VOCABULARY))).toBeGreaterThan(1e-2);
  });
});
