import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

/** Documents that references may lead to, by URI. */
export type Remotes = ReadonlyMap<string, unknown>;

const require = createRequire(import.meta.url);

/** The metaschemas of the drafts that are followed, as ajv's package has them. */
export function metaschemas(): Remotes {
  const vocabularies = ['core', 'applicator', 'unevaluated', 'validation', 'meta-data', 'format-annotation', 'content'];
  const files = ['schema', ...vocabularies.map((name) => `meta/${name}`)].map((name) => `json-schema-2020-12/${name}`);
  const documents = [...files, 'json-schema-draft-07'].map(
    (file) => require(`ajv/dist/refs/${file}.json`) as { readonly $id: string },
  );
  return new Map(documents.map((document) => [document.$id, document]));
}

/** The documents of a folder: `sub/name.json` there is `base` + `sub/name.json`. */
export function remotesOf(folder: string, base: string): Remotes {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.json'));
  return new Map(
    files
      .sort()
      .map((file) => [
        new URL(file.split(path.sep).join('/'), base).href,
        JSON.parse(readFileSync(path.join(folder, file), 'utf8')) as unknown,
      ]),
  );
}
