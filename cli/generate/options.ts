/** Options that commands which write text have in common. */
import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import type { CacheFormat } from '../../llm/cache.ts';
import type { GenerateOptions } from '../../llm/generate.ts';
import { withModelOptions } from './load.ts';
import type { Language, LanguageOptions } from './load.ts';

export const whole =
  (least: number, most = Number.MAX_SAFE_INTEGER) =>
  (text: string) => {
    const value = Number(text);
    if (text.trim() === '' || !Number.isInteger(value) || value < least || value > most)
    throw new InvalidArgumentError(`a whole number from ${least}${most < Number.MAX_SAFE_INTEGER ? ` to ${most}` : ' up'} is needed.`); // prettier-ignore
    return value;
  };

const real = (least: number, most: number) => (text: string) => {
  const value = Number(text);
  if (text.trim() === '' || !(value >= least && value <= most))
    throw new InvalidArgumentError(`a number${most < 1e30 ? ` from ${least} to ${most}` : least > -1e30 ? ` from ${least} up` : ''} is needed.`); // prettier-ignore
  return value;
};

/** `12=-5`, or `12=-inf`, added to those of before. */
function bias(text: string, before: ReadonlyMap<number, number> = new Map()): ReadonlyMap<number, number> {
  const match = /^(\d+)=(-inf|-?\d+(?:\.\d+)?)$/.exec(text);
  if (!match) throw new InvalidArgumentError('ID=BIAS is needed, such as 12=-5, or 12=-inf to exclude token 12.');
  return new Map([...before, [Number(match[1]), match[2] === '-inf' ? -Infinity : Number(match[2])]]);
}

const collect = (text: string, before: readonly string[] = []): string[] => [...before, text.replaceAll('\\n', '\n')];

export interface TextOptions extends LanguageOptions {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  readonly bias?: ReadonlyMap<number, number>;
  readonly stop?: readonly string[];
  readonly seed: number;
  readonly maxTokens: number;
  readonly time?: number;
  readonly lookup: number;
  readonly chunk: number;
  readonly cache: CacheFormat;
}

export const withTextOptions = (command: Command): Command =>
  withModelOptions(command)
    .option('--temperature <x>', 'above 1: bolder; 0: always the most probable token', real(0, 1e30))
    .option('--top-k <n>', 'only the n most probable tokens', whole(0, 2 ** 32 - 1))
    .option('--top-p <p>', 'only the most probable tokens that together reach p', real(0, 1))
    .option('--min-p <p>', 'only tokens at least p times as probable as the best', real(0, 1))
    .option('--repetition-penalty <x>', 'divides logits of tokens that occurred; 1.1 is a mild one', real(1e-6, 1e30))
    .option('--presence-penalty <x>', 'taken off the logits of tokens that were written', real(-1e30, 1e30))
    .option('--frequency-penalty <x>', 'the same for each time that they were written', real(-1e30, 1e30))
    .option('--bias <id=x>', 'added to the logit of a token; -inf excludes it; may be repeated', bias)
    .option('--stop <text>', 'ends the text before it, \\n is a line’s end; may be repeated', collect)
    .option('--seed <n>', 'the same seed gives the same text', whole(0), 0)
    .option('--max-tokens <n>', 'ends a text after so many', whole(1), 256)
    .option('--time <seconds>', 'ends a text after so long', real(0, 1e30))
    .option('--lookup <n>', 'tries up to n tokens at once that stood behind the last ones before', whole(0, 64), 0)
    .option('--chunk <n>', 'tokens of a prompt that are read at a time', whole(1), 512)
    .addOption(
      new Option('--cache <format>', 'what keys and values are kept in').choices(['f32', 'f16', 'q8']).default('f32'),
    );

/** What `generate` is told, where the model's own defaults are not overruled. */
export function generateOptions(options: TextOptions, { tokenizer, defaults }: Language): GenerateOptions {
  const { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty } = options;
  const given = { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty };
  const { bias, stop, seed, maxTokens, time, lookup, chunk, cache } = options;
  const own = { logitBias: bias, stop, seed, maxTokens, timeLimit: time, lookup, chunk, cacheFormat: cache, tokenizer };
  const said = Object.entries({ ...given, ...own }).filter(([, value]) => value !== undefined);
  return { ...defaults, ...Object.fromEntries(said) };
}
