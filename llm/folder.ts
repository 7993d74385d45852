/** Model folders on a disk (Node) in the layout of transformers: `config.json` and the weights beside it. */
import { access, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Device } from '../engine/index.ts';
import { makeFolder } from '../nn/checkpoint.ts';
import { saveSafetensors, writeFileAtomic } from '../nn/files.ts';
import { failTo, folderFiles, moduleWeights } from '../nn/folder.ts';
import { readPart } from '../nn/model_files.ts';
import type { ModelFiles } from '../nn/model_files.ts';
import { WEIGHT_FORMATS } from '../nn/module.ts';
import type { LoadOptions, WeightFormat } from '../nn/module.ts';
import { Transformer } from './model.ts';

export interface TransformerOptions {
  /**
   * What the weights of products and the table of embeddings are kept in, f32 by default; norms and biases are f32. The
   * model is trained in f32 alone. Rows in q8 and q4 are multiples of 32 values.
   */
  readonly weights?: WeightFormat;
}

/** What `Module.load` is told for a decoder. */
export const loadOptions = ({ weights = 'f32' }: TransformerOptions): LoadOptions => {
  if (!WEIGHT_FORMATS.includes(weights))
    throw new Error(`[load] weights are ${WEIGHT_FORMATS.join(', ')}, not ${String(weights)}`);
  return { format: (_, shape) => (shape.length === 2 ? weights : 'f32') };
};

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

/** Loads a decoder. Throws, naming file and fault, on anything missing, damaged or not supported. */
export async function loadTransformer(
  device: Device,
  folder: string,
  options: TransformerOptions = {},
): Promise<Transformer> {
  await access(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT')
      throw new Error(`[folder] the model folder ${folder} does not exist`, { cause: error });
    failTo('read', folder)(error);
  });
  return readTransformer(device, folderFiles(folder), options);
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
