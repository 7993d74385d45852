import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { decode, encode } from 'gpt-tokenizer/encoding/cl100k_base';
import { describe, expect, it } from 'vitest';
import type { Frame, Stack } from '../../../llm/grammar/automaton.ts';
import { jsonSchema } from '../../../llm/grammar/index.ts';
import { Matcher } from '../../../llm/grammar/matcher.ts';
import { advance, advanceAll, complete, start } from '../../../llm/grammar/stack.ts';
import { Vocabulary } from '../../../llm/grammar/vocabulary.ts';
import { literals, toyJson } from './toy.ts';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const admits = (document: string): boolean => {
  const stack = advanceAll(start(toyJson()), utf8(document));
  return stack !== null && complete(stack);
};

/** The printable bytes of ASCII but for the backslash, and some longer tokens; the last is the end of text. */
const SMALL = Vocabulary.of(
  [
    ...[...Array(95).keys()].map((i) => String.fromCharCode(32 + i)).filter((character) => character !== '\\'),
    '{"',
    '":',
    '":"',
    '","',
    '"}',
    '[[',
    ']]',
    '<end>',
  ].map(utf8),
  { end: [101] },
);
const id = (text: string): number =>
  [...Array(SMALL.size).keys()].find((i) => String.fromCharCode(...SMALL.bytes(i)) === text)!;

const tokensOf = (mask: Uint32Array): number[] =>
  [...Array(SMALL.size).keys()].filter((i) => (mask[i >>> 5]! >>> (i & 31)) & 1);

/** Of a stack: the number of bytes of the shortest way to complete it, by breadth first search. */
function shortest(stack: Stack): number {
  let level = new Map([[name(stack), stack]]);
  for (let bytes = 0; ; bytes += 1) {
    if ([...level.values()].some(complete)) return bytes;
    const next = new Map<string, Stack>();
    for (const each of level.values()) {
      for (const byte of utf8(each.written === null ? '"}]:0aelsrun' : '"ab')) {
        const after = advance(each, byte);
        if (after !== null) next.set(name(after), after);
      }
    }
    level = next;
  }
}

/** What distinguishes a stack from others. */
function name(stack: Stack): string {
  if (!NAMES.has(stack.frame)) NAMES.set(stack.frame, NAMES.size);
  const cell = [NAMES.get(stack.frame), stack.written, [...(stack.taken ?? [])]].join(' ');
  return stack.below === null ? cell : `${cell} on ${name(stack.below)}`;
}

const NAMES = new Map<Frame, number>();

describe('stacks', () => {
  it('take the JSON that the platform writes, and refuse a key twice however it is written', () => {
    const json = fc.jsonValue({ maxDepth: 4, noUnicodeString: false }).map((value) => JSON.stringify(value));
    const toy = json.filter(
      (text) => !/-|\d\.|\de|\d{8}/.test(text) && !/\p{Surrogate}/u.test(text) && !/\\ud/.test(text),
    );
    fc.assert(
      fc.property(toy, (text) => admits(text)),
      { seed: 1, numRuns: 500 },
    );
    expect(admits('{"a":1,"b":{"a":2}}')).toBe(true);
    for (const twice of [
      '{"a":1,"a":2}',
      '{"a":1,"\\u0061":2}',
      '[{"😀":1,"b":2,"\\ud83D\\uDE00":2}]',
      '{"":1,"":2}',
    ]) {
      expect(admits(twice)).toBe(false);
    }
  });

  it('are complete where the last frame may end', () => {
    const at = (document: string): boolean => complete(advanceAll(start(toyJson()), utf8(document))!);
    expect(['12', '"a"', '[1]', 'true'].map(at)).toEqual([true, true, true, true]);
    expect(['', '"a', '[1', '{"a":12', 'tru'].map(at)).toEqual([false, false, false, false, false]);
  });
});

