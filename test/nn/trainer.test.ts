import { EventEmitter } from 'node:events';
import { appendFile, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { HostRandom, randomKey, tensor } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { add, affine, dropout, mean, mul, randomNormal, square, sub, sum } from '../../kernels/index.ts';
import { MetricsFile } from '../../nn/metrics.ts';
import { Module } from '../../nn/module.ts';
import { DataOrder } from '../../nn/order.ts';
import { duration, Progress } from '../../nn/progress.ts';
import { schedule } from '../../nn/schedule.ts';
import { Trainer } from '../../nn/trainer.ts';
import type { Losses, Pass, TrainerOptions } from '../../nn/trainer.ts';
import { plainDevice } from '../device.ts';

let device: Device;
let root: string;
beforeAll(async () => {
  device = await plainDevice();
  root = await mkdtemp(path.join(tmpdir(), 'trainer-'));
});
afterAll(() => rm(root, { recursive: true }));

const SEED = 11;
const WIDTH = 9;

/** y = x · w + b for rows x, as products and sums. */
class Line extends Module {
  w: Tensor;
  b: Tensor;

  constructor(seed = SEED) {
    super(device);
    this.w = this.parameter('w', [WIDTH], { normal: 1 });
    this.b = this.parameter('b', [1], { constant: 0 });
    this.initialize(seed);
  }

  /** (N, WIDTH) → (N,) */
  forward(x: Tensor): Tensor {
    return add(sum(mul(x, this.w), [1]), this.b);
  }
}

const ITEMS = 7;
const items = Array.from({ length: ITEMS }, (_, i) => new HostRandom(randomKey(1, 'items'), i).normal(WIDTH + 1));
const key = randomKey(SEED, 'noise');

/** Regression on shuffled items, with noise and dropout: every kind of randomness that a run has. */
const task =
  (model: Line, batch = 2) =>
  ({ pass }: Pass): Losses => {
    const chosen = new DataOrder(ITEMS, SEED).batch(pass, batch).map((i) => items[i]!);
    const x = tensor(
      device,
      chosen.flatMap((item) => [...item.slice(0, WIDTH)]),
      [batch, WIDTH],
    );
    const y = tensor(
      device,
      chosen.map((item) => item[WIDTH]!),
    );
    const noisy = add(x, affine(randomNormal(device, x.shape, key, { step: pass }), 0.1));
    const error = mean(square(sub(model.forward(dropout(noisy, 0.2, key, { sample: 1, step: pass })), y)));
    return { loss: error, twice: affine(error, 2) };
  };

/** What the trainer writes to. */
class Screen extends EventEmitter {
  text = '';
  isTTY = false;
  columns = 80;
  write(text: string): boolean {
    this.text += text;
    return true;
  }
}
const asStream = (screen: Screen) => screen as unknown as NodeJS.WriteStream;

function makeTrainer(name: string, changed: Partial<TrainerOptions> = {}, model = new Line()) {
  const screen = new Screen();
  const signals = new EventEmitter();
  const trainer = new Trainer({
    modules: { line: model },
    forward: task(model),
    steps: 8,
    schedule: schedule({ kind: 'cosine', rate: 0.05, warmup: 3, steps: 8 }),
    optimizer: { maxNorm: 1 },
    average: 0.9,
    folder: path.join(root, name),
    identity: { seed: SEED },
    stream: asStream(screen),
    signals,
    ...changed,
  });
  return { trainer, model, screen, signals, done: () => (trainer.release(), model.release()) };
}

/** All that a run leaves: every file of its last checkpoint (without the folder's name), and its metrics. */
async function leavings(name: string, step: number): Promise<Record<string, string>> {
  const folder = path.join(root, name, 'checkpoints', `step-${String(step).padStart(6, '0')}`);
  const found: Record<string, string> = { metrics: await readFile(path.join(root, name, 'metrics.csv'), 'utf8') };
  for (const file of await readdir(folder)) found[file] = await readFile(path.join(folder, file), 'base64');
  return found;
}

describe('Trainer', () => {
  it('lowers the loss, and writes down every step', async () => {
    const steps: number[] = [];
    const model = new Line();
    const run = makeTrainer(
      'plain',
      { steps: 60, schedule: () => 0.05, forward: task(model, ITEMS), onStep: ({ step }) => steps.push(step) },
      model,
    );
    expect(await run.trainer.run()).toEqual({ interrupted: false });
    expect(steps).toEqual(Array.from({ length: 60 }, (_, i) => i + 1));
    const [header, ...rows] = (await readFile(path.join(root, 'plain', 'metrics.csv'), 'utf8')).trim().split('\n');
    expect(header).toBe('step,loss,twice,learning_rate,gradient_norm,skipped');
    const losses = rows.map((row) => Number(row.split(',')[1]));
    expect(losses.length).toBe(60);
    expect(Math.max(...losses.slice(-10))).toBeLessThan(Math.min(...losses.slice(0, 5)));
    rows.forEach((row) => {
      const [, loss, twice, , , skipped] = row.split(',').map(Number);
      expect(twice).toBeCloseTo(2 * loss!, 4);
      expect(skipped).toBe(0);
    });
    expect(run.screen.text).toMatch(/step 60\/60 {2}loss [\d.]+ {2}twice .* steps\/s {2}ETA 0 s {2}\d+ MiB/);
    // Moments as well, unless other tests' models in this process make them too small a share to be named.
    expect(run.screen.text).toMatch(/Memory of a step: [\d.]+ MiB \(.*parameters /);
    run.done();
  });

  it('stopped and resumed is never having stopped, bit for bit', async () => {
    const straight = makeTrainer('straight');
    await straight.trainer.run();
    straight.done();

    // Interrupted after step 3, and once more by a crash after step 5 that leaves rows behind the last checkpoint.
    const first = makeTrainer('stopped', {
      onStep: ({ step }) => void (step === 3 && first.signals.emit('SIGINT', 'SIGINT')),
    });
    const exitCode = process.exitCode;
    expect(await first.trainer.run()).toEqual({ interrupted: true });
    expect(process.exitCode).toBe(130);
    process.exitCode = exitCode;
    const at = first.trainer.completed;
    expect(at).toBeGreaterThanOrEqual(3);
    expect(at).toBeLessThan(8);
    expect(first.screen.text).toMatch(new RegExp(`Stopped after step ${at} of 8, saved in .*checkpoints. Resume`));
    first.done();

    const crash = makeTrainer('stopped', { resume: true, onStep: ({ step }) => { if (step === 6) throw new Error('crash'); } }, new Line(99)); // prettier-ignore
    await expect(crash.trainer.run()).rejects.toThrow('crash');
    crash.done();
    await appendFile(path.join(root, 'stopped', 'metrics.csv'), '7,0.5,1');
    const last = makeTrainer('stopped', { resume: true }, new Line(99));
    await last.trainer.run();
    expect(last.screen.text).toMatch(/Resumed from .*step-00000/);
    last.done();
    expect(await leavings('stopped', 8)).toEqual(await leavings('straight', 8));
  });

  it('uses the checkpoint before a damaged one, and gives the same bits again', async () => {
    const run = makeTrainer('damaged', { checkpointEvery: 3 });
    await run.trainer.run();
    run.done();
    const checkpoints = path.join(root, 'damaged', 'checkpoints');
    expect(await readdir(checkpoints)).toEqual(['step-000003', 'step-000006', 'step-000008']);
    const expected = await leavings('damaged', 8);
    await truncate(path.join(checkpoints, 'step-000008', 'averages.safetensors'), 10);
    await truncate(path.join(checkpoints, 'step-000006', 'manifest.json'), 10);
    const again = makeTrainer('damaged', { resume: true }, new Line(99));
    await again.trainer.run();
    expect(again.screen.text).toMatch(/step-000008 is damaged.*step-000006 is damaged.*Resumed from .*step-000003/s);
    again.done();
    expect(await leavings('damaged', 8)).toEqual(expected);
  });

  it('averages the gradients of accumulated passes', async () => {
    const batch = (model: Line, rows: number, from: (pass: number) => number) => ({ pass }: Pass): Losses => {
      const chosen = Array.from({ length: rows }, (_, i) => items[(from(pass) + i) % ITEMS]!);
      const x = tensor(device, chosen.flatMap((item) => [...item.slice(0, WIDTH)]), [rows, WIDTH]);
      const y = tensor(device, chosen.map((item) => item[WIDTH]!));
      return { loss: mean(square(sub(model.forward(x), y))) };
    }; // prettier-ignore
    const results: Float32Array[] = [];
    for (const accumulation of [1, 3]) {
      const model = new Line();
      const rows = 6 / accumulation;
      const run = makeTrainer(`accumulated-${accumulation}`, {
        modules: { line: model }, forward: batch(model, rows, (pass) => pass * rows), accumulation, steps: 4,
      }); // prettier-ignore
      await run.trainer.run();
      results.push((await model.w.read()) as Float32Array);
      run.trainer.release();
      model.release();
    }
    results[0]!.forEach((value, i) => expect(results[1]![i]).toBeCloseTo(value, 4));
    const csv = (n: number) => readFile(path.join(root, `accumulated-${n}`, 'metrics.csv'), 'utf8');
    const [one, three] = [await csv(1), await csv(3)].map((text) => text.split('\n')[1]!.split(',').map(Number));
    expect(three![1]).toBeCloseTo(one![1]!, 4);
  });

  it('calls back between steps, with the weights of that step', async () => {
    const seen: [number, number][] = [];
    const run = makeTrainer('callbacks', {
      callbacks: [{ every: 3, run: async (step, trainer) => void seen.push([step, (await trainer.arena.parameters.get('line.b')!.item())]) }], // prettier-ignore
      checkpointEvery: 3,
    });
    await run.trainer.run();
    run.done();
    expect(seen.map(([step]) => step)).toEqual([3, 6]);
    for (const [step, value] of seen) {
      const again = makeTrainer(`callbacks-${step}`, { steps: step });
      await again.trainer.run();
      expect(await again.model.b.item()).toBe(value);
      again.done();
    }
  });

  it('takes no memory and compiles nothing in a steady step', async () => {
    const counts: number[][] = [];
    const run = makeTrainer('steady', { onStep: () => counts.push([device.memory.created, device.pipelines]) });
    await run.trainer.run();
    run.done();
    for (const [created, pipelines] of counts.slice(3)) expect([created, pipelines]).toEqual(counts[3]);
  });

  it('leaves a run alone unless told to resume it, and refuses to resume another', async () => {
    const run = makeTrainer('taken', { steps: 2 });
    await run.trainer.run();
    run.done();
    const attempts: [Partial<TrainerOptions>, RegExp][] = [
      [{}, /taken already holds a run, up to step 2\. Resume it, or choose another folder/],
      [{ resume: true, identity: { seed: 12 } }, /was made with seed = 11, this run has 12/],
      [{ resume: true, accumulation: 2 }, /was made with accumulation = 1, this run has 2/],
      [{ resume: true, average: undefined }, /was made with average = 0\.9, this run has null/],
    ];
    for (const [options, message] of attempts) {
      const other = makeTrainer('taken', options);
      await expect(other.trainer.run()).rejects.toThrow(message);
      other.done();
    }
    const model = new Line();
    const other = makeTrainer('taken', { resume: true, modules: { model }, forward: task(model) });
    await expect(other.trainer.run()).rejects.toThrow(
      /another model's: it has no model\.w; it has no model\.b; it has line/,
    );
    other.trainer.release();
    model.release();
  });

  it('says when a plan exceeds the memory budget, before anything is allocated', () => {
    const { budget } = device.memory;
    const model = new Line();
    const created = device.memory.created;
    try {
      device.memory.budget = device.memory.live + 100;
      expect(() => makeTrainer('plan', {}, model)).toThrow(
        /training keeps .* parameters .* gradients .* moments .* averages .* budget is .*memory\.budget.* Train fewer modules/,
      );
      expect(() => makeTrainer('plan', { memoryAdvice: 'Set train.text_encoder=false' }, model)).toThrow(
        'Set train.text',
      );
      expect(device.memory.created).toBe(created);
    } finally {
      device.memory.budget = budget;
      model.release();
    }
  });

  it('gives up after ten steps whose gradients are not finite', async () => {
    const model = new Line();
    const run = makeTrainer('infinite', {
      modules: { line: model },
      forward: () => ({ loss: mean(square(affine(square(affine(model.w, 1e18)), 1e18))) }),
      steps: 100,
    });
    const before = await model.w.read();
    await expect(run.trainer.run()).rejects.toThrow(/gradients of 10 steps in a row, up to step 10, were not finite/);
    expect(await model.w.read()).toEqual(before);
    expect(run.screen.text).toContain('Step 1 changed nothing: 9 gradient values were not finite');
    run.trainer.release();
    model.release();
  });

  it('quits at once on a second signal', async () => {
    const exit = vi.spyOn(process, 'exit').mockImplementation(() => undefined as never);
    const exitCode = process.exitCode;
    const run = makeTrainer('twice', {
      onStep: ({ step }) => {
        if (step !== 2) return;
        run.signals.emit('SIGINT', 'SIGINT');
        run.signals.emit('SIGINT', 'SIGINT'); // passed on by npm
        expect(exit).not.toHaveBeenCalled();
        const later = performance.now() + 1000;
        const clock = vi.spyOn(performance, 'now').mockReturnValue(later);
        run.signals.emit('SIGTERM', 'SIGTERM');
        clock.mockRestore();
      },
    });
    await run.trainer.run();
    expect(exit).toHaveBeenCalledExactlyOnceWith(130);
    exit.mockRestore();
    process.exitCode = exitCode;
    expect(run.signals.listenerCount('SIGINT')).toBe(0);
    run.done();
  });

  it('refuses losses that change or are no numbers', async () => {
    const model = new Line();
    const bad: [TrainerOptions['forward'], RegExp][] = [
      [() => ({ loss: model.w }), /loss must be one number, not \(9,\)/],
      [({ step }) => ({ loss: mean(model.w), ...(step === 1 ? { more: mean(model.w) } : {}) }), /the losses were loss and are now loss, more/], // prettier-ignore
    ];
    for (const [i, [forward, message]] of bad.entries()) {
      const run = makeTrainer(`losses-${i}`, { modules: { line: model }, forward });
      await expect(run.trainer.run()).rejects.toThrow(message);
      run.trainer.release();
    }
    model.release();
  });
});

describe('MetricsFile', () => {
  it('goes on where a checkpoint was, and refuses another run’s columns', async () => {
    const file = path.join(root, 'm.csv');
    await writeFile(file, 'old');
    const metrics = await MetricsFile.open(file, ['loss'], 0);
    for (const step of [1, 2, 10, 11]) await metrics.append(step, { loss: step / 3 });
    await appendFile(file, '12,4');
    const whole = await readFile(file, 'utf8');
    expect(whole).toBe('step,loss\n1,0.3333333\n2,0.6666667\n10,3.333333\n11,3.666667\n12,4');
    await (await MetricsFile.open(file, ['loss'], 10)).append(11, { loss: 1 });
    expect(await readFile(file, 'utf8')).toBe('step,loss\n1,0.3333333\n2,0.6666667\n10,3.333333\n11,1\n');
    await expect(MetricsFile.open(file, ['loss', 'more'], 10)).rejects.toThrow(/columns step,loss, .* step,loss,more/);
    await rm(file);
    await expect(MetricsFile.open(file, ['loss'], 10)).rejects.toThrow(/cannot read .*m\.csv to go on from step 10/);
  });
});

describe('DataOrder', () => {
  it('is a permutation each epoch, by seed and epoch alone', () => {
    const order = new DataOrder(10, 3);
    const epochs = [0, 1].map((epoch) => order.batch(epoch, 10));
    for (const epoch of epochs) expect([...epoch].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(epochs[0]).not.toEqual(epochs[1]);
    expect(new DataOrder(10, 3).at(13)).toBe(epochs[1]![3]);
    expect(new DataOrder(10, 3).batch(5, 3)).toEqual([...epochs[1]!.slice(5, 8)]);
    expect(new DataOrder(10, 4).batch(0, 10)).not.toEqual(epochs[0]);
    expect(() => new DataOrder(0, 1)).toThrow('no items');
  });
});

describe('Progress', () => {
  it('draws a bar on a terminal, and puts lines above it', () => {
    const screen = Object.assign(new Screen(), { isTTY: true, cursorTo: () => true, moveCursor: () => true, clearLine: () => true }); // prettier-ignore
    const progress = new Progress(10, 2, { stream: asStream(screen as Screen) });
    progress.update(4, { loss: 0.123456 }, 3 << 20);
    progress.line('a line');
    progress.stop();
    expect(screen.text).toContain('a line');
    expect(screen.text).toMatch(/step 4\/10 .* {2}loss 0\.1235 {2}.*steps\/s {2}ETA .* 3 MiB/);
  });

  it('says durations as people do', () => {
    expect([0.4, 59, 61, 3599, 7500].map(duration)).toEqual(['0 s', '59 s', '1 min 01 s', '59 min 59 s', '2 h 05 min']);
  });
});
