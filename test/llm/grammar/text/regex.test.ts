import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DEAD, none } from '../../../../llm/grammar/text/language.ts';
import { regex } from '../../../../llm/grammar/text/regex.ts';
import { accepts, shortest, textsOver, walk } from './languages.ts';

const SEED = 21;

const atoms = [
  ...['a', 'b', 'c', '_', '-', 'é', '😀', '.', '\\d', '\\w', '\\W', '\\s', '\\S', '\\D', '[ab]', '[^a]', '[a-c😀]'],
  ...[
    '[^\\w-]',
    '\\p{L}',
    '\\P{Lu}',
    '[\\d\\-_]',
    '\\u0061',
    '\\u{1F600}',
    '\\ud83d\\ude00',
    '\\x62',
    '\\n',
    '\\cJ',
    '[\\b]',
    '\\0',
  ],
  ...['\\.', '\\/', '[^]', '(?:)', '\\t'],
];
const anchors = ['^', '$', '\\b', '\\B'];
const quantifiers = ['*', '+', '?', '*?', '{2}', '{0}', '{1,}', '{1,3}', '{0,2}?', '{3,5}'];

function patterns(leaves: readonly string[], anchored: readonly string[]): fc.Arbitrary<string> {
  return fc.letrec<{ pattern: string; term: string }>((tie) => ({
    pattern: fc.oneof(
      { maxDepth: 4 },
      fc.array(tie('term'), { maxLength: 4 }).map((terms) => terms.join('')),
      fc.tuple(tie('pattern'), tie('pattern')).map(([one, other]) => `${one}|${other}`),
    ),
    term: fc.oneof(
      { maxDepth: 4 },
      fc.constantFrom(...leaves),
      fc.tuple(fc.constantFrom(...leaves), fc.constantFrom(...quantifiers)).map(([atom, times]) => atom + times),
      ...(anchored.length > 0 ? [fc.constantFrom(...anchored)] : []),
      tie('pattern').map((pattern) => `(${pattern})`),
      fc.tuple(tie('pattern'), fc.constantFrom(...quantifiers)).map(([pattern, times]) => `(?:${pattern})${times}`),
    ),
  })).pattern;
}

const whole = (pattern: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.oneof(
    pattern,
    pattern.map((inner) => `^(?:${inner})$`),
    pattern.map((inner) => `^${inner}`),
  );

test('a text is accepted where the platform’s own engine finds a match', () => {
  const text = fc.string({ unit: fc.constantFrom(...'abcdeé_- 1\n\u2028😀😁\0\bA.'), maxLength: 8 });
  const counts = { true: 0, false: 0 };
  fc.assert(
    fc.property(whole(patterns(atoms, anchors)), fc.array(text, { minLength: 30, maxLength: 30 }), (pattern, texts) => {
      // Led there by whole characters: V8's own search for \\B also looks between the halves of a surrogate pair.
      const reference = new RegExp(`^[^]*?(?:${pattern})`, 'u');
      const language = regex(pattern);
      for (const each of texts) {
        const matches = reference.test(each);
        counts[`${matches}`] += 1;
        expect(accepts(language, each), JSON.stringify(each)).toBe(matches);
      }
    }),
    { seed: SEED, numRuns: 1000 },
  );
  expect(Math.min(counts.true, counts.false)).toBeGreaterThan(10_000);
});

test('a state is alive where some text leads on to a match', () => {
  const texts = textsOver(['a', 'b', ' '], 5);
  const small = patterns(['a', 'b', ' ', '[ab]', '[^a]', '.'], anchors);
  fc.assert(
    fc.property(whole(small), (pattern) => {
      const reference = new RegExp(pattern, 'u');
      const language = regex(pattern);
      const completable = new Set<string>();
      for (const text of texts) {
        if (reference.test(text)) for (let end = 0; end <= text.length; end += 1) completable.add(text.slice(0, end));
      }
      for (const text of texts) {
        const alive = walk(language, text) !== DEAD;
        if (completable.has(text)) expect(alive, text).toBe(true);
        else if (alive && text.length <= 2) {
          // Completable by a text that is longer than those tried: the automaton has to show one.
          const witness = shortest(language, text);
          expect(reference.test(witness), witness).toBe(true);
        }
      }
    }),
    { seed: SEED, numRuns: 500 },
  );
});

test('what cannot be told exactly is refused by name', () => {
  expect(() => regex('^(?!a)')).toThrow('look-ahead');
  expect(() => regex('(?<=a)b')).toThrow('look-behind');
  expect(() => regex('(a)\\1')).toThrow('back-references');
  expect(() => regex('(?<n>a)\\k<n>')).toThrow('back-references');
  expect(() => regex('\\Aa\\Z')).toThrow('ECMA-262 has no escape \\A');
  expect(() => regex('a{,5}')).toThrow('write {0,n}');
  expect(() => regex('[[:alpha:]]')).toThrow('[:alpha:]');
  expect(() => regex('a{2147483648}')).toThrow('a count over 2147483647');
  expect(() => regex('('.repeat(300) + ')'.repeat(300))).toThrow('more than 250 deep');
  expect(() => regex('(')).toThrow('[grammar] pattern "(" is none');
  expect(() => regex('a**')).toThrow('is none');
});

test('patterns that are none under the flag u are read as their writers meant them', () => {
  const language = regex('^\\/[\\w-.]+\\@\\_\\-]{$');
  expect(accepts(language, '/a-.@_-]{')).toBe(true);
  expect(accepts(language, '/@_-]{')).toBe(false);
});

test('a pattern that nothing matches is the empty language', () => {
  for (const pattern of ['[]', 'a^', '$a', 'a\\bb', '\\ud800']) expect(regex(pattern)).toBe(none);
});

test('catastrophic patterns are walked like others', () => {
  const patterns = [
    ...[
      '(a+)+$',
      '^(a|aa)+$',
      '^((a*)*)*b$',
      '(a{1,1000}){1,1000}',
      '^(a{1,1000}y?){1,1000}$',
      '^(?:a?){1000}a{1000}$',
    ],
    ...['^((a{1,100}b?){1,100}c?){1,100}$', '^.*a.{12}$', '^[^]{2147483647}$'],
  ];
  const text = 'a'.repeat(2000);
  for (const pattern of patterns) expect(walk(regex(pattern), text), pattern).not.toBe(DEAD);
  // By the counts: 2,000 are two groups or more of a thousand at most.
  expect(accepts(regex('^(a{1,1000}y?){2}$'), text)).toBe(true);
  expect(accepts(regex('^(a{1,999}y?){2}$'), text)).toBe(false);
  expect(accepts(regex('^(a{3,4}){3,5}$'), 'a'.repeat(8))).toBe(false);
  expect(accepts(regex('^(a{3,4}){3,5}$'), 'a'.repeat(17))).toBe(true);
});
