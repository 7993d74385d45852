import { typed, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';

const source = wgsl(import.meta.url, './parts.wgsl');

/** out = the sum of `parts` (count, …) in f32, in their order. */
export function addParts(parts: Tensor, out: Tensor): void {
  const { device } = out;
  const params = { count: parts.shape[0]!, size: out.size };
  device.run(device.kernel(source, typed(out)), [parts, out], params, Math.ceil(out.size / 64));
}
