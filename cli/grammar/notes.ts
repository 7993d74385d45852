import { distance } from 'fastest-levenshtein';
import { subschemas } from '../../llm/grammar/schema/keywords.ts';
import { Documents, where } from '../../llm/grammar/schema/load.ts';
import type { SchemaOptions } from '../../llm/grammar/schema/compile.ts';

/** Keywords that mean something elsewhere. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  nullable: 'OpenAPI 3.0 has it; here "null" is one of the types',
  divisibleBy: 'draft 3 had it; did you mean "multipleOf"?',
  disallow: 'draft 3 had it; did you mean "not"?',
};
/** Names under which others wrap a schema. */
const WRAPPERS = new Set(['schema', 'json_schema', 'parameters', 'input_schema', 'inputSchema']);
/** Keywords that ask nothing: another way to write them loses nothing. */
const ANNOTATIONS = new Set(
  'title description default examples readOnly writeOnly deprecated contentEncoding contentMediaType contentSchema'.split(
    ' ',
  ),
);

/** What in a schema means nothing, though it seems to have been meant: misspelt keywords, and those of other dialects. */
export function notesOf(schema: unknown, options: SchemaOptions): string[] {
  const { root } = new Documents(schema, options);
  const notes: string[] = [];
  const open: [unknown, string][] = [[schema, '']];
  for (let next = open.pop(); next; next = open.pop()) {
    const [value, pointer] = next;
    if (typeof value !== 'object' || value === null) continue;
    const { keywords } = (root.resource.places.get(value) ?? root).resource.dialect;
    for (const [keyword, entry] of Object.entries(value)) {
      const shape = keywords.get(keyword);
      if (shape !== undefined) {
        for (const [rest, inside] of subschemas(shape, entry)) open.push([inside, `${pointer}/${keyword}${rest}`]);
        continue;
      }
      const meant = ELSEWHERE[keyword] ?? suggestion(keyword, entry, [...keywords.keys()]);
      if (meant !== null)
        notes.push(`${where(null, pointer) || '#'}: ${keyword} is no keyword and asks nothing; ${meant}`);
    }
  }
  return notes;
}

function suggestion(keyword: string, entry: unknown, keywords: readonly string[]): string | null {
  if (WRAPPERS.has(keyword) && typeof entry === 'object' && entry !== null) {
    return 'if the schema is what it holds, give that';
  }
  const far = (other: string): number => distance(other.toLowerCase(), keyword.toLowerCase());
  const nearest = keywords.toSorted((a, b) => far(a) - far(b))[0]!;
  const begins = keyword.length >= 4 && nearest.toLowerCase().startsWith(keyword.toLowerCase());
  if (ANNOTATIONS.has(nearest) || !(begins || far(nearest) <= Math.floor(keyword.length / 3))) return null;
  return `did you mean "${nearest}"?`;
}
