/** Training the autoencoder (Kingma and Welling 2014; Rombach et al. 2022, without the adversarial part). */
import { noGrad, randomKey, scope, sizeOf } from '../engine/index.ts';
import type { Tensor } from '../engine/index.ts';
import { add, affine, exp, mean, mse, randomNormal, slice, sqrt, square, sub, sum } from '../kernels/index.ts';
import { splitPictures } from './pictures.ts';
import type { Picture } from './pictures.ts';
import { encodePictures, stack } from './training.ts';
import type { Vae } from './vae.ts';

/** Weights of the loss's terms; that of the absolute differences is 1. */
export interface VaeWeights {
  readonly squares: number;
  readonly edges: number;
  readonly kl: number;
}

/** |x| but for 1e-6, with a gradient of 0 at 0. */
const abs = (x: Tensor): Tensor => sqrt(affine(square(x), 1, 1e-12));

/** Mean of |difference of neighbours| along an axis. */
function edgesAlong(x: Tensor, axis: number): Tensor {
  const extent = x.shape[axis]!;
  return mean(abs(sub(slice(x, axis, 1, extent), slice(x, axis, 0, extent - 1))));
}

/**
 * loss = l1 + squares + edges + kl, weighted. With the error e = decoded − picture: l1 = mean |e|, squares = mean e²,
 * edges = mean |∂e/∂x| + mean |∂e/∂y|, which keeps lines sharp, and kl the divergence of the latents' distribution from the
 * standard normal one, summed over a picture's latents, mean over the batch.
 *
 * @param pictures (N, 3, H, W) in [−1, 1]
 * @param pass counts forward passes: the latents are drawn by (seed, pass)
 */
export function vaeLoss(
  vae: Vae,
  pictures: Tensor,
  weights: VaeWeights,
  seed: number,
  pass: number,
): { loss: Tensor; l1: Tensor; squares: Tensor; edges: Tensor; kl: Tensor } {
  return scope(vae.device, () => {
    const posterior = vae.encode(pictures);
    const key = randomKey(seed, 'posterior');
    const noise = randomNormal(vae.device, posterior.mean.shape, key, { step: pass });
    const decoded = vae.decode(vae.sample(posterior, noise));
    const error = sub(decoded, pictures);
    const l1 = mean(abs(error));
    const squares = mse(decoded, pictures);
    const edges = add(edgesAlong(error, 3), edgesAlong(error, 2));
    const kl = divergence(posterior);
    const loss = [affine(squares, weights.squares), affine(edges, weights.edges), affine(kl, weights.kl)].reduce(
      add,
      l1,
    );
    return { loss, l1, squares, edges, kl };
  });
}

/** KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² − 1 − ln σ²), mean over the samples. */
function divergence({ mean: mu, logvar }: { mean: Tensor; logvar: Tensor }): Tensor {
  const samples = mu.shape[0]!;
  const terms = add(square(mu), sub(exp(logvar), logvar));
  return affine(sum(terms), 0.5 / samples, -0.5 * sizeOf(mu.shape.slice(1)));
}

/** Pictures through encoder and decoder, without noise, clamped to [−1, 1]. */
export async function reconstruct(vae: Vae, pictures: readonly Picture[], atOnce = 8): Promise<Picture[]> {
  const { device } = vae;
  const all: Picture[] = [];
  for (let from = 0; from < pictures.length; from += atOnce) {
    const decoded = noGrad(device, () =>
      scope(device, () => vae.decode(vae.encode(stack(vae, pictures.slice(from, from + atOnce))).mean)),
    );
    const values = ((await decoded.read()) as Float32Array).map((value) => Math.min(1, Math.max(-1, value)));
    decoded.storage.drop();
    all.push(...splitPictures(values, decoded.shape));
  }
  return all;
}

export interface LatentStatistics {
  /** By channel, over pictures and positions, of the posterior's means. */
  readonly mean: readonly number[];
  readonly deviation: readonly number[];
  /** Root mean square of the posterior's deviations: how much of a latent is noise. */
  readonly posterior: number;
  /** 1 / the deviation of all of a latent's values together: latents times this have variance 1, as diffusion takes for granted. */
  readonly scalingFactor: number;
}

/** Where a VAE puts pictures, in latents that are not scaled. */
export async function latentStatistics(vae: Vae, pictures: readonly Picture[]): Promise<LatentStatistics> {
  const { latent_channels: channels, scaling_factor: scale } = vae.config;
  const latents = await encodePictures(vae, pictures);
  const area = latents[0]!.mean.length / channels;
  const count = latents.length * area;
  const sums = Array.from({ length: channels }, () => ({ values: 0, squares: 0 }));
  let noise = 0;
  for (const { mean: mu, deviation } of latents)
    for (let i = 0; i < mu.length; i++) {
      const [value, own] = [mu[i]! / scale, deviation[i]! / scale];
      const sum = sums[Math.floor(i / area)]!;
      sum.values += value;
      sum.squares += value * value;
      noise += own * own;
    }
  noise /= count * channels;
  const total = (of: (sum: { values: number; squares: number }) => number) =>
    sums.reduce((all, sum) => all + of(sum), 0) / (count * channels);
  const variance = total(({ squares }) => squares) - total(({ values }) => values) ** 2 + noise;
  return {
    mean: sums.map(({ values }) => values / count),
    deviation: sums.map(({ values, squares }) => Math.sqrt(squares / count - (values / count) ** 2)),
    posterior: Math.sqrt(noise),
    scalingFactor: 1 / Math.sqrt(variance),
  };
}
