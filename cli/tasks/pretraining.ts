/** What the pre-training tasks do alike: the pictures, validation as a file, the record, the curves of the loss. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { loadWorld } from '../../diffusion/world.ts';
import type { World } from '../../diffusion/world.ts';
import { lineChart } from '../../nn/chart.ts';
import type { Json } from '../../nn/checkpoint.ts';
import { writeFileAtomic } from '../../nn/files.ts';
import { MetricsFile } from '../../nn/metrics.ts';
import { reporter } from '../../nn/progress.ts';
import { schedule } from '../../nn/schedule.ts';
import type { Trainer, TrainerOptions } from '../../nn/trainer.ts';
import type { Config } from '../config.ts';
import { ROOT, writeText } from '../run.ts';
import type { TaskContext } from '../run.ts';

type PretrainingConfig = Config<'vae'> | Config<'diffusion'> | Config<'lm'>;

/** What a task takes of a world. */
export type Pictures = Pick<World, 'training' | 'heldOut' | 'key' | 'record'>;

/** The world of a configuration, rendered where the cache has it not; its record names the packages that it is made of. */
export async function loadPictures(
  { cache, world }: Config<'vae'> | Config<'diffusion'>,
  size: number,
): Promise<Pictures> {
  const pictures = await loadWorld(cache, { name: world, size, onProgress: reporter('Pictures rendered') });
  const { dependencies } = JSON.parse(await readFile(path.join(ROOT, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  const packages = Object.entries(dependencies).filter(([name]) => /^@(iconify-json|resvg)\//.test(name));
  return { ...pictures, record: { ...pictures.record, packages: Object.fromEntries(packages) } };
}

/** The trainer's options that follow from the configuration alone; a run goes on only with the `inputs` it began with. */
export function trainerOptions(
  config: PretrainingConfig,
  { folder, resume, resumeCommand }: TaskContext,
  inputs: Readonly<Record<string, string>>,
) {
  const { optimizer, checkpoint, memory: _memory, name: _name, ...rest } = config;
  return {
    steps: config.steps,
    schedule: schedule({ kind: optimizer.schedule, rate: optimizer.lr, warmup: optimizer.warmup, steps: config.steps }),
    optimizer: {
      betas: optimizer.betas,
      epsilon: optimizer.eps,
      weightDecay: optimizer.decay,
      maxNorm: optimizer.clip,
    },
    accumulation: config.accumulate,
    ...(config.ema > 0 ? { average: config.ema } : {}),
    folder,
    checkpointEvery: checkpoint.every,
    keep: checkpoint.keep,
    resume,
    resumeCommand,
    identity: { ...rest, optimizer, inputs } as Readonly<Record<string, Json>>,
    memoryAdvice: 'Lower batch (with accumulate, for the same samples a step), or raise memory.budget',
  } satisfies Partial<TrainerOptions>;
}

/** Runs `body` while the averaged weights, where there are any, stand in for the trained ones. */
export async function withAverages<T>({ average }: Trainer, body: () => Promise<T>): Promise<T> {
  average?.swap();
  try {
    return await body();
  } finally {
    average?.swap();
  }
}

/** Appends to validation.csv, whose rows from this step on, of a run that was killed, go. */
export async function appendValidation(folder: string, step: number, values: Record<string, number>): Promise<void> {
  const file = path.join(folder, 'validation.csv');
  const metrics = await MetricsFile.open(file, Object.keys(values), existsSync(file) ? step - 1 : 0);
  await metrics.append(step, values);
}

/**
 * `record.json` of a run, rewritten while it goes on: what it rests on, how far it is, how long it took in all, the
 * means of its last 50 steps, and every validation.
 */
export class RunRecord {
  readonly #folder: string;
  readonly #earlier: number; // seconds
  readonly #began = performance.now();
  #values: Record<string, unknown>;

  private constructor(folder: string, earlier: number, values: Record<string, unknown>) {
    this.#folder = folder;
    this.#earlier = earlier;
    this.#values = values;
  }

  /** Opens the record of a run folder that has a `run.json` (see `recordRun`). */
  static async open(folder: string, values: Record<string, unknown>): Promise<RunRecord> {
    const run = JSON.parse(await readFile(path.join(folder, 'run.json'), 'utf8')) as Record<string, unknown>;
    const file = path.join(folder, 'record.json');
    const before = existsSync(file) ? (JSON.parse(await readFile(file, 'utf8')) as { seconds: number }).seconds : 0;
    return new RunRecord(folder, before, { ...run, ...values });
  }

  async write(values: Record<string, unknown>): Promise<void> {
    this.#values = { ...this.#values, ...values };
    const seconds = this.#earlier + (performance.now() - this.#began) / 1000;
    const [training, validation] = await Promise.all(
      ['metrics.csv', 'validation.csv'].map((file) => readTable(path.join(this.#folder, file))),
    );
    const record = { ...this.#values, seconds: Math.round(seconds), training: means(training!.slice(-50)), validation };
    await writeText(path.join(this.#folder, 'record.json'), `${JSON.stringify(record, null, 2)}\n`);
  }
}

/** The mean of each column. */
function means(rows: readonly Record<string, number>[]): Record<string, number> {
  const mean = (name: string) => rows.reduce((total, row) => total + row[name]!, 0) / rows.length;
  return Object.fromEntries(Object.keys(rows[0] ?? {}).map((name) => [name, mean(name)]));
}

/** Rows of a CSV file by column; none where there is no file. */
async function readTable(file: string): Promise<Record<string, number>[]> {
  if (!existsSync(file)) return [];
  const [header, ...rows] = (await readFile(file, 'utf8')).trim().split('\n');
  const columns = header!.split(',');
  return rows.map((row) => Object.fromEntries(row.split(',').map((value, i) => [columns[i]!, Number(value)])));
}

/** Draws `loss.png`: those of the columns that metrics.csv has. */
export async function drawLosses(folder: string, title: string, names: readonly string[]): Promise<void> {
  const rows = await readTable(path.join(folder, 'metrics.csv'));
  const found = names.filter((name) => rows[0] && name in rows[0]);
  const curves = found.map((name) => ({ name, points: rows.map((row) => [row['step']!, row[name]!] as const) }));
  await writeFileAtomic(path.join(folder, 'loss.png'), [await lineChart(title, curves)]);
}
