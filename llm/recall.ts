/**
 * Multi-query associative recall (Arora et al. 2023, Zoology): a text tells pairs of a key and a value, then names keys again,
 * and what has to follow each is its value. What a model with a tree layer learns of it beside one with full attention, how both
 * hold on in texts longer than those of training, and how much of full attention's mass the tree's selection finds.
 */
import { HostRandom, noGrad, randomKey, release, reshape, scope, tensor, write } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { linearCrossEntropy, selectLeaves, treeSummaries } from '../kernels/index.ts';
import type { LayerConfig, TreeConfig } from './config.ts';
import { lookBack } from './constructed.ts';
import { parseTransformerConfig } from './config.ts';
import { Transformer } from './model.ts';
import { drawQueries } from './selection_loss.ts';

/** Kinds of tokens, each so many: keys, values and filler, in this order. */
const KIND = 32;
export const RECALL_VOCABULARY = 3 * KIND;
const IGNORED = -100;

/** A key's place, and where it is named again. */
export interface Question {
  readonly told: number;
  readonly asked: number;
  readonly value: number;
}

export interface RecallText {
  readonly ids: Int32Array;
  readonly questions: readonly Question[];
}

/**
 * A text of `length` tokens: pairs at random even places of its first half, the same pairs in another order at such of its second
 * half, filler between.
 */
export function recallText(
  length: number,
  { pairs, seed, sample }: { pairs: number; seed: number; sample: number },
): RecallText {
  if (length % 4 !== 0 || !(pairs >= 1 && pairs <= Math.min(KIND, length / 4)))
    throw new Error(`[recallText] ${length} tokens with ${pairs} pairs: the length must be a multiple of 4, and pairs 1 to ${Math.min(KIND, Math.floor(length / 4))}`); // prettier-ignore
  const random = new HostRandom(randomKey(seed, 'recall'), sample);
  const ids = Int32Array.from({ length }, () => 2 * KIND + random.below(KIND));
  const keys = random.permutation(KIND);
  const places = () => random.permutation(length / 4).slice(0, pairs).map((place) => 2 * place); // prettier-ignore
  const [tellings, askings] = [places(), places()];
  const questions = tellings.map((told, i): Question => {
    const value = KIND + random.below(KIND);
    const asked = length / 2 + askings[i]!;
    ids.set([keys[i]!, value], told);
    ids.set([keys[i]!, value], asked);
    return { told, asked, value };
  });
  return { ids, questions };
}

/** `config.json` of a small decoder: a window with RoPE, then a window with a tree, or full attention, without it. */
export const recallConfig = (second: 'tree' | 'full', context: number): object => ({
  model_type: 'dawngrad',
  vocab_size: RECALL_VOCABULARY,
  hidden_size: 64,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: context,
  tie_word_embeddings: true,
  layer_types: ['sliding_attention', `${second}_attention`],
  sliding_window: 16,
  no_rope: [`${second}_attention`],
  ...(second === 'tree' && { tree: { block: 8, fanout: 4, beam: 4 } }),
});

export interface RecallLosses {
  /** The mean of −log p(value) over all questions. */
  readonly answers: Tensor;
  /** How far off the tree's selection is (see selection_loss.ts); null where it isn't asked for or there is none. */
  readonly selection: Tensor | null;
}

/** Of texts of one length. `random` draws the queries whose selection counts; `dense` is that of `Transformer.forward`. */
export function recallLosses(
  model: Transformer,
  texts: readonly RecallText[],
  { random = null, dense = false }: { random?: HostRandom | null; dense?: boolean } = {},
): RecallLosses {
  const { device, config } = model;
  const { length } = texts[0]!.ids;
  const targets = new Int32Array(texts.length * length).fill(IGNORED);
  texts.forEach(({ questions }, b) => {
    for (const { asked, value } of questions) targets[b * length + asked] = value;
  });
  const ids = texts.map(({ ids }) => ids);
  const lengths = texts.map(() => length);
  const queries = random && drawQueries(device, config, lengths, length, random);
  const { states, selection } = queries
    ? model.forwardWithSelection(ids, queries, { dense })
    : { states: model.forward(ids, { dense }), selection: null };
  const rows = reshape(states, [targets.length, config.width]);
  const answers = linearCrossEntropy(rows, model.head, tensor(device, targets, [targets.length]));
  return { answers, selection };
}

/** The share of questions whose value is the likeliest token. */
export async function recallAccuracy(model: Transformer, texts: readonly RecallText[]): Promise<number> {
  const { device, config } = model;
  let [right, all] = [0, 0];
  for (const { ids, questions } of texts) {
    const logits = noGrad(device, () => scope(device, () => model.logits(model.forward([ids]))));
    const scores = await logits.read();
    release(logits);
    for (const { asked, value } of questions) {
      const own = scores.subarray(asked * config.vocabulary, (asked + 1) * config.vocabulary);
      right += Number(own.every((score, token) => token === value || score < own[value]!));
      all++;
    }
  }
  return right / all;
}

/** A model with the same weights whose layers see something else. The copy is the caller's. */
export async function seeingWith(model: Transformer, layers: readonly LayerConfig[]): Promise<Transformer> {
  const copy = new Transformer(model.device, { ...model.config, layers });
  const weights = model.namedParameters();
  for (const [name, parameter] of copy.namedParameters()) write(parameter, await weights.get(name)!.read());
  return copy;
}

/** With another tree, or none, in layers that don't turn. */
export const withTree = (
  layers: readonly LayerConfig[],
  tree: TreeConfig | null,
  window: number | null,
): LayerConfig[] => layers.map((layer) => (layer.rope ? layer : { ...layer, tree, window }));

