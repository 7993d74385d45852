/** What training a diffusion model takes, before a GPU is asked for it: one step on a device that computes nothing. */
import { backward, noGrad, scope, tensor, zeros } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { add, affine, cast, mse } from '../kernels/index.ts';
import { AdamW } from '../nn/adamw.ts';
import { Arena } from '../nn/arena.ts';
import type { Module } from '../nn/module.ts';
import { ClipTextModel } from './clip.ts';
import { UNet } from './unet.ts';
import { Vae } from './vae.ts';

/** The parts' `config.json`, parsed. */
export interface ModelConfigs {
  readonly unet: unknown;
  readonly text: unknown;
  readonly vae: unknown;
}

/** Stable Diffusion 1.5's; what is left out is the default of the original's class. */
export const SD15: ModelConfigs = {
  unet: { sample_size: 64, cross_attention_dim: 768, block_out_channels: [320, 640, 1280, 1280] },
  text: { hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12, num_hidden_layers: 12 },
  vae: { block_out_channels: [128, 256, 512, 512], layers_per_block: 2 },
};

export interface TrainingPlan {
  /** Pixels of a side. */
  readonly size: number;
  /** Pictures of the subject and of the class, in one batch. */
  readonly batch: number;
  /** Ids of a prompt. */
  readonly tokens: number;
  /** What activations and their gradients are stored in; parameters, their gradients and moments are f32. */
  readonly precision: 'f32' | 'f16';
  readonly checkpointing: boolean;
  /** Which parts learn; the others are frozen. The UNet always learns. */
  readonly train: { readonly text: boolean; readonly vae: boolean };
}

export interface Footprint {
  /** Numbers that learn, and that don't. */
  readonly trained: number;
  readonly frozen: number;
  /** Of one steady step. */
  readonly dispatches: number;
  readonly peak: number; // bytes
  /** Bytes by what they are for, at the time when each is at its most. */
  readonly tags: Readonly<Record<string, number>>;
}

/**
 * The footprint of a training step with AdamW on `device`, a dry one: pictures through the VAE's encoder, noise, prompts
 * through the text encoder, the UNet, mean squared error, gradients, clipping, update. The VAE's decoder is loaded and
 * frozen in any case; frozen parts run without a tape.
 */
export function planTraining(device: Device, configs: ModelConfigs, plan: TrainingPlan): Footprint {
  const unet = UNet.fromConfig(device, configs.unet);
  const text = ClipTextModel.fromConfig(device, configs.text);
  const vae = Vae.fromConfig(device, configs.vae);
  const { train, precision, size, batch, tokens } = plan;
  const { max_position_embeddings: positions } = text.config;
  if (size % vae.downscale !== 0)
    throw new Error(`[plan] size (--size) must be a multiple of ${vae.downscale}, the pixels of a latent, not ${size}`);
  // The largest tensor is the first one of the VAE's encoder.
  if (batch * vae.config.block_out_channels[0]! * size ** 2 >= 2 ** 32)
    throw new Error(
      `[plan] ${batch} pictures (--subject, --prior) of ${size}×${size} (--size) make tensors of more elements than 32-bit ` +
        'indices reach: lower one of these',
    );
  if (tokens > positions)
    throw new Error(`[plan] tokens (--tokens) must be at most ${positions}, the model's, not ${tokens}`);
  text.setTrainable(train.text);
  vae.setTrainable(train.vae);
  vae.decoder.setTrainable(false);
  vae.post_quant_conv?.setTrainable(false);
  for (const part of [unet, text, vae]) part.setCheckpointing(plan.checkpointing);
  const parts: Record<string, Module> = { unet, ...(train.text ? { text } : {}), ...(train.vae ? { vae } : {}) };
  const arena = new Arena(parts);
  const optimizer = new AdamW(arena, { betas: [0.9, 0.999], epsilon: 1e-8, weightDecay: 0.01, maxNorm: 1 });

  const frozen = (learns: boolean, body: () => Tensor): Tensor => (learns ? body() : noGrad(device, body));
  const side = plan.size / vae.downscale;
  const step = (): void => {
    const pictures = zeros(device, [plan.batch, vae.config.in_channels, plan.size, plan.size]);
    const latents = frozen(train.vae, () => vae.encode(cast(pictures, precision)).mean);
    const noise = cast(zeros(device, [plan.batch, unet.config.in_channels, side, side]), precision);
    const noisy = add(affine(latents, vae.config.scaling_factor), noise);
    const ids = Array.from({ length: plan.batch }, () => new Int32Array(plan.tokens));
    const context = scope(device, () => frozen(train.text, () => text.forward(ids, precision).lastHidden));
    const steps = Array<number>(plan.batch).fill(500);
    const prediction = unet.forward(noisy, steps, context);
    const weights = tensor(device, new Float32Array(plan.batch));
    backward(mse(cast(prediction, 'f32'), cast(noise, 'f32'), { weights }));
    optimizer.step(1e-5);
  };
  const run = () => scope(device, step);
  run(); // gradients are where they belong from now on
  device.memory.resetPeak();
  const before = device.stream.dispatches;
  run();
  const { peak, usage } = device.memory;
  const count = (module: Module) => [...module.namedParameters().values()].reduce((sum, { size }) => sum + size, 0);
  const trained = [...arena.parameters.values()].reduce((sum, { size }) => sum + size, 0);
  const footprint: Footprint = {
    trained,
    frozen: count(unet) + count(text) + count(vae) - trained,
    dispatches: device.stream.dispatches - before,
    peak,
    tags: Object.fromEntries([...usage].map(([tag, bytes]) => [tag, bytes.peak])),
  };
  optimizer.release();
  arena.release();
  for (const part of [unet, text, vae]) part.release();
  return footprint;
}
