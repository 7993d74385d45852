/** How a model does on RULER. */
import { generate } from '../generate.ts';
import type { CacheFormat } from '../cache.ts';
import type { Transformer } from '../model.ts';
import type { Tokenizer } from '../tokenizer.ts';
import { RULER, rulerLeast, rulerSample, rulerScore } from './tasks.ts';
import type { RulerTask } from './tasks.ts';

export interface RulerRun {
  readonly tasks: readonly RulerTask[];
  readonly lengths: readonly number[];
  /** Texts of each task and length. */
  readonly samples: number;
  readonly seed: number;
  readonly prose: string;
  readonly cacheFormat?: CacheFormat;
  /** Hears of all tokens to be read how many have been. */
  readonly onRead?: (done: number, total: number) => void;
}

export interface RulerResult {
  readonly task: RulerTask;
  readonly length: number;
  readonly sample: number;
  readonly tokens: number;
  readonly answers: readonly string[];
  readonly said: string;
  /** From 0 to 1. */
  readonly score: number;
}

/**
 * Asks a model and yields an answer's score a text, short texts first. Answers are greedy. Throws before any work where a length
 * is over the model's context, or leaves no room for a task.
 */
export async function* evaluateRuler(
  model: Transformer,
  tokenizer: Tokenizer,
  { tasks, lengths, samples, seed, prose, cacheFormat = 'f32', onRead }: RulerRun,
): AsyncGenerator<RulerResult, void, undefined> {
  const { context } = model.config;
  const over = lengths.find((length) => length > context);
  if (over !== undefined)
    throw new Error(`[ruler] ${over} tokens are over the model's context of ${context}: leave this length out`);
  const count = (text: string) => tokenizer.encode(text, { begin: true }).length;
  const all = lengths.toSorted((a, b) => a - b).flatMap((length) => tasks.flatMap((task) => Array.from({ length: samples }, (_, sample) => ({ length, task, sample })))); // prettier-ignore
  const shortest = Math.min(...lengths);
  const least = (task: RulerTask) => Math.max(...Array.from({ length: samples }, (_, sample) => rulerLeast(task, { seed, sample, count, prose }))); // prettier-ignore
  const needs = tasks.map((task) => ({ task, tokens: least(task) }));
  const short = needs.filter(({ tokens }) => tokens > shortest);
  const fitting = needs.filter(({ tokens }) => tokens <= shortest).map(({ task }) => task);
  if (short.length > 0)
    throw new Error(`[ruler] ${shortest} tokens of this model's tokenizer are too few for ${short.map(({ task, tokens }) => `${task} (${tokens} at least)`).join(', ')}: leave out this length${fitting.length > 0 ? `, or take the tasks ${fitting.join(',')}` : ''}`); // prettier-ignore
  const total = all.reduce((sum, { length }) => sum + length, 0);
  let done = 0;
  for (const { length, task, sample } of all) {
    const { prompt, answers, tokens } = rulerSample(task, { length, seed, sample, count, prose });
    const ids = tokenizer.encode(prompt, { begin: true });
    let said = '';
    const options = { tokenizer, temperature: 0, maxTokens: RULER[task].room, cacheFormat };
    for await (const { text } of generate(model, [ids], { ...options, onPrefill: (read) => onRead?.(done + read, total) })) said += text; // prettier-ignore
    done += length;
    onRead?.(done, total);
    yield { task, length, sample, tokens, answers, said, score: rulerScore(task, answers, said) };
  }
}
