/** One run of the operations' table, told to its parent line by line. Its argument is the feature to do without. */
import type { DeviceOptions } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { checksOf, rows } from '../kernels/check.ts';
import type { Message } from './adapters.ts';

const say = (message: Message): void => void process.stdout.write(`${JSON.stringify(message)}\n`);
const errorOf = (promise: Promise<unknown>): Promise<string | null> =>
  promise.then(
    () => null,
    (error: unknown) => (error as Error).message,
  );

const without = process.argv[2] ? ([process.argv[2]] as DeviceOptions['without']) : [];
const device = await openNodeDevice({ guard: true, without });
const { f16, immediates, subgroupSize, description } = device.profile;
if ({ f16, immediates, subgroups: subgroupSize > 0 }[process.argv[2] as 'f16'])
  throw new Error(`${process.argv[2]} was not switched off`);
const checks = [...rows.keys()].flatMap(checksOf);
say({ kind: 'open', description, subgroupSize, checks: checks.length });
for (const { operation, title, run } of checks)
  say({ kind: 'check', title: `${operation} ${title}`, error: await errorOf(run(device)) });
say({ kind: 'end', guards: await errorOf(device.checkGuards()) });
process.exit(0);
