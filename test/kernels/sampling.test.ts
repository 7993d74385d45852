/** What choosing tokens must be beyond its rows of the table: every setting, its distribution, and independence of the batch. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capture, HostRandom, randomKey, release, scope, tensor, write, zeros } from '../../engine/index.ts';
import type { Device, DType } from '../../engine/index.ts';
import {
  clearCounts,
  countTokens,
  decodeSamples,
  encodeSampling,
  sampledTokens,
  sampleTokens,
  samplingParameters,
} from '../../kernels/index.ts';
import type { Sampled, SamplingSettings } from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';
import { expectedSample, halved } from './table/sampling.ts';
import type { Sequence } from './table/sampling.ts';

let device: Device;
beforeAll(async () => void (device = await guardedDevice()));
afterAll(() => device.checkGuards());

/** One sequence with what it is drawn with. */
interface Case extends Sequence {
  readonly settings: SamplingSettings;
}

/** The mask's words for a vocabulary. */
function maskWords(vocabulary: number, allowed: (id: number) => boolean): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(vocabulary / 32));
  for (let id = 0; id < vocabulary; id++) if (allowed(id)) words[id >>> 5]! |= 1 << (id & 31);
  return words;
}

/** Draws for all cases, which have one vocabulary, in one batch. */
async function draw(cases: readonly Case[], top = 0, dtype: DType = 'f32'): Promise<Sampled[]> {
  const batch = cases.length;
  const vocabulary = cases[0]!.logits.length;
  const whole = <T extends Float32Array | Uint32Array>(
    all: T,
    row: (one: Case) => ArrayLike<number> | undefined,
  ): T => {
    cases.forEach((one, b) => all.set(row(one) ?? [], (b * all.length) / batch));
    return all;
  };
  const shape = [batch, vocabulary];
  const given = <K extends keyof Case>(name: K) => cases.some((one) => one[name] !== undefined);
  const samples = scope(device, () =>
    sampleTokens(tensor(device, whole(new Float32Array(batch * vocabulary), ({ logits }) => logits), shape, { dtype }), {
      parameters: samplingParameters(device, cases.map(({ settings }) => settings)),
      counts: given('counts') ? tensor(device, whole(new Uint32Array(batch * vocabulary), ({ counts }) => counts), shape) : null,
      bias: given('bias') ? tensor(device, whole(new Float32Array(batch * vocabulary), ({ bias }) => bias), shape) : null,
      mask: given('allowed')
        ? tensor(device, whole(new Uint32Array(batch * Math.ceil(vocabulary / 32)), ({ allowed }) => maskWords(vocabulary, allowed ?? (() => true))), [batch, Math.ceil(vocabulary / 32)])
        : null,
      top,
    }),
  ); // prettier-ignore
  const values = (await samples.read()) as Int32Array<ArrayBuffer>;
  release(samples);
  return decodeSamples(values, batch);
}

/** Compares what was drawn with the definitions, where these don't hang on a rounding; whether they didn't. */
function compare(sampled: Sampled, one: Case, top = 0): boolean {
  const expected = expectedSample(one, one.settings);
  if (expected.token < 0) {
    expect(sampled).toMatchObject({ token: -1, error: 'none allowed', logProbability: NaN });
    return true;
  }
  expect(sampled.error).toBe(null);
  const listed = expected.top.slice(0, top);
  expect(sampled.top.map(({ token }) => token)).toEqual(listed.map(({ token }) => token));
  listed.forEach(({ logProbability }, i) => expect(sampled.top[i]!.logProbability).toBeCloseTo(logProbability, 4));
  if (expected.close) return false;
  expect(sampled.token).toBe(expected.token);
  expect(Math.abs(sampled.logProbability - expected.logProbability)).toBeLessThan(1e-5 * (1 + Math.abs(expected.logProbability))); // prettier-ignore
  return true;
}

/** Values in f32; `steps`: rounded to multiples of this, so that many tie. */
function normal(seed: number, count: number, scale: number, steps = 0): Float32Array<ArrayBuffer> {
  const values = new HostRandom(randomKey(seed, 'logits')).normal(count);
  return values.map((v) => (steps > 0 ? Math.round((v * scale) / steps) * steps : v * scale));
}

