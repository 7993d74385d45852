/** llama.cpp beside this project: the same weights, in GGUF files written here; what both compute, and how fast. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { HostRandom, noGrad, randomKey, release, scope } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { loadTokenizer, loadTransformer, saveGguf } from '../../llm/folder.ts';
import type { CacheFormat } from '../../llm/cache.ts';
import { CORPORA } from '../../llm/corpus.ts';
import { generate } from '../../llm/generate.ts';
import { Transformer } from '../../llm/model.ts';
import type { LoadedTokenizer } from '../../llm/tokenizer_files.ts';
import type { WeightFormat } from '../../nn/module.ts';
import { resolvePath, ROOT } from '../run.ts';
import { llamaShape } from './decode.ts';
import { installApart } from './install.ts';

export const GGUF_TYPES = ['F32', 'F16', 'Q8_0'] as const;
export type GgufType = (typeof GGUF_TYPES)[number];

/** What each type is kept in here, and the cache on both sides: llama.cpp's own is f16. */
const KEPT: Readonly<Record<GgufType, { weights: WeightFormat; cache: CacheFormat & ('f32' | 'f16') }>> = {
  F32: { weights: 'f32', cache: 'f32' },
  F16: { weights: 'f16', cache: 'f16' },
  Q8_0: { weights: 'q8', cache: 'f16' },
};

export interface LlamaBenchOptions {
  /** A model's folder; none: a Llama of random weights. */
  readonly model: string | null;
  readonly width: number;
  readonly layers: number;
  readonly types: readonly GgufType[];
  /** Tokens that are read, and written. */
  readonly prompt: number;
  readonly tokens: number;
  /** Turns that both have. */
  readonly rounds: number;
  /** Of llama.cpp: with each of these numbers. Its threads wait for one another by spinning, which other work can make slow. */
  readonly threads: readonly number[];
}

/** Seconds of the clock and of the processor. */
interface Seconds {
  readonly clock: number;
  readonly processor: number;
}
interface Run {
  readonly tokens: readonly number[];
  /** Until the first token, and from the second on to the last. */
  readonly prefill: Seconds;
  readonly decode: Seconds;
}

/** Medians over the rounds, in tokens a second of the clock and of the processor. */
interface Speed {
  readonly name: string;
  readonly prefill: Seconds;
  readonly decode: Seconds;
}

export interface LlamaRow {
  readonly type: GgufType;
  /** ‖a − b‖ / ‖b‖ of logits, b llama.cpp's, and the largest |a − b|. */
  readonly distance: number;
  readonly largest: number;
  /** Places whose most probable token is the same, and all that were looked at. */
  readonly alike: readonly [number, number];
  /** Tokens of the greedy texts until they part, and all. */
  readonly same: readonly [number, number];
  /** Ours and llama.cpp's with each number of threads. */
  readonly speeds: readonly Speed[];
  /** The file's. */
  readonly bytes: number;
}

/** Every so many tokens logits are compared. */
const EVERY = 8;

/** Both, on every type. Yields a row a type. */
export async function* benchLlama(device: Device, options: LlamaBenchOptions): AsyncGenerator<LlamaRow> {
  const { types, prompt, threads } = options;
  const library = await llamaCpp();
  const { model, tokenizer, ids } = await subject(device, options);
  const folder = await mkdtemp(path.join(tmpdir(), 'dawngrad-llama-'));
  const llama = await library.getLlama({ gpu: false, build: 'never', skipDownload: true, maxThreads: threads.reduce((a, b) => a + b), logLevel: 'error' }); // prettier-ignore
  try {
    for (const type of types) {
      const file = path.join(folder, `${type}.gguf`);
      await saveGguf(model, file, { type, tokenizer });
      const { weights, cache } = KEPT[type];
      const own = await loadTransformer(device, file, { weights });
      const theirs = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
      const key = cache === 'f32' ? 'F32' : 'F16';
      const contextOf = (threads: number) => theirs.createContext({ contextSize: prompt + options.tokens + EVERY, batchSize: prompt, threads, flashAttention: false, experimentalKvCacheKeyType: key, experimentalKvCacheValueType: key }); // prettier-ignore
      const contexts = await Promise.all(threads.map(contextOf));
      const sequences = contexts.map((context) => context.getSequence());
      yield { type, ...(await compareLogits(own, sequences[0]!, ids)), ...(await race(own, sequences, ids, cache, options)), bytes: theirs.size }; // prettier-ignore
      for (const context of contexts) await context.dispose();
      await theirs.dispose();
      own.release();
    }
  } finally {
    model.release();
    await llama.dispose();
    await rm(folder, { recursive: true });
  }
}

