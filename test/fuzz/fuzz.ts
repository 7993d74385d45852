/** Fuzzes the operations: fast-check's random cases of every row, shrunk where one fails. */
import { Command, InvalidArgumentError } from 'commander';
import fc from 'fast-check';
import { openNodeDevice } from '../../engine/node.ts';
import { Progress } from '../../nn/progress.ts';
import { rows } from '../kernels/rows.ts';
import { cases, checkCase, written } from './cases.ts';

function whole(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('it must be a whole number from 0 up.');
  return value;
}

export async function main(): Promise<void> {
  const program = new Command('npm run fuzz --')
    .description("Random shapes, dtypes and values for every row of the operations' table, against its reference.")
    .option('--cases <n>', 'cases over all rows', whole, 10_000)
    .option('--seed <n>', 'the seed of all of them; by the clock when not given', whole)
    .option('--row <name...>', 'these rows alone')
    .parse();
  const options = program.opts<{ cases: number; seed?: number; row?: string[] }>();
  const unknown = options.row?.find((name) => !rows.has(name));
  if (unknown) program.error(`error: there is no row ${unknown}; there are ${[...rows.keys()].join(', ')}`);
  const names = options.row ?? [...rows.keys()];
  const seed = options.seed ?? Date.now() % 2 ** 31;
  const each = Math.ceil(options.cases / names.length);
  console.log(`seed ${seed}: ${names.length} rows, ${each} cases each`);

  const device = await openNodeDevice({ guard: true });
  const progress = new Progress(each * names.length, 0, { unit: 'case' });
  let failed = 0;
  for (const [n, name] of names.entries()) {
    let done = 0;
    const property = fc.asyncProperty(cases(rows.get(name)!), async (one) => {
      done++; // shrinking runs more than were asked for
      progress.update(n * each + Math.min(done, each), {});
      await checkCase(device, name, one);
    });
    const result = await fc.check(property, { seed, numRuns: each });
    const error = result.failed ? String((result.errorInstance as Error | null)?.message ?? 'it fails') : null;
    const guards = await device.checkGuards().catch((error: unknown) => (error as Error).message);
    if (error === null && guards === undefined) continue;
    failed++;
    progress.line(`\nFAILED ${name}: ${error ?? guards} (--row ${name} --seed ${seed} --cases ${each})`);
    const [counterexample] = result.counterexample ?? [];
    if (counterexample) {
      const { kind, half } = counterexample;
      progress.line(`${half ? 'in f16, ' : ''}values: ${kind}\n${written(counterexample)}\n`);
    }
  }
  progress.stop();
  console.log(`seed ${seed}: ${names.length - failed} rows hold, ${failed} ${failed === 1 ? 'fails' : 'fail'}`);
  process.exit(failed === 0 ? 0 : 1);
}
