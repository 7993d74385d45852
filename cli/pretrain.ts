/** `npm run pretrain`: from nothing but the emoji packages to a text-to-picture model. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Command } from 'commander';
import { stringify } from 'yaml';
import type { Device } from '../engine/index.ts';
import { openNodeDevice } from '../engine/node.ts';
import { makeFolder } from '../nn/files.ts';
import { ConfigError, describeKeys, loadConfig } from './config.ts';
import type { Config } from './config.ts';
import { main } from './errors.ts';
import { resolvePath, writeText } from './run.ts';
import type { TaskContext } from './run.ts';

const STAGES = ['vae', 'diffusion'] as const;
type Stage = (typeof STAGES)[number];

const command = new Command('node cli/pretrain.js')
  .description(
    `Trains the small text-to-picture model from nothing: renders 2,000 emoji of faces
and animals (or all 10,000), their names as captions, trains the autoencoder (VAE)
on them, then UNet and text encoder in its latents. Called again, after Ctrl-C, a crash or a kill, it
goes on where it was. It ends with a model folder, sample pictures and a record
of how they came about. Without a GPU it takes many hours; nothing else needs
it: a trained model is in assets/base.`,
  )
  .argument('[stage.key=value...]', 'changes to vae.yaml and diffusion.yaml, at the first call')
  .option('--folder <folder>', 'where the run is kept', 'runs/pretrain')
  .option('--configs <folder>', 'where vae.yaml and diffusion.yaml are', 'assets/configs')
  .addHelpText(
    'after',
    `
Examples:
  node cli/pretrain.js                                     the whole way; call it again to go on
  node cli/pretrain.js --configs assets/configs/gpu        all emoji, over a million samples: for a GPU
  node cli/pretrain.js --folder runs/try vae.steps=200 diffusion.steps=200     a short try
  node cli/train.js assets/configs/vae.yaml steps=100      one of the two tasks alone

What the folder holds when it is done:
  vae/         recon.png, loss.png, metrics.csv, validation.csv, record.json, model/vae
  diffusion/   samples-*.png, loss.png, metrics.csv, validation.csv, record.json
  diffusion/model   the whole model in diffusers' layout, with both records in record.json

Keys of the VAE's configuration, with their defaults:
${describeKeys('vae')}

Keys of the diffusion configuration, with their defaults:
${describeKeys('diffusion')}
`,
  );

/** The overrides of one stage, without its name. Throws on one that is of no stage. */
function overridesOf(stage: Stage, all: readonly string[]): string[] {
  const stray = all.find((one) => !STAGES.some((name) => one.startsWith(`${name}.`)));
  if (stray !== undefined)
    throw new ConfigError(
      `"${stray}" must begin with ${STAGES.map((name) => `${name}.`).join(' or ')}: which stage is meant?`,
    );
  return all.filter((one) => one.startsWith(`${stage}.`)).map((one) => one.slice(stage.length + 1));
}

/** A stage's configuration: that of the run where it has begun, else the default one with the user's changes. */
async function configure(
  stage: Stage,
  folder: string,
  configs: string,
  defaults: readonly string[],
  overrides: readonly string[],
): Promise<Config> {
  const file = path.join(folder, 'config.yaml');
  if (!existsSync(file))
    return loadConfig(path.join(resolvePath(configs), `${stage}.yaml`), [...defaults, ...overrides]);
  const [begun, now] = [await loadConfig(file), await loadConfig(file, overrides)];
  if (JSON.stringify(begun) !== JSON.stringify(now))
    throw new ConfigError(
      `${file}: the run has begun with other values; leave out ${overrides.map((one) => `${stage}.${one}`).join(' ')}, ` +
        'or begin another run with --folder',
    );
  return begun;
}

/** A model folder's index is written when all else is there. */
const isFinished = (model: string): boolean => existsSync(path.join(model, 'model_index.json'));

await main(async () => {
  command.parse();
  const { folder, configs: source } = command.opts<{ folder: string; configs: string }>();
  const places = { vae: path.join(folder, 'vae'), diffusion: path.join(folder, 'diffusion') };
  const ownVae = `model=${JSON.stringify(path.join(places.vae, 'model'))}`; // the second stage's, unless told otherwise
  const configs = {
    vae: await configure('vae', places.vae, source, [], overridesOf('vae', command.args)),
    diffusion: await configure('diffusion', places.diffusion, source, [ownVae], overridesOf('diffusion', command.args)),
  };
  const tasks = await import('./tasks/index.ts');
  const device = await openNodeDevice();
  console.log(`Adapter: ${device.profile.description}`);
  // Both now: a call that goes on needs none of what this one was given.
  for (const stage of STAGES) {
    await makeFolder(places[stage]);
    await writeText(path.join(places[stage], 'config.yaml'), stringify(configs[stage]));
  }
  for (const stage of STAGES) {
    const model = path.join(places[stage], 'model');
    if (!isFinished(model)) await runStage(tasks.run, configs[stage], device, places[stage]);
    if (!isFinished(model)) return; // stopped by a signal; the trainer has said how to go on
    console.log(`${stage}: done, in ${model}`);
  }
  const [vae, diffusion] = await Promise.all(
    STAGES.map(async (stage) => JSON.parse(await readFile(path.join(places[stage], 'record.json'), 'utf8')) as object),
  );
  await writeText(
    path.join(places.diffusion, 'model', 'record.json'),
    `${JSON.stringify({ vae, diffusion }, null, 2)}\n`,
  );
});

async function runStage(
  run: (config: Config, device: Device, prepare: () => Promise<TaskContext>) => Promise<void>,
  config: Config,
  device: Device,
  folder: string,
): Promise<void> {
  console.log(`\n${config.task}: ${config.steps} steps, in ${folder}`);
  device.memory.budget = config.memory.budget === 0 ? Infinity : config.memory.budget * 2 ** 20;
  await run(config, device, () => {
    const again = folder === path.join('runs/pretrain', config.task) ? '' : ` --folder ${path.dirname(folder)}`;
    return Promise.resolve({ device, folder, resume: true, resumeCommand: `node cli/pretrain.js${again}` });
  });
}
