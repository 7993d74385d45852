/** `uniqueItems` over texts: what is written is what ajv finds valid, and wherever it has come to it can be completed. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Stack } from '../../../../llm/grammar/automaton.ts';
import { Closing } from '../../../../llm/grammar/budget.ts';
import { document } from '../../../../llm/grammar/json/value.ts';
import { Unsupported } from '../../../../llm/grammar/refusal.ts';
import { compile } from '../../../../llm/grammar/schema/compile.ts';
import { advance, advanceAll, complete, start } from '../../../../llm/grammar/stack.ts';
import { different } from '../schema/random.ts';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

function begin(schema: unknown): Stack | null {
  const { algebra, formula } = compile(schema);
  const grammar = document(algebra, formula);
  return grammar && start(grammar);
}

function accepts(first: Stack | null, text: string): boolean {
  const end = first && advanceAll(first, utf8(text));
  return end !== null && complete(end);
}

const ajv = new Ajv2020({ strict: false, validateSchema: false });
const validator = (schema: unknown): ((value: unknown) => boolean) => ajv.compile(schema as object);

it('accepts what ajv does', () => {
  const seen = { valid: 0, invalid: 0 };
  fc.assert(
    fc.property(different, ({ schema, list }) => {
      const first = begin(schema);
      const valid = validator(schema);
      for (const value of list) {
        const wanted = valid(value);
        seen[wanted ? 'valid' : 'invalid'] += 1;
        expect(accepts(first, JSON.stringify(value)), JSON.stringify(value)).toBe(wanted);
      }
    }),
    { seed: 1, numRuns: 60 },
  );
  expect(seen.valid).toBeGreaterThan(40);
  expect(seen.invalid).toBeGreaterThan(100);
});

it('can be completed wherever it has come to', () => {
  const seen = { completed: 0, none: 0 };
  fc.assert(
    fc.property(different, fc.infiniteStream(fc.nat()), ({ schema }, choices) => {
      const first = begin(schema);
      if (first === null) {
        seen.none += 1;
        return;
      }
      const valid = validator(schema);
      const written: number[] = [];
      let stack = first;
      for (let step = 0; step < 80; step++) {
        const next = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => advance(stack, byte) !== null);
        if (next.length === 0) break;
        // A quote ends what it may, so that there are many short texts.
        const quote = choices.next().value! % 3 > 0 && next.includes(0x22);
        const byte = quote ? 0x22 : next[choices.next().value! % next.length]!;
        written.push(byte);
        stack = advance(stack, byte)!;
      }
      const closing = new Closing().bytes(stack);
      const end = advanceAll(stack, closing);
      expect(end !== null && complete(end)).toBe(true);
      const text = new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from([...written, ...closing]));
      expect(valid(JSON.parse(text)), text).toBe(true);
      seen.completed += 1;
    }),
    { seed: 2, numRuns: 60 },
  );
  expect(seen.completed).toBeGreaterThan(40);
});

const texts = Array.from({ length: 40 }, (_, i) => `v${i}`);

it.each([
  [{ type: 'array', items: { enum: texts }, uniqueItems: true, minItems: 40 }, JSON.stringify(texts), true],
  [{ type: 'array', items: { enum: texts }, uniqueItems: true, minItems: 41 }, null, false],
  [
    { type: 'array', items: { enum: [...texts, 1] }, uniqueItems: true, minItems: 41 },
    JSON.stringify([1, ...texts]),
    true,
  ],
  [{ type: 'array', items: { enum: [...texts, 1] }, uniqueItems: true, minItems: 42 }, null, false],
  [{ items: { type: 'string' }, uniqueItems: true }, '["a", "\\u0061"]', false],
  [{ items: { type: 'string' }, uniqueItems: true }, ' [ "a" , "b" ] ', true],
  [{ items: { items: { type: 'string' }, uniqueItems: true }, type: 'array' }, '[["a"],["a"],{"a":"b","b":"b"}]', true],
  [{ prefixItems: [{ type: 'string' }, { enum: ['a', 'b'] }], items: false, uniqueItems: true }, '["b","a"]', true],
  [{ prefixItems: [{ type: 'string' }, { enum: ['a', 'b'] }], items: false, uniqueItems: true }, '["b","b"]', false],
])('%j: %s', (schema, text, wanted) => {
  if (text === null) expect(begin(schema)).toBe(null);
  else expect(accepts(begin(schema), text)).toBe(wanted);
});

it('no element begins as none can that is left', () => {
  const stack = begin({ items: { type: 'string', pattern: '^[az]$' }, uniqueItems: true, type: 'array' })!;
  for (const text of ['["a","a', '["a","\\u006', '["a","z",', '["a","z" ,', '["a","z"  ,']) {
    expect(advanceAll(stack, utf8(text)), text).toBe(null);
  }
  for (const text of ['["a","z', '["a","\\u007', '["z","\\u006']) {
    expect(advanceAll(stack, utf8(text)), text).not.toBe(null);
  }
});

describe('is refused by name', () => {
  const array = { type: 'array', items: { type: 'string' }, uniqueItems: true };
  const certain = '#/anyOf/0: uniqueItems: over texts is not followed in alternatives or negated';
  it.each([
    ['in alternatives', { anyOf: [array, { type: 'array', minItems: 3 }] }, certain],
    ['negated', { not: array }, 'not followed in alternatives or negated'],
    ['of what an array contains', { contains: array }, 'not followed in alternatives or negated'],
    ['in alternatives of an object', { anyOf: [{ properties: { a: array } }, { required: ['b'] }] }, 'in alternatives'],
    [
      'where an array has several alike',
      { ...array, contains: { const: 'x' }, minContains: 2 },
      'beside items, contains',
    ],
    ['beside alternatives of elements', { ...array, not: { items: { const: 'a' } } }, 'beside items, contains'],
    [
      'where few texts hang on their places',
      {
        type: 'array',
        prefixItems: [{ type: 'string' }, { const: 'a' }],
        items: { type: 'string' },
        uniqueItems: true,
      },
      'elements hang on their places',
    ],
    ['over numbers', { ...array, items: { type: ['string', 'number'] } }, 'elements are texts or among few values'],
  ])('%s', (_, schema, message) => {
    expect(() => compile(schema)).toThrow(message);
    expect(() => compile(schema)).toThrow(Unsupported);
    expect(() => compile(schema)).toThrow(/^\[grammar\] schema #/);
  });
});
