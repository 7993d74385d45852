/** Runs the operations' table on adapter after adapter, each in a process of its own, and prints what held. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { printTable, Tally } from './tally.ts';
import type { Message } from './tally.ts';

interface Run {
  /** The optional feature to switch off. */
  readonly without?: 'f16' | 'subgroups' | 'immediates';
  /** The Vulkan driver's file, where it is not the default one. */
  readonly driver?: string;
}

/** Tests all adapters; the exit code. `swiftshader` is its driver's file. */
export async function testAdapters(swiftshader: string): Promise<number> {
  const runs: Run[] = [
    {},
    { without: 'f16' },
    { without: 'subgroups' },
    { without: 'immediates' },
    { driver: swiftshader },
  ];
  const rows: (string | number)[][] = [['adapter', 'switched off', 'passed', 'failed', 'seconds']];
  let failures = 0;
  for (const run of runs) {
    const { adapter, passed, failed, seconds } = await test(run);
    failures += failed;
    rows.push([adapter, run.without ?? '–', passed, failed, Math.round(seconds)]);
  }
  printTable(rows);
  return failures === 0 ? 0 : 1;
}

async function test({ without, driver }: Run): Promise<Tally> {
  console.log(`${driver ?? 'the default driver'}${without ? ` without ${without}` : ''}`);
  const tally = new Tally();
  const worker = spawn(process.execPath, [fileURLToPath(new URL('./worker.js', import.meta.url)), without ?? ''], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...(driver ? { VK_DRIVER_FILES: driver } : {}) },
  });
  const ended = new Promise<string>((resolve, reject) => {
    worker.on('error', reject);
    worker.on('close', (code, signal) => resolve(String(signal ?? code)));
  });
  for await (const line of createInterface({ input: worker.stdout })) tally.receive(JSON.parse(line) as Message);
  const end = await ended;
  tally.stop();
  if (!tally.finished) tally.expect('the run comes to its end', `its process ended with ${end}`);
  return tally;
}
