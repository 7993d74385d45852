/**
 * How well DreamBooth learns cats that the model never saw: variants of one configuration over subjects and seeds, judged by
 * the measures of `diffusion/measures.ts` beside baselines. Each run has a folder; what is finished there is read.
 */
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import type { Device } from '../../engine/index.ts';
import { fillPrompt, modelHash } from '../../diffusion/dreambooth.ts';
import { loadStableDiffusion } from '../../diffusion/folder.ts';
import type { Features } from '../../diffusion/measures.ts';
import { encodePng, grid, loadPicture } from '../../diffusion/pictures.ts';
import type { Picture } from '../../diffusion/pictures.ts';
import { pictureSize } from '../../diffusion/pipeline.ts';
import type { Subject, World, WorldPicture } from '../../diffusion/world.ts';
import { makeFolder, writeFileAtomic } from '../../nn/files.ts';
import { duration } from '../../nn/progress.ts';
import { ConfigError, parseConfig, readConfig } from '../config.ts';
import { pictureName } from '../drawing.ts';
import { interruptible, resolvePath } from '../run.ts';
import { learn, prepareLesson, recordLesson } from '../tasks/dreambooth.ts';
import type { DreamBoothConfig } from '../tasks/dreambooth.ts';
import { drawShots, shotLabel } from '../tasks/shots.ts';
import type { Shot } from '../tasks/shots.ts';
import type { Evaluation } from './config.ts';
import { claim, readJson, writeJson } from './folder.ts';
import { Judge } from './judge.ts';
import type { Expressions } from './judge.ts';
import { drawDreamBoothChart, writeDreamBoothReport } from './summary.ts';
import type { Sample, Scores } from './summary.ts';

/** One training run. */
interface Run {
  readonly variant: string;
  readonly subject: Subject;
  readonly seed: number;
  readonly config: DreamBoothConfig;
  readonly folder: string;
}

/** First seed of the drawings that are judged: class pictures, drawn from seeds near the run's own, must not be among them. */
const DRAWN_FROM = 1000;

/** A cat that is drawn from head to foot: no expression. */
const WHOLE = 'cat';

/**
 * Runs what is not finished yet, and reports after each run; `origin` says what the model was trained on. Returns whether all is done; false where the user stopped it,
 * who has then been told how to go on.
 */
export async function evaluateDreamBooth(
  device: Device,
  world: World,
  evaluation: Evaluation,
  folder: string,
  origin: string,
  resumeCommand: string,
): Promise<boolean> {
  const { dreambooth } = evaluation;
  const place = path.join(folder, 'dreambooth');
  const subjects: Expressions = new Map(
    dreambooth.subjects.map((subject) => [subject, expressionsOf(world, subject, dreambooth.shown)]),
  );
  const runs = await planRuns(evaluation, place);
  const [first] = runs as [Run];
  for (const subject of dreambooth.subjects)
    await savePictures(subjects.get(subject)!, dreambooth.shown, path.join(place, 'subjects', subject));

  const base = await loadStableDiffusion(device, resolvePath(evaluation.model));
  const hash = await modelHash(base);
  const { shots } = await prepareLesson(base, first.config);
  const stoppable = <T>(body: () => Promise<T>) => interruptible({ resumeCommand }, body);
  const expressions = expressionsByPrompt(subjects, first.config);
  const judge = await stoppable(() => Judge.prepare(base, world, subjects, expressions));

  const samples: Sample[] = [];
  const before = new Map<number, readonly (readonly Features[])[]>(); // by seed, then shot, then drawing
  await stoppable(async () => {
    for (const { seed, config } of runs) {
      if (before.has(seed)) continue;
      const own = path.join(place, `base-${seed}`);
      await claim(own, { model: hash, prompts: shots.map(({ prompt }) => prompt), sample: config.sample });
      before.set(seed, await judge.see(await drawShots(base, config, shots, path.join(own, 'before'))));
    }
    for (const subject of dreambooth.subjects) {
      for (const [seed, drawn] of before)
        samples.push({ variant: 'base', subject, seed, scores: judge.score(subject, shots, drawn, drawn) });
      samples.push({ variant: 'memoriser', subject, seed: null, scores: judge.memoriser(subject, dreambooth.shown) });
      samples.push({ variant: 'autoencoder', subject, seed: null, scores: await judge.ceiling(subject) });
    }
  });

  const progress = new RunProgress(runs, shots.length);
  for (const [i, run] of runs.entries()) {
    await claim(run.folder, { model: hash, world: world.key, config: run.config });
    const file = path.join(run.folder, 'scores.json');
    let scores = await readJson<Scores>(file);
    if (scores) progress.skip(run);
    else {
      progress.begin(i);
      const after = await teach(device, run, shots, resumeCommand);
      if (!after) return false;
      scores = await stoppable(async () =>
        judge.score(run.subject, shots, before.get(run.seed)!, await judge.see(after)),
      );
      await writeJson(file, scores);
      await rm(path.join(run.folder, 'checkpoints'), { recursive: true, force: true });
      progress.end(run);
    }
    const { variant, subject, seed } = run;
    samples.push({ variant, subject, seed, scores });
    if (progress.worked || i === runs.length - 1)
      await writeDreamBoothReport(samples, runs.length, evaluation, origin, folder);
  }
  await drawDreamBoothChart(samples, folder);
  for (const subject of dreambooth.subjects) {
    const truthOf = (prompt: string) =>
      subjects
        .get(subject)!
        .find(({ name }) => name === expressions.get(prompt))
        ?.picture() ?? null;
    await drawSheet(subject, truthOf, runs, shots, evaluation, pictureSize(base), folder);
  }
  for (const part of [base.unet, base.vae, base.textEncoder]) part.release();
  return true;
}

