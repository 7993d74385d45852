/** Attention beyond the operations' table: the recordings, the log-sum-exp, what a hidden key may hold, and block lists. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward, decode, encode, keep, release, scope, tensor } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { attention, AttentionLists, attentionWithLogSumExp } from '../../kernels/attention/attention.ts';
import type { AttentionOptions } from '../../kernels/attention/attention.ts';
import { blockLists } from '../../kernels/attention/lists.ts';
import { quantize } from '../../kernels/matmul/quantize.ts';
import { openSafetensors } from '../../nn/files.ts';
import { guardedDevice } from '../device.ts';
import { expectClose, nd } from './row.ts';
import type { NdArray } from './row.ts';
import { attentionReference } from './table/attention.ts';

const folder = fileURLToPath(new URL('../goldens/', import.meta.url));

async function load(file: string): Promise<Map<string, NdArray>> {
  const file_ = await openSafetensors(`${folder}attention/${file}.safetensors`);
  const tensors = new Map<string, NdArray>();
  for (const [name, { shape }] of file_.tensors)
    tensors.set(name, { shape, data: Float64Array.from(await file_.floats(name)) });
  await file_.close();
  return tensors;
}

type Names = 'out' | 'lse' | 'dq' | 'dk' | 'dv';

/** Everything that attention computes, forward and backward. */
async function run(
  device: Device,
  inputs: Record<'q' | 'k' | 'v' | 'dout', NdArray>,
  options: Omit<AttentionOptions, 'mask'>,
  mask?: NdArray,
): Promise<Record<Names, Float64Array>> {
  const results = scope(device, () => {
    const up = ({ data, shape }: NdArray): Tensor => tensor(device, data, shape);
    const [q, k, v] = [up(inputs.q), up(inputs.k), up(inputs.v)];
    for (const leaf of [q, k, v]) leaf.requiresGrad = true;
    const { out, logSumExp } = attentionWithLogSumExp(q, k, v, { ...options, ...(mask ? { mask: up(mask) } : {}) });
    backward(out, up(inputs.dout));
    return { out, lse: logSumExp, dq: q.grad!, dk: k.grad!, dv: v.grad! };
  });
  const read = async (result: Tensor) => {
    const values = Float64Array.from(await result.read());
    result.storage.drop();
    return values;
  };
  const values: [string, Float64Array][] = [];
  for (const [name, result] of Object.entries(results)) values.push([name, await read(result)]);
  return Object.fromEntries(values) as Record<Names, Float64Array>;
}

let shuffled: Device; // hands blocks around by shuffle on a software adapter
let staged: Device; // by workgroup memory
beforeAll(async () => {
  shuffled = await guardedDevice();
  staged = await openNodeDevice({ guard: true, without: ['subgroups'] });
});
afterAll(async () => {
  await shuffled.checkGuards();
  await staged.checkGuards();
  staged.destroy();
});

describe('the recordings', async () => {
  interface Limits {
    atol: number;
    rtol: number;
  }
  const manifest = JSON.parse(readFileSync(`${folder}manifest.json`, 'utf8')) as {
    cases: { kind: string; sub: Record<string, { kind: string; window?: number }>; limits: Record<string, Limits> }[];
  };
  const { sub, limits } = manifest.cases.find(({ kind }) => kind === 'attention')!;
  const [inputs, outputs] = [await load('inputs'), await load('outputs')];

  const check = async (device: Device, name: string) => {
    const { kind, window } = sub[name]!;
    const get = (key: string) => inputs.get(`${name}.${key}`)!;
    const options = kind === 'causal' ? { causal: true, ...(window ? { window } : {}) } : {};
    const got = await run(
      device,
      { q: get('q'), k: get('k'), v: get('v'), dout: get('dout') },
      options,
      inputs.get(`${name}.mask`),
    );
    for (const [key, values] of Object.entries(got)) {
      const expected = outputs.get(`${name}.${key}`)!;
      const { atol, rtol } = limits[name] ?? limits[key.startsWith('d') ? 'grad' : 'output']!;
      values.forEach((value, i) => {
        const e = expected.data[i]!;
        if (!(Math.abs(value - e) <= atol + rtol * Math.abs(e)))
          throw new Error(`${name}.${key}[${i}] is ${value}, recorded ${e}`);
      });
    }
  };
  for (const name of Object.keys(sub)) {
    it(`${name}, by shuffle`, () => check(shuffled, name));
    it(`${name}, staged`, () => check(staged, name));
  }
});

