/** One run of the operations' table, told to its parent line by line. Its argument is the feature to do without. */
import type { DeviceOptions } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { runTable } from './table.ts';

const without = process.argv[2] ? ([process.argv[2]] as NonNullable<DeviceOptions['without']>) : [];
const device = await openNodeDevice({ guard: true, without });
const { f16, immediates, subgroupSize } = device.profile;
for (const feature of without)
  if ({ f16, immediates, subgroups: subgroupSize > 0 }[feature]) throw new Error(`${feature} was not switched off`);
await runTable(device, (message) => void process.stdout.write(`${JSON.stringify(message)}\n`));
process.exit(0);
