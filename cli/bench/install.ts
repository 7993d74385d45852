/** Packages that benchmarks compare with: the project doesn't depend on them. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { ROOT } from '../run.ts';

/**
 * Installs what the lock beside `package.json` in cli/bench/`name` says, unless it is, in node_modules/.cache: apart from the
 * project's own packages. `words` say what and how much that is. Returns the folder.
 */
export async function installApart(name: string, words: string, how: readonly string[] = ['ci']): Promise<string> {
  const source = path.join(ROOT, 'cli/bench', name);
  const folder = path.join(ROOT, 'node_modules/.cache', `dawngrad-${name}`);
  const lock = await readFile(path.join(source, 'package-lock.json'), 'utf8');
  const installed = path.join(folder, 'installed-lock.json');
  if (existsSync(installed) && (await readFile(installed, 'utf8')) === lock) return folder;
  await mkdir(folder, { recursive: true });
  for (const file of ['package.json', 'package-lock.json'])
    await copyFile(path.join(source, file), path.join(folder, file));
  console.error(`Installing ${words} …`);
  const { status } = spawnSync('npm', [...how, '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new Error(`[bench] npm could not install ${words} in ${folder}; its own words are above`);
  await copyFile(path.join(source, 'package-lock.json'), installed);
  return folder;
}
