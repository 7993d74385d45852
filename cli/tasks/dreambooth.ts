/** The DreamBooth task: checks, class pictures, pictures before, training, pictures after, evidence. */
import path from 'node:path';
import { rehearsal } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import {
  beginAs,
  chooseTrained,
  DreamBooth,
  fillPrompt,
  loadSubject,
  makeExamples,
  priorExamples,
} from '../../diffusion/dreambooth.ts';
import type { SubjectPicture } from '../../diffusion/dreambooth.ts';
import { loadStableDiffusion, saveStableDiffusion, weightFiles } from '../../diffusion/folder.ts';
import type { StableDiffusion } from '../../diffusion/folder.ts';
import { DRAWN_AT_ONCE, encode, generate, pictureSize } from '../../diffusion/pipeline.ts';
import { grid, listPictures } from '../../diffusion/pictures.ts';
import type { Picture } from '../../diffusion/pictures.ts';
import { encodePictures } from '../../diffusion/training.ts';
import type { Example } from '../../diffusion/training.ts';
import type { Part } from '../../nn/arena.ts';
import { writeFileAtomic } from '../../nn/files.ts';
import { Progress } from '../../nn/progress.ts';
import { schedule } from '../../nn/schedule.ts';
import type { Schedule } from '../../nn/schedule.ts';
import type { Json } from '../../nn/checkpoint.ts';
import { Trainer } from '../../nn/trainer.ts';
import { trainingStep } from '../bench/steps.ts';
import { ConfigError } from '../config.ts';
import type { Config } from '../config.ts';
import { rehearse } from '../rehearse.ts';
import { interruptible, recordRun, resolvePath } from '../run.ts';
import type { TaskContext } from '../run.ts';
import { drawLosses } from './pretraining.ts';
import { drawSheet, drawShots, report, shotsOf } from './shots.ts';
import type { Shot } from './shots.ts';

export type DreamBoothConfig = Config<'dreambooth'>;

const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;

/** What a configuration is about: read, checked, and not yet begun. */
export interface Lesson {
  /** The subject's pictures with their prompts. */
  readonly pictures: readonly { readonly prompt: string; readonly crops: readonly Picture[] }[];
  /** Of the class pictures, in turn. */
  readonly classPrompts: readonly string[];
  readonly shots: readonly Shot[];
  readonly rate: Schedule;
  /** Of single parameters, what trains alone; see `Arena`. */
  readonly parts: ReadonlyMap<string, Part>;
}

export async function trainDreamBooth(
  config: DreamBoothConfig,
  device: Device,
  prepare: () => Promise<TaskContext>,
): Promise<void> {
  const started = performance.now();
  const model = await loadModel(device, resolvePath(config.model));
  const lesson = await prepareLesson(model, config);
  const context = await prepare();
  const { folder } = context;
  const { shots } = lesson;
  const hashes = await recordLesson(model, config, context);
  const before = await interruptible(context, () => drawShots(model, config, shots, path.join(folder, 'before')));
  if (!(await learn(model, config, lesson, hashes, context))) return;

  const after = await interruptible(context, () => drawShots(model, config, shots, path.join(folder, 'after')));
  await saveStableDiffusion(model, path.join(folder, 'model'), { dtype: 'F16' });
  await writeFileAtomic(path.join(folder, 'samples.png'), [await drawSheet(config, shots, before, after)]);
  await drawLosses(folder, `${config.name}: loss`, ['subject', 'prior']);
  await report(model, config, shots, before, after, folder);
  const minutes = (performance.now() - started) / 60_000;
  console.log(`\nDone in ${minutes.toFixed(1)} minutes. Look at ${path.join(folder, 'samples.png')}`);
  const { emphasis } = config.sample;
  const stronger = emphasis > 0 ? ` --plain "${anyPrompt(config, 'plain')}" --emphasis ${emphasis}` : '';
  console.log(
    `Draw more: node cli/sample.js --model ${path.join(folder, 'model')} "${anyPrompt(config, 'prompt')}"${stronger}`,
  );
}

/**
 * Reads the subject, makes all prompts, says what trains, and rehearses the run: throws, before anything is drawn or
 * written, on what cannot work.
 */
