/** What commands that write text load: a model with its tokenizer, and what its files say of generation. */
import path from 'node:path';
import { Option } from 'commander';
import type { Command } from 'commander';
import { openNodeDevice } from '../../engine/node.ts';
import { loadTokenizer, loadTransformer, placeKind } from '../../llm/folder.ts';
import type { GenerateOptions } from '../../llm/generate.ts';
import type { Transformer } from '../../llm/model.ts';
import type { LoadedTokenizer } from '../../llm/tokenizer_files.ts';
import { folderFiles } from '../../nn/folder.ts';
import { readSettings } from '../../nn/model_files.ts';
import { WEIGHT_FORMATS } from '../../nn/module.ts';
import type { WeightFormat } from '../../nn/module.ts';
import { resolvePath } from '../run.ts';

export interface Language extends LoadedTokenizer {
  readonly model: Transformer;
  /** How to sample, as the folder's `generation_config.json` says. */
  readonly defaults: Pick<GenerateOptions, 'temperature' | 'topK' | 'topP'>;
}

export interface LanguageOptions {
  readonly weights: WeightFormat;
  /** Where the tokenizer is, if not with the model. */
  readonly tokenizer?: string | undefined;
}

/** The options that `loadLanguage` takes. */
export const withModelOptions = (command: Command): Command =>
  command
    .addOption(new Option('--weights <format>', 'what weights are kept in').choices(WEIGHT_FORMATS).default('f32'))
    .option(
      '--tokenizer <place>',
      'a folder, a GGUF file or llama2.c’s tokenizer.bin; by default it is the model’s own',
    );

/** What a model may be, for help. */
export const MODEL = 'a folder (config.json, safetensors, tokenizer.json), a GGUF file, or a llama2.c file (.bin)';

/** A model and its tokenizer, from a folder or a file. Throws, naming file and fault; also where the tokenizer has more tokens than the model. */
export async function loadLanguage(name: string, { weights, tokenizer: given }: LanguageOptions): Promise<Language> {
  const place = resolvePath(name);
  const model = await loadTransformer(await openNodeDevice(), place, { weights });
  // llama2.c looks for it beside the model.
  const kind = await placeKind(place);
  const own = kind === 'llama2c' ? path.join(path.dirname(place), 'tokenizer.bin') : place;
  const loaded = await loadTokenizer(given === undefined ? own : resolvePath(given), model.config.vocabulary).catch(
    (error: unknown) => {
      if (given !== undefined || kind === 'folder') throw error;
      throw new Error(`${(error as Error).message}; --tokenizer names another`, { cause: error });
    },
  );
  loaded.tokenizer.requireFit(model.config.vocabulary, `the model in ${place}`);
  return { ...loaded, model, defaults: kind === 'folder' ? await defaultsOf(place) : {} };
}

async function defaultsOf(folder: string): Promise<Language['defaults']> {
  const json = await readSettings(folderFiles(folder), 'generation_config.json');
  // Files say how to sample, and may say that greedy is the default all the same.
  if (json['do_sample'] !== true) return {};
  const number = (key: string): number | undefined => (typeof json[key] === 'number' ? json[key] : undefined);
  return { temperature: number('temperature'), topK: number('top_k'), topP: number('top_p') };
}
