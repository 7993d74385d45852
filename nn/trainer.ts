import path from 'node:path';
import { backward, empty, formatShape, mebibytes, release, scope, tensor } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { AdamW } from './adamw.ts';
import type { AdamWOptions } from './adamw.ts';
import { Arena, trainableParameters } from './arena.ts';
import type { Part } from './arena.ts';
import { latestCheckpoint, loadCheckpoint, saveCheckpoint } from './checkpoint.ts';
import type { Json, TensorFiles } from './checkpoint.ts';
import { ExponentialAverage } from './ema.ts';
import { makeFolder, reason } from './files.ts';
import { MetricsFile } from './metrics.ts';
import type { Module } from './module.ts';
import { Progress } from './progress.ts';
import type { Schedule } from './schedule.ts';

/** Steps in a row whose gradients are not finite, after which a run is given up. */
const MOST_SKIPPED = 10;
/** Milliseconds within which two signals are one key press: npm passes on what the terminal has sent already. */
const SAME_KEY_PRESS = 500;

/** Which forward pass a task is asked for. */
export interface Pass {
  /** Counts the optimizer's steps from 0. */
  readonly step: number;
  /**
   * Counts the forward passes of the whole run from 0: several a step where gradients are accumulated. The counter for
   * random numbers, and the number of the batch.
   */
  readonly pass: number;
}

/** Tensors of one element: the loss to descend, and whatever else is worth a column. */
export type Losses = { readonly loss: Tensor } & Readonly<Record<string, Tensor>>;

export interface StepMetrics {
  /** Steps done, this one included. */
  readonly step: number;
  /** The losses by name, `learning_rate`, `gradient_norm` before clipping, `skipped` (1 where a gradient was not finite). */
  readonly values: Readonly<Record<string, number>>;
}

export interface TrainerOptions {
  /** What trains: those of their parameters that want a gradient. */
  modules: Readonly<Record<string, Module>>;
  /** Of these parameters, by path, a part alone; see `Arena`. */
  parts?: ReadonlyMap<string, Part>;
  /** The forward pass. Randomness only through keys and counters: the same `Pass` must give the same numbers. */
  forward: (pass: Pass) => Losses;
  steps: number;
  schedule: Schedule;
  optimizer?: AdamWOptions;
  /** Forward and backward passes a step, whose gradients are averaged. */
  accumulation?: number;
  /** Decay of the parameters' exponential moving average; none is kept without. */
  average?: number;
  /** The run folder: `metrics.csv` and `checkpoints/` go there. */
  folder: string;
  /** Steps between checkpoints; there is always one at the end and on Ctrl-C. */
  checkpointEvery?: number;
  /** How many checkpoints stay. */
  keep?: number;
  /** Goes on from the folder's latest checkpoint. Without it, a folder that has one is refused. */
  resume?: boolean;
  /** What must not have changed since the checkpoint for the run to go on as if it had never stopped (seed, data, …). */
  identity?: Readonly<Record<string, Json>>;
  /** How the user resumes: said on Ctrl-C. */
  resumeCommand?: string;
  /** What the user can lower when memory does not suffice. */
  memoryAdvice?: string;
  /** Every step's metrics, a step late: the device works on the next one meanwhile. */
  onStep?: (metrics: StepMetrics) => void;
  /** Runs every `every` steps, between two steps: sampling, validation. */
  callbacks?: readonly { every: number; run: (step: number, trainer: Trainer) => Promise<void> | void }[];
  /** Where signals come from. */
  signals?: NodeJS.EventEmitter;
  stream?: NodeJS.WriteStream;
}

/** A training run: AdamW over the modules' trainable parameters, with checkpoints from which it resumes bit for bit. */
export class Trainer {
  readonly device: Device;
  readonly arena: Arena;
  readonly optimizer: AdamW;
  readonly average: ExponentialAverage | null;
  /** Steps done. */
  completed = 0;
  readonly #options: TrainerOptions;
  readonly #checkpoints: string;
  #progress: Progress | null = null;
  #metrics: MetricsFile | null = null;
  #names: readonly string[] = [];
  #skipped = 0;
  #start = 0;
  #saved = -1;
  /** When the first signal came. */
  #stopped: number | null = null;

  /** Checks the memory plan, then moves the trainable parameters into an arena. */
  constructor(options: TrainerOptions) {
    this.#options = options;
    this.#checkpoints = path.join(options.folder, 'checkpoints');
    checkMemory(options);
    this.arena = new Arena(options.modules, options.parts ? { parts: options.parts } : {});
    this.device = this.arena.device;
    this.optimizer = new AdamW(this.arena, options.optimizer);
    this.average = options.average === undefined ? null : new ExponentialAverage(this.arena, options.average);
  }

