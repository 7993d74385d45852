/** What a generator must be beyond its row of the table: its distribution, and independence of how it is launched. */
import { beforeAll, describe, expect, it } from 'vitest';
import { randomKey, scope, tensor } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { dropout, randomNormal, randomUniform, randomWords } from '../../kernels/index.ts';
import { plainDevice } from '../device.ts';
import { erf } from './table/elementwise.ts';

let device: Device;
beforeAll(async () => {
  device = await plainDevice();
});

const key = randomKey(2024, 'distribution');
const COUNT = 200_000;

async function values(draw: () => Tensor): Promise<Float32Array> {
  const result = scope(device, draw);
  const read = (await result.read()) as Float32Array;
  result.storage.drop();
  return read;
}

/** √n times the largest distance of the empirical distribution from `cdf` (Kolmogorov–Smirnov). */
function kolmogorovSmirnov(sample: Float32Array, cdf: (x: number) => number): number {
  const n = sample.length;
  let largest = 0;
  Float32Array.from(sample)
    .sort()
    .forEach((x, i) => {
      largest = Math.max(largest, Math.abs(cdf(x) - i / n), Math.abs((i + 1) / n - cdf(x)));
    });
  return Math.sqrt(n) * largest;
}
// The statistic exceeds 1.95 in one of a thousand random keys; this key is fixed.
const KS_LIMIT = 1.95;

describe('random numbers', () => {
  it('are normal', async () => {
    const sample = await values(() => randomNormal(device, [COUNT], key));
    const moment = (k: number) => sample.reduce((total, x) => total + x ** k, 0) / COUNT;
    // Standard errors of the first four moments of n normal values are √(1, 2, 15, 96) / √n; four of them are allowed.
    [0, 1, 0, 3].forEach((expected, i) => {
      const limit = 4 * Math.sqrt([1, 2, 15, 96][i]! / COUNT);
      expect(Math.abs(moment(i + 1) - expected), `moment ${i + 1}`).toBeLessThan(limit);
    });
    expect(kolmogorovSmirnov(sample, (x) => 0.5 * (1 + erf(x / Math.SQRT2)))).toBeLessThan(KS_LIMIT);
    // Neighbours, which share a block or a radius, are not correlated.
    for (const lag of [1, 2, 4]) {
      let product = 0;
      for (let i = lag; i < COUNT; i++) product += sample[i]! * sample[i - lag]!;
      expect(Math.abs(product / COUNT), `lag ${lag}`).toBeLessThan(4 / Math.sqrt(COUNT));
    }
  });

  it('are uniform', async () => {
    const sample = await values(() => randomUniform(device, [COUNT], key));
    expect(kolmogorovSmirnov(sample, (x) => x)).toBeLessThan(KS_LIMIT);
    expect(sample.every((x) => x >= 0 && x < 1)).toBe(true);
  });

  it('depend on key, sample, step and place alone', async () => {
    const draw = (shape: number[], counter = {}) => values(() => randomWords(device, shape, key, counter));
    const long = await draw([1000]);
    expect(await draw([7, 11])).toEqual(long.slice(0, 77));
    for (const other of [{ sample: 1 }, { step: 1 }]) {
      const words = await draw([1000], other);
      expect(words.filter((word, i) => word === long[i]).length).toBeLessThan(2);
    }
  });

  it.each([
    ['uniform', randomUniform],
    ['normal', randomNormal],
  ] as const)('are the same in f16, rounded: %s', async (_, draw) => {
    const wide = await values(() => draw(device, [4001], key));
    const rounded = await values(() => draw(device, [4001], key, { dtype: 'f16' }));
    // To one of the two neighbours in f16, of which the smallest lie 2⁻²⁴ apart.
    wide.forEach((x, i) => expect(Math.abs(rounded[i]! - x)).toBeLessThanOrEqual(Math.max(2 ** -10 * Math.abs(x), 2 ** -24)));
  }); // prettier-ignore

  it('drop the share that was asked for and keep the mean', async () => {
    const sample = await values(() => dropout(tensor(device, new Float32Array(COUNT).fill(1)), 0.3, key));
    const dropped = sample.filter((x) => x === 0).length / COUNT;
    expect(Math.abs(dropped - 0.3)).toBeLessThan(4 * Math.sqrt((0.3 * 0.7) / COUNT));
    expect(new Set(sample)).toEqual(new Set([0, Math.fround(1 / 0.7)]));
  });
});
