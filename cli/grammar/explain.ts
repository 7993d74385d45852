import type { Frame } from '../../llm/grammar/automaton.ts';
import { forcedBytes } from '../../llm/grammar/forced.ts';
import { Masks } from '../../llm/grammar/mask.ts';
import { advance, start } from '../../llm/grammar/stack.ts';
import { schemasAt } from '../../llm/grammar/schema/at.ts';
import type { SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { nextInWords } from './next.ts';
import { pathOf } from './place.ts';
import type { Tokens } from './tokens.ts';

const FORCED = 200;

/** What may come behind `prefix`; where it breaks the grammar, what might have come. */
export function explain(grammar: Frame, prefix: string, { vocabulary }: Tokens): Explanation {
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
  const lines = [`Behind \`${text(Math.max(0, read - 60), read)}\`:`];
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
  return { read: text(0, read), lines };
}

/** Which schemas have a say at the end of a document's beginning. */
export function explainPlace(schema: unknown, read: string, options: SchemaOptions): string[] {
  const path = pathOf(read);
  const schemas = schemasAt(schema, path, options);
  return [
    `Schemas that have a say at ${['$', ...path.map((step) => `[${JSON.stringify(step)}]`)].join('')}:`,
    ...schemas.map(({ place, keywords }) => `  ${place}: ${JSON.stringify(keywords)}`),
    ...(schemas.length === 0 ? ['  none: any value is good'] : []),
  ];
}

/** As much of a prefix as the grammar takes, and what there is to say. */
interface Explanation {
  readonly read: string;
  readonly lines: readonly string[];
}
