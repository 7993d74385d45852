/** Texts from a decoder: one or several continuations of one or several prompts, token by token. */
import { noGrad, release, reshape, scope, tensor } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { encodeSampling, indexSelect } from '../kernels/index.ts';
import type { SamplingSettings } from '../kernels/index.ts';
import type { Safetensors } from '../nn/safetensors.ts';
import { Batch, BATCH } from './batch.ts';
import { KeyValueCache } from './cache.ts';
import type { CacheFormat } from './cache.ts';
import { restoreCache, saveCache } from './cache_file.ts';
import type { CacheOwner } from './cache_file.ts';
import type { TransformerConfig } from './config.ts';
import type { Matcher } from './grammar/index.ts';
import type { Transformer } from './model.ts';
import { Sequence } from './sequence.ts';
import type { GenerationEvent } from './sequence.ts';
import type { Tokenizer } from './tokenizer.ts';

export type { FinishReason, GenerationEvent } from './sequence.ts';

export interface GenerateOptions extends Omit<SamplingSettings, 'seed' | 'sample' | 'step'> {
  /** Of the noise, 0 by default; or one for each prompt. */
  readonly seed?: number | readonly number[];
  /** Continuations of each prompt, which is read once; 1 by default. */
  readonly samples?: number;
  /** Of each continuation; 256 by default. The model's context ends it too. */
  readonly maxTokens?: number;
  /** Seconds from the call on. */
  readonly timeLimit?: number;
  /** Texts that end a continuation; nothing of them is given. */
  readonly stop?: readonly string[];
  /** Tokens that end it; those that the model's files name by default. */
  readonly ends?: readonly number[];
  /** What is added to the logits of tokens; −Infinity excludes one. */
  readonly logitBias?: ReadonlyMap<number, number>;
  /** So many of the most probable tokens are listed in each event, up to 20; none by default. */
  readonly top?: number;
  /**
   * What continuations have to follow; each has a fork of its own. Give it a budget of `maxTokens`, and no document is cut
   * off. Its ends are added to `ends`.
   */
  readonly grammar?: Matcher;
  /** For prompts that are texts, for texts in events, and for `stop`. What reads like a special token in a prompt is text. */
  readonly tokenizer?: Tokenizer;
  /** Up to so many tokens are looked up in the text so far and tried at once; 0, the default, for none. See `lookUp`. */
  readonly lookup?: number;
  /** Tokens of a prompt that are read at a time; 512 by default. */
  readonly chunk?: number;
  /** Hears how many of the prompts' tokens have been read. */
  readonly onPrefill?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
  readonly cacheFormat?: CacheFormat;
  /** Of all that is computed; f32 by default. */
  readonly dtype?: 'f32' | 'f16';
  /** For a single continuation: what it keeps is not read again where the next prompt begins alike. */
  readonly prefix?: Prefix;
}

/** What a model has read, kept from one call to the next: a conversation's turns so far. */
export class Prefix {
  readonly cache: KeyValueCache;
  /** Those whose keys and values are in the cache. */
  tokens: readonly number[] = [];

  constructor(device: Device, config: TransformerConfig, size: { capacity: number; dtype?: CacheFormat }) {
    this.cache = new KeyValueCache(device, config, { ...size, batch: 1 });
  }

  /** Goes back to what `ids` begin with, as far as windows keep it; how many tokens that are. One is always left to read. */
  rewind(ids: readonly number[]): number {
    const { cache, tokens } = this;
    let common = 0;
    while (common < ids.length - 1 && ids[common] === tokens[common]) common++;
    if (!cache.keeps(common, cache.lengths[0]!)) common = 0;
    cache.truncate(0, common);
    this.tokens = tokens.slice(0, common);
    return common;
  }

  /** The bytes of a file with what is kept; `owner` says of which model. */
  save(owner: CacheOwner): AsyncGenerator<Uint8Array> {
    return saveCache(this.cache, 0, this.tokens, owner);
  }

  /** Keeps what a file has in the place of what was kept before. Throws as `restoreCache`, and keeps that then. */
  async restore(file: Safetensors, owner: CacheOwner): Promise<void> {
    this.tokens = await restoreCache(this.cache, 0, file, owner);
  }

  release(): void {
    this.cache.release();
  }
}

/**
 * Continues prompts, given as ids or texts, and yields an event a token, sequence by sequence as they come; a sequence's last
 * event says why it ended. Of a text with the same seed the same tokens come, whatever the other prompts are, and however
 * many.
 *
 * Throws before any work on a prompt that leaves no room in the model's context, and on a tokenizer that has more tokens
 * than the model; while generating where logits are not finite.
 */