/** The model in f32, and a text of as many tokens as are read. */
async function subject(
  device: Device,
  { model: name, prompt, tokens, ...options }: LlamaBenchOptions,
): Promise<{ model: Transformer; tokenizer: LoadedTokenizer; ids: number[] }> {
  if (name === null) {
    const model = Transformer.fromConfig(device, llamaShape({ ...options, context: prompt + tokens }));
    model.initialize(1);
    const random = new HostRandom(randomKey(1, 'prompt'));
    // Any does, but node-llama-cpp needs one.
    const tokenizer = await loadTokenizer(path.join(ROOT, 'assets/lm'), model.config.vocabulary);
    return { model, tokenizer, ids: Array.from({ length: prompt }, () => random.below(model.config.vocabulary)) };
  }
  const place = resolvePath(name);
  const model = await loadTransformer(device, place);
  const tokenizer = await loadTokenizer(place, model.config.vocabulary);
  const { text } = (await CORPORA.factbook())[0]!;
  const ids = tokenizer.tokenizer.encode(text, { begin: true }).slice(0, prompt);
  if (ids.length < prompt) throw new Error(`[bench] the text has ${ids.length} tokens; --prompt must not be above`);
  return { model, tokenizer, ids };
}

async function compareLogits(
  model: Transformer,
  sequence: LlamaSequence,
  ids: readonly number[],
): Promise<Pick<LlamaRow, 'distance' | 'largest' | 'alike'>> {
  const { device, config } = model;
  const logits = noGrad(device, () => scope(device, () => model.logits(model.forward([ids]))));
  const ours = (await logits.read()) as Float32Array; // (1, T, V)
  release(logits);
  const looked = (i: number) => i % EVERY === EVERY - 1;
  const results = await sequence.controlledEvaluate(ids.map((id, i) => (looked(i) ? [id, { generateNext: { logits: true } }] : id))); // prettier-ignore
  await sequence.clearHistory();
  let [errors, squares, largest, alike, places] = [0, 0, 0, 0, 0];
  for (const [i, result] of results.entries()) {
    if (!looked(i)) continue;
    const theirs = result!.next.logits!;
    const row = ours.subarray(i * config.vocabulary, (i + 1) * config.vocabulary);
    for (const [id, value] of theirs) {
      const error = Math.abs(row[id]! - value);
      errors += error ** 2;
      squares += value ** 2;
      largest = Math.max(largest, error);
    }
    const best = [...theirs.entries()].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
    if (row.indexOf(row.reduce((a, b) => Math.max(a, b))) === best) alike++;
    places++;
  }
  return { distance: Math.sqrt(errors / squares), largest, alike: [alike, places] };
}

/** Greedy texts, in turn; the first round is for what is compiled and set up, and for the texts. */
async function race(
  model: Transformer,
  sequences: readonly LlamaSequence[],
  ids: readonly number[],
  cacheFormat: CacheFormat,
  { tokens, rounds, threads }: LlamaBenchOptions,
): Promise<Pick<LlamaRow, 'same' | 'speeds'>> {
  const theirs = sequences.map((sequence, i) => ({
    name: `llama.cpp, ${threads[i]} thread${threads[i] === 1 ? '' : 's'}`,
    run: async () => {
      await sequence.clearHistory();
      return timed(theirTokens(sequence, ids, tokens));
    },
  }));
  const ways = [{ name: 'dawngrad', run: () => timed(ourTokens(model, ids, tokens, cacheFormat)) }, ...theirs];
  const texts: (readonly number[])[] = [];
  for (const { run } of ways) texts.push((await run()).tokens);
  const parted = texts[0]!.findIndex((id, i) => id !== texts[1]![i]);
  const runs = ways.map((): Run[] => []);
  for (let round = 0; round < rounds; round++) for (const [i, { run }] of ways.entries()) runs[i]!.push(await run());
  const rates = (runs: readonly Run[], part: 'prefill' | 'decode'): Seconds => {
    const rate = (of: keyof Seconds) => {
      const seconds = runs.map((run) => run[part][of]).sort((a, b) => a - b);
      return (part === 'prefill' ? ids.length : tokens - 2) / seconds[seconds.length >> 1]!;
    };
    return { clock: rate('clock'), processor: rate('processor') };
  };
  return {
    same: [parted < 0 ? tokens : parted, tokens],
    speeds: ways.map(({ name }, i) => ({
      name,
      prefill: rates(runs[i]!, 'prefill'),
      decode: rates(runs[i]!, 'decode'),
    })),
  };
}

