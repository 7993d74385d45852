/** Training UNet and text encoder from scratch on captioned pictures (Rombach et al. 2022), the VAE frozen. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { HostRandom, noGrad, randomKey, release, scope, write } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { mse } from '../kernels/index.ts';
import { makeFolder, reason } from '../nn/files.ts';
import type { Module } from '../nn/module.ts';
import { ClipTextModel } from './clip.ts';
import { loadStableDiffusion, loadTokenizer, loadVae } from './folder.ts';
import type { StableDiffusion } from './folder.ts';
import { readLatents, writeLatents } from './latents_file.ts';
import { encode } from './pipeline.ts';
import type { Picture } from './pictures.ts';
import { NoiseSchedule, parseSchedulerConfig } from './schedule.ts';
import type { SamplerName } from './schedule.ts';
import { diffusionLoss, encodePictures, noiseBatch } from './training.ts';
import type { Batch, Example, Latents } from './training.ts';
import { UNet } from './unet.ts';
import type { Vae } from './vae.ts';

/**
 * The model of a folder with its VAE's weights; UNet and text encoder are made by their configurations, and initialised, or
 * those of the model in `start`. Throws where its shapes are others.
 */
export async function freshModel(
  device: Device,
  folder: string,
  { seed, start = null }: { seed: number; start?: string | null },
): Promise<StableDiffusion> {
  const read = async (...names: string[]) => {
    const file = path.join(folder, ...names);
    const text = await readFile(file, 'utf8').catch((error: unknown) => {
      throw new Error(`[pretraining] cannot read ${file}: ${reason(error)}`, { cause: error });
    });
    return { file, text };
  };
  const scheduler = await read('scheduler', 'scheduler_config.json');
  const unetConfig = await read('unet', 'config.json');
  const textConfig = await read('text_encoder', 'config.json');
  const tokenizer = await loadTokenizer(path.join(folder, 'tokenizer'));
  const vae = await loadVae(device, path.join(folder, 'vae'));
  const unet = UNet.fromConfig(device, JSON.parse(unetConfig.text), unetConfig.file);
  const textEncoder = ClipTextModel.fromConfig(device, JSON.parse(textConfig.text), textConfig.file);
  unet.initialize(seed);
  textEncoder.initialize(seed);
  if (start !== null) {
    const begun = await loadStableDiffusion(device, start);
    await copyWeights(begun.unet, unet, start);
    await copyWeights(begun.textEncoder, textEncoder, start);
    for (const module of [begun.unet, begun.textEncoder, begun.vae]) module.release();
  }
  const schedule = (sampler?: SamplerName) =>
    new NoiseSchedule(parseSchedulerConfig(scheduler.text, scheduler.file, sampler));
  return { folder, unet, vae, textEncoder, tokenizer, schedule };
}

async function copyWeights(from: Module, to: Module, folder: string): Promise<void> {
  const [own, others] = [to.namedParameters(), from.namedParameters()];
  for (const [name, weight] of own) {
    const other = others.get(name);
    if (!other || String(other.shape) !== String(weight.shape)) {
      const found = other ? `(${other.shape.join(', ')})` : 'missing';
      throw new Error(
        `[pretraining] start: ${folder}: ${name} is ${found}, this model's is (${weight.shape.join(', ')})`,
      );
    }
    write(weight, await other.read());
  }
}

/**
 * Weight of a sample's squared error at timestep t: min(SNR, γ) / SNR where the UNet predicts ε (Hang et al. 2023), so that
 * nearly clean samples, whose noise is hard to tell and matters little, don't take over; for v, whose error is SNR + 1 times
 * that of x₀, min(SNR, γ) / (SNR + 1). γ = 0 weighs all alike.
 */
export function minSnrWeight(schedule: NoiseSchedule, t: number, gamma: number): number {
  if (gamma === 0) return 1;
  const { signal, noise } = schedule.noising(t);
  const snr = (signal / noise) ** 2;
  return Math.min(snr, gamma) / (schedule.config.prediction_type === 'epsilon' ? snr : snr + 1);
}

/** Factors of how often a picture is drawn. */
export interface SamplingWeights {
  /** By the set that it is from. */
  readonly sets: Readonly<Record<string, number>>;
  /** By the words of its caption. */
  readonly words: Readonly<Record<string, number>>;
}

/** The product of all factors that apply to a picture. */
export function samplingWeight({ sets, words }: SamplingWeights, set: string, caption: string): number {
  return caption.split(' ').reduce((weight, word) => weight * (words[word] ?? 1), sets[set] ?? 1);
}

/** A picture that training may take. */
export interface Captioned {
  readonly caption: string;
  /** The same with the drawing's style. */
  readonly styled: string;
  readonly latents: Latents;
  /** How much more often than others it is drawn. */
  readonly weight: number;
}

export interface PretrainingOptions {
  readonly seed: number;
  readonly batch: number;
  /** Share of captions left empty, which is what guidance compares with. */
  readonly drop: number;
  /** Share of the others that get an "a" in front. */
  readonly article: number;
  /** Share of captions that name the style. */
  readonly style: number;
  /** γ of min-SNR weights; 0: none. */
  readonly snr: number;
}

/** Draws batches of captioned latents by (seed, pass), and computes their loss. */
export class Pretraining {
  readonly #model: StableDiffusion;
  readonly #schedule: NoiseSchedule;
  readonly #items: readonly Captioned[];
  readonly #options: PretrainingOptions;
  /** Running sums of the items' weights. */
  readonly #sums: Float64Array;
  readonly #ids = new Map<string, Int32Array>();