export interface Recovered {
  readonly question: Question;
  /** Of full attention's mass, the mean over heads, in [0, 1]. */
  readonly share: number;
  /** What it would be of the leaves that hold the most: as many, selected for each head by itself. */
  readonly best: number;
  /** Whether the value's leaf is among those selected, for all heads. */
  readonly selected: boolean;
}

/**
 * For each question of a text: how much of the mass that full attention of the last layer would give lies on what the layer's
 * window and the leaves that a tree selects hold.
 */
export async function recoveredMass(
  model: Transformer,
  { ids, questions }: RecallText,
  tree: TreeConfig,
  window: number,
): Promise<Recovered[]> {
  const { device, config } = model;
  const { heads, keyHeads, headDim, attentionScale } = config;
  const { length } = ids;
  const last = config.layers.length - 1;
  const { self_attn: attention, input_layernorm: norm } = model.model.layers[last]!;
  if (config.layers[last]!.rope || attention.q_norm) throw new Error('[recoveredMass] the last layer’s queries and keys must be its projections, without RoPE and norms'); // prettier-ignore
  // A model of the layers before, whose final norm is the last layer's first.
  const before = await seeingWith(model, config.layers.slice(0, last));
  write(before.model.norm.weight, await norm.weight.read());
  const [q, k, selected] = noGrad(device, () =>
    scope(device, () => {
      const x = before.forward([ids]);
      const q = reshape(attention.q_proj.forward(x), [1, length, heads, headDim]);
      const k = reshape(attention.k_proj.forward(x), [1, length, keyHeads, headDim]);
      const summaries = treeSummaries(k, { ...tree, kind: tree.summary });
      return [q, k, selectLeaves(q, summaries, { window, beam: tree.beam }).selected] as const;
    }),
  );
  const [queries, keys, leaves] = [await q.read(), await k.read(), await selected.read()];
  release(q, k, selected);
  before.release();
  return questions.map((question) => {
    const { told, asked } = question;
    const begin = tree.block * Math.floor(Math.max(0, asked - window + 1) / tree.block);
    let [share, best] = [0, 0];
    let every = true;
    for (let h = 0; h < heads; h++) {
      const group = Math.floor((h * keyHeads) / heads);
      const own = leaves.subarray((asked * keyHeads + group) * tree.beam).subarray(0, tree.beam);
      const seen = (j: number) => j >= begin || own.includes(Math.floor(j / tree.block));
      const score = (j: number) => {
        let sum = 0;
        for (let d = 0; d < headDim; d++)
          sum += queries[(asked * heads + h) * headDim + d]! * keys[(j * keyHeads + group) * headDim + d]!;
        return sum * attentionScale;
      };
      const scores = Array.from({ length: asked + 1 }, (_, j) => score(j));
      const most = Math.max(...scores);
      const masses = scores.map((value) => Math.exp(value - most));
      const whole = masses.reduce((a, b) => a + b, 0);
      const within = (from: number, to: number) => masses.slice(from, to).reduce((a, b) => a + b, 0) / whole;
      const near = within(begin, asked + 1);
      const leafShares = Array.from({ length: begin / tree.block }, (_, n) => within(n * tree.block, (n + 1) * tree.block)); // prettier-ignore
      const some = (shares: readonly number[]) => shares.reduce((a, b) => a + b, 0);
      share += (near + some(leafShares.filter((_, n) => own.includes(n)))) / heads;
      best += (near + some(leafShares.toSorted((a, b) => b - a).slice(0, tree.beam))) / heads;
      every &&= seen(told + 1);
    }
    return { question, share, best, selected: every };
  });
}

/** By how much a fresh first layer's score of the token before exceeds others: it has e⁵ times their weight. */
const LOOK_BACK = 5;

/**
 * A fresh one of the two models. Three things are given, so that minutes on a software adapter suffice, and all of them are trained
 * further: embeddings are as large as what layers add to them, not 0.02; their first column is alike, from which the first
 * layer's heads have queries and keys that meet one step back (Zoology's models have a short convolution for it); and what the
 * last layer sees passes through its values unchanged. What to look for, which keys of 64 columns are alike, is left to training.
 */
export async function recallModel(
  device: Device,
  second: 'tree' | 'full',
  context: number,
  seed: number,
): Promise<Transformer> {
  const model = new Transformer(device, parseTransformerConfig(recallConfig(second, context)));
  model.initialize(seed);
  const { width, heads, headDim, layers } = model.config;
  const { weight } = model.model.embed_tokens;
  const embeddings = new HostRandom(randomKey(seed, 'embeddings')).normal(weight.size);
  write(weight, embeddings.map((value, i) => (i % width === 0 ? 1 : value / 2))); // prettier-ignore
  const { query, key } = lookBack(headDim, layers[0]!.window!, LOOK_BACK);
  const { q_proj, k_proj } = model.model.layers[0]!.self_attn;
  for (const [{ weight }, values] of [
    [q_proj, query],
    [k_proj, key],
  ] as const) {
    const all = await weight.read();
    for (let row = 0; row < heads * headDim; row++) all[row * width] = values[row % headDim]!;
    write(weight, all);
  }
  const identity = Float32Array.from({ length: width * width }, (_, i) => (i % (width + 1) === 0 ? 1 : 0));
  const { v_proj, o_proj } = model.model.layers[1]!.self_attn;
  for (const { weight } of [v_proj, o_proj]) write(weight, identity);
  return model;
}
