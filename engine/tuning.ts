/** The tuning file of a user: which variants of kernels were measured to be the fastest, by adapter. Node's alone. */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Tuning } from './device.ts';

/** `DAWNGRAD_TUNING`, or `tuning.json` in the user's folder for caches; null where that variable is `off`. */
export function tuningFile(): string | null {
  const named = process.env['DAWNGRAD_TUNING'];
  if (named) return named === 'off' ? null : named;
  const caches =
    process.platform === 'win32'
      ? process.env['LOCALAPPDATA']
      : process.platform === 'darwin'
        ? path.join(os.homedir(), 'Library', 'Caches')
        : process.env['XDG_CACHE_HOME'];
  return path.join(caches || path.join(os.homedir(), '.cache'), 'dawngrad', 'tuning.json');
}

/**
 * What the file says of an adapter, whose description names its driver's version as well: {} where it knows nothing of it,
 * or isn't there. Throws, naming the file, where it is damaged.
 */
export async function readTuning(adapter: string): Promise<Tuning> {
  const file = tuningFile();
  return file === null ? {} : ((await readAll(file))[adapter] ?? {});
}

/** Replaces what the file says of an adapter. Returns the file's path. Throws where `DAWNGRAD_TUNING` is `off`. */
export async function writeTuning(adapter: string, tuning: Tuning): Promise<string> {
  const file = tuningFile();
  if (file === null) throw new Error('[tune] DAWNGRAD_TUNING is off: there is no file to write');
  await mkdir(path.dirname(file), { recursive: true });
  const all = { ...(await readAll(file)), [adapter]: tuning };
  const beside = `${file}.${process.pid}`;
  await writeFile(beside, `${JSON.stringify(all, null, 2)}\n`);
  await rename(beside, file);
  return file;
}

async function readAll(file: string): Promise<Record<string, Tuning>> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return {};
    throw new Error(`[tuning] ${file} cannot be read (${code})`, { cause: error });
  }
  const damaged = () => new Error(`[tuning] ${file} is damaged; delete it, and \`npm run tune\` writes a new one`);
  let all: unknown;
  try {
    all = JSON.parse(text);
  } catch {
    throw damaged();
  }
  const record = (value: unknown): value is object =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  const texts = (value: unknown) => record(value) && Object.values(value).every((v) => typeof v === 'string');
  if (!record(all) || !Object.values(all).every(texts)) throw damaged();
  return all as Record<string, Tuning>;
}
