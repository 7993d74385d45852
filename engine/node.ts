import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { create, globals } from 'webgpu';
import { openDevice } from './device.ts';
import { openDryDevice } from './dry.ts';
import type { DryOptions } from './dry.ts';
import type { Device, DeviceOptions, Host } from './device.ts';
import { readTuning } from './tuning.ts';

/** Dawn's instance: once collected, the process would crash, so it stays here for good. */
let instance: GPU | null = null;

const cell = new Int32Array(new SharedArrayBuffer(4));

/**
 * While a promise of the device is pending, Dawn's binding spins the event loop at a whole core, which a software adapter
 * needs itself. Sleeping in each turn leaves the core to it, and the loop free for everything else: briefly at first, so
 * that short work is not seen late, up to a millisecond.
 */
export async function waitFor<T>(promise: Promise<T>): Promise<T> {
  let pending = true;
  const settled = () => void (pending = false);
  promise.then(settled, settled);
  await Promise.resolve();
  for (let slice = 0.02; pending; slice = Math.min(1, slice * 1.25)) {
    Atomics.wait(cell, 0, 0, slice); // milliseconds
    await new Promise((resolve) => setImmediate(resolve));
  }
  return promise;
}

// A context made after the flag is set has the function; nobody else is given it.
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
setFlagsFromString('--no-expose-gc');

const host: Host = {
  readText: (url) => readFile(url, 'utf8'),
  tuning: readTuning,
  wait: waitFor,
  collect,
  cores: availableParallelism(),
};

/** Opens the default adapter through Dawn. */
export async function openNodeDevice(options: DeviceOptions & { toggles?: readonly string[] } = {}): Promise<Device> {
  process.env['XDG_RUNTIME_DIR'] ??= '/tmp'; // without it the loader prints a warning
  Object.assign(globalThis, globals);
  // f16 on NVIDIA needs its toggle, and subgroup matrices the memory model's; quantised timestamps would round kernels'
  // times to 65 µs.
  const toggles = [
    'allow_unsafe_apis',
    'vulkan_enable_f16_on_nvidia',
    'use_vulkan_memory_model',
    ...(options.toggles ?? []),
  ];
  instance ??= create([`enable-dawn-features=${toggles.join(',')}`, 'disable-dawn-features=timestamp_quantization']);
  return openDevice(instance, host, options);
}

/** Opens a device that takes every step and computes nothing; see `dry.ts`. */
export function openNodeDryDevice(options: DryOptions = {}): Promise<Device> {
  Object.assign(globalThis, globals); // the names of buffer usages
  return openDryDevice(host, options);
}
