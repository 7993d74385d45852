/** Decoding by fused kernels: what the composed operations give, in how many dispatches, eager and replayed. */
import { beforeAll, describe, expect, it } from 'vitest';
import {
  capture,
  HostRandom,
  noGrad,
  randomKey,
  rehearsal,
  release,
  scope,
  tensor,
  write,
} from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { KeyValueCache } from '../../llm/cache.ts';
import type { CacheFormat } from '../../llm/cache.ts';
import type { Transformer } from '../../llm/model.ts';
import { quantize } from '../../kernels/index.ts';
import { plainDevice, poorestDevice } from '../device.ts';
import { cachedLogits, difference, MIXED, randomIds, randomModel, referenceLogits } from './tiny.ts';

let device: Device;
beforeAll(async () => {
  device = await plainDevice();
});

interface Run {
  readonly model: Transformer;
  readonly texts: readonly number[][];
  /** Tokens of each text that are there before decoding begins. */
  readonly prompt: number;
  readonly cache?: CacheFormat;
  readonly dtype?: 'f32' | 'f16';
  readonly composed?: boolean;
  readonly capacity?: number;
}

/** The logits of each step that decodes a token of every text, and the dispatches of the last of them, the head left out. */
async function decode({
  model,
  texts,
  prompt,
  cache: format = 'f32',
  dtype = 'f32',
  composed = false,
  capacity = 40,
}: Run) {
  const { device } = model;
  const cache = new KeyValueCache(device, model.config, { batch: texts.length, capacity, dtype: format });
  const found: Float32Array[] = [];
  let dispatches = 0;
  const run = (ids: number[][]) =>
    noGrad(device, () =>
      scope(device, () => {
        const before = device.stream.dispatches;
        const states = model.forward(ids, { step: cache.step(ids[0]!.length), dtype, composed });
        states.window();
        dispatches = device.stream.dispatches - before;
        return model.logits(states);
      }),
    );
  if (prompt > 0) release(run(texts.map((text) => text.slice(0, prompt))));
  for (let t = prompt; t < texts[0]!.length; t++) {
    const logits = run(texts.map((text) => [text[t]!]));
    found.push((await logits.read()) as Float32Array);
    logits.storage.drop();
  }
  cache.release();
  return { logits: found, dispatches };
}

async function check(run: Run, limit: number): Promise<void> {
  const fused = await decode(run);
  const composed = await decode({ ...run, composed: true });
  expect(fused.dispatches).toBeLessThan(composed.dispatches);
  fused.logits.forEach((logits, i) => expect(difference(logits, composed.logits[i]!)).toBeLessThan(limit));
}

/** Sums in another order, in f32, through three layers; as in cache.test.ts. */
const ROUNDING = 3e-6;
const texts = (count: number, length = 24) => Array.from({ length: count }, (_, i) => randomIds(length, 40, i));
const WIDE = { ...MIXED, head_dim: 64, hidden_size: 64, intermediate_size: 64 };

