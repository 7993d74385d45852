/**
 * What DreamBooth changed, in numbers. The measures and thresholds were fixed before any training that they judge.
 * Pictures are (3, H, W) in [−1, 1]; distances are root mean squares.
 */

/** What must hold after the default run; `docs/dreambooth.md` says what did. */
export const THRESHOLDS = {
  /** Share of grey foreground with the token, over expressions shown and not shown. Real pictures have 0.81. */
  grey: 0.4,
  /** Drift of the class prompts with prior preservation, as a share of the drift without. */
  drift: 0.5,
} as const;

/** Side of the thumbnails on which pictures are compared: layout and colours count, fine lines don't. */
const THUMBNAIL = 16;

/** Averages a picture down to (3, 16, 16). Its sides must be multiples of 16. */
export function thumbnail(picture: Float32Array, size: number): Float32Array {
  if (picture.length !== 3 * size * size || size % THUMBNAIL !== 0)
    throw new Error(`[evidence] a picture of 3 × ${size} × ${size} with sides in multiples of ${THUMBNAIL} is needed`);
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

/** Root mean square of a − b. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`[evidence] ${a.length} values cannot be compared with ${b.length}`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(sum / a.length);
}

/**
 * Share of grey among the foreground: of the pixels that are not white (smallest channel below 0.95 of [0, 1]), those whose
 * channels lie within 0.12 of each other.
 */
export function greyShare(picture: Float32Array): number {
  const area = picture.length / 3;
  let foreground = 0;
  let grey = 0;
  for (let i = 0; i < area; i++) {
    const channels = [picture[i]!, picture[area + i]!, picture[2 * area + i]!].map((value) => (value + 1) / 2);
    const least = Math.min(...channels);
    if (least >= 0.95) continue;
    foreground++;
    if (Math.max(...channels) - least < 0.12) grey++;
  }
  return foreground === 0 ? 0 : grey / foreground;
}

export const mean = (values: readonly number[]): number =>
  values.reduce((total, value) => total + value, 0) / values.length;
