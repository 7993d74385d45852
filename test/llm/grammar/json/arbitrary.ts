/** Random values of JSON, and random schemas: any keywords beside one another, over few names and small numbers. */
import fc from 'fast-check';

const name = fc.constantFrom('a', 'b', 'c', 'ab');
const scalar = fc.oneof(
  fc.constantFrom(null, true, false, 0, 1, 2, 3, 1.5, -1, '', 'a', 'b', 'ab', 'ba', 'é'),
  fc.integer({ min: -5, max: 12 }),
);
export const value = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 2, withCrossShrink: true },
    scalar,
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(name, tie('value'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).value;

/** Any keywords, of any types, beside one another. */
export const schema = fc.letrec<{ schema: unknown }>((tie) => {
  const sub = tie('schema');
  const some = fc.array(sub, { minLength: 1, maxLength: 3 });
  const names = fc.uniqueArray(name, { maxLength: 2 });
  const count = fc.nat(3);
  const keywords = {
    type: fc.oneof(
      fc.constantFrom('null', 'boolean', 'number', 'integer', 'string', 'array', 'object'),
      fc.uniqueArray(fc.constantFrom('null', 'boolean', 'integer', 'string', 'array', 'object'), {
        minLength: 1,
        maxLength: 3,
      }),
    ),
    enum: fc.uniqueArray(value, { minLength: 1, maxLength: 4, selector: (one) => JSON.stringify(one) }),
    const: value,
    minimum: fc.integer({ min: -3, max: 5 }),
    exclusiveMaximum: fc.integer({ min: -3, max: 9 }),
    multipleOf: fc.constantFrom(1, 2, 4, 0.5), // of these, what is read from more digits than a double has still is a multiple
    minLength: count,
    maxLength: count,
    pattern: fc.constantFrom('^a', 'b$', '^[ab]*$', 'é', '^(ab|ba)+$'),
    prefixItems: some,
    items: sub,
    minItems: count,
    maxItems: count,
    contains: sub,
    minContains: count,
    maxContains: count,
    properties: fc.dictionary(name, sub, { maxKeys: 3, noNullPrototype: true }),
    patternProperties: fc.dictionary(fc.constantFrom('^a', 'b', '^c$'), sub, { maxKeys: 2, noNullPrototype: true }),
    additionalProperties: sub,
    propertyNames: fc.oneof(
      fc.constantFrom({ pattern: '^a' }, { maxLength: 1 }, { enum: ['a', 'b'] }, { not: { const: 'b' } }),
      fc.boolean(),
    ),
    required: names,
    minProperties: count,
    maxProperties: count,
    dependentRequired: fc.dictionary(name, names, { maxKeys: 2, noNullPrototype: true }),
    dependentSchemas: fc.dictionary(name, sub, { maxKeys: 2, noNullPrototype: true }),
    unevaluatedProperties: sub,
    unevaluatedItems: sub,
    allOf: some,
    anyOf: some,
    oneOf: some,
    not: sub,
    if: sub,
    then: sub,
    else: sub,
  };
  const keys = Object.keys(keywords) as (keyof typeof keywords)[];
  const record = fc
    .uniqueArray(fc.constantFrom(...keys), { minLength: 1, maxLength: 4 })
    .chain((chosen) => fc.record(Object.fromEntries(chosen.map((key) => [key, keywords[key]]))));
  return { schema: fc.oneof({ maxDepth: 3 }, fc.boolean(), record, record, record) };
}).schema;
