/** Counted repetition, nested and in a row: against all short texts, and without a blow-up, by counts of what is made. */
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { jsonSchema, Matcher, Vocabulary } from '../../../../llm/grammar/index.ts';
import { intersect } from '../../../../llm/grammar/text/combine.ts';
import { DEAD, NONE, type Language } from '../../../../llm/grammar/text/language.ts';
import { atLeast, atMost } from '../../../../llm/grammar/text/lengths.ts';
import { Nearest } from '../../../../llm/grammar/text/nearest.ts';
import { regex } from '../../../../llm/grammar/text/regex.ts';
import { behind, either, sized, times, type Sizes } from '../../../../llm/grammar/text/sizes.ts';
import { Terms } from '../../../../llm/grammar/text/term.ts';
import { accepts, textsOver, walk } from './languages.ts';

const SEED = 23;
const LONGEST = 7;
const TEXTS = textsOver(['a', 'b'], LONGEST);
/** Where what may follow is asked about. */
const PREFIXES = textsOver(['a', 'b'], 3);

const count = fc
  .tuple(fc.nat(3), fc.nat(3))
  .chain(([min, more]) => fc.constantFrom(`{${min},${min + more}}`, `{${min}}`, `{${min},}`, '*', '+', '?'));
const { pattern } = fc.letrec<{ pattern: string; counted: string }>((tie) => ({
  counted: fc.oneof(
    { maxDepth: 3 },
    fc.tuple(fc.constantFrom('a', 'b', '[ab]', 'ab', '(?:a|ab)'), count).map(([of, times]) => `(?:${of})${times}`),
    fc.tuple(tie('pattern'), count).map(([of, times]) => `(?:${of})${times}`),
  ),
  pattern: fc.oneof(
    { maxDepth: 3 },
    fc.array(tie('counted'), { minLength: 1, maxLength: 3 }).map((of) => of.join('')),
    fc.tuple(tie('counted'), tie('counted')).map(([one, other]) => `${one}|${other}`),
  ),
}));
/** Of whole texts, as no others are over two letters alone. */
const whole = pattern.map((of) => `^(?:${of})$`);

/** Texts of the pattern that are so long, all of them as far as that is no longer than LONGEST. */
function textsOf(pattern: string, min: number, max: number): string[] {
  const reference = new RegExp(pattern, 'v');
  return TEXTS.filter((text) => text.length >= min && text.length <= max && reference.test(text));
}

function has({ ranges }: Sizes, number: number): boolean {
  return ranges.some(([min, max]) => min <= number && number <= max);
}

test('numbers of code points are those of all ways to take parts', () => {
  const numbers = fc.uniqueArray(fc.constantFrom(0, 1, 2, 3, 5, 7, 12, 31, 46), { minLength: 1, maxLength: 3 });
  const MOST = 150;
  const told = { exactly: 0, not: 0 };
  fc.assert(
    fc.property(numbers, numbers, fc.nat(9), fc.nat(30), fc.boolean(), (one, other, min, more, open) => {
      const max = open ? Infinity : min + more;
      const of = either(...one.map((number) => sized(number, number)));
      const sizes = behind(times(of, min, max), either(...other.map((number) => sized(number, number))));
      // By the number of parts, as far as that matters: more than MOST parts are longer than MOST, or repeat.
      let sums = new Set([0]);
      const found = new Set<number>();
      for (let parts = 0; parts <= Math.min(max, min + MOST); parts += 1) {
        const before = found.size;
        if (parts >= min) for (const sum of sums) for (const last of other) found.add(sum + last);
        const next = [...sums].flatMap((sum) => one.map((number) => sum + number)).filter((sum) => sum <= MOST);
        if (parts > min && found.size === before && !one.some((number) => number > 0)) break;
        sums = new Set(next);
        if (sums.size === 0) break;
      }
      const wrong: number[] = [];
      for (let number = 0; number <= MOST; number += 1) {
        const sure = number < sizes.sure;
        if (has(sizes, number) !== found.has(number) && (sure || found.has(number))) wrong.push(number);
        told[sure ? 'exactly' : 'not'] += 1;
      }
      expect(wrong).toEqual([]);
    }),
    { seed: SEED, numRuns: 100 },
  );
  expect(told.exactly).toBeGreaterThan(9 * told.not);
});

