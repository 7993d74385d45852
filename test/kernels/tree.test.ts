/** Tree attention beyond the operations' table: growth, causality, chunks, what is counted, and dense attention as its limit. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward, HostRandom, randomKey, release, scope, tensor } from '../../engine/index.ts';
import type { Device, Shape, Tensor } from '../../engine/index.ts';
import {
  appendSummaries,
  attention,
  bestLeaf,
  dequantize,
  emptySummaries,
  mostNodesScored,
  quantize,
  selectLeaves,
  treeAttention,
  treeSummaries,
} from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';
import { expectClose, nd } from './row.ts';

let device: Device;
beforeAll(async () => void (device = await guardedDevice()));
afterAll(() => device.checkGuards());

const normal = (key: string, size: number) => new HostRandom(randomKey(0, key)).normal(size);
const sizeOf = (shape: Shape) => shape.reduce((product, extent) => product * extent, 1);
const random = (key: string, shape: Shape): Tensor => tensor(device, normal(key, sizeOf(shape)), shape);
const u32 = (...values: number[]): Tensor => tensor(device, Uint32Array.from(values));

/** The bits of what `body` returns. */
async function bits(body: () => readonly Tensor[]): Promise<Uint32Array[]> {
  const tensors = scope(device, body);
  const values = await Promise.all(tensors.map(async (t) => new Uint32Array((await t.read()).slice().buffer)));
  release(...tensors);
  return values;
}

const kinds = ['pooled', 'boxes'] as const;

describe.each(kinds)('summaries: %s', (kind) => {
  it('that grow as keys come are, bit for bit, those made at once', async () => {
    const [B, room, KV, D] = [2, 70, 2, 8];
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat({ max: 20 }), fc.nat({ max: 20 })), { minLength: 1, maxLength: 8 }),
        async (steps) => {
          const [grown, made] = await bits(() => {
            const k = random('k', [B, room, KV, D]);
            const shape = { block: 4, fanout: 3, kind };
            const summaries = emptySummaries(device, k.shape, shape);
            let lengths = [0, 0];
            for (const step of steps) {
              const next = lengths.map((length, b) => Math.min(room, length + step[b]!));
              const added = Math.max(...step);
              appendSummaries(k, summaries, { starts: u32(...lengths), keyLengths: u32(...next), added });
              lengths = next;
            }
            return [summaries.nodes, treeSummaries(k, { ...shape, keyLengths: u32(...lengths) }).nodes];
          });
          expect(grown).toEqual(made);
        },
      ),
      { numRuns: 10, seed: 20 },
    );
  });
});

/** Selects and attends as a model does, with leaves of 4 keys. */
const OPTIONS = { window: 6, block: 4, beam: 3, fanout: 2 };
function attend(q: Tensor, k: Tensor, v: Tensor, kind: 'pooled' | 'boxes', start = 0): readonly [Tensor, Tensor] {
  const { window, block, beam, fanout } = OPTIONS;
  const batch = q.shape[0]!;
  const summaries = treeSummaries(k, { block, fanout, kind });
  const starts = u32(...Array.from({ length: batch }, () => start));
  const keyLengths = u32(...Array.from({ length: batch }, () => start + q.shape[1]!));
  const { selected } = selectLeaves(q, summaries, { window, beam, starts });
  return [selected, treeAttention(q, k, v, { selected, window, block, keyLengths })];
}