/** The subject's pictures of faces. */
function expressionsOf(world: World, subject: Subject, shown: readonly string[]): WorldPicture[] {
  const faces = world.subjects[subject].filter(({ name }) => name !== WHOLE);
  const stray = shown.find((name) => !faces.some((face) => face.name === name));
  if (stray !== undefined)
    throw new ConfigError(
      `dreambooth.shown: ${subject} has no "${stray}"; it has ${faces.map(({ name }) => name).join(', ')}`,
    );
  return faces;
}

/** The expression that a prompt asks for. */
function expressionsByPrompt(subjects: Expressions, { data }: DreamBoothConfig): ReadonlyMap<string, string> {
  const names = [...subjects.values()].flatMap((pictures) => pictures.map(({ name }) => name));
  const promptOf = (name: string) => fillPrompt(data.prompt, { token: data.token, class: data.class, name });
  return new Map(names.map((name) => [promptOf(name), name]));
}

/** Writes the pictures where DreamBooth looks for a subject's: the names of the files are the captions. */
async function savePictures(pictures: readonly WorldPicture[], shown: readonly string[], folder: string) {
  for (const kind of ['shown', 'unseen']) await makeFolder(path.join(folder, kind));
  for (const { name, picture } of pictures)
    await writeFileAtomic(path.join(folder, shown.includes(name) ? 'shown' : 'unseen', `${name}.png`), [
      await encodePng(picture()),
    ]);
}

/** All runs, seed by seed, so that every variant has some early. Throws on configurations that cannot be compared. */
export async function planRuns(
  { model, dreambooth }: Pick<Evaluation, 'model' | 'dreambooth'>,
  place: string,
): Promise<Run[]> {
  const { subjects, seeds, variants, drawings, sampler, steps, scale, emphasis } = dreambooth;
  const stray = dreambooth.rows.find((name) => !Object.hasOwn(variants, name));
  if (stray !== undefined)
    throw new ConfigError(`dreambooth.rows: "${stray}" is none of the variants ${Object.keys(variants).join(', ')}`);
  const file = resolvePath(dreambooth.config);
  const text = await readConfig(file);
  const parse = (overrides: Readonly<Record<string, unknown>>): DreamBoothConfig => {
    const config = parseConfig(
      text,
      file,
      Object.entries(overrides).map(([key, value]) => `${key}=${JSON.stringify(value)}`),
    );
    if (config.task !== 'dreambooth') throw new ConfigError(`${file}: task must be dreambooth, not ${config.task}`);
    return config;
  };
  const configOf = (variant: string, subject: Subject, seed: number): DreamBoothConfig => {
    const settings = {
      name: `${variant}-${subject}-${seed}`,
      model,
      seed,
      'data.folder': path.join(place, 'subjects', subject, 'shown'),
      'data.unseen': path.join(place, 'subjects', subject, 'unseen'),
      'sample.sampler': sampler,
      'sample.steps': steps,
      'sample.scale': scale,
      'sample.emphasis': emphasis,
      'sample.seeds': Array.from({ length: drawings }, (_, i) => DRAWN_FROM + seed * drawings + i),
      'sample.every': 0,
      'sample.grey': false,
    };
    const common = parse(settings);
    try {
      const own = parse({ ...settings, ...variants[variant]!.overrides });
      const judged = ({ name, model, seed, data, sample, prior }: DreamBoothConfig) =>
        JSON.stringify([name, model, seed, data, sample, prior.prompts]);
      if (judged(own) !== judged(common))
        throw new ConfigError('all are judged alike: leave name, model, seed, data, sample and prior.prompts out');
      return own;
    } catch (error) {
      if (error instanceof ConfigError)
        throw new ConfigError(`dreambooth.variants.${variant}.overrides: ${error.message}`);
      throw error;
    }
  };
  return seeds.flatMap((seed) =>
    Object.entries(variants).flatMap(([variant, only]) =>
      subjects
        .filter((subject) => (only.subjects ?? subjects).includes(subject) && (only.seeds ?? seeds).includes(seed))
        .map((subject): Run => {
          const config = configOf(variant, subject, seed);
          return { variant, subject, seed, config, folder: path.join(place, config.name) };
        }),
    ),
  );
}

