/**
 * The autoencoder that gives Stable Diffusion its latent space (Rombach et al. 2022; the variational part: Kingma and
 * Welling 2014). Fields carry the names of diffusers' weight files.
 */
import { z } from 'zod';
import { reshape, scope } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { add, affine, attention, clamp, exp, matmul, mul, slice, softmax } from '../kernels/index.ts';
import { Conv2d, GroupNorm, like, Linear } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { Downsample, ResnetBlock, Upsample } from './blocks.ts';
import { channelCount, layerCount, parseConfig } from '../nn/config.ts';

const USED = {
  _class_name: z.literal('AutoencoderKL').default('AutoencoderKL'),
  in_channels: channelCount.default(3),
  out_channels: channelCount.default(3),
  latent_channels: channelCount.default(4),
  block_out_channels: z.array(channelCount).min(1).max(16).default([64]),
  layers_per_block: layerCount.default(1),
  norm_num_groups: channelCount.default(32),
  scaling_factor: z.number().gt(0).default(0.18215),
  use_quant_conv: z.boolean().default(true),
  use_post_quant_conv: z.boolean().default(true),
};

const RULES = {
  used: USED,
  neutral: {
    act_fn: ['silu', 'swish'],
    latents_mean: [null],
    latents_std: [null],
    mid_block_add_attention: [true],
    shift_factor: [null, 0],
  },
  // The size trained at; precision, which is f32 here in any case. The block types are checked below.
  ignored: ['sample_size', 'force_upcast', 'down_block_types', 'up_block_types'],
} as const;

export type VaeConfig = z.infer<z.ZodObject<typeof USED>>;

const EPS = 1e-6;

/** The widest head that the fused attention takes. */
const WIDEST_FUSED = 256;

/**
 * Attention of plain operations, with the matrix of all scores in memory: (N, H, T, T). For heads wider than the fused
 * kernel's (the VAE of Stable Diffusion has one head of 512, and attends once, at its lowest resolution).
 */
export function composedAttention(q: Tensor, k: Tensor, v: Tensor): Tensor {
  const scaled = affine(q, 1 / Math.sqrt(q.shape.at(-1)!));
  return matmul(softmax(matmul(scaled, k, { transposeB: true })), v);
}

/** Attention of one head over all pixels, added to what came in. */
class PixelAttention extends Module {
  group_norm: GroupNorm;
  to_q: Linear;
  to_k: Linear;
  to_v: Linear;
  to_out: [Linear];

  constructor(device: Device, channels: number, groups: number) {
    super(device);
    this.group_norm = new GroupNorm(device, groups, channels, EPS);
    this.to_q = new Linear(device, channels, channels);
    this.to_k = new Linear(device, channels, channels);
    this.to_v = new Linear(device, channels, channels);
    this.to_out = [new Linear(device, channels, channels)];
  }

  /** x (N, C, H, W) → (N, C, H, W) */
  forward(x: Tensor): Tensor {
    return scope(this.device, () => {
      const [n, c, h, w] = x.shape as [number, number, number, number];
      const pixels = reshape(this.group_norm.forward(x), [n, c, h * w]);
      // Read transposed, (N, C, T) are tokens.
      const project = ({ weight, bias }: Linear) =>
        reshape(add(matmul(pixels, like(weight, x), { transposeA: true, transposeB: true }), like(bias!, x)), [
          n,
          1,
          h * w,
          c,
        ]);
      const [q, k, v] = [project(this.to_q), project(this.to_k), project(this.to_v)];
      const y = c <= WIDEST_FUSED ? attention(q, k, v) : composedAttention(q, k, v); // (N, 1, T, C)
      const { weight, bias } = this.to_out[0];
      const out = matmul(like(weight, x), reshape(y, [n, h * w, c]), { transposeB: true }); // (N, C, T)
      return add(reshape(add(out, reshape(like(bias!, x), [c, 1])), x.shape), x);
    });
  }
}

class MidBlock extends Module {
  attentions: [PixelAttention];
  resnets: [ResnetBlock, ResnetBlock];

