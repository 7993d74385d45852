/** Output that cannot be malformed: schemas, regular expressions and grammars as masks of a vocabulary's tokens. */
import type { Frame } from './automaton.ts';
import { document, type DocumentOptions } from './json/value.ts';
import { checkOptions } from './options.ts';
import { compile, type SchemaOptions } from './schema/compile.ts';
import { SchemaError } from './schema/errors.ts';

export { Closing } from './budget.ts';
export { contextFree } from './cfg/pushdown.ts';
export { regular } from './cfg/regular.ts';
export { Matcher, type Budget } from './matcher.ts';
export { Unsupported } from './refusal.ts';
export { triggered, type Trigger, type TriggerOptions } from './triggers.ts';
export { Vocabulary, type Mask } from './vocabulary.ts';
export { SchemaError };

/**
 * JSON documents that satisfy a JSON schema (drafts 2020-12 and 7), as a grammar for `Matcher`, `triggered` and the like; with
 * `true` any JSON. Throws SchemaError for what is no schema or has no value, Unsupported, by name, for what cannot be
 * followed exactly.
 */
export function jsonSchema(schema: unknown, options: SchemaOptions & Partial<DocumentOptions> = {}): Frame {
  checkOptions('jsonSchema(schema, options)', options, ['whitespace', 'order', 'formats', 'draft', 'remotes']);
  const { algebra, formula } = compile(schema, options);
  const grammar = document(algebra, formula, options);
  if (grammar === null) throw new SchemaError('#', 'no JSON value satisfies it');
  return grammar;
}
