import { mkdtemp, readdir, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HostRandom, noGrad, randomKey, release, scope } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { randomNormal } from '../../kernels/index.ts';
import { fromBytes } from '../../diffusion/pictures.ts';
import type { Picture } from '../../diffusion/pictures.ts';
import { cachedLatents, minSnrWeight, samplingWeight } from '../../diffusion/pretrain_unet.ts';
import { latentStatistics, reconstruct, vaeLoss } from '../../diffusion/pretrain_vae.ts';
import { stack } from '../../diffusion/training.ts';
import { NoiseSchedule, parseSchedulerConfig } from '../../diffusion/schedule.ts';
import { Vae } from '../../diffusion/vae.ts';
import { plainDevice } from '../device.ts';

const SIDE = 8;

let device: Device;
let vae: Vae;
let folder: string;
beforeAll(async () => {
  device = await plainDevice();
  vae = Vae.fromConfig(device, { block_out_channels: [8, 8], norm_num_groups: 4, scaling_factor: 0.5 });
  vae.initialize(1);
  folder = await mkdtemp(path.join(tmpdir(), 'pretraining-'));
});
afterAll(async () => {
  vae.release();
  await rm(folder, { recursive: true });
});

const picture = (n: number): Picture => {
  const random = new HostRandom(randomKey(n, 'picture'));
  return fromBytes(
    Uint8Array.from({ length: 3 * SIDE * SIDE }, () => random.below(256)),
    SIDE,
    SIDE,
  );
};
const PICTURES = Array.from({ length: 5 }, (_, n) => picture(n));

/** Mean of f over pictures, channels, and the pixels that have a neighbour `dy` below and `dx` beside them. */
function meanOver(
  dy: number,
  dx: number,
  f: (n: number, at: number, neighbour: number) => number,
  count: number,
): number {
  let [total, terms] = [0, 0];
  for (let n = 0; n < count; n++)
    for (let c = 0; c < 3; c++)
      for (let y = 0; y + dy < SIDE; y++)
        for (let x = 0; x + dx < SIDE; x++) {
          const at = (c * SIDE + y) * SIDE + x;
          total += f(n, at, at + dy * SIDE + dx);
          terms++;
        }
  return total / terms;
}

