import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { backward, clearGradient, HostRandom, noGrad, randomKey, release, scope, tensor } from '../../engine/index.ts';
import type { Device, Shape, Tensor } from '../../engine/index.ts';
import { mse } from '../../kernels/index.ts';
import { timestepEmbedding, UNet } from '../../diffusion/unet.ts';
import { loadUNet } from '../../diffusion/folder.ts';
import { plainDevice } from '../device.ts';
import { openNodeDryDevice } from '../../engine/node.ts';
import { heldBytes } from './helpers.ts';

const goldens = new URL('../goldens/', import.meta.url).pathname;
const config = async (name: string): Promise<Record<string, unknown>> =>
  JSON.parse(await readFile(`${goldens}${name}/config.json`, 'utf8')) as Record<string, unknown>;

let device: Device;
beforeAll(async () => {
  device = await plainDevice();
});

const normal = (shape: Shape, purpose: string): Tensor =>
  tensor(device, new HostRandom(randomKey(0, purpose)).normal(shape.reduce((a, b) => a * b, 1)), shape);

describe('UNet', () => {
  it('has the parameters of Stable Diffusion 1', async () => {
    // What diffusers 0.6 wrote for it: everything else is a default.
    const unet = UNet.fromConfig(await openNodeDryDevice(), {
      _class_name: 'UNet2DConditionModel',
      _diffusers_version: '0.6.0',
      act_fn: 'silu',
      attention_head_dim: 8,
      block_out_channels: [320, 640, 1280, 1280],
      center_input_sample: false,
      cross_attention_dim: 768,
      down_block_types: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
      downsample_padding: 1,
      flip_sin_to_cos: true,
      freq_shift: 0,
      in_channels: 4,
      layers_per_block: 2,
      mid_block_scale_factor: 1,
      norm_eps: 1e-5,
      norm_num_groups: 32,
      out_channels: 4,
      sample_size: 64,
      up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
    });
    const parameters = unet.namedParameters();
    expect(parameters.size).toBe(686);
    expect([...parameters.values()].reduce((sum, { size }) => sum + size, 0)).toBe(859_520_964);
    expect(parameters.get('up_blocks.1.resnets.2.conv1.weight')!.shape).toEqual([1280, 1920, 3, 3]);
  });

  it('takes pictures of odd sizes, and gives every parameter a gradient', async () => {
    const unet = await loadUNet(device, `${goldens}unet`);
    const [sample, context, target] = [
      normal([1, 4, 7, 5], 'x'),
      normal([1, 3, 32], 'text'),
      normal([1, 4, 7, 5], 'y'),
    ];
    const loss = scope(device, () => {
      const output = unet.forward(sample, [500], context);
      expect(output.shape).toEqual([1, 4, 7, 5]);
      const loss = mse(output, target);
      backward(loss);
      return loss;
    });
    expect(await loss.item()).toBeGreaterThan(0);
    for (const [name, parameter] of unet.namedParameters()) {
      expect(parameter.grad, name).not.toBeNull();
      expect((await parameter.grad!.read()).every(Number.isFinite), name).toBe(true);
      clearGradient(parameter);
    }
    release(sample, context, target, loss);
    unet.release();
  });

  it('gives a sample the same bits alone and in a batch', async () => {
    const unet = await loadUNet(device, `${goldens}unet`);
    const [sample, context] = [normal([3, 4, 16, 16], 'x'), normal([3, 13, 32], 'text')];
    const run = async (x: Tensor, t: number[], text: Tensor) => {
      const output = noGrad(device, () => unet.forward(x, t, text));
      const values = await output.read();
      release(output);
      return values;
    };
    const together = await run(sample, [900, 500, 7], context);
    const part = async (t: Tensor, n: number) => {
      const values = await t.read();
      const size = t.size / 3;
      return tensor(device, values.slice(n * size, (n + 1) * size), [1, ...t.shape.slice(1)]);
    };
    const [x, text] = [await part(sample, 1), await part(context, 1)];
    const alone = await run(x, [500], text);
    expect(alone).toEqual(together.slice(alone.length, 2 * alone.length));
    release(sample, context, x, text);
    unet.release();
  });

  it('holds nothing but its result where nothing is recorded', async () => {
    const unet = await loadUNet(device, `${goldens}unet`);
    const [sample, context] = [normal([1, 4, 16, 16], 'x'), normal([1, 13, 32], 'text')];
    const before = heldBytes(device);
    const output = noGrad(device, () => unet.forward(sample, [1], context));
    expect(heldBytes(device) - before).toBe(output.storage.block.bytes);
    // Frozen, it records nothing either.
    unet.setTrainable(false);
    const frozen = unet.forward(sample, [1], context);
    expect(frozen.tracked).toBe(false);
    release(output, frozen);
    expect(heldBytes(device)).toBe(before);
    release(sample, context);
    unet.release();
  });

  it('refuses inputs that do not fit it', async () => {
    const unet = await loadUNet(device, `${goldens}unet`);
    const [x, wide, text] = [normal([1, 4, 8, 8], 'x'), normal([1, 3, 8, 8], 'x'), normal([1, 3, 32], 'text')];
    expect(() => unet.forward(wide, [1], text)).toThrow('[unet] the sample must be (N, 4, H, W), it is (1, 3, 8, 8)');
    expect(() => unet.forward(x, [1, 2], text)).toThrow('[unet] 1 samples need 1 timesteps, not 2');
    expect(() => unet.forward(x, [1], wide)).toThrow('[unet] the context must be (1, L, 32), it is (1, 3, 8, 8)');
    release(x, wide, text);
    unet.release();
  });

  it('refuses configurations of other architectures, by name', async () => {
    const json = await config('unet');
    const make = (changes: Record<string, unknown>) => () =>
      UNet.fromConfig(device, { ...json, ...changes }, 'unet.json');
    expect(make({ _class_name: 'UNet2DModel' })).toThrow('[config] unet.json: _class_name: ');
    expect(make({ addition_embed_type: 'text_time' })).toThrow(
      '[config] unet.json: addition_embed_type is "text_time"; supported is null only',
    );
    expect(make({ class_embed_type: 'timestep' })).toThrow('class_embed_type is "timestep"');
    expect(make({ resnet_time_scale_shift: 'scale_shift' })).toThrow('supported is "default" only');
    expect(make({ dropout: 0.1 })).toThrow('dropout is 0.1; supported is 0 only');
    expect(make({ mid_block_type: null })).toThrow(
      'mid_block_type is null; supported is "UNetMidBlock2DCrossAttn" only',
    );
    expect(make({ down_block_types: ['AttnDownBlock2D', 'DownBlock2D'] })).toThrow('down_block_types.0: ');
    expect(make({ block_out_channel: [8] })).toThrow('option "block_out_channel" is not known; known are _class_name,');
    expect(make({ block_out_channels: 'wide' })).toThrow('block_out_channels: ');
    expect(make({ block_out_channels: [16, 32, 64] })).toThrow(
      'down_block_types has 2 entries, block_out_channels has 3',
    );
    expect(make({ attention_head_dim: [4, 4, 4] })).toThrow('attention_head_dim has 3 entries');
    expect(make({ attention_head_dim: 5 })).toThrow('16 channels cannot be divided among 5 attention heads');
    expect(make({ norm_num_groups: 5 })).toThrow('16 channels cannot be divided into norm_num_groups 5');
    expect(() => UNet.fromConfig(device, [], 'unet.json')).toThrow('unet.json: it must be a JSON object');
  });
});

describe('timestep embedding', () => {
  it('has cosines, then sines, of falling frequencies', () => {
    const [row] = [timestepEmbedding([10], 4)];
    const expected = [Math.cos(10), Math.cos(0.1), Math.sin(10), Math.sin(0.1)];
    expected.forEach((value, i) => expect(row[i]).toBeCloseTo(value, 6));
    const flipped = timestepEmbedding([10], 4, { flip_sin_to_cos: false });
    expect([...flipped]).toEqual([row[2], row[3], row[0], row[1]]);
    // With a shift of 1 the lowest frequency is 1/10,000 exactly; an odd width ends in 0.
    expect(timestepEmbedding([10000], 5, { freq_shift: 1 })[1]).toBeCloseTo(Math.cos(1), 5);
    expect(timestepEmbedding([10000], 5)[4]).toBe(0);
  });
});
