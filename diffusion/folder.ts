/** Whole models as folders in diffusers' layout: `model_index.json`, then a folder for each part with its `config.json`. */
import { access, readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import type { Device } from '../engine/index.ts';
import { makeFolder } from '../nn/checkpoint.ts';
import { openSafetensors, reason, saveSafetensors, writeFileAtomic } from '../nn/files.ts';
import type { Module } from '../nn/module.ts';
import type { Writable } from '../nn/safetensors.ts';
import { ClipTextModel } from './clip.ts';
import { NoiseSchedule, parseSchedulerConfig } from './schedule.ts';
import type { SamplerName } from './schedule.ts';
import { loadTokenizer } from './tokenizer.ts';
import type { ClipTokenizer } from './tokenizer.ts';
import { UNet } from './unet.ts';
import { Vae } from './vae.ts';

/** Names of weight files without their ending, as diffusers and transformers have them. */
const DIFFUSERS_WEIGHTS = 'diffusion_pytorch_model';
const TRANSFORMERS_WEIGHTS = 'model';

/** A text-to-picture model: everything that its folder holds. */
export interface StableDiffusion {
  readonly folder: string;
  readonly unet: UNet;
  readonly vae: Vae;
  readonly textEncoder: ClipTextModel;
  readonly tokenizer: ClipTokenizer;
  /** The noise schedule of the folder's scheduler, or the same noise for another sampler. */
  schedule(sampler?: SamplerName): NoiseSchedule;
}

/** The UNet of a folder with `config.json` and weights. */
export const loadUNet = (device: Device, folder: string): Promise<UNet> =>
  loadPart(folder, DIFFUSERS_WEIGHTS, (json, name) => UNet.fromConfig(device, json, name));

/** The VAE of a folder with `config.json` and weights. */
export const loadVae = (device: Device, folder: string): Promise<Vae> =>
  loadPart(folder, DIFFUSERS_WEIGHTS, (json, name) => Vae.fromConfig(device, json, name));

/** The text encoder of a folder with `config.json` and weights. */
export const loadClipText = (device: Device, folder: string): Promise<ClipTextModel> =>
  // Older files store the positions 0, 1, 2, … as if they were weights.
  loadPart(folder, TRANSFORMERS_WEIGHTS, (json, name) => ClipTextModel.fromConfig(device, json, name), /position_ids$/);

async function loadPart<M extends Module>(
  folder: string,
  stem: string,
  make: (json: unknown, name: string) => M,
  ignore?: RegExp,
): Promise<M> {
  const configFile = path.join(folder, 'config.json');
  const json = await readJson(configFile);
  const weights = await openSafetensors(await findWeights(folder, stem));
  try {
    const model = make(json, configFile);
    await model.load(weights, ignore ? { ignore } : {}).catch((error: unknown) => {
      model.release();
      throw error;
    });
    return model;
  } finally {
    await weights.close();
  }
}

async function findWeights(folder: string, stem: string): Promise<string> {
  const files = await readdir(folder).catch(failTo('read', folder));
  const found = [`${stem}.safetensors`, `${stem}.fp16.safetensors`].find((file) => files.includes(file));
  if (found) return path.join(folder, found);
  const other = files.find((file) => /\.(bin|ckpt|pt|pth|index\.json)$/.test(file));
  throw new Error(
    `[folder] ${folder} has no ${stem}.safetensors${other ? `; ${other} is in a form that is not read: save it as one safetensors file` : ''}`,
  );
}

const failTo =
  (what: string, file: string) =>
  (error: unknown): never => {
    throw new Error(`[folder] cannot ${what} ${file}: ${reason(error)}`, { cause: error });
  };

/** Text of a file that must be there. */
async function readText(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') throw new Error(`[folder] ${file} is missing`, { cause: error });
    return failTo('read', file)(error);
  });
}

async function readJson(file: string): Promise<unknown> {
  const text = await readText(file);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`[folder] ${file} is not JSON: ${(error as Error).message}`, { cause: error });
  }
}