export async function prepareLesson(model: StableDiffusion, config: DreamBoothConfig): Promise<Lesson> {
  const { data, optimizer, prior, steps, train } = config;
  const rate = schedule({ kind: optimizer.schedule, rate: optimizer.lr, warmup: optimizer.warmup, steps });
  const size = pictureSize(model);
  const subject = await loadSubject(resolvePath(data.folder), size, data.crop);
  const unseen = data.unseen === null ? [] : await loadSubject(resolvePath(data.unseen), size, 'center');
  const words = (name: string) => ({ token: data.token, class: data.class, name });
  const subjectPrompt = ({ name }: SubjectPicture) => fillPrompt(data.prompt, words(name));
  const withoutSubject = ({ name }: SubjectPicture) => fillPrompt(data.plain, words(name));
  // A class prompt with {name} stands for one prompt for each of the subject's pictures, and for each further name.
  const names = [...subject.map(({ name }) => name), ...prior.names];
  const classPrompts = prior.prompts.flatMap((template) =>
    template.includes('{name}')
      ? names.map((name) => fillPrompt(template, words(name)))
      : [fillPrompt(template, words(''))],
  );
  const shots: Shot[] = [
    ...shotsOf(subject, 'shown', subjectPrompt, withoutSubject),
    ...shotsOf(unseen, 'unseen', subjectPrompt, withoutSubject),
    ...[...new Set(prior.prompts.map((template) => fillPrompt(template, words(subject[0]!.name))))].map((prompt) => ({
      prompt,
      kind: 'class' as const,
      truths: [],
    })),
    ...config.sample.prompts.map((template) => ({
      prompt: fillPrompt(template, words('')),
      kind: 'other' as const,
      truths: [],
    })),
  ];
  for (const prompt of [...shots.flatMap(({ prompt, plain = prompt }) => [prompt, plain]), ...classPrompts])
    encode(model, prompt); // one that is too long is said now
  if (!train.unet && !train.text)
    throw new ConfigError('train.unet and train.text are both false: nothing would be trained');
  if (train.begin !== null && !train.token)
    throw new ConfigError('train.begin is what a token begins with that trains: set train.token=true, or leave it out');
  if (train.token && !train.text)
    throw new ConfigError(
      'train.token is true and train.text false: leave train.text true, or the token does not train either',
    );
  const parts = chooseTrained(model, train, data.token);
  for (const part of [model.unet, model.textEncoder]) part.setCheckpointing(config.memory.checkpointing);
  await planRun(model, config);
  const pictures = subject.map((one) => ({ prompt: subjectPrompt(one), crops: one.crops }));
  return { pictures, classPrompts, shots, rate, parts };
}

/** Draws the class pictures, and trains the model. Returns whether it did so to the end. */
export async function learn(
  model: StableDiffusion,
  config: DreamBoothConfig,
  { pictures, classPrompts, rate, parts }: Lesson,
  hashes: Readonly<Record<string, string>>,
  context: TaskContext,
): Promise<boolean> {
  const cache = path.join(path.dirname(context.folder), 'class-pictures');
  const prior = await interruptible(context, () => drawPrior(model, config, classPrompts, cache));
  if (config.train.token) await beginAs(model, config.data.token, config.train.begin ?? config.data.class);
  const task = new DreamBooth(model, await makeExamples(model, pictures), prior, {
    seed: config.seed,
    subjectBatch: config.batch.subject,
    priorBatch: config.batch.prior,
    priorWeight: config.prior.weight,
  });
  return train(model, config, task, { rate, parts }, hashes, context);
}

/** Loads the model. Throws, saying what its parameters take, where the memory budget does not hold even these. */
async function loadModel(device: Device, folder: string): Promise<StableDiffusion> {
  return loadStableDiffusion(device, folder).catch(async (error: Error) => {
    if (!error.message.startsWith('[memory]')) throw error;
    const dry = rehearsal(device);
    await loadStableDiffusion(dry, folder);
    throw new ConfigError(
      `memory.budget is ${mebibytes(device.memory.budget)}, and the parameters of ${folder} alone take ` +
        `${mebibytes(dry.memory.live)}: raise memory.budget, or set memory.budget=0 for no limit`,
    );
  });
}

/** The subject's prompt with the class for a name. */
const anyPrompt = ({ data }: DreamBoothConfig, template: 'prompt' | 'plain'): string =>
  fillPrompt(data[template], { token: data.token, class: data.class, name: data.class });

/** Records what a run rests on: the hashes of the model's weights and of the subject's pictures. */
export async function recordLesson(
  model: StableDiffusion,
  { data }: DreamBoothConfig,
  context: TaskContext,
): Promise<Readonly<Record<string, string>>> {
  const folders = [data.folder, ...(data.unseen === null ? [] : [data.unseen])].map(resolvePath);
  const pictures = await Promise.all(folders.map((one) => listPictures(one, () => {}))); // loading them has warned
  return recordRun(context, [...(await weightFiles(model.folder)), ...pictures.flat()]);
}

async function drawPrior(
  model: StableDiffusion,
  config: DreamBoothConfig,
  prompts: readonly string[],
  cache: string,
): Promise<Example[]> {
  const { pictures, steps, scale, weight } = config.prior;
  if (weight === 0 || pictures === 0) return [];
  let progress: Progress | null = null;
  const { examples, folder, drawn } = await priorExamples(model, {
    prompts,
    count: pictures,
    steps,
    scale,
    sampler: config.sample.sampler,
    seed: config.seed,
    cache,
    onBegin(total) {
      progress = new Progress(total, 0, { unit: 'drawing step' });
      progress.line(`Drawing ${pictures} pictures of the class (the first step compiles kernels)`);
    },
    onStep: (done) => progress?.update(done, {}, model.unet.device.memory.peak),
  });
  (progress as Progress | null)?.stop();
  console.log(`Class pictures: ${pictures}, ${drawn ? 'drawn by the model, in' : 'found in'} ${folder}`);
  return examples;
}

