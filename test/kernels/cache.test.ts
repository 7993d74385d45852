/** The cache's kernels by themselves: where positions lie, what is left out, and what rounding to 8 bits costs. */
import { beforeAll, describe, expect, it } from 'vitest';
import { empty, HostRandom, randomKey, release, scope, tensor } from '../../engine/index.ts';
import type { Device, DType, Tensor } from '../../engine/index.ts';
import { cacheGather, cacheWrite, dequantize } from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';

let device: Device;
beforeAll(async () => {
  device = await guardedDevice();
});

const [SLOTS, SINKS, KV, D] = [6, 2, 2, 32];
const ROW = KV * D;

/** Token t of sequence b holds values around 100 b + t, so that its place can be told from them. */
const tokensOf = (starts: readonly number[], length: number) => {
  const random = new HostRandom(randomKey(1, 'tokens'));
  const noise = random.normal(starts.length * length * ROW);
  return Float32Array.from(noise, (value, i) => {
    const [token, b] = [Math.floor(i / ROW) % length, Math.floor(i / ROW / length)];
    return 100 * b + starts[b]! + token + value / 100;
  });
};

const made = (starts: readonly number[], counts: readonly number[], length: number, dtype: DType) => {
  const shape = [starts.length, length, KV, D];
  const keys = tensor(device, tokensOf(starts, length), shape);
  const values = tensor(device, tokensOf(starts, length).map((value) => -value), shape); // prettier-ignore
  const cacheShape = [starts.length, SLOTS, KV, D];
  const cache = { keys: empty(device, cacheShape, dtype), values: empty(device, cacheShape, dtype) };
  const words = (data: readonly number[]) => tensor(device, Uint32Array.from(data));
  return { fresh: { keys, values }, cache, options: { starts: words(starts), counts: words(counts), sinks: SINKS } };
};
const slotOf = (position: number) => (position < SINKS ? position : SINKS + ((position - SINKS) % (SLOTS - SINKS)));

/** Reads several tensors and lets go of them. */
async function read(...tensors: Tensor[]): Promise<Float32Array[]> {
  const values: Float32Array[] = [];
  for (const each of tensors) values.push(Float32Array.from(await each.read()));
  release(...tensors);
  return values;
}

describe.each(['f32', 'f16', 'q8'] as const)('in %s', (dtype) => {
  it('the last positions that fit are in their slots, others are untouched, and they come out in order', async () => {
    const [starts, counts, length] = [[0, 3], [9, 1], 9]; // of the first nine are kept: two sinks, and four
    const [keys, values, seenKeys, seenValues] = await read(
      ...scope(device, () => {
        const { fresh, cache, options } = made(starts, counts, length, dtype);
        cacheWrite(cache, fresh, options);
        const next = made([9, 4], [2, 0], 2, dtype);
        const seen = cacheGather(cache, next.fresh, next.options);
        const floats = (x: Tensor) => (dtype === 'q8' ? dequantize(x) : x);
        return [floats(cache.keys), floats(cache.values), seen.keys, seen.values];
      }),
    );
    const unit = { f32: 0, f16: 2 ** -11, q8: 0.51 / 127 }[dtype] * 110; // of what is rounded, at most 110
    const near = (value: number, expected: number) => Math.abs(value - expected) < 0.06 + unit;
    for (const position of [0, 1, 5, 6, 7, 8])
      expect(near(keys![slotOf(position) * ROW + 40]!, position), `position ${position}`).toBe(true);
    expect(near(values![(SLOTS + slotOf(3)) * ROW + 1]!, -103)).toBe(true);
    // The first sequence's two new queries see its sinks, the three positions before them, and themselves.
    [0, 1, 6, 7, 8, 9, 10].forEach((position, place) => {
      expect(near(seenKeys![place * ROW + 63]!, position), `place ${place}`).toBe(true);
      expect(near(seenValues![place * ROW]!, -position), `place ${place}`).toBe(true);
    });
    await device.checkGuards();
  });

  it('rounds as much as its format says', async () => {
    const [starts, counts, length] = [[0, 0], [4, 4], 4];
    const [cached] = await read(
      ...scope(device, () => {
        const { fresh, cache, options } = made(starts, counts, length, dtype);
        cacheWrite(cache, fresh, options);
        return [dtype === 'q8' ? dequantize(cache.keys) : cache.keys];
      }),
    );
    const exact = tokensOf(starts, length);
    for (let b = 0; b < 2; b++)
      for (let token = 0; token < length; token++)
        for (let block = 0; block < ROW; block += 32) {
          const at = (b * length + token) * ROW + block;
          const most = Math.max(...exact.slice(at, at + 32).map(Math.abs));
          // q8: half a step of the scale, and the scale's own rounding to f16 (2⁻¹¹ of up to 127 steps).
          const limit = { f32: 0, f16: most * 2 ** -11, q8: (most / 127) * (0.5 + 127 * 2 ** -11) }[dtype];
          for (let i = 0; i < 32; i++) {
            const value = cached![(b * SLOTS + slotOf(token)) * ROW + block + i]!;
            expect(Math.abs(value - exact[at + i]!)).toBeLessThanOrEqual(limit * 1.001);
          }
        }
  });
});

it('refuses what does not fit', () => {
  scope(device, () => {
    const { fresh, cache, options } = made([0], [1], 1, 'f32');
    expect(() => cacheWrite(cache, fresh, { ...options, sinks: 6 })).toThrow(
      /\[cacheWrite\] 6 sinks leave none of the 6 slots/,
    );
    const narrow = { keys: empty(device, [1, 1, 2, 16]), values: empty(device, [1, 1, 2, 16]) };
    expect(() => cacheWrite(cache, narrow, options)).toThrow(
      /keys f32 \(1, 1, 2, 16\) do not fit into a cache f32 \(1, 6, 2, 32\)/,
    );
    const one = { keys: empty(device, [1, 6, 1, 32], 'q8'), values: empty(device, [1, 6, 1, 32], 'q8') };
    const row = { keys: empty(device, [1, 1, 1, 32]), values: empty(device, [1, 1, 1, 32]) };
    expect(() => cacheGather(one, row, options)).toThrow(/\[cacheGather\] a cache in q8 needs heads that come to a multiple of 64 columns, not 1 of 32/); // prettier-ignore
    expect(() => cacheWrite(cache, fresh, { ...options, starts: empty(device, [1]) })).toThrow(
      /starts must be u32 \(1\), not f32 \(1,\)/,
    );
  });
});
