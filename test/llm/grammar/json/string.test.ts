import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Frame, Move } from '../../../../llm/grammar/automaton.ts';
import { decode, strings } from '../../../../llm/grammar/json/string.ts';
import { complement, intersect, union } from '../../../../llm/grammar/text/combine.ts';
import type { Language } from '../../../../llm/grammar/text/language.ts';
import { all, atLeast, atMost } from '../../../../llm/grammar/text/lengths.ts';
import { words } from '../../../../llm/grammar/text/words.ts';

const SEED = 20;

/** What the frames make of bytes: how the string ends (with the quote), or the frame reached, or null. */
function walk(open: Frame, bytes: Iterable<number>): Move {
  let move: Move = open;
  for (const byte of bytes) {
    if (move === null || move.kind !== 'frame') return null;
    move = move.move(byte);
  }
  return move;
}

function utf8(text: string): number[] {
  return [...new TextEncoder().encode(text)];
}

/** A language beside what decides it without an automaton. */
interface Case {
  readonly language: Language;
  readonly holds: (text: string) => boolean;
}

const points = (text: string): number => [...text].length;
const listed = (...texts: string[]): Case => ({ language: words(texts), holds: (text) => texts.includes(text) });
const least = (count: number): Case => ({ language: atLeast(count), holds: (text) => points(text) >= count });
const most = (count: number): Case => ({ language: atMost(count), holds: (text) => points(text) <= count });
const not = (of: Case): Case => ({ language: complement(of.language), holds: (text) => !of.holds(text) });
const CASES: readonly Case[] = [
  { language: all, holds: () => true },
  listed('', 'a', '"', 'é', 'aé', '😀', '😀b', '\u{10ffff}', '\ufffd', 'ab\n', '\\/'),
  least(1),
  least(3),
  most(0),
  most(2),
  not(listed('a', 'é', '😀', '\u0000')),
  { language: intersect(atLeast(1), atMost(2)), holds: (text) => points(text) >= 1 && points(text) <= 2 },
  { language: union(words(['abc', 'é😀']), atMost(1)), holds: (text) => points(text) <= 1 || /^(abc|é😀)$/.test(text) },
];

/** Bytes that often are a JSON string's, and often nearly. */
const pieces = fc.constantFrom(
  ...['a', 'b', 'é', '😀', '\u{10ffff}', '\ufffd', '\\n', '\\"', '\\\\', '\\/', '\\u00e9', '\\u0061', '\\uD83d\\uDe00'],
  ...['\\u0000', '\n', '\\x', '\\u12', '\\ud83d', '\\udc00', '\\ud83d\\n', '\\uDBFF\\udfff'],
);
const bytes = fc
  .array(fc.oneof({ weight: 8, arbitrary: pieces.map(utf8) }, fc.array(fc.nat(255), { maxLength: 2 })), {
    maxLength: 5,
  })
  .map((parts) => parts.flat())
  .filter((all) => !all.includes(0x22) || all[all.indexOf(0x22) - 1] === 0x5c);

/** The text that JSON.parse reads, null where there is none or one with lone surrogates. */
function parsed(content: readonly number[]): string | null {
  try {
    const text = JSON.parse(
      `"${new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(content))}"`,
    ) as string;
    return /\p{Surrogate}/u.test(text) ? null : text;
  } catch {
    return null;
  }
}

test('a string is accepted where JSON.parse reads one and its text is wanted, and ends as its text should', () => {
  const cases = fc.subarray(
    CASES.map((_, i) => i),
    { maxLength: 3 },
  );
  fc.assert(
    fc.property(cases, fc.nat(255), fc.array(bytes, { minLength: 5, maxLength: 20 }), (chosen, table, contents) => {
      const of = chosen.map((i) => CASES[i]!);
      const outcome = (truths: readonly boolean[]): number | null => {
        const place = truths.reduce((sum, truth, i) => sum + (truth ? 1 << i : 0), 0);
        return (table >> place) & 1 ? place : null;
      };
      const made = strings(
        of.map(({ language }) => language),
        (labels) => outcome(labels.map((label) => label >= 0)),
      );
      for (const content of contents) {
        const text = parsed(content);
        const expected = text === null ? null : outcome(of.map(({ holds }) => holds(text)));
        const move = made && walk(made.open, [...content, 0x22]);
        expect(move?.kind === 'pop' ? move : null).toEqual(
          expected === null ? null : { kind: 'pop', outcome: expected, consumed: true },
        );
        if (text !== null) expect(decode(content)).toBe(text);
      }
    }),
    { seed: SEED, numRuns: 300 },
  );
});