/** Trains a fresh model, or goes on, and draws with it. Null where the user stopped it. */
async function teach(
  device: Device,
  { config, folder }: Run,
  shots: readonly Shot[],
  resumeCommand: string,
): Promise<Picture[][] | null> {
  const model = await loadStableDiffusion(device, resolvePath(config.model));
  try {
    const lesson = await prepareLesson(model, config);
    const context = { device, folder, resume: existsSync(path.join(folder, 'checkpoints')), resumeCommand };
    const hashes = await recordLesson(model, config, context);
    if (!(await learn(model, config, lesson, hashes, context))) return null;
    return await interruptible(context, () => drawShots(model, config, shots, path.join(folder, 'after')));
  } finally {
    for (const part of [model.unet, model.vae, model.textEncoder]) part.release();
  }
}

/** Says which run begins, and how long the rest may take, by passes of the UNet: a picture trained is three, one drawn with guidance two a step, with emphasis three. */
class RunProgress {
  /** Whether any run was done by this call. */
  worked = false;
  readonly #runs: readonly Run[];
  readonly #prompts: number;
  readonly #began = performance.now();
  #left: number;
  #done = 0;

  /** `prompts`: how many each run draws. */
  constructor(runs: readonly Run[], prompts: number) {
    this.#runs = runs;
    this.#prompts = prompts;
    this.#left = runs.reduce((sum, run) => sum + this.#workOf(run), 0);
  }

  skip(run: Run): void {
    this.#left -= this.#workOf(run);
  }

  begin(i: number): void {
    const { variant, subject, seed } = this.#runs[i]!;
    console.log(`\nRun ${i + 1} of ${this.#runs.length}: ${variant}, ${subject}, seed ${seed}`);
  }

  end(run: Run): void {
    this.worked = true;
    this.#done += this.#workOf(run);
    this.#left -= this.#workOf(run);
    const seconds = (performance.now() - this.#began) / 1000;
    if (this.#left > 0) console.log(`About ${duration((seconds * this.#left) / this.#done)} left for all runs`);
  }

  #workOf({ config: { steps, accumulate, batch, prior, sample } }: Run): number {
    const pictures = batch.subject + (prior.weight > 0 && prior.pictures > 0 ? batch.prior : 0);
    return (
      3 * steps * accumulate * pictures +
      (sample.emphasis > 0 ? 3 : 2) * sample.steps * this.#prompts * sample.seeds.length
    );
  }
}

/** Real pictures, the untuned model's, and those of variants after training: a row each, a column a prompt. */
async function drawSheet(
  subject: Subject,
  truthOf: (prompt: string) => Picture | null,
  runs: readonly Run[],
  shots: readonly Shot[],
  { dreambooth }: Evaluation,
  size: number,
  folder: string,
): Promise<void> {
  const columns = shots.flatMap((shot, i) => (shot.kind === 'other' ? [] : [{ ...shot, i }]));
  const place = path.join(folder, 'dreambooth');
  const drawn = (from: string, { config }: Run) =>
    Promise.all(
      columns.map(({ prompt, i }) =>
        loadPicture(path.join(from, pictureName(i, prompt, config.sample.seeds[0]!)), size),
      ),
    );
  const [any] = runs as [Run];
  const rows: [string, (Picture | null)[]][] = [
    ['real', columns.map(({ prompt }) => truthOf(prompt))],
    ['base, untuned', await drawn(path.join(place, `base-${any.seed}`, 'before'), any)],
  ];
  for (const name of dreambooth.rows) {
    const run = runs.find((one) => one.variant === name && one.subject === subject);
    if (run) rows.push([`${name}, seed ${run.seed}`, await drawn(path.join(run.folder, 'after'), run)]);
  }
  const png = await grid(rows.flatMap(([, row]) => row), {
    columns: columns.length,
    cell: 96,
    title: `${subject}: what is drawn after training on ${dreambooth.shown.length} pictures`,
    columnLabels: columns.map(shotLabel),
    rowLabels: rows.map(([label]) => label),
  }); // prettier-ignore
  await writeFileAtomic(path.join(folder, `dreambooth-${subject}.png`), [png]);
}
