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
}

export interface MeasureOptions {
  /** How long to go on; at least five runs in any case. */
  readonly seconds: number;
  /** Called after the first runs and before those that count. */
  readonly onWarm?: () => void;
}

/** Times a task. Returns the first run's milliseconds beside the measurement: compilation is in it. */
export async function measure(
  device: Device,
  { name, flops, run }: Task,
  { seconds, onWarm = () => {} }: MeasureOptions,
): Promise<{ measurement: Measurement; first: number }> {
  const drained = async () => {
    await run();
    await device.drain();
  };
  const began = performance.now();
  await drained();
  const first = performance.now() - began;
  // The second and third run find their buffers and bind groups again, or make the last ones.
  await drained();
  await drained();
  onWarm();
  const bench = new Bench({ warmup: false, time: seconds * 1000, iterations: 5, throws: true });
  bench.add(name, drained);
  const [task] = await bench.run();
  const { result } = task!;
  if (result.state !== 'completed') throw new Error(`[bench] ${name} did not complete: ${result.state}`);
  const { p50, min, samplesCount } = result.latency;
  return { measurement: { name, ms: p50, min, runs: samplesCount, gflops: flops / p50 / 1e6 }, first };
}

/** One line of JSON, rounded to what is meaningful. */
export const toJson = ({ name, ms, min, runs, gflops }: Measurement, more: object = {}): string =>
  JSON.stringify({ name, ms: Number(ms.toFixed(3)), min: Number(min.toFixed(3)), runs, gflops: Number(gflops.toFixed(2)), ...more }); // prettier-ignore
