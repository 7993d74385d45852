/** What --explain says of documents that break off: where, and by which keywords. */
import fc from 'fast-check';
import { beforeAll, expect, it } from 'vitest';
import { clausesOf } from '../../cli/grammar/clauses.ts';
import { explainSchema, reading } from '../../cli/grammar/explain.ts';
import { mayCome } from '../../cli/grammar/next.ts';
import { notesOf } from '../../cli/grammar/notes.ts';
import { placeOf } from '../../cli/grammar/place.ts';
import { Reasons } from '../../cli/grammar/reasons.ts';
import { loadTokens, type Tokens } from '../../cli/grammar/tokens.ts';
import type { Stack } from '../../llm/grammar/automaton.ts';
import { Closing } from '../../llm/grammar/budget.ts';
import { document } from '../../llm/grammar/json/value.ts';
import { Unsupported } from '../../llm/grammar/refusal.ts';
import { compile, type SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { advance, advanceAll, complete, start } from '../../llm/grammar/stack.ts';
import { exactAjv } from '../llm/grammar/schema/exact.ts';
import { schemas, values } from '../llm/grammar/schema/random.ts';

let tokens: Tokens;
beforeAll(async () => void (tokens = await loadTokens('cl100k')));

const person = {
  type: 'object',
  properties: { name: { type: 'string', maxLength: 5 }, age: { type: 'integer', minimum: 0 } },
  required: ['name', 'age'],
  additionalProperties: false,
};
const kinds = {
  oneOf: [
    { properties: { k: { const: 'a' }, x: { type: 'integer' } }, required: ['k', 'x'], type: 'object' },
    { properties: { k: { const: 'b' }, y: { type: 'string' } }, required: ['k', 'y'], type: 'object' },
  ],
};
const list = {
  $ref: '#/$defs/node',
  $defs: {
    node: {
      type: 'object',
      properties: { v: { type: 'integer' }, next: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] } },
      required: ['v', 'next'],
      additionalProperties: false,
    },
  },
};
const conditional = {
  if: { properties: { k: { const: 1 } }, required: ['k'] },
  then: { required: ['v'] },
  else: { properties: { v: false } },
};
const ofNumber = '#/properties/age/minimum: 0';

