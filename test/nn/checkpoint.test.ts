import { execFileSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { release, tensor } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { latestCheckpoint, loadCheckpoint, saveCheckpoint } from '../../nn/checkpoint.ts';
import { plainDevice } from '../device.ts';

let device: Device;
let root: string;
beforeAll(async () => {
  device = await plainDevice();
  root = await mkdtemp(path.join(tmpdir(), 'checkpoints-'));
});
afterAll(() => rm(root, { recursive: true }));

let count = 0;
const newFolder = () => path.join(root, String(count++), 'checkpoints');

/** A model of two tensors filled with `value`. */
const model = (value: number, shapes: Record<string, number[]> = { 'a.weight': [3, 4], 'a.bias': [3] }) =>
  new Map(
    Object.entries(shapes).map(([name, shape]) => {
      const size = shape.reduce((x, y) => x * y, 1);
      return [name, tensor(device, new Float32Array(size).fill(value), shape)];
    }),
  );
const save = async (folder: string, step: number, value = step, keep?: number) => {
  const weights = model(value);
  await saveCheckpoint(folder, step, { weights, moments: weights }, { note: step }, { keep });
  release(...weights.values());
};
const first = async (weights: Map<string, Tensor>) => (await weights.get('a.bias')!.read())[0];
const latest = async (folder: string) => {
  const said: string[] = [];
  const checkpoint = await latestCheckpoint(folder, (line) => said.push(line));
  return { checkpoint, said };
};

describe('checkpoints', () => {
  it('give back what was saved, the latest first, and only as many as are kept', async () => {
    const folder = newFolder();
    expect((await latest(folder)).checkpoint).toBe(null);
    for (const step of [1, 2, 999_999, 1_000_000]) await save(folder, step, step, 3);
    expect(await readdir(folder)).toEqual(['step-000002', 'step-1000000', 'step-999999'].sort());
    const { checkpoint, said } = await latest(folder);
    expect(checkpoint).toMatchObject({ step: 1_000_000, state: { note: 1_000_000 } });
    expect(said).toEqual([]);
    const weights = model(0);
    await loadCheckpoint(checkpoint!, { weights });
    expect(await first(weights)).toBe(1_000_000);
    release(...weights.values());
  });

  it('can be written again at the same step, and after a save that was cut short', async () => {
    const folder = newFolder();
    await save(folder, 5, 1);
    await mkdir(path.join(folder, 'step-000005.tmp'));
    await mkdir(path.join(folder, 'step-000004.tmp'));
    await save(folder, 5, 2);
    expect(await readdir(folder)).toEqual(['step-000005']);
    const weights = model(0);
    await loadCheckpoint((await latest(folder)).checkpoint!, { weights });
    expect(await first(weights)).toBe(2);
    release(...weights.values());
  });

  it('are recognised as damaged, and the one before is used', async () => {
    const whole = newFolder();
    await save(whole, 1);
    await save(whole, 2);
    const damages: Record<string, (last: string) => Promise<void>> = {
      'weights.safetensors is not what was written': async (last) => {
        const file = path.join(last, 'weights.safetensors');
        const bytes = await readFile(file);
        bytes[bytes.length - 1]! ^= 1;
        await writeFile(file, bytes);
      },
      'moments.safetensors is not what was written': (last) => truncate(path.join(last, 'moments.safetensors'), 100),
      'state.json is missing': (last) => rm(path.join(last, 'state.json')),
      'state.json is not what was written': (last) => writeFile(path.join(last, 'state.json'), '{}'),
      'manifest.json cannot be read': (last) => truncate(path.join(last, 'manifest.json'), 50),
      'manifest.json is not of the form': (last) => writeFile(path.join(last, 'manifest.json'), '{"format":"x"}'),
      'manifest.json does not list': (last) =>
        writeFile(path.join(last, 'manifest.json'), '{"format":"dawngrad checkpoint 1","files":{}}'),
    };
    for (const [what, damage] of Object.entries(damages)) {
      const folder = newFolder();
      await cp(whole, folder, { recursive: true });
      await damage(path.join(folder, 'step-000002'));
      const { checkpoint, said } = await latest(folder);
      expect(checkpoint?.step, what).toBe(1);
      expect(said.join('\n')).toMatch(new RegExp(`step-000002 is damaged and passed over: ${what}`));
    }
    await rm(path.join(whole, 'step-000002', 'state.json'));
    await rm(path.join(whole, 'step-000001', 'manifest.json'));
    await expect(latest(whole)).rejects.toThrow(/every checkpoint in .* is damaged/);
  });

  it('refuse another model, with the first differences, before anything is changed', async () => {
    const folder = newFolder();
    await save(folder, 1);
    const { checkpoint } = await latest(folder);
    const other = model(7, { 'a.weight': [4, 3], 'b.weight': [2], 'c.weight': [2], 'd.weight': [2] });
    const same = model(7);
    await expect(loadCheckpoint(checkpoint!, { weights: same, moments: other })).rejects.toThrow(
      "moments.safetensors is another model's: a.weight is (3, 4) there and (4, 3) here; it has no b.weight; " +
        'it has no c.weight; and 2 more. Resume with the configuration it was made with',
    );
    expect(await first(same)).toBe(7);
    release(...other.values(), ...same.values());
  });

  const isRoot = process.getuid?.() === 0;
  /** Mounts, or says why that is not possible here. */
  const mount = (...args: string[]): string | null => {
    if (!isRoot || process.platform !== 'linux') return 'mounting needs root on Linux';
    try {
      execFileSync('mount', args, { stdio: 'pipe' });
      return null;
    } catch (error) {
      return String((error as { stderr?: Buffer }).stderr).trim();
    }
  };

  it('survive a disk that fills up', async (context) => {
    const disk = path.dirname(newFolder());
    await mkdir(disk, { recursive: true });
    const refused = mount('-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk);
    if (refused) return context.skip(`no small disk to fill: ${refused}`);
    try {
      const folder = path.join(disk, 'checkpoints');
      await save(folder, 1);
      const weights = model(2, { 'a.weight': [200, 200] });
      await expect(saveCheckpoint(folder, 2, { weights }, null)).rejects.toThrow(
        /\[checkpoint\] step 2 could not be saved in .*: the disk is full.*step-000001 is unharmed: resume from it/,
      );
      release(...weights.values());
      expect(await readdir(folder)).toEqual(['step-000001']);
      expect((await latest(folder)).checkpoint?.step).toBe(1);
    } finally {
      execFileSync('umount', [disk]);
    }
  });

  it('survive a folder that became read-only', async (context) => {
    const folder = newFolder();
    await save(folder, 1);
    // root passes over permissions, so the folder is mounted onto itself, read-only
    const refused = mount('--bind', folder, folder) ?? mount('-o', 'remount,ro,bind', folder);
    if (refused) return context.skip(`no read-only folder: ${refused}`);
    try {
      await expect(save(folder, 2)).rejects.toThrow(
        /step 2 could not be saved in .*: the file system is read-only.*step-000001 is unharmed/,
      );
      expect((await latest(folder)).checkpoint?.step).toBe(1);
    } finally {
      execFileSync('umount', [folder]);
    }
  });

  it.runIf(process.platform === 'linux')('say where a folder cannot be written at all', async () => {
    // no file can be made in /proc, by root neither
    await expect(save('/proc/checkpoints', 3)).rejects.toThrow(
      /step 3 could not be saved in \/proc\/checkpoints: .*\. There is no earlier one/,
    );
  });
});
