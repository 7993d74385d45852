/** Where the device's time goes: each dispatch alone in a pass with a timestamp at either end. */
import type { Device, Kernel } from '../../engine/index.ts';

/** Queries of one set: WebGPU's limit. */
const QUERIES = 4096;

export interface KernelShare {
  /** The kernel's file and the defines that it was specialised by. */
  readonly kernel: string;
  readonly calls: number;
  readonly ms: number;
}

/**
 * Runs `body` once with every dispatch in a pass and a submission of its own, and adds up the time by kernel, longest first.
 * The device's time alone: what lies between dispatches, and the host, do not count. Decorates the device meanwhile.
 */
export async function profile(device: Device, body: () => void | Promise<void>): Promise<KernelShare[]> {
  if (!device.profile.timestamps) throw new Error('[bench] this adapter has no timestamps: --profile cannot work');
  const { gpu, stream } = device;
  const sets: GPUQuerySet[] = [];
  const kernels: Kernel[] = [];
  const createCommandEncoder = gpu.createCommandEncoder.bind(gpu);
  const dispatch = stream.dispatch.bind(stream);
  gpu.createCommandEncoder = () => {
    const encoder = createCommandEncoder();
    const beginComputePass = encoder.beginComputePass.bind(encoder);
    encoder.beginComputePass = () => {
      const at = (2 * kernels.length) % QUERIES;
      if (at === 0) sets.push(gpu.createQuerySet({ type: 'timestamp', count: QUERIES }));
      return beginComputePass({
        timestampWrites: { querySet: sets.at(-1)!, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 },
      });
    };
    return encoder;
  };
  stream.dispatch = (kernel, ...rest) => {
    stream.flush(); // so that the dispatch begins a pass
    dispatch(kernel, ...rest);
    kernels.push(kernel);
    stream.flush();
  };
  try {
    stream.flush();
    await body();
    await device.drain();
  } finally {
    delete (gpu as Partial<GPUDevice>).createCommandEncoder; // uncovers the real ones again
    delete (stream as Partial<typeof stream>).dispatch;
  }
  const times = (await Promise.all(sets.map((set) => readTimestamps(device, set)))).flatMap((part) => [...part]);
  const shares = new Map<string, { calls: number; ms: number }>();
  kernels.forEach(({ label }, i) => {
    const share = shares.get(label) ?? { calls: 0, ms: 0 };
    share.calls++;
    share.ms += Number(times[2 * i + 1]! - times[2 * i]!) / 1e6;
    shares.set(label, share);
  });
  return [...shares].map(([kernel, share]) => ({ kernel, ...share })).sort((a, b) => b.ms - a.ms);
}

/** Nanoseconds of every query of a set, which is destroyed. */
async function readTimestamps({ gpu }: Device, set: GPUQuerySet): Promise<BigUint64Array> {
  const size = 8 * QUERIES;
  const resolved = gpu.createBuffer({ size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
  const staging = gpu.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = gpu.createCommandEncoder();
  encoder.resolveQuerySet(set, 0, QUERIES, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, staging, 0, size);
  gpu.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const times = new BigUint64Array(staging.getMappedRange().slice(0));
  for (const used of [set, resolved, staging]) used.destroy();
  return times;
}
