import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readManifest, verifyCase } from '../../cli/verify/recordings.ts';
import { deviation, tableRow } from '../../cli/verify/report.ts';
import type { Recording } from '../../cli/verify/report.ts';
import type { Device } from '../../engine/index.ts';
import { openSafetensors, saveSafetensors } from '../../nn/files.ts';
import type { Writable } from '../../nn/safetensors.ts';
import { heldBytes } from '../diffusion/helpers.ts';
import { plainDevice } from '../device.ts';

const goldens = new URL('../goldens', import.meta.url).pathname;

let device: Device;
let temporary: string;
let recordings: Recording[];
beforeAll(async () => {
  device = await plainDevice();
  temporary = await mkdtemp(path.join(tmpdir(), 'dawngrad-verify-'));
  recordings = await readManifest(goldens);
});
afterAll(() => rm(temporary, { recursive: true }));

const named = (name: string): Recording => recordings.find((recording) => recording.case === name)!;

describe('recordings of diffusers and transformers', () => {
  // What is not implemented yet; everything else must pass, and these numbers of checks must not shrink unseen.
  const expected: Record<string, { checks: number; notRun: string[] }> = {
    unet: { checks: 27, notRun: [] },
    unet_sd2: { checks: 15, notRun: [] },
    vae: { checks: 7, notRun: [] },
    clip_text: { checks: 12, notRun: [] },
    clip_text_eos2: { checks: 7, notRun: [] },
    schedulers: { checks: 73, notRun: [] },
    pipeline: { checks: 14, notRun: [] },
    dreambooth: { checks: 73, notRun: [] },
    attention: { checks: 45, notRun: [] },
    layers: { checks: 86, notRun: [] },
    llm_llama: { checks: 12, notRun: [] },
    llm_mistral: { checks: 12, notRun: [] },
    llm_qwen2: { checks: 10, notRun: [] },
    llm_gemma: { checks: 10, notRun: [] },
    llm_llama_rope_linear: { checks: 6, notRun: [] },
    llm_llama_rope_dynamic: { checks: 6, notRun: [] },
    llm_llama_rope_yarn: { checks: 6, notRun: [] },
    llm_llama_rope_llama3: { checks: 6, notRun: [] },
    llm_fuyu: { checks: 0, notRun: ['all'] },
  };
  it.each(Object.entries(expected))('%s', async (name, { checks, notRun }) => {
    const before = heldBytes(device);
    const report = await verifyCase(device, goldens, named(name));
    expect(report.rows.filter((row) => !row.ok).map(tableRow)).toEqual([]);
    expect(report.rows.length).toBe(checks);
    expect(report.notRun.map(({ what }) => what).sort()).toEqual([...notRun].sort());
    expect(heldBytes(device)).toBe(before);
  });

  it('of kinds that are not known are not run', async () => {
    const { rows, notRun } = await verifyCase(device, goldens, { ...named('llm_llama'), kind: 'speech' });
    expect(rows).toEqual([]);
    expect(notRun).toEqual([{ case: 'llm_llama', what: 'all', reason: 'the kind speech is not known' }]);
  });
});

/** A copy of a case's folder whose tensors went through `change`. */
async function changed(
  name: string,
  file: 'inputs' | 'outputs',
  change: (key: string, values: Float32Array | Int32Array) => [string, Float32Array | Int32Array],
): Promise<string> {
  const root = await mkdtemp(path.join(temporary, `${name}-`));
  await cp(path.join(goldens, name), path.join(root, name), { recursive: true });
  const source = await openSafetensors(path.join(goldens, name, `${file}.safetensors`));
  const tensors = new Map<string, Writable>();
  for (const [key, { shape }] of source.tensors) {
    const [renamed, data] = change(key, await source.read(key));
    tensors.set(renamed, { dtype: data instanceof Int32Array ? 'I64' : 'F32', shape, data });
  }
  await source.close();
  await saveSafetensors(path.join(root, name, `${file}.safetensors`), tensors);
  return root;
}

