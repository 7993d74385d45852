/** From prompts to pictures: text → context, noise → latents by a sampler's steps, latents → pictures by the VAE. */
import { HostRandom, noGrad, randomKey, release, scope, tensor } from '../engine/index.ts';
import type { Tensor } from '../engine/index.ts';
import { add, affine, concat, guidedStep, slice } from '../kernels/index.ts';
import type { StableDiffusion } from './model.ts';
import type { Picture } from './pictures.ts';
import { initialScale, samplingSteps } from './samplers.ts';
import type { Step } from './samplers.ts';
import type { SamplerName } from './schedule.ts';
import type { UNet } from './unet.ts';

/** Pictures in one pass of the UNet where nothing else is asked for (two each with guidance). */
export const DRAWN_AT_ONCE = 8;
/** Pictures that go through the VAE at once: its activations are by far the largest of a model's. */
const DECODED_AT_ONCE = 4;

export interface GenerateOptions {
  /** One for each picture. */
  prompts: readonly string[];
  /** What to move away from: one for all, or one for each picture. Not read where `scale` is 1. */
  negative?: string | readonly string[];
  /** Follows what a prompt says beyond a plainer one, such as a learned subject, more strongly than the rest of it. */
  emphasis?: {
    /** One for each picture: its prompt without what is to be followed more strongly. */
    readonly plain: readonly string[];
    /** How much is added; 0 is none. Half as much again is to be computed. */
    readonly strength: number;
  };
  /** One for each picture. A seed means the same first noise on every adapter. */
  seeds: readonly number[];
  /** Steps of the sampler: evaluations of the UNet for each picture, one more for PNDM. */
  steps: number;
  /** Strength of guidance; 1 is none, and costs half. */
  scale: number;
  /** Another sampler than the folder's. */
  sampler?: SamplerName;
  /** DDIM's share of fresh noise, 0 to 1. */
  eta?: number;
  /** Height and width in pixels, multiples of the VAE's downscaling; what the UNet was trained at by default. */
  size?: readonly [number, number];
  /** Pictures in one pass of the UNet; `DRAWN_AT_ONCE` by default. */
  batch?: number;
  /** Called after each step with the steps done and to be done, over all pictures. */
  onStep?: (done: number, total: number) => void;
}

/** Draws pictures. Call it outside scopes: it awaits the device. */
export async function generate(model: StableDiffusion, options: GenerateOptions): Promise<Picture[]> {
  const {
    prompts,
    negative = '',
    emphasis,
    seeds,
    steps,
    scale,
    sampler,
    eta,
    batch = DRAWN_AT_ONCE,
    onStep,
  } = options;
  const negatives = typeof negative === 'string' ? prompts.map(() => negative) : negative;
  if (seeds.length !== prompts.length || negatives.length !== prompts.length)
    throw new Error(
      `[generate] each picture has a prompt, a seed and a negative prompt: got ${prompts.length}, ${seeds.length} and ${negatives.length}`,
    );
  if (emphasis && emphasis.plain.length !== prompts.length)
    throw new Error(
      `[generate] each picture has a prompt and, for emphasis, a plain one: got ${prompts.length} and ${emphasis.plain.length}`,
    );
  if (emphasis && !Number.isFinite(emphasis.strength))
    throw new Error(`[generate] the emphasis is ${emphasis.strength}, it must be a number`);
  if (!Number.isFinite(scale)) throw new Error(`[generate] scale is ${scale}, it must be a number`);
  if (!(Number.isInteger(batch) && batch >= 1))
    throw new Error(`[generate] batch is ${batch}, it must be an integer from 1 up`);
  const [height, width] = latentSize(model, options.size);
  const schedule = model.schedule(sampler);
  const plan = samplingSteps(schedule, eta === undefined ? { steps } : { steps, eta });
  // Tokenizes everything first: a prompt that is too long is said before any long work.
  const ids = prompts.map((prompt) => encode(model, prompt));
  const negativeIds = negatives.map((prompt) => encode(model, prompt));
  const plainIds = emphasis?.plain.map((prompt) => encode(model, prompt));
  const channels = model.unet.config.in_channels;
  const pictures: Picture[] = [];
  const batches = Math.ceil(prompts.length / batch);
  for (let b = 0; b < batches; b++) {
    const [from, to] = [b * batch, Math.min((b + 1) * batch, prompts.length)];
    const noise = (purpose: string, step: number, deviation = 1) =>
      hostNoise(model.unet, seeds.slice(from, to), purpose, step, [channels, height, width], deviation);
    const context = encodePrompts(model, ids.slice(from, to));
    const without = scale === 1 ? null : encodePrompts(model, negativeIds.slice(from, to));
    const start = noise('latents', 0, initialScale(schedule, plan));
    const plain = plainIds ? encodePrompts(model, plainIds.slice(from, to)) : null;
    const latents = await denoise(model.unet, start, context, without, plan, {
      scale,
      ...(plain ? { emphasis: { plain, strength: emphasis!.strength } } : {}),
      freshNoise: (i) => noise('sampler', i),
      onStep: (i) => onStep?.(b * plan.length + i + 1, batches * plan.length),
    }).finally(() => release(start, context, ...(without ? [without] : []), ...(plain ? [plain] : [])));
    try {
      pictures.push(...(await decodeLatents(model, latents)));
    } finally {
      release(latents);
    }
  }
  return pictures;
}