describe('matchers', () => {
  it('take tokens, take them back and go on from copies', () => {
    const matcher = new Matcher(SMALL, toyJson());
    for (const text of ['{"', 'a', '":', '1']) expect(matcher.accept(id(text))).toBe(true);
    expect(matcher.accept(id(']'))).toBe(false);
    expect(matcher.accept(101)).toBe(false);
    const mask = matcher.mask().slice();
    const fork = matcher.fork();
    expect(fork.accept(id('}'))).toBe(true);
    expect(fork.complete()).toBe(true);
    expect(fork.tokens.length).toBe(5);
    expect(matcher.complete()).toBe(false);
    expect(matcher.mask()).toEqual(mask);
    fork.rollback(1);
    expect(fork.mask()).toEqual(mask);
    fork.rollback(4);
    expect(fork.mask()).toEqual(new Matcher(SMALL, toyJson()).mask());
    expect(() => fork.rollback(1)).toThrow('[grammar] 1 tokens taken back of 0');
    expect(() => matcher.mask(new Uint32Array(1))).toThrow("[grammar] a mask of 1 words; the vocabulary's have 4");
  });

  it('say so where the vocabulary cannot write what has to come', () => {
    const matcher = new Matcher(Vocabulary.of([utf8('x'), utf8('{"a"')]), toyJson());
    expect(matcher.accept(1)).toBe(true);
    expect(() => matcher.mask()).toThrow('lacks tokens of single bytes');
    // A complete document, and no end of text to say so.
    const done = new Matcher(Vocabulary.of([utf8('true'), utf8('x')]), toyJson());
    expect(done.accept(0)).toBe(true);
    expect([...done.mask()]).toEqual([0]);
  });

  it('close what is open within a budget of tokens', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.infiniteStream(fc.nat()), (tokens, choices) => {
        const matcher = new Matcher(SMALL, toyJson(), { tokens, closing: shortest });
        for (const choice of choices) {
          const allowed = tokensOf(matcher.mask());
          const left = tokens - matcher.tokens.length;
          const expected = [...Array(SMALL.size - 1).keys()].filter((i) => {
            const next = advanceAll(matcher.stack, SMALL.bytes(i));
            return next !== null && shortest(next) <= left - 1;
          });
          expect(allowed.filter((i) => i !== 101)).toEqual(expected);
          expect(allowed.includes(101)).toBe(matcher.complete());
          if (expected.length === 0) break;
          expect(matcher.accept(expected[choice % expected.length]!)).toBe(true);
        }
        expect(matcher.complete()).toBe(true);
      }),
      { seed: 1, numRuns: 30 },
    );
    expect(() => new Matcher(SMALL, toyJson(), { tokens: 0, closing: shortest })).toThrow(
      '[grammar] a budget of 0 tokens; the shortest document takes up to 1, one for each of its bytes',
    );
    expect(() => new Matcher(SMALL, toyJson(), { tokens: 9, closing: () => Infinity })).toThrow(
      '[grammar] a budget of 9 tokens: no short document of this grammar was found, whose end could be kept in reach',
    );
  });

  it('refuse a token that opens more than the budget closes', () => {
    const closing = (stack: Stack): number => (stack.below === null ? 1 : 500);
    const matcher = new Matcher(SMALL, toyJson(), { tokens: 400, closing });
    expect(matcher.accept(id('['))).toBe(false);
    expect(tokensOf(matcher.mask())).not.toContain(id('['));
  });

  it('say what is wrong in how they are made', () => {
    const make = (vocabulary: unknown, grammar: unknown, budget: unknown): Matcher =>
      new Matcher(vocabulary as Vocabulary, grammar as Frame, budget as null);
    const where = '[grammar] new Matcher(vocabulary, grammar, budget): ';
    for (const [vocabulary, grammar, budget, message] of [
      [SMALL, null, null, 'grammar is null; it must be what jsonSchema'],
      [SMALL, { type: 'string' }, null, 'grammar is an object { type }; it must be'],
      [null, toyJson(), null, 'vocabulary is null; it must be a Vocabulary'],
      [SMALL, toyJson(), {}, 'budget.tokens is undefined; it must be a number'],
      [SMALL, toyJson(), { tokens: NaN }, 'budget.tokens is NaN'],
      [SMALL, toyJson(), 5, 'options are 5; they must be { tokens, closing }'],
      [SMALL, toyJson(), { token: 5 }, 'option token is not known; did you mean tokens?'],
      [SMALL, toyJson(), { tokens: 5, closing: {} }, 'budget.closing is an object'],
    ] as const) {
      expect(() => make(vocabulary, grammar, budget)).toThrow(where + message);
    }
    expect(new Matcher(SMALL, toyJson(), { tokens: 5 }).accept(id('['))).toBe(true);
  });

  it('say which options of a schema there are', () => {
    const make = (options: unknown): Frame => jsonSchema({}, options as object);
    const where = '[grammar] jsonSchema(schema, options): ';
    expect(() => make({ whitespaces: 0 })).toThrow(`${where}option whitespaces is not known; did you mean whitespace?`);
    expect(() => make({ format: 'assert' })).toThrow(`${where}option format is not known; did you mean formats?`);
    expect(() => make(null)).toThrow(
      `${where}options are null; they must be { whitespace, order, formats, draft, remotes }`,
    );
  });

  it('know the bytes that have to come next', () => {
    const forced = (document: string): string => {
      const matcher = new Matcher(SMALL, toyJson());
      for (const character of document) matcher.accept(id(character));
      return String.fromCharCode(...matcher.forced());
    };
    expect(['', 't', '[fa', '{"a"', '[', '12', 'true'].map(forced)).toEqual(['', 'rue', 'lse', ':', '', '', '']);
  });
});

