import fc from 'fast-check';
import type { Json } from '../../../../llm/grammar/json/algebra.ts';

/** Schemas of few names, letters and numbers, so that random values meet them now and then. */
const name = fc.constantFrom('a', 'b', 'ab', 'c');
const names = fc.uniqueArray(name, { maxLength: 2 });
const count = fc.integer({ min: 0, max: 3 });
const number = fc.constantFrom(-2, -1, 0, 0.5, 1, 1.5, 2, 3, 10);
const text = fc.constantFrom('', 'a', 'b', 'ab', 'aab', 'ba', 'é', '"', '\n', '😀');
const pattern = fc.constantFrom('a', '^a', 'b$', '^c$', '^[ab]*$', '^a?b+$', '^(ab|ba)+$', '^.{2}$', '\\W');

/** Values, of which many are small. */
export const values: fc.Arbitrary<Json> = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.constantFrom<Json>(null, true, false),
    fc.oneof(number, fc.integer({ min: -5, max: 12 })),
    text,
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(fc.oneof(name, text), tie('value'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).value;

type Schema = boolean | { readonly [keyword: string]: unknown };

/** Every keyword of draft 2020-12 with its values, of which `schema` are the schemas inside. */
function keywordsOf(schema: fc.Arbitrary<Schema>) {
  const list = fc.array(schema, { minLength: 1, maxLength: 3 });
  const map = <T>(keys: fc.Arbitrary<string>, entries: fc.Arbitrary<T>): fc.Arbitrary<Record<string, T>> =>
    fc.dictionary(keys, entries, { maxKeys: 3, noNullPrototype: true });
  const type = fc.constantFrom('null', 'boolean', 'integer', 'number', 'string', 'array', 'object');
  return {
    type: fc.oneof(type, fc.uniqueArray(type, { minLength: 1, maxLength: 3 })),
    enum: fc.uniqueArray(values, { minLength: 1, maxLength: 4, selector: (value) => JSON.stringify(value) }),
    const: values,
    minimum: number,
    exclusiveMaximum: number,
    maximum: number,
    exclusiveMinimum: number,
    multipleOf: fc.constantFrom(0.5, 1, 2, 3, 4),
    minLength: count,
    maxLength: count,
    pattern,
    prefixItems: list,
    items: schema,
    minItems: count,
    maxItems: count,
    contains: schema,
    minContains: count,
    maxContains: count,
    uniqueItems: fc.constant(true),
    properties: map(name, schema),
    patternProperties: map(pattern, schema),
    additionalProperties: schema,
    propertyNames: fc.oneof(
      fc.record({ pattern }),
      fc.record({ maxLength: count }),
      fc.constantFrom<Schema>({ enum: ['a', 'b'] }, { not: { const: 'b' } }, true, false),
    ),
    required: names,
    minProperties: count,
    maxProperties: count,
    dependentRequired: map(name, names),
    dependentSchemas: map(name, schema),
    unevaluatedProperties: schema,
    unevaluatedItems: schema,
    allOf: list,
    anyOf: list,
    oneOf: list,
    not: schema,
    if: schema,
    then: schema,
    else: schema,
    $ref: fc.constantFrom('#/$defs/first', '#/$defs/second'),
  };
}

type Keyword = keyof ReturnType<typeof keywordsOf>;

/** Schemas made of keywords that `pick` chooses. */
function schemasOf(
  pick: (make: Make, schema: fc.Arbitrary<Schema>) => readonly fc.Arbitrary<Schema>[],
): fc.Arbitrary<Schema> {
  return fc.letrec<{ schema: Schema }>((tie) => {
    const keywords = keywordsOf(tie('schema'));
    const make: Make = (all, some) =>
      fc.record(Object.fromEntries([...all, ...some].map((keyword) => [keyword, keywords[keyword]])), {
        requiredKeys: [...all],
      });
    return {
      schema: fc.oneof({ maxDepth: 3, withCrossShrink: true }, fc.boolean(), ...pick(make, tie('schema'))),
    };
  }).schema;
}

/** Schemas that have all keywords of the first list, and some of the second. */
type Make = (all: readonly Keyword[], some: readonly Keyword[]) => fc.Arbitrary<Schema>;

/** Keywords that stand together as they do in schemas of use, and as ajv 8.20 follows them. */
const usual = schemasOf((make) => {
  const types = make([], ['type']);
  const constants = fc.oneof(make(['const'], []), make(['enum'], []));
  const numbers = make([], ['minimum', 'exclusiveMaximum', 'maximum', 'exclusiveMinimum', 'multipleOf']);
  const strings = make([], ['minLength', 'maxLength', 'pattern']);
  const arrays = make([], ['prefixItems', 'items', 'minItems', 'maxItems']);
  // Apart from others: beside `prefixItems`, ajv lets an empty array pass, and it takes all elements for evaluated.
  const contained = make(['contains'], ['minContains', 'maxContains']);
  const unique = constants.map((items): Schema => ({ items, uniqueItems: true }));
  const objects = make(
    [],
    [
      ...(['properties', 'patternProperties', 'additionalProperties', 'required', 'minProperties'] as const),
      ...(['maxProperties', 'dependentRequired', 'dependentSchemas', 'propertyNames'] as const),
    ],
  );
  const applied = fc.oneof(
    ...(['allOf', 'anyOf', 'oneOf', 'not'] as const).map((keyword) => make([keyword], [])),
    make([], ['if', 'then', 'else']),
  );
  const unevaluated = fc.oneof(make(['unevaluatedProperties'], []), make(['unevaluatedItems'], []));
  const both = fc
    .tuple(fc.oneof(types, numbers, strings, arrays, objects), fc.oneof(applied, objects, unevaluated))
    .map(([a, b]): Schema => ({ ...(a as object), ...(b as object) }));
  const references = make(['$ref'], []);
  return [...[types, constants, numbers, strings, references, arrays, contained, unique, objects, applied, both]];
});

/** Such schemas with `$defs`, to which `$ref` leads, also in circles through members. */
export const schemas: fc.Arbitrary<Schema> = fc
  .tuple(usual, fc.array(usual, { minLength: 2, maxLength: 2 }))
  .map(([schema, [first, second]]) => (typeof schema === 'boolean' ? schema : { ...schema, $defs: { first, second } }));

/** Any keywords beside one another, but `uniqueItems`, which is refused beside most, and `$ref`. */
export const mixed: fc.Arbitrary<Schema> = schemasOf((make, schema) => {
  const left: readonly Keyword[] = ['uniqueItems', '$ref'];
  const keywords = (Object.keys(keywordsOf(schema)) as Keyword[]).filter((keyword) => !left.includes(keyword));
  const some = fc
    .uniqueArray(fc.constantFrom(...keywords), { minLength: 1, maxLength: 4 })
    .chain((chosen) => make(chosen, []));
  return [some, some, some];
});

const listed = Array.from({ length: 34 }, (_, i) => `v${i}`);
/** What elements of arrays may be whose texts have to differ, and some values. */
const differing: readonly { readonly items: Schema; readonly values: readonly Json[] }[] = [
  { items: { type: 'string' }, values: ['', 'a', 'b', 'é', '"'] },
  { items: { type: ['string', 'null', 'boolean'] }, values: ['', 'a', null, true, false] },
  { items: { type: 'string', minLength: 1, maxLength: 2 }, values: ['a', 'b', 'ab', '😀', 'é', ''] },
  { items: { type: 'string', pattern: '^[ab]?$' }, values: ['', 'a', 'b'] },
  { items: { type: 'string', pattern: '^[ab]{0,2}$' }, values: ['', 'a', 'b', 'ab', 'bb'] },
  { items: { type: 'string', pattern: '^[azéè]$' }, values: ['a', 'z', 'é', 'è', 'ê'] },
  { items: { type: 'string', pattern: '^(a|😀|😁)$' }, values: ['a', '😀', '😁'] },
  {
    items: { anyOf: [{ type: 'string', pattern: '^[ab]$' }, { type: 'null' }, { const: 1 }] },
    values: ['a', 'b', null, 1],
  },
  { items: { enum: listed }, values: ['v1', 'v11', 'v3', 'v33'] },
  { items: { enum: [...listed, 1, null] }, values: ['v1', 'v11', 'v3', 'v33', 1, null] },
];

/** Arrays with `uniqueItems` over texts, some of which are few, in other values; and values for them. */
export const different: fc.Arbitrary<{ schema: Schema; list: readonly Json[] }> = fc
  .constantFrom(...differing)
  .chain(({ items, values }) =>
    fc.record({
      keywords: fc.record(
        {
          items: fc.constant(items),
          uniqueItems: fc.constant(true),
          type: fc.constant('array'),
          minItems: fc.integer({ min: 0, max: 4 }),
          maxItems: fc.integer({ min: 2, max: 6 }),
          contains: fc.constantFrom<Schema>({ const: 'a' }, { const: 'b' }, { pattern: '^v3' }),
        },
        { requiredKeys: ['items', 'uniqueItems', 'type'] },
      ),
      arrays: fc.array(
        fc.oneof(
          fc.array(fc.constantFrom(...values), { maxLength: 5 }),
          fc.uniqueArray(fc.constantFrom(...values), { maxLength: 5 }),
        ),
        { minLength: 8, maxLength: 8 },
      ),
    }),
  )
  .chain(({ keywords, arrays }) =>
    fc.constantFrom<{ schema: Schema; list: readonly Json[] }>(
      { schema: keywords, list: arrays },
      { schema: { allOf: [keywords, { items: { pattern: '^(|.|..|v.*)$' } }] }, list: arrays },
      {
        schema: { type: 'object', properties: { a: keywords }, required: ['a'] },
        list: arrays.map((a) => ({ a, b: a })),
      },
      { schema: { type: 'array', items: keywords }, list: arrays.map((array) => [array, array]) },
      { schema: { oneOf: [{ const: null }, keywords] }, list: arrays },
    ),
  );
