import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Stack } from '../../../llm/grammar/automaton.ts';
import { Masks } from '../../../llm/grammar/mask.ts';
import { advanceAll, complete, start } from '../../../llm/grammar/stack.ts';
import { Vocabulary } from '../../../llm/grammar/vocabulary.ts';
import { toyJson } from './toy.ts';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** The tokens of a mask. */
function bits(mask: Uint32Array): number[] {
  return [...mask].flatMap((word, i) =>
    [...Array(32).keys()].filter((bit) => (word >>> bit) & 1).map((bit) => 32 * i + bit),
  );
}

/** The reference: each token's bytes are stepped, one after the other. */
function bruteForce(vocabulary: Vocabulary, stack: Stack): number[] {
  return [...Array(vocabulary.size).keys()].filter((id) => {
    if (vocabulary.end.includes(id)) return complete(stack);
    const bytes = vocabulary.bytes(id);
    return bytes.length > 0 && !vocabulary.isSpecial(id) && advanceAll(stack, bytes) !== null;
  });
}

function masked(masks: Masks, vocabulary: Vocabulary, stack: Stack): number[] {
  const mask = new Uint32Array(vocabulary.words).fill(0xdeadbeef);
  masks.fill(mask, stack);
  return bits(mask);
}

/** Pieces that JSON is made of, and such as cut through it. */
const PIECES = [
  ...[
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"',
    '\\',
    '0',
    '1',
    '7',
    'a',
    'b',
    'u',
    'n',
    'é',
    '漢',
    '😀',
    'true',
    'null',
    '~"',
    '\n',
  ],
  ...[
    '\\u00',
    '\\u0061',
    'D83D',
    '\\uDE00',
    '\\ud83d\\ude00',
    '\\n',
    '\\"',
    '\\\\',
    '"a"',
    '"b"',
    '""',
    '":',
    '","',
    '},{',
    '"],["',
  ],
].map(utf8);
const piece = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...PIECES) },
  { weight: 1, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 2 }) },
);
const token = fc.array(piece, { minLength: 1, maxLength: 4 }).chain((pieces) => {
  const bytes = pieces.flatMap((part) => [...part]);
  // Cut anywhere, so that tokens begin and end within characters and escapes.
  return fc.tuple(fc.nat(bytes.length - 1), fc.nat(bytes.length)).map(([from, length]) => {
    const cut = bytes.slice(from, from + Math.max(1, length));
    return Uint8Array.from(cut);
  });
});

describe('masks', () => {
  it('equal those of trying each token byte by byte, on random vocabularies and walks', () => {
    fc.assert(
      fc.property(
        fc.array(token, { minLength: 20, maxLength: 120 }),
        fc.array(fc.nat(), { minLength: 1, maxLength: 40 }),
        (tokens, choices) => {
          const end = tokens.length;
          // Bytes that any walk may go on with; an end, a token without bytes, and one twice.
          const single = PIECES.filter(({ length }) => length === 1);
          const all = [...tokens, utf8('<end>'), new Uint8Array(0), tokens[0]!, ...single];
          const vocabulary = Vocabulary.of(all, { end: [end] });
          const masks = new Masks(vocabulary);
          let stack = start(toyJson());
          for (const choice of choices) {
            const allowed = masked(masks, vocabulary, stack);
            expect(allowed).toEqual(bruteForce(vocabulary, stack));
            const open = allowed.filter((id) => id !== end);
            if (open.length === 0) break;
            stack = advanceAll(stack, vocabulary.bytes(open[choice % open.length]!))!;
          }
        },
      ),
      { seed: 1, numRuns: 400 },
    );
  });
});

export const CL100K = readFileSync(
  new URL('../../../node_modules/gpt-tokenizer/data/cl100k_base.tiktoken', import.meta.url),
  'latin1',
);
