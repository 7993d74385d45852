/** What commands that write text load: a model folder with its tokenizer, and what its files say of generation. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { openNodeDevice } from '../../engine/node.ts';
import { loadTransformer } from '../../llm/folder.ts';
import type { GenerateOptions, TextTokens } from '../../llm/generate.ts';
import type { Transformer } from '../../llm/model.ts';
import type { WeightFormat } from '../../nn/module.ts';
import { loadTokens, readJson } from '../grammar/tokens.ts';
import { resolvePath } from '../run.ts';

export interface Language {
  readonly folder: string;
  readonly model: Transformer;
  readonly text: TextTokens;
  /** What the folder's `generation_config.json` says, where it has one: ends of text, how to sample. */
  readonly defaults: Pick<GenerateOptions, 'ends' | 'temperature' | 'topK' | 'topP'>;
}

/** Throws, naming file and fault; also where the tokenizer has more tokens than the model. */
export async function loadLanguage(name: string, weights: WeightFormat): Promise<Language> {
  const folder = resolvePath(name);
  const model = await loadTransformer(await openNodeDevice(), folder, { weights });
  const file = path.join(folder, 'tokenizer.json');
  const text = await loadTokens(file);
  const [tokens, rows] = [text.vocabulary.size, model.config.vocabulary];
  if (tokens > rows)
    throw new Error(`[generate] ${file} has ${tokens} tokens, the model ${rows}: it is another model's`);
  return { folder, model, text, defaults: await defaultsOf(folder, model, text) };
}

async function defaultsOf(folder: string, model: Transformer, text: TextTokens): Promise<Language['defaults']> {
  const file = path.join(folder, 'generation_config.json');
  const json = existsSync(file) ? await readJson(file) : {};
  const number = (key: string): number | undefined => (typeof json[key] === 'number' ? json[key] : undefined);
  const said = [json['eos_token_id']].flat().filter((id) => typeof id === 'number');
  const ends = [...new Set([...model.config.ends, ...text.vocabulary.end, ...said])];
  // Files say how to sample, and may say that greedy is the default all the same.
  if (json['do_sample'] !== true) return { ends };
  return { ends, temperature: number('temperature'), topK: number('top_k'), topP: number('top_p') };
}
