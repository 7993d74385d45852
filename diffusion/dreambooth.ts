/**
 * DreamBooth (Ruiz et al., CVPR 2023): a diffusion model learns a subject from a few pictures, named by a rare word, while
 * pictures of its class, drawn by the model itself before it learns anything, keep the class as it was (prior preservation).
 */
import { createHash } from 'node:crypto';
import { rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { affine, mse, sub } from '../kernels/index.ts';
import { noGrad, scope, tensor, write } from '../engine/index.ts';
import type { Tensor } from '../engine/index.ts';
import type { Part } from '../nn/arena.ts';
import { hashFile, makeFolder, writeFileAtomic } from '../nn/files.ts';
import { DataOrder } from '../nn/order.ts';
import { weightFiles } from './folder.ts';
import type { StableDiffusion } from './folder.ts';
import { readLatents, writeLatents } from './latents_file.ts';
import { mean } from './measures.ts';
import { drawingSteps, encode, generate } from './pipeline.ts';
import { encodePng, listPictures, loadPicture } from './pictures.ts';
import type { Picture } from './pictures.ts';
import type { NoiseSchedule, SamplerName } from './schedule.ts';
import { diffusionLoss, encodePictures, noiseBatch } from './training.ts';
import type { Batch, Example, Latents } from './training.ts';

/** Path of the table in which the text encoder has a row for each token. */
const TOKEN_TABLE = 'text_model.embeddings.token_embedding.weight';

/** Crops taken of a picture that is cropped at random. */
const RANDOM_CROPS = 8;

/** Fills `{token}`, `{class}` and `{name}` of a prompt. Throws on a name in braces that is none of them. */
export function fillPrompt(template: string, values: Readonly<Record<string, string>>): string {
  return template.replace(/\{(\w*)\}/g, (_, key: string) => {
    const value = values[key];
    if (value === undefined)
      throw new Error(
        `[dreambooth] the prompt "${template}" names {${key}}; known are {${Object.keys(values).join('}, {')}}`,
      );
    return value;
  });
}

/** One of the subject's pictures: the file's name without its ending may serve as a caption. */
export interface SubjectPicture {
  readonly name: string;
  readonly crops: readonly Picture[];
}

/** Loads a subject's pictures as squares, cropped in the centre, or in several ways for `random`. */
export async function loadSubject(
  folder: string,
  size: number,
  crop: 'center' | 'random',
  warn?: (message: string) => void,
): Promise<SubjectPicture[]> {
  const files = await listPictures(folder, warn);
  const positions = crop === 'center' ? [0.5] : Array.from({ length: RANDOM_CROPS }, (_, i) => i / (RANDOM_CROPS - 1));
  return Promise.all(
    files.map(async (file) => ({
      name: path.basename(file, path.extname(file)),
      crops: await Promise.all(positions.map((position) => loadPicture(file, size, position))),
    })),
  );
}

/**
 * Says which parameters train: the UNet's, and the text encoder's or, with `token`, of these the embedding of one word
 * alone, which is textual inversion where the UNet stays (Gal et al., ICLR 2023). Returns that embedding as a part of its
 * table, for the arena of { unet, text_encoder }. Throws where the word is several tokens.
 */
export function chooseTrained(
  { unet, vae, textEncoder, tokenizer }: StableDiffusion,
  train: { readonly unet: boolean; readonly text: boolean; readonly token: boolean },
  word: string,
): ReadonlyMap<string, Part> {
  vae.setTrainable(false);
  unet.setTrainable(train.unet);
  textEncoder.setTrainable(train.text && !train.token);
  if (!train.token) return new Map();
  const ids = tokenizer.tokenize(word);
  if (ids.length !== 1)
    throw new Error(`[dreambooth] train.token trains one embedding, and "${word}" is ${ids.length} tokens: choose a shorter word`); // prettier-ignore
  const table = textEncoder.text_model.embeddings.token_embedding.weight;
  table.requiresGrad = true;
  const width = table.shape[1]!;
  return new Map([[`text_encoder.${TOKEN_TABLE}`, { first: ids[0]! * width, size: width }]]);
}

/**
 * Gives a word of one token the embedding of another phrase, the mean of its tokens': where textual inversion begins, which
 * has far to go from a word that pre-training never met (Gal et al. begin with a word for the class).
 */
export async function beginAs(
  { textEncoder, tokenizer }: StableDiffusion,
  word: string,
  phrase: string,
): Promise<void> {
  const table = textEncoder.text_model.embeddings.token_embedding.weight;
  const width = table.shape[1]!;
  const values = (await table.read()).slice();
  const [row, like] = [tokenizer.tokenize(word)[0]!, tokenizer.tokenize(phrase)];
  for (let i = 0; i < width; i++) values[row * width + i] = mean(like.map((id) => values[id * width + i]!));
  write(table, values);
}

/** Encodes pictures and prompts. */
export async function makeExamples(
  model: StableDiffusion,
  pictures: readonly { prompt: string; crops: readonly Picture[] }[],
): Promise<Example[]> {
  const latents = await encodePictures(
    model.vae,
    pictures.flatMap(({ crops }) => crops),
  );
  let next = 0;
  return pictures.map(({ prompt, crops }) => ({
    ids: encode(model, prompt),
    crops: crops.map(() => latents[next++]!),
  }));
}

export interface PriorOptions {
  /** Drawn in turn. */
  readonly prompts: readonly string[];
  readonly count: number;
  readonly steps: number;
  readonly scale: number;
  readonly sampler: SamplerName;
  readonly seed: number;
  /** Folder of the cache; each model and setting has a folder inside. */
  readonly cache: string;
  /** Called with the number of steps before the first one, where pictures have to be drawn. */
  readonly onBegin?: (total: number) => void;
  readonly onStep?: (done: number) => void;
}

/**
 * Pictures of the class, drawn by the model as it is now, with their latents. Cached: the same model and settings find them
 * again. Returns the examples, their pictures' folder, and whether they had to be drawn.
 */
export async function priorExamples(
  model: StableDiffusion,
  { prompts, count, steps, scale, sampler, seed, cache, onBegin, onStep }: PriorOptions,
): Promise<{ examples: Example[]; folder: string; drawn: boolean }> {
  const used = Array.from({ length: count }, (_, i) => prompts[i % prompts.length]!);
  const key = createHash('sha256').update(
    JSON.stringify({ used, steps, scale, sampler, seed, weights: await modelHash(model) }),
  );
  const folder = path.join(cache, key.digest('hex').slice(0, 16));
  const file = path.join(folder, 'latents.safetensors');
  const withLatents = (latents: readonly Latents[]) =>
    latents.map((crop, i) => ({ ids: encode(model, used[i]!), crops: [crop] }));
  const found = await readLatents(file, count);
  if (found) return { examples: withLatents(found), folder, drawn: false };
  onBegin?.(drawingSteps(model, count, { steps, sampler }));
  const pictures = await generate(model, {
    prompts: used,
    seeds: used.map((_, i) => seed + i),
    steps,
    scale,
    sampler,
    ...(onStep ? { onStep } : {}),
  });
  const latents = await encodePictures(model.vae, pictures);
  const temporary = `${folder}.${process.pid}`;
  await makeFolder(temporary);
  for (const [i, picture] of pictures.entries())
    await writeFileAtomic(
      path.join(temporary, `${String(i).padStart(3, '0')} ${used[i]!.replace(/[^\w -]/g, '')}.png`),
      [await encodePng(picture)],
    );
  await writeLatents(path.join(temporary, 'latents.safetensors'), latents);
  await rm(folder, { recursive: true, force: true }); // one that was cut short by an earlier version of the file
  await rename(temporary, folder);
  return { examples: withLatents(latents), folder, drawn: true };
}

/** Identifies what a model draws: its weights, its scheduler and its tokenizer. */
export async function modelHash(model: StableDiffusion): Promise<string> {
  const hashes = await Promise.all((await weightFiles(model.folder)).map(hashFile));
  return [...hashes, JSON.stringify(model.schedule().config), encode(model, 'a').join()].join();
}

export interface DreamBoothOptions {
  readonly seed: number;
  readonly subjectBatch: number;
  readonly priorBatch: number;
  /** λ of the class term. */
  readonly priorWeight: number;
}

/** Draws batches of the subject's and the class's examples, and computes their loss in one forward pass. */
export class DreamBooth {
  readonly #model: StableDiffusion;
  readonly #schedule: NoiseSchedule;
  readonly #subject: readonly Example[];
  readonly #prior: readonly Example[];
  readonly #options: DreamBoothOptions;
  readonly #latentSize: readonly [number, number];
  readonly #order: { subject: DataOrder; prior: DataOrder };

  constructor(
    model: StableDiffusion,
    subject: readonly Example[],
    prior: readonly Example[],
    options: DreamBoothOptions,
  ) {
    this.#model = model;
    this.#schedule = model.schedule();
    this.#subject = subject;
    this.#prior = prior;
    this.#options = options;
    const side = Math.sqrt(subject[0]!.crops[0]!.mean.length / model.unet.config.in_channels);
    this.#latentSize = [side, side];
    this.#order = {
      subject: new DataOrder(subject.length, options.seed, 'subject'),
      prior: new DataOrder(Math.max(prior.length, 1), options.seed, 'prior'),
    };
  }

  /** The batch of a forward pass: the subject's samples first, then the class's. */
  batch(pass: number): Batch {
    const { seed, subjectBatch, priorBatch, priorWeight } = this.#options;
    const prior = this.#prior.length > 0 && priorWeight > 0 ? priorBatch : 0;
    const examples = [
      ...this.#order.subject.batch(pass, subjectBatch).map((i) => this.#subject[i]!),
      ...this.#order.prior.batch(pass, prior).map((i) => this.#prior[i]!),
    ];
    const weights = examples.map((_, i) => (i < subjectBatch ? 1 / subjectBatch : priorWeight / prior));
    return noiseBatch(examples, weights, this.#schedule, seed, pass);
  }

  /** Loss = subject + λ · class, and its two terms for the record: the class term without λ, and absent without class pictures. */
  loss(pass: number): { readonly loss: Tensor; readonly [term: string]: Tensor } {
    const batch = this.batch(pass);
    const { unet, textEncoder } = this.#model;
    const { device } = unet;
    const { subjectBatch, priorWeight } = this.#options;
    return scope(device, () => {
      const context = textEncoder.forward(batch.ids).lastHidden;
      const { loss, prediction, target } = diffusionLoss(unet, context, batch, this.#latentSize);
      const prior = batch.weights.length - subjectBatch;
      if (prior === 0) return { loss, subject: noGrad(device, () => affine(loss, 1)) };
      return noGrad(device, () => {
        const weights = batch.weights.map((_, i) => (i < subjectBatch ? 0 : 1 / prior));
        const classLoss = mse(prediction, target, { weights: tensor(device, weights) });
        return { loss, subject: sub(loss, affine(classLoss, priorWeight)), prior: classLoss };
      });
    });
  }
}
