import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { FAMILIES, formatTuning, prepare, PROBLEMS, tune } from '../../cli/bench/tune.ts';
import type { FamilyTuning } from '../../cli/bench/tune.ts';
import type { Device, Profile } from '../../engine/index.ts';
import { openNodeDevice, openNodeDryDevice } from '../../engine/node.ts';
import { readTuning, tuningFile, writeTuning } from '../../engine/tuning.ts';
import { candidates, variant, VARIANTS } from '../../kernels/variants.ts';
import type { Family } from '../../kernels/variants.ts';

const MATRICES = [{ componentType: 'f16', resultComponentType: 'f32', M: 16, N: 16, K: 16 }] as unknown as Profile['subgroupMatrix']; // prettier-ignore
/** A GPU that can do everything. */
const able = { software: false, subgroupSize: 32, f16: true, subgroupMatrix: MATRICES };
/** One that can do nothing beside the portable. */
const plain = { software: false, subgroupSize: 0, f16: false, subgroupMatrix: [] };
const software = { ...able, software: true, subgroupSize: 8, subgroupMatrix: [] };
const dry = (profile: Partial<Profile>) => openNodeDryDevice({ profile });

describe('variants of kernels', () => {
  it.each(FAMILIES)('%s: there is one for every adapter, and the rule takes one that runs', async (family) => {
    const names = Object.keys(VARIANTS[family]);
    for (const profile of [able, plain, software]) {
      const device = await dry(profile);
      const running = candidates(device.profile, family);
      expect(running.length).toBeGreaterThan(0);
      expect(names).toEqual(expect.arrayContaining(running));
      expect(variant(device, family)).toBe(running[0]);
    }
    expect(candidates((await dry(plain)).profile, family)).toContain(names.at(-1));
  });

  it('are those of the tuning, where it names one that can run', async () => {
    const chosen = async (profile: Partial<Profile>, tuned: string) =>
      variant(await dry({ ...profile, tuning: { matmul: tuned } }), 'matmul');
    expect(await chosen(software, 'tiled')).toBe('tiled');
    expect(await chosen(able, 'subgroup')).toBe('subgroup');
    expect(await chosen(plain, 'subgroup')).toBe('tiled');
    expect(await chosen(software, 'of an older version')).toBe('subgroup');
  });

  it.each(FAMILIES)('%s: each one runs kernels of its own on the problems that it is tuned by', async (family) => {
    const labels = async (profile: Partial<Profile>) => {
      const device = await dry(profile);
      for (const problem of PROBLEMS[family]) await prepare(device, problem)();
      return [...device.kernels()].map(({ label }) => label).sort().join('\n'); // prettier-ignore
    };
    const names = candidates((await dry(able)).profile, family);
    const seen = await Promise.all(names.map((name) => labels({ ...able, tuning: { [family]: name } })));
    expect(new Set(seen).size).toBe(names.length);
  });
});

describe('tuning', () => {
  it('measures the variants of a family in turn, and takes another one than the rule only where it is faster', async () => {
    const results: FamilyTuning[] = [];
    const found = await tune(['few rows'], { conv2d: 'tiled', 'few rows': 'workgroup' }, 0.01, (one) =>
      results.push(one),
    );
    expect(results.map(({ family }) => family)).toEqual(['few rows']);
    const { times, rule, chosen } = results[0]!;
    expect(Object.keys(times)).toEqual(candidates((await openNodeDevice()).profile, 'few rows'));
    for (const value of Object.values(times)) expect(value).toBeGreaterThan(0);
    expect(times[rule]).toBe(1);
    if (chosen !== rule) expect(times[chosen]).toBeLessThan(0.97);
    expect(found).toEqual(chosen === rule ? { conv2d: 'tiled' } : { conv2d: 'tiled', 'few rows': chosen });
  });

  it('is shown as a line', () => {
    const result = { family: 'matmul' as Family, times: { subgroup: 1, tiled: 'no such luck' }, rule: 'subgroup' };
    expect(formatTuning({ ...result, chosen: 'subgroup' })).toBe(
      'matmul           subgroup, as by rule: subgroup 1.00, tiled fails (no such luck)',
    );
    expect(formatTuning({ ...result, chosen: 'tiled' })).toMatch(/tiled instead of subgroup/);
  });
});

describe('the tuning file', () => {
  let folder: string;
  let file: string;
  let devices: Device[] = [];
  const before = process.env['DAWNGRAD_TUNING'];
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'dawngrad-tuning-'));
    file = process.env['DAWNGRAD_TUNING'] = path.join(folder, 'caches', 'tuning.json');
  });
  afterEach(() => {
    for (const device of devices) device.destroy();
    devices = [];
  });
  afterAll(async () => {
    process.env['DAWNGRAD_TUNING'] = before;
    await rm(folder, { recursive: true });
  });

  it('keeps what was found for each adapter, and is read when one is opened', async () => {
    expect(await readTuning('a GPU')).toEqual({});
    expect(await writeTuning('a GPU', { matmul: 'tiled' })).toBe(file);
    const device = await openNodeDevice();
    devices.push(device);
    expect(device.profile.tuning).toEqual({});
    await writeTuning(device.profile.description, { rows: 'workgroup' });
    await writeTuning('a GPU', { attention: 'tiled' });
    expect(await readTuning('a GPU')).toEqual({ attention: 'tiled' });
    const again = await openNodeDevice();
    devices.push(again);
    expect(again.profile.tuning).toEqual({ rows: 'workgroup' });
    expect(variant(again, 'rows')).toBe('workgroup');
    const told = await openNodeDevice({ tuning: {} });
    devices.push(told);
    expect(told.profile.tuning).toEqual({});
    expect(Object.keys(JSON.parse(await readFile(file, 'utf8')) as object)).toHaveLength(2);
  });

  it.each(['{', '[]', '{"a": 1}', '{"a": {"matmul": 2}}'])(
    'is refused by name where it is damaged: %s',
    async (text) => {
      await writeFile(file, text);
      await expect(readTuning('a')).rejects.toThrow(/\[tuning\] .*tuning\.json is damaged; delete it/);
    },
  );

  it('is named where it cannot be read', async () => {
    process.env['DAWNGRAD_TUNING'] = folder;
    await expect(readTuning('a')).rejects.toThrow(/^\[tuning\] .*dawngrad-tuning-.* cannot be read \(EISDIR\)$/);
    process.env['DAWNGRAD_TUNING'] = file;
  });

  it('can be switched off', async () => {
    process.env['DAWNGRAD_TUNING'] = 'off';
    expect(tuningFile()).toBeNull();
    expect(await readTuning('a GPU')).toEqual({});
    await expect(writeTuning('a GPU', {})).rejects.toThrow(/DAWNGRAD_TUNING is off/);
    delete process.env['DAWNGRAD_TUNING'];
    expect(tuningFile()).toMatch(/dawngrad.tuning\.json$/);
  });
});