// A schema, the beginning of a document, and lines of what is said of it.
it.each<[unknown, string, string[], SchemaOptions?]>([
  [
    person,
    '{"name": "Johan',
    ['Nothing else can come than `"`', 'characters beyond ASCII: #/properties/name/maxLength: 5.'],
  ],
  [person, '{"name": "Johann', ['`n` may not come: #/properties/name/maxLength: 5.']],
  [person, '{"nick', ['Behind `{"n`', '`i` may not come: #/additionalProperties: false.']],
  [person, '[', ['`[` may not come: #/type: "object".']],
  [person, '{}', ['Behind `{`', ' is required.']],
  [person, '{"age": 3', ['Not `}`: #/required/0: "name" is required.', 'Keys that may come: "name".']],
  [
    person,
    '{"age": 3',
    ['Not the key "age": it is there already.', 'No others, such as "x": #/additionalProperties: false.'],
  ],
  [person, '{"name":"Jo"}', ['`}` may not come: #/required/1: "age" is required.']],
  [person, '{"age":-1', ['Behind `{"age":-`', `\`1\` may not come: ${ofNumber}.`]],
  [person, '{"age":1.5,', ['Behind `{"age":1.5`', '`,` may not come: #/properties/age/type: "integer".']],
  [person, '{"age":tr', ['`t` may not come: #/properties/age/type: "integer".']],
  [person, '{"age":1,"name":null', ['`n` may not come: #/properties/name/type: "string".']],
  [person, '{"age":1,"age', ['Behind `{"age":1,"`', '`a` may not come: #/additionalProperties: false.']],
  [{ properties: { a: {} } }, '{"a":1,"a":', ['Behind `{"a":1,"a`', '`"` may not come: the key "a" is there already.']],
  [kinds, '{"k":"a","x":"', ['#/oneOf/0/properties/x/type: "integer", #/oneOf/1/properties/k/const: "b".']],
  [kinds, '{"k":"c', ['#/oneOf/0/properties/k/const: "a", #/oneOf/1/properties/k/const: "b".']],
  [
    { oneOf: [{ type: 'integer' }, { type: 'number', minimum: 2 }] },
    '3',
    ['the end: #/oneOf: exactly one of its schemas.'],
  ],
  [list, '{"v":1,"next":{"v":"x', ['#/$defs/node/properties/v/type: "integer"']],
  [list, '{"v":1,"next":1', ['anyOf/1/type: "null"']],
  [{ not: { type: 'string' } }, '"a', ['At the beginning:', '`"` may not come: #/not: {"type":"string"}.']],
  [{ type: 'integer', maximum: 20 }, '21', ['`1` may not come: #/maximum: 20.']],
  [{ exclusiveMaximum: 20, type: 'number' }, '20', ['#/exclusiveMaximum: 20.']],
  [{ type: 'integer', minimum: 10 }, '2', ['Not white space, the end: #/minimum: 10.']],
  [{ type: 'number', multipleOf: 0.01 }, '1.234', ['the end: #/multipleOf: 0.01.']],
  [{ enum: ['red', 'green'] }, '"rex', ['Behind `"re`', '`x` may not come: #/enum: ["red","green"].']],
  [{ const: { a: [1, 2] } }, '{"a":[1,3', ['`3` may not come: #/const: {"a":[1,2]}.']],
  [{ type: 'array', minItems: 2 }, '[true', ['Not `]`: #/minItems: 2.']],
  [{ type: 'array', minItems: 2 }, '[true]', ['`]` may not come: #/minItems: 2.']],
  [{ type: 'array', maxItems: 1 }, '[1,', ['`,` may not come: #/maxItems: 1.']],
  [{ prefixItems: [{ type: 'string' }], items: false }, '["a",1', ['`,` may not come: #/items: false.']],
  [{ items: { type: 'string' } }, '["a",1', ['`1` may not come: #/items/type: "string".']],
  [
    { contains: { type: 'integer' }, minContains: 2 },
    '[1]',
    ['`]` may not come: #/contains: {"type":"integer"}, #/minContains: 2.'],
  ],
  [{ items: { enum: [1, 2] }, uniqueItems: true }, '[1,1', ['#/uniqueItems: true']],
  [{ propertyNames: { pattern: '^t' } }, '{"u', ['`u` may not come: #/propertyNames: {"pattern":"^t"}.']],
  [{ patternProperties: { '^n': { type: 'number' } } }, '{"n1":"', ['#/patternProperties/^n/type: "number".']],
  [{ minProperties: 2 }, '{"a":1}', ['`}` may not come: #/minProperties: 2.']],
  [{ maxProperties: 1 }, '{"a":1,', ['`,` may not come: #/maxProperties: 1.']],
  [{ dependentRequired: { a: ['b'] } }, '{"a":1}', ['`}` may not come: #/dependentRequired: {"a":["b"]}.']],
  [{ dependentSchemas: { a: { maxProperties: 1 } } }, '{"a":1,', ['#/dependentSchemas/a/maxProperties: 1.']],
  [
    conditional,
    '{"k":1}',
    ['#/if: {"properties":{"k":{"const":1}},"required":["k"]}, #/then/required/0: "v" is required.'],
  ],
  [conditional, '{"k":2,"v":', ['#/else/properties/v: false.']],
  [
    { unevaluatedProperties: false, allOf: [{ properties: { a: true } }] },
    '{"c',
    ['`c` may not come: #/unevaluatedProperties: false.'],
  ],
  [{ unevaluatedItems: false, prefixItems: [true] }, '[1,', ['`,` may not come: #/unevaluatedItems: false.']],
  [{ type: 'string', minLength: 3 }, '"ab"', ['`"` may not come: #/minLength: 3.']],
  [{ type: 'string', pattern: '^[a-z]+$' }, '"a1', ['`1` may not come: #/pattern: "^[a-z]+$".']],
  [{ type: 'string', maxLength: 1 }, '"éé', ['`é` may not come: #/maxLength: 1.']],
  [{ type: 'string', format: 'date' }, '"2024-13', ['`3` may not come: #/format: "date".'], { formats: 'assert' }],
  [
    { allOf: [{ type: 'string' }, { type: 'number' }] },
    '',
    ['No JSON value satisfies the schema: #/allOf/0/type: "string", #/allOf/1/type: "number".'],
  ],
  [false, '1', ['No JSON value satisfies the schema: #: false.']],
  [
    { patternProperties: { '^y': { type: 'boolean' }, '^x-[a-z]+$': {} }, additionalProperties: false },
    '{"y": true',
    [
      'Keys that may come: those that match ^y, such as "ya"; those that match ^x-[a-z]+$, such as "x-a".',
      'No others, such as "x": #/additionalProperties: false.',
    ],
  ],
  [
    { properties: { a: {} }, patternProperties: { b: false, '^$': {}, '^[ac]$': {} } },
    '{',
    [
      'Keys that may come: "a"; those that match ^[ac]$, such as "c"; others, such as "x".',
      'Not those that match b, such as "b": #/patternProperties/b: false.',
    ],
  ],
  [
    { propertyNames: { pattern: '^t' }, additionalProperties: { type: 'string' } },
    '{',
    ['Keys that may come: others, such as "t', 'Not "x": #/propertyNames: {"pattern":"^t"}.'],
  ],
  [
    { propertyNames: { enum: ['one', 'two'] } },
    '{"two":2',
    [
      'Keys that may come: "one".',
      'Not the key "two": it is there already.',
      'No others, such as "x": #/propertyNames',
    ],
  ],
  [
    { patternProperties: { '^[a-f]{20}$': {} }, additionalProperties: false, maxProperties: 1 },
    '{"aaaaaaaaaaaaaaaaaaaa":1',
    ['Not `,`: #/maxProperties: 1.'],
  ],
  [true, '"\n', ['`\\n` may not come: that is no JSON.']],
  [true, '[1 2', ['`2` may not come: that is no JSON.']],
  [
    true,
    '1234567890123456789012',
    ['`2` may not come: numbers are finite, and have at most 21 digits before the point'],
  ],
  [true, String.raw`"\ud800x`, ['`x` may not come: half a surrogate is no character.']],
])('%j: %s', (schema, prefix, lines, options = {}) => {
  const text = explainSchema(schema, prefix, options, tokens).lines.join('\n');
  for (const line of lines) expect(text).toContain(line);
});

