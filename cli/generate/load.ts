/** What commands that write text load: a model folder with its tokenizer, and what its files say of generation. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { openNodeDevice } from '../../engine/node.ts';
import { loadTransformer } from '../../llm/folder.ts';
import type { GenerateOptions } from '../../llm/generate.ts';
import type { Transformer } from '../../llm/model.ts';
import { readTokenizer } from '../../llm/tokenizer.ts';
import type { Tokenizer } from '../../llm/tokenizer.ts';
import { folderFiles } from '../../nn/folder.ts';
import type { WeightFormat } from '../../nn/module.ts';
import { readJson } from '../grammar/tokens.ts';
import { resolvePath } from '../run.ts';

export interface Language {
  readonly folder: string;
  readonly model: Transformer;
  readonly tokenizer: Tokenizer;
  /** How to sample, as the folder's `generation_config.json` says. */
  readonly defaults: Pick<GenerateOptions, 'temperature' | 'topK' | 'topP'>;
}

/** Throws, naming file and fault; also where the tokenizer has more tokens than the model. */
export async function loadLanguage(name: string, weights: WeightFormat): Promise<Language> {
  const folder = resolvePath(name);
  const model = await loadTransformer(await openNodeDevice(), folder, { weights });
  const tokenizer = await readTokenizer(folderFiles(folder));
  tokenizer.requireFit(model.config.vocabulary, `the model in ${folder}`);
  return { folder, model, tokenizer, defaults: await defaultsOf(folder) };
}

async function defaultsOf(folder: string): Promise<Language['defaults']> {
  const file = path.join(folder, 'generation_config.json');
  const json = existsSync(file) ? await readJson(file) : {};
  // Files say how to sample, and may say that greedy is the default all the same.
  if (json['do_sample'] !== true) return {};
  const number = (key: string): number | undefined => (typeof json[key] === 'number' ? json[key] : undefined);
  return { temperature: number('temperature'), topK: number('top_k'), topP: number('top_p') };
}
