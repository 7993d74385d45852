/** Runs the operations' table on adapter after adapter, each in a process of its own, and prints what held. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { DeviceOptions } from '../../engine/index.ts';
import { Progress } from '../../nn/progress.ts';

type Feature = NonNullable<DeviceOptions['without']>[number];

interface Run {
  readonly adapter: string;
  readonly without: Feature | null;
  /** The Vulkan driver's file, where it is not the default one. */
  readonly driver?: string;
}

/** What a worker says, a JSON line each: the adapter that it opened, each check's outcome, and its end. */
export type Message =
  | { readonly kind: 'open'; readonly description: string; readonly subgroupSize: number; readonly checks: number }
  | { readonly kind: 'check'; readonly title: string; readonly error: string | null }
  | { readonly kind: 'end'; readonly guards: string | null };

interface Outcome {
  readonly adapter: string;
  readonly passed: number;
  readonly failed: number;
  readonly seconds: number;
}

/** Tests all adapters; the exit code. `swiftshader` is its driver's file. */
export async function testAdapters(swiftshader: string): Promise<number> {
  const runs: Run[] = [
    ...([null, 'f16', 'subgroups', 'immediates'] as const).map((without) => ({
      adapter: 'the default adapter',
      without,
    })),
    { adapter: 'SwiftShader', without: null, driver: swiftshader },
  ];
  const rows: string[][] = [['adapter', 'switched off', 'passed', 'failed', 'seconds']];
  let failures = 0;
  for (const run of runs) {
    const { adapter, passed, failed, seconds } = await test(run);
    failures += failed;
    rows.push([adapter, run.without ?? '–', `${passed}`, `${failed}`, seconds.toFixed(0)]);
  }
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  for (const row of rows)
    console.log(row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  '));
  return failures === 0 ? 0 : 1;
}

async function test({ adapter, without, driver }: Run): Promise<Outcome> {
  const began = performance.now();
  console.log(`${adapter}${without ? ` without ${without}` : ''}`);
  const worker = spawn(process.execPath, [fileURLToPath(new URL('./worker.js', import.meta.url)), without ?? ''], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...(driver ? { VK_DRIVER_FILES: driver } : {}) },
  });
  const ended = new Promise<string | null>((resolve, reject) => {
    worker.on('error', reject);
    worker.on('close', (code, signal) => resolve(code === 0 ? null : `the process ended with ${signal ?? code}`));
  });
  let progress: Progress | null = null;
  let opened = adapter;
  let [passed, failed] = [0, 0];
  let finished = false;
  const fail = (what: string) => {
    failed++;
    if (progress) progress.line(`  FAILED ${what}`);
    else console.log(`  FAILED ${what}`);
  };
  for await (const line of createInterface({ input: worker.stdout })) {
    const message = JSON.parse(line) as Message;
    if (message.kind === 'open') {
      console.log(`  ${message.description}, subgroups of ${message.subgroupSize || 'no fixed width'}`);
      opened = message.description.slice(0, 48);
      progress = new Progress(message.checks, 0, { unit: 'check' });
    } else if (message.kind === 'check') {
      if (message.error) fail(`${message.title}: ${message.error}`);
      else passed++;
      progress!.update(passed + failed, {});
    } else {
      finished = true;
      if (message.guards) fail(message.guards);
    }
  }
  const problem = (await ended) ?? (finished ? null : 'the process ended early');
  if (problem) fail(problem);
  (progress as Progress | null)?.stop();
  return { adapter: opened, passed, failed, seconds: (performance.now() - began) / 1000 };
}
