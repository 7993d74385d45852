import { describe, expect, it } from 'vitest';
import {
  distance,
  diversity,
  foregroundPsnr,
  interval,
  preservation,
  psnr,
  rank,
  subjectScores,
  thumbnail,
} from '../../diffusion/measures.ts';
import type { Features } from '../../diffusion/measures.ts';

const at = (...values: number[]): Features => ({ latents: Float32Array.from(values), rgb: Float32Array.from(values) });

/** A picture of 2 × 2 from its values (3, 2, 2). */
const square = (data: Float32Array) => ({ data, width: 2, height: 2 });

describe('measures', () => {
  it('average blocks of pixels', () => {
    // (3, 32, 32): red in every other column, green in the first two rows.
    const of = [(x: number) => x % 2, (_: number, y: number) => Number(y < 2), () => 0];
    const values = of.flatMap((at) =>
      Array.from({ length: 32 * 32 }, (_, i) => 2 * at(i % 32, Math.floor(i / 32)) - 1),
    );
    const small = thumbnail(Float32Array.from(values), 32);
    expect(small[0]).toBeCloseTo(0);
    expect(small[256]).toBeCloseTo(1);
    expect(small[256 + 16]).toBeCloseTo(-1);
    expect(() => thumbnail(new Float32Array(5), 32)).toThrow(/multiples of 16/);
  });

  it('take root mean squares', () => {
    expect(distance([0, 0], [3, 4])).toBeCloseTo(Math.sqrt(12.5));
    expect(() => distance([0], [1, 2])).toThrow(/cannot be compared/);
  });

  it('give decibels of all pixels together and of each picture', () => {
    const picture = square(new Float32Array(12).fill(0.5));
    const off = (by: number) => square(picture.data.map((value) => value + by));
    const { pooled, mean } = psnr([picture, picture], [off(0.02), off(0.2)]); // 40 dB and 20 dB
    expect(mean).toBeCloseTo(30, 3);
    expect(pooled).toBeCloseTo(10 * Math.log10(4 / ((0.02 ** 2 + 0.2 ** 2) / 2)), 3);
  });

  it('leave white out of the foreground’s decibels', () => {
    // One grey pixel among white ones, off by 0.1 in each channel; the white ones are off by far more.
    const picture = (grey: number, white: number) =>
      square(Float32Array.from({ length: 12 }, (_, i) => (i % 4 === 1 ? grey : white)));
    const all = picture(1, 1);
    const one = picture(0, 1);
    expect(foregroundPsnr([one, all], [picture(0.1, -1), all])).toBeCloseTo(10 * Math.log10(4 / 0.01), 5);
    expect(foregroundPsnr([one, one], [picture(0.1, 1), picture(NaN, NaN)])).toBeNaN(); // not left out as if it were white
  });

  it('rank what is as near as the truth', () => {
    const others = [at(0, 0), at(1, 1), at(5, 5), at(2, 2)];
    expect(rank(at(0.2, 0.2), others[3]!, others, 'latents')).toBe(2);
    expect(rank(at(0.2, 0.2), others[0]!, others, 'rgb')).toBe(0);
    const alike = [at(1, 1), at(1, 1), at(1, 1)];
    expect(rank(at(0, 0), alike[0]!, alike, 'latents')).toBe(2); // features that tell nothing apart
  });

  it('tell the subject’s own expression from its other ones and from others’ same', () => {
    const cats = ['mine', 'theirs'].flatMap((set, s) =>
      ['crying', 'grinning'].map((name, n) => ({ set, name, features: at(10 * s, n) })),
    );
    const drawn = [
      { name: 'crying', features: at(1, 0.1) }, // right
      { name: 'grinning', features: at(2, 0.2) }, // mine, but crying
      { name: 'grinning', features: at(9, 0.9) }, // grinning, but theirs
      { name: 'crying', features: at(8, 0.8) }, // neither
    ];
    expect(subjectScores(drawn, cats, 'mine', 'latents')).toEqual({ fidelity: 0.25, identity: 0.5, prompt: 0.5 });
    expect(() => subjectScores([], cats, 'mine', 'latents')).toThrow(/nothing drawn/);
  });

  it('see a class that has turned into the subject, and one that has collapsed', () => {
    const subject = [at(3, 0), at(2, 0)];
    const cats = [...subject, at(-3, 0), at(-2, 0)];
    expect(preservation([at(1, 0)], subject, cats, 'latents')).toBeCloseTo(1, 6);
    expect(preservation([at(0, 1)], subject, cats, 'latents')).toBeCloseTo(0, 6);
    expect(preservation([at(-4, 0)], subject, cats, 'latents')).toBeCloseTo(-1, 6);
    expect(diversity([at(0, 0), at(3, 3), at(0, 0)], 'rgb')).toBeCloseTo(2, 6); // 3, 0, 3
  });

  it('give intervals by Student’s t', () => {
    expect(interval([1])).toEqual({ mean: 1, half: null });
    // Tables: t(0.975) is 12.706, 4.303, 3.182, 2.262, 2.086 for 1, 2, 3, 9, 20 degrees of freedom.
    for (const [degrees, t] of [
      [1, 12.706],
      [2, 4.303],
      [3, 3.182],
      [9, 2.262],
      [20, 2.086],
    ] as const) {
      const values = Array.from({ length: degrees + 1 }, (_, i) => (i % 2 === 0 ? 1 : -1));
      const { mean, half } = interval(values);
      const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / degrees);
      expect(half! / (deviation / Math.sqrt(degrees + 1)), `${degrees}`).toBeCloseTo(t, 2);
    }
  });
});
