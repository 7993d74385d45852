import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { randomDocument } from '../../../../cli/grammar/sample.ts';
import { HostRandom, randomKey } from '../../../../engine/random.ts';
import type { Frame } from '../../../../llm/grammar/automaton.ts';
import { document } from '../../../../llm/grammar/json/value.ts';
import { Unsupported } from '../../../../llm/grammar/refusal.ts';
import { compile } from '../../../../llm/grammar/schema/compile.ts';
import { advanceAll, complete, start } from '../../../../llm/grammar/stack.ts';
import { schemas, values } from './random.ts';
import { SMALL } from './small.ts';

/** How many documents are drawn; DOCUMENTS=100000 in the environment makes a longer run of it. */
const DOCUMENTS = Number(process.env.DOCUMENTS ?? 150);

interface Compiled {
  readonly valid: ValidateFunction;
  readonly grammar: Frame | null;
}

/** A schema for ajv and as a grammar; null where it applies to a value through itself, which we refuse and ajv may not. */
function compiled(schema: unknown): Compiled | null {
  try {
    const { algebra, formula } = compile(schema);
    const valid = new Ajv2020({ strict: false, logger: false }).compile(schema as object);
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

it('what is drawn from the masks of random schemas is valid for ajv', () => {
  let documents = 0;
  fc.assert(
    fc.property(schemas, fc.nat(), (schema, seed) => {
      const { valid, grammar } = compiled(schema) ?? {};
      if (!valid || !grammar) return;
      const text = randomDocument(SMALL, grammar, new HostRandom(randomKey(seed, 'test')), {
        closing: 0.1,
        most: 3000,
      });
      if (text === null) return;
      documents += 1;
      expect(valid(JSON.parse(text)), text).toBe(true);
    }),
    { seed: 2, numRuns: DOCUMENTS },
  );
  // Some schemas admit nothing, and some documents have not ended after so many tokens.
  expect(documents).toBeGreaterThan(0.8 * DOCUMENTS);
}, 3_600_000);
