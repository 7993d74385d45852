/**
 * A decoder whose weights are written down, not trained: an induction head (Elhage et al. 2021, Olsson et al. 2022) in two
 * layers. Asked with a token, it says what followed that token before. It shows what a layer's attention reaches, without the
 * chances of training.
 *
 * Tokens are orthogonal: token t is column t of a part of the residual stream of V columns. There are three such parts, and one
 * column that is 1:
 *
 *     now (V) | before (V) | answer (V) | one
 *
 * Layer 0, a window with RoPE, writes the token before into `before`. Its queries and keys are the same at all positions up to
 * their turn, and the query is turned back by one step, so that the score at distance Δ is A² Σ cos(ω (Δ − 1)) / √V over the
 * frequencies ω: largest at Δ = 1. Layer 1, without RoPE, compares the query's `now` with the keys' `before`: the score is
 * SHARPNESS where they are one token, and 0 elsewhere. It adds the `now` of what it finds to `answer`, which the head reads.
 * The MLPs give 0. A norm divides by the root of what is known: a row has two ones before layer 0 and three before layer 1 (but
 * for what layer 0 takes from elsewhere, below W · e^−SHARPNESS), and the norm's weights multiply it back.
 *
 * Why a tree finds one key among n: the score of a node, the mean of m keys, is SHARPNESS · c / m where the token asked for
 * occurs c times in it, and 0 where it doesn't, on each level. So what holds the token is above what doesn't, and a beam of
 * as many nodes as the token has places loses none of them. Codes in fewer columns D than tokens would be orthogonal on
 * average only: the other m keys of a node add a deviation of √(m / D) times the key's own score. At D = 128 that is 0.7 in a
 * leaf of 64, 2 in a node of 8 leaves, 5.7 in one of 64: the key would be lost at the top. What tells a rare key from the rest has
 * to be in columns that the rest leaves alone; this is what training has to find.
 */
import { HostRandom, noGrad, randomKey, release, scope, write } from '../engine/index.ts';
import type { Device } from '../engine/index.ts';
import { ropeFrequencies } from '../kernels/index.ts';
import { KeyValueCache } from './cache.ts';
import { parseTransformerConfig } from './config.ts';
import type { TransformerConfig } from './config.ts';
import { Transformer } from './model.ts';

/** By how much the right key's score exceeds all others, in both layers: e^−24 = 4 · 10⁻¹¹. */
const SHARPNESS = 24;

export interface InductionOptions {
  /** V: a multiple of 4, at most 256. */
  vocabulary: number;
  /** The longest text. */
  context: number;
  /** Of both layers. */
  window: number;
  /** What the second layer sees: its window and the leaves that it selects, its window alone, or all. */
  second: 'tree' | 'window' | 'full';
  /** `tree` in config.json. */
  tree?: object;
}

function inductionConfig({ vocabulary, context, window, second, tree = {} }: InductionOptions): TransformerConfig {
  const config = parseTransformerConfig({
    model_type: 'dawngrad',
    vocab_size: vocabulary,
    hidden_size: 3 * vocabulary + 4, // rows in fours
    intermediate_size: 4,
    num_hidden_layers: 2,
    num_attention_heads: 1,
    head_dim: vocabulary,
    max_position_embeddings: context,
    layer_types: ['sliding_attention', 'tree_attention'],
    sliding_window: window,
    tree,
    no_rope: ['tree_attention'],
  });
  const [first, last] = config.layers as [(typeof config.layers)[0], (typeof config.layers)[0]];
  if (second === 'tree') return config;
  return { ...config, layers: [first, { ...last, tree: null, window: second === 'full' ? null : window }] };
}

/** The model above. Throws where the options are not those of a model. */
export function inductionModel(device: Device, options: InductionOptions): Transformer {
  const config = inductionConfig(options);
  const { vocabulary, width, normEps } = config;
  const [now, before, answer, one] = [0, vocabulary, 2 * vocabulary, 3 * vocabulary];
  const model = new Transformer(device, config);
  const parameters = model.namedParameters();
  for (const parameter of parameters.values()) write(parameter, new Float32Array(parameter.size));
  type Entry = readonly [row: number, column: number, value: number];
  const fill = (name: string, entries: readonly Entry[]) => {
    const parameter = parameters.get(name)!;
    const values = new Float32Array(parameter.size);
    for (const [row, column, value] of entries) values[row * parameter.shape.at(-1)! + column] = value;
    write(parameter, values);
  };
  /** A diagonal of V entries, from these rows to these columns. */
  const copy = (row: number, column: number, value = 1) =>
    Array.from({ length: vocabulary }, (_, t): Entry => [row + t, column + t, value]);
  const norm = (name: string, value: number) =>
    fill(name, Array.from({ length: width }, (_, column) => [0, column, value])); // prettier-ignore

  fill('model.embed_tokens.weight', [
    ...copy(0, now),
    ...Array.from({ length: vocabulary }, (_, t): Entry => [t, one, 1]),
  ]);
  for (const [layer, ones] of [2, 3].entries())
    norm(`model.layers.${layer}.input_layernorm.weight`, Math.sqrt(ones / width + normEps));
  const { query, key } = lookBack(vocabulary, options.window, SHARPNESS);
  fill('model.layers.0.self_attn.q_proj.weight', query.map((value, row) => [row, one, value])); // prettier-ignore
  fill('model.layers.0.self_attn.k_proj.weight', key.map((value, row) => [row, one, value])); // prettier-ignore
  fill('model.layers.0.self_attn.v_proj.weight', copy(0, now));
  fill('model.layers.0.self_attn.o_proj.weight', copy(before, 0));
  const gain = Math.sqrt(SHARPNESS * Math.sqrt(vocabulary)); // scores are divided by √V
  fill('model.layers.1.self_attn.q_proj.weight', copy(0, now, gain));
  fill('model.layers.1.self_attn.k_proj.weight', copy(0, before, gain));
  fill('model.layers.1.self_attn.v_proj.weight', copy(0, now));
  fill('model.layers.1.self_attn.o_proj.weight', copy(answer, 0));
  norm('model.norm.weight', 1);
  fill('lm_head.weight', copy(0, answer));
  return model;
}

