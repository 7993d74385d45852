import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HostRandom, randomKey } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { parseConfig } from '../../cli/config.ts';
import type { Config } from '../../cli/config.ts';
import { trainDiffusionOn } from '../../cli/tasks/diffusion.ts';
import type { Pictures } from '../../cli/tasks/pretraining.ts';
import { trainVaeOn } from '../../cli/tasks/vae.ts';
import { loadStableDiffusion } from '../../diffusion/folder.ts';
import { freshModel } from '../../diffusion/pretrain_unet.ts';
import { fromBytes } from '../../diffusion/pictures.ts';
import { plainDevice } from '../device.ts';

const SIDE = 16;
const COUNT = 24;

/** Discs of four colours on white, named by their colours. */
function discs(): Pictures {
  const colours = { red: [220, 40, 40], green: [40, 180, 60], blue: [40, 60, 220], black: [20, 20, 20] };
  const names = Object.keys(colours) as (keyof typeof colours)[];
  const random = new HostRandom(randomKey(0, 'discs'));
  const discs = Array.from({ length: COUNT }, (_, n) => {
    const pixels = new Uint8Array(SIDE * SIDE * 3).fill(255);
    const name = names[n % 4]!;
    const [cx, cy, radius] = [6 + random.below(5), 6 + random.below(5), 3 + random.below(3)];
    for (let y = 0; y < SIDE; y++)
      for (let x = 0; x < SIDE; x++)
        if ((x - cx) ** 2 + (y - cy) ** 2 <= radius ** 2) pixels.set(colours[name], (y * SIDE + x) * 3);
    return { set: 'noto' as const, style: 'noto', icon: name, name, picture: () => fromBytes(pixels, SIDE, SIDE) };
  });
  return { training: discs.slice(8), heldOut: discs.slice(0, 8), key: 'discs', record: { training: COUNT - 8 } };
}

const VAE = { block_out_channels: [8, 16], norm_num_groups: 4, scaling_factor: 1 };
const UNET = {
  sample_size: 8,
  block_out_channels: [16, 32],
  down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  layers_per_block: 1,
  norm_num_groups: 4,
  cross_attention_dim: 16,
  attention_head_dim: 2,
};
const TEXT = { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2 };
const TOKENIZER = { model_max_length: 8 };
const SCHEDULER = { _class_name: 'DDIMScheduler', clip_sample: false };
const INDEX = {
  vae: ['diffusers', 'AutoencoderKL'],
  unet: ['diffusers', 'UNet2DConditionModel'],
  text_encoder: ['transformers', 'CLIPTextModel'],
};

let device: Device;
let root: string;
let architecture: string;
beforeAll(async () => {
  device = await plainDevice();
  root = await mkdtemp(path.join(tmpdir(), 'pretraining-'));
  architecture = path.join(root, 'architecture');
  const files = {
    'vae/config.json': VAE,
    'unet/config.json': UNET,
    'text_encoder/config.json': TEXT,
    'tokenizer/tokenizer_config.json': TOKENIZER,
    'scheduler/scheduler_config.json': SCHEDULER,
    'model_index.json': INDEX,
  };
  for (const [file, json] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(architecture, file)), { recursive: true });
    await writeFile(path.join(architecture, file), JSON.stringify(json));
  }
});
afterAll(() => rm(root, { recursive: true }));

const STEPS = 12;
const common = (model: string) => `
name: test
steps: ${STEPS}
model: ${model}
cache: ${path.join(root, 'cache')}
batch: 4
ema: 0.9
checkpoint: { every: 5, keep: 9 }
validation: { every: 4 }
optimizer: { lr: 3.0e-3, betas: [0.9, 0.99], warmup: 3, schedule: cosine }
`;

const runVae = (folder: string, resume: boolean) =>
  trainVaeOn(discs(), parseConfig(`task: vae\nsize: ${SIDE}\n${common(architecture)}`, 'vae.yaml') as Config<'vae'>, {
    device,
    folder,
    resume,
    resumeCommand: 'again',
  });

async function runDiffusion(folder: string, resume: boolean): Promise<void> {
  const model = path.join(root, 'vae', 'model');
  const config = parseConfig(
    `task: diffusion\nsample: { every: 6, steps: 2, prompts: [red, blue] }\n${common(model)}`,
    'diffusion.yaml',
  ) as Config<'diffusion'>;
  await trainDiffusionOn(discs(), await freshModel(device, model, config), config, {
    device,
    folder,
    resume,
    resumeCommand: 'again',
  });
}

/** What a run leaves that does not depend on the clock. */
const LEFT = {
  vae: [
    'metrics.csv',
    'validation.csv',
    'recon.png',
    'model/vae/diffusion_pytorch_model.safetensors',
    'model/vae/config.json',
  ],
  diffusion: [
    'metrics.csv',
    'validation.csv',
    'samples-000012.png',
    'model/unet/diffusion_pytorch_model.safetensors',
    'model/text_encoder/model.safetensors',
  ],
};

const column = (csv: string, name: string): number[] => {
  const [header, ...rows] = csv.trim().split('\n');
  return rows.map((row) => Number(row.split(',')[header!.split(',').indexOf(name)]));
};

describe.each([
  { task: 'vae', run: runVae, loss: 'l1' },
  { task: 'diffusion', run: runDiffusion, loss: 'mse' },
] as const)('the $task task', ({ task, run, loss }) => {
  const whole = () => path.join(root, task);

  it('lowers its loss and leaves model, pictures and record', async () => {
    await mkdir(whole());
    await run(whole(), false);
    const losses = column(await readFile(path.join(whole(), 'metrics.csv'), 'utf8'), loss);
    expect(losses.length).toBe(STEPS);
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    expect(mean(losses.slice(-3))).toBeLessThan(0.9 * mean(losses.slice(0, 3)));
    const record = JSON.parse(await readFile(path.join(whole(), 'record.json'), 'utf8')) as Record<string, unknown>;
    expect(record).toMatchObject({
      steps: STEPS,
      samples: 4 * STEPS,
      config: { task, seed: 0 },
      data: { training: 16 },
      adapter: { description: device.profile.description },
      validation: [{ step: 4 }, { step: 8 }, { step: 12 }],
    });
  });

  it('resumes where it was killed, to the same bits', async () => {
    // Killed after the checkpoint of step 5 and before that of step 10: rows beyond it were written.
    const killed = path.join(root, `${task}-killed`);
    await mkdir(killed);
    for (const file of ['metrics.csv', 'validation.csv', 'checkpoints/step-000005'])
      await cp(path.join(whole(), file), path.join(killed, file), { recursive: true });
    const { live } = device.memory; // after a first run: attention keeps what its pattern of blocks needs
    await run(killed, true);
    expect(device.memory.live).toBe(live);
    for (const file of LEFT[task])
      expect((await readFile(path.join(killed, file))).equals(await readFile(path.join(whole(), file))), file).toBe(
        true,
      );
  });
});

it('the two make a model folder that loads', async () => {
  const model = await loadStableDiffusion(device, path.join(root, 'diffusion', 'model'));
  expect(model.tokenizer.maxLength).toBe(8);
  expect(model.vae.config.scaling_factor).not.toBe(1);
  for (const part of [model.unet, model.vae, model.textEncoder]) part.release();
});