describe('forced tokens', () => {
  const cl100k = Vocabulary.fromRanks(
    readFileSync(new URL('../../../node_modules/gpt-tokenizer/data/cl100k_base.tiktoken', import.meta.url), 'latin1'),
  );
  const forced = (grammar: Frame, before = ''): string[] => {
    const matcher = new Matcher(cl100k, grammar);
    for (const token of encode(before)) expect(matcher.accept(token)).toBe(true);
    return matcher.forcedTokens((text) => encode(text)).map((token) => decode([token]));
  };

  it('are the canonical ones, but for those that what follows may change', () => {
    // Nothing follows.
    expect(forced(literals(['{"description":"yes"}']))).toEqual(['{"', 'description', '":"', 'yes', '"}']);
    // Behind what is forced ("}, say, or ") come a letter or a quote, so that no token of the end is sure.
    expect(forced(literals(['{"description":"a"}', '{"description":""}']))).toEqual(['{"', 'description']);
    expect(forced(literals(['inter', 'international']))).toEqual([]);
    expect(forced(literals(['{"inter', '{"international']), '{"')).toEqual([]);
  });

  it('are those of a schema’s keys and values, though escapes could say the same', () => {
    const make = (schema: object, before = ''): string[] => forced(jsonSchema(schema, { whitespace: 0 }), before);
    const properties = { description: { enum: ['né/x'] } };
    const schema = { properties, required: ['description'], additionalProperties: false, type: 'object' };
    expect(make(schema)).toEqual(['{"', 'description', '":"', 'né', '/x', '"}']);
    expect(make({ const: 'a"b' }, '"a')).toEqual([]); // \" or \u0022
    expect(make({ enum: ['yes', 'yet'] })).toEqual(['"']);
  });

  it('are none where the tokenizer would tokenise the tokens before in another way', () => {
    const matcher = new Matcher(cl100k, literals(['international']));
    for (const token of encode('in')) matcher.accept(token);
    expect(String.fromCharCode(...matcher.forced())).toBe('ternational');
    expect(matcher.forcedTokens((text) => encode(text))).toEqual([]);
  });

  it('are made again of any text', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }).filter((text) => !/\p{Surrogate}/u.test(text)),
        (text) => {
          expect(forced(literals([text])).join('')).toBe(text);
        },
      ),
      { seed: 1, numRuns: 50 },
    );
  });
});
