/**
 * What DreamBooth changed, in numbers. The measures and thresholds were fixed before any training that they judge.
 * Pictures are (3, H, W) in [−1, 1]; distances are root mean squares.
 */

import type { Picture } from './pictures.ts';

/** What must hold after the default run; `docs/dreambooth.md` says what did. */
export const THRESHOLDS = {
  /** Share of grey foreground with the token, over expressions shown and not shown. Real pictures have 0.85. */
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

/** A picture in both forms in which it is compared. */
export interface Seen {
  readonly picture: Picture;
  readonly latents: Float32Array;
}

/** What was drawn for one prompt before and after, one picture a seed (the same seeds). */
export interface Judged {
  /** `shown`: a prompt that was trained; `unseen`: the subject otherwise; `class`: without the subject's word; `other`: anything else. */
  readonly kind: 'shown' | 'unseen' | 'class' | 'other';
  /** The subject's own pictures of the prompt; what was drawn is held against the nearest. */
  readonly truths: readonly Seen[];
  readonly before: readonly Seen[];
  readonly after: readonly Seen[];
}

export interface Finding {
  readonly measure: string;
  /** Null where the measure is of the change itself. */
  readonly before: number | null;
  readonly after: number;
  readonly wanted: string;
  /** Null where nothing is demanded of it. */
  readonly holds: boolean | null;
}

/** The findings over all prompts and seeds, with the share of `grey` where asked for. Measures without pictures to take them of are left out. */
export function judge(judged: readonly Judged[], { grey = false } = {}): Finding[] {
  const findings: Finding[] = [];
  const forms = [
    ['RGB', (seen: Seen) => thumbnail(seen.picture.data, seen.picture.width)],
    ['latents', (seen: Seen) => seen.latents],
  ] as const;
  for (const [kind, words] of [
    ['shown', 'what was shown'],
    ['unseen', 'what was not shown'],
  ] as const)
    for (const [form, of] of forms) {
      const those = judged.filter((one) => one.kind === kind && one.truths.length > 0);
      if (those.length === 0) continue;
      const to = (when: 'before' | 'after') =>
        mean(
          those.flatMap((one) =>
            one[when].map((seen) => Math.min(...one.truths.map((truth) => distance(of(seen), of(truth))))),
          ),
        );
      const [before, after] = [to('before'), to('after')];
      findings.push({
        measure: `distance to the subject, ${words} (${form})`,
        before,
        after,
        wanted: 'smaller',
        holds: after < before,
      });
    }
  const subject = judged.filter(({ kind }) => kind === 'shown' || kind === 'unseen');
  const real = mean(subject.flatMap(({ truths }) => truths.map(({ picture }) => greyShare(picture.data))));
  if (grey) {
    const share = (when: 'before' | 'after') =>
      mean(subject.flatMap((one) => one[when].map(({ picture }) => greyShare(picture.data))));
    const after = share('after');
    findings.push({
      measure: `share of grey in the foreground (the real subject: ${real.toFixed(2)})`,
      before: share('before'),
      after,
      wanted: `at least ${THRESHOLDS.grey}`,
      holds: after >= THRESHOLDS.grey,
    });
  }
  const classes = judged.filter(({ kind }) => kind === 'class');
  if (classes.length > 0)
    for (const [form, of] of forms)
      findings.push({
        measure: `drift of the class prompts (${form})`,
        before: null,
        after: mean(classes.flatMap((one) => one.after.map((seen, s) => distance(of(seen), of(one.before[s]!))))),
        wanted: `at most ${THRESHOLDS.drift} of the drift without prior preservation: docs/dreambooth.md`,
        holds: null,
      });
  return findings;
}