describe.each(kinds)('a query, with %s', (kind) => {
  const [T, H, KV, D] = [90, 4, 2, 8];
  const host = { q: normal('q', T * H * D), k: normal('k', T * KV * D), v: normal('v', T * KV * D) };
  /** Positions first … end of a host array (T, heads, D), in room for `room`, the rest NaN. */
  const part = (data: Float32Array, heads: number, first: number, end: number, room = end - first): Tensor => {
    const row = heads * D;
    const values = new Float32Array(room * row).fill(NaN);
    values.set(data.subarray(first * row, end * row));
    return tensor(device, values, [1, room, heads, D]);
  };
  const whole = () => [part(host.q, H, 0, T), part(host.k, KV, 0, T), part(host.v, KV, 0, T)] as const;

  it('selects and sees nothing of later keys, nor by the summary of a node that is not complete', async () => {
    const [selected, out] = await bits(() => attend(...whole(), kind));
    for (const t of [3, 17, 38, 64]) {
      const [n, m] = [OPTIONS.beam * KV, H * D];
      const [other, changed] = await bits(() => {
        // All keys and values behind position t become others: each node that holds one of them, too.
        const altered = (data: Float32Array) => data.map((x, i) => (i < (t + 1) * KV * D ? x : 100 - 3 * x));
        return attend(part(host.q, H, 0, T), part(altered(host.k), KV, 0, T), part(altered(host.v), KV, 0, T), kind);
      });
      expect(other!.subarray(0, (t + 1) * n)).toEqual(selected!.subarray(0, (t + 1) * n));
      expect(changed!.subarray(0, (t + 1) * m)).toEqual(out!.subarray(0, (t + 1) * m));
      expect(changed!.subarray((t + 1) * m)).not.toEqual(out!.subarray((t + 1) * m));
    }
  });

  it('selects the same, bit for bit, in whatever chunks and room it is computed', async () => {
    const [selected, out] = await bits(() => attend(...whole(), kind));
    for (const chunk of [1, 7, 32]) {
      const n = OPTIONS.beam * KV;
      for (let first = chunk === 1 ? 80 : 0; first < T; first += chunk) {
        const end = Math.min(T, first + chunk);
        const [own, result] = await bits(() => {
          // A cache with room for more, of which the rest must not count.
          const [k, v] = [part(host.k, KV, 0, end, 120), part(host.v, KV, 0, end, 120)];
          return attend(part(host.q, H, first, end), k, v, kind, first);
        });
        expect(own).toEqual(selected!.subarray(first * n, end * n));
        const floats = (words: Uint32Array) => new Float32Array(words.slice().buffer);
        const expected = floats(out!.subarray(first * H * D, end * H * D));
        expectClose(
          `chunk ${first}`,
          floats(result!),
          nd([expected.length], (i) => expected[i]!),
          2e-6,
        );
      }
    }
  });

  it('selects the same beside others in a batch', async () => {
    const [alone] = await bits(() => attend(...whole(), kind));
    const [both] = await bits(() => {
      const pair = (data: Float32Array, heads: number) => {
        const values = new Float32Array(2 * data.length);
        values.set(data.map((x) => 5 - x));
        values.set(data, data.length);
        return tensor(device, values, [2, T, heads, D]);
      };
      return attend(pair(host.q, H), pair(host.k, KV), pair(host.v, KV), kind);
    });
    expect(both!.subarray(alone!.length)).toEqual(alone);
  });

  it('touches no more nodes and keys than counted ahead, and those that it says', async () => {
    const { window, block, beam, fanout } = OPTIONS;
    const [touched, selected] = await bits(() => {
      const [q, k] = whole();
      const made = selectLeaves(q, treeSummaries(k, { block, fanout, kind }), { window, beam });
      return [made.touched, made.selected];
    });
    for (let i = 0; i < T * KV; i++) {
      const t = Math.floor(i / KV);
      const first = Math.floor(Math.max(0, t - window + 1) / block) * block;
      const leaves = selected!.subarray(i * beam, (i + 1) * beam).filter((leaf) => leaf !== 2 ** 32 - 1).length;
      expect(touched![i * 2 + 1]).toBe(leaves * block + t + 1 - first);
      expect(touched![i * 2 + 1]).toBeLessThanOrEqual(beam * block + window + block - 1);
      expect(touched![i * 2]).toBeLessThanOrEqual(mostNodesScored(first, { block, fanout }, beam));
      if (first / block > 2 * beam) expect(touched![i * 2]).toBeGreaterThan(beam);
    }
  });
});

