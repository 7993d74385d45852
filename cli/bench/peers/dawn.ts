/** What tfjs and jax-js take for a browser: the same Dawn that this project runs on. */
import { create, globals } from 'webgpu';

let instance: GPU | null = null; // once collected, the process would crash

export function pretendBrowser(): void {
  Object.assign(globalThis, globals, { self: globalThis });
  instance ??= create([]);
  Object.defineProperty(globalThis, 'navigator', { value: { gpu: instance, userAgent: 'node' }, configurable: true });
}
