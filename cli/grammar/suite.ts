import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { metaschemas, remotesOf, type Remotes } from './remotes.ts';

/** The drafts as the folders of the official test suite of JSON Schema call them. */
export const SUITE_DRAFTS = { '2020-12': 'draft2020-12', 'draft-07': 'draft7' } as const;

/** Where the suite's `remotes/` are served. */
export const SUITE_BASE = 'http://localhost:1234/';

/** A schema with the instances that it admits and others. */
export interface SuiteGroup {
  /** The file's name without its ending: for the most part a keyword's. */
  readonly keyword: string;
  readonly description: string;
  readonly schema: unknown;
  readonly tests: readonly { readonly description: string; readonly data: unknown; readonly valid: boolean }[];
}

/** The required tests of a draft, and with `optional` (`format`) the optional ones of that folder instead. */
export function suiteGroups(folder: string, draft: keyof typeof SUITE_DRAFTS, optional?: string): SuiteGroup[] {
  const at = path.join(folder, SUITE_DRAFTS[draft], ...(optional === undefined ? [] : ['optional', optional]));
  const files = readdirSync(at).filter((file) => file.endsWith('.json'));
  return files.sort().flatMap((file) =>
    (JSON.parse(readFileSync(path.join(at, file), 'utf8')) as Omit<SuiteGroup, 'keyword'>[]).map((group) => ({
      ...group,
      keyword: path.basename(file, '.json'),
    })),
  );
}

export function suiteRemotes(folder: string): Remotes {
  return new Map([...metaschemas(), ...remotesOf(path.join(folder, 'remotes'), SUITE_BASE)]);
}