it('says whether any document begins so', () => {
  expect(explainSchema(person, '{"name": "J', {}, tokens).fits).toBe(true);
  const { lines, fits } = explainSchema(person, '{"name": "Johann"}', {}, tokens);
  expect(fits).toBe(false);
  expect(lines[0]).toBe('Behind `{"name": "Johan` (characters so far: 15):');
  expect(explainSchema(false, '', {}, tokens).fits).toBe(false);
});

it('says no more of a large enumeration than can be read', () => {
  const { lines } = explainSchema({ enum: Array.from({ length: 100_000 }, (_, i) => `v${i}`) }, '"v1x', {}, tokens);
  expect(lines[1]).toMatch(/^ {2}`x` may not come: #\/enum: \["v0","v1",.*…\.$/);
  expect(lines.join('\n').length).toBeLessThan(3000);
});

// Clauses whose places read alike once they are shortened, and more of them than can be taken out one by one.
it('names the keyword in schemas that nest deep', () => {
  let schema: unknown = { type: 'integer' };
  for (let i = 0; i < 600; i++) schema = { type: 'object', properties: { a: schema }, required: ['a'] };
  const begun = '{"a":'.repeat(500);
  expect(explainSchema(schema, `${begun}1`, {}, tokens).lines[1]).toMatch(
    /^ {2}`1` may not come: #[^,]*\/type: "object"\.$/,
  );
  expect(explainSchema(schema, `${begun}{}`, {}, tokens).lines[1]).toMatch(
    /may not come: #[^,]*\/required\/0: "a" is required\.$/,
  );
});

/** A document with this beginning, by the shortest way that is known. */
function completed(stack: Stack, begun: string): string | null {
  const bytes = [...new TextEncoder().encode(begun)];
  const closing = new Closing();
  while (!complete(stack)) {
    const cost = closing.cost(stack);
    let better: Stack | null = null;
    for (let byte = 0; byte < 256 && !better; byte++) {
      const next = advance(stack, byte);
      if (next && closing.cost(next) < cost) {
        better = next;
        bytes.push(byte);
      }
    }
    if (!better) return null;
    stack = better;
  }
  return new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(bytes));
}

