/** Tiny random decoders, and a decoder in float64 by plain loops, written from the definition. */
import { HostRandom, noGrad, randomKey, scope, write } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { KeyValueCache } from '../../llm/cache.ts';
import type { TransformerConfig } from '../../llm/config.ts';
import { Transformer } from '../../llm/model.ts';
import { ropeValues } from '../../llm/rope.ts';

/** `config.json` of a decoder of width 32 whose layers roll (window 8, two sinks), see all, and roll. */
export const MIXED = {
  model_type: 'dawngrad',
  vocab_size: 40,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  layer_types: ['sliding_attention', 'full_attention', 'sliding_attention'],
  sliding_window: 8,
  attention_sinks: 2,
} as const;

export type Weights = Map<string, Float64Array>;

/** A decoder whose every weight is random, those of norms and biases too, and its weights by their names. */
export function randomModel(device: Device, json: object, seed = 1): { model: Transformer; weights: Weights } {
  const model = Transformer.fromConfig(device, json);
  const weights: Weights = new Map();
  for (const [name, parameter] of model.namedParameters()) {
    const random = new HostRandom(randomKey(seed, name)).normal(parameter.size);
    const deviation = name.includes('embed')
      ? 1
      : parameter.shape.length === 1
        ? 0.2
        : 1 / Math.sqrt(parameter.shape[1]!);
    const middle = name.includes('norm') ? 1 - model.config.normOffset : 0;
    const values = random.map((value) => Math.fround(middle + deviation * value));
    write(parameter, values);
    weights.set(name, Float64Array.from(values));
  }
  return { model, weights };
}

export const randomIds = (count: number, vocabulary: number, seed = 1): number[] => {
  const random = new HostRandom(randomKey(seed, 'ids'));
  return Array.from({ length: count }, () => random.below(vocabulary));
};

/** The logits of all texts (of one length) without a cache: [text][token · V + v]. */
export async function wholeLogits(model: Transformer, texts: readonly number[][]): Promise<Float32Array[]> {
  const logits = noGrad(model.device, () => scope(model.device, () => model.logits(model.forward(texts))));
  const values = (await logits.read()) as Float32Array;
  logits.storage.drop();
  const size = values.length / texts.length;
  return texts.map((_, i) => values.slice(i * size, (i + 1) * size));
}

/**
 * The logits of a sequence each, given to a cache part by part: part p has `parts[p][b]` tokens of sequence b, the rest of
 * the longest one's length is filled up with other tokens.
 */
export async function cachedLogits(
  model: Transformer,
  texts: readonly number[][],
  parts: readonly (readonly number[])[],
  cache = new KeyValueCache(model.device, model.config, { batch: texts.length, capacity: texts[0]!.length }),
): Promise<Float32Array[]> {
  const found: number[][] = texts.map(() => []);
  const first = [...cache.lengths];
  for (const counts of parts) {
    const length = Math.max(...counts);
    const at = cache.lengths.map((cached, b) => cached - first[b]!);
    const ids = texts.map((text, b) => Array.from({ length }, (_, t) => (t < counts[b]! ? text[at[b]! + t]! : 1)));
    const logits = noGrad(model.device, () =>
      scope(model.device, () => model.logits(model.forward(ids, { step: cache.step(length, counts) }))),
    );
    const values = await logits.read();
    logits.storage.drop();
    const { vocabulary } = model.config;
    counts.forEach((count, b) => {
      const start = b * length * vocabulary;
      for (const value of values.subarray(start, start + count * vocabulary)) found[b]!.push(value);
    });
  }
  return found.map((values) => Float32Array.from(values));
}

