/** Where the device's time goes: each dispatch alone in a pass with a timestamp at either end. */
import type { Device, Kernel } from '../../engine/index.ts';
import type { Command } from '../../engine/stream.ts';
import { bytesOf, operationsOf } from './work.ts';

/** Queries of one set: WebGPU's limit. */
const QUERIES = 4096;

/** One dispatch of a profile. */
export interface Dispatch {
  /** The kernel's file and the defines that it was specialised by. */
  readonly kernel: string;
  /** When the host recorded it, in milliseconds of `performance.now()`, and how long that took. */
  readonly recorded: number;
  readonly recording: number;
  /** When the device began it, in milliseconds of the same clock as far as it can be told, and how long that took. */
  readonly began: number;
  readonly ms: number;
  /** Of all that it binds, each of which it reads or writes once; null where it touches a part alone. */
  readonly bytes: number | null;
  /** Arithmetic operations, where they can be told from the parameters; see `operationsOf`. */
  readonly operations: number | null;
}

/**
 * Runs `body` once with every dispatch in a pass and a submission of its own, and returns them in order. The device's time
 * alone: what lies between dispatches, and the host, do not count. Decorates the device meanwhile.
 */
export async function profile(device: Device, body: () => void | Promise<void>): Promise<Dispatch[]> {
  if (!device.profile.timestamps) throw new Error('[bench] this adapter has no timestamps: --profile cannot work');
  const { gpu, stream } = device;
  const sets: GPUQuerySet[] = [];
  const recorded: Omit<Dispatch, 'began' | 'ms'>[] = [];
  const createCommandEncoder = gpu.createCommandEncoder.bind(gpu);
  const dispatch = stream.dispatch.bind(stream);
  let timed = false; // whether the next pass is a dispatch of the stream, and nobody else's
  gpu.createCommandEncoder = () => {
    const encoder = createCommandEncoder();
    const beginComputePass = encoder.beginComputePass.bind(encoder);
    encoder.beginComputePass = (descriptor) => {
      if (!timed) return beginComputePass(descriptor);
      const at = (2 * recorded.length) % QUERIES;
      if (at === 0) sets.push(gpu.createQuerySet({ type: 'timestamp', count: QUERIES }));
      return beginComputePass({
        timestampWrites: { querySet: sets.at(-1)!, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 },
      });
    };
    return encoder;
  };
  stream.dispatch = (kernel, windows, params, groups) => {
    stream.flush(); // so that the dispatch begins a pass
    timed = true;
    const began = performance.now();
    dispatch(kernel, windows, params, groups);
    recorded.push({
      kernel: kernel.label,
      recorded: began,
      recording: performance.now() - began,
      bytes: bytesOf(kernel.source.name, windows),
      operations: operationsOf(kernel.source.name, params),
    });
    timed = false;
    stream.flush();
  };
  // A replay's commands go the way of all others, so that they are seen.
  stream.replay = (commands) => {
    for (const command of commands) {
      if ('kernel' in command) stream.dispatch(command.kernel, command.windows, unpack(command), command.groups);
      else if ('clear' in command) stream.clear(command.clear);
      else stream.copy(command.source, command.target, command.bytes);
    }
  };
  try {
    stream.flush();
    await body();
    await device.drain();
  } finally {
    delete (gpu as Partial<GPUDevice>).createCommandEncoder; // uncovers the real ones again
    delete (stream as Partial<typeof stream>).dispatch;
    delete (stream as Partial<typeof stream>).replay;
  }
  const times = (await Promise.all(sets.map((set) => readTimestamps(device, set)))).flatMap((part) => [...part]);
  // The device's clock has another beginning: its first dispatch is taken to have begun as soon as it was recorded.
  const first = recorded[0];
  const milliseconds = (i: number) => Number(times[i]! - times[0]!) / 1e6;
  return recorded.map((one, i) => ({
    ...one,
    began: first!.recorded + first!.recording + milliseconds(2 * i),
    ms: milliseconds(2 * i + 1) - milliseconds(2 * i),
  }));
}

/** The parameters of a captured dispatch, by name. */
function unpack({ kernel, data, variables }: Extract<Command, { readonly kernel: Kernel }>): Record<string, number> {
  const params: Record<string, number> = {};
  kernel.fields.forEach(({ name, type }, i) => {
    if (type === 'f32') params[name] = data.getFloat32(4 * i, true);
    else params[name] = type === 'u32' ? data.getUint32(4 * i, true) : data.getInt32(4 * i, true);
  });
  for (const { index, variable } of variables) params[kernel.fields[index]!.name] = variable.value;
  return params;
}

/** Nanoseconds of every query of a set, which is destroyed. */
async function readTimestamps({ gpu, host }: Device, set: GPUQuerySet): Promise<BigUint64Array> {
  const size = 8 * QUERIES;
  const resolved = gpu.createBuffer({ size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
  const staging = gpu.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = gpu.createCommandEncoder();
  encoder.resolveQuerySet(set, 0, QUERIES, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, staging, 0, size);
  gpu.queue.submit([encoder.finish()]);
  await host.wait(staging.mapAsync(GPUMapMode.READ));
  const times = new BigUint64Array(staging.getMappedRange().slice(0));
  for (const used of [set, resolved, staging]) used.destroy();
  return times;
}

/** What an adapter does at most: measured, not read from a data sheet. */
export interface Ceilings {
  /** 10⁹ bytes a second, read and written. */
  readonly gigabytes: number;
  /** 10⁹ multiply-adds in f32 a second, counted as two operations. */
  readonly gflops: number;
}

/** All dispatches of one kernel. */
export interface KernelShare {
  readonly kernel: string;
  readonly calls: number;
  readonly ms: number;
  /** 10⁹ operations a second, where they are known of every call. */
  readonly gflops: number | null;
  /** 10⁹ bytes a second, where they are known of every call. */
  readonly gigabytes: number | null;
  /** How much of its time it would take at the nearer one of the ceilings, from 0 to 1. */
  readonly ceiling: number | null;
}

/** Adds up a profile by kernel, longest first. */
export function byKernel(dispatches: readonly Dispatch[], ceilings: Ceilings): KernelShare[] {
  const sums = new Map<string, { calls: number; ms: number; bytes: number | null; operations: number | null }>();
  const add = (a: number | null, b: number | null) => (a === null || b === null ? null : a + b);
  for (const { kernel, ms, bytes, operations } of dispatches) {
    const sum = sums.get(kernel) ?? { calls: 0, ms: 0, bytes: 0, operations: 0 };
    const both = { bytes: add(sum.bytes, bytes), operations: add(sum.operations, operations) };
    sums.set(kernel, { calls: sum.calls + 1, ms: sum.ms + ms, ...both });
  }
  return [...sums]
    .map(([kernel, { calls, ms, bytes, operations }]) => {
      const gflops = operations === null ? null : operations / ms / 1e6;
      const gigabytes = bytes === null ? null : bytes / ms / 1e6;
      const shares = [(gflops ?? 0) / ceilings.gflops, (gigabytes ?? 0) / ceilings.gigabytes];
      const ceiling = gflops === null && gigabytes === null ? null : Math.max(...shares);
      return { kernel, calls, ms, gflops, gigabytes, ceiling };
    })
    .sort((a, b) => b.ms - a.ms);
}
