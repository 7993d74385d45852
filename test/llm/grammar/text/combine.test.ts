import fc from 'fast-check';
import { expect, test } from 'vitest';
import { combine, complement, intersect, union } from '../../../../llm/grammar/text/combine.ts';
import { finite } from '../../../../llm/grammar/text/finite.ts';
import { DEAD, NONE, none, type Language } from '../../../../llm/grammar/text/language.ts';
import { all, atLeast, atMost } from '../../../../llm/grammar/text/lengths.ts';
import { regex } from '../../../../llm/grammar/text/regex.ts';
import { words } from '../../../../llm/grammar/text/words.ts';
import { accepts, labelOf, shortest, textsOver, walk } from './languages.ts';

const SEED = 22;
const LETTERS = ['a', 'b', '😀'];
const TEXTS = textsOver(LETTERS, 5);

/** A language beside what decides it without an automaton. */
interface Case {
  readonly name: string;
  readonly language: Language;
  readonly holds: (text: string) => boolean;
}

const small = fc.string({ unit: fc.constantFrom(...LETTERS), maxLength: 3 });
const leaf: fc.Arbitrary<Case> = fc.oneof(
  fc.array(small, { maxLength: 4 }).map((list) => ({
    name: JSON.stringify(list),
    language: words(list),
    holds: (text: string) => list.includes(text),
  })),
  fc.nat(4).map((n) => ({ name: `≥${n}`, language: atLeast(n), holds: (text: string) => [...text].length >= n })),
  fc.integer({ min: -1, max: 4 }).map((n) => ({
    name: `≤${n}`,
    language: atMost(n),
    holds: (text: string) => [...text].length <= n,
  })),
  fc.constantFrom('a', '^a*$', '^(ab)*$', '^.{2,3}$', 'b$', '^[^b]*$', 'a{2}|😀', '^(a|b){3}').map((pattern) => ({
    name: pattern,
    language: regex(pattern),
    holds: (text: string) => new RegExp(pattern, 'u').test(text),
  })),
);
const { tree } = fc.letrec<{ tree: Case }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 3 },
    leaf,
    tie('tree').map(({ name, language, holds }) => ({
      name: `not ${name}`,
      language: complement(language),
      holds: (text: string) => !holds(text),
    })),
    fc.array(tie('tree'), { maxLength: 3 }).map((of) => ({
      name: `(${of.map(({ name }) => name).join(' and ')})`,
      language: intersect(...of.map(({ language }) => language)),
      holds: (text: string) => of.every(({ holds }) => holds(text)),
    })),
    fc.array(tie('tree'), { maxLength: 3 }).map((of) => ({
      name: `(${of.map(({ name }) => name).join(' or ')})`,
      language: union(...of.map(({ language }) => language)),
      holds: (text: string) => of.some(({ holds }) => holds(text)),
    })),
  ),
}));

test('complements, intersections and unions hold what they should, and live where a text is left', () => {
  fc.assert(
    fc.property(
      tree.map((of) => ({ ...of, toString: () => of.name })),
      ({ language, holds }) => {
        const completable = new Set<string>();
        for (const text of TEXTS) {
          expect(accepts(language, text), text).toBe(holds(text));
          if (holds(text)) for (let end = 0; end <= text.length; end += 1) completable.add(text.slice(0, end));
        }
        for (const text of TEXTS) {
          const state = walk(language, text);
          if (completable.has(text)) expect(state, text).not.toBe(DEAD);
          else if (state !== DEAD) expect(holds(shortest(language, text)), text).toBe(true);
        }
      },
    ),
    { seed: SEED, numRuns: 300 },
  );
});

test('ranges say what step does, and spans what labels come', () => {
  fc.assert(
    fc.property(
      tree.map((of) => ({ ...of, toString: () => of.name })),
      fc.constantFrom(...textsOver(LETTERS, 3)),
      ({ language }, text) => {
        const state = walk(language, text);
        if (state === DEAD) return;
        const ranges = language.ranges(state);
        for (const codePoint of [0, 0x60, 0x61, 0x62, 0x63, 0xd7ff, 0xe000, 0x1f5ff, 0x1f600, 0x1f601, 0x10ffff]) {
          const range = ranges.find(({ from, to }) => from <= codePoint && codePoint <= to);
          expect(language.step(state, codePoint)).toBe(range?.state ?? DEAD);
        }
        ranges.forEach(({ from, to }, i) => {
          expect(from <= to && from > (ranges[i - 1]?.to ?? -1) && (to < 0xd800 || from > 0xdfff)).toBe(true);
        });
        const spans = language.spans(state);
        if (!spans) return;
        expect(spans.at(-1)!.below).toBe(Infinity);
        for (const more of textsOver(LETTERS, 4)) {
          const label = spans.find(({ below }) => [...more].length < below)!.label;
          expect(labelOf(language, text + more)).toBe(label);
        }
      },
    ),
    { seed: SEED, numRuns: 500 },
  );
});

