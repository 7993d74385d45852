/** A cold start: how long the default training step's kernels take to compile, each time in a fresh process. */
import { fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compile, rehearsal } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { loadStableDiffusion } from '../../diffusion/folder.ts';
import { loadConfig } from '../config.ts';
import type { Config } from '../config.ts';
import { resolvePath, ROOT } from '../run.ts';
import { trainingStep } from './steps.ts';

export interface ColdStart {
  /** Whether all kernels were compiled at once before the step, or each as the step met it. */
  readonly ahead: boolean;
  /** Pipelines that the step needs. */
  readonly kernels: number;
  /** Milliseconds of compiling ahead; 0 without. */
  readonly compiling: number;
  /** Milliseconds of the first step. */
  readonly first: number;
  /** Milliseconds of the processor until then, all cores together: more than both of these when they work in parallel. */
  readonly processor: number;
  /** Milliseconds of a later step. */
  readonly steady: number;
}

/**
 * Measures one start after another: as met and ahead with an empty cache of the driver's, and as met with what the second
 * one left there. The driver is Mesa's or NVIDIA's; others may keep a cache elsewhere.
 */
export async function* coldStarts(): AsyncGenerator<ColdStart & { readonly cached: boolean }> {
  const empty = () => mkdtemp(path.join(tmpdir(), 'dawngrad-cold-'));
  const caches = [await empty(), await empty()] as const;
  try {
    yield { ...(await inFreshProcess('met', caches[0])), cached: false };
    yield { ...(await inFreshProcess('ahead', caches[1])), cached: false };
    yield { ...(await inFreshProcess('met', caches[1])), cached: true };
  } finally {
    for (const cache of caches) await rm(cache, { recursive: true, force: true });
  }
}

function inFreshProcess(how: 'met' | 'ahead', cache: string): Promise<ColdStart> {
  const env = { ...process.env, MESA_SHADER_CACHE_DIR: cache, __GL_SHADER_DISK_CACHE_PATH: cache };
  const child = fork(fileURLToPath(import.meta.url), [how], { env, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  return new Promise((resolve, reject) => {
    child.on('message', (result) => resolve(result as ColdStart));
    child.on('exit', (code) => reject(new Error(`[bench] the process of a cold start ended with ${code}`)));
  });
}

/** What the fresh process does. */
async function start(ahead: boolean): Promise<ColdStart> {
  const device = await openNodeDevice();
  const config = (await loadConfig(path.join(ROOT, 'assets/configs/dreambooth.yaml'))) as Config<'dreambooth'>;
  const load = (on: typeof device) => loadStableDiffusion(on, resolvePath(config.model));
  const model = await load(device);
  let compiling = 0;
  let busy = process.cpuUsage();
  if (ahead) {
    const dry = rehearsal(device);
    await trainingStep(dry, await load(dry), config, { seconds: 0, profiled: false });
    const began = performance.now();
    busy = process.cpuUsage();
    await compile(device, dry.kernels());
    compiling = performance.now() - began;
  }
  let processor = 0;
  const onFirst = () => {
    const { user, system } = process.cpuUsage(busy);
    processor = (user + system) / 1000;
  };
  const { first, measurement } = await trainingStep(device, model, config, { seconds: 0, profiled: false, onFirst });
  return { ahead, kernels: device.pipelines, compiling, first, processor, steady: measurement.ms };
}

if (process.send && process.argv[1] === fileURLToPath(import.meta.url)) {
  process.send(await start(process.argv[2] === 'ahead'), () => process.exit());
}
