import { openNodeDevice } from '../engine/node.ts';
import type { Device, DeviceOptions } from '../engine/index.ts';
import '../kernels/index.ts';

let guarded: Promise<Device> | null = null;
let poorest: Promise<Device> | null = null;
let plain: Promise<Device> | null = null;

/** A device with guard words behind every buffer and recycled memory poisoned: for operations. One a file. */
export const guardedDevice = (): Promise<Device> => (guarded ??= openNodeDevice({ guard: true }));

/** The features that kernels have variants without. */
export const OPTIONAL = ['f16', 'subgroups', 'immediates'] as const satisfies DeviceOptions['without'];

/** A guarded device that lacks all that an adapter may lack, with as much workgroup memory as all have. One a file. */
export const poorestDevice = (): Promise<Device> =>
  (poorest ??= openNodeDevice({ guard: true, without: OPTIONAL, workgroupMemory: 16_384 }));

/** A device as users have it: for models and training. One a file. */
export const plainDevice = (): Promise<Device> => (plain ??= openNodeDevice());

/** Closes what the file that ends has opened by these. */
export async function closeDevices(): Promise<void> {
  const open = [guarded, poorest, plain];
  guarded = poorest = plain = null;
  for (const device of open) (await device)?.destroy();
}
