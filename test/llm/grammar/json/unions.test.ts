/** Alternatives of many objects, arrays and texts: what is accepted is what ajv accepts, in whatever order members come. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { document } from '../../../../llm/grammar/json/value.ts';
import { compile } from '../../../../llm/grammar/schema/compile.ts';
import { advanceAll, complete, start } from '../../../../llm/grammar/stack.ts';

const ajv = new Ajv2020({ strict: false, logger: false });
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Expects of each value that it is accepted where ajv finds it valid, and of both kinds that there are so many. */
function agrees(schema: object, values: readonly unknown[], least: readonly [valid: number, invalid: number]): void {
  const { algebra, formula } = compile(schema);
  const frame = document(algebra, formula);
  const valid = ajv.compile(schema);
  const counts = { true: 0, false: 0 };
  for (const value of values) {
    const text = JSON.stringify(value);
    const end = frame && advanceAll(start(frame), new TextEncoder().encode(text));
    const wanted = valid(value);
    counts[`${wanted}`] += 1;
    expect(end !== null && complete(end), text).toBe(wanted);
  }
  expect(counts.true).toBeGreaterThanOrEqual(least[0]);
  expect(counts.false).toBeGreaterThanOrEqual(least[1]);
}

describe('300 kinds', () => {
  const kind = (i: number, more: object): object => ({
    type: 'object',
    properties: { kind: { const: `kind ${i}` }, value: { type: i % 2 ? 'string' : 'number' }, [`own ${i}`]: true },
    required: ['kind'],
    ...more,
  });
  const values = range(300)
    .filter((i) => i % 12 === 0 || i % 12 === 7)
    .flatMap((i) => [
      { kind: `kind ${i}` },
      { kind: `kind ${i}`, value: 1 },
      { value: 'a', kind: `kind ${i}` },
      { [`own ${i}`]: null, kind: `kind ${i}` },
      { kind: `kind ${i}`, [`own ${(i + 1) % 300}`]: null },
      { value: 1 },
      { kind: `kind ${i + 300}` },
      { kind: i },
    ]);

  it.each(['anyOf', 'oneOf'])('of closed objects, %s', (union) => {
    agrees({ [union]: range(300).map((i) => kind(i, { additionalProperties: false })) }, values, [150, 150]);
  });

  it.each(['anyOf', 'oneOf'])('of open objects, %s', (union) => {
    agrees({ [union]: range(300).map((i) => kind(i, {})) }, values, [200, 150]);
  });

  it('that overlap, one by one', () => {
    const overlapping = { oneOf: [...range(300).map((i) => kind(i, {})), kind(7, {}), kind(9, { required: [] })] };
    agrees(overlapping, values, [150, 150]);
  });

  it.each(['anyOf', 'oneOf'])('that hold one another, %s', (union) => {
    const kinds = range(100).map((i): [string, object] => [
      `kind ${i}`,
      {
        type: 'object',
        properties: { kind: { enum: [`kind ${i}`, i] }, of: { type: 'array', items: { $ref: '#/$defs/any' } } },
        required: ['kind'],
        additionalProperties: false,
      },
    ]);
    const any = { [union]: kinds.map(([name]) => ({ $ref: `#/$defs/${name.replace(' ', '%20')}` })) };
    const nested = range(100)
      .filter((i) => i % 5 === 1)
      .flatMap((i) => [
        {
          kind: i,
          of: [
            { kind: `kind ${99 - i}`, of: [] },
            { of: [{ kind: 0 }], kind: 'kind 1' },
          ],
        },
        { kind: `kind ${i}`, of: [{ kind: 100 }] },
        { of: [{ kind: i }, {}], kind: i },
      ]);
    agrees({ $ref: '#/$defs/any', $defs: { ...Object.fromEntries(kinds), any } }, nested, [20, 40]);
  });
});

it('60 kinds told apart by a member that may be left out', () => {
  const kinds = range(60).map((i): [string, object] => [
    `kind${i}`,
    {
      type: 'object',
      properties: { kind: { const: i }, of: { items: { $ref: '#/$defs/any' } }, [`own${i % 7}`]: { type: 'string' } },
      required: [`own${i % 7}`],
      additionalProperties: false,
    },
  ]);
  const any = { oneOf: kinds.map(([name]) => ({ $ref: `#/$defs/${name}` })) };
  const values = range(60)
    .filter((i) => i % 6 === 1)
    .flatMap((i) => [
      { kind: i, [`own${i % 7}`]: 'a' },
      { [`own${i % 7}`]: 'a', kind: i },
      // One of seven kinds, or more.
      { [`own${i % 7}`]: 'a' },
      { kind: i, [`own${(i + 1) % 7}`]: 'a' },
      { [`own${i % 7}`]: 'a', of: [{ own3: '', kind: 3 }], kind: i },
      { [`own${i % 7}`]: 'a', of: [{ own3: '', kind: 4 }], kind: i },
      {
        of: [
          { own3: '', kind: 10 },
          { kind: 59, own3: '' },
        ],
        kind: i,
        [`own${i % 7}`]: 'b',
      },
    ]);
  agrees({ $ref: '#/$defs/any', $defs: { ...Object.fromEntries(kinds), any } }, values, [30, 20]);
});

