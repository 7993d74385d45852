/** `node cli/verify.js FOLDER [--case NAME]`: this implementation against recordings of the originals. */
import { Command } from 'commander';
import { openNodeDevice } from '../engine/node.ts';
import { main } from './errors.ts';
import { readManifest, verifyCase } from './verify/recordings.ts';
import { tableHead, tableRow } from './verify/report.ts';
import type { NotRun } from './verify/report.ts';

/** Whether nothing failed. */
async function verify(root: string, only: string | undefined): Promise<boolean> {
  const recordings = await readManifest(root);
  const chosen = recordings.filter((recording) => only === undefined || recording.case === only);
  if (chosen.length === 0)
    throw new Error(`[verify] no case is called ${only}; there are ${recordings.map((r) => r.case).join(', ')}`);
  const device = await openNodeDevice();
  let [verified, failed] = [0, 0];
  const notRun: NotRun[] = [];
  console.log(tableHead());
  for (const recording of chosen) {
    const report = await verifyCase(device, root, recording, (row) => console.log(tableRow(row)));
    for (const row of report.rows) if (row.ok) verified++; else failed++; // prettier-ignore
    notRun.push(...report.notRun);
  }
  for (const { case: name, what, reason } of notRun)
    console.log(`not run: ${name}${what === 'all' ? '' : ` ${what}`} (${reason})`);
  console.log(`verified ${verified}, failed ${failed}, not run ${notRun.length}`);
  return failed === 0;
}

const command = new Command('node cli/verify.js')
  .description('Checks this implementation against recordings of diffusers and transformers.')
  .argument('<folder>', 'folder with manifest.json')
  .option('--case <name>', 'only this case')
  .showHelpAfterError('for example: node cli/verify.js test/goldens');

await main(async () => {
  command.parse();
  if (!(await verify(command.args[0]!, command.opts<{ case?: string }>().case))) process.exitCode = 1;
});
