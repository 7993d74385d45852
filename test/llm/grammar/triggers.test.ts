import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { contextFree } from '../../../llm/grammar/cfg/pushdown.ts';
import { texts } from '../../../llm/grammar/cfg/regular.ts';
import { advanceAll, start } from '../../../llm/grammar/stack.ts';
import { words } from '../../../llm/grammar/text/words.ts';
import { triggered, type TriggerOptions } from '../../../llm/grammar/triggers.ts';
import { verdict } from './cfg/helpers.ts';

/** A trigger as the naive search has it: `words` null is any text. */
interface Naive {
  readonly begin: string;
  readonly words: readonly string[] | null;
  readonly end: string;
}

type Bounds = Pick<TriggerOptions, 'least' | 'most' | 'then'>;

/** What `text` is, by searching its strings: every character in turn, every trigger, every word. */
function searched(triggers: readonly Naive[], bounds: Bounds, text: string): 'accepted' | 'open' | 'refused' {
  const { least = 0, most = Infinity, then = 'text' } = bounds;
  let calls = 0;
  for (let at = 0; ;) {
    if (calls >= most && then === 'end') return at === text.length ? 'accepted' : 'refused';
    let found: Naive | null = null;
    let next = at;
    while (found === null && next < text.length) {
      next += 1;
      for (const trigger of triggers) {
        if (!text.slice(at, next).endsWith(trigger.begin)) continue;
        if (found === null || trigger.begin.length > found.begin.length) found = trigger;
      }
    }
    if (found === null) return calls >= least ? 'accepted' : 'open';
    if (found.words !== null && calls >= most) return 'refused';
    const rest = text.slice(next);
    const { end } = found;
    const inside = found.words;
    // The first place where the end is complete behind a word.
    let closed = -1;
    for (let length = 0; closed < 0 && length + end.length <= rest.length; length++) {
      const word = rest.slice(0, length);
      if ((inside === null || inside.includes(word)) && rest.startsWith(end, length)) closed = length + end.length;
    }
    if (closed < 0) return inside === null || inside.some((word) => (word + end).startsWith(rest)) ? 'open' : 'refused';
    if (inside !== null) calls += 1;
    at = next + closed;
  }
}

const some = (characters: string, minLength: number, maxLength: number): fc.Arbitrary<string> =>
  fc.array(fc.constantFrom(...characters), { minLength, maxLength }).map((list) => list.join(''));

describe('text with triggers', () => {
  it('agrees with a naive search', () => {
    const counts = { accepted: 0, open: 0, refused: 0, impossible: 0 };
    const trigger = fc.record({
      begin: some('<ab', 1, 3),
      words: fc.option(fc.uniqueArray(some('<aé', 0, 3), { minLength: 1, maxLength: 4 }), { freq: 4 }),
      end: some('<a>', 1, 3),
    });
    const bounds = fc.constantFrom<Bounds>(
      {},
      { most: 0 },
      { least: 1 },
      { least: 1, most: 1 },
      { most: 1, then: 'end' },
      { least: 2, most: 2, then: 'end' },
    );
    const sample = fc.array(some('<ab>é', 0, 9), { minLength: 30, maxLength: 30 });
    fc.assert(
      fc.property(fc.array(trigger, { minLength: 1, maxLength: 3 }), bounds, sample, (triggers, limits, samples) => {
        const hides = triggers.some(({ begin }, i) =>
          triggers.some((other, j) => i !== j && (other.begin === begin || begin.slice(0, -1).includes(other.begin))),
        );
        const make = () =>
          triggered({
            ...limits,
            triggers: triggers.map(({ begin, words: inside, end }) => ({
              begin,
              grammar: inside && texts(words(inside)),
              end,
            })),
          });
        if (hides || ((limits.least ?? 0) > 0 && triggers.every(({ words: inside }) => inside === null))) {
          counts.impossible += 1;
          expect(make).toThrow('[grammar]');
          return;
        }
        const frame = make();
        // Texts as they come, and such as begin with calls.
        const calls = triggers.map(({ begin, words: inside, end }) => begin + (inside?.at(-1) ?? 'b') + end);
        for (const [i, text] of samples.entries()) {
          const begun = [0, 1, 2].slice(0, i % 3).map((j) => calls[(i + j) % calls.length]!);
          const whole = begun.join('') + text;
          const expected = searched(triggers, limits, whole);
          counts[expected] += 1;
          const made = verdict(frame, whole);
          if (made !== expected) expect(JSON.stringify([triggers, limits, whole, made])).toBe(expected);
        }
      }),
      { seed: 5, numRuns: 1500 },
    );
    expect(Math.min(...Object.values(counts))).toBeGreaterThan(100);
  });
});