test('texts are those that the platform’s own engine takes, and numbers of code points are theirs', () => {
  let sure = 0;
  fc.assert(
    fc.property(whole, (pattern) => {
      const language = regex(pattern);
      const texts = textsOf(pattern, 0, LONGEST);
      expect(TEXTS.filter((text) => accepts(language, text))).toEqual(texts);
      for (const prefix of PREFIXES) {
        const state = walk(language, prefix);
        if (state === DEAD) continue;
        const real = new Set(texts.filter((text) => text.startsWith(prefix)).map((text) => text.length));
        const sizes = language.sizes(state, 'any');
        expect(language.sizes(state, 'short')).toEqual(sizes);
        sure += sizes.sure === Infinity ? 1 : 0;
        const wrong: number[] = [];
        for (let more = 0; more <= LONGEST - prefix.length; more += 1) {
          const found = real.has(prefix.length + more);
          if (has(sizes, more) !== found && (found || more < sizes.sure)) wrong.push(more);
        }
        expect(wrong, prefix).toEqual([]);
      }
    }),
    { seed: SEED, numRuns: 50 },
  );
  expect(sure).toBeGreaterThan(150);
});

const bounds = fc.tuple(fc.nat(LONGEST), fc.nat(LONGEST)).map(([one, other]) => [one, Math.max(one, other)] as const);

test('within lengths, alone and beside another pattern, a beginning is alive where some text is left, as near as the nearest', () => {
  // é takes two bytes.
  const written = (text: string): string => text.replaceAll('b', 'é');
  const bytes = (text: string): number => new TextEncoder().encode(written(text)).length;
  const least = (from: number): number => (from < 0x80 ? 1 : 2);
  fc.assert(
    fc.property(whole, fc.option(whole), bounds, (pattern, other, [min, max]) => {
      const patterns = [pattern, ...(other === null ? [] : [other])];
      const language = intersect(...patterns.map((of) => regex(written(of))), atLeast(min), atMost(max));
      const nearest = new Nearest(language, least);
      const texts = textsOf(pattern, min, max).filter((text) => other === null || new RegExp(other, 'v').test(text));
      for (const prefix of PREFIXES) {
        const state = walk(language, written(prefix));
        const left = texts.filter((text) => text.startsWith(prefix)).map((text) => bytes(text) - bytes(prefix));
        expect(state !== DEAD, prefix).toBe(left.length > 0);
        if (state !== DEAD) expect(nearest.from(state), prefix).toBe(Math.min(...left));
      }
    }),
    { seed: SEED, numRuns: 120 },
  );
});

