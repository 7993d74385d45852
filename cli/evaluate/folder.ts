/** Folders of results that stand for one setting: what is finished in them is read, not made again. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { makeFolder } from '../../nn/files.ts';
import { ConfigError } from '../config.ts';
import { writeText } from '../run.ts';

/** Makes a folder for results of these settings. Throws where it holds those of others. */
export async function claim(folder: string, settings: Readonly<Record<string, unknown>>): Promise<void> {
  const file = path.join(folder, 'settings.json');
  const now = JSON.parse(JSON.stringify(settings)) as Record<string, unknown>;
  if (!existsSync(file)) {
    await makeFolder(folder);
    await writeText(file, `${JSON.stringify(now, null, 2)}\n`);
    return;
  }
  const before = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
  for (const key of new Set([...Object.keys(before), ...Object.keys(now)])) {
    const [old, current] = [JSON.stringify(before[key]), JSON.stringify(now[key])];
    if (old !== current)
      throw new ConfigError(
        `${folder} holds results with ${key} = ${old}, and now it is ${current}. ` +
          'Give another folder (--folder), or delete this one',
      );
  }
}

/** What a file of results holds, or null where there is none yet. */
export async function readJson<T>(file: string): Promise<T | null> {
  return existsSync(file) ? (JSON.parse(await readFile(file, 'utf8')) as T) : null;
}

export const writeJson = (file: string, value: unknown): Promise<void> =>
  writeText(file, `${JSON.stringify(value, null, 2)}\n`);
