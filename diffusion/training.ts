/** What all training of latent diffusion shares: pictures as latents, noised batches, the loss. */
import { HostRandom, noGrad, randomKey, release, scope, tensor } from '../engine/index.ts';
import type { Shape, Tensor } from '../engine/index.ts';
import { mse } from '../kernels/index.ts';
import type { Picture } from './pictures.ts';
import type { NoiseSchedule } from './schedule.ts';
import type { UNet } from './unet.ts';
import type { Vae } from './vae.ts';

/** A picture in latent space: the posterior's mean and standard deviation, both scaled as the UNet sees them. */
export interface Latents {
  readonly mean: Float32Array; // (4, h, w)
  readonly deviation: Float32Array;
}

/** A prompt and the latents of its picture: several where the picture is cropped in several ways. */
export interface Example {
  readonly ids: Int32Array;
  readonly crops: readonly Latents[];
}

/** Pictures that go through the encoder at once: its first activations are by far the largest. */
const ENCODED_AT_ONCE = 8;

/** Pictures of one size as a tensor (N, 3, H, W). */
export function stack({ device }: Vae, pictures: readonly Picture[]): Tensor {
  const { width, height } = pictures[0]!;
  const size = 3 * width * height;
  const data = new Float32Array(pictures.length * size);
  pictures.forEach((picture, i) => data.set(picture.data, i * size));
  return tensor(device, data, [pictures.length, 3, height, width]);
}

/** Encodes pictures of one size. */
export async function encodePictures(
  vae: Vae,
  pictures: readonly Picture[],
  onDone?: (done: number) => void,
): Promise<Latents[]> {
  const { device } = vae;
  const scale = vae.config.scaling_factor;
  const all: Latents[] = [];
  for (let from = 0; from < pictures.length; from += ENCODED_AT_ONCE) {
    const batch = pictures.slice(from, from + ENCODED_AT_ONCE);
    const encoded = noGrad(device, () => scope(device, () => vae.encode(stack(vae, batch))));
    const [means, logvars] = [await encoded.mean.read(), await encoded.logvar.read()];
    release(encoded.mean, encoded.logvar);
    const size = means.length / batch.length;
    batch.forEach((_, i) => {
      const part = (values: ArrayLike<number>) =>
        Array.prototype.slice.call(values, i * size, (i + 1) * size) as number[];
      all.push({
        mean: Float32Array.from(part(means), (value) => value * scale),
        deviation: Float32Array.from(part(logvars), (value) => Math.exp(value / 2) * scale),
      });
    });
    onDone?.(all.length);
  }
  return all;
}

/** What one step trains on. */
export interface Batch {
  readonly ids: readonly Int32Array[];
  readonly timesteps: readonly number[];
  readonly noisy: Float32Array; // (N, 4, h, w)
  /** What the UNet should give for it: the noise, or v. */
  readonly target: Float32Array;
  /** Of each sample's mean squared error in the loss. */
  readonly weights: Float32Array;
}

/**
 * Noises examples for pass `pass`: for each a crop, a latent drawn from its posterior, a timestep and noise, all from
 * counters of (seed, pass, sample). Drawn on the host: a few thousand values, the same on every adapter.
 */
export function noiseBatch(
  examples: readonly Example[],
  weights: readonly number[],
  schedule: NoiseSchedule,
  seed: number,
  pass: number,
): Batch {
  const size = examples[0]!.crops[0]!.mean.length;
  const noisy = new Float32Array(examples.length * size);
  const target = new Float32Array(examples.length * size);
  const key = randomKey(seed, 'training');
  const timesteps = examples.map(({ crops }, n) => {
    const random = new HostRandom(key, n, pass);
    const t = random.below(schedule.length);
    const { mean, deviation } = crops[random.below(crops.length)]!;
    const posterior = random.normal(size);
    const noise = random.normal(size);
    const a = schedule.noising(t);
    const b = schedule.target(t);
    for (let i = 0; i < size; i++) {
      const clean = mean[i]! + deviation[i]! * posterior[i]!;
      noisy[n * size + i] = a.signal * clean + a.noise * noise[i]!;
      target[n * size + i] = b.signal * clean + b.noise * noise[i]!;
    }
    return t;
  });
  return { ids: examples.map(({ ids }) => ids), timesteps, noisy, target, weights: Float32Array.from(weights) };
}

/** Σₙ wₙ · MSE of what the UNet predicts for the batch. `context` (N, L, D) is the text encoder's reading of its prompts. */
export function diffusionLoss(
  unet: UNet,
  context: Tensor,
  batch: Batch,
  [height, width]: readonly [number, number],
): { loss: Tensor; prediction: Tensor; target: Tensor } {
  const { device } = unet;
  const shape: Shape = [batch.timesteps.length, unet.config.in_channels, height, width];
  const prediction = unet.forward(tensor(device, batch.noisy, shape), batch.timesteps, context);
  const target = tensor(device, batch.target, shape);
  return { loss: mse(prediction, target, { weights: tensor(device, batch.weights) }), prediction, target };
}
