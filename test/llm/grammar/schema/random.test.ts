import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { randomDocument } from '../../../../cli/grammar/sample.ts';
import { loadTokens } from '../../../../cli/grammar/tokens.ts';
import { HostRandom, randomKey } from '../../../../engine/random.ts';
import type { Frame } from '../../../../llm/grammar/automaton.ts';
import { document } from '../../../../llm/grammar/json/value.ts';
import { Unsupported } from '../../../../llm/grammar/refusal.ts';
import { compile } from '../../../../llm/grammar/schema/compile.ts';
import { advanceAll, complete, start } from '../../../../llm/grammar/stack.ts';
import type { Vocabulary } from '../../../../llm/grammar/vocabulary.ts';
import { schemas, values } from './random.ts';
import { SMALL } from './small.ts';

/** How many documents are drawn; DOCUMENTS=100000 in the environment makes the long run of it, with cl100k_base. */
const DOCUMENTS = Number(process.env.DOCUMENTS ?? 200);

interface Compiled {
  readonly valid: ValidateFunction;
  readonly grammar: Frame | null;
}

/** A schema for ajv and as a grammar; null where it applies to a value through itself, which we refuse and ajv may not. */
function compiled(schema: unknown): Compiled | null {
  try {
    const { algebra, formula } = compile(schema);
    // Without the precision, ajv 8.20 finds no number from 1e21 up to be a multiple.
    const valid = new Ajv2020({ strict: false, logger: false, multipleOfPrecision: 12 }).compile(schema as object);
    return { valid, grammar: document(algebra, formula) };
  } catch (error) {
    if (error instanceof Unsupported) expect(error.message).toContain('recursion without a base');
    // ajv follows loops of references that nothing leads to.
    else expect(error).toBeInstanceOf(RangeError);
    return null;
  }
}

function accepts(grammar: Frame | null, value: unknown): boolean {
  const stack = grammar && advanceAll(start(grammar), new TextEncoder().encode(JSON.stringify(value)));
  return stack !== null && complete(stack);
}

it('random values can be written exactly where ajv finds them valid', () => {
  const seen = { schemas: 0, valid: 0, invalid: 0 };
  fc.assert(
    fc.property(schemas, fc.array(values, { minLength: 10, maxLength: 10 }), (schema, list) => {
      const { valid, grammar } = compiled(schema) ?? {};
      if (!valid || grammar === undefined) return;
      seen.schemas += 1;
      for (const value of list) {
        const wanted = valid(value);
        seen[wanted ? 'valid' : 'invalid'] += 1;
        expect(accepts(grammar, value), JSON.stringify(value)).toBe(wanted);
      }
    }),
    { seed: 1, numRuns: 150 },
  );
  expect(seen.schemas).toBeGreaterThan(120);
  expect(seen.valid).toBeGreaterThan(300);
  expect(seen.invalid).toBeGreaterThan(300);
});

/** Draws documents of random schemas, ten a schema, and asks ajv of each. */
function drawn(vocabulary: Vocabulary, closing: number, seed: number, count: number): void {
  let documents = 0;
  fc.assert(
    fc.property(schemas, fc.nat(), (schema, key) => {
      const { valid, grammar } = compiled(schema) ?? {};
      if (!valid || !grammar) return;
      for (let sample = 0; sample < 10; sample++) {
        const random = new HostRandom(randomKey(key, 'test'), sample);
        const text = randomDocument(vocabulary, grammar, random, { closing, tokens: 4000 });
        documents += 1;
        expect(valid(JSON.parse(text)), text).toBe(true);
      }
    }),
    { seed, numRuns: count / 10 },
  );
  // Some schemas admit nothing, and ajv cannot take all.
  expect(documents).toBeGreaterThan(0.8 * count);
}

it('what is drawn from the masks over 300 tokens ends, and is valid for ajv', () => {
  drawn(SMALL, 0.1, 2, DOCUMENTS);
}, 3_600_000);

// Of a vocabulary so large, masks of schemas that are met for the first time take their time.
it.skipIf(DOCUMENTS < 10_000)(
  'so it is over cl100k_base',
  async () => {
    drawn((await loadTokens('cl100k')).vocabulary, 0.3, 3, DOCUMENTS / 100);
  },
  3_600_000,
);