describe('gives what the composed operations give', () => {
  it.each([1, 3, 8])('%i sequences, across the wrap of rings', async (count) => {
    const { model } = randomModel(device, MIXED);
    await check({ model, texts: texts(count), prompt: 7 }, ROUNDING);
    model.release();
  });

  it.each([
    [
      'biases',
      { ...MIXED, model_type: 'qwen2', layer_types: undefined, sliding_window: undefined, attention_sinks: undefined },
    ],
    ['norms of heads, a layer without positions', { ...MIXED, qk_norm: true, no_rope: ['full_attention'] }],
    [
      'Gemma: norms of 1 + w, tanh GELU',
      {
        ...MIXED,
        model_type: 'gemma',
        hidden_act: 'gelu',
        layer_types: undefined,
        sliding_window: undefined,
        attention_sinks: undefined,
      },
    ],
    [
      'Gemma 3: norms behind attention and MLP, two bases',
      {
        ...MIXED,
        model_type: 'gemma3_text',
        attention_sinks: undefined,
        hidden_activation: 'gelu_pytorch_tanh',
        rope_local_base_freq: 100,
      },
    ],
  ])('%s', async (_, json) => {
    const { model } = randomModel(device, JSON.parse(JSON.stringify(json)) as object);
    await check({ model, texts: texts(2), prompt: 7 }, ROUNDING);
    model.release();
  });

  // Both read the same rounded keys and values; where sums differ in the last bit, a value may round to its neighbour.
  it.each([
    ['f16', 1e-3],
    ['q8', 1e-2],
  ] as const)('a cache in %s', async (format, limit) => {
    const { model } = randomModel(device, WIDE);
    await check({ model, texts: texts(2), prompt: 7, cache: format }, limit);
    model.release();
  });

  it.each(['f16', 'bf16', 'q8', 'q4'] as const)('weights in %s', async (format) => {
    const { model } = randomModel(device, WIDE);
    const stored = [...model.namedParameters()]
      .filter(([name]) => name.includes('proj'))
      .map(([name, { shape, size }]): [string, Tensor] => {
        const values = new HostRandom(randomKey(3, name)).normal(size).map((value) => value / 8);
        return [name, format === 'f16' ? tensor(device, values, shape, { dtype: format }) : quantize(device, values, shape, format)]; // prettier-ignore
      });
    model.replaceParameters(new Map(stored));
    await check({ model, texts: texts(2), prompt: 7 }, ROUNDING);
    model.release();
  });

  it('computed in f16, to its rounding', async () => {
    const { model } = randomModel(device, MIXED);
    const run = { model, texts: texts(2, 8), prompt: 0 };
    const fused = await decode({ ...run, dtype: 'f16', cache: 'f16' });
    const exact = await decode({ ...run, composed: true });
    // States are rounded to 2⁻¹¹ a dozen times, one after another.
    fused.logits.forEach((logits, i) => expect(difference(logits, exact.logits[i]!)).toBeLessThan(1e-2));
    model.release();
  });

  const TREE = { ...MIXED, layer_types: Array(3).fill('tree_attention') as string[], tree: { block: 4, fanout: 2, beam: 2 } }; // prettier-ignore
  it.each([
    ['pooled summaries', 1, TREE],
    ['boxes', 2, { ...TREE, tree: { ...TREE.tree, summary: 'boxes' }, attention_sinks: 0 }],
    ['blocks of 3, a head a group', 2, { ...TREE, tree: { block: 3, fanout: 3, beam: 2 }, num_key_value_heads: 4 }],
  ])('trees: %s, %i sequences', async (_, count, json) => {
    const { model } = randomModel(device, json);
    await check({ model, texts: texts(count, 34), prompt: 7 }, ROUNDING);
    model.release();
  });

  it('trees over a cache in q8', async () => {
    const { model } = randomModel(device, { ...TREE, head_dim: 64 });
    await check({ model, texts: texts(2, 34), prompt: 7, cache: 'q8' }, 1e-2);
    model.release();
  });

  it('over a cache of several spans', async () => {
    const { model } = randomModel(device, { ...MIXED, max_position_embeddings: 1200 });
    await check({ model, texts: texts(2, 600), prompt: 597, capacity: 1200 }, ROUNDING);
    model.release();
  });

  it('on a device without subgroups, f16 and immediates, and writes nothing behind its buffers', async () => {
    const poorest = await poorestDevice();
    const run = { texts: texts(1, 4), prompt: 0 }; // no kernels but those of decoding one sequence are compiled
    const models = [poorest, device].map((each) => randomModel(each, MIXED).model);
    const [fused, composed] = [await decode({ model: models[0]!, ...run }), await decode({ model: models[1]!, ...run, composed: true })]; // prettier-ignore
    fused.logits.forEach((logits, i) => expect(difference(logits, composed.logits[i]!)).toBeLessThan(ROUNDING));
    for (const model of models) model.release();
    await poorest.checkGuards();
  });

  // Several whole heads, and lanes that share sums by workgroup memory: no kernel here has more of it. Pipelines are made and
  // thus checked against the limits; running them would compile for a minute.
  it('with no more workgroup memory than all adapters have', async () => {
    const poorest = await poorestDevice();
    const dry = rehearsal(poorest);
    const { model } = randomModel(dry, { ...WIDE, qk_norm: true });
    await decode({ model, texts: texts(3, 3), prompt: 0, cache: 'q8' });
    const kernels = [...dry.kernels()].map(({ source, defines }) => poorest.kernel(source, defines));
    expect(kernels.some(({ label }) => label.includes('decode_project'))).toBe(true);
    for (const kernel of kernels) await kernel.compile();
  });
});

