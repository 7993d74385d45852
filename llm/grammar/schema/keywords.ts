/** What a keyword's value has to be, and with it where schemas stand in schemas. */
export type Shape =
  | 'schema'
  | 'list of schemas'
  | 'map of schemas'
  /** Draft 7's `items`. */
  | 'schema or list of schemas'
  /** `dependencies`. */
  | 'map of schemas or names'
  | 'map of names'
  | 'names'
  | 'number'
  | 'positive number'
  | 'count'
  | 'boolean'
  | 'string'
  | 'URI reference'
  | 'anchor'
  | 'type'
  | 'list'
  | 'map of booleans'
  | 'anything';

export type Draft = '2020-12' | 'draft-07';

/** The drafts that are followed, by the URI of their metaschema without its fragment. */
export const METASCHEMAS: ReadonlyMap<string, Draft> = new Map([
  ['https://json-schema.org/draft/2020-12/schema', '2020-12'],
  ['http://json-schema.org/draft-07/schema', 'draft-07'],
]);

const VOCABULARY = 'https://json-schema.org/draft/2020-12/vocab/';

type Shapes = Readonly<Record<string, Shape>>;

const BOTH = {
  core: { $id: 'URI reference', $schema: 'URI reference', $ref: 'URI reference', $comment: 'string' },
  applicator: {
    allOf: 'list of schemas',
    anyOf: 'list of schemas',
    oneOf: 'list of schemas',
    not: 'schema',
    if: 'schema',
    then: 'schema',
    else: 'schema',
    contains: 'schema',
    properties: 'map of schemas',
    patternProperties: 'map of schemas',
    additionalProperties: 'schema',
    propertyNames: 'schema',
    dependencies: 'map of schemas or names',
  },
  validation: {
    type: 'type',
    enum: 'list',
    const: 'anything',
    multipleOf: 'positive number',
    maximum: 'number',
    exclusiveMaximum: 'number',
    minimum: 'number',
    exclusiveMinimum: 'number',
    maxLength: 'count',
    minLength: 'count',
    pattern: 'string',
    maxItems: 'count',
    minItems: 'count',
    uniqueItems: 'boolean',
    maxProperties: 'count',
    minProperties: 'count',
    required: 'names',
  },
  'meta-data': {
    title: 'string',
    description: 'string',
    default: 'anything',
    readOnly: 'boolean',
    writeOnly: 'boolean',
    examples: 'list',
  },
  content: { contentEncoding: 'string', contentMediaType: 'string' },
  format: { format: 'string' },
} satisfies Record<string, Shapes>;

const DRAFT_07: Shapes = {
  ...Object.assign({}, ...Object.values(BOTH)),
  definitions: 'map of schemas',
  items: 'schema or list of schemas',
  additionalItems: 'schema',
};

/** By vocabulary; `definitions` and `dependencies` are draft 7's, deprecated and still given their meaning. */
const DRAFT_2020_12: Readonly<Record<string, Shapes>> = {
  core: {
    ...BOTH.core,
    $anchor: 'anchor',
    $dynamicAnchor: 'anchor',
    $dynamicRef: 'URI reference',
    $vocabulary: 'map of booleans',
    $defs: 'map of schemas',
    definitions: 'map of schemas',
  },
  applicator: {
    ...BOTH.applicator,
    prefixItems: 'list of schemas',
    items: 'schema',
    dependentSchemas: 'map of schemas',
  },
  unevaluated: { unevaluatedItems: 'schema', unevaluatedProperties: 'schema' },
  validation: { ...BOTH.validation, minContains: 'count', maxContains: 'count', dependentRequired: 'map of names' },
  'meta-data': { ...BOTH['meta-data'], deprecated: 'boolean' },
  'format-annotation': BOTH.format,
  'format-assertion': BOTH.format,
  content: { ...BOTH.content, contentSchema: 'schema' },
};

/** Keywords of drafts between the two whose meaning would be lost if they were taken for annotations. */
export const FOREIGN: ReadonlyMap<string, string> = new Map([
  ['$recursiveRef', '2019-09 has it; 2020-12 says $dynamicRef'],
  ['$recursiveAnchor', '2019-09 has it; 2020-12 says $dynamicAnchor'],
]);

/** The keywords that a schema may use, and how. */
export interface Dialect {
  readonly draft: Draft;
  /** Whatever is not among them is an annotation. */
  readonly keywords: ReadonlyMap<string, Shape>;
  /** The metaschema declares the vocabulary that has formats asserted. */
  readonly assertsFormats: boolean;
}