it('reads as much as can be completed, and blames what ajv finds too', () => {
  const seen = { documents: 0, refused: 0, reasons: 0, clauses: 0 };
  fc.assert(
    fc.property(schemas, fc.array(values, { minLength: 5, maxLength: 5 }), (schema, list) => {
      try {
        const { algebra, formula } = compile(schema);
        const grammar = document(algebra, formula, { whitespace: Infinity });
        if (!grammar) return;
        const valid = exactAjv(schema);
        for (const value of list) {
          const text = JSON.stringify(value);
          const { read, refused, stack } = reading(grammar, text);
          seen.documents += 1;
          const end = completed(stack, read);
          if (end !== null) expect(valid(end), end).toBe(true);
          if (refused === null) {
            expect(complete(stack)).toBe(valid(text));
            continue;
          }
          seen.refused += 1;
          expect(valid(text), text).toBe(false);
          const reason = new Reasons(schema, {}, read).why((stack) => stack !== null && mayCome(stack, refused));
          expect(reason).not.toBe(null);
          seen.reasons += 1;
          // What is left of the schema with some clauses alone.
          const left = (keep: (place: string) => boolean): unknown => {
            const copy = structuredClone(schema) as Readonly<Record<string, unknown>>;
            for (const clause of clausesOf(copy, {})) if (!keep(clause.place)) clause.remove();
            return copy;
          };
          const kept = new Set(reason!.kept.map(({ place }) => place));
          const blamed = exactAjv(left((place) => kept.has(place)));
          for (const { place } of reason!.clauses) {
            const others = left((other) => kept.has(other) && other !== place);
            const admitted = compile(others);
            const goesOn = advanceAll(
              start(document(admitted.algebra, admitted.formula, { whitespace: Infinity })!),
              new TextEncoder().encode(read + refused),
            );
            // Without it the character may come; what ends then is wrong for the schema, and for what is blamed alone.
            expect(goesOn, place).not.toBe(null);
            const end = completed(goesOn!, read + refused);
            if (end === null) continue;
            seen.clauses += 1;
            expect(exactAjv(others)(end), end).toBe(true);
            expect(valid(end), end).toBe(false);
            expect(blamed(end), end).toBe(false);
          }
        }
      } catch (error) {
        if (!(error instanceof Unsupported || error instanceof RangeError)) throw error;
      }
    }),
    { seed: 5, numRuns: 100 },
  );
  expect(seen.refused).toBeGreaterThan(100);
  expect(seen.clauses).toBeGreaterThan(100);
});

it.each([
  ['', [], false, false],
  ['[', [0], false, false],
  ['[1, {"a": ', [1, 'a'], false, false],
  ['{"a": [1, 2], "b', [], true, true],
  ['{"a": {"}": "],', ['a', '}'], false, true],
  ['{"a": 1, "b": "x,[', ['b'], false, true],
  ['[[1], [2, ', [1, 1], false, false],
  ['{"a": 1, ', [], true, false],
])('the place of %j', (prefix, path, between, quoted) => {
  expect(placeOf(prefix)).toMatchObject({ path, between, quoted });
});

it.each([
  [{ require: ['a'] }, ['#: require is no keyword and asks nothing; did you mean "required"?']],
  [{ requires: ['a'] }, ['did you mean "required"?']],
  [
    { properties: { a: { maxlength: 3 } } },
    ['#/properties/a: maxlength is no keyword and asks nothing; did you mean "maxLength"?'],
  ],
  [{ additionalProperty: false }, ['did you mean "additionalProperties"?']],
  [{ propertys: {} }, ['did you mean "properties"?']],
  [{ patern: 'a' }, ['did you mean "pattern"?']],
  [{ minLen: 3 }, ['did you mean "minLength"?']],
  [{ enums: ['a'] }, ['did you mean "enum"?']],
  [{ mininum: 3 }, ['did you mean "minimum"?']],
  [{ oneof: [true] }, ['did you mean "oneOf"?']],
  [{ anyof: [true] }, ['did you mean "anyOf"?']],
  [{ type: 'string', nullable: true }, ['"null" is one of the types']],
  [
    { name: 'a', strict: true, schema: { type: 'object' } },
    ['#: schema is no keyword and asks nothing; if the schema'],
  ],
  [{ example: 3, 'x-order': 1, id: 'a', summary: 'b', discriminator: {}, xml: {}, $comment: 'c', name: 'd' }, []],
  [{ const: { require: 1 }, properties: { require: { type: 'string' } } }, []],
])('what asks nothing though it seems to: %j', (schema, notes) => {
  const found = notesOf(schema, {});
  expect(found.length).toBe(notes.length);
  notes.forEach((note, i) => expect(found[i]).toContain(note));
});