describe('a check can fail', () => {
  const failures = async (root: string, name: string) => {
    const { rows } = await verifyCase(device, root, named(name));
    return rows.filter((row) => !row.ok).map((row) => row.quantity);
  };

  it('on one wrong value of each kind', async () => {
    for (const [name, key, quantity] of [
      ['unet_sd2', 'sample', 'sample'],
      ['unet_sd2', 'loss', 'loss'],
      ['unet_sd2', 'grad.time_embedding.linear_1.weight', 'grad.time_embedding.linear_1.weight'],
      ['unet_sd2', 'gradnorm.conv_in.bias', '279 gradnorms, worst conv_in.bias'],
      ['clip_text_eos2', 'pooler_output', 'pooler_output'],
      ['vae', 'decoded', 'decoded'],
      ['schedulers', 'ddim_eta0.10.timesteps', 'ddim_eta0.10.timesteps'],
      ['schedulers', 'ddpm_step.10.trajectory', 'ddpm_step.10.trajectory, worst at step 0'],
      ['schedulers', 'dpmpp2m.10.sigmas', 'dpmpp2m.10.sigmas'],
      ['schedulers', 'euler_karras.10.timesteps', 'euler_karras.10.timesteps'],
      ['schedulers', 'euler.30.scaled_inputs', 'euler.30.scaled_inputs'],
      ['attention', 'gqa.dk', 'gqa.dk'],
      ['layers', 'conv3x3.d_w', 'conv3x3.d_w'],
    ] as const) {
      const root = await changed(name, 'outputs', (k, values) => {
        if (k === key) values[0] = values[0]! * 1.3 + 1;
        return [k, values];
      });
      expect(await failures(root, name), key).toEqual([quantity]);
    }
  });

  it('on half a per cent in gradients, their norm and moments', async () => {
    const keys = ['step1.clipped_grad.conv_in.bias', 'grad_norm', 'exp_avg.conv_in.bias', 'exp_avg_sq.conv_in.bias'];
    const root = await changed('dreambooth', 'outputs', (key, values) => [
      key,
      keys.includes(key) ? values.map((value) => value * 1.005) : values,
    ]);
    await cp(path.join(goldens, 'pipeline'), path.join(root, 'pipeline'), { recursive: true });
    expect(await failures(root, 'dreambooth')).toEqual(keys);
  });

  it('on NaN', async () => {
    const root = await changed('attention', 'outputs', (key, values) => {
      if (key === 'full.out') values[values.length - 1] = NaN;
      return [key, values];
    });
    expect(await failures(root, 'attention')).toEqual(['full.out']);
  });

  it('on missing and damaged files and unknown parameters', async () => {
    const root = await changed('unet_sd2', 'outputs', (key, values) => [
      key.replace('act.conv_in', 'act.conv_on'),
      values,
    ]);
    expect(await failures(root, 'unet_sd2')).toEqual(['act.conv_on']);
    await writeFile(path.join(root, 'unet_sd2', 'inputs.safetensors'), 'no');
    const damaged = await verifyCase(device, root, named('unet_sd2'));
    expect(damaged.rows.map(tableRow).join()).toMatch(/failed: .*inputs\.safetensors: 2 bytes are too few/);
    const missing = await verifyCase(device, temporary, named('vae'));
    expect(missing.rows.map(tableRow).join()).toMatch(/failed: .*cannot open .*vae\/inputs\.safetensors/);
  });

  it('for want of a limit', async () => {
    const { rows } = await verifyCase(device, goldens, { ...named('vae'), limits: {} });
    expect(rows.map(tableRow).join()).toMatch(/failed: the manifest has no limits.output for the case vae/);
  });
});

