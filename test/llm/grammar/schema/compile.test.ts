import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { suiteGroups, suiteRemotes } from '../../../../cli/grammar/suite.ts';
import type { Json } from '../../../../llm/grammar/json/algebra.ts';
import { Unsupported } from '../../../../llm/grammar/refusal.ts';
import { compile, type SchemaOptions } from '../../../../llm/grammar/schema/compile.ts';
import { SchemaError } from '../../../../llm/grammar/schema/errors.ts';
import { holds } from './holds.ts';

const suite = fileURLToPath(new URL('../../../../../shared/data/json-schema-test-suite', import.meta.url));

/** Whether the formula of a schema holds for a value. */
function admits(schema: unknown, value: Json, options?: SchemaOptions): boolean {
  return holds(compile(schema, options).formula, value);
}

/** `count` schemas, each within the one before. */
function nested(count: number, around: (schema: unknown) => unknown, inside: unknown = true): unknown {
  let schema = inside;
  for (let i = 0; i < count; i++) schema = around(schema);
  return schema;
}

describe.skipIf(!existsSync(suite))(
  `the official suite${existsSync(suite) ? '' : ` (skipped: ${suite} is absent)`}`,
  () => {
    // Refused: `uniqueItems` over any values, as the metaschema of draft 7 has it for enums.
    const drafts = [
      { draft: '2020-12', tests: 1299, refused: 36 },
      { draft: 'draft-07', tests: 927, refused: 40 },
    ] as const;
    it.each(drafts)('$draft: every formula holds where the suite says so', ({ draft, tests, refused }) => {
      const remotes = suiteRemotes(suite);
      let seen = 0;
      const unsupported: string[] = [];
      for (const group of suiteGroups(suite, draft)) {
        seen += group.tests.length;
        let formula;
        try {
          ({ formula } = compile(group.schema, { draft, remotes }));
        } catch (error) {
          expect(error, group.description).toBeInstanceOf(Unsupported);
          unsupported.push(...group.tests.map(() => (error as Error).message));
          continue;
        }
        for (const { description, data, valid } of group.tests) {
          expect(holds(formula, data as Json), `${group.keyword}: ${group.description}: ${description}`).toBe(valid);
        }
      }
      expect(seen).toBe(tests);
      expect(unsupported.filter((message) => !message.includes('uniqueItems'))).toEqual([]);
      expect(unsupported.length).toBeLessThanOrEqual(refused);
    });
  },
);

describe('what is no schema is refused with its place and what would be right', () => {
  it.each([
    ['text', 'must be a schema (an object or a boolean), not "text"'],
    [
      { properties: { 'a/b': { minLength: -1 } } },
      '#/properties/a~1b: minLength must be an integer of 0 or more, not -1',
    ],
    [{ items: [{}, 3] }, '#: items must be a schema (an object or a boolean), not a list; 2020-12 says prefixItems'],
    [{ allOf: [] }, 'allOf must be a non-empty list of schemas'],
    [{ anyOf: [true, null] }, '#/anyOf/1: must be a schema (an object or a boolean), not null'],
    [{ type: 'int' }, 'type must be one of null, boolean, integer, number'],
    [{ required: ['a', 'a'] }, 'required must be a list of unique names'],
    [{ required: true }, 'that was draft 3'],
    [{ exclusiveMinimum: true }, 'exclusiveMinimum must be a number, not true; that was draft 4'],
    [{ multipleOf: 0 }, 'multipleOf must be a number above 0'],
    [{ maximum: 1e400 }, 'maximum must be a number, not Infinity'],
    [{ enum: [[1e400]] }, 'enum has a number beyond the range of doubles'],
    [{ $id: 'https://a/b#c' }, '$anchor names a place in a resource'],
    [{ $anchor: '#a' }, 'it has no "#"'],
    [{ $ref: '#/$defs/a' }, '$ref "#/$defs/a" leads to nothing at "$defs"'],
    [{ $ref: '#a' }, '$ref "#a" leads to no anchor of the schema'],
    [{ $ref: '#/a~2' }, 'has a "~" that is neither "~0" nor "~1"'],
    [{ $ref: '#/type', type: 'null' }, 'leads to "null", which is no schema'],
    [{ $ref: '#/x/toString', x: {} }, 'leads to nothing at "toString"'],
    [{ $ref: 'http://' }, '$ref "http://" is no URI reference'],
    [{ $ref: '#%' }, 'is no URI reference'],
    [{ allOf: [{ $anchor: 'a' }, { $anchor: 'a' }] }, 'the anchor "a" is also that of #/allOf/'],
    [{ allOf: [{ $id: 'a' }, { $id: 'a', type: 'null' }] }, 'is also that of'],
  ])('%j', (schema, message) => {
    expect(() => compile(schema)).toThrow(message);
    expect(() => compile(schema)).toThrow(/^\[grammar\] /);
  });

  it('is a SchemaError where the document is wrong', () => {
    expect(() => compile({ minLength: 'a' })).toThrow(SchemaError);
  });
});

