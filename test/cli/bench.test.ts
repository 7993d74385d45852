import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { textFlops, unetFlops } from '../../cli/bench/flops.ts';
import { measure, toJson } from '../../cli/bench/measure.ts';
import { caseBenchmark, tableBenchmarks } from '../../cli/bench/operations.ts';
import { readCases } from '../../cli/bench/cases.ts';
import { profile } from '../../cli/bench/profile.ts';
import { samplingStep, trainingStep } from '../../cli/bench/steps.ts';
import { loadConfig } from '../../cli/config.ts';
import type { Config } from '../../cli/config.ts';
import { loadStableDiffusion } from '../../diffusion/folder.ts';
import type { StableDiffusion } from '../../diffusion/folder.ts';
import { scope, tensor } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { add, matmul } from '../../kernels/index.ts';
import record from '../../assets/base/record.json' with { type: 'json' };
import { plainDevice } from '../device.ts';

let device: Device;
let folder: string;

beforeAll(async () => {
  device = await plainDevice();
  folder = await mkdtemp(path.join(tmpdir(), 'dawngrad-bench-'));
});
afterAll(() => rm(folder, { recursive: true }));

const casesFile = async (content: unknown): Promise<string> => {
  const file = path.join(folder, 'cases.json');
  await writeFile(file, typeof content === 'string' ? content : JSON.stringify(content));
  return file;
};

describe('cases from a file', () => {
  it('are counted and timed', async () => {
    const file = await casesFile([
      { name: 'product', op: 'matmul', m: 8, k: 12, n: 16 },
      { name: 'window', op: 'conv2d', batch: 2, cin: 4, cout: 6, h: 5, w: 7, kernel: 3 },
      { name: 'cross', op: 'attention', batch: 1, heads: 2, length: 9, keys: 5, dim: 8 },
      { name: 'self', op: 'attention', batch: 1, heads: 2, length: 9, dim: 8 },
      { name: 'norm', op: 'layernorm', rows: 4, cols: 16 },
      { name: 'rows', op: 'softmax', rows: 4, cols: 16 },
    ]);
    const counted: Record<string, number> = {};
    for (const benchmark of (await readCases(file)).map(caseBenchmark))
      await benchmark.each(device, async (task) => {
        counted[task.name] = task.flops;
        const { measurement, first, msWithCopies } = await measure(device, task, { seconds: 0.01 });
        expect(msWithCopies).toBeGreaterThan(0);
        expect(measurement).toMatchObject({ name: benchmark.name, gflops: task.flops / measurement.ms / 1e6 });
        expect(measurement.runs).toBeGreaterThanOrEqual(5);
        expect(measurement.min).toBeGreaterThan(0);
        expect(measurement.min).toBeLessThanOrEqual(measurement.ms);
        expect(first).toBeGreaterThan(0);
        expect(Object.keys(JSON.parse(toJson(measurement)) as object)).toEqual(['name', 'ms', 'min', 'runs', 'gflops']);
      });
    expect(counted).toEqual({
      product: 2 * 8 * 12 * 16,
      window: 2 * 2 * 6 * 5 * 7 * 4 * 9,
      cross: 2 * 2 * 2 * 9 * 5 * 8,
      self: 2 * 2 * 2 * 9 * 9 * 8,
      norm: 8 * 4 * 16,
      rows: 5 * 4 * 16,
    });
  });

  it.each([
    ['nothing', /is not JSON/],
    [{ name: 'a' }, /must be a list of cases/],
    [[{ name: 'a', op: 'matmul', m: 8, k: 12 }], /case 1: n: /],
    [[{ name: 'a', op: 'matmul', m: 8, k: 12, n: 0 }], /case 1: n: .*1/],
    [[{ name: 'a', op: 'sort', n: 8 }], /case 1: op: .*matmul/],
    [[{ name: 'a', op: 'softmax', rows: 8, cols: 12, axis: 0 }], /case 1: .*axis/],
  ])('are refused with the place: %j', async (content, message) => {
    await expect(readCases(await casesFile(content))).rejects.toThrow(message);
  });

  it('must be there', async () => {
    await expect(readCases(path.join(folder, 'none.json'))).rejects.toThrow(/none\.json: cannot be read \(ENOENT\)/);
  });
});

