/** The decoder against one of plain loops in float64: logits, and gradients by differences of it, for each family. */
import { beforeAll, describe, expect, it } from 'vitest';
import { backward, clearGradient, HostRandom, randomKey, scope, tensor } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { plainDevice } from '../device.ts';
import { difference, MIXED, randomIds, randomModel, referenceLogits, wholeLogits } from './tiny.ts';
import type { Weights } from './tiny.ts';

let device: Device;
beforeAll(async () => {
  device = await plainDevice();
});

const small = {
  vocab_size: 11,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 32,
};
const FAMILIES: Record<string, object> = {
  'llama with biases': { ...small, model_type: 'llama', attention_bias: true, mlp_bias: true },
  'mistral, rolling': { ...small, model_type: 'mistral', sliding_window: 3 },
  'qwen2, biases on q, k and v': { ...small, model_type: 'qwen2', tie_word_embeddings: true },
  'qwen3, head norms': { ...small, model_type: 'qwen3', head_dim: 8 },
  gemma: { ...small, model_type: 'gemma', hidden_act: 'gelu', head_dim: 6 },
  'gemma 3, norms behind and of heads, two bases': {
    ...small,
    model_type: 'gemma3_text',
    hidden_activation: 'gelu_pytorch_tanh',
    layer_types: ['sliding_attention', 'full_attention'],
    sliding_window: 3,
    query_pre_attn_scalar: 5,
    rope_theta: 1e6,
    rope_local_base_freq: 1e4,
  },
  'sinks, and a layer without positions': {
    ...small,
    model_type: 'dawngrad',
    layer_types: ['sliding_attention', 'full_attention'],
    sliding_window: 3,
    attention_sinks: 2,
    no_rope: ['full_attention'],
    qk_norm: true,
  },
};

describe.each(Object.entries(FAMILIES))('%s', (_, json) => {
  const ids = randomIds(9, small.vocab_size);

  // Products of 8 and 12 terms, two layers: in f32 a few units (2⁻²⁴) of the largest value each, which add up to 3e-6.
  it('has the logits of plain loops in float64', async () => {
    const { model, weights } = randomModel(device, json);
    const [logits] = await wholeLogits(model, [ids]);
    expect(difference(logits!, referenceLogits(model.config, weights, ids))).toBeLessThan(3e-6);
    model.release();
  });

  it('has their gradients, by central differences', async () => {
    const { model, weights } = randomModel(device, json);
    const upstream = new HostRandom(randomKey(1, 'upstream')).normal(ids.length * small.vocab_size);
    scope(device, () => {
      const logits = model.logits(model.forward([ids]));
      backward(logits, tensor(device, Float32Array.from(upstream), logits.shape));
    });
    const loss = (changed: Weights) =>
      referenceLogits(model.config, changed, ids).reduce((sum, value, i) => sum + value * Math.fround(upstream[i]!), 0);
    for (const [name, parameter] of model.namedParameters()) {
      const gradient = Float64Array.from(await parameter.grad!.read());
      clearGradient(parameter);
      const largest = gradient.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const random = new HostRandom(randomKey(2, name));
      // Three elements, and one direction through all of them.
      const directions = [
        ...[0, 1, 2].map(() => random.below(parameter.size)).map((at) => (i: number) => (i === at ? 1 : 0)),
        (
          (values) => (i: number) =>
            values[i]!
        )(random.normal(parameter.size)),
      ];
      for (const direction of directions) {
        const h = 1e-5;
        const shifted = (sign: number) => {
          const values = weights.get(name)!.map((value, i) => value + sign * h * direction(i));
          return loss(new Map([...weights, [name, values]]));
        };
        const expected = (shifted(1) - shifted(-1)) / (2 * h);
        const slope = gradient.reduce((sum, value, i) => sum + value * direction(i), 0);
        const length = Math.sqrt(gradient.reduce((sum, value, i) => sum + (value * direction(i)) ** 2, 0));
        // As the forward pass, twice: back through the same products. The differences themselves err by 1e-8.
        const error = Math.abs(slope - expected);
        expect(error, name).toBeLessThan(1e-5 * (largest + length) + 1e-7);
      }
    }
    model.release();
  });
});

it('has the same gradients where layers are computed again in the backward pass', async () => {
  const { model } = randomModel(device, MIXED);
  const gradients = async () => {
    scope(device, () => {
      const logits = model.logits(model.forward([randomIds(9, 40)]));
      backward(logits, tensor(device, new HostRandom(randomKey(1, 'upstream')).normal(logits.size), logits.shape));
    });
    const found: Float32Array[] = [];
    for (const parameter of model.namedParameters().values()) {
      found.push((await parameter.grad!.read()) as Float32Array);
      clearGradient(parameter);
    }
    return found;
  };
  const kept = await gradients();
  model.setCheckpointing(true);
  expect(await gradients()).toEqual(kept);
  model.release();
});

it('refuses ids of another vocabulary, texts of several lengths, and a step for other ids', () => {
  const { model } = randomModel(device, MIXED);
  expect(() => model.forward([[1, 40]])).toThrow(/token id 40 is not in this model's vocabulary, 0 to 39/);
  expect(() => model.forward([[1, 2], [3]])).toThrow(/texts must have one common length of at least 1 token, not 2, 1/);
  expect(() => model.forward([])).toThrow(/not none/);
  model.release();
});
