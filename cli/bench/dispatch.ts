/** What a dispatch costs the host, and what it costs until the device is done: many small ones, each on the last one's result. */
import { capture, release, scope, tensor } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { softmax } from '../../kernels/index.ts';

export interface DispatchCost {
  readonly how: string;
  /** Dispatches that were timed at once. */
  readonly dispatches: number;
  /** Microseconds of a dispatch until the host has recorded all, the device working meanwhile. */
  readonly recorded: number;
  /** Microseconds of a dispatch until the device is done with all. */
  readonly done: number;
  /** Pipelines, buffers and bind groups made: 0 with warm caches. */
  readonly made: number;
}

/** Rounds, of which the median is given. */
const ROUNDS = 5;

/** Dispatches of the captured step that is replayed. */
const STEP = 100;

/** Eager, through the operation and its scope, and replayed. The operation is a softmax of eight numbers. */
export async function dispatchCosts(device: Device, count: number): Promise<DispatchCost[]> {
  const start = tensor(device, [1, 2, 3, 4, 5, 6, 7, 8]);
  /** Each result is released as soon as the next one is made of it, so that two buffers take turns. */
  const eager = () => {
    let x = start;
    for (let i = 0; i < count; i++) {
      const next = scope(device, () => softmax(x));
      if (x !== start) release(x);
      x = next;
    }
    if (x !== start) release(x);
  };
  const step = capture(device, () => {
    let x = start;
    for (let i = 0; i < STEP; i++) x = softmax(x);
    return x;
  });
  const replayed = () => {
    for (let i = 0; i < count; i += STEP) step.run();
  };
  const costs = [await cost(device, 'eager', count, eager), await cost(device, 'replayed', count, replayed)];
  step.release();
  release(start);
  return costs;
}

async function cost(device: Device, how: string, dispatches: number, run: () => void): Promise<DispatchCost> {
  run(); // finds out what it needs
  await device.drain();
  const { memory, stream } = device;
  const made = () => device.pipelines + memory.created + stream.bindGroups;
  const before = made();
  const [recorded, done]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    const began = performance.now();
    run();
    recorded.push(performance.now() - began);
    await device.drain();
    done.push(performance.now() - began);
  }
  const each = (times: number[]) => (times.sort((a, b) => a - b)[ROUNDS >> 1]! * 1000) / dispatches;
  return { how, dispatches, recorded: each(recorded), done: each(done), made: made() - before };
}