describe('training a VAE', () => {
  it('has the loss that its terms say, in float64 on the host', async () => {
    const weights = { squares: 0.5, edges: 0.1, kl: 0.01 };
    const pictures = PICTURES.slice(0, 2);
    const got = noGrad(device, () =>
      scope(device, () => {
        const batch = stack(vae, pictures);
        const posterior = vae.encode(batch);
        const noise = randomNormal(device, posterior.mean.shape, randomKey(7, 'posterior'), { step: 3 });
        return { posterior, decoded: vae.decode(vae.sample(posterior, noise)), ...vaeLoss(vae, batch, weights, 7, 3) };
      }),
    );
    const { posterior, decoded, ...terms } = got;
    const values = await decoded.read();
    const error = (n: number, at: number) => values[n * 3 * SIDE * SIDE + at]! - pictures[n]!.data[at]!;
    const edge = (dy: number, dx: number) =>
      meanOver(dy, dx, (n, at, neighbour) => Math.abs(error(n, neighbour) - error(n, at)), 2);
    const [means, logvars] = [await posterior.mean.read(), await posterior.logvar.read()];
    let kl = 0;
    means.forEach((mu, i) => (kl += (mu ** 2 + Math.exp(logvars[i]!) - 1 - logvars[i]!) / 2 / 2));
    const expected = {
      l1: meanOver(0, 0, (n, at) => Math.abs(error(n, at)), 2),
      squares: meanOver(0, 0, (n, at) => error(n, at) ** 2, 2),
      edges: edge(1, 0) + edge(0, 1),
      kl,
    };
    // Sums of a few hundred terms in f32: within 1e-5 of their size.
    for (const [name, value] of Object.entries(expected))
      expect(await terms[name as keyof typeof expected].item(), name).toBeCloseTo(value, 4);
    const { l1, squares, edges } = expected;
    expect(await terms.loss.item()).toBeCloseTo(l1 + 0.5 * squares + 0.1 * edges + 0.01 * kl, 4);
    release(posterior.mean, posterior.logvar, decoded, ...Object.values(terms));
  });

  it('finds the scale that gives latents the variance 1, whatever scale the VAE had', async () => {
    const { scalingFactor, mean, deviation, posterior } = await latentStatistics(vae, PICTURES);
    const encoded = noGrad(device, () => vae.encode(stack(vae, PICTURES)));
    const [means, logvars] = [await encoded.mean.read(), await encoded.logvar.read()];
    const average = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    const center = average([...means]);
    const noise = average(Array.from(logvars, Math.exp));
    const spread = average(Array.from(means, (value) => (value - center) ** 2));
    expect(scalingFactor).toBeCloseTo(1 / Math.sqrt(spread + noise), 4);
    expect(posterior).toBeCloseTo(Math.sqrt(noise), 4);
    const first = Array.from(means).filter((_, i) => Math.floor(i / 16) % 4 === 0); // channel 0: 16 of every 64 values
    expect(mean[0]).toBeCloseTo(average(first), 4);
    expect(deviation[0]).toBeCloseTo(Math.sqrt(average(first.map((value) => (value - average(first)) ** 2))), 4);
    release(encoded.mean, encoded.logvar);
  });

  it('reconstructs any number of pictures within [−1, 1]', async () => {
    const all = await reconstruct(vae, PICTURES, 2);
    expect(all.length).toBe(5);
    const alone = await reconstruct(vae, PICTURES.slice(4), 2);
    expect(all[4]!.data).toEqual(alone[0]!.data);
    expect(all.every(({ data }) => data.every((value) => value >= -1 && value <= 1))).toBe(true);
  });
});

describe('training a UNet', () => {
  it('weighs samples by their signal-to-noise ratio up to γ', () => {
    const schedule = (prediction_type: string) =>
      new NoiseSchedule(
        parseSchedulerConfig(JSON.stringify({ _class_name: 'DDIMScheduler', prediction_type }), 'scheduler'),
      );
    const epsilon = schedule('epsilon');
    for (const t of [0, 200, 500, 999]) {
      const alphaBar = epsilon.alphasCumprod[t]!;
      const snr = alphaBar / (1 - alphaBar);
      expect(minSnrWeight(epsilon, t, 5)).toBeCloseTo(Math.min(snr, 5) / snr, 10);
      expect(minSnrWeight(schedule('v_prediction'), t, 5)).toBeCloseTo(Math.min(snr, 5) / (snr + 1), 10);
      expect(minSnrWeight(epsilon, t, 0)).toBe(1);
    }
  });

  it('multiplies the factors of a set and of the words of a caption', () => {
    const weights = { sets: { plain: 0.5 }, words: { cat: 3, face: 2 } };
    expect(samplingWeight(weights, 'plain', 'cat face')).toBe(3);
    expect(samplingWeight(weights, 'other', 'cat')).toBe(3);
    expect(samplingWeight(weights, 'other', 'catapult')).toBe(1);
  });

  it('keeps latents, and encodes again what is missing, damaged, or of other pictures', async () => {
    let drawn = 0;
    const pictures = PICTURES.map((one) => ({
      picture: () => {
        drawn++;
        return one;
      },
    }));
    const get = (key: string) => cachedLatents(vae, pictures, { folder, key });
    const first = await get('a');
    expect([first.length, drawn]).toEqual([5, 5]);
    expect(first[0]!.mean.length).toBe(4 * 4 * 4);
    expect(await get('a')).toEqual(first);
    expect(drawn).toBe(5);
    await get('b');
    expect(drawn).toBe(10);
    for (const place of await readdir(folder)) await truncate(path.join(folder, place, '000000.safetensors'), 100);
    expect(await get('a')).toEqual(first);
    expect(drawn).toBe(15);
  });
});
