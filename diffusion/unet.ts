/**
 * The denoiser of Stable Diffusion 1 and 2: a U-Net of residual blocks and transformers that read the text (Rombach et al.
 * 2022). Fields carry the names of diffusers' weight files, so a parameter's path is its key there.
 */
import { z } from 'zod';
import { reshape, scope, tensor } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { add, attention, concat, geglu, matmul, silu } from '../kernels/index.ts';
import { Conv2d, GroupNorm, LayerNorm, like, Linear } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { Downsample, ResnetBlock, Upsample } from './blocks.ts';
import { channelCount, headWidth, layerCount, parseConfig } from '../nn/config.ts';

const USED = {
  _class_name: z.literal('UNet2DConditionModel').default('UNet2DConditionModel'),
  /** Height and width of the latents that it was trained at. */
  sample_size: channelCount.nullable().default(null),
  in_channels: channelCount.default(4),
  out_channels: channelCount.default(4),
  block_out_channels: z.array(channelCount).min(1).max(16).default([320, 640, 1280, 1280]),
  down_block_types: z
    .array(z.enum(['CrossAttnDownBlock2D', 'DownBlock2D']))
    .default(['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D']),
  up_block_types: z
    .array(z.enum(['CrossAttnUpBlock2D', 'UpBlock2D']))
    .default(['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D']),
  layers_per_block: layerCount.default(2),
  transformer_layers_per_block: z.union([layerCount, z.array(layerCount)]).default(1),
  /** In spite of its name the *number* of heads, for all levels or each. */
  attention_head_dim: z.union([channelCount, z.array(channelCount)]).default(8),
  cross_attention_dim: channelCount.default(1280),
  use_linear_projection: z.boolean().default(false),
  norm_num_groups: channelCount.default(32),
  norm_eps: z.number().gt(0).default(1e-5),
  flip_sin_to_cos: z.boolean().default(true),
  freq_shift: z.number().default(0),
};

const RULES = {
  used: USED,
  neutral: {
    act_fn: ['silu', 'swish'],
    addition_embed_type: [null],
    addition_time_embed_dim: [null],
    attention_type: ['default'],
    center_input_sample: [false],
    class_embed_type: [null],
    class_embeddings_concat: [false],
    conv_in_kernel: [3],
    conv_out_kernel: [3],
    cross_attention_norm: [null],
    downsample_padding: [1],
    dropout: [0],
    dual_cross_attention: [false],
    encoder_hid_dim: [null],
    encoder_hid_dim_type: [null],
    mid_block_only_cross_attention: [null, false],
    mid_block_scale_factor: [1],
    mid_block_type: ['UNetMidBlock2DCrossAttn'],
    num_attention_heads: [null],
    num_class_embeds: [null],
    only_cross_attention: [false],
    projection_class_embeddings_input_dim: [null],
    resnet_out_scale_factor: [1],
    resnet_skip_time_act: [false],
    resnet_time_scale_shift: ['default'],
    reverse_transformer_layers_per_block: [null],
    time_cond_proj_dim: [null],
    time_embedding_act_fn: [null],
    time_embedding_dim: [null],
    time_embedding_type: ['positional'],
    timestep_post_act: [null],
  },
  // Precision of attention, which is f32 here in any case; the heads of an embedding that is off.
  ignored: ['upcast_attention', 'addition_embed_type_num_heads'],
} as const;

export type UNetConfig = z.infer<z.ZodObject<typeof USED>>;

/**
 * Sinusoids of the timesteps (Ho et al. 2020, after Vaswani et al. 2017): frequencies fall from 1 towards 1/10,000; the
 * cosines come first where `flip_sin_to_cos` is set. Row-major (N, width).
 *
 * Every step is rounded to f32, as where the models were trained: at t = 999 a frequency's rounding already moves the
 * sinusoid by 3e-5, which they have learned with.
 */