/** Steps that `generate` takes for so many pictures, over all batches: what `onStep` counts to. */
export const drawingSteps = (
  model: Pick<StableDiffusion, 'schedule'>,
  pictures: number,
  { steps, sampler }: Pick<GenerateOptions, 'steps' | 'sampler'>,
): number => samplingSteps(model.schedule(sampler), { steps }).length * Math.ceil(pictures / DRAWN_AT_ONCE);

/** Side of the latents that the UNet was trained on. Throws where its configuration does not say. */
export function latentSide({ unet }: Pick<StableDiffusion, 'unet'>): number {
  const side = unet.config.sample_size;
  if (side === null)
    throw new Error("[size] the UNet's config.json does not say at which size it was trained: give it a sample_size");
  return side;
}

/** Side in pixels of the pictures that the model was trained on. */
export const pictureSize = (model: Pick<StableDiffusion, 'unet' | 'vae'>): number =>
  latentSide(model) * model.vae.downscale;

/** Height and width of the latents of pictures of `size`. */
function latentSize(
  model: StableDiffusion,
  [height, width]: readonly [number, number] = [pictureSize(model), pictureSize(model)],
): [number, number] {
  const { vae } = model;
  for (const side of [height, width])
    if (!(Number.isInteger(side) && side >= vae.downscale && side % vae.downscale === 0))
      throw new Error(`[generate] the size ${height}×${width} must be in multiples of ${vae.downscale} pixels`);
  return [height / vae.downscale, width / vae.downscale];
}

/** A prompt's ids, padded to what the text encoder reads. */
export function encode({ tokenizer, textEncoder }: StableDiffusion, prompt: string): Int32Array {
  return tokenizer.encode(prompt, Math.min(tokenizer.maxLength, textEncoder.config.max_position_embeddings));
}

/** Texts' hidden states (N, L, D), which the UNet reads. The caller releases them. */
export function encodePrompts({ textEncoder }: StableDiffusion, ids: readonly Int32Array[]): Tensor {
  return noGrad(textEncoder.device, () => scope(textEncoder.device, () => textEncoder.forward(ids).lastHidden));
}

/** Normal noise, one stream a seed, drawn on the host so that a seed means the same picture everywhere. */
function hostNoise(
  { device }: UNet,
  seeds: readonly number[],
  purpose: string,
  step: number,
  shape: readonly number[],
  deviation: number,
): Tensor {
  const size = shape.reduce((product, extent) => product * extent, 1);
  const values = new Float32Array(seeds.length * size);
  seeds.forEach((seed, n) => values.set(new HostRandom(randomKey(seed, purpose), 0, step).normal(size), n * size));
  return tensor(
    device,
    values.map((value) => deviation * value),
    [seeds.length, ...shape],
  );
}

export interface DenoiseOptions {
  scale: number;
  /** The context (N, L, D) of plainer prompts, and how much is added of what the prompts say beyond them. */
  emphasis?: { readonly plain: Tensor; readonly strength: number };
  /** Fresh noise for step i, of the latents' shape; asked for where the step needs it, and released after it. */
  freshNoise?: (i: number) => Tensor;
  /** Called when the device has done step i, with its result, which lives until the next one. */
  onStep?: (i: number, latents: Tensor) => void | Promise<void>;
}

