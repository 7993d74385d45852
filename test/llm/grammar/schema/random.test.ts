import { writeSync } from 'node:fs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { loadTokens } from '../../../../cli/grammar/tokens.ts';
import { HostRandom, randomKey } from '../../../../engine/random.ts';
import type { Frame } from '../../../../llm/grammar/automaton.ts';
import { document } from '../../../../llm/grammar/json/value.ts';
import { closingOf, Matcher } from '../../../../llm/grammar/matcher.ts';
import { Unsupported } from '../../../../llm/grammar/refusal.ts';
import { compile } from '../../../../llm/grammar/schema/compile.ts';
import { advanceAll, complete, start } from '../../../../llm/grammar/stack.ts';
import type { Vocabulary } from '../../../../llm/grammar/vocabulary.ts';
import { exactAjv } from './exact.ts';
import { schemas, values } from './random.ts';
import { SMALL } from './small.ts';

/** How many documents are drawn; DOCUMENTS=100000 in the environment makes the long run of it, with cl100k_base. */
const DOCUMENTS = Number(process.env.DOCUMENTS ?? 120);

interface Compiled {
  /** Of a JSON text. */
  readonly valid: (text: string) => boolean;
  readonly grammar: Frame | null;
}

/** A schema for ajv and as a grammar; null where it applies to a value through itself, which we refuse and ajv may not. */
function compiled(schema: unknown): Compiled | null {
  try {
    const { algebra, formula } = compile(schema);
    return { valid: exactAjv(schema), grammar: document(algebra, formula) };
  } catch (error) {
    if (error instanceof Unsupported) expect(error.message).toContain('recursion without a base');
    // ajv follows loops of references that nothing leads to.
    else expect(error).toBeInstanceOf(RangeError);
    return null;
  }
}

function accepts(grammar: Frame | null, text: string): boolean {
  const stack = grammar && advanceAll(start(grammar), new TextEncoder().encode(text));
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
        const text = JSON.stringify(value);
        const wanted = valid(text);
        seen[wanted ? 'valid' : 'invalid'] += 1;
        expect(accepts(grammar, text), text).toBe(wanted);
      }
    }),
    { seed: 1, numRuns: 150 },
  );
  expect(seen.schemas).toBeGreaterThan(120);
  expect(seen.valid).toBeGreaterThan(300);
  expect(seen.invalid).toBeGreaterThan(300);
});

/**
 * Draws documents of random schemas, ten a schema, each token uniformly from the mask, and asks ajv of each. `room`: the
 * budget's tokens beyond what the shortest document takes.
 */
function drawn(vocabulary: Vocabulary, room: number, seed: number, count: number): void {
  const seen = { schemas: 0, documents: 0, tokens: 0 };
  fc.assert(
    fc.property(schemas, fc.nat(), (schema, key) => {
      const { valid, grammar } = compiled(schema) ?? {};
      if (!valid || !grammar) return;
      seen.schemas += 1;
      const budget = { tokens: closingOf(grammar).cost(start(grammar)) + room };
      for (let sample = 0; sample < 10; sample++) {
        const matcher = new Matcher(vocabulary, grammar, budget);
        uniform(matcher, new HostRandom(randomKey(key, 'test'), sample));
        const text = written(matcher);
        seen.documents += 1;
        seen.tokens += matcher.tokens.length;
        expect(matcher.tokens.length).toBeLessThanOrEqual(budget.tokens);
        expect(valid(text), text).toBe(true);
      }
      // The event loop, by which the console writes, is not reached before the end.
      if (seen.documents % (count / 10) === 0) writeSync(1, `${JSON.stringify(seen)}\n`);
    }),
    // Some schemas admit nothing, and ajv cannot take all.
    { seed, numRuns: Math.ceil(count / 8), interruptAfterTimeLimit: 3_600_000 },
  );
  expect(seen.documents).toBeGreaterThanOrEqual(count);
}

/** Takes tokens of the mask, each as likely as the others, until the end of text. */
function uniform(matcher: Matcher, random: HostRandom): void {
  const { vocabulary } = matcher;
  for (;;) {
    const mask = matcher.mask();
    const tokens: number[] = [];
    for (let id = 0; id < vocabulary.size; id++) if ((mask[id >>> 5]! >>> (id & 31)) & 1) tokens.push(id);
    const token = tokens[random.below(tokens.length)]!;
    if (vocabulary.end.includes(token)) return;
    if (!matcher.accept(token)) throw new Error(`token ${token} is in the mask and not accepted`);
  }
}

function written({ tokens, vocabulary }: Matcher): string {
  const bytes = tokens.flatMap((token) => [...vocabulary.bytes(token)]);
  return new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(bytes));
}

it('what is drawn from the masks over 300 tokens ends, and is valid for ajv', () => {
  drawn(SMALL, 40, 2, DOCUMENTS);
}, 3_600_000);

// Of a vocabulary so large, masks of schemas that are met for the first time take their time.
it.skipIf(DOCUMENTS < 10_000)(
  'so it is over cl100k_base',
  async () => {
    drawn((await loadTokens('cl100k')).vocabulary, 20, 3, DOCUMENTS / 100);
  },
  3_600_000,
);
