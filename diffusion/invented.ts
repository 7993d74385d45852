/**
 * Invented drawing styles: recoloured and reshaped renders of a set, each style named by a rare word where captions name the
 * sets' own. A model that meets a few real styles learns each as one thing more; of many it learns what a style is: a look that
 * every name takes on. That is what a new word in the same place then has to say, with a few pictures of a few names (compare
 * domain randomisation, Tobin et al. 2017; and DreamBooth's rare words, Ruiz et al. 2023).
 */
import { HostRandom, randomKey } from '../engine/index.ts';
import type { Picture } from './pictures.ts';
import type { ClipTokenizer } from './tokenizer.ts';
import type { WorldPicture } from './world.ts';

/** How a look changes a picture. White stays white, so that pictures stay on white. */
export interface Look {
  /** Degrees by which hues turn at constant luminance. */
  readonly hue: number;
  /** Factor of the distance from grey. */
  readonly saturation: number;
  /** Exponent of the values in [0, 1]: above 1 darker. */
  readonly gamma: number;
  /** Factors of width and height, at most 1: what is left is white. */
  readonly scale: readonly [number, number];
}

/** A picture in another look, of the same size. */
export function changeLook({ data, width, height }: Picture, { hue, saturation, gamma, scale }: Look): Picture {
  const matrix = colourMatrix(hue, saturation);
  const area = width * height;
  const result = new Float32Array(3 * area).fill(1);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      // The point that comes to lie in this pixel's middle, by bilinear interpolation.
      const fromX = (x + 0.5 - width / 2) / scale[0] + width / 2 - 0.5;
      const fromY = (y + 0.5 - height / 2) / scale[1] + height / 2 - 0.5;
      if (fromX < 0 || fromY < 0 || fromX > width - 1 || fromY > height - 1) continue;
      const [left, top] = [Math.min(Math.floor(fromX), width - 2), Math.min(Math.floor(fromY), height - 2)];
      const [u, v] = [fromX - left, fromY - top];
      const rgb = [0, 1, 2].map((channel) => {
        const at = channel * area + top * width + left;
        const above = data[at]! * (1 - u) + data[at + 1]! * u;
        const below = data[at + width]! * (1 - u) + data[at + width + 1]! * u;
        return (above * (1 - v) + below * v + 1) / 2;
      });
      for (let channel = 0; channel < 3; channel++) {
        const value = matrix[channel]!.reduce((sum, weight, k) => sum + weight * rgb[k]!, 0);
        result[channel * area + y * width + x] = 2 * Math.min(1, Math.max(0, value)) ** gamma - 1;
      }
    }
  return { data: result, width, height };
}

/** Luminance of red, green and blue (ITU-R BT.709). */
const LUMINANCE = [0.2126, 0.7152, 0.0722] as const;

/** Saturation after a turn of hues around the grey axis that keeps luminance, as filters of SVG have it. Rows add up to 1. */
function colourMatrix(hue: number, saturation: number): number[][] {
  const [cos, sin] = [Math.cos((hue * Math.PI) / 180), Math.sin((hue * Math.PI) / 180)];
  const across = [
    [-LUMINANCE[0], -LUMINANCE[1], 1 - LUMINANCE[2]],
    [0.143, 0.14, -0.283],
    [-(1 - LUMINANCE[0]), LUMINANCE[1], LUMINANCE[2]],
  ];
  const turn = LUMINANCE.map((_, row) =>
    LUMINANCE.map((weight, column) => weight + cos * (Number(row === column) - weight) + sin * across[row]![column]!),
  );
  return turn.map((row) => row.map((value, column) => saturation * value + (1 - saturation) * LUMINANCE[column]!));
}

/** `count` rare words: of three letters, one token each, the last of the vocabulary first, and none of those `taken`. */
export function rareWords(tokenizer: ClipTokenizer, count: number, taken: ReadonlySet<string>): string[] {
  const letters = [...'abcdefghijklmnopqrstuvwxyz'];
  const words = letters.flatMap((a) => letters.flatMap((b) => letters.map((c) => a + b + c)));
  const single = words.flatMap((word) => {
    const ids = tokenizer.tokenize(word);
    return ids.length === 1 && !taken.has(word) ? [{ word, id: ids[0]! }] : [];
  });
  if (single.length < count)
    throw new Error(`[invented] ${count} styles want as many rare words, and the vocabulary has ${single.length} left`);
  return single
    .sort((a, b) => b.id - a.id)
    .slice(0, count)
    .map(({ word }) => word);
}

/** Every picture of a set in each of `count` looks that are drawn by `seed`; sets take turns. */
export function inventStyles(
  pictures: readonly WorldPicture[],
  tokenizer: ClipTokenizer,
  { count, seed, taken }: { count: number; seed: number; taken: ReadonlySet<string> },
): WorldPicture[] {
  const sets = [...new Set(pictures.map(({ set }) => set))];
  return rareWords(tokenizer, count, taken).flatMap((word, n) => {
    const random = new HostRandom(randomKey(seed, 'invented styles'), n, 0);
    const between = (low: number, high: number) => low + (high - low) * random.uniform();
    const look: Look = {
      hue: between(0, 360),
      saturation: between(0, 1.3),
      gamma: between(0.7, 1.6),
      scale: [between(0.75, 1), between(0.75, 1)],
    };
    return pictures
      .filter(({ set }) => set === sets[n % sets.length])
      .map((one) => ({ ...one, style: word, picture: () => changeLook(one.picture(), look) }));
  });
}
