import { describe, expect, it } from 'vitest';
import { changeLook, inventStyles, rareWords } from '../../diffusion/invented.ts';
import type { Look } from '../../diffusion/invented.ts';
import type { Picture } from '../../diffusion/pictures.ts';
import { clipTokenizer } from '../../diffusion/tokenizer.ts';
import type { WorldPicture } from '../../diffusion/world.ts';

const SAME: Look = { hue: 0, saturation: 1, gamma: 1, scale: [1, 1] };
const luminance = ([r, g, b]: readonly number[]) => 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;

/** 4 × 4 pixels of one colour in [0, 1]. */
function plain(colour: readonly number[]): Picture {
  const data = Float32Array.from({ length: 48 }, (_, i) => 2 * colour[Math.floor(i / 16)]! - 1);
  return { data, width: 4, height: 4 };
}
/** The colour of the pixel (y, x), in [0, 1]. */
const at = ({ data, width, height }: Picture, y: number, x: number) =>
  [0, 1, 2].map((channel) => (data[channel * width * height + y * width + x]! + 1) / 2);

describe('a look', () => {
  it('that changes nothing gives the picture back', () => {
    const picture = { data: Float32Array.from({ length: 48 }, (_, i) => Math.sin(i)), width: 4, height: 4 };
    const same = changeLook(picture, SAME).data;
    for (const [i, value] of picture.data.entries()) expect(same[i]).toBeCloseTo(value, 2); // SVG gives its matrix in three digits
  });

  it('keeps white white, and the luminance of what it turns or pales', () => {
    const white = changeLook(plain([1, 1, 1]), { hue: 77, saturation: 0.3, gamma: 1.5, scale: [1, 1] });
    for (const value of white.data) expect(value).toBeCloseTo(1, 6);
    const colour = [0.5, 0.45, 0.55];
    for (const hue of [40, 120, 250])
      for (const saturation of [0, 0.7])
        expect(luminance(at(changeLook(plain(colour), { ...SAME, hue, saturation }), 1, 1))).toBeCloseTo(
          luminance(colour),
          3,
        );
  });

  it('turns hues, and takes colour away', () => {
    const [r, g, b] = at(changeLook(plain([0.8, 0.3, 0.3]), { ...SAME, hue: 120 }), 1, 1);
    expect(g! - Math.max(r!, b!)).toBeGreaterThan(0.2); // a third of the circle on from red is green
    const grey = at(changeLook(plain([0.8, 0.3, 0.3]), { ...SAME, saturation: 0 }), 1, 1);
    expect(Math.max(...grey) - Math.min(...grey)).toBeLessThan(1e-6);
  });

  it('darkens by an exponent, and shrinks around the middle', () => {
    expect(at(changeLook(plain([0.5, 0.5, 0.5]), { ...SAME, gamma: 2 }), 0, 0)[0]).toBeCloseTo(0.25, 6);
    const narrow = changeLook(plain([0, 0, 0]), { ...SAME, scale: [0.5, 1] });
    expect([0, 1, 2, 3].map((x) => at(narrow, 2, x)[0]!)).toEqual([1, 0, 0, 1]);
  });
});

describe('invented styles', () => {
  const world = (['noto', 'twemoji'] as const).flatMap((set) =>
    ['cat', 'dog'].map((name): WorldPicture => {
      return { set, style: set, icon: name, name, picture: () => plain([0.9, 0.6, 0.1]) };
    }),
  );

  it('are named by rare words of one token that nothing else has, and show every name of a set', async () => {
    const tokenizer = await clipTokenizer();
    const taken = new Set(['sks', 'lun']);
    const made = inventStyles(world, tokenizer, { count: 3, seed: 1, taken });
    expect(made.map(({ set, name }) => `${set} ${name}`)).toEqual([
      ...['noto cat', 'noto dog', 'twemoji cat', 'twemoji dog', 'noto cat', 'noto dog'],
    ]);
    const words = [...new Set(made.map(({ style }) => style))];
    expect(words).toEqual(rareWords(tokenizer, 3, taken));
    const ids = words.map((word) => tokenizer.tokenize(word)[0]!);
    expect(ids).toEqual(ids.toSorted((a, b) => b - a));
    expect(Math.min(...ids)).toBeGreaterThan(48_000); // of 49,408
    for (const word of words) {
      expect(tokenizer.tokenize(word)).toHaveLength(1);
      expect(taken.has(word)).toBe(false);
    }
    const [cat, dog, , , other] = made.map(({ picture }) => [...picture().data]);
    expect(cat).toEqual(dog); // one look for all names (the two are alike before)
    expect(cat).not.toEqual(other);
    expect(inventStyles(world, tokenizer, { count: 3, seed: 1, taken })[0]!.picture().data.join()).toBe(cat!.join());
    expect(inventStyles(world, tokenizer, { count: 3, seed: 2, taken })[0]!.picture().data.join()).not.toBe(
      cat!.join(),
    );
  });

  it('are as many as there are words for', async () => {
    expect(() =>
      inventStyles(world, { tokenize: () => [1, 2] } as never, { count: 1, seed: 0, taken: new Set() }),
    ).toThrow('[invented] 1 styles want as many rare words, and the vocabulary has 0 left');
  });
});
