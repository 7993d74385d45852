/** What a profile is shown as: a table by kernel, and a trace. */
import type { Device } from '../../engine/index.ts';
import { measureCeilings } from './ceilings.ts';
import { byKernel } from './profile.ts';
import type { Ceilings, Dispatch } from './profile.ts';
import { writeTrace } from './trace.ts';

/** A line of a table: the name, then cells to the right. */
export const row = (name: string, cells: readonly string[]): string => name.padEnd(64) + cellsOf(cells);

const cellsOf = (cells: readonly string[]): string => cells.map((cell) => cell.padStart(10)).join('');

/** A profile by kernel, whose names are long: they come last. */
export function profileTable(dispatches: readonly Dispatch[], ceilings: Ceilings): string {
  const shares = byKernel(dispatches, ceilings);
  const total = shares.reduce((sum, { ms }) => sum + ms, 0);
  const known = (value: number | null, digits: number) => (value === null ? '' : value.toFixed(digits));
  const line = (cells: readonly string[], kernel: string) => `${cellsOf(cells)}  ${kernel}`;
  return [
    line(['calls', 'ms', '%', 'GFLOP/s', 'GB/s', '% of max'], 'kernel'),
    ...shares.map(({ kernel, calls, ms, gflops, gigabytes, ceiling }) => {
      const percent = ceiling === null ? null : 100 * ceiling;
      const rates = [known(gflops, 1), known(gigabytes, 1), known(percent, 0)];
      return line([String(calls), ms.toFixed(2), ((100 * ms) / total).toFixed(1), ...rates], kernel);
    }),
  ].join('\n');
}

/** Measures the ceilings, prints the table of each profile, and writes all of them into one trace. */
export async function reportProfiles(
  device: Device,
  profiles: Readonly<Record<string, readonly Dispatch[]>>,
  file: string,
  print: (line: string) => void,
): Promise<void> {
  const ceilings = await measureCeilings(device);
  for (const [name, dispatches] of Object.entries(profiles)) {
    const total = dispatches.reduce((sum, { ms }) => sum + ms, 0);
    print(`\nProfile: ${name}; ${dispatches.length} dispatches, each alone, ${total.toFixed(1)} ms`);
    print(profileTable(dispatches, ceilings));
  }
  print(
    `\n% of max: of ${ceilings.gflops.toFixed(1)} GFLOP/s (multiply-adds in registers) or ` +
      `${ceilings.gigabytes.toFixed(1)} GB/s (a copy of 64 MiB), whichever is nearer; both measured just now.`,
  );
  await writeTrace(file, Object.values(profiles).flat(), device.profile.description);
  print(`Trace: ${file}; open it at https://ui.perfetto.dev`);
}