describe('what cannot be followed is refused by name', () => {
  it.each([
    [
      { $ref: 'https://example.com/a.json#/b' },
      '$ref: the document https://example.com/a.json is not given; remotes: none',
    ],
    [{ $ref: '#' }, 'recursion without a base: # → #'],
    [{ allOf: [{ $ref: '#/$defs/a' }], $defs: { a: { not: { $ref: '#' } } } }, 'recursion without a base'],
    [
      { properties: { a: { $ref: '#/$defs/b' } }, $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } } },
      'recursion without a base',
    ],
    [{ $recursiveRef: '#' }, '$recursiveRef: 2019-09 has it; 2020-12 says $dynamicRef'],
    [
      { $schema: 'http://json-schema.org/draft-04/schema#' },
      '$schema: http://json-schema.org/draft-04/schema# is neither known',
    ],
    [{ uniqueItems: true }, 'uniqueItems: is followed where elements are texts or among few values'],
    [{ propertyNames: { $ref: '#' } }, 'propertyNames: leads back'],
    [{ pattern: '(?=a)' }, 'pattern'],
    [{ enum: ['\ud800'] }, 'has half a character in "\\ud800": a lone surrogate'],
    [{ const: nested(10_000, (value) => [value]) }, 'const: has values that nest more than 500 levels'],
    [nested(10_000, (schema) => ({ allOf: [schema] })), 'more than 500 schemas apply to one value through one another'],
    [nested(10_000, (schema) => ({ not: schema })), 'more than 500 schemas apply to one value through one another'],
    [
      { unevaluatedItems: false, ...(nested(10_000, (schema) => ({ anyOf: [schema] })) as object) },
      'more than 500 schemas apply to one value through one another',
    ],
  ])('%#', (schema, message) => {
    expect(() => compile(schema)).toThrow(message);
    expect(() => compile(schema)).toThrow(Unsupported);
    expect(() => compile(schema)).toThrow(/^\[grammar\] schema /);
  });

  it('a vocabulary that is required and unknown', () => {
    const remotes = [['https://a/meta', { $vocabulary: { 'https://a/vocabulary': true } }]] as const;
    expect(() => compile({ $schema: 'https://a/meta' }, { remotes })).toThrow(
      'requires the vocabulary https://a/vocabulary',
    );
  });
});

