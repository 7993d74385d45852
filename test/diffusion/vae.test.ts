import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { HostRandom, noGrad, randomKey, release, scope, tensor } from '../../engine/index.ts';
import type { Device, Shape, Tensor } from '../../engine/index.ts';
import { attention } from '../../kernels/index.ts';
import { loadVae } from '../../diffusion/folder.ts';
import { composedAttention, Vae } from '../../diffusion/vae.ts';
import { plainDevice } from '../device.ts';
import { openNodeDryDevice } from '../../engine/node.ts';
import { heldBytes } from './helpers.ts';

const folder = new URL('../goldens/vae', import.meta.url).pathname;

let device: Device;
beforeAll(async () => {
  device = await plainDevice();
});

const normal = (shape: Shape, purpose: string): Tensor =>
  tensor(device, new HostRandom(randomKey(0, purpose)).normal(shape.reduce((a, b) => a * b, 1)), shape);

describe('VAE', () => {
  it('has the parameters of Stable Diffusion 1', async () => {
    const vae = Vae.fromConfig(await openNodeDryDevice(), {
      _class_name: 'AutoencoderKL',
      _diffusers_version: '0.6.0',
      act_fn: 'silu',
      block_out_channels: [128, 256, 512, 512],
      down_block_types: Array(4).fill('DownEncoderBlock2D'),
      in_channels: 3,
      latent_channels: 4,
      layers_per_block: 2,
      norm_num_groups: 32,
      out_channels: 3,
      sample_size: 512,
      up_block_types: Array(4).fill('UpDecoderBlock2D'),
    });
    const parameters = vae.namedParameters();
    expect(parameters.size).toBe(248);
    expect([...parameters.values()].reduce((sum, { size }) => sum + size, 0)).toBe(83_653_863);
    expect(vae.downscale).toBe(8);
    expect(vae.config.scaling_factor).toBe(0.18215); // where the configuration is older than the option
  });

  it('encodes and decodes, and holds nothing but its results', async () => {
    const vae = await loadVae(device, folder);
    const picture = normal([2, 3, 12, 20], 'picture');
    const before = heldBytes(device);
    const { mean, logvar } = noGrad(device, () => vae.encode(picture));
    expect([mean.shape, logvar.shape]).toEqual([
      [2, 4, 6, 10],
      [2, 4, 6, 10],
    ]);
    const decoded = noGrad(device, () => vae.decode(mean));
    expect(decoded.shape).toEqual([2, 3, 12, 20]);
    expect((await decoded.read()).every(Number.isFinite)).toBe(true);
    release(mean, logvar, decoded);
    expect(heldBytes(device)).toBe(before);
    release(picture);
    vae.release();
  });

  it('clamps the log-variance', async () => {
    const vae = await loadVae(device, folder);
    const picture = tensor(device, new Float32Array(3 * 64).fill(1e6), [1, 3, 8, 8]);
    const { mean, logvar } = noGrad(device, () => vae.encode(picture));
    for (const value of await logvar.read()) expect(Math.abs(value + 5)).toBeLessThanOrEqual(25); // −30 … 20
    release(picture, mean, logvar);
    vae.release();
  });

  it('attends with heads wider than the fused kernel', async () => {
    // Both forms on a width that both take; f32 sums of 40 and 33 products in another order.
    const [q, k, v] = ['q', 'k', 'v'].map((name) => normal([2, 1, 33, 40], name)) as [Tensor, Tensor, Tensor];
    const [fused, composed] = [
      scope(device, () => attention(q, k, v)),
      scope(device, () => composedAttention(q, k, v)),
    ];
    const expected = await fused.read();
    (await composed.read()).forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(2e-6));
    release(q, k, v, fused, composed);
    // And in a model: one head of 264.
    const vae = Vae.fromConfig(device, { block_out_channels: [264], norm_num_groups: 8 });
    vae.initialize(0);
    const latents = normal([1, 4, 3, 3], 'latents');
    const decoded = noGrad(device, () => vae.decode(latents));
    expect((await decoded.read()).every(Number.isFinite)).toBe(true);
    release(latents, decoded);
    vae.release();
  });

  it('refuses inputs and configurations that do not fit it', async () => {
    const vae = await loadVae(device, folder);
    const grey = normal([1, 1, 8, 8], 'grey');
    expect(() => vae.encode(grey)).toThrow('[vae] a picture must be (N, 3, H, W), it is (1, 1, 8, 8)');
    expect(() => vae.decode(grey)).toThrow('[vae] latents must be (N, 4, H, W), they are (1, 1, 8, 8)');
    release(grey);
    vae.release();
    const json = JSON.parse(await readFile(`${folder}/config.json`, 'utf8')) as Record<string, unknown>;
    const make = (changes: Record<string, unknown>) => () =>
      Vae.fromConfig(device, { ...json, ...changes }, 'vae.json');
    expect(make({ _class_name: 'AutoencoderTiny' })).toThrow('[config] vae.json: _class_name: ');
    expect(make({ shift_factor: 0.1 })).toThrow('shift_factor is 0.1; supported is null or 0 only');
    expect(make({ mid_block_add_attention: false })).toThrow('mid_block_add_attention is false');
    expect(make({ down_block_types: ['AttnDownEncoderBlock2D', 'DownEncoderBlock2D'] })).toThrow(
      'supported is DownEncoderBlock2D for each of the 2 levels',
    );
    expect(make({ norm_num_groups: 5 })).toThrow('16 channels cannot be divided into norm_num_groups 5');
    expect(make({ scaling: 1 })).toThrow('option "scaling" is not known');
  });
});
