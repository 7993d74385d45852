/** What the adapter at hand does at most. */
import { empty, release, wgsl } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { time } from './measure.ts';
import type { Ceilings } from './profile.ts';

const copySource = wgsl(import.meta.url, './ceiling_copy.wgsl');
const fmaSource = wgsl(import.meta.url, './ceiling_fma.wgsl');

const BYTES = 2 ** 26;
/** Multiply-adds of one invocation and round: eight chains of sixteen steps. */
const MULTIPLY_ADDS = 8 * 16;

/** Measures both ceilings, for about a second. The best run counts: nothing is faster than it can be. */
export async function measureCeilings(device: Device): Promise<Ceilings> {
  const [x, out] = [empty(device, [BYTES / 4]), empty(device, [BYTES / 4])];
  const best = async (record: () => void): Promise<number> => {
    const run = async () => {
      record();
      await device.drain();
    };
    await run();
    return (await time(run, 0.4)).min / 1e3;
  };
  const size = BYTES / 16; // in vec4
  const copy = device.kernel(copySource);
  const seconds = await best(() => device.run(copy, [x, out], { size }, size / 64));
  const fma = device.kernel(fmaSource);
  const [groups, rounds] = device.profile.software ? [256, 64] : [16384, 256];
  const multiplied = await best(() => device.run(fma, [out], { rounds, factor: 0.5 }, groups));
  release(x, out);
  return {
    gigabytes: (2 * BYTES) / seconds / 1e9,
    gflops: (2 * MULTIPLY_ADDS * rounds * groups * 64) / multiplied / 1e9,
  };
}
