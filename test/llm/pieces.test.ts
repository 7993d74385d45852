/** Text of bytes that come in any pieces. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { lookUp } from '../../llm/lookup.ts';
import { Pieces } from '../../llm/pieces.ts';

/** What is given of a text in parts of so many bytes. */
function given(text: string, sizes: readonly number[], stops: readonly string[]): { text: string; stopped: boolean } {
  const bytes = new TextEncoder().encode(text);
  const pieces = new Pieces(stops);
  let result = '';
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const part = bytes.subarray(at, (at += sizes[i % sizes.length]!));
    const { text, stopped } = pieces.push(part);
    expect(text).not.toContain('\uFFFD');
    result += text;
    if (stopped) return { text: result, stopped };
  }
  return { text: result + pieces.end(), stopped: false };
}

it('is the text up to where a stop string is first complete, whatever the pieces', () => {
  const alphabet = fc.constantFrom('a', 'b', 'é', '🦊');
  const word = fc.string({ unit: alphabet, minLength: 1, maxLength: 4 });
  const sizes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1 });
  fc.assert(
    fc.property(
      fc.string({ unit: alphabet, maxLength: 30 }),
      fc.array(word, { maxLength: 3 }),
      sizes,
      (text, stops, sizes) => {
        // prettier-ignore
        let [end, first] = [Infinity, Infinity];
        for (const stop of stops) {
          const at = text.indexOf(stop);
          if (at < 0) continue;
          if (at + stop.length < end || (at + stop.length === end && at < first)) [end, first] = [at + stop.length, at];
        }
        expect(given(text, sizes, stops)).toEqual({ text: text.slice(0, first), stopped: first < Infinity });
      },
    ),
    { seed: 6 },
  );
});

it('holds back no more than may be the beginning of a stop string', () => {
  const pieces = new Pieces(['aab']);
  const push = (text: string) => pieces.push(new TextEncoder().encode(text)).text;
  expect(['x', 'a', 'a', 'a', 'c', 'a'].map(push)).toEqual(['x', '', '', 'a', 'aac', '']);
  expect(pieces.end()).toBe('a');
});

it('looks up what followed the last tokens before: the longest match, then the latest', () => {
  expect(lookUp([1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 2)).toEqual([9, 2]);
  expect(lookUp([5, 7, 5, 8, 5], 9)).toEqual([8, 5]);
  expect(lookUp([1, 2, 3], 4)).toEqual([]);
  expect(lookUp([1, 1], 0)).toEqual([]);
  expect(lookUp([], 3)).toEqual([]);
});