export async function* generate(
  model: Transformer,
  prompts: readonly (string | readonly number[])[],
  options: GenerateOptions = {},
): AsyncGenerator<GenerationEvent, void, undefined> {
  const { config, device } = model;
  const begun = performance.now();
  const { timeLimit = Infinity, signal } = options;
  const over = (): 'time' | 'aborted' | null =>
    signal?.aborted ? 'aborted' : performance.now() - begun >= 1000 * timeLimit ? 'time' : null;
  const sequences = sequencesOf(config, prompts, options);
  const sampling = samplingOf(options);
  encodeSampling(sequences.map(({ seed, sample }) => ({ ...sampling, seed, sample }))); // throws before any work
  const bias = options.logitBias ? biasOf(device, config, options.logitBias) : null;
  const { cacheFormat = 'f32', dtype = 'f32', grammar, top = 0, lookup = 0 } = options;
  const shared = { cacheFormat, dtype, sampling, bias, masked: grammar !== undefined, top, lookup };
  const batches: Batch[] = [];
  try {
    for (const [capacity, some] of alike(sequences, config, options.prefix))
      for (let i = 0; i < some.length; i += BATCH)
        batches.push(new Batch(model, some.slice(i, i + BATCH), { ...shared, capacity }, options.prefix?.cache));
    if (await prefill(model, batches, options, over)) for (const batch of batches) yield* await batch.first();
    for (;;) {
      const active = batches.filter((batch) => batch.active);
      if (active.length === 0) return;
      const reason = over();
      if (reason) {
        for (const sequence of sequences) if (sequence.finish === null) yield sequence.stop(reason);
        return;
      }
      yield* (await Promise.all(active.map((batch) => batch.next()))).flat();
    }
  } finally {
    const { prefix } = options;
    if (prefix) prefix.tokens = sequences[0]!.tokens.slice(0, prefix.cache.lengths[0]);
    for (const batch of batches) batch.release();
    if (bias) release(bias);
  }
}

/** Throws on what cannot be continued. */
function sequencesOf(
  config: TransformerConfig,
  prompts: readonly (string | readonly number[])[],
  options: GenerateOptions,
): Sequence[] {
  const { samples = 1, maxTokens = 256, seed = 0, grammar, tokenizer, stop = [], prefix } = options;
  const fail = (what: string): never => {
    throw new Error(`[generate] ${what}`);
  };
  for (const [name, value] of Object.entries({ samples, maxTokens }))
    if (!Number.isInteger(value) || value < 1) fail(`${name} is ${value}; it must be a whole number from 1 up`);
  tokenizer?.requireFit(config.vocabulary);
  if (grammar && grammar.vocabulary.size > config.vocabulary)
    fail(`the grammar's vocabulary has ${grammar.vocabulary.size} tokens, the model ${config.vocabulary}: is it another model's?`); // prettier-ignore
  if (stop.length > 0 && !tokenizer) fail('stop strings need the option tokenizer');
  if (typeof seed !== 'number' && seed.length !== prompts.length)
    fail(`there are ${seed.length} seeds for ${prompts.length} prompts`);
  if (prefix && prompts.length * samples !== 1)
    fail(`a prefix serves one continuation, not ${prompts.length * samples}`);
  const room = prefix ? prefix.cache.capacity : config.context;
  const { ends = [...config.ends, ...(tokenizer?.ends ?? [])] } = options;
  const all = new Set([...ends, ...(grammar?.vocabulary.end ?? [])]);
  return prompts.flatMap((prompt, p) => {
    const ids =
      typeof prompt !== 'string'
        ? prompt
        : (tokenizer?.encode(prompt, { begin: true }) ?? fail('prompts that are texts need the option tokenizer')); // prettier-ignore // prettier-ignore
    const name = prompts.length > 1 ? `prompt ${p + 1}` : 'the prompt';
    if (ids.length === 0) fail(`${name} has no token: there is nothing to continue`);
    const wrong = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < config.vocabulary));
    if (wrong !== undefined)
      fail(`${name} has the token ${wrong}; the model's are 0 to ${config.vocabulary - 1}: is the tokenizer another model's?`); // prettier-ignore
    if (ids.length >= room)
      fail(`${name} has ${ids.length} tokens; the ${prefix ? 'cache holds' : "model's context is"} ${room}, of which one at least is for the answer: shorten it by ${ids.length - room + 1}`); // prettier-ignore
    return Array.from({ length: samples }, (_, sample) => {
      const most = Math.min(maxTokens, room - ids.length);
      const own = typeof seed === 'number' ? seed : seed[p]!;
      return new Sequence({ prompt: p, sample, ids, seed: own, matcher: grammar?.fork() ?? null, tokenizer: tokenizer ?? null, stop, ends: all, most }); // prettier-ignore
    });
  });
}

