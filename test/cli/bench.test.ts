import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { textFlops, unetFlops } from '../../cli/bench/flops.ts';
import { measure, toJson } from '../../cli/bench/measure.ts';
import { caseBenchmark, tableBenchmarks } from '../../cli/bench/operations.ts';
import { readCases } from '../../cli/bench/cases.ts';
import { adapterFacts } from '../../cli/bench/adapter.ts';
import { byKernel, profile } from '../../cli/bench/profile.ts';
import type { Dispatch } from '../../cli/bench/profile.ts';
import { profileTable } from '../../cli/bench/report.ts';
import { checkTrace, traceEvents, writeTrace } from '../../cli/bench/trace.ts';
import type { TraceEvent } from '../../cli/bench/trace.ts';
import { samplingStep, trainingStep } from '../../cli/bench/steps.ts';
import { loadConfig } from '../../cli/config.ts';
import type { Config } from '../../cli/config.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { loadStableDiffusion } from '../../diffusion/folder.ts';
import type { StableDiffusion } from '../../diffusion/folder.ts';
import { backward, capture, clearGradient, HostRandom, randomKey, scope, sizeOf, tensor } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { add, attention, conv2d, matmul, softmax } from '../../kernels/index.ts';
import record from '../diffusion/first_base.json' with { type: 'json' };
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
    for (const benchmark of (await readCases(file)).map((one) => caseBenchmark(one)))
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

  it('run in f16 as well', async () => {
    const file = await casesFile([{ name: 'product', op: 'matmul', m: 8, k: 12, n: 16 }]);
    const profiled: Dispatch[] = [];
    for (const benchmark of (await readCases(file)).map((one) => caseBenchmark(one, 'f16')))
      await benchmark.each(device, async ({ run }) => void profiled.push(...(await profile(device, run))));
    expect(profiled.map(({ kernel }) => kernel)).toEqual([expect.stringContaining('T=f16')]);
  });

  it.each([
    ['nothing', /is not JSON/],
    [{ name: 'a' }, /must be a list of cases/],
    [[], /holds no cases; one is such as \{"name"/],
    [[3], /case 1: it must be keys and values, not 3/],
    [[{ name: 'a', op: 'matmul', m: 8, k: 12 }], /case 1: n is missing$/],
    [[{ name: 'a', op: 'matmul', m: 8, k: 12, n: 0 }], /case 1: n must be 1 or more, not 0$/],
    [[{ name: 'a', op: 'matmul', m: 8, k: 12, n: 1.5 }], /case 1: n must be a whole number, not 1\.5$/],
    [[{ name: 'a', op: 'sort', n: 8 }], /case 1: op must be one of matmul, .*softmax, not "sort"$/],
    [[{ name: 'a', n: 8 }], /case 1: op is missing$/],
    [
      [{ name: 'a', op: 'softmax', rows: 8, cols: 12, axis: 0 }],
      /case 1: axis is no field of softmax; known are name, op, rows, cols$/,
    ],
    [
      [{ name: 'large', op: 'matmul', m: 1e5, k: 1e5, n: 1e5 }],
      /case 1, large: a tensor of \(100000, 100000\) has 10,000,000,000 elements, more than 536,870,912 \(2 GiB\)/,
    ],
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
  const square = (n: number) => tensor(device, new Float32Array(n * n).fill(1), [n, n]);
  const ceilings = { gflops: 10, gigabytes: 2 };

  it('times each dispatch, and leaves the device as it was', async () => {
    const a = square(64);
    const { dispatches } = device.stream;
    const profiled = await profile(device, () => scope(device, () => void add(softmax(matmul(a, a)), a).window()));
    expect(profiled.map(({ kernel }) => /^[a-z]+/.exec(kernel)![0])).toEqual(['matmul', 'softmax', 'elementwise']);
    for (const [i, { ms, began, recorded, recording }] of profiled.entries()) {
      expect(ms).toBeGreaterThan(0);
      expect(recording).toBeGreaterThan(0);
      if (i > 0) expect(began).toBeGreaterThanOrEqual(profiled[i - 1]!.began);
      if (i > 0) expect(recorded).toBeGreaterThan(profiled[i - 1]!.recorded);
    }
    expect(profiled.map(({ bytes }) => bytes)).toEqual([3, 2, 3].map((tensors) => tensors * 64 * 64 * 4));
    expect(device.stream.dispatches - dispatches).toBe(3);
    expect(Object.hasOwn(device.gpu, 'createCommandEncoder')).toBe(false);
    for (const method of ['dispatch', 'replay']) expect(Object.hasOwn(device.stream, method)).toBe(false);
  });

  it('sees what a replay runs', async () => {
    const a = square(16);
    const replay = capture(device, () => matmul(a, a));
    const profiled = await profile(device, () => replay.run());
    expect(profiled.map(({ operations }) => operations)).toEqual([2 * 16 ** 3]);
    expect((await replay.result.read())[0]).toBe(16);
    replay.release();
  });

  it('counts the operations of products, forward and backward', async () => {
    const random = (...shape: number[]) =>
      tensor(device, new HostRandom(randomKey(0, 'x')).normal(sizeOf(shape)), shape);
    const count = async (inputs: Tensor[], call: () => Tensor) => {
      for (const input of inputs) input.requiresGrad = true;
      const profiled = await profile(device, () =>
        scope(device, () => {
          const result = call();
          backward(result, random(...result.shape));
          inputs.forEach(clearGradient);
        }),
      );
      const counts = profiled.flatMap(({ operations }) => operations ?? []);
      return counts.sort((a, b) => a - b);
    };
    const [a, b] = [random(8, 12), random(12, 20)];
    expect(await count([a, b], () => matmul(a, b))).toEqual(Array(3).fill(2 * 8 * 12 * 20));
    const [x, w] = [random(2, 4, 6, 5), random(3, 4, 3, 3)];
    expect(await count([x, w], () => conv2d(x, w, null, { padding: 1 }))).toEqual(
      Array(3).fill(2 * 2 * 30 * 3 * 4 * 9),
    );
    const [q, k, v] = [random(2, 2, 9, 8), random(2, 2, 5, 8), random(2, 2, 5, 8)];
    const product = 2 * 2 * 2 * 9 * 5 * 8;
    expect(await count([q, k, v], () => attention(q, k, v))).toEqual([2 * product, 3 * product, 4 * product]);
  });

  const dispatch = { kernel: 'matmul', recorded: 5, recording: 0.5, began: 6, ms: 2, bytes: 1e6, operations: 1e7 };
  const other = { ...dispatch, kernel: 'sum', recorded: 6, began: 8, ms: 1, operations: null };

  const lookUp = { ...other, kernel: 'gather', bytes: null, ms: 0.5 };

  it('adds up by kernel, and tells the share of the nearer ceiling', () => {
    expect(byKernel([lookUp, other, dispatch, dispatch], ceilings)).toEqual([
      { kernel: 'matmul', calls: 2, ms: 4, gflops: 5, gigabytes: 0.5, ceiling: 0.5 },
      { kernel: 'sum', calls: 1, ms: 1, gflops: null, gigabytes: 1, ceiling: 0.5 },
      { kernel: 'gather', calls: 1, ms: 0.5, gflops: null, gigabytes: null, ceiling: null },
    ]);
    const lines = profileTable([lookUp, dispatch, other], ceilings).split('\n');
    expect(lines.map((line) => line.trim().split(/ {2,}/))).toEqual([
      ['calls', 'ms', '%', 'GFLOP/s', 'GB/s', '% of max', 'kernel'],
      ['1', '2.00', '57.1', '5.0', '0.5', '50', 'matmul'],
      ['1', '1.00', '28.6', '1.0', '50', 'sum'],
      ['1', '0.50', '14.3', 'gather'],
    ]);
  });

  it('stands beside facts of the adapter, ceilings among them', async () => {
    // On a device of its own: another file may have opened the shared one before these kernels were registered.
    const facts = new Map<string, string>();
    for await (const [name, text] of adapterFacts(await openNodeDevice(), 0.01)) facts.set(name, text);
    expect(facts.get('adapter')).toBe(device.profile.description);
    expect(Number(facts.get('maxStorageBufferBindingSize')!.replaceAll(',', ''))).toBe(device.gpu.limits.maxStorageBufferBindingSize); // prettier-ignore
    for (const measured of ['copy of 64 MiB', 'multiply-adds in registers', 'read-back of 4 bytes'])
      expect(parseFloat(facts.get(measured)!), measured).toBeGreaterThan(0.01);
    expect([...facts.keys()].at(-1)).toMatch(/^product of \d+³, f(16|32)$/);
  });

  it('becomes trace events: complete ones in order, on named tracks of host and device', async () => {
    const file = path.join(folder, 'trace.json');
    await writeTrace(file, [dispatch, other], 'an adapter');
    const { traceEvents } = JSON.parse(await readFile(file, 'utf8')) as { traceEvents: TraceEvent[] };
    for (const { ph, name, pid, tid } of traceEvents) {
      expect(['X', 'M']).toContain(ph);
      expect(typeof name).toBe('string');
      for (const id of [pid, tid]) expect(Number.isInteger(id)).toBe(true);
    }
    const complete = traceEvents.filter(({ ph }) => ph === 'X');
    expect(complete.map(({ name, tid, ts, dur }) => [name, tid, ts, dur])).toEqual([
      ['matmul', 1, 0, 500],
      ['matmul', 2, 1000, 2000],
      ['sum', 1, 1000, 500],
      ['sum', 2, 3000, 1000],
    ]);
    const names = traceEvents.filter(({ name }) => name === 'thread_name').map(({ tid, args }) => [tid, args!['name']]);
    expect(names).toEqual([[1, 'host: recording'], [2, 'an adapter']]); // prettier-ignore
  });

  it('may be of a long run, with hundreds of thousands of dispatches', async () => {
    const dispatches = Array.from({ length: 300_000 }, (_, i) => ({ ...dispatch, recorded: 5 + i, began: 6 + i }));
    const events = traceEvents(dispatches, '');
    expect(events).toHaveLength(3 + 2 * 300_000);
    expect(events.at(-1)).toMatchObject({ tid: 2, ts: 300_000_000 });
    const file = path.join(folder, 'long.json'); // written in parts
    await writeTrace(file, dispatches.slice(0, 1200), '');
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({ traceEvents: { length: 3 + 2 * 1200 } });
  });

  it('is refused a place before there is one, and leaves nothing there', async () => {
    await expect(checkTrace(path.join(folder, 'nowhere', 't.json'))).rejects.toThrow(
      /cannot write .*t\.json: .*ENOENT/,
    );
    await expect(checkTrace(folder)).rejects.toThrow(/it is a folder/);
    const file = path.join(folder, 'kept.json');
    await checkTrace(file);
    expect(existsSync(file)).toBe(false);
    await writeFile(file, 'kept');
    await checkTrace(file);
    expect(await readFile(file, 'utf8')).toBe('kept');
  });

  it('has no negative durations, whatever the clock says', () => {
    const events = traceEvents([{ ...dispatch, ms: -1e-9 }], '').filter(({ ph }) => ph === 'X');
    for (const { ts, dur } of events) for (const time of [ts, dur]) expect(time).toBeGreaterThanOrEqual(0);
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

  it('count operations by the shapes of weights, as PyTorch’s record of such a model does, and attention', () => {
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
    for (const { measurement, counts, dispatches } of [training, sampling]) {
      expect(measurement.ms).toBeGreaterThan(0);
      expect(counts).toMatchObject({ pipelines: 0, buffers: 0, bindGroups: 0 });
      expect(Number.isInteger(counts.dispatches)).toBe(true);
      expect(counts.submits).toBeLessThan(counts.dispatches / 10);
      expect(counts.peak).toBeGreaterThan(0);
      expect(dispatches).toBeNull();
    }
    expect(training.measurement.name).toBe('training step, batch 1+1');
    expect(training.counts.dispatches).toBeGreaterThan(sampling.counts.dispatches);
  });
});
