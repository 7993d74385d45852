import { describe, expect, it } from 'vitest';
import { document } from '../../../../llm/grammar/json/value.ts';
import { Unsupported } from '../../../../llm/grammar/refusal.ts';
import { compile } from '../../../../llm/grammar/schema/compile.ts';
import { SchemaError } from '../../../../llm/grammar/schema/errors.ts';
import { advanceAll, complete, start } from '../../../../llm/grammar/stack.ts';

const DEPTH = 10_000;

/** Schemas within one another. */
function nested(around: (schema: unknown) => unknown): unknown {
  let schema: unknown = { type: 'null' };
  for (let depth = 0; depth < DEPTH; depth++) schema = around(schema);
  return schema;
}

/** Of a schema: whether it admits a JSON text. */
function admission(schema: unknown): (text: string) => boolean {
  const { algebra, formula } = compile(schema);
  const grammar = document(algebra, formula)!;
  return (text) => {
    const stack = advanceAll(start(grammar), new TextEncoder().encode(text));
    return stack !== null && complete(stack);
  };
}

describe('bad input', () => {
  it.each([
    ['JSON that is no schema', 5, SchemaError, 'must be a schema (an object or a boolean), not 5'],
    ['a text', '{"type":', SchemaError, 'must be a schema (an object or a boolean)'],
    ['a type that does not exist', { type: 'text' }, SchemaError, 'type must be one of null, boolean, integer'],
    ['a $ref to nowhere', { $ref: '#/$defs/a' }, SchemaError, '$ref "#/$defs/a" leads to nothing'],
    [
      'a $ref to the network',
      { $ref: 'https://example.com/a.json' },
      Unsupported,
      'https://example.com/a.json is not given',
    ],
    ['recursion without a base', { $ref: '#' }, Unsupported, 'recursion without a base: # → #'],
    ['look-ahead', { pattern: '(?=a)b' }, Unsupported, 'look-ahead, (?= and (?!, is not supported'],
    ['look-behind', { pattern: '(?<!a)b' }, Unsupported, 'look-behind, (?<= and (?<!, is not supported'],
    ['a back reference', { pattern: '(a)\\1' }, Unsupported, 'back-references'],
    ['groups 10,000 deep', { pattern: '('.repeat(DEPTH) + ')'.repeat(DEPTH) }, Unsupported, 'groups in groups'],
    [
      'an enum of 100,000 objects',
      { enum: Array.from({ length: 100_000 }, (_, a) => ({ a })) },
      Unsupported,
      'at most',
    ],
    ['allOf 10,000 deep', nested((schema) => ({ allOf: [schema] })), Unsupported, 'more than 500 schemas apply'],
    ['if 10,000 deep', nested((schema) => ({ if: true, then: schema })), Unsupported, 'more than 500 schemas apply'],
  ])('%s is refused by name', (_, schema, kind, reason) => {
    let error: unknown;
    try {
      compile(schema);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(kind);
    expect((error as Error).message).toContain('[grammar] schema #');
    expect((error as Error).message).toContain(reason);
  });

  it.each([
    ['every value of which would be infinite', { type: 'object', properties: { a: { $ref: '#' } }, required: ['a'] }],
    ['of arrays in arrays without end', { type: 'array', items: { $ref: '#' }, minItems: 1 }],
    ['that asks for two types at once', { allOf: [{ type: 'string' }, { type: 'number' }] }],
    ['that is false', false],
  ])('a schema %s has no document', (_, schema) => {
    const { algebra, formula } = compile(schema);
    expect(document(algebra, formula)).toBe(null);
  });

  it('a pattern that takes a backtracking matcher exponential time does not', () => {
    const text = JSON.stringify('a'.repeat(5000));
    for (const pattern of ['^(a+)+$', '^(a|a)*$', '^(a|aa)+$', '^(.*a){9}$']) {
      const admits = admission({ type: 'string', pattern });
      expect(admits(text), pattern).toBe(true);
      expect(admits(text.replace('a"', '!"')), pattern).toBe(false);
    }
  });

  it('more than 50,000 schemas are refused, by their number', () => {
    const schemas = (count: number): unknown => ({ prefixItems: Array.from({ length: count - 1 }, () => ({})) });
    expect(() => compile(schemas(50_001))).toThrow('[grammar] schema #: it is made of more than 50000 schemas');
    expect(() => compile(schemas(50_001))).toThrow(Unsupported);
    const admits = admission(schemas(50_000));
    expect(admits('[1, {}]')).toBe(true);
  });

  it('a pattern of millions of states is followed as far as a text goes', () => {
    // Which of the last 21 characters were an "a": 2 ** 21 states.
    for (const pattern of ['^.*a.{20}$', 'a.{20}$']) {
      const admits = admission({ type: 'string', pattern });
      expect(admits(`"banana a${'b'.repeat(20)}"`), pattern).toBe(true);
      expect(admits(`"banana ${'b'.repeat(21)}"`), pattern).toBe(false);
    }
  });

  it('an enum of 100,000 texts is followed', () => {
    const admits = admission({ enum: Array.from({ length: 100_000 }, (_, i) => `value ${7 * i}`) });
    expect(admits('"value 699993"')).toBe(true);
    expect(admits('"value 699994"')).toBe(false);
  });

  it.each([
    ['objects', '{"a":', '}', (schema: unknown) => ({ type: 'object', properties: { a: schema }, required: ['a'] })],
    ['arrays', '[', ']', (schema: unknown) => ({ type: 'array', items: schema, minItems: 1 })],
    ['arrays with contains', '[', ']', (schema: unknown) => ({ type: 'array', contains: schema })],
    ['what may be left out', '{"a":', '}', (schema: unknown) => ({ type: 'object', properties: { a: schema } })],
  ])('schemas of %s 10,000 deep are followed', (_, open, close, around) => {
    const admits = admission(nested(around));
    expect(admits(`${open.repeat(DEPTH)}null${close.repeat(DEPTH)}`)).toBe(true);
    expect(admits(`${open.repeat(DEPTH)}true${close.repeat(DEPTH)}`)).toBe(false);
  });
});
