/**
 * What DreamBooth changed, in numbers. The measures and thresholds were fixed before any training that they judge.
 * Pictures are (3, H, W) in [−1, 1].
 */
import { distance, FLOORS, isWhite, mean, thumbnail } from './measures.ts';
import type { Picture } from './pictures.ts';

/** Share of grey foreground with the token that is wanted, over expressions shown and not shown. Real pictures have 0.85. */
const GREY = 0.4;

/** Share of grey among the foreground: of the pixels that are not white, those whose channels in [0, 1] lie within 0.12 of each other. */
export function greyShare(picture: Float32Array): number {
  const area = picture.length / 3;
  let foreground = 0;
  let grey = 0;
  for (let i = 0; i < area; i++) {
    const channels = [picture[i]!, picture[area + i]!, picture[2 * area + i]!].map((value) => (value + 1) / 2);
    if (isWhite(picture, i)) continue;
    foreground++;
    if (Math.max(...channels) - Math.min(...channels) < 0.12) grey++;
  }
  return foreground === 0 ? 0 : grey / foreground;
}

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
      wanted: `at least ${GREY}`,
      holds: after >= GREY,
    });
  }
  const classes = judged.filter(({ kind }) => kind === 'class');
  if (classes.length > 0)
    for (const [form, of] of forms)
      findings.push({
        measure: `drift of the class prompts (${form})`,
        before: null,
        after: mean(classes.flatMap((one) => one.after.map((seen, s) => distance(of(seen), of(one.before[s]!))))),
        wanted: `at most ${FLOORS.drift} of the drift without prior preservation: docs/dreambooth.md`,
        holds: null,
      });
  return findings;
}
