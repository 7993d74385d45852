import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Frame, Stack } from '../../../llm/grammar/automaton.ts';
import { Closing } from '../../../llm/grammar/budget.ts';
import { contextFree, jsonSchema, Matcher, regular, triggered, Vocabulary } from '../../../llm/grammar/index.ts';
import { parse } from '../../../llm/grammar/cfg/parse.ts';
import { advance, advanceAll, complete, start } from '../../../llm/grammar/stack.ts';
import { deriver, random, type Random } from './cfg/derive.ts';
import { SMALL } from './schema/small.ts';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** All bytes, these tokens, and one that ends a text. */
function vocabularyOf(pieces: readonly Uint8Array[]): Vocabulary {
  const tokens = [...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)), ...pieces, utf8('<end>')];
  return Vocabulary.of(tokens, { end: [tokens.length - 1] });
}

function tokensOf(mask: Uint32Array): number[] {
  return Array.from({ length: mask.length * 32 }, (_, id) => id).filter((id) => (mask[id >>> 5]! >>> (id & 31)) & 1);
}

/**
 * Takes tokens of the masks, each as likely as the others, until the end of text or the budget's. One in so many masks is
 * compared with what `accept` does: what it holds has to be taken, and `exact`, nothing else.
 */
function written(
  vocabulary: Vocabulary,
  grammar: Frame,
  room: number,
  draw: Random,
  compared: number,
  exact = true,
): string {
  const tokens = new Closing().cost(start(grammar)) + room;
  const matcher = new Matcher(vocabulary, grammar, { tokens });
  for (;;) {
    const may = tokensOf(matcher.mask());
    if (draw(compared) === 0) {
      const ends = matcher.complete() ? vocabulary.end : [];
      const accepted = Array.from({ length: vocabulary.size }, (_, id) => id).filter((id) => {
        const takes = matcher.accept(id);
        if (takes) matcher.rollback(1);
        return takes;
      });
      if (exact) expect(may).toEqual([...accepted, ...ends]);
      else expect([...accepted, ...ends]).toEqual(expect.arrayContaining(may));
    }
    const token = may[draw(may.length)]!;
    if (vocabulary.end.includes(token)) break;
    expect(matcher.accept(token)).toBe(true);
    expect(matcher.tokens.length).toBeLessThanOrEqual(tokens);
  }
  expect(matcher.complete()).toBe(true);
  return new TextDecoder().decode(Uint8Array.from(matcher.tokens.flatMap((id) => [...vocabulary.bytes(id)])));
}

/** The fewest bytes that complete the document, of all with up to `most`: every byte is tried. */
function fewest(stack: Stack, most: number): number {
  let stacks = [stack];
  for (let count = 0; count <= most; count++) {
    if (stacks.some(complete)) return count;
    stacks = stacks.flatMap((each) => [...utf8('ab()')].flatMap((byte) => advance(each, byte) ?? []));
  }
  return Infinity;
}

/** Bodies of rules: texts of a, b and parentheses, calls, repeated, one after the other, alternatives. */
const { body } = fc.letrec<{ body: string }>((tie) => ({
  body: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    { weight: 3, arbitrary: fc.constantFrom('"a"', '"b"', '"(a"', '"ab)"', '[ab]', '""') },
    { weight: 3, arbitrary: fc.constantFrom('root', 'one', 'two') },
    { weight: 3, arbitrary: fc.tuple(tie('body'), tie('body')).map(([a, b]) => `${a} ${b}`) },
    { weight: 3, arbitrary: fc.tuple(tie('body'), tie('body')).map(([a, b]) => `(${a} | ${b})`) },
    {
      weight: 1,
      arbitrary: fc.tuple(tie('body'), fc.constantFrom('?', '*', '+', '{2}')).map(([a, b]) => `(${a})${b}`),
    },
    { weight: 1, arbitrary: tie('body').map((inside) => `"(" ${inside} ")"`) },
  ),
}));
const grammars = fc.tuple(body, body, body).map(([a, b, c]) => `root ::= ${a}\none ::= ${b}\ntwo ::= ${c}`);