  /**
   * Trains until all steps are done or a signal came (SIGINT, SIGTERM: the step is finished and saved; a second one quits
   * at once). Returns whether it was interrupted; the process's exit code is then 130.
   */
  async run(): Promise<{ interrupted: boolean }> {
    const { steps, signals = process, stream = process.stdout, resumeCommand } = this.#options;
    await makeFolder(this.#checkpoints).catch((error: unknown) => {
      throw new Error(`[trainer] cannot make the run folder ${this.#checkpoints}: ${reason(error)}`, { cause: error });
    });
    await this.#restore();
    this.#progress = new Progress(steps, this.completed, { stream });
    const onSignal = () => {
      if (this.#stopped === null) this.#stopped = performance.now();
      else if (performance.now() - this.#stopped < SAME_KEY_PRESS) return;
      else process.exit(130);
      this.#say('Stopping: this step is finished and saved. Once more to quit at once, without saving.');
    };
    for (const name of ['SIGINT', 'SIGTERM']) signals.on(name, onSignal);
    try {
      this.device.memory.resetPeak();
      await this.#loop();
      if (this.#stopped !== null) {
        process.exitCode = 130;
        const how = resumeCommand ? `Resume with: ${resumeCommand}` : 'Resume from there.';
        this.#say(`Stopped after step ${this.completed} of ${steps}, saved in ${this.#checkpoints}. ${how}`);
      }
      return { interrupted: this.#stopped !== null };
    } finally {
      for (const name of ['SIGINT', 'SIGTERM']) signals.off(name, onSignal);
      this.#progress.stop();
      this.#progress = null;
    }
  }

  /** Releases what training needs beyond the parameters, which stay with their modules. */
  release(): void {
    this.optimizer.release();
    this.average?.release();
    this.arena.release();
  }

  async #loop(): Promise<void> {
    const { steps, checkpointEvery = Infinity, callbacks = [] } = this.#options;
    let pending: Promise<void> = Promise.resolve(); // the step before this one
    try {
      while (this.completed < steps && this.#stopped === null) {
        const step = this.completed++;
        const report = this.#step(step);
        const values = report.read();
        values.catch(() => {}); // heard when it is awaited
        release(report);
        await pending;
        pending = this.#record(step, values);
        pending.catch(() => {});
        const due = callbacks.filter(({ every }) => this.completed % every === 0);
        if (due.length > 0) await pending;
        for (const { run } of due) await run(this.completed, this);
        if (this.completed % checkpointEvery === 0) {
          await pending;
          await this.#save();
        }
      }
    } finally {
      await pending.catch(() => {}); // where a step failed, the one before it is still written
    }
    await pending;
    await this.#save();
  }

  /** Records one step. Returns every pass's losses in the order of their names, then what `AdamW.step` returned. */
  #step(step: number): Tensor {
    const { forward, schedule, accumulation = 1 } = this.#options;
    const { device } = this;
    return scope(device, () => {
      const parts: Tensor[] = [];
      for (let i = 0; i < accumulation; i++)
        parts.push(
          scope(device, () => {
            const losses = forward({ step, pass: step * accumulation + i });
            this.#checkLosses(losses);
            backward(losses.loss, tensor(device, [1 / accumulation], losses.loss.shape));
            return join(this.#names.map((name) => losses[name]!));
          }),
        );
      parts.push(this.optimizer.step(schedule(step)));
      this.average?.update();
      return join(parts);
    });
  }

  #checkLosses(losses: Losses): void {
    const names = Object.keys(losses);
    if (this.#names.length === 0) this.#names = names;
    if (names.join() !== this.#names.join())
      throw new Error(`[trainer] the losses were ${this.#names.join(', ')} and are now ${names.join(', ')}`);
    for (const name of names)
      if (losses[name]!.size !== 1)
        throw new Error(`[trainer] ${name} must be one number, not ${formatShape(losses[name]!.shape)}`);
  }

  /** Writes down what a step gave, when the device has done it. */
  async #record(step: number, report: Promise<ArrayLike<number>>): Promise<void> {
    const { schedule, accumulation = 1, folder, onStep } = this.#options;
    const values: Record<string, number> = {};
    const numbers = await report;
    const count = this.#names.length;
    this.#names.forEach((name, i) => {
      values[name] = 0;
      for (let pass = 0; pass < accumulation; pass++) values[name] += numbers[pass * count + i]! / accumulation;
    });
    const [squares, strange] = [numbers[accumulation * count]!, numbers[accumulation * count + 1]!];
    const finite = strange === 0 && Number.isFinite(squares);
    values['learning_rate'] = schedule(step);
    values['gradient_norm'] = Math.sqrt(squares);
    values['skipped'] = Number(!finite);
    this.#metrics ??= await MetricsFile.open(path.join(folder, 'metrics.csv'), Object.keys(values), this.#start);
    await this.#metrics.append(step + 1, values);
    onStep?.({ step: step + 1, values });
    this.#skipped = finite ? 0 : this.#skipped + 1;
    if (!finite)
      this.#say(`Step ${step + 1} changed nothing: ${strange || 'the norm of'} gradient values were not finite`);
    if (this.#skipped >= MOST_SKIPPED)
      throw new Error(
        `[trainer] the gradients of ${MOST_SKIPPED} steps in a row, up to step ${step + 1}, were not finite (loss ${values['loss']}). ` +
          'Lower the learning rate, and resume from the last checkpoint',
      );
    const shown = Object.fromEntries(this.#names.map((name) => [name, values[name]!]));
    this.#progress!.update(step + 1, shown, this.device.memory.peak);
    if (step === this.#start) {
      const { peak, budget } = this.device.memory;
      const within = budget < Infinity ? ` of a budget of ${mebibytes(budget)}` : '';
      this.#say(`Memory of a step: ${mebibytes(peak)}${within} (${this.device.memory.describe()})`);
    }
  }

  #tensors(): TensorFiles {
    const { arena, optimizer, average } = this;
    const files: Record<string, ReadonlyMap<string, Tensor>> = {
      weights: arena.windows(arena.chunks.map((chunk) => chunk.parameters)),
      first_moments: arena.windows(optimizer.first),
      second_moments: arena.windows(optimizer.second),
    };
    if (average) files['averages'] = arena.windows(average.buffers);
    return files;
  }