/**
 * Query and key of a head of D columns that meet best one step apart, by a score (over √D) of at least `margin` more than
 * elsewhere in the window: pairs of columns (f, f + D / 2) turn by ω_f a position.
 */
export function lookBack(columns: number, window: number, margin: number): { query: number[]; key: number[] } {
  const frequencies = Array.from(ropeFrequencies(columns));
  // By how much Σ cos is less elsewhere in the window than one step back.
  const loss = (distance: number) => frequencies.reduce((sum, f) => sum + 1 - Math.cos(f * (distance - 1)), 0);
  const others = Array.from({ length: window }, (_, distance) => distance).filter((distance) => distance !== 1);
  const amplitude = Math.sqrt((margin * Math.sqrt(columns)) / Math.min(...others.map(loss)));
  return {
    query: [...frequencies.map((f) => amplitude * Math.cos(f)), ...frequencies.map((f) => -amplitude * Math.sin(f))],
    key: [...frequencies.map(() => amplitude), ...frequencies.map(() => 0)],
  };
}

/** A token that occurs once in a text, and the one behind it. */
export interface Needle {
  readonly position: number;
  readonly key: number;
  readonly value: number;
}

/**
 * `length` random tokens with needles at depths evenly spread from the text's beginning to its end; but the first token is none:
 * it has no token before it, and layer 0 takes itself.
 */
export function needleText(
  length: number,
  { vocabulary, needles: count, seed }: { vocabulary: number; needles: number; seed: number },
): { text: Int32Array; needles: Needle[] } {
  if (vocabulary <= 2 * count || length < 2 * count + 1)
    throw new Error(`[needleText] ${count} needles need more than ${2 * count} tokens in the vocabulary, and as many in the text; there are ${vocabulary} and ${length}`); // prettier-ignore
  const random = new HostRandom(randomKey(seed, 'needles'));
  const names = random.permutation(vocabulary);
  const words = names.slice(2 * count);
  const text = Int32Array.from({ length }, () => words[random.below(words.length)]!);
  const needles = Array.from({ length: count }, (_, i) => ({
    position: 1 + (count === 1 ? 0 : Math.round((i * (length - 3)) / (count - 1))),
    key: names[i]!,
    value: names[count + i]!,
  }));
  for (const { position, key, value } of needles) text.set([key, value], position);
  return { text, needles };
}

export interface Found extends Needle {
  /** What the model says behind the key. */
  readonly answer: number;
  /** By how much the value's logit is above all others', or below the highest. */
  readonly margin: number;
}

/** Reads the text into a cache, `chunk` tokens at a time, then asks for each needle by its key alone. */
export async function findNeedles(
  model: Transformer,
  { text, needles }: { text: Int32Array; needles: readonly Needle[] },
  { chunk = 2048, onRead }: { chunk?: number; onRead?: (done: number, total: number) => void } = {},
): Promise<Found[]> {
  const { device, config } = model;
  const cache = new KeyValueCache(device, config, { batch: 1, capacity: text.length + 1 });
  try {
    for (let at = 0; at < text.length; at += chunk) {
      const part = text.subarray(at, at + chunk);
      noGrad(device, () => scope(device, () => void model.forward([part], { step: cache.step(part.length) })));
      await device.drain();
      onRead?.(at + part.length, text.length);
    }
    const found: Found[] = [];
    for (const needle of needles) {
      const logits = noGrad(device, () =>
        scope(device, () => model.logits(model.forward([[needle.key]], { step: cache.step(1) }))),
      );
      const scores = Array.from((await logits.read()) as Float32Array);
      release(logits);
      cache.truncate(0, text.length);
      const own = scores[needle.value]!;
      const other = Math.max(...scores.filter((_, t) => t !== needle.value));
      found.push({ ...needle, answer: scores.indexOf(Math.max(own, other)), margin: own - other });
    }
    return found;
  } finally {
    cache.release();
  }
}