async function* ourTokens(model: Transformer, ids: readonly number[], maxTokens: number, cacheFormat: CacheFormat) {
  for await (const { token } of generate(model, [ids], { temperature: 0, maxTokens, ends: [], cacheFormat }))
    if (token !== null) yield token;
}

async function* theirTokens(sequence: LlamaSequence, ids: readonly number[], tokens: number) {
  let count = 0;
  for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    yield token;
    if (++count === tokens) return;
  }
}

async function timed(stream: AsyncIterable<number>): Promise<Run> {
  const now = (): Seconds => {
    const { user, system } = process.cpuUsage();
    return { clock: performance.now() / 1e3, processor: (user + system) / 1e6 };
  };
  const between = (from: Seconds, to: Seconds): Seconds => ({ clock: to.clock - from.clock, processor: to.processor - from.processor }); // prettier-ignore
  const begun = now();
  const tokens: number[] = [];
  const marks: Seconds[] = [];
  for await (const token of stream) {
    tokens.push(token);
    marks.push(now());
  }
  return { tokens, prefill: between(begun, marks[0]!), decode: between(marks[1]!, marks.at(-1)!) };
}

/** The rows in lines of two tables: what is computed, and how fast. */
export function formatLlama(rows: readonly LlamaRow[]): string {
  const rate = (value: number) => (value >= 100 ? value.toFixed(0) : value.toFixed(1));
  const both = ({ clock, processor }: Seconds) => `${rate(clock)} (${rate(processor)})`;
  const table = (heads: readonly string[], rows: readonly (readonly string[])[]) =>
    [heads, heads.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
  const computed = rows.map(({ type, distance, largest, alike, same, bytes }) => [type, (bytes / 2 ** 20).toFixed(1), distance.toExponential(1), largest.toExponential(1), alike.join(' of '), same.join(' of ')]); // prettier-ignore
  const speeds = rows.flatMap(({ type, speeds }) => speeds.map(({ name, prefill, decode }) => [type, name, both(prefill), both(decode)])); // prettier-ignore
  return [
    table(['weights', 'MiB', 'logits: ‖a − b‖ / ‖b‖', 'largest', 'best token alike', 'text alike'], computed),
    table(['weights', '', 'prefill, tokens/s', 'decoding, tokens/s'], speeds),
  ].join('\n\n');
}

/** What is used of node-llama-cpp. */
interface LlamaSequence {
  clearHistory(): Promise<void>;
  evaluate(tokens: readonly number[], options: { temperature: number; yieldEogToken: boolean }): AsyncIterable<number>;
  controlledEvaluate(
    input: readonly (number | readonly [number, { generateNext: { logits: true } }])[],
  ): Promise<({ next: { logits?: ReadonlyMap<number, number> } } | undefined)[]>;
}
interface LlamaCpp {
  getLlama(options: object): Promise<{
    loadModel(options: object): Promise<{
      readonly size: number;
      createContext(options: object): Promise<{ getSequence(): LlamaSequence; dispose(): Promise<void> }>;
      dispose(): Promise<void>;
    }>;
    dispose(): Promise<void>;
  }>;
}

/** Without its binaries for GPUs, which are large: that for the processor is named in the package's list instead. */
async function llamaCpp(): Promise<LlamaCpp> {
  const words = 'llama.cpp (node-llama-cpp with its binary for Linux on x64, 85 MB, once)';
  const folder = await installApart('llama', words, ['install', '--omit=optional']);
  return (await import(pathToFileURL(path.join(folder, 'node_modules/node-llama-cpp/dist/index.js')).href)) as LlamaCpp;
}