/**
 * Walks the sampler's steps from noise to latents (N, 4, H, W), which the caller releases. With guidance
 * (`scale` ≠ 1, Ho and Salimans 2022) one pass of the UNet predicts without and with the prompt; with emphasis for the plainer
 * prompt too: a second guidance, as Brooks et al. 2023 (equation 3) have one for each of two conditions.
 *
 * @param context (N, L, D) of the prompts
 * @param without the same of the negative prompts; not read without guidance
 */
export async function denoise(
  unet: UNet,
  start: Tensor,
  context: Tensor,
  without: Tensor | null,
  plan: readonly Step[],
  { scale, emphasis, freshNoise, onStep }: DenoiseOptions,
): Promise<Tensor> {
  const { device } = unet;
  const guided = scale !== 1;
  if (guided && !without) throw new Error('[denoise] guidance needs the context of a negative (or empty) prompt');
  const run = <T>(body: () => T): T => noGrad(device, () => scope(device, body));
  const contexts = [...(guided ? [without!] : []), context, ...(emphasis ? [emphasis.plain] : [])];
  const joined = (parts: readonly Tensor[]) => (parts.length === 1 ? parts[0]! : concat([...parts], 0));
  const texts = contexts.length === 1 ? context : run(() => joined(contexts)); // (1 to 3 times N, L, D)
  const remembered = Math.max(0, ...plan.map((step) => step.past.length));
  let latents = run(() => affine(start, 1)); // a copy: the loop releases what it replaces
  let before: Tensor | null = null; // the latents of the last step
  const outputs: Tensor[] = []; // of the UNet in the last steps, last first
  try {
    for (const [i, step] of plan.entries()) {
      const [next, output] = run(() => {
        const sample = joined(contexts.map(() => latents));
        const predicted = unet.forward(sample, Array<number>(sample.shape[0]!).fill(step.timestep), texts);
        const output = emphasis ? emphasised(predicted, latents.shape[0]!, emphasis.strength) : predicted;
        const noise = step.noise === 0 ? null : noiseFor(i, freshNoise);
        const history = before ? { sample: before, outputs } : undefined;
        return [guidedStep(latents, output, noise, { scale, step, history }), remembered > 0 ? output : null];
      });
      if (before) release(before);
      before = latents;
      latents = next;
      if (output) outputs.unshift(output);
      release(...outputs.splice(remembered));
      if (onStep) {
        await device.drain();
        await onStep(i, latents);
      }
    }
    return latents;
  } catch (error) {
    release(latents);
    throw error;
  } finally {
    release(...(before ? [before] : []), ...outputs, ...(contexts.length > 1 ? [texts] : []));
  }
}

/**
 * Predictions for the prompts moved on by `strength` times what they differ from those for the plainer ones: the last 2N of
 * `predicted` (2N or 3N, 4, H, W) become N, behind those without a prompt, if there are any.
 */
function emphasised(predicted: Tensor, n: number, strength: number): Tensor {
  const all = predicted.shape[0]!;
  const [prompts, plain] = [slice(predicted, 0, all - 2 * n, all - n), slice(predicted, 0, all - n, all)];
  const moved = add(affine(prompts, 1 + strength), affine(plain, -strength));
  return all === 2 * n ? moved : concat([slice(predicted, 0, 0, n), moved], 0);
}

function noiseFor(i: number, freshNoise?: (i: number) => Tensor): Tensor {
  if (!freshNoise) throw new Error('[denoise] this sampler adds noise in its steps: give freshNoise');
  return freshNoise(i);
}

/** Latents as the UNet makes them (N, 4, H, W) → pictures, clamped to [−1, 1]. */
export async function decodeLatents({ vae }: StableDiffusion, latents: Tensor): Promise<Picture[]> {
  const { device } = vae;
  const pictures: Picture[] = [];
  for (let from = 0; from < latents.shape[0]!; from += DECODED_AT_ONCE) {
    const to = Math.min(from + DECODED_AT_ONCE, latents.shape[0]!);
    const decoded = noGrad(device, () =>
      scope(device, () => vae.decode(affine(slice(latents, 0, from, to), 1 / vae.config.scaling_factor))),
    );
    const [n, channels, height, width] = decoded.shape as [number, number, number, number];
    const values = await decoded.read();
    release(decoded);
    const size = channels * height * width;
    for (let i = 0; i < n; i++) {
      const data = Float32Array.from(values.subarray(i * size, (i + 1) * size), (value) =>
        Math.min(1, Math.max(-1, value)),
      );
      pictures.push({ data, width, height });
    }
  }
  return pictures;
}
