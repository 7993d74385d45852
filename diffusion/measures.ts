/**
 * How well the model draws and how well DreamBooth learns, in numbers, and what is demanded of them. Measures and thresholds
 * were committed before the training that they judge; pictures are (3, H, W) in [−1, 1].
 *
 * Two features stand in for the eyes of the paper's DINO and CLIP, which are larger than the whole model here: the latents of
 * the model's own autoencoder, and thumbnails of 16 × 16 in RGB. Both see layout and colours.
 */
import type { Picture } from './pictures.ts';
import { encodePictures } from './training.ts';
import type { Vae } from './vae.ts';

export const FLOORS = {
  /** Decibels of the autoencoder on held-out pictures, the mean of each picture's own. */
  psnr: 27.5,
  /** Share of held-out pairs whose true picture is among the nearest `NEAREST` real ones. */
  composition: 0.5,
  /** Share of a subject's expressions for which the nearest of all cats is the subject's own in that expression. */
  fidelity: 0.6,
  /** Drift of the class with prior preservation, as a share of the drift without. */
  drift: 0.5,
} as const;

export const NEAREST = 10;

export const mean = (values: readonly number[]): number =>
  values.reduce((total, value) => total + value, 0) / values.length;

/** Side of the thumbnails on which pictures are compared: layout and colours count, fine lines don't. */
const THUMBNAIL = 16;

/** Averages a picture down to (3, 16, 16). Its sides must be multiples of 16. */
export function thumbnail(picture: Float32Array, size: number): Float32Array {
  if (picture.length !== 3 * size * size || size % THUMBNAIL !== 0)
    throw new Error(`[measures] a picture of 3 × ${size} × ${size} with sides in multiples of ${THUMBNAIL} is needed`);
  const factor = size / THUMBNAIL;
  const small = new Float32Array(3 * THUMBNAIL * THUMBNAIL);
  for (let channel = 0; channel < 3; channel++)
    for (let y = 0; y < size; y++)
      for (let x = 0; x < size; x++) {
        const at = (channel * THUMBNAIL + Math.floor(y / factor)) * THUMBNAIL + Math.floor(x / factor);
        small[at]! += picture[(channel * size + y) * size + x]! / factor ** 2;
      }
  return small;
}

/** Root mean square of a − b. Throws where they are not of one length. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`[measures] ${a.length} values cannot be compared with ${b.length}`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(sum / a.length);
}

/** Whether pixel i of a picture (3, H·W) is white, and so no foreground: its smallest channel is 0.95 of [0, 1] or more. */
export function isWhite(picture: Float32Array, i: number): boolean {
  const area = picture.length / 3;
  return [i, area + i, 2 * area + i].every((at) => (picture[at]! + 1) / 2 >= 0.95);
}

/** Decibels of a mean squared error, for a peak of 2, the width of [−1, 1]. */
const decibels = (error: number) => 10 * Math.log10(4 / error);

/**
 * Peak signal-to-noise ratios in decibels: of all pixels of all pictures at once (`pooled`), and the mean of each picture's
 * own, which simple pictures raise.
 */
export function psnr(
  originals: readonly Picture[],
  reconstructions: readonly Picture[],
): { pooled: number; mean: number } {
  const errors = originals.map(({ data }, i) => {
    const other = reconstructions[i]!.data;
    return data.reduce((total, value, k) => total + (value - other[k]!) ** 2, 0) / data.length;
  });
  return { pooled: decibels(mean(errors)), mean: mean(errors.map(decibels)) };
}

/**
 * Mean over the pictures of each one's peak signal-to-noise ratio in decibels over the pixels of the original that are not
 * white; pictures that are all white are left out.
 */
export function foregroundPsnr(originals: readonly Picture[], reconstructions: readonly Picture[]): number {
  const errors = originals.flatMap(({ data }, n) => {
    const other = reconstructions[n]!.data;
    const area = data.length / 3;
    let [sum, count] = [0, 0];
    for (let i = 0; i < area; i++) {
      if (isWhite(data, i)) continue;
      count += 3;
      for (const at of [i, area + i, 2 * area + i]) sum += (data[at]! - other[at]!) ** 2;
    }
    return count === 0 ? [] : [sum / count];
  });
  return mean(errors.map(decibels));
}

/** What a picture is compared by. */
export interface Features {
  readonly latents: Float32Array;
  readonly rgb: Float32Array;
}
export const FEATURES = ['latents', 'rgb'] as const satisfies readonly (keyof Features)[];
export type Feature = (typeof FEATURES)[number];

