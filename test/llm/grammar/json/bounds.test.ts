/** Masks near bounds and far from them are those of trying each token byte by byte, whichever of them is met first. */
import { expect, it } from 'vitest';
import type { Frame, Stack } from '../../../../llm/grammar/automaton.ts';
import { Closing } from '../../../../llm/grammar/budget.ts';
import { jsonSchema, Matcher, Vocabulary } from '../../../../llm/grammar/index.ts';
import { Masks } from '../../../../llm/grammar/mask.ts';
import { advanceAll, complete, start } from '../../../../llm/grammar/stack.ts';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** All bytes, and of up to LONGEST bytes what goes up to bounds, over them, and on behind the end. */
const LONGEST = 6;
const PIECES = [
  ...[
    'aa',
    'aaa',
    'aaaa',
    'aaaaa',
    'aaaaaa',
    'bb',
    'bbb',
    'abbb',
    'bbbbbb',
    'é',
    'aé',
    'aaaaé',
    '漢',
    '漢漢',
    '😀',
    'a😀',
  ],
  ...[
    '\\n',
    'a\\n',
    '\\u00',
    '\\u006',
    'aaaa\\n',
    'aaaa\\u',
    'a"',
    'aa"',
    'aaaaa"',
    'aaaa"]',
    '","',
    'a","a"',
    '"]',
    '":',
    '":1',
  ],
  ...[
    '1,',
    ',1',
    '1,1',
    ',1,',
    '1,1,1,',
    ',1,1,1',
    '1]',
    '1,1]',
    '1,1,1]',
    ',1,1]',
    '[',
    '[1,1,1',
    ',"',
    '":1,"',
    '1,"a"',
    '1}',
    ':1,',
  ],
];

/** One of its own for each test, as masks are remembered by it. */
function vocabularyOf(): Vocabulary {
  const tokens = [...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)), ...PIECES.map(utf8), null];
  return Vocabulary.of(tokens, { end: [tokens.length - 1] });
}

function tokensOf(mask: Uint32Array, { size }: Vocabulary): string[] {
  return Array.from({ length: size }, (_, id) => id)
    .filter((id) => (mask[id >>> 5]! >>> (id & 31)) & 1)
    .map(nameOf);
}

const nameOf = (id: number): string => (id < 256 ? `byte ${id}` : (PIECES[id - 256] ?? 'end'));

/** The stacks behind each byte of the text. */
function stacksOf(grammar: Frame, text: string): Stack[] {
  const stacks = [start(grammar)];
  for (const byte of utf8(text)) stacks.push(advanceAll(stacks.at(-1)!, [byte])!);
  return stacks;
}

const strings = { type: 'string' };
const a = (count: number): string => JSON.stringify('a'.repeat(count));

const ones = (count: number): string => JSON.stringify(Array.from({ length: count }, () => 1));
const keys = (count: number): string =>
  JSON.stringify(Object.fromEntries(Array.from({ length: count }, (_, i) => ['a'.repeat(i + 1), 1])));

