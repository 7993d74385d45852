/** Frequencies against the papers' formulas, written out once more by wavelengths and pair by pair. */
import { describe, expect, it } from 'vitest';
import { ropeScaling, ropeValues } from '../../llm/rope.ts';

const COLUMNS = 64;
const BASE = 10_000;
const PAIRS = COLUMNS / 2;
/** Tokens that one turn of a pair takes. */
const wavelength = (pair: number, base = BASE): number => 2 * Math.PI * Math.exp((pair / PAIRS) * Math.log(base));

function values(scaling: object, { context = 2048, length = 0 } = {}) {
  const { frequencies, scale } = ropeValues(
    { base: BASE, columns: COLUMNS, scaling: ropeScaling.parse(scaling), context },
    length,
  );
  return { waves: Array.from(frequencies, (frequency) => (2 * Math.PI) / frequency), scale };
}

function expectWaves(actual: readonly number[], expected: (pair: number) => number): void {
  expect(actual.length).toBe(PAIRS);
  actual.forEach((wave, pair) => expect(Math.abs(wave / expected(pair) - 1), `pair ${pair}`).toBeLessThan(1e-12));
}

describe('scalings', () => {
  it('none: the first pair turns by one radian a token, the last by almost 1 / base', () => {
    const { waves, scale } = values({ rope_type: 'default' });
    expect(waves[0]).toBeCloseTo(2 * Math.PI, 12);
    expectWaves(waves, (pair) => wavelength(pair));
    expect(scale).toBe(1);
  });

  it('linear: all waves are longer by the factor', () => {
    expectWaves(values({ rope_type: 'linear', factor: 4 }).waves, (pair) => 4 * wavelength(pair));
  });

  it('factors: each pair’s own', () => {
    const factors = Array.from({ length: PAIRS }, (_, pair) => 1 + pair / 3);
    expectWaves(values({ rope_type: 'factors', factors }).waves, (pair) => factors[pair]! * wavelength(pair));
  });

  it('dynamic: nothing within the trained context; beyond it the first pair stays and the last is stretched by the rest', () => {
    const dynamic = { rope_type: 'dynamic', factor: 2 };
    for (const length of [0, 100, 2048]) expectWaves(values(dynamic, { length }).waves, (pair) => wavelength(pair));
    const { waves } = values(dynamic, { length: 3 * 2048 });
    const stretch = 2 * 3 - (2 - 1);
    // The base that makes the last pair's wave longer by the stretch: (stretch)^(d / (d − 2)) of what it was.
    expectWaves(waves, (pair) => wavelength(pair) * stretch ** (pair / (PAIRS - 1)));
    expect(waves[0]).toBeCloseTo(wavelength(0), 12);
    expect(waves.at(-1)! / wavelength(PAIRS - 1)).toBeCloseTo(stretch, 9);
    const own = values({ ...dynamic, original_max_position_embeddings: 1024 }, { length: 2048 });
    expect(own.waves.at(-1)! / wavelength(PAIRS - 1)).toBeCloseTo(2 * 2 - 1, 9);
  });

  it('yarn: many turns within the context stay, less than one is stretched, a ramp over the pairs between them', () => {
    const context = 2048;
    const factor = 16;
    const { waves, scale } = values({ rope_type: 'yarn', factor }, { context });
    expect(scale).toBeCloseTo(0.1 * Math.log(16) + 1, 12);
    // The pairs with 32 turns and with 1 turn in the context, by bisection on real pairs.
    const pairWith = (turns: number): number => {
      let [low, high] = [0, 2 * PAIRS];
      for (let i = 0; i < 100; i++) {
        const middle = (low + high) / 2;
        if (context / wavelength(middle) > turns) low = middle;
        else high = middle;
      }
      return low;
    };
    const [first, last] = [Math.floor(pairWith(32)), Math.ceil(pairWith(1))];
    expect([first, last]).toEqual([8, 21]);
    expectWaves(waves, (pair) => {
      const share = Math.min(1, Math.max(0, (pair - first) / (last - first)));
      return 1 / ((1 - share) / wavelength(pair) + share / (factor * wavelength(pair)));
    });
    expect(waves[first]! / wavelength(first)).toBeCloseTo(1, 12);
    expect(waves[last]! / wavelength(last)).toBeCloseTo(factor, 9);
  });

  it('yarn: its options', () => {
    const yarn = { rope_type: 'yarn', factor: 4 };
    expect(values({ ...yarn, attention_factor: 1.25 }).scale).toBe(1.25);
    const m = (weight: number) => 0.1 * weight * Math.log(4) + 1;
    expect(values({ ...yarn, mscale: 0.707, mscale_all_dim: 0.5 }).scale).toBeCloseTo(m(0.707) / m(0.5), 12);
    expect(values({ ...yarn, factor: 1 }).scale).toBe(1);
    const own = values({ ...yarn, original_max_position_embeddings: 512 }, { context: 2048 });
    expect(own.waves).toEqual(values(yarn, { context: 512 }).waves);
    const real = values({ ...yarn, truncate: false }).waves;
    expect(real).not.toEqual(values(yarn).waves);
    expect(real[PAIRS - 1]! / wavelength(PAIRS - 1)).toBeCloseTo(4, 9);
  });

  it('llama3: short waves stay, long ones are stretched, those between are blended by their turns', () => {
    const [factor, low, high, context] = [8, 1, 4, 512];
    const scaling = {
      rope_type: 'llama3',
      factor,
      low_freq_factor: low,
      high_freq_factor: high,
      original_max_position_embeddings: context,
    };
    let between = 0;
    expectWaves(values(scaling, { context: 99 }).waves, (pair) => {
      const wave = wavelength(pair);
      if (wave < context / high) return wave;
      if (wave > context / low) return factor * wave;
      between++;
      const smooth = (context / wave - low) / (high - low);
      return 1 / ((1 - smooth) / (factor * wave) + smooth / wave);
    });
    expect(between).toBeGreaterThan(2);
  });
});