/** Trains. Returns whether it did so to the end. */
async function train(
  model: StableDiffusion,
  config: DreamBoothConfig,
  task: DreamBooth,
  { rate, parts }: Pick<Lesson, 'rate' | 'parts'>,
  hashes: Readonly<Record<string, string>>,
  context: TaskContext,
): Promise<boolean> {
  // All that the numbers follow from: a run that goes on with anything else is another run.
  const { name: _name, memory: _memory, checkpoint: _checkpoint, sample: _sample, ...decisive } = config;
  const { optimizer } = config;
  const trainer = new Trainer({
    modules: { unet: model.unet, text_encoder: model.textEncoder },
    parts,
    forward: ({ pass }) => task.loss(pass),
    steps: config.steps,
    schedule: rate,
    optimizer: {
      betas: optimizer.betas,
      epsilon: optimizer.eps,
      weightDecay: optimizer.decay,
      maxNorm: optimizer.clip,
      group: (name) => (name.startsWith('text_encoder.') ? { rate: optimizer.text } : {}),
    },
    accumulation: config.accumulate,
    ...(config.ema > 0 ? { average: config.ema } : {}),
    folder: context.folder,
    checkpointEvery: config.checkpoint.every,
    keep: config.checkpoint.keep,
    resume: context.resume,
    identity: { ...(decisive as unknown as Record<string, Json>), files: hashes },
    resumeCommand: context.resumeCommand,
    memoryAdvice: 'Lower batch.subject and batch.prior (with accumulate), or set train.text=false',
    callbacks:
      config.sample.every > 0
        ? [{ every: config.sample.every, run: (step) => sampleMidway(model, config, step, context.folder) }]
        : [],
  });
  const { interrupted } = await trainer.run();
  if (!interrupted) trainer.average?.swap();
  trainer.release();
  return !interrupted;
}

/** One picture of each of the subject's first prompts while training goes on. */
async function sampleMidway(
  model: StableDiffusion,
  config: DreamBoothConfig,
  step: number,
  folder: string,
): Promise<void> {
  const prompts = [anyPrompt(config, 'prompt'), `a ${config.data.class}`];
  const { steps, scale, sampler, seeds } = config.sample;
  const pictures = await generate(model, { prompts, seeds: prompts.map(() => seeds[0]!), steps, scale, sampler });
  const png = await grid(pictures, { columns: prompts.length, columnLabels: prompts, title: `after ${step} steps` });
  await writeFileAtomic(path.join(folder, `samples-${String(step).padStart(6, '0')}.png`), [png]);
}

/**
 * Rehearses the run's parts. Throws, before anything is drawn, where training would not fit the memory budget; then
 * compiles, in parallel, what drawing and training need.
 */
async function planRun(model: StableDiffusion, config: DreamBoothConfig): Promise<void> {
  const { budget, live } = model.unet.device.memory;
  const parameters = [model.unet, model.vae, model.textEncoder].flatMap((part) => [...part.namedParameters().values()]);
  const own = parameters.reduce((sum, { storage }) => sum + storage.block.bytes, 0);
  await rehearse(model, async (copy) => {
    const rehearsed = copy();
    const { counts } = await trainingStep(rehearsed.unet.device, rehearsed, config, { seconds: 0, profiled: false });
    const averages = config.ema > 0 ? (counts.tags['gradients'] ?? 0) : 0;
    const needed = counts.peak + averages + (live - own); // beside what others hold on this device
    if (needed > budget) {
      const parts = Object.entries({ ...counts.tags, averages }).filter(([, bytes]) => bytes >= 2 ** 20);
      throw new ConfigError(
        `memory.budget is ${mebibytes(budget)}, and a step needs ${mebibytes(needed)}: ` +
          `${parts.map(([tag, bytes]) => `${tag} ${mebibytes(bytes)}`).join(', ')}, for ${config.batch.subject} + ${config.batch.prior} pictures. ` +
          'For the activations set memory.checkpointing=true, or lower batch.subject and batch.prior (and raise accumulate); ' +
          'train.text=false or train.unet=false for the rest',
      );
    }
    const drawn = copy();
    const pictures = await generate(drawn, {
      prompts: Array<string>(DRAWN_AT_ONCE).fill(''),
      seeds: Array<number>(DRAWN_AT_ONCE).fill(0),
      ...(config.sample.emphasis > 0
        ? { emphasis: { plain: Array<string>(DRAWN_AT_ONCE).fill(''), strength: config.sample.emphasis } }
        : {}),
      steps: 3, // the third reaches back farther than the second
      scale: config.sample.scale,
      sampler: config.sample.sampler,
    });
    await encodePictures(drawn.vae, pictures);
  });
}