export const DIALECTS: Readonly<Record<Draft, Dialect>> = {
  'draft-07': { draft: 'draft-07', keywords: new Map(Object.entries(DRAFT_07)), assertsFormats: false },
  '2020-12': dialectOf(Object.keys(DRAFT_2020_12).filter((name) => name !== 'format-assertion')),
};

function dialectOf(vocabularies: readonly string[]): Dialect {
  return {
    draft: '2020-12',
    keywords: new Map(vocabularies.flatMap((name) => Object.entries(DRAFT_2020_12[name]!))),
    assertsFormats: vocabularies.includes('format-assertion'),
  };
}

/** The dialect of a `$vocabulary`, or the URI of one that it requires and that is unknown. */
export function vocabularyDialect(vocabulary: Readonly<Record<string, boolean>>): Dialect | string {
  const names = ['core'];
  for (const [uri, required] of Object.entries(vocabulary)) {
    const name = uri.startsWith(VOCABULARY) ? uri.slice(VOCABULARY.length) : '';
    if (Object.hasOwn(DRAFT_2020_12, name)) names.push(name);
    else if (required) return uri;
  }
  return dialectOf(names);
}

const TYPES = ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object'];

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isNames = (value: unknown): boolean =>
  Array.isArray(value) && value.every((name) => typeof name === 'string') && new Set(value).size === value.length;

/** What is right for a shape, in words, and whether a value is; schemas inside are looked at in their own turn. */
const SHAPES: Readonly<Record<Shape, readonly [string, (value: unknown) => boolean]>> = {
  schema: ['a schema (an object or a boolean)', (value) => isObject(value) || typeof value === 'boolean'],
  'list of schemas': ['a non-empty list of schemas', (value) => Array.isArray(value) && value.length > 0],
  'map of schemas': ['an object of schemas', isObject],
  'schema or list of schemas': [
    'a schema or a list of schemas',
    (value) => isObject(value) || typeof value === 'boolean' || Array.isArray(value),
  ],
  'map of schemas or names': ['an object of schemas or lists of unique names', isObject],
  'map of names': [
    'an object of lists of unique names',
    (value) => isObject(value) && Object.values(value).every(isNames),
  ],
  names: ['a list of unique names', isNames],
  number: ['a number', (value) => typeof value === 'number' && Number.isFinite(value)],
  'positive number': ['a number above 0', (value) => typeof value === 'number' && Number.isFinite(value) && value > 0],
  count: ['an integer of 0 or more', (value) => Number.isSafeInteger(value) && (value as number) >= 0],
  boolean: ['a boolean', (value) => typeof value === 'boolean'],
  string: ['a string', (value) => typeof value === 'string'],
  'URI reference': ['a URI reference', (value) => typeof value === 'string'],
  anchor: [
    'a name of letters, digits, "-", "_" and "." that begins with a letter or "_"',
    (value) => typeof value === 'string' && /^[A-Za-z_][-A-Za-z0-9._]*$/.test(value),
  ],
  type: [
    `one of ${TYPES.join(', ')} or a list of them`,
    (value) =>
      typeof value === 'string'
        ? TYPES.includes(value)
        : isNames(value) && (value as string[]).length > 0 && (value as string[]).every((name) => TYPES.includes(name)),
  ],
  list: ['a list', Array.isArray],
  'map of booleans': [
    'an object of booleans',
    (value) => isObject(value) && Object.values(value).every((entry) => typeof entry === 'boolean'),
  ],
  anything: ['any value', () => true],
};

/** What `value` should be instead, or null where it is right. */
export function misshapen(shape: Shape, value: unknown): string | null {
  const [words, right] = SHAPES[shape];
  return right(value) ? null : words;
}

/** The schemas in a keyword's value, each with the tokens of its pointer from the keyword on. */
export function subschemas(shape: Shape, value: unknown): readonly (readonly [string, unknown])[] {
  switch (shape) {
    case 'schema':
      return [['', value]];
    case 'list of schemas':
      return (value as unknown[]).map((schema, index) => [`/${index}`, schema]);
    case 'schema or list of schemas':
      return Array.isArray(value) ? subschemas('list of schemas', value) : [['', value]];
    case 'map of schemas':
      return Object.entries(value as object).map(([name, schema]) => [`/${escapeToken(name)}`, schema]);
    case 'map of schemas or names':
      return subschemas('map of schemas', value).filter(([, schema]) => !isNames(schema));
    default:
      return [];
  }
}

/** A token of a JSON pointer (RFC 6901). */
export function escapeToken(token: string): string {
  return token.replaceAll('~', '~0').replaceAll('/', '~1');
}