it.each(['f32', 'f16'] as const)(
  'equals dense causal attention when all leaves are selected, keys in %s',
  async (dtype) => {
    const [B, T, H, KV, D] = [2, 60, 4, 2, 8];
    const results = await Promise.all(
      [true, false].map(async (tree) => {
        const made = scope(device, () => {
          const [q, k, v] = [random('q', [B, T, H, D]), ...['k', 'v'].map((name) => {
          const values = normal(name, B * T * KV * D);
          return tensor(device, values, [B, T, KV, D], { dtype });
        })] as [Tensor, Tensor, Tensor]; // prettier-ignore
          const leaves = [q, k, v];
          for (const leaf of leaves) leaf.requiresGrad = true;
          const { selected } = selectLeaves(q, treeSummaries(k, { block: 4, fanout: 2 }), { window: 5, beam: 15 });
          const out = tree
            ? treeAttention(q, k, v, { selected, window: 5, block: 4 })
            : attention(q, k, v, { causal: true, layout: 'bthd' });
          backward(out, random('upstream', out.shape));
          return [out, ...leaves.map((leaf) => leaf.grad!)];
        });
        const values = await Promise.all(made.map(async (t) => Float64Array.from(await t.read())));
        release(...made);
        return values;
      }),
    );
    const [tree, dense] = results as [Float64Array[], Float64Array[]];
    // Gradients of keys in f16 are rounded twice: those of the window, and what the leaves add.
    const tolerances = dtype === 'f32' ? [2e-6, 4e-6, 4e-6, 4e-6] : [2e-6, 4e-6, 2 ** -10, 2 ** -10];
    ['out', 'dq', 'dk', 'dv'].forEach((name, i) =>
      expectClose(name, tree[i]!, { shape: [dense[i]!.length], data: dense[i]! }, tolerances[i]!),
    );
  },
);

it('finds the leaf of the greatest product at the cost that it counts', async () => {
  const [T, block] = [256, 4];
  const [found, opened] = await bits(() => {
    // Keys of one direction that grow: the last leaf before the window is the best, and found at once.
    const k = tensor(
      device,
      Float32Array.from({ length: T * 4 }, (_, i) => Math.floor(i / 4)),
      [1, T, 1, 4],
    );
    const q = tensor(device, new Float32Array(4).fill(1), [1, 1, 1, 4]);
    const summaries = treeSummaries(k, { block, fanout: 4, kind: 'boxes' });
    const { leaf, opened } = bestLeaf(q, k, summaries, { window: 1, starts: u32(T) });
    return [leaf, opened];
  });
  expect([...found!]).toEqual([63]);
  expect([...opened!]).toEqual([4, 1]); // 64 leaves are one node of 64: a node a level, and the leaf
});

describe('keys and values in q8', () => {
  const [B, room, H, KV, D] = [2, 90, 4, 2, 32];
  const stored = (key: string) => quantize(device, normal(key, B * room * KV * D), [B, room, KV, D], 'q8');

  it.each(kinds)(
    'have the summaries, bit for bit, of what is read back of them, however they came: %s',
    async (kind) => {
      const [grown, made] = await bits(() => {
        const k = stored('k');
        const shape = { block: 4, fanout: 3, kind };
        const summaries = emptySummaries(device, k.shape, shape);
        let lengths = [0, 0];
        for (const step of [
          [31, 5],
          [1, 1],
          [2, 40],
          [1, 0],
          [40, 7],
        ]) {
          const next = lengths.map((length, b) => length + step[b]!);
          appendSummaries(k, summaries, {
            starts: u32(...lengths),
            keyLengths: u32(...next),
            added: Math.max(...step),
          });
          lengths = next;
        }
        return [summaries.nodes, treeSummaries(dequantize(k), { ...shape, keyLengths: u32(...lengths) }).nodes];
      });
      expect(grown).toEqual(made);
    },
  );

  // 1 query, few, many over few leaves (leaf by leaf, where subgroups are), and many over many.
  it.each([
    [1, 4],
    [3, 4],
    [40, 16],
    [20, 1],
  ])('are attended to as those: %i queries, leaves of %i keys', async (queries, block) => {
    const [out, expected] = scope(device, () => {
      const [q, k, v] = [random('q', [B, queries, H, D]), stored('k'), stored('v')];
      const starts = u32(room - queries, room - queries);
      const { selected } = selectLeaves(q, treeSummaries(dequantize(k), { block, fanout: 2 }), { window: 8, beam: 2, starts }); // prettier-ignore
      const options = { selected, window: 8, block };
      return [treeAttention(q, k, v, options), treeAttention(q, dequantize(k), dequantize(v), options)];
    });
    expectClose('attention', await out!.read(), { shape: expected!.shape, data: Float64Array.from(await expected!.read()) }, 1e-6); // prettier-ignore
    release(out!, expected!);
  });
});