  constructor(model: StableDiffusion, items: readonly Captioned[], options: PretrainingOptions) {
    this.#model = model;
    this.#schedule = model.schedule();
    this.#items = items;
    this.#options = options;
    let total = 0;
    this.#sums = Float64Array.from(items, ({ weight }) => (total += weight));
    if (!(total > 0)) throw new Error('[pretraining] every picture has the weight 0: there is nothing to draw');
  }

  /** The batch of a forward pass. */
  batch(pass: number): Batch {
    const { seed, batch, drop, article, style, snr } = this.#options;
    const key = randomKey(seed, 'captions');
    const examples = Array.from({ length: batch }, (_, n): Example => {
      const random = new HostRandom(key, n, pass);
      const { caption, styled, latents } = this.#items[this.#pick(random.uniform())]!;
      const [empty, prefixed, named] = [drop, article, style].map((share) => random.uniform() < share);
      const words = named ? styled : caption;
      return { ids: this.#encode(empty ? '' : prefixed ? `a ${words}` : words), crops: [latents] };
    });
    return weighted(noiseBatch(examples, [], this.#schedule, seed, pass), this.#schedule, snr);
  }

  /** The weighted loss, and the plain mean squared error of the noise for the record. */
  loss(pass: number): { loss: Tensor; mse: Tensor } {
    const batch = this.batch(pass);
    const { unet, textEncoder } = this.#model;
    return scope(unet.device, () => {
      const context = textEncoder.forward(batch.ids).lastHidden;
      const { loss, prediction, target } = diffusionLoss(unet, context, batch, latentSize(this.#model, batch));
      return { loss, mse: noGrad(unet.device, () => mse(prediction, target)) };
    });
  }

  /** The item at a share of all weights: the first whose running sum exceeds it. */
  #pick(share: number): number {
    const sums = this.#sums;
    const wanted = share * sums.at(-1)!;
    let [low, high] = [0, sums.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle]! > wanted) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #encode(caption: string): Int32Array {
    const known = this.#ids.get(caption);
    if (known) return known;
    const ids = encode(this.#model, caption);
    this.#ids.set(caption, ids);
    return ids;
  }
}

/** The batch with min-SNR weights, over the number of its samples. */
function weighted(batch: Batch, schedule: NoiseSchedule, snr: number): Batch {
  const weights = batch.timesteps.map((t) => minSnrWeight(schedule, t, snr) / batch.timesteps.length);
  return { ...batch, weights: Float32Array.from(weights) };
}

function latentSize({ unet }: StableDiffusion, batch: Batch): readonly [number, number] {
  const side = Math.sqrt(batch.noisy.length / batch.timesteps.length / unet.config.in_channels);
  return [side, side];
}

/** Seed of the timesteps and the noise of validation: the same for every run, so that runs compare. */
const VALIDATION_SEED = 20231101;
const VALIDATED_AT_ONCE = 8;

/** Mean squared error of the predicted noise on pictures held out, each with one timestep and noise drawn once for all. */
export async function validate(
  model: StableDiffusion,
  items: readonly Pick<Captioned, 'styled' | 'latents'>[],
  snr: number,
): Promise<{ mse: number; weighted: number }> {
  const { unet, textEncoder } = model;
  const { device } = unet;
  const schedule = model.schedule();
  const sums = { mse: 0, weighted: 0 };
  for (let from = 0; from < items.length; from += VALIDATED_AT_ONCE) {
    const part = items.slice(from, from + VALIDATED_AT_ONCE);
    const examples = part.map(({ styled, latents }) => ({ ids: encode(model, styled), crops: [latents] }));
    const batch = weighted(noiseBatch(examples, [], schedule, VALIDATION_SEED, from), schedule, snr);
    const both = noGrad(device, () =>
      scope(device, () => {
        const context = textEncoder.forward(batch.ids).lastHidden;
        const { loss, prediction, target } = diffusionLoss(unet, context, batch, latentSize(model, batch));
        return { weighted: loss, mse: mse(prediction, target) };
      }),
    );
    const [plain, own] = [await both.mse.item(), await both.weighted.item()];
    release(both.mse, both.weighted);
    sums.mse += (plain * part.length) / items.length;
    sums.weighted += (own * part.length) / items.length;
  }
  return sums;
}

/** Pictures a file of the latents' cache holds: what is lost when encoding is stopped. */
const CACHED_TOGETHER = 256;

/**
 * Latents of pictures of one size, kept in `folder` by the VAE's weights and the pictures' `key`: found again, they are not
 * encoded again.
 */
export async function cachedLatents(
  vae: Vae,
  pictures: readonly { picture: () => Picture }[],
  { folder, key, onDone }: { folder: string; key: string; onDone?: (done: number) => void },
): Promise<Latents[]> {
  const place = path.join(
    folder,
    createHash('sha256')
      .update(await fingerprint(vae))
      .update(key)
      .digest('hex')
      .slice(0, 16),
  );
  await makeFolder(place);
  const all: Latents[] = [];
  for (let from = 0; from < pictures.length; from += CACHED_TOGETHER) {
    const part = pictures.slice(from, from + CACHED_TOGETHER);
    const file = path.join(place, `${String(from).padStart(6, '0')}.safetensors`);
    let latents = await readLatents(file, part.length);
    if (!latents) {
      latents = await encodePictures(
        vae,
        part.map(({ picture }) => picture()),
        (done) => onDone?.(from + done),
      );
      await writeLatents(file, latents);
    }
    all.push(...latents);
    onDone?.(all.length);
  }
  return all;
}

/** Identifies a VAE by its weights and scale. */
async function fingerprint(vae: Vae): Promise<string> {
  const hash = createHash('sha256').update(String(vae.config.scaling_factor));
  for (const [name, weight] of vae.namedParameters()) hash.update(name).update(await weight.read());
  return hash.digest('hex');
}
