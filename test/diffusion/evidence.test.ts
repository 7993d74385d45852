import { describe, expect, it } from 'vitest';
import { greyShare, judge } from '../../diffusion/evidence.ts';

/** A picture from a function of the pixel to [r, g, b] in [0, 1]. */
function picture(size: number, colour: (x: number, y: number) => [number, number, number]): Float32Array {
  const out = new Float32Array(3 * size * size);
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) colour(x, y).forEach((value, c) => (out[(c * size + y) * size + x] = 2 * value - 1));
  return out;
}

describe('evidence', () => {
  it('counts grey among what is not white', () => {
    const mixed = picture(16, (x, y) => (y < 8 ? [1, 1, 1] : x < 4 ? [0.5, 0.55, 0.6] : [1, 0.8, 0.2]));
    expect(greyShare(mixed)).toBeCloseTo(0.25);
    expect(greyShare(picture(16, () => [1, 1, 1]))).toBe(0);
  });

  it('judges what changed: nearer to the subject, greyer, and how far the class went', () => {
    const seen = (value: number, latent: number) => ({
      picture: { data: picture(16, () => [value, value, value]), width: 16, height: 16 },
      latents: Float32Array.of(latent),
    });
    const findings = judge(
      [
        {
          kind: 'shown',
          truths: [seen(0.5, 0), seen(0, 9)],
          before: [seen(1, 4), seen(1, 4)],
          after: [seen(0.75, 1), seen(0.5, 2)],
        },
        { kind: 'unseen', truths: [seen(0.5, 0)], before: [seen(0.5, 1)], after: [seen(0.75, 3)] },
        { kind: 'class', truths: [], before: [seen(0, 1), seen(0, 1)], after: [seen(0.5, 2), seen(0, 1)] },
      ],
      { grey: true },
    );
    const rows = findings.map(({ before, after, holds }) => [before, after, holds]);
    // Distances of pictures are in [−1, 1] units: twice those of [0, 1].
    expect(rows).toEqual([
      [1, 0.25, true], // RGB, shown: 1 → the mean of 0.5 and 0, to the nearest truth
      [4, 1.5, true], // latents, shown: 4 → the mean of 1 and 2
      [0, 0.5, false], // RGB, not shown
      [1, 3, false],
      [expect.closeTo(1 / 3), 1, true], // white has no foreground: two of three pictures before count 0
      [null, 0.5, null], // drift: the mean of 1 and 0
      [null, 0.5, null],
    ]);
    expect(judge([], {})).toEqual([]);
  });
});
