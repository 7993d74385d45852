import { openNodeDevice } from '../engine/node.ts';
import type { Device } from '../engine/index.ts';
import '../kernels/index.ts';

let guarded: Promise<Device> | null = null;
let plain: Promise<Device> | null = null;

/** A device with guard words behind every buffer and recycled memory poisoned: for operations. One a process. */
export const guardedDevice = (): Promise<Device> => (guarded ??= openNodeDevice({ guard: true }));

/** A device as users have it: for models and training. One a process. */
export const plainDevice = (): Promise<Device> => (plain ??= openNodeDevice());
