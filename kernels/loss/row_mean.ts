import { empty, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';

const source = wgsl(import.meta.url, './cross_entropy_mean.wgsl');

/** NaN for kernels to write: WGSL has no literal for it. */
export const NAN_BITS = 0x7fc00000;

/** The mean of `losses` (rows) without those whose target is `ignored` (0 where all are), and their number, both (1). */
export function rowMean(losses: Tensor, targets: Tensor, ignored: number): { mean: Tensor; count: Tensor } {
  const { device } = losses;
  const mean = empty(device, []);
  const count = empty(device, [1]);
  device.run(device.kernel(source), [losses, targets, mean, count], { rows: losses.size, ignored }, 1);
  return { mean, count };
}