export function timestepEmbedding(
  timesteps: readonly number[],
  width: number,
  { flip_sin_to_cos: flip = true, freq_shift: shift = 0 } = {},
): Float32Array {
  const { fround } = Math;
  const half = Math.floor(width / 2);
  const out = new Float32Array(timesteps.length * width); // an odd width ends in a zero
  for (let i = 0; i < half; i++) {
    const frequency = fround(Math.exp(fround(fround(fround(-Math.log(10000)) * i) / fround(half - shift))));
    timesteps.forEach((t, n) => {
      const angle = fround(fround(t) * frequency);
      out[n * width + i] = flip ? Math.cos(angle) : Math.sin(angle);
      out[n * width + half + i] = flip ? Math.sin(angle) : Math.cos(angle);
    });
  }
  return out;
}

class TimestepEmbedding extends Module {
  linear_1: Linear;
  linear_2: Linear;

  constructor(device: Device, inputs: number, width: number) {
    super(device);
    this.linear_1 = new Linear(device, inputs, width);
    this.linear_2 = new Linear(device, width, width);
  }

  forward(sinusoids: Tensor): Tensor {
    return this.linear_2.forward(silu(this.linear_1.forward(sinusoids)));
  }
}

/** Multi-head attention of x on `context` (Vaswani et al. 2017); on x itself without one. */
class Attention extends Module {
  to_q: Linear;
  to_k: Linear;
  to_v: Linear;
  to_out: [Linear];
  readonly #heads: number;

  constructor(device: Device, channels: number, context: number, heads: number) {
    super(device);
    this.to_q = new Linear(device, channels, channels, { bias: false });
    this.to_k = new Linear(device, context, channels, { bias: false });
    this.to_v = new Linear(device, context, channels, { bias: false });
    this.to_out = [new Linear(device, channels, channels)];
    this.#heads = heads;
  }

