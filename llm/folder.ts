/** Model folders on a disk (Node) in the layout of transformers: `config.json` and the weights beside it. */
import { access, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Device } from '../engine/index.ts';
import { makeFolder, openSource, saveSafetensors, writeFileAtomic } from '../nn/files.ts';
import { failTo, folderFiles, moduleWeights } from '../nn/folder.ts';
import { readGguf } from '../nn/gguf.ts';
import type { Gguf } from '../nn/gguf.ts';
import { readJson, readPart } from '../nn/model_files.ts';
import type { ModelFiles } from '../nn/model_files.ts';
import { readChatTemplate } from './chat.ts';
import { parseTransformerConfig } from './config.ts';
import type { TransformerConfig } from './config.ts';
import { ggufConfig, ggufOf, readGgufTransformer } from './gguf.ts';
import type { GgufOptions } from './gguf.ts';
import { readLlama2c, readLlama2cTransformer } from './llama2c.ts';
import { Transformer } from './model.ts';
import { readTokenizer, tokenizerOf } from './tokenizer.ts';
import { readLlama2cTokenizer } from './tokenizer_files.ts';
import type { LoadedTokenizer, TokenizerFile } from './tokenizer_files.ts';
import { ggufTokenizer } from './tokenizer_gguf.ts';
import { loadOptions } from './weights.ts';
import type { TransformerOptions } from './weights.ts';

/**
 * A decoder from its files. Buffers that older files store among the weights are passed over, and so is the head that
 * some files of tied models repeat.
 */
export const readTransformer = (
  device: Device,
  files: ModelFiles,
  options: TransformerOptions = {},
): Promise<Transformer> =>
  readPart(files, '', 'model', (json, name) => Transformer.fromConfig(device, json, name), {
    ...loadOptions(options),
    ignore: /rotary_emb\.inv_freq$|^lm_head\.weight$/,
  });

/**
 * What a model or a tokenizer lies in: a folder, or a file by the end of its name, in either case. Throws on other files;
 * whether it is there is not its matter.
 */
export async function placeKind(place: string): Promise<'folder' | 'gguf' | 'llama2c'> {
  const [, suffix] = /\.(gguf|bin)$/i.exec(place) ?? [];
  const folder = await stat(place).then((found) => found.isDirectory(), () => suffix === undefined); // prettier-ignore
  if (folder) return 'folder';
  if (suffix === undefined)
    throw new Error(`[folder] ${place} is a file; a folder is needed, or a file whose name ends in .gguf or .bin`);
  return suffix.toLowerCase() === 'gguf' ? 'gguf' : 'llama2c';
}

/** Throws where there is no such folder or file. */
async function requirePlace(place: string): Promise<void> {
  await access(place).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') failTo('read', place)(error);
    const what = (await placeKind(place)) === 'folder' ? 'the model folder' : 'the file';
    throw new Error(`[folder] ${what} ${place} does not exist`, { cause: error });
  });
}

/** What a model's files say of it, in the form of transformers' `config.json`; no weight is read. Throws as `loadTransformer`. */
export async function loadTransformerConfig(place: string): Promise<TransformerConfig> {
  await requirePlace(place);
  const kind = await placeKind(place);
  if (kind === 'folder') return parseTransformerConfig(await readJson(folderFiles(place), 'config.json'), path.join(place, 'config.json')); // prettier-ignore
  const source = await openSource(place);
  try {
    const json = kind === 'gguf' ? await ggufConfig(await readGguf(source)) : (await readLlama2c(source)).json;
    return parseTransformerConfig(json, place);
  } finally {
    await source.close();
  }
}

/**
 * Loads a decoder from a folder, a GGUF file or a llama2.c file (.bin). Throws, naming file and fault, on anything missing,
 * damaged or not supported.
 */
export async function loadTransformer(
  device: Device,
  place: string,
  options: TransformerOptions = {},
): Promise<Transformer> {
  await requirePlace(place);
  const kind = await placeKind(place);
  if (kind === 'folder') return readTransformer(device, folderFiles(place), options);
  const source = await openSource(place);
  try {
    if (kind === 'llama2c') return await readLlama2cTransformer(device, source, options);
    return await readGgufTransformer(device, await readGguf(source), options);
  } finally {
    await source.close();
  }
}

/** Opens a GGUF file: reads and checks its header. Close it when done. */
export async function openGguf(file: string): Promise<Gguf> {
  const source = await openSource(file);
  try {
    return await readGguf(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/**
 * The tokenizer and the chat template of a model: of its folder, of a GGUF file, or of llama2.c's `tokenizer.bin`, which has a
 * `vocabulary` of as many tokens as the model. Throws, naming file and fault, on anything missing, damaged or not supported.
 */
export async function loadTokenizer(place: string, vocabulary: number): Promise<LoadedTokenizer> {
  const kind = await placeKind(place);
  if (kind === 'folder') {
    const files = folderFiles(place);
    const tokenizer = await readTokenizer(files);
    return {
      json: (await readJson(files, 'tokenizer.json')) as object,
      tokenizer,
      chat: await readChatTemplate(files),
    };
  }
  const file = kind === 'llama2c' ? await llama2cTokenizer(place, vocabulary) : await insideGguf(place);
  const { json, ends, chat } = file;
  return { json, tokenizer: await tokenizerOf(json, { ends }), chat };
}

async function insideGguf(place: string): Promise<TokenizerFile> {
  const file = await openGguf(place);
  try {
    const found = ggufTokenizer(file);
    if (!found) throw new Error(`[tokenizer] ${place} has no tokenizer in it`);
    return found;
  } finally {
    await file.close();
  }
}

async function llama2cTokenizer(place: string, vocabulary: number): Promise<TokenizerFile> {
  const bytes = await readFile(place).catch(failTo('read', place));
  return readLlama2cTokenizer(bytes, vocabulary, place);
}

/** Saves a decoder's weights, and beside them `config.json` and the tokenizer's files of the folder that it came from. */
export async function saveTransformer(
  model: Transformer,
  source: string,
  target: string,
  { dtype = 'F32' }: { dtype?: 'F32' | 'F16' } = {},
): Promise<void> {
  await makeFolder(target).catch(failTo('make', target));
  await saveSafetensors(path.join(target, 'model.safetensors'), moduleWeights(model, dtype), { format: 'pt' });
  for (const file of FILES) {
    const bytes = await readFile(path.join(source, file)).catch((error: NodeJS.ErrnoException) =>
      error.code === 'ENOENT' && file !== 'config.json' ? null : failTo('read', path.join(source, file))(error),
    );
    if (bytes) await writeFileAtomic(path.join(target, file), [bytes]);
  }
}

/** `config.json` last: a folder that has one is complete. */
const FILES = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'config.json',
];

/** Writes a decoder as a GGUF file for llama.cpp, whole or not at all. */
export const saveGguf = (model: Transformer, file: string, options: GgufOptions = {}): Promise<void> =>
  writeFileAtomic(file, ggufOf(model, options));
