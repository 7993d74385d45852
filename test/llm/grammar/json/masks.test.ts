/** Masks at random places of documents of random schemas are those of trying each token byte by byte. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { document } from '../../../../llm/grammar/json/value.ts';
import { Masks } from '../../../../llm/grammar/mask.ts';
import { Unsupported } from '../../../../llm/grammar/refusal.ts';
import { compile } from '../../../../llm/grammar/schema/compile.ts';
import { advanceAll, complete, start } from '../../../../llm/grammar/stack.ts';
import { Vocabulary } from '../../../../llm/grammar/vocabulary.ts';
import { different, mixed, values } from '../schema/random.ts';

/** All bytes, pieces of values, and what goes over the seams between them. */
const PIECES = [
  '"a":',
  '","',
  '"}',
  '":"',
  '": ',
  '"b"',
  '"ab":1',
  'ab',
  'ba',
  '{"',
  '[[',
  ']]',
  '],"',
  '}}',
  'true',
  'null',
  '1.',
  '12',
  '0.5',
  '\\u',
  '\\u0061"',
  '  ',
  ', "',
  'é',
  'é"',
  '{}',
  '[]',
  '},{"',
  '["',
  '"a"',
  '"a","b"',
  '","a',
  '","a"',
  ',"',
  '\\u00e',
];

function vocabularyOf(values: readonly unknown[]): Vocabulary {
  const texts = values.flatMap((one) => {
    const text = JSON.stringify(one);
    return [text, text.slice(1), text.slice(0, -1), text.slice(1, 4)];
  });
  const pieces = [...new Set([...PIECES, ...texts])].filter((text) => text !== '');
  const bytes = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  return Vocabulary.of([...bytes, ...pieces.map((text) => new TextEncoder().encode(text)), null], {
    end: [256 + pieces.length],
  });
}

it.each([
  {
    name: 'any keywords',
    drawn: fc.record({ schema: mixed, list: fc.array(values, { maxLength: 12 }) }),
    numRuns: 60,
  },
  { name: 'texts that differ', drawn: different, numRuns: 40 },
])('masks equal those of trying each token byte by byte: $name', ({ drawn, numRuns }) => {
  const counts = { masks: 0, tokens: 0, completed: 0 };
  fc.assert(
    fc.property(drawn, fc.infiniteStream(fc.nat()), ({ schema, list }, choices) => {
      try {
        const { algebra, formula } = compile(schema);
        const grammar = document(algebra, formula);
        if (!grammar) return;
        const vocabulary = vocabularyOf(list);
        const masks = new Masks(vocabulary);
        const mask = new Uint32Array(vocabulary.words);
        let stack = start(grammar);
        for (let step = 0; step < 12; step++) {
          masks.fill(mask, stack);
          const allowed: number[] = [];
          for (let token = 0; token < vocabulary.size; token++) {
            const ends = vocabulary.end.includes(token);
            const may = ends ? complete(stack) : advanceAll(stack, vocabulary.bytes(token)) !== null;
            expect(
              ((mask[token >>> 5]! >>> (token & 31)) & 1) === 1,
              `token ${token} ${JSON.stringify(Buffer.from(vocabulary.bytes(token)).toString())} of ${vocabulary.size} at step ${step}`,
            ).toBe(may);
            if (may && !ends) allowed.push(token);
          }
          counts.masks += 1;
          counts.tokens += allowed.length;
          counts.completed += Number(complete(stack));
          // Longer tokens have the later ids: they go on faster.
          const token =
            allowed[allowed.length - 1 - (choices.next().value! % Math.max(1, Math.ceil(allowed.length / 3)))];
          if (token === undefined) return;
          stack = advanceAll(stack, vocabulary.bytes(token))!;
        }
      } catch (error) {
        if (!(error instanceof Unsupported)) throw error;
      }
    }),
    { numRuns, seed: 8 },
  );
  expect(counts.masks).toBeGreaterThan(5 * numRuns);
  expect(counts.completed).toBeGreaterThan(numRuns / 3);
});
