/**
 * The operations' table on the adapter at hand: forward, gradient, f16, the same bits twice, random shapes, refusals.
 * `npx vitest run test/kernels/operations.test.ts -t matmul` runs one row's.
 */
import { afterAll, beforeAll, describe, it } from 'vitest';
import type { Device } from '../../engine/index.ts';
import { guardedDevice } from '../device.ts';
import { checksOf } from './check.ts';
import { rows } from './rows.ts';

let device: Device;

beforeAll(async () => {
  device = await guardedDevice();
});
afterAll(async () => {
  await device.checkGuards();
});

for (const name of rows.keys())
  describe(name, () => {
    for (const { title, run } of checksOf(name)) it(title, () => run(device));
  });
