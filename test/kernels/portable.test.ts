/**
 * A share of the operations' table on the poorest device: without f16, subgroups and immediates. `npm run test:adapters`
 * runs the whole table with each of them switched off, and on other adapters.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Device } from '../../engine/index.ts';
import { poorestDevice } from '../device.ts';
import { checksOf } from './check.ts';
import { rows } from './rows.ts';

/** One check in so many is run; each row's first one is among them. */
const SHARE = 4;
let device: Device;

beforeAll(async () => {
  device = await poorestDevice();
  expect(device.profile).toMatchObject({ subgroupSize: 0, f16: false, immediates: false });
  expect(device.gpu.limits.maxComputeWorkgroupStorageSize).toBe(16_384);
});
afterAll(async () => {
  await device.checkGuards();
});

for (const name of rows.keys())
  describe(`${name} without f16, subgroups and immediates`, () => {
    const samples = checksOf(name).filter(({ sample }) => sample);
    for (const { title, run } of samples.filter((_, i) => i % SHARE === 0)) it(title, () => run(device));
  });