  constructor(device: Device, channels: number, groups: number) {
    super(device);
    this.attentions = [new PixelAttention(device, channels, groups)];
    const resnet = () => new ResnetBlock(device, channels, channels, { groups, eps: EPS });
    this.resnets = [resnet(), resnet()];
  }

  forward(x: Tensor): Tensor {
    return this.resnets[1].forward(this.attentions[0].forward(this.resnets[0].forward(x)));
  }
}

/** A level of the encoder or the decoder: residual blocks, then a change of size. */
class Block extends Module {
  resnets: ResnetBlock[];

  constructor(device: Device, inputs: number, outputs: number, layers: number, groups: number) {
    super(device);
    this.resnets = Array.from(
      { length: layers },
      (_, i) => new ResnetBlock(device, i === 0 ? inputs : outputs, outputs, { groups, eps: EPS }),
    );
  }

  protected residual(x: Tensor): Tensor {
    for (const resnet of this.resnets) x = resnet.forward(x);
    return x;
  }
}

class DownBlock extends Block {
  downsamplers: Downsample[];

  constructor(device: Device, inputs: number, outputs: number, config: VaeConfig, last: boolean) {
    super(device, inputs, outputs, config.layers_per_block, config.norm_num_groups);
    this.downsamplers = last ? [] : [new Downsample(device, outputs, 'after')];
  }

  forward(x: Tensor): Tensor {
    return scope(this.device, () => {
      x = this.residual(x);
      for (const downsample of this.downsamplers) x = downsample.forward(x);
      return x;
    });
  }
}

class UpBlock extends Block {
  upsamplers: Upsample[];

  constructor(device: Device, inputs: number, outputs: number, config: VaeConfig, last: boolean) {
    super(device, inputs, outputs, config.layers_per_block + 1, config.norm_num_groups);
    this.upsamplers = last ? [] : [new Upsample(device, outputs)];
  }

  forward(x: Tensor): Tensor {
    return scope(this.device, () => {
      x = this.residual(x);
      for (const upsample of this.upsamplers) x = upsample.forward(x);
      return x;
    });
  }
}

class Encoder extends Module {
  conv_in: Conv2d;
  down_blocks: DownBlock[];
  mid_block: MidBlock;
  conv_norm_out: GroupNorm;
  conv_out: Conv2d;

  constructor(device: Device, config: VaeConfig) {
    super(device);
    const { block_out_channels: channels, norm_num_groups: groups } = config;
    const [first, deepest] = [channels[0]!, channels.at(-1)!];
    this.conv_in = new Conv2d(device, config.in_channels, first, 3, { padding: 1 });
    this.down_blocks = channels.map(
      (outputs, i) => new DownBlock(device, channels[i - 1] ?? first, outputs, config, i === channels.length - 1),
    );
    this.mid_block = new MidBlock(device, deepest, groups);
    this.conv_norm_out = new GroupNorm(device, groups, deepest, EPS);
    this.conv_out = new Conv2d(device, deepest, 2 * config.latent_channels, 3, { padding: 1 });
  }

  /** (N, 3, H, W) → (N, 2 · latent channels, H', W'): mean and log-variance */
  forward(x: Tensor): Tensor {
    x = this.conv_in.forward(x);
    for (const block of this.down_blocks) x = block.forward(x);
    x = this.mid_block.forward(x);
    return this.conv_out.forward(this.conv_norm_out.forward(x, { silu: true }));
  }
}

class Decoder extends Module {
  conv_in: Conv2d;
  up_blocks: UpBlock[];
  mid_block: MidBlock;
  conv_norm_out: GroupNorm;
  conv_out: Conv2d;

  constructor(device: Device, config: VaeConfig) {
    super(device);
    const { norm_num_groups: groups } = config;
    const channels = [...config.block_out_channels].reverse();
    const [deepest, last] = [channels[0]!, channels.at(-1)!];
    this.conv_in = new Conv2d(device, config.latent_channels, deepest, 3, { padding: 1 });
    this.up_blocks = channels.map(
      (outputs, i) => new UpBlock(device, channels[i - 1] ?? deepest, outputs, config, i === channels.length - 1),
    );
    this.mid_block = new MidBlock(device, deepest, groups);
    this.conv_norm_out = new GroupNorm(device, groups, last, EPS);
    this.conv_out = new Conv2d(device, last, config.out_channels, 3, { padding: 1 });
  }

