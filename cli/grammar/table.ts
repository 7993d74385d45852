import { readFile } from 'node:fs/promises';
import { writeFileAtomic } from '../../nn/files.ts';
import { check } from './check.ts';
import { suiteGroups, suiteRemotes, type SUITE_DRAFTS } from './suite.ts';
import type { Tokens } from './tokens.ts';

/** Tests of the official suite: the verdict is the suite's, the schema is refused, or the verdict is wrong. */
export interface Row {
  readonly tests: number;
  readonly right: number;
  readonly refused: number;
  readonly wrong: number;
}

/** Which tests of the suite, and how formats are taken. */
interface Part {
  readonly title: string;
  readonly draft: keyof typeof SUITE_DRAFTS;
  readonly optional?: string;
  readonly formats: 'annotate' | 'assert';
}

export const PARTS: readonly Part[] = [
  { title: 'Draft 2020-12, the required tests', draft: '2020-12', formats: 'annotate' },
  { title: 'Draft 7, the required tests', draft: 'draft-07', formats: 'annotate' },
  {
    title: 'Draft 2020-12, the optional tests of formats, with formats asserted',
    draft: '2020-12',
    optional: 'format',
    formats: 'assert',
  },
];

/** Rows by keyword; `onWrong` hears of each test that is neither right nor refused. */
export function suiteRows(
  folder: string,
  { draft, optional, formats }: Part,
  tokens: Tokens,
  onWrong: (line: string) => void,
): ReadonlyMap<string, Row> {
  const remotes = suiteRemotes(folder);
  const rows = new Map<string, Row>();
  for (const { keyword, description, schema, tests } of suiteGroups(folder, draft, optional)) {
    for (const test of tests) {
      const { verdict, reason } = check(schema, test.data, tokens, { draft, remotes, formats });
      const right = (verdict === 'accepted') === test.valid;
      const kind = verdict === 'unsupported' ? 'refused' : right ? 'right' : 'wrong';
      if (kind === 'wrong') onWrong(`${keyword}: ${description}: ${test.description}: ${verdict}: ${reason ?? ''}`);
      const { tests: sum, ...row } = rows.get(keyword) ?? { tests: 0, right: 0, refused: 0, wrong: 0 };
      rows.set(keyword, { tests: sum + 1, ...row, [kind]: row[kind] + 1 });
    }
  }
  return rows;
}

export function total(rows: ReadonlyMap<string, Row>): Row {
  const sum = (pick: (row: Row) => number): number => [...rows.values()].reduce((all, row) => all + pick(row), 0);
  return {
    tests: sum((row) => row.tests),
    right: sum((row) => row.right),
    refused: sum((row) => row.refused),
    wrong: sum((row) => row.wrong),
  };
}

export function formatTable({ title }: Part, rows: ReadonlyMap<string, Row>): string {
  const line = (name: string, row: Row): string =>
    `| ${name} | ${row.tests} | ${row.right} | ${row.refused} | ${row.wrong} |`;
  return [
    `### ${title}`,
    '',
    '| | tests | right | refused | wrong |',
    '|---|--:|--:|--:|--:|',
    ...[...rows].map(([keyword, row]) => line(keyword, row)),
    line('**all**', total(rows)),
  ].join('\n');
}

const [BEGIN, END] = ['<!-- made by node cli/grammar.js --suite -->', '<!-- made until here -->'];

/** Puts the tables between the marks that the document has for them. */
export async function writeTables(file: string, tables: string): Promise<void> {
  const text = await readFile(file, 'utf8');
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin)
    throw new Error(`[grammar] ${file} has no lines "${BEGIN}" and "${END}" for the tables`);
  const whole = `${text.slice(0, begin + BEGIN.length)}\n\n${tables}\n\n${text.slice(end)}`;
  await writeFileAtomic(file, [new TextEncoder().encode(whole)]);
}
