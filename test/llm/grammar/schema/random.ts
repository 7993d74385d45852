import fc from 'fast-check';
import type { Json } from '../../../../llm/grammar/json/algebra.ts';

/** Schemas of few names, letters and numbers, so that random values meet them now and then. */
const NAMES = ['a', 'b', 'ab', 'c'];
const name = fc.constantFrom(...NAMES);
const small = fc.integer({ min: 0, max: 3 });
const number = fc.constantFrom(-2, -1, 0, 0.5, 1, 1.5, 2, 3, 10);
const text = fc.constantFrom('', 'a', 'b', 'ab', 'aab', 'é', '"', '\n', '😀');
const pattern = fc.constantFrom('a', '^a', 'b$', '^[ab]*$', '^a?b+$', '^.{2}$', '\\W');

/** Values, of which many are small. */
export const values: fc.Arbitrary<Json> = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.constantFrom<Json>(null, true, false),
    number,
    text,
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(fc.oneof(name, text), tie('value'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).value;

type Schema = boolean | { readonly [keyword: string]: unknown };

/** Schemas of draft 2020-12 with every keyword; `$ref` leads to the root's `$defs`, also in circles through members. */
export const schemas: fc.Arbitrary<Schema> = fc
  .tuple(schemaOf(), fc.array(schemaOf(), { minLength: 2, maxLength: 2 }))
  .map(([schema, [first, second]]) => (typeof schema === 'boolean' ? schema : { ...schema, $defs: { first, second } }));

function schemaOf(): fc.Arbitrary<Schema> {
  return fc.letrec<{ schema: Schema }>((tie) => {
    const schema = tie('schema');
    const list = fc.array(schema, { minLength: 1, maxLength: 3 });
    const reference = fc.record({ $ref: fc.constantFrom('#/$defs/first', '#/$defs/second') });
    const some = <T extends object>(keywords: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<Schema> =>
      fc.record(keywords, { requiredKeys: [] }) as unknown as fc.Arbitrary<Schema>;
    const map = (keys: fc.Arbitrary<string>, entries: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
      fc.dictionary(keys, entries, { maxKeys: 3, noNullPrototype: true });
    const type = fc.constantFrom('null', 'boolean', 'integer', 'number', 'string', 'array', 'object');
    const types = some({ type: fc.oneof(type, fc.uniqueArray(type, { minLength: 1, maxLength: 3 })) });
    const constants = fc.oneof(
      fc.record({ const: values }),
      fc.record({
        enum: fc.uniqueArray(values, { minLength: 1, maxLength: 4, selector: (value) => JSON.stringify(value) }),
      }),
    );
    const numbers = some({
      minimum: number,
      exclusiveMaximum: number,
      maximum: number,
      exclusiveMinimum: number,
      multipleOf: fc.constantFrom(0.5, 1, 2, 3),
    });
    const strings = some({ minLength: small, maxLength: small, pattern });
    const arrays = some({ prefixItems: list, items: schema, minItems: small, maxItems: small });
    // Apart from others: beside `prefixItems`, ajv 8.20 lets an empty array pass, and it takes all elements for evaluated.
    const contained = fc
      .tuple(schema, some({ minContains: small, maxContains: small }))
      .map(([contains, counts]) => ({ contains, ...(counts as object) }));
    const unique = fc.record({ items: constants, uniqueItems: fc.constant(true) });
    const objects = some({
      properties: map(name, schema),
      patternProperties: map(pattern, schema),
      additionalProperties: schema,
      required: fc.uniqueArray(name, { maxLength: 2 }),
      minProperties: small,
      maxProperties: small,
      dependentRequired: map(name, fc.uniqueArray(name, { maxLength: 2 })),
      dependentSchemas: map(name, schema),
      propertyNames: strings,
    });
    const applied = fc.oneof(
      fc.record({ allOf: list }),
      fc.record({ anyOf: list }),
      fc.record({ oneOf: list }),
      fc.record({ not: schema }),
      some({ if: schema, then: schema, else: schema }),
    );
    const unevaluated = fc.oneof(fc.record({ unevaluatedProperties: schema }), fc.record({ unevaluatedItems: schema }));
    const both = fc
      .tuple(fc.oneof(types, numbers, strings, arrays, objects), fc.oneof(applied, objects, unevaluated))
      .map(([a, b]) => ({ ...(a as object), ...(b as object) }));
    return {
      schema: fc.oneof(
        { maxDepth: 3, withCrossShrink: true },
        fc.boolean(),
        types,
        constants,
        numbers,
        strings,
        reference,
        arrays,
        contained,
        unique,
        objects,
        applied,
        both,
      ),
    };
  }).schema;
}