  /** What must be equal for a run to go on as if it had not stopped. */
  #identity(): Readonly<Record<string, Json>> {
    const { identity = {}, accumulation = 1, average = null } = this.#options;
    return { ...identity, accumulation, average };
  }

  async #save(): Promise<void> {
    if (this.#saved === this.completed) return;
    const { keep } = this.#options;
    const files = this.#tensors();
    try {
      await saveCheckpoint(this.#checkpoints, this.completed, files, { identity: this.#identity() }, { keep });
    } finally {
      releaseAll(files);
    }
    this.#saved = this.completed;
  }

  async #restore(): Promise<void> {
    const checkpoint = await latestCheckpoint(this.#checkpoints, (line) => this.#say(line));
    if (!this.#options.resume) {
      if (checkpoint)
        throw new Error(
          `[trainer] ${this.#options.folder} already holds a run, up to step ${checkpoint.step}. Resume it, or choose another folder`,
        );
      return;
    }
    if (!checkpoint) {
      this.#say(`There is no checkpoint in ${this.#checkpoints}: the run begins at step 0`);
      return;
    }
    const before = (checkpoint.state as { identity: Record<string, Json> }).identity;
    const now = this.#identity();
    for (const key of new Set([...Object.keys(before), ...Object.keys(now)])) {
      const [old, current] = [JSON.stringify(before[key]), JSON.stringify(now[key])];
      if (old !== current)
        throw new Error(
          `[trainer] ${checkpoint.folder} was made with ${key} = ${old}, this run has ${current}. ` +
            'Resume with the same configuration, or begin a new run',
        );
    }
    const files = this.#tensors();
    try {
      await loadCheckpoint(checkpoint, files);
    } finally {
      releaseAll(files);
    }
    this.completed = this.#start = this.#saved = this.optimizer.steps = checkpoint.step;
    if (this.average) this.average.updates = checkpoint.step;
    this.#say(`Resumed from ${checkpoint.folder}`);
  }

  #say(line: string): void {
    if (this.#progress) this.#progress.line(line);
    else (this.#options.stream ?? process.stdout).write(`${line}\n`);
  }
}

/** Scalars and vectors one after the other, (elements,). */
function join(parts: readonly Tensor[]): Tensor {
  const { device } = parts[0]!;
  const joined = empty(device, [parts.reduce((total, part) => total + part.size, 0)]);
  let offset = 0; // bytes
  for (const part of parts) {
    const bytes = part.size * 4;
    device.stream.copy(part.window(), { ...joined.window(), offset, bytes }, bytes);
    offset += bytes;
  }
  return joined;
}

function releaseAll(files: TensorFiles): void {
  for (const map of Object.values(files)) release(...map.values());
}

/** Throws when what training keeps on the device, known from shapes alone, does not fit the budget. */
function checkMemory({ modules, average, memoryAdvice }: TrainerOptions): void {
  const parameters = [...trainableParameters(modules).values()];
  if (parameters.length === 0) throw new Error('[trainer] nothing to train: every parameter is frozen');
  const { memory } = parameters[0]!.device;
  const bytes = parameters.reduce((total, { size }) => total + size * 4, 0);
  const copies = average === undefined ? 3 : 4; // gradients, two moments, averages
  const needed = memory.live + copies * bytes;
  if (needed <= memory.budget) return;
  const averages = average === undefined ? '' : `, averages ${mebibytes(bytes)}`;
  throw new Error(
    `[trainer] training keeps ${mebibytes(needed)} on the device before any activation: parameters ${mebibytes(bytes)}, ` +
      `gradients ${mebibytes(bytes)}, moments ${mebibytes(2 * bytes)}${averages}, other models and data ` +
      `${mebibytes(memory.live - bytes)}. The budget is ${mebibytes(memory.budget)} (memory.budget). ` +
      (memoryAdvice ?? 'Train fewer modules, do without averages, or raise the budget'),
  );
}