describe('what is hidden', () => {
  const ramp = (shape: readonly number[], step: number) => nd(shape, (i) => Math.fround(Math.sin(i * step)));
  const small = (Tq: number, Tk: number) => ({
    q: ramp([1, 1, Tq, 8], 0.7),
    k: ramp([1, 1, Tk, 8], 0.3),
    v: ramp([1, 1, Tk, 8], 0.9),
    dout: ramp([1, 1, Tq, 8], 0.5),
  });

  it('gives zeros, −1e30 and no gradient to a query that sees no key', async () => {
    for (const device of [shuffled, staged]) {
      const { out, lse, dq, dk, dv } = await run(device, small(20, 7), { causal: true });
      expect(out.subarray(0, 13 * 8)).toEqual(new Float64Array(13 * 8));
      expect(dq.subarray(0, 13 * 8)).toEqual(new Float64Array(13 * 8));
      expect(lse.subarray(0, 13)).toEqual(new Float64Array(13).fill(Math.fround(-1e30)));
      for (const value of [...out, ...dq, ...dk, ...dv, ...lse]) expect(Number.isFinite(value)).toBe(true);
    }
  });

  it('takes −∞ and the least f32 in a mask for hidden, a whole row of them too', async () => {
    for (const low of [-Infinity, -3.4e38]) {
      const mask = nd([1, 1, 3, 5], (i) => (i < 5 || i % 2 === 0 ? low : 0));
      const inputs = small(3, 5);
      const got = await run(shuffled, inputs, {}, mask);
      const infinite = { ...mask, data: mask.data.map((value) => (value < 0 ? -Infinity : value)) };
      const expected = attentionReference([inputs.q, inputs.k, inputs.v, infinite], {});
      expected.out.data.forEach((value, i) => expect(got.out[i]).toBeCloseTo(value, 5));
      expect(got.out.subarray(0, 8)).toEqual(new Float64Array(8));
      for (const value of [...got.dq, ...got.dk, ...got.dv]) expect(Number.isFinite(value)).toBe(true);
    }
  });

  it('is no score that f32 holds, however low', async () => {
    const far = (shape: readonly number[]) => nd(shape, () => 1e18);
    const { v } = small(3, 1);
    const q = nd([1, 1, 3, 8], () => -1e18);
    for (const device of [shuffled, staged]) {
      const out = scope(device, () => {
        const up = ({ data, shape }: NdArray) => tensor(device, data, shape);
        return attention(up(q), up(far([1, 1, 1, 8])), up(v)); // scores of −2.8e36
      });
      for (let i = 0; i < 3; i++) expect((await out.read()).slice(i * 8, i * 8 + 8)).toEqual(Float32Array.from(v.data));
      release(out);
    }
  });

  it('has gradients of exactly zero for keys outside every window', async () => {
    const blocks = { size: 32, visible: [[0], [0]] };
    const { dk, dv } = await run(shuffled, small(40, 64), { blocks });
    expect(dk.subarray(32 * 8)).toEqual(new Float64Array(32 * 8));
    expect(dv.subarray(32 * 8)).toEqual(new Float64Array(32 * 8));
  });

  it.each([
    [3, 20, 30],
    [66000, 1, 2], // more workgroups than a dimension of the grid holds
  ])('is not touched by the batch: of %i samples, the last has the bits that it has alone', async (B, Tq, Tk) => {
    const whole = {
      q: ramp([B, 1, Tq, 8], 0.7),
      k: ramp([B, 1, Tk, 8], 0.3),
      v: ramp([B, 1, Tk, 8], 0.9),
      dout: ramp([B, 1, Tq, 8], 0.5),
    };
    const last = ({ shape, data }: NdArray) =>
      nd([1, ...shape.slice(1)], (i) => data[i + data.length - data.length / B]!);
    const [all, alone] = [
      await run(shuffled, whole, {}),
      await run(shuffled, { q: last(whole.q), k: last(whole.k), v: last(whole.v), dout: last(whole.dout) }, {}),
    ];
    for (const [name, values] of Object.entries(alone))
      expect(all[name as Names].slice(-values.length)).toEqual(values);
  });
});

describe('staged in workgroup memory', () => {
  const check = async (device: Device, B: number, H: number, KV: number, Tq: number, Tk: number, D: number) => {
    const ramp = (shape: readonly number[], step: number) => nd(shape, (i) => Math.fround(Math.sin(i * step)));
    const [q, dout] = [ramp([B, Tq, H, D], 0.7), ramp([B, Tq, H, D], 0.5)];
    const inputs = { q, k: ramp([B, Tk, KV, D], 0.3), v: ramp([B, Tk, KV, D], 0.9), dout };
    const options = { causal: true, layout: 'bthd' } as const;
    const [got, expected] = [await run(device, inputs, options), await run(shuffled, inputs, options)];
    const { out, logSumExp } = attentionReference([inputs.q, inputs.k, inputs.v], options);
    expectClose('out', got.out, out, 2e-6);
    expectClose('lse', got.lse, logSumExp, 2e-6);
    // These are checked by the operations' table.
    for (const name of ['dq', 'dk', 'dv'] as const)
      expectClose(name, got[name], { shape: [got[name].length], data: expected[name] }, 4e-6);
  };

  it('in parts of a row, the last one not full', () => check(staged, 2, 2, 1, 35, 40, 68));

  it('unrolled, as for a GPU', async () => {
    const gpu = await openNodeDevice({ guard: true, without: ['subgroups'] });
    gpu.profile.software = false;
    await check(gpu, 1, 2, 2, 40, 37, 8);
    await gpu.checkGuards();
    gpu.destroy();
  });
});

