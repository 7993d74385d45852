/** The diffusion task: UNet and text encoder from scratch on captioned renders of emoji, in the latents of a finished VAE. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { saveStableDiffusion, weightFiles } from '../../diffusion/folder.ts';
import type { StableDiffusion } from '../../diffusion/folder.ts';
import { encode, generate, pictureSize } from '../../diffusion/pipeline.ts';
import { grid } from '../../diffusion/pictures.ts';
import { inventStyles } from '../../diffusion/invented.ts';
import { cachedLatents, freshModel, Pretraining, samplingWeight, validate } from '../../diffusion/pretrain_unet.ts';
import type { Captioned } from '../../diffusion/pretrain_unet.ts';
import { captionOf } from '../../diffusion/world.ts';
import type { WorldPicture } from '../../diffusion/world.ts';
import { writeFileAtomic } from '../../nn/files.ts';
import { reporter } from '../../nn/progress.ts';
import { Trainer } from '../../nn/trainer.ts';
import type { Config } from '../config.ts';
import { interruptible, recordRun, resolvePath } from '../run.ts';
import type { TaskContext } from '../run.ts';
import { appendValidation, drawLosses, loadPictures, RunRecord, trainerOptions, withAverages } from './pretraining.ts';
import type { Pictures } from './pretraining.ts';

export async function trainDiffusion(config: Config<'diffusion'>, context: TaskContext): Promise<void> {
  const start = config.start === null ? null : resolvePath(config.start);
  const model = await freshModel(context.device, resolvePath(config.model), { seed: config.seed, start });
  for (const prompt of config.sample.prompts) encode(model, prompt); // one that is too long is said now
  const data = await interruptible(context, () => loadPictures(config, pictureSize(model)));
  await trainDiffusionOn(data, model, config, context);
}

/** The same on pictures and a fresh model at hand; releases the model. */
export async function trainDiffusionOn(
  data: Pictures,
  model: StableDiffusion,
  config: Config<'diffusion'>,
  context: TaskContext,
): Promise<void> {
  const { folder } = context;
  const { vae, unet, textEncoder } = model;
  const vaeFolder = path.join(model.folder, 'vae');
  const vaeFiles = (await readdir(vaeFolder)).sort().map((file) => path.join(vaeFolder, file));
  const startFiles = config.start === null ? [] : await weightFiles(resolvePath(config.start));
  const inputs = { ...(await recordRun(context, [...vaeFiles, ...startFiles])), data: data.key };
  const parameters = Object.fromEntries(
    Object.entries({ unet, text_encoder: textEncoder }).map(([name, module]) => [
      name,
      [...module.namedParameters().values()].reduce((total, { size }) => total + size, 0),
    ]),
  );
  const record = await RunRecord.open(folder, { config, data: data.record, parameters });

  const report = reporter('Pictures encoded');
  const captioned = async (items: readonly WorldPicture[], key: string, plain = true) => {
    const latents = await cachedLatents(vae, items, {
      folder: path.join(config.cache, 'latents'),
      key: `${key} ${data.key}`,
      onDone: (done) => report(done, items.length),
    });
    return items.map((item, i) => ({
      caption: captionOf(item, !plain),
      styled: captionOf(item, true),
      latents: latents[i]!,
      weight: samplingWeight(config.weights, item.set, item.name),
    }));
  };
  const [training, validation] = await interruptible(
    context,
    async () => [await captioned(data.training, 'training'), await captioned(data.heldOut, 'held out')] as const,
  );
  const invented = await interruptible(context, () =>
    captioned(inventedOf(data, model, config), `invented ${config.invented.styles} ${config.invented.seed}`, false),
  );
  const task = new Pretraining(model, [...training, ...shared(invented, training, config.invented.share)], config);
  const samples = config.batch * config.accumulate; // a step
  vae.setTrainable(false);

  const options = trainerOptions(config, context, inputs);
  const trainer = new Trainer({
    ...options,
    modules: { unet, text_encoder: textEncoder },
    forward: ({ pass }) => task.loss(pass),
    optimizer: {
      ...options.optimizer,
      group: (name) => (name.startsWith('text_encoder.') ? { rate: config.optimizer.text } : {}),
    },
    callbacks: [
      {
        every: config.validation.every,
        run: (step, running) =>
          withAverages(running, async () => {
            const errors = await validate(model, validation, config.snr);
            await appendValidation(folder, step, { samples: step * samples, ...errors });
            await record.write({ steps: step, samples: step * samples });
            console.log(
              `step ${step}, ${step * samples} samples: squared error ${errors.mse.toFixed(4)} on ${validation.length} pictures held out`,
            );
          }),
      },
      ...(config.sample.every > 0
        ? [
            {
              every: config.sample.every,
              run: (step: number, running: Trainer) =>
                withAverages(running, () => drawSamples(model, config, step, folder)),
            },
          ]
        : []),
    ],
  });
  const { interrupted } = await trainer.run();
  if (!interrupted) {
    trainer.average?.swap();
    await drawLosses(folder, 'UNet and text encoder', ['loss', 'mse']);
    await drawSamples(model, config, config.steps, folder);
    await record.write({
      steps: config.steps,
      samples: config.steps * samples,
      error: await validate(model, validation, config.snr),
    });
    const target = path.join(folder, 'model');
    await saveStableDiffusion(model, target);
    console.log(`The model is in ${target}. Draw with it: node cli/sample.js --model ${target} "cat face"`);
  }
  trainer.release();
  for (const module of [unet, textEncoder, vae]) module.release();
}

/** The world's training pictures in invented styles, named by words that no caption has. */
function inventedOf({ training }: Pictures, { tokenizer }: StableDiffusion, { invented }: Config<'diffusion'>) {
  const taken = new Set(['sks', ...training.flatMap((picture) => captionOf(picture, true).split(/\W+/))]);
  return inventStyles(training, tokenizer, { count: invented.styles, seed: invented.seed, taken });
}

/** Items with weights such that they are this share of all. */
function shared(items: readonly Captioned[], others: readonly Captioned[], share: number): Captioned[] {
  const total = (of: readonly Captioned[]) => of.reduce((sum, { weight }) => sum + weight, 0);
  const factor = ((share / (1 - share)) * total(others)) / total(items);
  return items.map((item) => ({ ...item, weight: item.weight * factor }));
}

/** Draws every prompt with every seed: a column a prompt, a row a seed. */
async function drawSamples(
  model: StableDiffusion,
  config: Config<'diffusion'>,
  step: number,
  folder: string,
): Promise<void> {
  const { prompts, seeds, steps, scale, sampler } = config.sample;
  const pictures = await generate(model, {
    prompts: seeds.flatMap(() => prompts),
    seeds: seeds.flatMap((seed) => prompts.map(() => seed)),
    steps,
    scale,
    sampler,
  });
  const png = await grid(pictures, {
    columns: prompts.length,
    cell: 96,
    title: `after ${step} steps`,
    columnLabels: prompts,
    rowLabels: seeds.map((seed) => `seed ${seed}`),
  });
  await writeFileAtomic(path.join(folder, `samples-${String(step).padStart(6, '0')}.png`), [png]);
}