describe('other recordings of the same form', () => {
  it('may name cases and sub-cases otherwise', async () => {
    const root = await mkdtemp(path.join(temporary, 'renamed-'));
    await mkdir(path.join(root, 'x'));
    for (const file of ['inputs', 'outputs']) {
      const source = await openSafetensors(path.join(goldens, 'layers', `${file}.safetensors`));
      const tensors = new Map<string, Writable>();
      for (const [key, { shape }] of source.tensors) {
        const data = await source.read(key);
        tensors.set(`new_${key}`, { dtype: data instanceof Int32Array ? 'I64' : 'F32', shape, data });
      }
      await source.close();
      await saveSafetensors(path.join(root, 'x', `${file}.safetensors`), tensors);
    }
    const original = named('layers');
    const rename = (record: unknown) =>
      Object.fromEntries(Object.entries(record as object).map(([key, value]) => [`new_${key}`, value]));
    const limits = { ...original.limits, ...rename(original.limits) };
    const recording = { ...original, case: 'x', dir: 'x', sub: rename(original.sub), limits } as Recording;
    const { rows, notRun } = await verifyCase(device, root, recording);
    expect(rows.filter((row) => !row.ok).map(tableRow)).toEqual([]);
    // linear_big's description does not say that it is a linear layer; its shapes do.
    expect(rows.length).toBe(86);
    expect(notRun.length).toBe(0);
  });

  it('may hold forms that are not known', async () => {
    const sub = { full: { B: 2, H: 2, KV: 2, Tq: 9, Tk: 9, D: 8, kind: 'full', softcap: 5 } };
    const { rows, notRun } = await verifyCase(device, goldens, { ...named('attention'), sub });
    expect(rows).toEqual([]);
    expect(notRun[0]).toMatchObject({ what: 'full' });
    expect(notRun[0]!.reason).toMatch(/softcap/);
  });
});

describe('manifests', () => {
  it('are refused where they are missing or damaged', async () => {
    await expect(readManifest(temporary)).rejects.toThrow('manifest.json: there is no such file');
    const write = (text: string) => writeFile(path.join(temporary, 'manifest.json'), text);
    for (const [text, message] of [
      ['{', 'it is not JSON'],
      ['[]', 'manifest.json: it: '],
      ['{"cases": []}', 'cases: '],
      ['{"cases": [{"case": "a", "kind": "unet"}]}', 'cases.0.dir: '],
      [
        '{"cases": [{"case": "a", "kind": "unet", "dir": "a", "limits": {"output": {"atol": -1}}}]}',
        'limits.output.atol',
      ],
    ] as const) {
      await write(text);
      await expect(readManifest(temporary)).rejects.toThrow(message);
    }
    expect((await readFile(path.join(goldens, 'manifest.json'), 'utf8')).length).toBeGreaterThan(0);
  });
});

describe('deviation', () => {
  it('is that of the element that is worst for its limit', () => {
    expect(deviation([1, 100.5], [1.05, 100], { atol: 0.1, rtol: 0.02 })).toEqual({ error: expect.closeTo(0.05, 9), limit: expect.closeTo(0.121, 9), ok: true, at: 0 }); // prettier-ignore
    expect(deviation([0, 9], [0, 10], { atolOfMax: 0.01 })).toMatchObject({ error: 1, limit: 0.1, ok: false, at: 1 });
    expect(deviation([3, 4.1], [3, 4], { relL2: 0.03 })).toMatchObject({ error: expect.closeTo(0.02, 9), ok: true });
    expect(deviation([3, 4.1], [3, 4], { relL2: 0.001 }, 0.0021)).toMatchObject({
      limit: expect.closeTo(0.021, 9),
      ok: true,
    });
    expect(deviation([1e-5], [0], { relL2: 0.1 })).toMatchObject({ limit: 1e-6, ok: false }); // zero in theory
    expect(deviation([1.5e-5], [0], { atol: 1e-6 }, 2e-6)).toMatchObject({ limit: expect.closeTo(2e-5, 12), ok: true });
    expect(deviation([5, 6], [5, 6], {})).toMatchObject({ error: 0, limit: 0, ok: true });
    expect(deviation([5, 7], [5, 6], {}).ok).toBe(false);
    expect(deviation([NaN, 9], [1, 1], { atol: 1 })).toMatchObject({ error: NaN, ok: false, at: 0 });
    expect(deviation([NaN, 1], [1, 1], { relL2: 1 }).ok).toBe(false);
    expect(deviation([1], [1, 2], { atol: 1 })).toMatchObject({ ok: false, reason: '1 values for 2' });
    expect(deviation([], [], { atol: 1 })).toMatchObject({ ok: false, reason: 'no values to compare' });
  });
});