/** The largest difference, as a share of the largest value. */
export function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values for ${expected.length}`);
  let [most, worst] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    most = Math.max(most, Math.abs(expected[i]!));
    const error = Math.abs(actual[i]! - expected[i]!);
    if (!(error <= worst)) worst = error; // NaN too
  }
  return worst / most;
}

/** The logits of one text, (T, V), in float64. */
export function referenceLogits(config: TransformerConfig, weights: Weights, ids: readonly number[]): Float64Array {
  const { width, hidden, heads, keyHeads, headDim, vocabulary, normEps, normOffset } = config;
  const get = (name: string) => weights.get(name)!;
  const product = (x: Float64Array, name: string, outputs: number): Float64Array => {
    const weight = get(`${name}.weight`);
    const bias = weights.get(`${name}.bias`);
    return Float64Array.from({ length: outputs }, (_, o) => {
      let sum = bias?.[o] ?? 0;
      for (let i = 0; i < x.length; i++) sum += weight[o * x.length + i]! * x[i]!;
      return sum;
    });
  };
  const norm = (x: Float64Array, name: string): Float64Array => {
    const weight = get(`${name}.weight`);
    const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
    return x.map((value, i) => (value / Math.sqrt(meanSquare + normEps)) * (weight[i]! + normOffset));
  };
  const add = (a: Float64Array, b: Float64Array) => a.map((value, i) => value + b[i]!);
  const act = (x: number) =>
    config.activation === 'silu'
      ? x / (1 + Math.exp(-x))
      : 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

  let states = ids.map((id) =>
    get('model.embed_tokens.weight')
      .slice(id * width, (id + 1) * width)
      .map((value) => value * config.embeddingScale),
  );
  config.layers.forEach((layer, l) => {
    const name = `model.layers.${l}`;
    const turned = (x: Float64Array, position: number): Float64Array => {
      if (!layer.rope) return x;
      const { frequencies, scale } = ropeValues(layer.rope, ids.length);
      const half = frequencies.length;
      const out = x.slice();
      frequencies.forEach((frequency, i) => {
        const [c, s] = [Math.cos(position * frequency), Math.sin(position * frequency)];
        out[i] = scale * (x[i]! * c - x[i + half]! * s);
        out[i + half] = scale * (x[i]! * s + x[i + half]! * c);
      });
      return out;
    };
    const split = (x: Float64Array, count: number, position: number, normName: string | null) =>
      Array.from({ length: count }, (_, h) => {
        const head = x.slice(h * headDim, (h + 1) * headDim);
        return normName === null ? head : turned(config.headNorms ? norm(head, normName) : head, position);
      });
    const at = `${name}.self_attn`;
    const inputs = states.map((x) => norm(x, `${name}.input_layernorm`));
    const q = inputs.map((x, t) => split(product(x, `${at}.q_proj`, heads * headDim), heads, t, `${at}.q_norm`));
    const k = inputs.map((x, t) => split(product(x, `${at}.k_proj`, keyHeads * headDim), keyHeads, t, `${at}.k_norm`));
    const v = inputs.map((x, t) => split(product(x, `${at}.v_proj`, keyHeads * headDim), keyHeads, t, null));
    states = states.map((x, t) => {
      const out = new Float64Array(heads * headDim);
      for (let h = 0; h < heads; h++) {
        const g = Math.floor(h / (heads / keyHeads));
        const seen = Array.from({ length: t + 1 }, (_, j) => j).filter(
          (j) => layer.window === null || j > t - layer.window || j < layer.sinks,
        );
        const scores = seen.map((j) => {
          const dot = q[t]![h]!.reduce((sum, value, d) => sum + value * k[j]![g]![d]!, 0);
          return Math.exp(config.attentionScale * dot);
        });
        const total = scores.reduce((sum, score) => sum + score, 0);
        seen.forEach((j, e) =>
          v[j]![g]!.forEach((value, d) => (out[h * headDim + d]! += (scores[e]! / total) * value)),
        );
      }
      const attended = product(out, `${at}.o_proj`, width);
      const mlp = (x: Float64Array) => {
        const up = product(x, `${name}.mlp.up_proj`, hidden);
        const gated = product(x, `${name}.mlp.gate_proj`, hidden).map((value, i) => act(value) * up[i]!);
        return product(gated, `${name}.mlp.down_proj`, width);
      };
      if (!config.postNorms) {
        const y = add(x, attended);
        return add(y, mlp(norm(y, `${name}.post_attention_layernorm`)));
      }
      const y = add(x, norm(attended, `${name}.post_attention_layernorm`));
      const z = mlp(norm(y, `${name}.pre_feedforward_layernorm`));
      return add(y, norm(z, `${name}.post_feedforward_layernorm`));
    });
  });
  const head = config.tied ? 'model.embed_tokens' : 'lm_head';
  return Float64Array.from(states.flatMap((x) => [...product(norm(x, 'model.norm'), head, vocabulary)]));
}
