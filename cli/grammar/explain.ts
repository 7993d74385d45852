import { forcedBytes } from '../../llm/grammar/forced.ts';
import { document } from '../../llm/grammar/json/value.ts';
import { Masks } from '../../llm/grammar/mask.ts';
import { advance, start } from '../../llm/grammar/stack.ts';
import { schemasAt } from '../../llm/grammar/schema/at.ts';
import { compile, type SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { nextInWords } from './next.ts';
import { pathOf } from './place.ts';
import type { Tokens } from './tokens.ts';

const FORCED = 200;

/** What may come behind `prefix`, and which schemas have a say there; where it breaks the schema, what might have come. */
export function explain(schema: unknown, prefix: string, { vocabulary }: Tokens, options: SchemaOptions): string {
  const { algebra, formula } = compile(schema, options);
  const grammar = document(algebra, formula, { whitespace: Infinity });
  if (!grammar) return 'No JSON value satisfies the schema.';
  let stack = start(grammar);
  const bytes = new TextEncoder().encode(prefix);
  const text = (from: number, to: number): string => new TextDecoder().decode(bytes.subarray(from, to));
  let read = 0;
  for (const byte of bytes) {
    const next = advance(stack, byte);
    if (!next) break;
    stack = next;
    read += 1;
  }
  const path = pathOf(text(0, read));
  const lines = [
    `Behind \`${text(Math.max(0, read - 60), read)}\`, at ${['$', ...path.map((step) => `[${JSON.stringify(step)}]`)].join('')}:`,
  ];
  if (read < bytes.length) lines.push(`  \`${text(read, bytes.length).slice(0, 1)}\` may not come.`);
  lines.push(`  What may: ${nextInWords(stack)}.`);
  const mask = new Uint32Array(vocabulary.words);
  new Masks(vocabulary).fill(mask, stack);
  const tokens = Array.from({ length: vocabulary.size }, (_, token) => token).filter(
    (token) => (mask[token >>> 5]! >>> (token & 31)) & 1,
  );
  const some = tokens.slice(0, 8).map((token) => JSON.stringify(new TextDecoder().decode(vocabulary.bytes(token))));
  lines.push(`  Tokens: ${tokens.length} of ${vocabulary.size}: ${some.join(' ')}${tokens.length > 8 ? ' …' : ''}`);
  const forced = new TextDecoder().decode(forcedBytes(stack, FORCED));
  if (forced !== '') lines.push(`  Nothing else can come than \`${forced}\`${forced.length === FORCED ? ' …' : ''}.`);
  lines.push('Schemas that have a say in this value:');
  const schemas = schemasAt(schema, path, options);
  lines.push(...schemas.map(({ place, keywords }) => `  ${place}: ${JSON.stringify(keywords)}`));
  if (schemas.length === 0) lines.push('  none: any value is good');
  return lines.join('\n');
}
