import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Frame, Move } from '../../../../llm/grammar/automaton.ts';
import { decode, strings } from '../../../../llm/grammar/json/string.ts';
import { complement, intersect, union } from '../../../../llm/grammar/text/combine.ts';
import type { Language } from '../../../../llm/grammar/text/language.ts';
import { all, atLeast, atMost } from '../../../../llm/grammar/text/lengths.ts';
import { regex } from '../../../../llm/grammar/text/regex.ts';
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

/** All contents of up to so many pieces of JSON that stand for one character each, and what they say. */
function contents(
  characters: readonly string[],
  longest: number,
): readonly { readonly bytes: number[]; readonly text: string }[] {
  const hexadecimal = (unit: number): string => unit.toString(16).padStart(4, '0');
  const escaped = (character: string): string =>
    Array.from({ length: character.length }, (_, i) => `\\u${hexadecimal(character.charCodeAt(i))}`).join('');
  const written = characters.flatMap((character) =>
    [character, escaped(character), JSON.stringify(character).slice(1, -1)]
      .filter((piece) => parsed(utf8(piece)) === character)
      .map((piece) => ({ bytes: utf8(piece), text: character })),
  );
  let level = [{ bytes: [] as number[], text: '' }];
  const found = [...level];
  for (let length = 0; length < longest; length += 1) {
    level = level.flatMap((head) =>
      written.map((tail) => ({ bytes: [...head.bytes, ...tail.bytes], text: head.text + tail.text })),
    );
    found.push(...level);
  }
  return found;
}

test('a beginning is alive where some string that is wanted begins so', () => {
  const characters = ['a', '"', '\n', '\\', 'é', '\ud7ff', '\ue000', '\uffff', '😀', '\u{10ffff}'];
  const all = contents(characters, 2);
  const text = fc.constantFrom(...new Set(all.map(({ text }) => text)));
  const begun = new Set(all.flatMap(({ bytes }) => bytes.map((_, end) => String(bytes.slice(0, end + 1)))));
  const beginnings = Array.from(begun, (of) => of.split(',').map(Number));
  // What differs from a beginning in its last byte.
  const near = beginnings.flatMap((bytes) =>
    [0x5c, 0x22, 0x30, 0x44, 0x75, 0x80, 0xbf, 0xc3, 0xed, 0xf4].map((last) => [...bytes.slice(0, -1), last]),
  );
  const tried = [...beginnings, ...near];
  fc.assert(
    fc.property(fc.array(text, { minLength: 1, maxLength: 4 }), (texts) => {
      const { open } = strings([words(texts)], ([label]) => (label! >= 0 ? 0 : null))!;
      const completable = new Set(
        all
          .filter((content) => texts.includes(content.text))
          .flatMap(({ bytes }) => Array.from({ length: bytes.length + 1 }, (_, end) => String(bytes.slice(0, end)))),
      );
      const wrong = tried.filter((beginning) => {
        // The list has escapes in lower case alone.
        const same = beginning.map((byte) => (byte >= 0x41 && byte <= 0x46 ? byte + 0x20 : byte));
        return (walk(open, beginning)?.kind === 'frame') !== completable.has(String(same));
      });
      expect(wrong.map((beginning) => new TextDecoder().decode(Uint8Array.from(beginning)))).toEqual([]);
    }),
    { seed: SEED, numRuns: 30 },
  );
});

test('frames of one signature do the same', () => {
  const made = [
    strings([], () => 0)!,
    strings([atLeast(2)], ([label]) => (label! >= 0 ? 0 : null))!,
    strings([words(['a', 'b'])], ([label]) => (label! < 0 ? 0 : null))!,
    strings([words(['a', 'b'])], ([label]) => label! + 1)!,
    strings([atMost(3), atLeast(1)], (labels) => (labels.includes(-1) ? null : 0))!,
    strings([atMost(3)], ([label]) => label! + 1)!,
  ];
  const bySignature = new Map<string, Frame[]>();
  const seen = new Set<Frame>();
  const visit = (frame: Frame, depth: number): void => {
    if (seen.has(frame) || depth === 0) return;
    seen.add(frame);
    if (frame.signature !== null)
      bySignature.set(frame.signature, [...(bySignature.get(frame.signature) ?? []), frame]);
    for (const byte of [0x22, 0x5c, 0x61, 0x62, 0x64, 0x75, 0x30, 0x38, 0x80, 0xa0, 0xc3, 0xe0, 0xed, 0xf0]) {
      const move = frame.move(byte);
      if (move?.kind === 'frame') visit(move, depth - 1);
    }
  };
  for (const { open } of made) visit(open, 7);
  const told = (move: Move): string => JSON.stringify(move?.kind === 'frame' ? move.signature : move);
  let shared = 0;
  for (const frames of bySignature.values()) {
    for (const frame of frames.slice(1)) {
      shared += 1;
      expect([frame.plain, frame.counted]).toEqual([frames[0]!.plain, frames[0]!.counted]);
      const bytes = Array.from({ length: 256 }, (_, byte) => byte);
      expect(bytes.filter((byte) => told(frames[0]!.move(byte)) !== told(frame.move(byte)))).toEqual([]);
    }
  }
  expect(shared).toBeGreaterThan(20);
});

test('as much plain text as a frame says keeps the string open', () => {
  const patterns = ['^[^"\\u0000-\\u001f]*$', 'a', '^[^]{0,5}$', '^.*$', '^[a-z]+$', '^[^]{3}[^]*$', '^[^b]{4}'];
  const made = [
    ...CASES.map(({ language }) => strings([language], ([label]) => (label! >= 0 ? 0 : null))!),
    ...patterns.map((pattern) => strings([regex(pattern)], ([label]) => (label! >= 0 ? 0 : null))!),
    ...patterns.map((pattern) => strings([regex(pattern), atMost(40)], (labels) => (labels.includes(-1) ? null : 0))!),
  ];
  const character = fc.constantFrom('a', 'b', ' ', '\u007f', 'é', '\u2028', '😀', '\u{10ffff}');
  let rooms = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(...made),
      fc.array(character, { maxLength: 6 }),
      fc.array(character, { minLength: 50, maxLength: 50 }),
      ({ open }, before, behind) => {
        const frame = walk(open, utf8(before.join('')));
        if (frame?.kind !== 'frame') return;
        const room = Math.min(frame.plain, behind.length);
        rooms += room;
        expect(walk(frame, utf8(behind.slice(0, room).join('')))?.kind).toBe('frame');
        // Where counts alone decide, one more is refused, and the string's end is never farther than before.
        if (frame.counted && room < behind.length)
          expect(walk(frame, utf8(behind.slice(0, room + 1).join('')))).toBe(null);
        if (frame.counted && frame.move(0x22) !== null) {
          for (let end = 0; end <= room; end += 1) {
            expect(walk(frame, [...utf8(behind.slice(0, end).join('')), 0x22])?.kind).toBe('pop');
          }
        }
      },
    ),
    { seed: SEED, numRuns: 2000 },
  );
  expect(rooms).toBeGreaterThan(1000);
});

test('no string is left: null', () => {
  expect(strings([], () => null)).toBe(null);
  expect(strings([words(['\ud800'])], ([label]) => (label! >= 0 ? 0 : null))).toBe(null);
  expect(strings([atLeast(3), atMost(2)], (labels) => (labels.includes(-1) ? null : 0))).toBe(null);
});
