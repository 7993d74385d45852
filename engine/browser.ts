import { openDevice } from './device.ts';
import type { Device, DeviceOptions, Host } from './device.ts';

const host: Host = {
  async readText(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`[device] ${url.pathname}: ${response.status} ${response.statusText}`);
    return response.text();
  },
  wait: (promise) => promise,
  cores: navigator.hardwareConcurrency,
};

/** Opens the browser's default adapter. */
export async function openBrowserDevice(options: DeviceOptions = {}): Promise<Device> {
  if (!('gpu' in navigator)) throw new Error('[device] this browser has no WebGPU (navigator.gpu is missing)');
  return openDevice(navigator.gpu, host, options);
}
