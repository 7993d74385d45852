import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { planTraining, SD15 } from '../diffusion/plan.ts';
import type { Footprint, ModelConfigs } from '../diffusion/plan.ts';
import { openNodeDryDevice } from '../engine/node.ts';
import { main } from './errors.ts';

const wholeFrom = (least: number) => (text: string) => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least)
    throw new InvalidArgumentError(`a whole number from ${least} up is needed.`);
  return value;
};

const command = new Command('node cli/plan.js')
  .description(
    'What a training step of a diffusion model takes: a dry run on a device without memory or kernels, so it needs no GPU.',
  )
  .option('--model <folder>', 'a model folder in diffusers’ layout; Stable Diffusion 1.5’s shapes without one')
  .option('--size <pixels>', 'side of the pictures', wholeFrom(1), 512)
  .option('--subject <n>', 'pictures of the subject in a step', wholeFrom(1), 1)
  .option('--prior <n>', 'class pictures in the same step', wholeFrom(0), 1)
  .option('--tokens <n>', 'length of a prompt', wholeFrom(1), 77)
  .option('--json', 'one JSON object a row instead of the table')
  .addHelpText(
    'after',
    `
Parameters that learn, their gradients and AdamW's two moments are f32; f16 is what activations are stored in.
With checkpointing, blocks of layers keep nothing but their inputs and run again in the backward pass.
The VAE's encoder runs in every step; where it is frozen, without a tape. Peaks are of one steady step.

Examples:
  node cli/plan.js
  node cli/plan.js --model assets/base --size 64 --subject 4 --prior 4 --tokens 24
`,
  );

const gibibytes = (bytes: number) => (bytes / 2 ** 30).toFixed(2);

await main(async () => {
  command.parse();
  const { model, size, subject, prior, tokens, json } = command.opts<{
    model?: string;
    size: number;
    subject: number;
    prior: number;
    tokens: number;
    json?: boolean;
  }>();
  const configs = model === undefined ? SD15 : await readConfigs(model);
  const device = await openNodeDryDevice();
  const rows: { learns: string; precision: string; checkpointing: boolean; footprint: Footprint }[] = [];
  for (const train of [
    { text: false, vae: false },
    { text: true, vae: false },
    { text: false, vae: true },
    { text: true, vae: true },
  ])
    for (const precision of ['f32', 'f16'] as const)
      for (const checkpointing of [false, true]) {
        const plan = { size, batch: subject + prior, tokens, precision, checkpointing, train };
        const footprint = planTraining(device, configs, plan);
        const learns = ['UNet', train.text && 'text', train.vae && 'VAE'].filter(Boolean).join(' + ');
        rows.push({ learns, precision, checkpointing, footprint });
        if (json) console.log(JSON.stringify({ ...plan, ...footprint }));
      }
  if (json) return;
  const name = model === undefined ? 'Stable Diffusion 1.5' : path.basename(model);
  console.log(`A training step of ${name} at ${size}×${size}, batch ${subject} + ${prior}, in GiB:\n`);
  console.log(
    '| learns | activations | checkpoints | peak | parameters | gradients | moments | activations | dispatches |',
  );
  console.log('|---|---|---|---|---|---|---|---|---|');
  for (const { learns, precision, checkpointing, footprint } of rows) {
    const { peak, tags, dispatches } = footprint;
    const parts = ['parameters', 'gradients', 'moments', 'activations'].map((tag) => gibibytes(tags[tag] ?? 0));
    console.log(
      `| ${learns} | ${precision} | ${checkpointing ? 'yes' : 'no'} | ${gibibytes(peak)} | ${parts.join(' | ')} | ${dispatches} |`,
    );
  }
});

async function readConfigs(folder: string): Promise<ModelConfigs> {
  const [unet, text, vae] = await Promise.all(
    ['unet', 'text_encoder', 'vae'].map(async (part) => {
      const file = path.join(folder, part, 'config.json');
      const content = await readFile(file, 'utf8').catch((error: Error) => {
        throw new Error(`[plan] cannot read ${file}: ${error.message}`, { cause: error });
      });
      return JSON.parse(content) as unknown;
    }),
  );
  return { unet, text, vae };
}