describe('gives what plain loops in float64 give', () => {
  const tree = { block: 4, fanout: 2, beam: 16 }; // all leaves: as if the layers saw everything
  it.each([
    ['Gemma 3', { ...MIXED, model_type: 'gemma3_text', attention_sinks: undefined, hidden_activation: 'gelu_pytorch_tanh' }], // prettier-ignore
    ['trees whose beam takes all leaves', { ...MIXED, layer_types: Array(3).fill('tree_attention') as string[], tree }],
  ])('%s, sequences that pause', async (_, json) => {
    const { model, weights } = randomModel(device, JSON.parse(JSON.stringify(json)) as object);
    const parts = [[6, 9], ...Array.from({ length: 24 }, (_, i) => [Number(i % 4 > 0), Number(i % 4 !== 2)])];
    const all = texts(2, 32);
    const found = await cachedLogits(model, all, parts);
    const seen = { ...model.config, layers: model.config.layers.map((layer) => (layer.tree ? { ...layer, window: null } : layer)) }; // prettier-ignore
    for (const [b, logits] of found.entries()) {
      const ids = all[b]!.slice(0, logits.length / model.config.vocabulary);
      expect(ids.length).toBeGreaterThan(20);
      expect(difference(logits, referenceLogits(seen, weights, ids))).toBeLessThan(ROUNDING);
    }
    model.release();
  });
});

it('has each sequence’s bits as alone, whatever is decoded beside it', async () => {
  const { model } = randomModel(device, MIXED);
  const all = texts(3, 14);
  const together = await decode({ model, texts: all, prompt: 9 });
  for (const [b, text] of all.entries()) {
    const alone = await decode({ model, texts: [text], prompt: 9 });
    alone.logits.forEach((logits, i) => expect(together.logits[i]!.slice(b * 40, (b + 1) * 40)).toEqual(logits));
  }
  model.release();
});

describe('a layer takes', () => {
  const layers = (type: string) => ({ num_hidden_layers: 4, layer_types: Array(4).fill(type) as string[] });
  const base = { ...MIXED, ...layers('full_attention'), attention_sinks: undefined, max_position_embeddings: 1200 };
  const behind = { ...base, model_type: 'gemma3_text', hidden_activation: 'gelu_pytorch_tanh' };
  const tree = { ...base, ...layers('tree_attention'), tree: { block: 4, fanout: 2, beam: 3 } };
  it.each([
    ['Llama', { ...base, model_type: 'llama', sliding_window: undefined, layer_types: undefined }, 40, 5, 0],
    ['Llama, several spans', { ...base, model_type: 'llama', sliding_window: undefined, layer_types: undefined }, 1200, 6, 0], // prettier-ignore
    ['Qwen 3', { ...base, model_type: 'qwen3', sliding_window: undefined, layer_types: undefined }, 40, 5, 0],
    ['Qwen 3, several spans', { ...base, model_type: 'qwen3', sliding_window: undefined, layer_types: undefined }, 1200, 6, 0], // prettier-ignore
    // Embeddings are multiplied, and the norm behind the last MLP has no layer behind it.
    ['Gemma 3', behind, 40, 5, 2],
    ['Gemma 3, several spans', behind, 1200, 6, 2],
    ['window and tree', tree, 40, 6, 0],
    ['window and tree, a longer cache', tree, 1200, 6, 0],
  ])('%s', async (_, json, capacity, most, more) => {
    const { model } = randomModel(device, JSON.parse(JSON.stringify(json)) as object);
    const { dispatches } = await decode({ model, texts: texts(2, 10), prompt: 8, capacity });
    expect(dispatches).toBe(4 * most + 2 + more); // and the embedding and the last norm
    model.release();
  });
});

it('gives the same bits captured and replayed', async () => {
  const { model } = randomModel(device, MIXED);
  const all = texts(2, 20);
  const eager = await decode({ model, texts: all, prompt: 7 });
  const cache = new KeyValueCache(device, model.config, { batch: 2, capacity: 40 });
  const ids = tensor(device, new Int32Array(2), [2, 1]);
  const next = (t: number) =>
    write(
      ids,
      Int32Array.from(all, (text) => text[t]!),
    );
  release(
    noGrad(device, () =>
      model.forward(
        all.map((text) => text.slice(0, 7)),
        { step: cache.step(7) },
      ),
    ),
  );
  next(7);
  release(noGrad(device, () => model.forward(ids, { step: cache.step(1) })));
  cache.lengths.fill(7); // that one was to compile
  let step = cache.step(1);
  const replay = capture(device, () => noGrad(device, () => model.logits(model.forward(ids, { step }))));
  expect(await replay.result.read()).toEqual(eager.logits[0]);
  for (let t = 8; t < 20; t++) {
    next(t);
    step = cache.step(1);
    replay.run();
    step.end();
    expect(await replay.result.read()).toEqual(eager.logits[t - 7]);
  }
  replay.release();
  for (const used of [cache, model]) used.release();
  release(ids);
});