test('masks hold the tokens that some text goes on with', () => {
  const pieces = ['aa', 'ab', 'ba', 'bbb', 'aab', 'a"', 'ab"', 'b"', '"a', '"ba', '"abab'];
  const bytes = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte));
  const vocabulary = Vocabulary.of(
    [...bytes, ...pieces].map((text) => Uint8Array.from(text, (character) => character.charCodeAt(0))),
    { end: [] },
  );
  const tokens = ['a', 'b', '"'].map((text) => text.charCodeAt(0)).concat(pieces.map((_, i) => 256 + i));
  const text = (token: number): string => (token < 256 ? String.fromCharCode(token) : pieces[token - 256]!);
  const sampled = fc.array(fc.nat(1000), { minLength: 6, maxLength: 6 });
  fc.assert(
    fc.property(whole, fc.option(pattern), bounds, sampled, (pattern, not, [min, max], draws) => {
      const unwanted = not === null ? null : new RegExp(`^(?:${not})$`, 'v');
      const texts = textsOf(pattern, min, max).filter((text) => !unwanted?.test(text));
      const beside = not === null ? {} : { not: { pattern: `^(?:${not})$` } };
      const schema = { type: 'string', pattern, minLength: min, maxLength: max, ...beside };
      if (texts.length === 0) {
        expect(() => jsonSchema(schema)).toThrow('no JSON value satisfies it');
        return;
      }
      const matcher = new Matcher(vocabulary, jsonSchema(schema, { whitespace: 0 }));
      const documents = texts.map((text) => `"${text}"`);
      let begun = '';
      for (const draw of draws) {
        const mask = matcher.mask();
        const allowed = tokens.filter((token) => (mask[token >>> 5]! >>> (token & 31)) & 1);
        const wanted = tokens.filter((token) => documents.some((document) => document.startsWith(begun + text(token))));
        expect(allowed.map(text), begun).toEqual(wanted.map(text));
        if (allowed.length === 0) break;
        const token = allowed[draw % allowed.length]!;
        begun += text(token);
        matcher.accept(token);
      }
    }),
    { seed: SEED, numRuns: 60 },
  );
});

/** A pattern, lengths, and texts that begin one that satisfies both. */
const LARGE: readonly (readonly [pattern: string, min: number, max: number, begun: string])[] = [
  ['^(([a-z]{1,50}){1,50}){1,50}b.{200}$', 300, Infinity, 'ab'.repeat(100)],
  ['^([ab]{1,40}a){1,40}([bc]{1,30}b){1,30}$', 200, 240, 'aabab'.repeat(25)],
  ['^((a|ab)(c|bcd)(d*)){1,60}$', 100, 120, 'abcdacabcd'.repeat(9)],
  ['^(a?){100}a{100}$', 150, 180, 'a'.repeat(140)],
  ['^(a*)*$', 500, Infinity, 'a'.repeat(200)],
  ['^(a|aa)+$', 500, 510, 'a'.repeat(200)],
  ['^(x+x+)+y$', 300, 310, 'x'.repeat(200)],
  ['(.*a){25}', 200, 300, 'ab'.repeat(90)],
  ['^(?:[a-z]+\\d?){1,300}@$', 400, 420, 'abc1'.repeat(50)],
  ['^((a{1,30}b?){1,30}c?){1,30}$', 300, 310, 'aabaac'.repeat(25)],
  ['^((([ab]{1,20}a){1,20}b){1,20}c){1,20}$', 300, 400, 'abaabc'.repeat(15)],
];

/** How many derivatives are made. */
function derivatives(run: () => void): number {
  const made = vi.spyOn(Terms.prototype, 'derivative');
  try {
    run();
    return made.mock.calls.length;
  } finally {
    made.mockRestore();
  }
}

test.each(LARGE)('%s of %d to %d code points is decided by their number', (pattern, min, max, begun) => {
  let language: Language = regex(pattern);
  // The least that any state has to know is what of it may come next.
  expect(derivatives(() => (language = intersect(language, atLeast(min), atMost(max))))).toBe(0);
  let state = language.start;
  const bytes: (number | null)[] = [];
  const made = derivatives(() => {
    const nearest = new Nearest(language, () => 1);
    for (const character of begun) {
      state = language.step(state, character.codePointAt(0)!);
      expect(state).not.toBe(DEAD);
      bytes.push(nearest.from(state));
    }
  });
  expect(made).toBeLessThanOrEqual(begun.length);
  // It is as near as the bound on its length says, but where the pattern asks for more.
  bytes.forEach((left, i) => expect(left).toBeGreaterThanOrEqual(min - i - 1));
  // And those who go that way arrive.
  const nearest = new Nearest(language, () => 1);
  for (let left = bytes.at(-1)!; left > 0; left -= 1) {
    const next = language.ranges(state).find((range) => nearest.from(range.state) === left - 1);
    expect(next).toBeDefined();
    state = next!.state;
  }
  expect(language.label(state)).not.toBe(NONE);
});
