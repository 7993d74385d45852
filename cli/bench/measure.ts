/** Timing by tinybench: the device is drained after each run, and the first run, which compiles, is kept apart. */
import { Bench } from 'tinybench';
import type { Device } from '../../engine/index.ts';

export interface Measurement {
  readonly name: string;
  /** Milliseconds of a run: the median. */
  readonly ms: number;
  readonly min: number;
  readonly runs: number;
  /** 10⁹ arithmetic operations a second, at the median. */
  readonly gflops: number;
}

export interface Task {
  readonly name: string;
  /** Arithmetic operations of one run. */
  readonly flops: number;
  /** Records the work; inputs lie on the device. */
  readonly run: () => void | Promise<void>;
  /** The same with inputs copied in and the result copied out. */
  readonly withCopies?: () => Promise<void>;
}

export interface MeasureOptions {
  /** How long to go on; at least five runs in any case. */
  readonly seconds: number;
  /** Called after the very first run. */
  readonly onFirst?: () => void;
  /** Called after the first runs and before those that count. */
  readonly onWarm?: () => void;
}

/** Milliseconds of runs that go on for so many seconds, at least five: the median and the least of them. */
export async function time(
  run: () => Promise<void>,
  seconds: number,
): Promise<{ ms: number; min: number; runs: number }> {
  const bench = new Bench({ warmup: false, time: seconds * 1000, iterations: 5, throws: true });
  bench.add('runs', run);
  const [task] = await bench.run();
  const { result } = task!;
  if (result.state !== 'completed') throw new Error(`[bench] the runs did not complete: ${result.state}`);
  const { p50, min, samplesCount } = result.latency;
  return { ms: p50, min, runs: samplesCount };
}

/**
 * Times a task. Returns the first run's milliseconds beside the measurement, compilation in it, and those of a run with
 * copies (the median) where the task has one.
 */
export async function measure(
  device: Device,
  { name, flops, run, withCopies }: Task,
  { seconds, onFirst = () => {}, onWarm = () => {} }: MeasureOptions,
): Promise<{ measurement: Measurement; first: number; msWithCopies: number | null }> {
  const drained = async () => {
    await run();
    await device.drain();
  };
  const began = performance.now();
  await drained();
  const first = performance.now() - began;
  onFirst();
  // The second and third run find their buffers and bind groups again, or make the last ones.
  await drained();
  await drained();
  onWarm();
  const { ms, ...rest } = await time(drained, seconds);
  const measurement = { name, ms, ...rest, gflops: flops / ms / 1e6 };
  return { measurement, first, msWithCopies: withCopies ? (await time(withCopies, seconds)).ms : null };
}

/** One line of JSON, rounded to what is meaningful. */
export const toJson = ({ name, ms, min, runs, gflops }: Measurement, more: object = {}): string =>
  JSON.stringify({ name, ms: Number(ms.toFixed(3)), min: Number(min.toFixed(3)), runs, gflops: Number(gflops.toFixed(2)), ...more }); // prettier-ignore