const SMALLEST_CACHE = 512;

/**
 * The capacity of a cache for so many tokens: a power of two, or the context. It says in how many parts attention is computed,
 * so that it must follow from the sequence alone.
 */
export function capacityOf(tokens: number, context: number): number {
  let capacity = SMALLEST_CACHE;
  while (capacity < tokens) capacity *= 2;
  return Math.min(capacity, context);
}

/** Sequences by the capacity of their caches. */
function alike(
  sequences: readonly Sequence[],
  { context }: TransformerConfig,
  prefix?: Prefix,
): Map<number, Sequence[]> {
  // prettier-ignore
  const found = new Map<number, Sequence[]>();
  for (const sequence of sequences) {
    const capacity = prefix?.cache.capacity ?? capacityOf(sequence.tokens.length + sequence.most, context);
    found.set(capacity, [...(found.get(capacity) ?? []), sequence]);
  }
  return found;
}

function samplingOf(options: GenerateOptions): SamplingSettings {
  const { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty } = options;
  const all = { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

function biasOf(device: Device, { vocabulary }: TransformerConfig, biases: ReadonlyMap<number, number>): Tensor {
  const values = new Float32Array(vocabulary);
  for (const [token, bias] of biases) {
    if (!(Number.isInteger(token) && token >= 0 && token < vocabulary))
      throw new Error(`[generate] a logit bias is for token ${token}; the model's are 0 to ${vocabulary - 1}`);
    if (Number.isNaN(bias) || bias === Infinity)
      throw new Error(`[generate] the logit bias of token ${token} is ${bias}; it must be finite, or −Infinity`);
    values[token] = bias;
  }
  return tensor(device, values, [1, vocabulary]);
}

/** Reads each prompt once, chunk by chunk, one after the other; false where it was over before the last was read. */
async function prefill(
  model: Transformer,
  batches: readonly Batch[],
  { chunk = 512, onPrefill, prefix, dtype = 'f32' }: GenerateOptions,
  over: () => unknown,
): Promise<boolean> {
  const { device, config } = model;
  /** Where a prompt's continuations are. */
  const places = new Map<number, { batch: Batch; row: number }[]>();
  for (const batch of batches)
    batch.sequences.forEach(({ prompt }, row) => places.set(prompt, [...(places.get(prompt) ?? []), { batch, row }]));
  const prompts = [...places.values()].map((own) => ({ own, ids: own[0]!.batch.sequences[own[0]!.row]!.tokens }));
  const total = prompts.reduce((sum, { ids }) => sum + ids.length, 0);
  let done = 0;
  for (const { own, ids } of prompts) {
    const { cache: target } = own[0]!.batch;
    const dtypeOf = target.layers[0]?.keys.dtype as CacheFormat;
    const cache = target.batch === 1 ? target : new KeyValueCache(device, config, { batch: 1, capacity: target.capacity, dtype: dtypeOf }); // prettier-ignore
    try {
      let at = prefix?.rewind(ids) ?? 0;
      done += at;
      onPrefill?.(done, total);
      while (at < ids.length) {
        if (over()) return false;
        const part = ids.slice(at, at + chunk);
        const state = last(model, part, cache, dtype);
        at += part.length;
        done += part.length;
        if (at === ids.length) for (const { batch, row } of own) batch.begin(row, state);
        release(state);
        await device.drain();
        onPrefill?.(done, total);
      }
      for (const batch of batches) {
        const rows = own.filter((place) => place.batch === batch && batch.cache !== cache).map(({ row }) => row);
        cache.copyTo(0, batch.cache, rows);
      }
    } finally {
      if (cache !== target) cache.release();
    }
  }
  return true;
}

/** Puts tokens into a cache of one sequence; the state of the last of them, (1, 1, C). */
function last(model: Transformer, ids: readonly number[], cache: KeyValueCache, dtype: 'f32' | 'f16'): Tensor {
  const { device } = model;
  return noGrad(device, () =>
    scope(device, () => {
      const states = model.forward([ids], { step: cache.step(ids.length), dtype }); // (1, T, C)
      return reshape(indexSelect(states, tensor(device, [ids.length - 1], [1], { dtype: 'i32' }), 1), [1, 1, states.shape[2]!]); // prettier-ignore
    }),
  );
}