it('reads a cache in f16 beside queries in f32, and nothing past what counts', async () => {
  const [H, KV, room, D] = [4, 2, 300, 8];
  for (const device of [shuffled, staged])
    for (const Tq of [1, 9]) {
      const ramp = (shape: readonly number[], step: number) =>
        nd(shape, (i) => Math.round(Math.sin(i * step) * 64) / 64);
      const [q, k, v] = [ramp([2, H, Tq, D], 0.7), ramp([2, KV, room, D], 0.3), ramp([2, KV, room, D], 0.9)];
      const counts = nd([2], (b) => [290, 20][b]!);
      const expected = attentionReference([q, k, v, null, null, counts], { causal: true }).out;
      for (const { data } of [k, v])
        data.forEach((_, i) => {
          const [b, t] = [Math.floor(i / (KV * room * D)), Math.floor(i / D) % room];
          if (t >= counts.data[b]!) data[i] = NaN;
        });
      const out = scope(device, () => {
        const up = ({ data, shape }: NdArray) => tensor(device, data, shape, { dtype: 'f16' });
        const keyLengths = tensor(device, Uint32Array.from(counts.data));
        return attention(tensor(device, q.data, q.shape), up(k), up(v), { causal: true, keyLengths });
      });
      expect(out.dtype).toBe('f32');
      expectClose(`${Tq} queries`, await out.read(), expected, 2e-6);
      release(out);
    }
});

it('reads a cache in q8 as it is stored, and has no gradient then', async () => {
  const [H, KV, D] = [4, 2, 32];
  for (const device of [shuffled, staged])
    for (const [Tq, Tk] of [
      [1, 300],
      [9, 70],
    ] as const) {
      const ramp = (shape: readonly number[], step: number) => nd(shape, (i) => Math.fround(Math.sin(i * i * step)));
      const [q, k, v] = [ramp([2, H, Tq, D], 0.7), ramp([2, KV, Tk, D], 0.3), ramp([2, KV, Tk, D], 0.9)];
      const stored = ({ shape, data }: NdArray): NdArray => ({
        shape,
        data: Float64Array.from(decode(encode(data, 'q8').buffer, data.length, 'q8')),
      });
      const expected = attentionReference([q, stored(k), stored(v), null, null, null], { causal: true }).out;
      const made = (learns: boolean) =>
        scope(device, () => {
          const up = ({ data, shape }: NdArray) => quantize(device, data, shape, 'q8');
          const queries = tensor(device, q.data, q.shape);
          queries.requiresGrad = learns;
          return attention(queries, up(k), up(v), { causal: true });
        });
      const out = made(false);
      expectClose(`${Tq} queries`, await out.read(), expected, 2e-6);
      release(out);
      expect(() => made(true)).toThrow(/\[attention\] k and v in q8 are stored: there is no gradient/);
    }
});

it('shares lists among layers with the same lengths, forward and backward', async () => {
  const ramp = (shape: readonly number[], step: number) =>
    tensor(shuffled, nd(shape, (i) => Math.fround(Math.sin(i * step))).data, shape);
  const layers = (share: boolean) =>
    scope(shuffled, () => {
      const [q, k, v] = [ramp([2, 1, 20, 8], 0.7), ramp([2, 1, 20, 8], 0.3), ramp([2, 1, 20, 8], 0.9)];
      q.requiresGrad = true;
      const lengths = (...values: number[]) => tensor(shuffled, Uint32Array.from(values));
      const [keyLengths, others] = [lengths(20, 11), lengths(3, 20)];
      const options = { causal: true, ...(share ? { lists: new AttentionLists(shuffled) } : {}) };
      const before = shuffled.stream.dispatches;
      const first = attention(q, k, v, { ...options, keyLengths });
      const second = attention(first, k, v, { ...options, keyLengths });
      const third = attention(second, k, v, { ...options, keyLengths: others });
      backward(third, ramp([2, 1, 20, 8], 0.5));
      return { grad: keep(q.grad!), third, dispatches: shuffled.stream.dispatches - before };
    });
  const [alone, shared] = [layers(false), layers(true)];
  expect(await shared.grad.read()).toEqual(await alone.grad.read());
  expect(await shared.third.read()).toEqual(await alone.third.read());
  // Lists of three layers, forward and backward, against one whenever the lengths change: twice forward, once on the way back.
  expect(alone.dispatches - shared.dispatches).toBe(6 - 3);
  for (const { grad, third } of [alone, shared]) release(grad, third);
  expect(() => new AttentionLists(shuffled)).toThrow(/belong to a scope/);
});