test('labels are joined by whoever combines, and asked of labels alone that some text has', () => {
  const languages = [words(['a', 'b', 'ab']), regex('^a'), atMost(1)];
  const asked = new Set<string>();
  const language = combine('', languages, (labels) => {
    asked.add(labels.join(' '));
    return labels[0] === NONE ? NONE : labels[0]! * 4 + (labels[1] === NONE ? 0 : 2) + (labels[2] === NONE ? 0 : 1);
  });
  expect(labelOf(language, 'a')).toBe(3);
  expect(labelOf(language, 'b')).toBe(5);
  expect(labelOf(language, 'ab')).toBe(10);
  expect(labelOf(language, 'aa')).toBe(NONE);
  // Where nothing is wanted every list of labels is met.
  const met = new Set<string>();
  expect(combine('', languages, (labels) => (met.add(labels.join(' ')), NONE))).toBe(none);
  const real = new Set(textsOver(['a', 'b', 'c'], 4).map((text) => languages.map((of) => labelOf(of, text)).join(' ')));
  expect([...met].sort()).toEqual([...real].sort());
  for (const labels of asked) expect(real).toContain(labels);
});

test('a million code points are not counted one by one', () => {
  const MILLION = 1_000_000;
  expect(intersect(atLeast(MILLION), atMost(MILLION - 1))).toBe(none);
  const language = intersect(atLeast(MILLION), regex('^[a-z]*$'), atMost(2 * MILLION));
  expect(language).not.toBe(none);
  expect(language.step(language.start, 0x41)).toBe(DEAD);
  expect(language.step(language.start, 0x61)).not.toBe(DEAD);
  expect(complement(all)).toBe(none);
  expect(complement(none)).toBe(all);
});

test('a search that takes too many states is refused', () => {
  const first = regex('^(?:a{509})*$');
  const second = regex('^(?:a{503})*$');
  expect(() => intersect(first, second, atLeast(1))).toThrow('it takes more than 20000 states');
});

test('words are in their list and no others, by the place of the first', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', 'é', '\ufffd', '😀', '\ud83d'), maxLength: 4 });
  fc.assert(
    fc.property(fc.array(text, { maxLength: 8 }), fc.array(text, { maxLength: 8 }), (list, others) => {
      const language = words(list);
      for (const each of [...list, ...others]) {
        expect(labelOf(language, each)).toBe(/\p{Surrogate}/u.test(each) ? NONE : list.indexOf(each));
      }
    }),
    { seed: SEED, numRuns: 1000 },
  );
});

test('a hundred thousand words', () => {
  const list = Array.from({ length: 100_000 }, (_, i) => `item number ${(i * 7919) % 100_000}`);
  const language = words(list);
  for (let place = 0; place < list.length; place += 997) expect(labelOf(language, list[place]!)).toBe(place);
  expect(labelOf(language, 'item number')).toBe(NONE);
  expect(language.key).toBe(words([...list]).key);
  expect(language.key).not.toBe(words([...list].reverse()).key);
  expect(language.key.length).toBeLessThan(100);
});

test('the texts of a finite language', () => {
  expect(finite(regex('^a{1,2}b?$'), regex('^a{1,2}b?$').start, 10)).toEqual(['a', 'aa', 'ab', 'aab']);
  expect(finite(regex('^a*b$'), regex('^a*b$').start, 100)).toBe(null);
  expect(finite(all, all.start, 1_000_000)).toBe(null);
  expect(finite(words(['b', 'a', 'b']), 0, 2)).toEqual(['a', 'b']);
  expect(finite(words(['b', 'a', 'b']), 0, 1)).toBe(null);
});