  forward(z: Tensor): Tensor {
    let x = this.mid_block.forward(this.conv_in.forward(z));
    for (const block of this.up_blocks) x = block.forward(x);
    return this.conv_out.forward(this.conv_norm_out.forward(x, { silu: true }));
  }
}

export class Vae extends Module {
  encoder: Encoder;
  decoder: Decoder;
  quant_conv: Conv2d | null;
  post_quant_conv: Conv2d | null;
  readonly config: VaeConfig;

  constructor(device: Device, config: VaeConfig) {
    super(device);
    this.config = config;
    const latent = config.latent_channels;
    this.encoder = new Encoder(device, config);
    this.decoder = new Decoder(device, config);
    this.quant_conv = config.use_quant_conv ? new Conv2d(device, 2 * latent, 2 * latent, 1) : null;
    this.post_quant_conv = config.use_post_quant_conv ? new Conv2d(device, latent, latent, 1) : null;
  }

  /** From a parsed `config.json` of diffusers; `name` stands in errors. */
  static fromConfig(device: Device, json: unknown, name = 'AutoencoderKL'): Vae {
    const config = parseConfig(json, name, RULES);
    for (const [key, type] of [
      ['down_block_types', 'DownEncoderBlock2D'],
      ['up_block_types', 'UpDecoderBlock2D'],
    ] as const) {
      const value = (json as Record<string, unknown>)[key] ?? config.block_out_channels.map(() => type);
      const expected = config.block_out_channels.map(() => type);
      if (JSON.stringify(value) !== JSON.stringify(expected))
        throw new Error(
          `[config] ${name}: ${key} is ${JSON.stringify(value)}; supported is ${type} for each of the ${expected.length} levels`,
        );
    }
    for (const channels of config.block_out_channels)
      if (channels % config.norm_num_groups !== 0)
        throw new Error(
          `[config] ${name}: ${channels} channels cannot be divided into norm_num_groups ${config.norm_num_groups}`,
        );
    return new Vae(device, config);
  }

  /** How many pixels a latent stands for, along each axis. */
  get downscale(): number {
    return 2 ** (this.config.block_out_channels.length - 1);
  }

  /** Picture (N, 3, H, W) in [−1, 1] → the latents' distribution, not scaled: (N, 4, H', W') each. */
  encode(picture: Tensor): { mean: Tensor; logvar: Tensor } {
    const { in_channels: inputs, latent_channels: latent } = this.config;
    if (picture.shape.length !== 4 || picture.shape[1] !== inputs)
      throw new Error(`[vae] a picture must be (N, ${inputs}, H, W), it is (${picture.shape.join(', ')})`);
    return scope(this.device, () => {
      const encoded = this.encoder.forward(picture);
      const moments = this.quant_conv?.forward(encoded) ?? encoded;
      return {
        mean: slice(moments, 1, 0, latent),
        // Keeps the variance e^logvar a sane number.
        logvar: clamp(slice(moments, 1, latent, 2 * latent), -30, 20),
      };
    });
  }

  /** Latents drawn from their distribution (N, 4, H', W'), not scaled; `noise` is normal, of the same shape. */
  sample({ mean, logvar }: { mean: Tensor; logvar: Tensor }, noise: Tensor): Tensor {
    return scope(this.device, () => add(mean, mul(exp(affine(logvar, 0.5)), noise)));
  }

  /** Latents (N, 4, H', W'), not scaled (divided by `scaling_factor`) → picture (N, 3, H, W), not clamped. */
  decode(latents: Tensor): Tensor {
    const { latent_channels: latent } = this.config;
    if (latents.shape.length !== 4 || latents.shape[1] !== latent)
      throw new Error(`[vae] latents must be (N, ${latent}, H, W), they are (${latents.shape.join(', ')})`);
    return scope(this.device, () => this.decoder.forward(this.post_quant_conv?.forward(latents) ?? latents));
  }
}