describe('few kinds, of random members', () => {
  const name = fc.constantFrom('a', 'b', 'c');
  const constant = fc.constantFrom<unknown>('x', 'y', 1, 2, true, null);
  const asked = fc.oneof(
    constant.map((value) => ({ const: value })),
    fc.uniqueArray(constant, { minLength: 1, maxLength: 3 }).map((values) => ({ enum: values })),
    fc.constantFrom<unknown>(true, false, { type: 'string' }, { type: ['string', 'boolean'] }, { not: { const: 'x' } }),
    constant.map((value) => ({ type: ['string', 'integer'], enum: [value, 'x'] })),
  );
  const kind = fc.record(
    {
      properties: fc.dictionary(name, asked, { maxKeys: 3, noNullPrototype: true }),
      required: fc.uniqueArray(name, { maxLength: 2 }),
      additionalProperties: fc.oneof(fc.boolean(), asked),
      patternProperties: fc.dictionary(fc.constantFrom('^a', 'c'), asked, { maxKeys: 1, noNullPrototype: true }),
      minProperties: fc.nat(2),
    },
    { requiredKeys: ['properties', 'required'] },
  );
  const value = fc.dictionary(name, constant, { maxKeys: 3, noNullPrototype: true });

  it.each(['anyOf', 'oneOf'])('%s, alone and beside others', (union) => {
    const kinds = fc.array(kind, { minLength: 2, maxLength: 5 });
    fc.assert(
      fc.property(
        kinds,
        kinds,
        fc.boolean(),
        fc.array(value, { minLength: 20, maxLength: 20 }),
        (some, more, two, values) => {
          const schema = {
            type: 'object',
            [union]: some,
            ...(two ? { allOf: [{ oneOf: more }, { anyOf: more }] } : {}),
          };
          agrees(schema, values, [0, 0]);
        },
      ),
      { numRuns: 60, seed: 11 },
    );
  });

  it('of names that must come', () => {
    const choice = fc.tuple(
      fc.constantFrom('anyOf', 'oneOf', 'allOf'),
      fc.array(
        name.map((one) => ({ required: [one] })),
        { minLength: 1, maxLength: 3 },
      ),
    );
    const part = choice.chain(([how, names]) => fc.constantFrom<object>({ [how]: names }, { not: { [how]: names } }));
    fc.assert(
      fc.property(
        fc.array(part, { minLength: 1, maxLength: 5 }),
        fc.array(value, { minLength: 20, maxLength: 20 }),
        (allOf, values) => {
          agrees({ type: 'object', properties: { b: { type: 'string' }, c: false }, allOf }, values, [0, 0]);
        },
      ),
      { numRuns: 120, seed: 12 },
    );
  });
});

describe('arrays of what must be in them and what must not', () => {
  it('are those that ajv accepts', () => {
    const item = fc.constantFrom<object>(
      { const: 1 },
      { enum: [1, 2] },
      { type: 'string' },
      { const: 'x' },
      { minimum: 2 },
    );
    const contains = fc.tuple(item, fc.nat(2), fc.nat(3)).map(([contains, minContains, more]) => ({
      contains,
      minContains,
      maxContains: minContains + more,
    }));
    const part = fc.oneof(
      item.map((one) => ({ not: { contains: one } })),
      item.map((one) => ({ contains: one })),
      contains,
    );
    const schema = fc.record(
      { allOf: fc.array(part, { minLength: 1, maxLength: 4 }), items: item, minItems: fc.nat(3), maxItems: fc.nat(4) },
      { requiredKeys: ['allOf'] },
    );
    const value = fc.array(fc.constantFrom<unknown>(1, 2, 3, 'x', 'y', null), { maxLength: 5 });
    fc.assert(
      fc.property(schema, fc.array(value, { minLength: 20, maxLength: 20 }), (one, values) => {
        agrees({ type: 'array', ...one }, values, [0, 0]);
      }),
      { numRuns: 150, seed: 13 },
    );
  });
});
