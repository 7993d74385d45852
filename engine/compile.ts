/** Compiling ahead: all kernels of a program at once, instead of one by one as a first step meets them. */
import type { Device } from './device.ts';
import { Kernel } from './kernel.ts';
import type { Defines, KernelSource } from './kernel.ts';

/** Devices that a software adapter compiles with at most: the longest kernel bounds what more could win. */
const MAX_DEVICES = 4;

/** What a kernel is made of; a `Kernel` of another device is one. */
export interface Specialised {
  readonly source: KernelSource;
  readonly defines: Defines;
}

/**
 * Compiles kernels in parallel and returns how many there were: those that a dry run of the program met, or another
 * device's `kernels()`. Drivers of GPUs compile when the pipeline is made; software adapters when it first runs, on one
 * thread a device. There each kernel is run once, by one workgroup on empty buffers, on several devices that share the
 * driver's cache on disk: measured on two cores, 26 s became 14 s.
 */
export async function compile(
  device: Device,
  kernels: Iterable<Specialised>,
  onProgress?: (done: number, total: number) => void,
): Promise<number> {
  // Longest first, so that no core is left with a long one at the end.
  const mine = [...kernels]
    .map(({ source, defines }) => device.kernel(source, defines))
    .filter((kernel) => !kernel.compiled)
    .sort((a, b) => b.code.length - a.code.length);
  if (mine.length === 0) return 0;
  let done = 0;
  const progress = () => onProgress?.(++done, mine.length);
  if (!device.profile.software) {
    await Promise.all(mine.map((kernel) => kernel.compile().then(progress)));
    return mine.length;
  }
  const count = Math.min(MAX_DEVICES, device.host.cores, mine.length);
  const others = await Promise.all(Array.from({ length: count - 1 }, () => device.openSibling()));
  const queue = [...mine];
  const elsewhere: Kernel[] = [];
  const work = async (gpu: GPUDevice): Promise<void> => {
    for (let kernel = queue.shift(); kernel; kernel = queue.shift()) {
      const own = gpu === device.gpu;
      if (!own) elsewhere.push(kernel);
      await run(device, gpu, own ? kernel : copyFor(gpu, kernel));
      progress();
    }
  };
  await Promise.all([device.gpu, ...others].map(work));
  // What others compiled comes from the driver's cache now.
  for (const kernel of elsewhere) await run(device, device.gpu, kernel);
  for (const other of others) other.destroy();
  return mine.length;
}

const copyFor = (gpu: GPUDevice, { source, defines, uniform }: Kernel): Kernel =>
  new Kernel(gpu, source, defines, { immediates: !uniform, onCompile: () => {} });

/** Runs a kernel once on empty buffers with all parameters zero, and waits for it. */
async function run(device: Device, gpu: GPUDevice, kernel: Kernel): Promise<void> {
  await kernel.compile();
  const size = 4096;
  const buffers = kernel.bindings.map(() => gpu.createBuffer({ size, usage: GPUBufferUsage.STORAGE }));
  if (kernel.uniform) buffers.push(gpu.createBuffer({ size, usage: GPUBufferUsage.UNIFORM }));
  const entries = buffers.map((buffer, binding) => {
    const parameters = binding === kernel.bindings.length; // behind the tensors
    return { binding, resource: { buffer, size: parameters ? kernel.parameterBytes : size } };
  });
  const encoder = gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(kernel.pipeline);
  pass.setBindGroup(0, gpu.createBindGroup({ layout: kernel.layout, entries }), kernel.uniform ? [0] : []);
  if (kernel.immediate) pass.setImmediates!(0, new ArrayBuffer(kernel.parameterBytes), 0, kernel.parameterBytes);
  pass.dispatchWorkgroups(1);
  pass.end();
  gpu.queue.submit([encoder.finish()]);
  await device.host.wait(gpu.queue.onSubmittedWorkDone());
  for (const buffer of buffers) buffer.destroy();
}