it.each([
  { schema: { ...strings, maxLength: 20 }, text: a(20) },
  { schema: { ...strings, minLength: 20 }, text: a(22) },
  { schema: { ...strings, minLength: 20, maxLength: 40 }, text: a(40) },
  { schema: { ...strings, minLength: 20, maxLength: 21 }, text: a(21) },
  { schema: { ...strings, maxLength: 20 }, text: JSON.stringify('é😀\n'.repeat(6)) },
  { schema: { ...strings, maxLength: 30, pattern: '^[ab]*$' }, text: a(30) },
  { schema: { ...strings, maxLength: 30, pattern: '^(aaa)*$' }, text: a(30) },
  { schema: { ...strings, maxLength: 31, pattern: '^(aaa)*$' }, text: a(30) },
  { schema: { ...strings, maxLength: 32, pattern: '^(aaa)*$' }, text: a(30) },
  { schema: { ...strings, minLength: 12, maxLength: 40, pattern: '^a*(bbbb)?$' }, text: a(40) },
  {
    schema: { ...strings, minLength: 12, maxLength: 24, pattern: '^a*(bbbb)?$' },
    text: JSON.stringify(`${'a'.repeat(20)}bbbb`),
  },
  {
    schema: { ...strings, minLength: 20, maxLength: 20, pattern: '^(aa|bbb)*$' },
    text: JSON.stringify('bbb'.repeat(6) + 'aa'),
  },
  { schema: { ...strings, not: { minLength: 8, maxLength: 24 }, maxLength: 40 }, text: a(40) },
  {
    schema: {
      oneOf: [
        { ...strings, maxLength: 20 },
        { ...strings, minLength: 15, maxLength: 30 },
      ],
    },
    text: a(30),
  },
  {
    schema: { items: { ...strings, maxLength: 20 }, contains: { minLength: 12, maxLength: 18 } },
    text: `[${a(20)},${a(18)}]`,
  },
  { schema: { propertyNames: { maxLength: 20 } }, text: `{${a(20)}:1,"a":1,${a(19)}:1}` },
  { schema: { items: { ...strings, maxLength: 20 }, uniqueItems: true }, text: `[${a(20)},${a(19)},${a(18)}]` },
  { schema: { items: { type: 'integer' }, maxItems: 12 }, text: ones(12) },
  { schema: { items: { type: 'integer' }, minItems: 3, maxItems: 12 }, text: ones(12) },
  {
    schema: { prefixItems: [{ const: 1 }, true], items: { enum: [1, 'a'] }, minItems: 9, maxItems: 11 },
    text: ones(11),
  },
  { schema: { items: { type: 'integer' }, maxItems: 12, not: { contains: { const: 2 } } }, text: ones(12) },
  { schema: { contains: { const: 1 }, maxContains: 11, maxItems: 12 }, text: ones(11) },
  { schema: { oneOf: [{ maxItems: 8 }, { minItems: 7, maxItems: 12 }] }, text: ones(12) },
  {
    schema: { items: { type: 'string' }, maxItems: 11, uniqueItems: true },
    text: `["a","aa","aaa","aaaa",${a(5)},"b","bb"]`,
  },
  { schema: { maxProperties: 10 }, text: keys(10) },
  { schema: { maxProperties: 10, required: ['a', 'b'] }, text: keys(9).replace('{', '{"b":1,') },
  { schema: { minProperties: 9, maxProperties: 10, properties: { a: { const: 1 } } }, text: keys(10) },
  {
    schema: { maxProperties: 10, additionalProperties: false, patternProperties: { '^a': { type: 'integer' } } },
    text: keys(10),
  },
])('of $schema', ({ schema, text }) => {
  const grammar = jsonSchema(schema, { whitespace: 0 });
  const stacks = stacksOf(grammar, text);
  const vocabulary = vocabularyOf();
  expect(vocabulary.longest).toBe(LONGEST);
  const expected = stacks.map((stack) =>
    Array.from({ length: vocabulary.size }, (_, id) => id)
      .filter((id) =>
        vocabulary.end.includes(id) ? complete(stack) : advanceAll(stack, vocabulary.bytes(id)) !== null,
      )
      .map(nameOf),
  );
  // What is far from a bound must not say what is done near it, nor the other way round.
  const places = stacks.map((_, i) => i);
  for (const order of [places, [...places].reverse()]) {
    const masks = new Masks(vocabulary);
    const mask = new Uint32Array(vocabulary.words);
    for (const place of order) {
      masks.fill(mask, stacks[place]!);
      expect(tokensOf(mask, vocabulary), `behind ${text.slice(0, place)}`).toEqual(expected[place]);
    }
  }
});

const LEAST = LONGEST + 1;

it.each([
  {
    schema: { ...strings, minLength: 18, maxLength: 90 },
    other: { ...strings, minLength: LEAST },
    text: a(20),
  },
  { schema: { ...strings, maxLength: 18 }, other: strings, text: a(18) },
  {
    schema: { ...strings, minLength: 15, maxLength: 90, pattern: '^a*(bbbb)?$' },
    other: { ...strings, minLength: LEAST, maxLength: 90, pattern: '^a*(bbbb)?$' },
    text: a(15),
  },
  {
    schema: { items: { ...strings, minLength: 18 }, contains: { minLength: 1 } },
    other: { items: { ...strings, minLength: LEAST }, contains: { minLength: 1 } },
    text: `[${a(18)}]`,
  },
])('within a budget, of $schema', ({ schema, other, text }) => {
  const grammar = jsonSchema(schema, { whitespace: 0 });
  const stacks = stacksOf(grammar, text);
  const closing = new Closing();
  const bytes = [...utf8(text)];
  const vocabulary = vocabularyOf();
  // One that is as far from its bound as matters, and nearer to its end.
  const nearer = new Matcher(vocabulary, jsonSchema(other, { whitespace: 0 }), { tokens: 1000 });
  for (const byte of bytes.slice(0, bytes.indexOf(0x61))) expect(nearer.accept(byte)).toBe(true);
  nearer.mask();
  for (const [place, stack] of stacks.entries()) {
    for (const room of [0, 3, 60]) {
      const left = closing.cost(stack) + room;
      const matcher = new Matcher(vocabulary, grammar, { tokens: place + left });
      for (const byte of bytes.slice(0, place)) expect(matcher.accept(byte)).toBe(true);
      const expected = Array.from({ length: vocabulary.size }, (_, id) => id)
        .filter((id) => {
          if (vocabulary.end.includes(id)) return complete(stack);
          const next = advanceAll(stack, vocabulary.bytes(id));
          return next !== null && closing.cost(next) < left;
        })
        .map(nameOf);
      expect(tokensOf(matcher.mask(), vocabulary), `behind ${text.slice(0, place)}, ${room}`).toEqual(expected);
    }
  }
});