/** Features of pictures of one size. */
export async function featuresOf(vae: Vae, pictures: readonly Picture[]): Promise<Features[]> {
  const latents = await encodePictures(vae, pictures);
  return pictures.map(({ data, width }, i) => ({ latents: latents[i]!.mean, rgb: thumbnail(data, width) }));
}

/**
 * How many of `others`, the truth itself left out, are as near to a picture as `truth` is, or nearer: 0 where the truth is the
 * nearest. Features that tell nothing apart put it last.
 */
export function rank(drawn: Features, truth: Features, others: readonly Features[], feature: Feature): number {
  const own = distance(drawn[feature], truth[feature]);
  return others.filter((other) => other !== truth && !(distance(drawn[feature], other[feature]) > own)).length;
}

/** A real picture with what it shows. */
export interface Known {
  readonly set: string;
  readonly name: string;
  readonly features: Features;
}

/** What was drawn of a subject for the prompt of one of its expressions. */
export interface Drawn {
  readonly name: string;
  readonly features: Features;
}

export interface SubjectScores {
  /** Share whose nearest cat is the subject's own in the expression asked for. */
  readonly fidelity: number;
  /** Share whose nearest cat is the subject's, in whatever expression. */
  readonly identity: number;
  /** Share whose nearest cat has the expression asked for, in whatever style. */
  readonly prompt: number;
}

/** Holds drawings against all cats of all sets. Throws without drawings. */
export function subjectScores(
  drawn: readonly Drawn[],
  cats: readonly Known[],
  subject: string,
  feature: Feature,
): SubjectScores {
  if (drawn.length === 0) throw new Error('[measures] there is nothing drawn to judge');
  const nearest = drawn.map(({ name, features }) => {
    const distances = cats.map((cat) => distance(features[feature], cat.features[feature]));
    return { name, cat: cats[distances.indexOf(Math.min(...distances))]! };
  });
  const share = (holds: (one: (typeof nearest)[number]) => boolean) => nearest.filter(holds).length / nearest.length;
  return {
    fidelity: share(({ name, cat }) => cat.set === subject && cat.name === name),
    identity: share(({ cat }) => cat.set === subject),
    prompt: share(({ name, cat }) => cat.name === name),
  };
}

/** Cosine of the angle between two features seen from `centre`. */
function cosine(a: Float32Array, b: Float32Array, centre: Float32Array): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]! - centre[i]!, b[i]! - centre[i]!];
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / Math.sqrt(aa * bb);
}

/** All pairs of two lists, or of one with itself without what is the same. */
const pairs = <T>(a: readonly T[], b: readonly T[]): [T, T][] =>
  a.flatMap((x) => b.filter((y) => y !== x).map((y): [T, T] => [x, y]));

/**
 * PRES (Ruiz et al. 2023): mean similarity of drawings of the class to the subject's real pictures; the more the class has
 * turned into the subject, the higher. Similarity is the cosine of features seen from the mean of all cats.
 */
export function preservation(
  drawn: readonly Features[],
  subject: readonly Features[],
  cats: readonly Features[],
  feature: Feature,
): number {
  const centre = cats[0]![feature].map((_, i) => mean(cats.map((cat) => cat[feature][i]!)));
  return mean(pairs(drawn, subject).map(([a, b]) => cosine(a[feature], b[feature], centre)));
}

/**
 * Mean distance of drawings of one prompt from each other: DIV (Ruiz et al. 2023) for a prompt of the subject, which is little
 * where the subject's own pictures come out again; for a prompt of the class it is little where that has collapsed.
 */
export const diversity = (drawn: readonly Features[], feature: Feature): number =>
  mean(pairs(drawn, drawn).map(([a, b]) => distance(a[feature], b[feature])));

/** A mean with half the width of its 95 % interval; null for the width of fewer than two samples. */
export interface Interval {
  readonly mean: number;
  readonly half: number | null;
}

/** The mean of independent samples with its 95 % interval by Student's t. */
export function interval(values: readonly number[]): Interval {
  const average = mean(values);
  const n = values.length;
  if (n < 2) return { mean: average, half: null };
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - average) ** 2, 0) / (n - 1));
  return { mean: average, half: (studentT(n - 1) * deviation) / Math.sqrt(n) };
}

/** 0.975 quantile of Student's t by degrees of freedom: the Cornish–Fisher series around the normal quantile (Abramowitz and Stegun 26.7.5), tables for 1 and 2. */
function studentT(degrees: number): number {
  if (degrees === 1) return 12.706;
  if (degrees === 2) return 4.303;
  const z = 1.959964;
  const g1 = (z ** 3 + z) / 4;
  const g2 = (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96;
  const g3 = (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384;
  const g4 = (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160;
  return z + g1 / degrees + g2 / degrees ** 2 + g3 / degrees ** 3 + g4 / degrees ** 4;
}