  /** x (N, T, C), context (N, L, D) → (N, T, C) */
  forward(x: Tensor, context: Tensor = x): Tensor {
    const split = (y: Tensor) => reshape(y, [y.shape[0]!, y.shape[1]!, this.#heads, y.shape[2]! / this.#heads]);
    const q = split(this.to_q.forward(x));
    const k = split(this.to_k.forward(context));
    const v = split(this.to_v.forward(context));
    const y = attention(q, k, v, { layout: 'bthd' }); // (N, T, heads, C / heads)
    return this.to_out[0].forward(reshape(y, x.shape));
  }
}

class GatedProjection extends Module {
  proj: Linear;

  constructor(device: Device, inputs: number, outputs: number) {
    super(device);
    this.proj = new Linear(device, inputs, 2 * outputs);
  }

  forward(x: Tensor): Tensor {
    return geglu(this.proj.forward(x));
  }
}

/** Linear, GEGLU, Linear with an inner width of 4 C (Shazeer 2020). */
class FeedForward extends Module {
  net: [GatedProjection, null, Linear]; // in the middle the originals have a dropout

  constructor(device: Device, channels: number) {
    super(device);
    this.net = [new GatedProjection(device, channels, 4 * channels), null, new Linear(device, 4 * channels, channels)];
  }

  forward(x: Tensor): Tensor {
    return this.net[2].forward(this.net[0].forward(x));
  }
}

/** Self-attention, attention on the text, feed-forward: each after a norm, each added to what came in. */
class TransformerBlock extends Module {
  norm1: LayerNorm;
  attn1: Attention;
  norm2: LayerNorm;
  attn2: Attention;
  norm3: LayerNorm;
  ff: FeedForward;

  constructor(device: Device, channels: number, context: number, heads: number) {
    super(device);
    this.norm1 = new LayerNorm(device, channels);
    this.attn1 = new Attention(device, channels, channels, heads);
    this.norm2 = new LayerNorm(device, channels);
    this.attn2 = new Attention(device, channels, context, heads);
    this.norm3 = new LayerNorm(device, channels);
    this.ff = new FeedForward(device, channels);
  }

  /** x (N, T, C), context (N, L, D) → (N, T, C) */
  forward(x: Tensor, context: Tensor): Tensor {
    return scope(this.device, () => {
      let y = add(x, this.attn1.forward(this.norm1.forward(x)));
      y = add(y, this.attn2.forward(this.norm2.forward(y), context));
      return add(y, this.ff.forward(this.norm3.forward(y)));
    });
  }
}

/**
 * Mixes channels on the way between pictures and tokens. SD 1 stores a 1×1 convolution, SD 2 a linear layer: the same
 * product, and since the product reads either operand transposed, turning (C, T) into (T, C) costs no copy.
 */
class Projection extends Module {
  weight: Tensor;
  bias: Tensor;

  constructor(device: Device, channels: number, linear: boolean) {
    super(device);
    const bound = 1 / Math.sqrt(channels);
    this.weight = this.parameter('weight', linear ? [channels, channels] : [channels, channels, 1, 1], {
      uniform: bound,
    });
    this.bias = this.parameter('bias', [channels], { uniform: bound });
  }

  /** (N, C, H, W) → (N, H·W, C) */
  toTokens(x: Tensor): Tensor {
    const [n, c, h, w] = x.shape as [number, number, number, number];
    const weight = like(reshape(this.weight, [c, c]), x);
    const tokens = matmul(reshape(x, [n, c, h * w]), weight, { transposeA: true, transposeB: true });
    return add(tokens, like(this.bias, x));
  }

  /** (N, H·W, C) → (N, C, H, W) */
  toPicture(tokens: Tensor, height: number, width: number): Tensor {
    const [n, , c] = tokens.shape as [number, number, number];
    const weight = like(reshape(this.weight, [c, c]), tokens);
    const x = matmul(weight, tokens, { transposeB: true }); // (N, C, H·W)
    return reshape(add(x, reshape(like(this.bias, x), [c, 1])), [n, c, height, width]);
  }
}

/** Transformer over a picture's pixels as tokens, added to what came in. */
class SpatialTransformer extends Module {
  norm: GroupNorm;
  proj_in: Projection;
  transformer_blocks: TransformerBlock[];
  proj_out: Projection;

  constructor(device: Device, channels: number, heads: number, layers: number, config: UNetConfig) {
    super(device);
    headWidth('UNet2DConditionModel', channels, heads);
    this.norm = new GroupNorm(device, config.norm_num_groups, channels, 1e-6);
    this.proj_in = new Projection(device, channels, config.use_linear_projection);
    this.transformer_blocks = Array.from(
      { length: layers },
      () => new TransformerBlock(device, channels, config.cross_attention_dim, heads),
    );
    this.proj_out = new Projection(device, channels, config.use_linear_projection);
  }

  /** x (N, C, H, W), context (N, L, D) → (N, C, H, W) */
  forward(x: Tensor, context: Tensor): Tensor {
    const body = (x: Tensor, context: Tensor) => {
      let tokens = this.proj_in.toTokens(this.norm.forward(x));
      for (const block of this.transformer_blocks) tokens = block.forward(tokens, context);
      return add(this.proj_out.toPicture(tokens, x.shape[2]!, x.shape[3]!), x);
    };
    return this.block(body, x, context);
  }
}

/** What the blocks of one level share. */
interface Level {
  heads: number;
  transformers: number;
}

class DownBlock extends Module {
  attentions: SpatialTransformer[];
  resnets: ResnetBlock[];
  downsamplers: Downsample[];

  constructor(
    device: Device,
    config: UNetConfig,
    { heads, transformers }: Level,
    { inputs, outputs, attends, last }: { inputs: number; outputs: number; attends: boolean; last: boolean },
  ) {
    super(device);
    const layers = Array.from({ length: config.layers_per_block }, (_, i) => i);
    this.attentions = attends
      ? layers.map(() => new SpatialTransformer(device, outputs, heads, transformers, config))
      : [];
    this.resnets = layers.map(
      (i) => new ResnetBlock(device, i === 0 ? inputs : outputs, outputs, resnetOptions(config)),
    );
    this.downsamplers = last ? [] : [new Downsample(device, outputs, 'all')];
  }

  /** Returns what each layer gave: the skips of the way up, the last also the next block's input. */
  forward(x: Tensor, time: Tensor, context: Tensor): Tensor[] {
    return scope(this.device, () => {
      const outputs: Tensor[] = [];
      this.resnets.forEach((resnet, i) => {
        x = resnet.forward(x, time);
        x = this.attentions[i]?.forward(x, context) ?? x;
        outputs.push(x);
      });
      for (const downsample of this.downsamplers) outputs.push(downsample.forward(x));
      return outputs;
    });
  }
}

class MidBlock extends Module {
  attentions: [SpatialTransformer];
  resnets: [ResnetBlock, ResnetBlock];

  constructor(device: Device, config: UNetConfig, { heads, transformers }: Level, channels: number) {
    super(device);
    this.attentions = [new SpatialTransformer(device, channels, heads, transformers, config)];
    const resnet = () => new ResnetBlock(device, channels, channels, resnetOptions(config));
    this.resnets = [resnet(), resnet()];
  }

  forward(x: Tensor, time: Tensor, context: Tensor): Tensor {
    return scope(this.device, () => {
      x = this.resnets[0].forward(x, time);
      x = this.attentions[0].forward(x, context);
      return this.resnets[1].forward(x, time);
    });
  }
}

class UpBlock extends Module {
  attentions: SpatialTransformer[];
  resnets: ResnetBlock[];
  upsamplers: Upsample[];

  constructor(
    device: Device,
    config: UNetConfig,
    { heads, transformers }: Level,
    /** `skips`: channels of what each layer takes from the way down. */
    { inputs, skips, outputs, attends, last }: { inputs: number; skips: number[]; outputs: number; attends: boolean; last: boolean }, // prettier-ignore
  ) {
    super(device);
    this.attentions = attends
      ? skips.map(() => new SpatialTransformer(device, outputs, heads, transformers, config))
      : [];
    this.resnets = skips.map(
      (skip, i) => new ResnetBlock(device, (i === 0 ? inputs : outputs) + skip, outputs, resnetOptions(config)),
    );
    this.upsamplers = last ? [] : [new Upsample(device, outputs)];
  }

  /** `skips` in the order of use; `size`: height and width of the next level, which are odd where halving rounded up. */
  forward(
    x: Tensor,
    skips: readonly Tensor[],
    time: Tensor,
    context: Tensor,
    size?: readonly [number, number],
  ): Tensor {
    return scope(this.device, () => {
      this.resnets.forEach((resnet, i) => {
        x = resnet.forward(concat([x, skips[i]!], 1), time);
        x = this.attentions[i]?.forward(x, context) ?? x;
      });
      for (const upsample of this.upsamplers) x = upsample.forward(x, size);
      return x;
    });
  }
}

/** Width of the time embedding: four times the first level's channels. */
const timeWidth = (config: UNetConfig): number => 4 * config.block_out_channels[0]!;

const resnetOptions = (config: UNetConfig) => ({
  groups: config.norm_num_groups,
  eps: config.norm_eps,
  time: timeWidth(config),
});

export class UNet extends Module {
  conv_in: Conv2d;
  time_embedding: TimestepEmbedding;
  down_blocks: DownBlock[];
  up_blocks: UpBlock[];
  mid_block: MidBlock;
  conv_norm_out: GroupNorm;
  conv_out: Conv2d;
  readonly config: UNetConfig;

  constructor(device: Device, config: UNetConfig) {
    super(device);
    this.config = config;
    const channels = config.block_out_channels;
    const deepest = channels.length - 1;
    const level = (i: number): Level => ({
      heads: perLevel(config.attention_head_dim, i),
      transformers: perLevel(config.transformer_layers_per_block, i),
    });
    this.conv_in = new Conv2d(device, config.in_channels, channels[0]!, 3, { padding: 1 });
    this.time_embedding = new TimestepEmbedding(device, channels[0]!, timeWidth(config));
    // Channels of every layer's result on the way down, taken up again in reverse.
    const skips = [channels[0]!];
    this.down_blocks = channels.map((outputs, i) => {
      const last = i === deepest;
      skips.push(...Array<number>(config.layers_per_block + (last ? 0 : 1)).fill(outputs));
      const attends = config.down_block_types[i] === 'CrossAttnDownBlock2D';
      return new DownBlock(device, config, level(i), { inputs: channels[Math.max(0, i - 1)]!, outputs, attends, last });
    });
    this.up_blocks = channels.map((_, i) => {
      const outputs = channels[deepest - i]!;
      return new UpBlock(device, config, level(deepest - i), {
        inputs: channels[Math.min(deepest, deepest - i + 1)]!,
        skips: skips.splice(-config.layers_per_block - 1).reverse(),
        outputs,
        attends: config.up_block_types[i] === 'CrossAttnUpBlock2D',
        last: i === deepest,
      });
    });
    this.mid_block = new MidBlock(device, config, level(deepest), channels[deepest]!);
    this.conv_norm_out = new GroupNorm(device, config.norm_num_groups, channels[0]!, config.norm_eps);
    this.conv_out = new Conv2d(device, channels[0]!, config.out_channels, 3, { padding: 1 });
  }

  /** From a parsed `config.json` of diffusers; `name` stands in errors. */
  static fromConfig(device: Device, json: unknown, name = 'UNet2DConditionModel'): UNet {
    const config = parseConfig(json, name, RULES);
    const levels = config.block_out_channels.length;
    for (const key of [
      'down_block_types',
      'up_block_types',
      'attention_head_dim',
      'transformer_layers_per_block',
    ] as const) {
      const value = config[key];
      if (Array.isArray(value) && value.length !== levels)
        throw new Error(`[config] ${name}: ${key} has ${value.length} entries, block_out_channels has ${levels}`);
    }
    for (const channels of config.block_out_channels)
      if (channels % config.norm_num_groups !== 0)
        throw new Error(
          `[config] ${name}: ${channels} channels cannot be divided into norm_num_groups ${config.norm_num_groups}`,
        );
    return new UNet(device, config);
  }

  /**
   * Predicts noise (or velocity). sample (N, 4, H, W), one timestep a sample, context: the text's hidden states
   * (N, L, D) → (N, 4, H, W). Any size of at least one pixel at the lowest level works.
   */
  forward(sample: Tensor, timesteps: readonly number[], context: Tensor): Tensor {
    const { block_out_channels: channels, in_channels: inputs, cross_attention_dim: width } = this.config;
    const [n, c] = sample.shape;
    if (sample.shape.length !== 4 || c !== inputs)
      throw new Error(`[unet] the sample must be (N, ${inputs}, H, W), it is (${sample.shape.join(', ')})`);
    if (timesteps.length !== n) throw new Error(`[unet] ${n} samples need ${n} timesteps, not ${timesteps.length}`);
    if (context.shape.length !== 3 || context.shape[0] !== n || context.shape[2] !== width)
      throw new Error(`[unet] the context must be (${n}, L, ${width}), it is (${context.shape.join(', ')})`);
    return scope(this.device, () => {
      const sinusoids = timestepEmbedding(timesteps, channels[0]!, this.config);
      // Every residual block begins with SiLU of the embedding: taken once.
      const time = silu(
        this.time_embedding.forward(tensor(this.device, sinusoids, [n!, channels[0]!], { dtype: sample.dtype })),
      );
      let x = this.conv_in.forward(sample);
      const skips = [x];
      for (const block of this.down_blocks) {
        const outputs = block.forward(x, time, context);
        skips.push(...outputs);
        x = outputs.at(-1)!;
      }
      x = this.mid_block.forward(x, time, context);
      for (const block of this.up_blocks) {
        const own = skips.splice(-block.resnets.length).reverse();
        const next = skips.at(-1); // what the next block begins with has the size to grow to
        x = block.forward(x, own, time, context, next && [next.shape[2]!, next.shape[3]!]);
      }
      return this.conv_out.forward(this.conv_norm_out.forward(x, { silu: true }));
    });
  }
}

const perLevel = (value: number | readonly number[], i: number): number =>
  typeof value === 'number' ? value : value[i]!;
