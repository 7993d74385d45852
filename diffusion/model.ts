/**
 * Whole models in diffusers' layout, `model_index.json` and a folder for each part with its `config.json`, from wherever
 * their files are: on a disk (folder.ts) or behind URLs (below). Nothing here imports from Node.
 */
import { z } from 'zod';
import type { Device } from '../engine/index.ts';
import { readJson, readPart, readText } from '../nn/model_files.ts';
import type { ModelFiles } from '../nn/model_files.ts';
import type { Module } from '../nn/module.ts';
import { ClipTextModel } from './clip.ts';
import { NoiseSchedule, parseSchedulerConfig } from './schedule.ts';
import type { SamplerName } from './schedule.ts';
import { parseTokenizer, TOKENIZER_FILES } from './tokenizer.ts';
import type { ClipTokenizer } from './tokenizer.ts';
import { UNet } from './unet.ts';
import { Vae } from './vae.ts';

/** Names of weight files without their ending, as diffusers and transformers have them. */
export const DIFFUSERS_WEIGHTS = 'diffusion_pytorch_model';
export const TRANSFORMERS_WEIGHTS = 'model';

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

/** A UNet from its `config.json` and weights; `part` as in `ModelFiles.weights`. */
export const readUNet = (device: Device, files: ModelFiles, part = ''): Promise<UNet> =>
  readPart(files, part, DIFFUSERS_WEIGHTS, (json, name) => UNet.fromConfig(device, json, name));

/** A VAE from its `config.json` and weights. */
export const readVae = (device: Device, files: ModelFiles, part = ''): Promise<Vae> =>
  readPart(files, part, DIFFUSERS_WEIGHTS, (json, name) => Vae.fromConfig(device, json, name));

/** A text encoder from its `config.json` and weights. */
export const readClipText = (device: Device, files: ModelFiles, part = ''): Promise<ClipTextModel> =>
  // Older files store the positions 0, 1, 2, … as if they were weights.
  readPart(files, part, TRANSFORMERS_WEIGHTS, (json, name) => ClipTextModel.fromConfig(device, json, name), { ignore: /position_ids$/ }); // prettier-ignore

const part = z.tuple([z.string().nullable(), z.string().nullable()]);

/** Parts whose absence changes no picture. */
const UNUSED = ['safety_checker', 'feature_extractor', 'image_encoder'];
const PARTS = { unet: 'UNet2DConditionModel', vae: 'AutoencoderKL', text_encoder: 'CLIPTextModel' };

/** Checks `model_index.json`: that the folder is a model of the kind that is implemented. */
async function checkIndex(files: ModelFiles): Promise<void> {
  const json = await readJson(files, 'model_index.json');
  const file = `${files.name}/model_index.json`;
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

/** Reads a whole model. Throws, naming file and fault, on anything missing, damaged or not supported. */
export async function readStableDiffusion(device: Device, files: ModelFiles): Promise<StableDiffusion> {
  await checkIndex(files);
  const schedulerFile = 'scheduler/scheduler_config.json';
  const schedulerText = await readText(files, schedulerFile);
  const schedule = (sampler?: SamplerName) =>
    new NoiseSchedule(parseSchedulerConfig(schedulerText, `${files.name}/${schedulerFile}`, sampler));
  const tokenizer = await readTokenizer(files, 'tokenizer/');
  const parts: Module[] = [];
  const load = async <M extends Module>(part: Promise<M>): Promise<M> => {
    const module = await part;
    parts.push(module);
    return module;
  };
  try {
    const textEncoder = await load(readClipText(device, files, 'text_encoder/'));
    const vae = await load(readVae(device, files, 'vae/'));
    const unet = await load(readUNet(device, files, 'unet/'));
    checkFit(files.name, tokenizer, textEncoder, vae, unet);
    return { folder: files.name, unet, vae, textEncoder, tokenizer, schedule };
  } catch (error) {
    for (const part of parts) part.release();
    throw error;
  }
}

/** The tokenizer of a folder; see `parseTokenizer`. */
export async function readTokenizer(files: ModelFiles, part = ''): Promise<ClipTokenizer> {
  const texts = await Promise.all(TOKENIZER_FILES.map((file) => files.text(part + file)));
  const name = `${files.name}/${part}`.replace(/\/$/, '');
  return parseTokenizer(name, Object.fromEntries(TOKENIZER_FILES.map((file, i) => [file, texts[i]!])));
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
