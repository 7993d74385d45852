/** Model folders on a disk (Node): loading, and saving in the same layout. */
import { access, readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Device } from '../engine/index.ts';
import { makeFolder, saveSafetensors, writeFileAtomic } from '../nn/files.ts';
import { failTo, findWeights, folderFiles, moduleWeights } from '../nn/folder.ts';
import type { ClipTextModel } from './clip.ts';
import {
  DIFFUSERS_WEIGHTS,
  readClipText,
  readStableDiffusion,
  readTokenizer,
  readUNet,
  readVae,
  TRANSFORMERS_WEIGHTS,
} from './model.ts';
import type { StableDiffusion } from './model.ts';
import type { ClipTokenizer } from './tokenizer.ts';
import type { UNet } from './unet.ts';
import type { Vae } from './vae.ts';

export type { StableDiffusion } from './model.ts';

/** The UNet of a folder with `config.json` and weights. */
export const loadUNet = (device: Device, folder: string): Promise<UNet> => readUNet(device, folderFiles(folder));

/** The VAE of a folder with `config.json` and weights. */
export const loadVae = (device: Device, folder: string): Promise<Vae> => readVae(device, folderFiles(folder));

/** The text encoder of a folder with `config.json` and weights. */
export const loadClipText = (device: Device, folder: string): Promise<ClipTextModel> =>
  readClipText(device, folderFiles(folder));

/** The tokenizer of a folder; CLIP's own where it has no vocabulary. */
export const loadTokenizer = (folder: string): Promise<ClipTokenizer> => readTokenizer(folderFiles(folder));

/** Loads a whole model. Throws, naming file and fault, on anything missing, damaged or not supported. */
export async function loadStableDiffusion(device: Device, folder: string): Promise<StableDiffusion> {
  await access(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT')
      throw new Error(`[folder] the model folder ${folder} does not exist`, { cause: error });
    failTo('read', folder)(error);
  });
  return readStableDiffusion(device, folderFiles(folder));
}

/** The weight files of a whole model, whichever of their names they have. */
export const weightFiles = (folder: string): Promise<string[]> =>
  Promise.all(
    [
      ['unet', DIFFUSERS_WEIGHTS],
      ['vae', DIFFUSERS_WEIGHTS],
      ['text_encoder', TRANSFORMERS_WEIGHTS],
    ].map(([part, stem]) => findWeights(path.join(folder, part!), stem!)),
  );

/**
 * Saves a model as a folder in the same layout, weights as f32 or f16; what is no weight is copied from the folder that it
 * was loaded from. `model_index.json` comes last: a folder that has one is complete.
 */
export async function saveStableDiffusion(
  model: StableDiffusion,
  target: string,
  { dtype = 'F32' }: { dtype?: 'F32' | 'F16' } = {},
): Promise<void> {
  const parts = {
    unet: [model.unet, DIFFUSERS_WEIGHTS],
    vae: [model.vae, DIFFUSERS_WEIGHTS],
    text_encoder: [model.textEncoder, TRANSFORMERS_WEIGHTS],
  } as const;
  const copy = async (file: string) => {
    const bytes = await readFile(path.join(model.folder, file)).catch(failTo('read', path.join(model.folder, file)));
    await writeFileAtomic(path.join(target, file), [bytes]);
  };
  const folder = (name: string) => {
    const made = path.join(target, name);
    return makeFolder(made).catch(failTo('make', made));
  };
  for (const [name, [module, stem]] of Object.entries(parts)) {
    await folder(name);
    await copy(path.join(name, 'config.json'));
    await saveSafetensors(path.join(target, name, `${stem}.safetensors`), moduleWeights(module, dtype), {
      format: 'pt',
    });
  }
  for (const name of ['scheduler', 'tokenizer']) {
    const source = path.join(model.folder, name);
    const entries = await readdir(source).catch((error: NodeJS.ErrnoException) =>
      name === 'tokenizer' && error.code === 'ENOENT' ? [] : failTo('read', source)(error),
    );
    // Hubs' clients keep folders of their own beside the files, and files as links.
    const files: string[] = [];
    for (const entry of entries)
      if ((await stat(path.join(source, entry)).catch(failTo('read', path.join(source, entry)))).isFile())
        files.push(entry);
    if (files.length > 0) await folder(name);
    for (const file of files) await copy(path.join(name, file));
  }
  await copy('model_index.json');
}
