/** What a text has to follow, from files or the command line. */
import { contextFree, jsonSchema, Matcher, regular } from '../../llm/grammar/index.ts';
import type { Vocabulary } from '../../llm/grammar/index.ts';
import { metaschemas } from '../grammar/remotes.ts';
import { readJson, readText } from '../grammar/tokens.ts';

export interface GrammarSource {
  /** A file with a JSON schema, one with a grammar (GBNF), or a regular expression itself. */
  readonly schema?: string;
  readonly grammar?: string;
  readonly regex?: string;
}

/** Null where none is given. Whole documents fit into `tokens`. Throws where several are given. */
export async function matcherOf(
  { schema, grammar, regex }: GrammarSource,
  vocabulary: Vocabulary,
  tokens: number,
): Promise<Matcher | null> {
  const given = Object.entries({ schema, grammar, regex }).filter(([, value]) => value !== undefined);
  if (given.length > 1)
    throw new Error(`[generate] ${given.map(([name]) => `--${name}`).join(' and ')}: give one of them`);
  if (given.length === 0) return null;
  const frame =
    schema !== undefined
      ? jsonSchema(await readJson(schema), { remotes: metaschemas(), whitespace: 1 })
      : grammar !== undefined
        ? contextFree(await readText(grammar))
        : regular(regex!);
  try {
    return new Matcher(vocabulary, frame, { tokens });
  } catch (error) {
    if (!(error instanceof Error && error.message.startsWith('[grammar] a budget'))) throw error;
    throw new Error(`${error.message}; --max-tokens is the budget`, { cause: error });
  }
}