it('refuses a gradient of the log-sum-exp', () => {
  scope(shuffled, () => {
    const q = tensor(shuffled, new Float32Array(4), [1, 1, 1, 4]);
    q.requiresGrad = true;
    const { logSumExp } = attentionWithLogSumExp(q, q, q);
    expect(() => backward(logSumExp)).toThrow(/\[attention\] the log-sum-exp has no gradient/);
  });
});

it('lists every seen pair in one block, and marks the blocks that hold others', async () => {
  const sparse = fc.tuple(fc.constantFrom(32, 64), fc.integer({ min: 0, max: 1000 })).map(([size, seed]) => {
    const visible = [0, 1, 2, 3].map((i) => [0, 1, 2, 3].filter((j) => (seed >> (i + j)) % 2 === 0));
    return { size, visible };
  });
  const length = fc.integer({ min: 0, max: 120 });
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        queries: length,
        keys: length,
        lengths: fc.option(fc.tuple(length, length, length, length)),
        causal: fc.boolean(),
        window: fc.option(fc.integer({ min: 1, max: 50 })),
        windowBlock: fc.constantFrom(1, 1, 5, 16),
        sinks: fc.integer({ min: 0, max: 40 }),
        blocks: fc.option<{ size: number; visible: number[][] }, null>(sparse),
        tile: fc.constantFrom(8, 16, 32),
        block: fc.constantFrom(4, 8, 16),
        transposed: fc.boolean(),
      }),
      async ({ queries, keys, lengths, causal, window, windowBlock: wide, sinks, blocks, tile, block, transposed }) => {
        const windowed = causal && window !== null;
        const windowBlock = windowed ? wide : 1;
        const own = lengths && [lengths.slice(0, 2), lengths.slice(2)];
        const up = (values: number[]) => tensor(shuffled, Uint32Array.from(values));
        const { lists, params } = scope(shuffled, () => {
          const rules = { causal, window: windowed ? window : 0, windowBlock, sinks: windowed ? sinks : 0 };
          const pattern = { queries, keys, ...rules, blocks };
          const given = { queryLengths: own && up(own[0]!), keyLengths: own && up(own[1]!) };
          const made = blockLists(shuffled, { ...pattern, ...given }, { tile, block, transposed }, null);
          return { lists: keep(made.tensor), params: made.params };
        });
        const words = await lists.read();
        release(lists);
        const [rows, columns] = transposed ? [keys, queries] : [queries, keys];
        const tiles = Math.ceil(rows / tile);
        for (let b = 0; b < (own ? 2 : 1); b++) {
          const [Tq, Tk] = own ? [Math.min(own[0]![b]!, queries), Math.min(own[1]![b]!, keys)] : [queries, keys];
          const seen = (i: number, j: number) =>
            i < Tq &&
            j < Tk &&
            (!causal || j <= i + Tk - Tq) &&
            (!windowed || j >= Math.floor((i + Tk - Tq - window + 1) / windowBlock) * windowBlock || j < sinks) &&
            (!blocks || blocks.visible[Math.floor(i / blocks.size)]!.includes(Math.floor(j / blocks.size)));
          for (let t = 0; t < tiles; t++) {
            const visits = new Map<number, boolean>();
            const list = Math.floor(t / params.listTiles) + b * Math.ceil(tiles / params.listTiles);
            let at = list * params.listWords;
            expect([...words.subarray(at, at + 2)]).toEqual([Tq, Tk]);
            for (at += 6; words[at + 1]! > 0; at += 2)
              for (let c = words[at]!; c < words[at + 1]! >> 1; c++) {
                expect(visits.has(c)).toBe(false);
                visits.set(c, words[at + 1]! % 2 === 1);
              }
            expect(at + 2).toBeLessThanOrEqual((list + 1) * params.listWords);
            for (let c = 0; c * block < columns; c++) {
              let [some, all] = [false, (c + 1) * block <= (transposed ? Tq : Tk)];
              for (let row = t * tile; row < Math.min((t + 1) * tile, transposed ? Tk : Tq); row++)
                for (let column = c * block; column < Math.min((c + 1) * block, columns); column++) {
                  const sees = transposed ? seen(column, row) : seen(row, column);
                  some ||= sees;
                  all &&= sees;
                }
              if (some) expect(visits.has(c)).toBe(true);
              if (visits.get(c) === false) expect(all).toBe(true);
            }
          }
        }
      },
    ),
    { numRuns: 200, seed: 20 },
  );
});