/** As a grammar; null where some rule derives no text. */
function made(text: string, closing = ''): Frame | null {
  try {
    return contextFree(text, closing);
  } catch (error) {
    expect((error as Error).message).toContain('derive');
    return null;
  }
}

describe('within a budget', () => {
  const pieces = vocabularyOf(['aa', 'ab', '((', '()', ')(', 'a)', '((((((((', 'aaaaaaaaaa'].map(utf8));

  it('random grammars close in the fewest bytes that there are', () => {
    let compared = 0;
    fc.assert(
      fc.property(grammars, fc.array(fc.constantFrom(...utf8('ab()')), { maxLength: 8 }), (text, prefix) => {
        const grammar = made(text);
        if (grammar === null) return;
        const closing = new Closing();
        let stack = start(grammar);
        for (const byte of prefix) stack = advance(stack, byte) ?? stack;
        const cost = closing.cost(stack);
        const least = fewest(stack, 5);
        if (least === Infinity) expect(cost).toBeGreaterThan(5);
        else expect(cost).toBe(least);
        if (cost < 10_000) {
          const bytes = closing.bytes(stack);
          expect(bytes.length).toBe(cost);
          expect(complete(advanceAll(stack, bytes)!)).toBe(true);
        }
        compared += 1;
      }),
      { seed: 5, numRuns: 600 },
    );
    expect(compared).toBeGreaterThan(250);
  });

  it('texts of random grammars end, and masks say what is accepted', () => {
    fc.assert(
      fc.property(grammars, fc.nat(12), fc.integer({ min: 1 }), (text, room, seed) => {
        const grammar = made(text);
        if (grammar === null || new Closing().cost(start(grammar)) > 200) return;
        written(pieces, grammar, room, random(seed), 1);
      }),
      { seed: 6, numRuns: 300 },
    );
  });

  it.each(['json', 'arithmetic', 'sql', 'javascript'])('texts of assets/grammars/%s.gbnf end', (name) => {
    const text = readFileSync(new URL(`../../../assets/grammars/${name}.gbnf`, import.meta.url), 'utf8');
    const grammar = contextFree(text);
    const draw = random(29);
    const derive = deriver(parse(text));
    const documents = Array.from({ length: 12 }, () => utf8(derive(draw, 8).slice(0, 200)));
    const vocabulary = vocabularyOf(
      Array.from({ length: 200 }, () => {
        const document = documents[draw(documents.length)]!;
        const from = draw(document.length);
        return document.subarray(from, from + 2 + draw(6));
      }).filter(({ length }) => length > 0),
    );
    for (const room of [0, 0, 1, 2, 5, 10, 20, 40, 80, 160]) {
      for (let i = 0; i < 5; i++) {
        const document = written(vocabulary, grammar, room, draw, 30);
        expect(complete(advanceAll(start(grammar), utf8(document))!)).toBe(true);
      }
    }
  });

  it('text with triggers ends, however many calls are required', () => {
    const draw = random(31);
    const sum = 'root ::= operand ("+" operand)*\noperand ::= "a" | "(" root ")"';
    const vocabulary = vocabularyOf(['<c>', '</c>', '<j>{"', 'a<', '((((', 'é<', '<think>', '>]'].map(utf8));
    for (const least of [0, 2]) {
      const grammar = triggered({
        triggers: [
          { begin: '<c>', grammar: contextFree(sum, '</c>'), end: '' },
          { begin: '<j>', grammar: jsonSchema({ required: ['a'], type: 'object' }, { whitespace: 0 }), end: '</j>' },
          { begin: '<r>', grammar: regular('a{5,9}'), end: '>' },
          { begin: '<think>', grammar: null, end: '</think>' },
        ],
        least,
      });
      const sums = triggered({ triggers: [{ begin: '<c>', grammar: contextFree(sum, '</c>'), end: '' }], least });
      expect(new Closing().cost(start(sums))).toBe(least * '<c>a</c>'.length);
      for (const room of [0, 10]) {
        for (const each of [grammar, sums]) {
          const text = written(vocabulary, each, room, draw, 20, false);
          expect(complete(advanceAll(start(each), utf8(text))!)).toBe(true);
        }
      }
    }
  });

  it('a token is taken that opens very much where there is room for it, and is not in the mask where there is none', () => {
    const grammar = jsonSchema({ anyOf: [{ type: 'null' }, { type: 'array', minItems: 300 }] }, { whitespace: 0 });
    const opens = '['.charCodeAt(0);
    for (const [tokens, may] of [
      [601, true],
      [600, false],
      [4, false],
    ] as const) {
      const matcher = new Matcher(SMALL, grammar, { tokens });
      expect(tokensOf(matcher.mask()).includes(opens)).toBe(may);
      expect(matcher.accept(opens)).toBe(may);
    }
    const parentheses = contextFree('root ::= "(" root ")" | "x"');
    const vocabulary = vocabularyOf([utf8('('.repeat(400))]);
    for (const [tokens, may] of [
      [402, true],
      [401, false],
    ] as const) {
      const matcher = new Matcher(vocabulary, parentheses, { tokens });
      expect(tokensOf(matcher.mask()).includes(256)).toBe(may);
      expect(matcher.accept(256)).toBe(may);
    }
  });

  it.each<[string, unknown]>([
    ['any value', {}],
    [
      'names, which may come in any order',
      { properties: { na: { type: 'array', minItems: 9 }, b: {} }, required: ['b'] },
    ],
    [
      'no names but some',
      { properties: { na: {}, xyz: { minLength: 9 } }, required: ['xyz'], additionalProperties: false },
    ],
    ['names of a pattern', { patternProperties: { '^a*$': {} }, minProperties: 3, additionalProperties: false }],
    [
      'one of two',
      {
        oneOf: [
          { required: ['a'], maxProperties: 2 },
          { required: ['xyz'], minProperties: 3 },
        ],
      },
    ],
    ['elements that differ', { type: 'array', items: { enum: ['a', 'ab', 'age', 'xyz'] }, uniqueItems: true }],
    [
      'what calls itself',
      { $ref: '#/$defs/t', $defs: { t: { properties: { a: { $ref: '#/$defs/t' } }, required: ['b'] } } },
    ],
  ])('whatever is drawn of masks far from the end and near it: %s', (_, schema) => {
    const pieces = [
      '{"',
      'name',
      '{"name',
      '":',
      '"a',
      '","',
      '"},{"',
      'aaaa',
      ']}',
      ',"a":',
      '\\',
      '\\u',
      '\\ud8',
      'é',
      'xyz',
    ];
    const vocabulary = vocabularyOf([...pieces.map(utf8), utf8('€').subarray(0, 2)]);
    const object = { type: 'object', ...(schema as object) };
    const grammar = jsonSchema(schema && 'type' in (schema as object) ? schema : object, { whitespace: 1 });
    const draw = random(41);
    for (const room of [0, 3, 10, 40, 120]) {
      for (let i = 0; i < 4; i++) JSON.parse(written(vocabulary, grammar, room, draw, 12, false));
    }
  });

  it('keys that leave more to be written count', () => {
    const grammar = jsonSchema(
      { type: 'object', properties: { name: {}, age: {} }, required: ['name', 'age'] },
      { whitespace: 0 },
    );
    const vocabulary = vocabularyOf(['{"', 'name', '{"name', 's', 'am', 'age', 'xyz', '":', '"a'].map(utf8));
    const draw = random(37);
    for (let i = 0; i < 40; i++) {
      const text = written(vocabulary, grammar, i % 20, draw, 10, false);
      expect(JSON.parse(text)).toHaveProperty('age');
    }
  });

  it('a budget that cannot hold is refused with the least that does', () => {
    const sql = readFileSync(new URL('../../../assets/grammars/sql.gbnf', import.meta.url), 'utf8');
    expect(() => new Matcher(SMALL, contextFree(sql), { tokens: 7 })).toThrow(
      '[grammar] a budget of 7 tokens; the shortest document takes up to 8, one for each of its bytes',
    );
    expect(new Matcher(SMALL, contextFree(sql), { tokens: 8 }).mask().some(Boolean)).toBe(true);
  });
});
