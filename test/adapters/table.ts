/** Runs the whole operations' table on a device, telling what came of each check. Runs in Node and in browsers. */
import type { Device } from '../../engine/index.ts';
import { checksOf } from '../kernels/check.ts';
import { rows } from '../kernels/rows.ts';
import type { Message } from './tally.ts';

export async function runTable(device: Device, say: (message: Message) => void): Promise<void> {
  const { description, subgroupSize } = device.profile;
  const checks = [...rows.keys()].flatMap(checksOf);
  say({ kind: 'open', description, subgroupSize, checks: checks.length });
  for (const { operation, title, run } of checks)
    say({ kind: 'check', title: `${operation} ${title}`, error: await errorOf(run(device)) });
  say({ kind: 'guards', error: await errorOf(device.checkGuards()) });
}

const errorOf = (promise: Promise<unknown>): Promise<string | null> =>
  promise.then(
    () => null,
    (error: unknown) => (error as Error).message,
  );