const part = z.tuple([z.string().nullable(), z.string().nullable()]);

/** Parts whose absence changes no picture. */
const UNUSED = ['safety_checker', 'feature_extractor', 'image_encoder'];
const PARTS = { unet: 'UNet2DConditionModel', vae: 'AutoencoderKL', text_encoder: 'CLIPTextModel' };

/** Checks `model_index.json`: that the folder is a model of the kind that is implemented. */
async function checkIndex(folder: string): Promise<void> {
  const file = path.join(folder, 'model_index.json');
  await access(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT')
      throw new Error(`[folder] the model folder ${folder} does not exist`, { cause: error });
    failTo('read', folder)(error);
  });
  const json = await readJson(file);
  const result = z.record(z.string(), z.unknown()).safeParse(json);
  if (!result.success) throw new Error(`[folder] ${file} must be a JSON object`);
  for (const [key, value] of Object.entries(result.data)) {
    const entry = part.safeParse(value);
    if (key.startsWith('_') || !entry.success || UNUSED.includes(key)) continue; // notes and flags
    const [, className] = entry.data;
    const expected = PARTS[key as keyof typeof PARTS] as string | undefined;
    if (expected ? className !== expected : className !== null && !['scheduler', 'tokenizer'].includes(key))
      throw new Error(
        `[folder] ${file}: the part ${key} is ${className}; ${expected ? `supported is ${expected}` : `supported are ${Object.keys(PARTS).join(', ')}, scheduler and tokenizer`}`,
      );
  }
}

/** Loads a whole model. Throws, naming file and fault, on anything missing, damaged or not supported. */
export async function loadStableDiffusion(device: Device, folder: string): Promise<StableDiffusion> {
  await checkIndex(folder);
  const schedulerFile = path.join(folder, 'scheduler', 'scheduler_config.json');
  const schedulerText = await readText(schedulerFile);
  const schedule = (sampler?: SamplerName) =>
    new NoiseSchedule(parseSchedulerConfig(schedulerText, schedulerFile, sampler));
  const tokenizer = await loadTokenizer(path.join(folder, 'tokenizer'));
  const parts: Module[] = [];
  const load = async <M extends Module>(part: Promise<M>): Promise<M> => {
    const module = await part;
    parts.push(module);
    return module;
  };
  try {
    const textEncoder = await load(loadClipText(device, path.join(folder, 'text_encoder')));
    const vae = await load(loadVae(device, path.join(folder, 'vae')));
    const unet = await load(loadUNet(device, path.join(folder, 'unet')));
    checkFit(folder, tokenizer, textEncoder, vae, unet);
    return { folder, unet, vae, textEncoder, tokenizer, schedule };
  } catch (error) {
    for (const part of parts) part.release();
    throw error;
  }
}

/** Checks that the parts of a model belong together. */
function checkFit(
  folder: string,
  tokenizer: ClipTokenizer,
  { config: text }: ClipTextModel,
  vae: Vae,
  unet: UNet,
): void {
  const fail = (what: string): never => {
    throw new Error(`[folder] ${folder}: ${what}`);
  };
  const { in_channels: inputs, out_channels: outputs, cross_attention_dim: width } = unet.config;
  const { latent_channels: latent } = vae.config;
  if (text.hidden_size !== width) fail(`the text encoder is ${text.hidden_size} wide, the UNet reads ${width}`);
  if (latent !== inputs || outputs !== inputs)
    fail(`the VAE has ${latent} latent channels, the UNet takes ${inputs} and gives ${outputs}`);
  if (tokenizer.size > text.vocab_size)
    fail(`the tokenizer has ${tokenizer.size} ids, the text encoder ${text.vocab_size}`);
}

/** A module's parameters for a weight file, read from the device one at a time. */
export function moduleWeights(module: Module, dtype: 'F32' | 'F16'): Map<string, Writable> {
  return new Map(
    [...module.namedParameters()].map(([name, tensor]) => [
      name,
      { dtype, shape: tensor.shape, data: async () => (await tensor.read()) as Float32Array },
    ]),
  );
}

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