describe("the operations' table", () => {
  it('has samples that run, and gives their memory back', async () => {
    const names = new Set<string>();
    const live = () => device.memory.usage.get('activations')?.live ?? 0;
    const before = live();
    for (const benchmark of tableBenchmarks())
      await benchmark.each(device, async ({ name, run }) => {
        names.add(name);
        await run();
        await device.drain();
      });
    expect(live()).toBe(before);
    for (const name of ['matmul 512×512×512', 'matmul 512×512×512, forward + backward']) expect(names).toContain(name);
  });
});

describe('the profile', () => {
  it('times each dispatch by kernel, and leaves the device as it was', async () => {
    const a = tensor(device, new Float32Array(64 * 64).fill(1), [64, 64]);
    const { dispatches } = device.stream;
    const shares = await profile(device, () => scope(device, () => void add(add(matmul(a, a), a), a)));
    expect(shares.map(({ kernel, calls }) => [/^\w+?(?=_|\[)/.exec(kernel)![0], calls]).sort()).toEqual([['elementwise', 2], ['matmul', 1]]); // prettier-ignore
    for (const { ms } of shares) expect(ms).toBeGreaterThan(0);
    expect(device.stream.dispatches - dispatches).toBe(3);
    expect(Object.hasOwn(device.gpu, 'createCommandEncoder')).toBe(false);
    expect(Object.hasOwn(device.stream, 'dispatch')).toBe(false);
  });
});

describe('whole steps', () => {
  let model: StableDiffusion;
  beforeAll(async () => {
    model = await loadStableDiffusion(device, 'assets/base');
  });
  afterAll(() => {
    for (const part of [model.unet, model.vae, model.textEncoder]) part.release();
  });

  it('count operations by the shapes of weights, as the model’s record does, and attention', () => {
    // The record leaves out the two products of attention: queries × keys × width on two levels, 3 and 4 transformers.
    const attention = 4 * (3 * 64 * (64 + 24) * 96 + 4 * 16 * (16 + 24) * 144);
    expect(unetFlops(model.unet, 16, 24)).toBe(1e9 * record.unet.gflop_forward_one_sample + attention);
    // 3 layers of 4 C² + 8 C² weights at 24 tokens, and two products of 24 × 24 × C
    expect(textFlops(model.textEncoder, 24)).toBe(3 * (2 * 24 * 12 * 128 ** 2 + 4 * 24 ** 2 * 128));
  });

  it('make no pipelines, no buffers and no bind groups when steady', async () => {
    const config = (await loadConfig('assets/configs/dreambooth.yaml', ['batch.subject=1', 'batch.prior=1'])) as Config<'dreambooth'>; // prettier-ignore
    const options = { seconds: 0.01, profiled: false };
    const training = await trainingStep(device, model, config, options);
    const sampling = await samplingStep(device, model, 1, options);
    for (const { measurement, counts, kernels } of [training, sampling]) {
      expect(measurement.ms).toBeGreaterThan(0);
      expect(counts).toMatchObject({ pipelines: 0, buffers: 0, bindGroups: 0 });
      expect(Number.isInteger(counts.dispatches)).toBe(true);
      expect(counts.submits).toBeLessThan(counts.dispatches / 10);
      expect(counts.peak).toBeGreaterThan(0);
      expect(kernels).toBeNull();
    }
    expect(training.measurement.name).toBe('training step, batch 1+1');
    expect(training.counts.dispatches).toBeGreaterThan(sampling.counts.dispatches);
  });
});
