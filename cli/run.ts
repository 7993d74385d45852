/** Run folders: where a training run keeps its configuration, its record, and all that it makes. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { stringify } from 'yaml';
import type { Device } from '../engine/index.ts';
import { hashFile, makeFolder, writeFileAtomic } from '../nn/files.ts';
import { ConfigError } from './config.ts';
import type { Config } from './config.ts';

/** The project's folder: what the default configurations' paths are relative to. */
export const ROOT = findRoot(import.meta.dirname);

function findRoot(from: string): string {
  return existsSync(path.join(from, 'package.json')) ? from : findRoot(path.dirname(from));
}

/** What a task gets besides its configuration. */
export interface TaskContext {
  readonly device: Device;
  /** The run folder; it exists and holds the resolved configuration. */
  readonly folder: string;
  /** Goes on from the folder's latest checkpoint. */
  readonly resume: boolean;
  /** What the user types to go on after an interruption. */
  readonly resumeCommand: string;
}

/** Makes `runs/<name>`, or `<name>-2`, `-3`, … where there is one; writes the resolved configuration into it. */
export async function createRun(config: Config, runs = 'runs'): Promise<string> {
  for (let n = 1; ; n++) {
    const folder = path.join(runs, n === 1 ? config.name : `${config.name}-${n}`);
    try {
      await makeFolder(runs);
      await mkdir(folder);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue;
      throw new ConfigError(`${folder}: the run folder cannot be made (${(error as NodeJS.ErrnoException).code})`);
    }
    await writeText(path.join(folder, 'config.yaml'), stringify(config));
    return folder;
  }
}

/** The configuration of a run that is to be resumed. Throws where it is finished: a DreamBooth run's evidence comes last. */
export function runConfigFile(folder: string): string {
  const file = path.join(folder, 'config.yaml');
  if (!existsSync(file))
    throw new ConfigError(`${folder}: no run to resume there; give the folder of a run, such as runs/grey-cat`);
  if (existsSync(path.join(folder, 'evidence.json')))
    throw new ConfigError(
      `${folder}: this run is finished; look at its samples.png and evidence.md, or begin a new one`,
    );
  return file;
}

/**
 * Records what a run rests on, enough to replay it: adapter, versions, hashes of data and weights, which it returns. A run
 * that goes on keeps the record of its beginning.
 */
export async function recordRun(
  { folder, device, resume }: TaskContext,
  files: readonly string[],
): Promise<Readonly<Record<string, string>>> {
  const hashes: Record<string, string> = {};
  for (const file of files) hashes[path.relative(ROOT, path.resolve(file))] = await hashFile(file);
  if (resume && existsSync(path.join(folder, 'run.json'))) return hashes;
  const manifest = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as {
    version: string;
    dependencies: Record<string, string>;
  };
  const record = {
    dawngrad: manifest.version,
    commit: commit(),
    node: process.version,
    webgpu: manifest.dependencies['webgpu'],
    adapter: device.profile,
    started: new Date().toISOString(),
    sha256: hashes,
  };
  await writeText(path.join(folder, 'run.json'), `${JSON.stringify(record, null, 2)}\n`);
  return hashes;
}

/** The commit that runs, where the project is a git checkout. */
function commit(): string | null {
  try {
    return execFileSync('git', ['rev-parse', 'HEAD'], {
      cwd: ROOT,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return null;
  }
}

export const writeText = (file: string, text: string): Promise<void> =>
  writeFileAtomic(file, [new TextEncoder().encode(text)]);

/** A path of a configuration: as seen from where the user stands, or else from the project's folder. */
export const resolvePath = (file: string): string => (existsSync(file) ? file : path.resolve(ROOT, file));

/** Ctrl-C outside the trainer (which saves first): ends the run and says how to go on with it. */
export async function interruptible<T>(
  { resumeCommand }: Pick<TaskContext, 'resumeCommand'>,
  body: () => Promise<T>,
): Promise<T> {
  const stop = () => {
    console.log(`\nStopped. Go on with: ${resumeCommand}`);
    process.exit(130);
  };
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, stop);
  try {
    return await body();
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM']) process.off(signal, stop);
  }
}
