import { Unsupported } from '../refusal.ts';
import { NONE, type Language } from './language.ts';

/** Languages of so many states are worth counting them. */
const LIMIT = 200;

const sizes = new WeakMap<Language, number>();

/** How many states a language has; Infinity where they are many. */
function size(language: Language): number {
  let found = sizes.get(language);
  if (found === undefined) {
    try {
      found = count(language);
    } catch (error) {
      // Whoever walks there hears of it.
      if (!(error instanceof Unsupported)) throw error;
      found = Infinity;
    }
    sizes.set(language, found);
  }
  return found;
}

function count(language: Language): number {
  const seen = new Set([language.start]);
  for (const state of seen) {
    if (seen.size > LIMIT) return Infinity;
    for (const range of language.ranges(state)) seen.add(range.state);
  }
  return seen.size;
}

/** A language and where one is in it. */
export interface Part {
  readonly language: Language;
  readonly state: number;
}

/**
 * Of texts that are in all the languages: what says all that the next `most` code points do, and how far it is then to the
 * end of a text, where an upper bound of the length is too far off to have a say. Null where it is near, or there is none.
 *
 * Let the patterns have N states together. A text that leads from any of them to an end and is N longer than it has to be
 * comes through one state twice within N code points, without which it leads there too, and is no shorter than it has to be:
 * so where a text is left at all, or one of few bytes, one is that is less than N longer than it has to be.
 */
export function near(parts: readonly Part[], most: number): string | null {
  let [least, bound] = [0, Infinity];
  const patterns: Part[] = [];
  const labels: number[] = [];
  for (const part of parts) {
    const spans = part.language.spans(part.state);
    if (spans === null) {
      patterns.push(part);
      continue;
    }
    const wanted = spans.filter(({ label }) => label !== NONE);
    if (wanted.length !== 1) return null;
    const [span] = wanted;
    least = Math.max(least, spans[spans.indexOf(span!) - 1]?.below ?? 0);
    bound = Math.min(bound, span!.below);
    labels.push(span!.label);
  }
  const far = Math.max(least, most);
  if (bound === Infinity || bound <= far) return null;
  const states = patterns.reduce((product, { language }) => product * size(language), 1);
  if (bound < far + states) return null;
  return [least, ...labels, ...patterns.map(({ state }) => state)].join(' ');
}
