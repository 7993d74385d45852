import type { Device } from '../../engine/index.ts';

/** Bytes that somebody holds. Attention's lists of key blocks are not counted: they are made once and stay. */
export function heldBytes(device: Device): number {
  return device.memory.live - (device.memory.usage.get('attention lists')?.live ?? 0);
}