const settings = fc.record({
  temperature: fc.constantFrom(1, 0.7, 0, 2, 5),
  topK: fc.constantFrom(0, 1, 3, 40, 1000),
  topP: fc.constantFrom(1, 0.95, 0.5, 0.1, 0),
  minP: fc.constantFrom(0, 0, 0.05, 0.5, 1),
  repetitionPenalty: fc.constantFrom(1, 1.3, 0.8),
  presencePenalty: fc.constantFrom(0, 0.6, -1),
  frequencyPenalty: fc.constantFrom(0, 0.25, -0.5),
  seed: fc.nat(),
  sample: fc.nat(3),
  step: fc.nat(100_000),
});

describe('sampleTokens', () => {
  it('does what the definitions say, whatever the settings', async () => {
    let [all, compared] = [0, 0];
    const arbitrary = fc.tuple(
      fc.constantFrom(1, 2, 31, 33, 100, 257, 1027, 5001),
      fc.array(
        fc.record({
          settings,
          seed: fc.nat(),
          scale: fc.constantFrom(0.1, 1, 4),
          steps: fc.constantFrom(0, 0.25, 0.5),
          counts: fc.boolean(),
          bias: fc.boolean(),
          allowed: fc.constantFrom(null, 0, 0.02, 0.5),
        }),
        { minLength: 1, maxLength: 4 },
      ),
      fc.constantFrom(0, 1, 5, 20),
    );
    await fc.assert(
      fc.asyncProperty(arbitrary, async ([vocabulary, rows, top]) => {
        const cases = rows.map((row): Case => {
          const random = new HostRandom(randomKey(row.seed, 'others'));
          const some = (share: number, value: () => number) =>
            Array.from({ length: vocabulary }, () => (random.uniform() < share ? value() : 0));
          const bits = row.allowed === null ? null : some(row.allowed, () => 1);
          return {
            logits: normal(row.seed, vocabulary, row.scale, row.steps),
            counts: row.counts ? some(0.3, () => random.below(3) + 2 ** 31 * random.below(2)) : undefined,
            bias: row.bias ? some(0.2, () => random.below(9) / 2 - 2) : undefined,
            allowed: bits ? (id) => bits[id] === 1 : undefined,
            settings: row.settings,
          };
        });
        const drawn = await draw(cases, top);
        cases.forEach((one, b) => {
          all++;
          if (compare(drawn[b]!, one, top)) compared++;
        });
      }),
      { numRuns: 60, seed: 7, endOnFailure: true },
    );
    expect(compared / all).toBeGreaterThan(0.9);
  });

  it.each(['f32', 'f16'] as const)('takes the largest vocabulary, and flat distributions: %s', async (dtype) => {
    const all: [scale: number, settings: SamplingSettings][] = [
      [0.05, { topK: 50_000, topP: 0.97 }],
      [1, { topP: 0.9, temperature: 4 }],
      [1, { topK: 200_000 }],
    ];
    const cases = all.slice(dtype === 'f16' ? 1 : 0).map(([scale, settings], seed): Case => {
      const logits = normal(seed, 2 ** 18 - 3, scale);
      return {
        logits: dtype === 'f16' && device.profile.f16 ? halved(logits) : logits,
        settings: { seed, ...settings },
      };
    });
    const drawn = await draw(cases, 20, dtype);
    // Of so many some lie closer than f32 knows, so what hangs on their order isn't compared.
    cases.forEach((one, b) => {
      const expected = expectedSample(one, one.settings);
      expect(expected.kept.has(drawn[b]!.token)).toBe(true);
      expect(Math.abs(drawn[b]!.logProbability - (expected.top.find(({ token }) => token === drawn[b]!.token)!.logProbability))).toBeLessThan(1e-4); // prettier-ignore
      drawn[b]!.top.forEach(({ logProbability }, i) => expect(Math.abs(logProbability - expected.top[i]!.logProbability)).toBeLessThan(1e-4)); // prettier-ignore
    });
  });

  it('keeps of equal ones those with the lowest ids', async () => {
    // 3000 alike and one above: the boundary runs through the ties.
    const logits = new Float32Array(3001).fill(1);
    logits[1500] = 2;
    const share = 1 / (3000 + Math.E);
    const kept = async (settings: SamplingSettings, seeds = 64): Promise<number[]> => {
      const cases = Array.from({ length: seeds }, (_, seed) => ({ logits, settings: { ...settings, seed } }));
      const drawn = await draw(cases);
      cases.forEach((one, i) => expect(drawn[i]!.token).toBe(expectedSample(one, one.settings).token));
      return drawn.map(({ token }) => token);
    };
    // The best, and ids 0 … 9.
    for (const settings of [{ topK: 11 }, { topP: share * (Math.E + 9.5) }]) {
      const tokens = await kept(settings);
      expect([...new Set(tokens)].every((id) => id < 10 || id === 1500)).toBe(true);
      expect(tokens.some((id) => id === 9 || id === 8)).toBe(true);
    }
    expect(new Set(await kept({ topK: 1 }, 4))).toEqual(new Set([1500]));
    expect(new Set(await kept({ topP: 0 }, 4))).toEqual(new Set([1500]));
    expect(new Set(await kept({ minP: 1 }, 4))).toEqual(new Set([1500]));
    const [list] = await draw([{ logits, settings: {} }], 4);
    expect(list!.top.map(({ token }) => token)).toEqual([1500, 0, 1, 2]);
  });

  it('draws with the frequencies of the softmax', async () => {
    const vocabulary = 12;
    const draws = 4000;
    const logits = normal(5, vocabulary, 1.5);
    const cases = Array.from({ length: draws }, (_, i): Case => ({ logits, settings: { temperature: 1.5, topP: 0.95, seed: i % 40, step: Math.floor(i / 40) } })); // prettier-ignore
    const { kept } = expectedSample(cases[0]!, cases[0]!.settings);
    expect(kept.size).toBeLessThan(vocabulary);
    const weights = [...kept].map((id) => Math.exp(logits[id]! / 1.5));
    const total = weights.reduce((sum, w) => sum + w, 0);
    const drawn = await draw(cases);
    expect(drawn.every(({ token }) => kept.has(token))).toBe(true);
    const chiSquare = [...kept].reduce((sum, id, i) => {
      const expected = (draws * weights[i]!) / total;
      return sum + (drawn.filter(({ token }) => token === id).length - expected) ** 2 / expected;
    }, 0);
    // Of so many degrees of freedom the statistic exceeds n + 3.7 √(2n) in one of a thousand sets of seeds; these are fixed.
    const n = kept.size - 1;
    expect(chiSquare).toBeLessThan(n + 3.7 * Math.sqrt(2 * n));
  });

  it('draws the same whatever else is in the batch', async () => {
    const one: Case = { logits: normal(1, 500, 2), settings: { seed: 9, sample: 2, step: 31, topP: 0.9 } };
    const other = (seed: number): Case => ({ logits: normal(seed, 500, 1), settings: { seed, temperature: 0.5 } });
    const [alone] = await draw([one], 3);
    for (const batch of [[one, other(2)], [other(3), other(4), one]]) {
      const drawn = await draw(batch, 3);
      expect(drawn[batch.indexOf(one)]).toEqual(alone);
    } // prettier-ignore
  });

  it('says why nothing was drawn', async () => {
    const logits = normal(1, 70, 1);
    const changed = (id: number, value: number) => logits.map((v, i) => (i === id ? value : v));
    const only = (id: number) => (other: number) => other === id;
    const cases: Case[] = [
      { logits, allowed: () => false, settings: {} },
      { logits: changed(3, NaN), settings: {} },
      { logits: changed(69, Infinity), allowed: only(2), settings: { temperature: 0 } },
      { logits: new Float32Array(70).fill(-Infinity), settings: {} },
      { logits: changed(5, -Infinity), allowed: only(5), settings: {} },
      { logits, bias: new Float32Array(70).fill(-Infinity), settings: {} },
      { logits, bias: changed(3, NaN), settings: {} },
      { logits, allowed: only(69), settings: { temperature: 1e-6, topP: 0.5 } }, // from here on something is
      { logits: logits.map((_, i) => (i === 64 ? -80 : -Infinity)), settings: { topK: 4, temperature: 1e-30 } },
      { logits: changed(17, 1e30), settings: { temperature: 1e-20 } },
      { logits: new Float32Array(70).fill(-3.4028234663852886e38).fill(0, 8, 9), settings: { topP: 0.9 } },
    ];
    const drawn = await draw(cases, 2);
    expect(drawn.map(({ error }) => error)).toEqual([
      'none allowed', 'not finite', 'not finite', 'none allowed', 'none allowed', 'none allowed', 'not finite', null, null, null, null,
    ]); // prettier-ignore
    expect(drawn.map(({ token }) => token)).toEqual([-1, -1, -1, -1, -1, -1, -1, 69, 64, 17, 8]);
    expect(drawn[0]).toMatchObject({ logProbability: NaN, top: [] });
    expect(drawn[8]).toMatchObject({ logProbability: 0, top: [{ token: 64, logProbability: 0 }] });
  });

  it('replays with its counts and steps on the device', async () => {
    const vocabulary = 300;
    const rows = [normal(3, vocabulary, 1), normal(4, vocabulary, 1)];
    const own: SamplingSettings[] = [
      { seed: 1, frequencyPenalty: 1, presencePenalty: 0.5, topK: 30 },
      { seed: 2, repetitionPenalty: 1.5, temperature: 0 },
    ];
    const logits = tensor(device, [...rows[0]!, ...rows[1]!], [2, vocabulary]);
    const parameters = samplingParameters(device, own);
    const counts = zeros(device, [2, vocabulary], 'u32');
    const host = rows.map(() => new Float64Array(vocabulary));
    scope(device, () =>
      countTokens(counts, tensor(device, [7, 7, 8, -1, 9, 299], [2, 3], { dtype: 'i32' }), { prompt: true }),
    );
    [7, 8].forEach((id) => (host[0]![id] = 2 ** 31));
    [9, 299].forEach((id) => (host[1]![id] = 2 ** 31));
    const replay = capture(device, () => {
      const samples = sampleTokens(logits, { parameters, counts });
      countTokens(counts, sampledTokens(samples));
      return samples;
    });
    // The capture itself was the first run.
    for (let step = 0; step < 12; step++) {
      if (step > 0) replay.run();
      const drawn = decodeSamples((await replay.result.read()) as Int32Array<ArrayBuffer>, 2);
      drawn.forEach(({ token }, b) => {
        const expected = expectedSample({ logits: rows[b]!, counts: host[b]! }, { ...own[b]!, step });
        expect(expected.close).toBe(false);
        expect(token).toBe(expected.token);
        host[b]![token]! += 1;
      });
    }
    expect([...(await counts.read())]).toEqual([...host[0]!, ...host[1]!]);
    // A new sequence in the first one's place.
    clearCounts(counts, 0);
    write(parameters, encodeSampling([{ seed: 5 }, { ...own[1]!, step: 12 }]));
    replay.run();
    const [first] = decodeSamples((await replay.result.read()) as Int32Array<ArrayBuffer>, 2);
    expect(first!.token).toBe(expectedSample({ logits: rows[0]! }, { seed: 5 }).token);
    expect([...(await counts.read())].slice(0, vocabulary).reduce((sum, count) => sum + count, 0)).toBe(1);
    replay.release();
    release(logits, parameters, counts);
  });

  it('refuses settings that are none', () => {
    for (const [settings, message] of [
      [{ temperature: -1 }, /\[sampling\] temperature is -1: it must be 0 or above/],
      [{ temperature: NaN }, /temperature is NaN/],
      [{ topP: 1.2 }, /topP is 1.2: it must be from 0 to 1/],
      [{ minP: -0.1 }, /minP is -0.1/],
      [{ topK: 2.5 }, /topK is 2.5: it must be a whole number, or 0 for all/],
      [{ repetitionPenalty: 0 }, /repetitionPenalty is 0: it must be above 0/],
      [{ presencePenalty: Infinity }, /presencePenalty is Infinity/],
      [{ step: -1 }, /step is -1/],
      [{ seed: 1.5 }, /\[random\] a seed is a whole number/],
    ] as const)
      expect(() => encodeSampling([settings])).toThrow(message);
    expect(() => clearCounts({ shape: [2, 9] } as never, 2)).toThrow(/\[clearCounts\] sequence 2 does not exist/);
  });
});
