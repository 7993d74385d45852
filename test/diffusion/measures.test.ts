import { describe, expect, it } from 'vitest';
import { diversity, interval, preservation, rank, subjectScores } from '../../diffusion/measures.ts';
import type { Features } from '../../diffusion/measures.ts';

const at = (...values: number[]): Features => ({ latents: Float32Array.from(values), rgb: Float32Array.from(values) });

describe('measures', () => {
  it('rank what is nearer than the truth', () => {
    const others = [at(0, 0), at(1, 1), at(5, 5), at(2, 2)];
    expect(rank(at(0.2, 0.2), at(2, 2), others, 'latents')).toBe(2);
    expect(rank(at(0.2, 0.2), at(0, 0), others, 'rgb')).toBe(0);
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
