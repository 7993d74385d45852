import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { Stack } from '../../../llm/grammar/automaton.ts';
import { Closing } from '../../../llm/grammar/budget.ts';
import { missing } from '../../../llm/grammar/json/missing.ts';
import { document } from '../../../llm/grammar/json/value.ts';
import { Algebra } from '../../../llm/grammar/json/algebra.ts';
import { compile } from '../../../llm/grammar/schema/compile.ts';
import { advance, advanceAll, complete, start } from '../../../llm/grammar/stack.ts';
import { literals, toyJson } from './toy.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

function open(schema: unknown, order: 'free' | 'schema' = 'free'): Stack {
  const { algebra, formula } = compile(schema);
  return start(document(algebra, formula, { order })!);
}

/** The fewest bytes that complete the document, of all with up to `most`: every byte is tried. */
function fewest(stack: Stack, most: number): number {
  let stacks = [stack];
  for (let count = 0; count <= most; count++) {
    if (stacks.some(complete)) return count;
    stacks = stacks.flatMap((stack) => Array.from({ length: 256 }, (_, byte) => advance(stack, byte) ?? []).flat());
  }
  return Infinity;
}

describe('closing', () => {
  it('is the shortest of all ways', () => {
    const starts = [
      ...['', '[', '[1,', '[[{"a":', '{"a', '{"":1,', '{"a":1,"', '"\\u', '~"abc', '[tr'].map((prefix) =>
        advanceAll(start(toyJson()), bytes(prefix)),
      ),
      start(literals(['abcd', 'ab', 'xyz'])),
      advanceAll(start(literals(['abcd', 'ab', 'xyz'])), bytes('abc')),
      open({ enum: [[1, 2], 'x'] }),
      open({ type: 'array', minItems: 1, items: { type: 'string', minLength: 1 } }),
      advanceAll(open({ oneOf: [{ minimum: 5 }, { multipleOf: 3 }] }), bytes('1')),
    ];
    for (const stack of starts) {
      const closing = new Closing();
      const found = closing.bytes(stack!);
      expect(complete(advanceAll(stack!, found)!)).toBe(true);
      expect(closing.cost(stack!)).toBe(found.length);
      if (found.length <= 2) expect(fewest(stack!, 2)).toBe(found.length);
      else expect(fewest(stack!, 1)).toBe(Infinity);
    }
  });

  it.each([
    [{}, '', 1],
    [{ type: 'object' }, '', 2],
    [{ type: 'object', required: ['name', 'age'] }, '', '{"name":0,"age":0}'.length],
    [{ type: 'object', required: ['name', 'age'] }, '{"na', 'me":0,"age":0}'.length],
    [{ type: 'object', minProperties: 2 }, '', '{"":0,"a":0}'.length],
    [{ type: 'object', properties: { a: { minimum: 100 } }, required: ['a'] }, '{"a":1', '00}'.length],
    [{ type: 'array', items: { type: 'integer', minimum: 10 }, minItems: 3 }, '[', '10,10,10]'.length],
    [{ type: 'string', minLength: 5 }, '"é', 'abcd"'.length],
    [{ type: 'string', pattern: '^(abc|x{9})+$' }, '"ab', 'c"'.length],
    [{ const: { a: ['é', null] } }, '{', '"a":["'.length + 2 + '",null]}'.length],
    [
      {
        $ref: '#/$defs/t',
        $defs: {
          t: { type: 'array', prefixItems: [{ anyOf: [{ $ref: '#/$defs/t' }, { type: 'null' }] }], minItems: 1 },
        },
      },
      '[[[',
      'null]]]'.length,
    ],
  ])('of %j behind %j', (schema, prefix, count) => {
    for (const order of ['schema', 'free'] as const) {
      const stack = advanceAll(open(schema, order), bytes(prefix))!;
      const closing = new Closing();
      expect(text(closing.bytes(stack)).length >= 0 && closing.bytes(stack).length).toBe(count);
      expect(complete(advanceAll(stack, closing.bytes(stack))!)).toBe(true);
    }
  });

  it('costs one less behind each of its bytes', () => {
    const schema = {
      type: 'object',
      properties: {
        id: { type: 'integer', minimum: 1000 },
        tags: { type: 'array', items: { enum: ['one', 'two'] }, minItems: 2 },
      },
      required: ['id', 'tags'],
    };
    const prefixes = ['', '{', '{"tags":["t', '{"x":"', '{"id":12', '  { "y" : [[{'];
    for (const prefix of prefixes) {
      let stack = advanceAll(open(schema), bytes(prefix))!;
      const closing = new Closing();
      const found = closing.bytes(stack);
      found.forEach((byte, i) => {
        expect(closing.cost(stack)).toBe(found.length - i);
        stack = advance(stack, byte)!;
        // Another search, which knows nothing, finds no shorter way.
        expect(new Closing().cost(stack)).toBeGreaterThanOrEqual(found.length - i - 1); // guesses may be too high
      });
    }
  });

  it('falls by one a byte at most, whatever is written', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(255), { maxLength: 40 }), (choices) => {
        let stack = start(toyJson());
        const closing = new Closing();
        for (const choice of choices) {
          const next = Array.from({ length: 256 }, (_, byte) => advance(stack, (byte + choice) % 256)).find(Boolean);
          if (!next) break;
          expect(closing.cost(next)).toBeGreaterThanOrEqual(closing.cost(stack) - 1);
          expect(new Closing().cost(next)).toBe(closing.cost(next));
          stack = next;
        }
      }),
      { numRuns: 30, seed: 5 },
    );
  });

  it('of members in any order is found by a guess at what is missing', () => {
    const required = ['name', 'age', 'street', 'city', 'country', 'zip', 'email', 'phone', 'fax', 'web'];
    const properties = {
      ...Object.fromEntries(required.map((name) => [name, {}])),
      a: {},
      b: {},
      c: { type: 'string' },
    };
    const closing = new Closing();
    const shortest = JSON.stringify(Object.fromEntries(required.map((name) => [name, 0]))).length;
    const stack = open({ type: 'object', properties, required });
    expect(closing.cost(stack)).toBe(shortest);
    const behind = advanceAll(stack, bytes('{"web":{"x":[1,2'))!;
    const found = closing.bytes(behind);
    expect(found.length).toBe(']}'.length + shortest - '{"web":0'.length);
    expect(complete(advanceAll(behind, found)!)).toBe(true);
  });

  it.each([10, 500, 5000])('of objects that must lie in one another, %i deep', (depth) => {
    let schema: unknown = { type: 'object' };
    for (let i = 0; i < depth; i++) schema = { type: 'object', required: ['a'], properties: { a: schema } };
    let stack = open(schema);
    const closing = new Closing();
    const shortest = '{"a":'.length * depth + '{}'.length + depth;
    expect(closing.cost(stack)).toBe(shortest);
    const begun = advanceAll(stack, bytes('{"a":{"b":[0],"a'))!;
    expect(closing.cost(begun)).toBe(shortest - '{"a":{"a'.length);
    for (const byte of closing.bytes(stack)) {
      const cost = closing.cost(stack);
      stack = advance(stack, byte)!;
      if (depth <= 500) expect(closing.cost(stack)).toBe(cost - 1);
    }
    expect(complete(stack)).toBe(true);
  });

  it.each([
    [
      {
        type: 'object',
        required: ['a', 'é"'],
        properties: { a: { type: 'number', minimum: 100 }, 'é"': { type: 'string', minLength: 3 } },
      },
      22,
    ],
    [{ required: ['a'], type: 'object', properties: { a: { const: '\n\u0001\u20ac' } } }, 19],
    [
      { type: 'array', prefixItems: [{ type: 'boolean' }, { enum: ['ab', 'x'] }, { pattern: '^a{3}$' }], minItems: 3 },
      12,
    ],
    [{ type: 'object', anyOf: [{ required: ['abc'] }, { required: ['a', 'b'] }] }, 9],
    [{ type: 'array', minItems: 2, items: { type: 'integer', multipleOf: 7, exclusiveMinimum: 93 } }, 7],
    [
      {
        $ref: '#/$defs/t',
        $defs: {
          t: {
            type: 'object',
            required: ['l'],
            properties: { l: { anyOf: [{ $ref: '#/$defs/t' }, { type: 'null' }] } },
          },
        },
      },
      10,
    ],
  ])('of what is known from its parts: %j', (schema, count) => {
    const closing = new Closing();
    let stack = open(schema);
    const found = closing.bytes(stack);
    expect(closing.cost(stack)).toBe(count);
    expect(closing.sum(stack)).toBe(count);
    found.forEach((byte, i) => {
      expect(closing.cost(stack)).toBe(count - i);
      stack = advance(stack, byte)!;
    });
    expect(complete(stack)).toBe(true);
  });

  it('guesses by the members that an object must have', () => {
    const algebra = new Algebra();
    const [a, bc] = [algebra.required('a'), algebra.required('bc')];
    expect(missing(algebra.yes)).toBe(0);
    expect(missing(algebra.and(a, bc))).toBe(missing(a) + missing(bc));
    expect(missing(algebra.or(a, bc))).toBe(missing(a));
    expect(missing(bc)).toBe(missing(a) + 1);
    expect(missing(algebra.not(a))).toBe(0);
  });

  it('is found within escapes of keys, in few steps', () => {
    const stack = advanceAll(open({ multipleOf: 0.5 }), bytes(String.raw`[{"a":3110,"b;\u`))!;
    const closing = new Closing(2000);
    expect(text(closing.bytes(stack))).toMatch(/^[0-9a-f]{4}":.\}\]$/);
    expect(complete(advanceAll(stack, closing.bytes(stack))!)).toBe(true);
  });

  it('holds for every key, those that the shortest way would write again among them', () => {
    const objects = open({ type: 'object', minProperties: 3 });
    const closing = new Closing();
    for (const key of ['b', 'a', '', 'aa', 'ab', '!', ' ', '"', '0', 'é']) {
      for (const before of ['{', '{"":1,', '{" ":1,', '{"b":{"":2,']) {
        const stack = advanceAll(objects, bytes(before + JSON.stringify(key).slice(0, -1)))!;
        const cost = closing.cost(stack);
        let at = stack;
        // Who follows the way sees it fall by one a byte.
        for (let left = cost; left > 0; left--) {
          expect(closing.cost(at)).toBeLessThanOrEqual(left);
          at = advance(at, closing.bytes(at)[0]!)!;
        }
        expect(complete(at)).toBe(true);
      }
    }
  });

  it('is given up where that takes too long', () => {
    const closing = new Closing(3);
    const stack = start(literals(['abcdefgh']));
    expect(closing.cost(stack)).toBe(Infinity);
    expect(() => closing.bytes(stack)).toThrow('[grammar] no way to complete the document was found within 3 states');
  });
});