describe('size', () => {
  it('schemas that nest 10,000 values deep', () => {
    const value = nested(10_000, (inside) => [inside], 'x') as Json;
    const schema = nested(10_000, (items) => ({ type: 'array', items }), { type: 'string' });
    let { formula } = compile(schema);
    // The value is followed down without recursion: `holds` would need the call stack.
    let at = value;
    for (let depth = 0; depth < 10_000; depth++) {
      while (formula.kind === 'later') formula = formula.formula();
      if (formula.kind !== 'and') throw new Error(`a ${formula.kind} at depth ${depth}`);
      const items = formula.of.find((part) => part.kind === 'assertion' && part.assert.kind === 'items');
      if (items?.kind !== 'assertion' || items.assert.kind !== 'items') throw new Error(`no items at depth ${depth}`);
      formula = items.assert.rest;
      at = (at as Json[])[0]!;
    }
    expect(holds(formula, at)).toBe(true);
    expect(holds(formula, 1)).toBe(false);
  });

  it('an enum of 100,000', () => {
    const values = Array.from({ length: 100_000 }, (_, i) => (i % 10 ? `value ${i}` : i));
    const { formula } = compile({ enum: values });
    const asked = [0, 'value 1', 99_990, 1, 'value 10'];
    expect(asked.map((value) => holds(formula, value))).toEqual([true, true, true, false, false]);
    expect(() => compile({ enum: values.map((_, i) => i) })).toThrow('enum: has 100000 numbers; at most 30000');
    expect(() => compile({ enum: values.map((_, i) => [i]) })).toThrow('enum: has 100000 arrays and objects');
  });

  it('an object that is its own part is recursion', () => {
    const schema: Record<string, unknown> = { type: 'array' };
    schema.items = schema;
    expect(admits(schema, [[], [[]]])).toBe(true);
    expect(admits(schema, [[], [[1]]])).toBe(false);
  });
});

describe('options', () => {
  it('the draft of a document without $schema', () => {
    const schema = { items: [{ type: 'null' }], additionalItems: false };
    expect(admits(schema, [null], { draft: 'draft-07' })).toBe(true);
    expect(admits(schema, [null, null], { draft: 'draft-07' })).toBe(false);
    expect(admits({ $schema: 'http://json-schema.org/draft-07/schema', ...schema }, [1])).toBe(false);
  });

  it('in draft 7, keywords beside a $ref mean nothing; in 2020-12 they do', () => {
    const schema = { definitions: { a: true }, $ref: '#/definitions/a', type: 'null' };
    expect(admits(schema, 1, { draft: 'draft-07' })).toBe(true);
    expect(admits(schema, 1)).toBe(false);
  });

  it('remotes by the URI where they stand, and their own references from there', () => {
    const remotes = [
      ['https://a/b/one.json', { $ref: 'two.json#/x/0' }],
      ['https://a/b/two.json', { x: [{ type: 'string' }] }],
    ] as const;
    expect(admits({ $ref: 'https://a/b/one.json' }, 'text', { remotes })).toBe(true);
    expect(admits({ $ref: 'https://a/b/one.json' }, 1, { remotes })).toBe(false);
  });

  it('formats are annotations unless they are asserted', () => {
    expect(admits({ format: 'date' }, 'yesterday')).toBe(true);
    expect(admits({ format: 'date' }, 'yesterday', { formats: 'assert' })).toBe(false);
    expect(admits({ format: 'date' }, '2026-11-23', { formats: 'assert' })).toBe(true);
    expect(admits({ format: 'currency' }, 'any', { formats: 'assert' })).toBe(true);
    expect(() => compile({ format: 'regex' }, { formats: 'assert' })).toThrow(Unsupported);
  });
});

it('uniqueItems over few values', () => {
  const schema = {
    items: { $ref: '#/$defs/few' },
    uniqueItems: true,
    $defs: { few: { enum: [1, 'a', [1], { a: 1 }] } },
  };
  expect(admits(schema, [1, 'a', [1], { a: 1 }])).toBe(true);
  expect(admits(schema, [{ a: 1.0 }, { a: 1 }])).toBe(false);
  expect(admits({ items: { type: 'integer', minimum: 1, maximum: 3 }, uniqueItems: true }, [1, 2, 1])).toBe(false);
  expect(admits({ prefixItems: [{ type: 'boolean' }], items: { const: null }, uniqueItems: true }, [true, null])).toBe(
    true,
  );
});
