/** `node cli/grammar.js`: whether documents can be written under a schema's masks, what may come next, and random ones. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { contextFree, jsonSchema } from '../llm/grammar/index.ts';
import type { SchemaOptions } from '../llm/grammar/schema/compile.ts';
import type { Draft } from '../llm/grammar/schema/keywords.ts';
import { checkLine, linesOf } from './grammar/check.ts';
import { explain, explainSchema, type Explanation } from './grammar/explain.ts';
import { notesOf } from './grammar/notes.ts';
import { metaschemas, remotesOf } from './grammar/remotes.ts';
import { samples } from './grammar/sample.ts';
import { SUITE_BASE } from './grammar/suite.ts';
import { formatTable, PARTS, suiteRows, total, writeTables } from './grammar/table.ts';
import { loadTokens, readJson, readText, type Tokens } from './grammar/tokens.ts';
import { main } from './errors.ts';
import { ROOT } from './run.ts';

const count = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('a whole number from 0 up is needed.');
  return value;
};

const command = new Command('node cli/grammar.js')
  .description(
    'JSON Schema as token masks: what is written under the masks of a schema satisfies it, whatever the model.\n' +
      'Say one of --check, --explain, --sample and --suite.',
  )
  .argument('[file]', 'for --explain and --sample: a schema (.json), or a context-free grammar (.gbnf)')
  .option('--check <file>', 'a verdict for each line {"id", "schema", "instance"} of a JSONL file')
  .option('--explain <prefix>', 'what may come behind this beginning of a document, and why')
  .option('--sample <n>', 'so many random documents, one a line', count)
  .option('--suite <folder>', 'the official test suite of JSON Schema: tables by keyword, also into docs/grammar.md')
  .addOption(
    new Option('--formats <how>', 'formats are asserted, or annotations as the drafts have it')
      .choices(['annotate', 'assert'])
      .default('annotate'),
  )
  .addOption(
    new Option('--draft <draft>', 'that of schemas without $schema')
      .choices(['2020-12', 'draft-07'])
      .default('2020-12'),
  )
  .option('--remotes <folder>', 'documents that references may lead to; nothing is fetched')
  .option('--base <url>', 'the URL under which --remotes stands', SUITE_BASE)
  .option('--vocabulary <name>', 'cl100k, or a tokenizer.json', 'cl100k')
  .option(
    '--end <token>',
    'the token that ends a text, where no tokenizer_config.json beside the tokenizer.json says it',
  )
  .option('--seed <n>', 'of --sample', count, 0)
  .addHelpText(
    'after',
    `
--check prints {"id", "verdict", "reason"?, "compileMs", "maskUs"} for each line:
  accepted     every token of the instance (its JSON as JSON.stringify writes it, by the vocabulary's own tokenizer) is
               in its mask, and the end at the end; members may come in any order
  rejected     one is not: "reason" has the place, what was allowed there, and by which keywords
  unsupported  the schema is none, or has what is not followed exactly; "reason" has the place and the keyword
  error        the line could not be checked: "reason" says why, with its number
The exit status is 0 whatever the verdicts, but 1 where a line has the verdict "error".
compileMs is the time from the schema to the first mask, what is remembered of schemas before included; maskUs those of
each token after it, its taking and the next mask: {"mean", "p50", "p99", "max"} in microseconds.

--explain prints what may come behind the beginning of a document, and what of JSON may not, by the keywords that forbid it;
of a grammar the rules that are open, and what each of them goes on with. Where no document begins so, it says the same of
the place of the first character that may not come, and the exit status is 1.

--sample draws each token uniformly from those that are allowed, printable ones first, and closes what is open some 60 tokens
beyond the shortest document: this shows what the masks admit, not what a model would write. So where any text is allowed,
tokens that have nothing to do with each other follow one another. The same --seed gives the same documents.

Examples:
  node cli/grammar.js --check documents.jsonl --formats assert
  node cli/grammar.js --check suite.jsonl --remotes remotes --base http://localhost:1234/
  node cli/grammar.js --explain '{"name": "' schema.json
  node cli/grammar.js --sample 10 --seed 1 schema.json
  node cli/grammar.js --explain 'SELECT name FROM ' assets/grammars/sql.gbnf
`,
  );

interface GrammarOptions {
  readonly check?: string;
  readonly explain?: string;
  readonly sample?: number;
  readonly suite?: string;
  readonly formats: 'annotate' | 'assert';
  readonly draft: Draft;
  readonly remotes?: string;
  readonly base: string;
  readonly vocabulary: string;
  readonly end?: string;
  readonly seed: number;
}

await main(async () => {
  command.parse();
  const [file] = command.processedArgs as [string | undefined];
  const options = command.opts<GrammarOptions>();
  const tasks = (['check', 'explain', 'sample', 'suite'] as const).filter((name) => options[name] !== undefined);
  if (tasks.length !== 1) {
    throw new Error('[grammar] say one of --check, --explain, --sample and --suite; --help shows what they do');
  }
  const given = options.remotes === undefined ? [] : remotesOf(folder(options.remotes), options.base);
  const remotes = new Map([...metaschemas(), ...given]);
  const { formats, draft } = options;
  const tokens = await loadTokens(options.vocabulary, options.end);
  if (options.check !== undefined) return checkLines(options.check, tokens, { formats, draft, remotes });
  if (options.suite !== undefined) return suite(folder(options.suite), tokens);
  if (file === undefined) throw new Error(`[grammar] --${tasks[0]} needs the file of a schema, or of a grammar`);
  const schemaOptions = { formats, draft, remotes };
  const schema = file.endsWith('.gbnf') ? undefined : await readJson(file);
  if (schema !== undefined) for (const note of notesOf(schema, schemaOptions)) console.error(`note: schema ${note}`);
  if (options.explain !== undefined && schema !== undefined) {
    return show(explainSchema(schema, options.explain, schemaOptions, tokens));
  }
  const grammar =
    schema === undefined ? contextFree(await readText(file)) : jsonSchema(schema, { ...schemaOptions, whitespace: 0 });
  if (options.explain !== undefined) return show(explain(grammar, options.explain, tokens));
  for (const text of samples(grammar, options.sample!, options.seed, tokens)) console.log(text);
});

function show({ lines, fits }: Explanation): void {
  console.log(lines.join('\n'));
  if (!fits) process.exitCode = 1;
}

function folder(name: string): string {
  if (!existsSync(name)) throw new Error(`[grammar] there is no folder ${name}`);
  return name;
}

async function checkLines(file: string, tokens: Tokens, options: SchemaOptions): Promise<void> {
  let number = 0;
  let bad = 0;
  for await (const bytes of linesOf(file)) {
    number += 1;
    const line = checkLine(bytes, number, tokens, options);
    if (line === null) continue;
    if (line.verdict === 'error') bad += 1;
    console.log(JSON.stringify(line));
  }
  if (number === 0) console.error(`note: ${file} has no lines`);
  if (bad > 0) {
    console.error(`[grammar] ${file}: ${bad} of ${number} lines could not be checked; their verdict is "error"`);
    process.exitCode = 1;
  }
}

async function suite(folder: string, tokens: Tokens): Promise<void> {
  const tables = PARTS.map((part) => {
    const rows = suiteRows(folder, part, tokens, (line) => console.error(`wrong: ${line}`));
    const { tests, right, refused, wrong } = total(rows);
    console.log(`${part.title}: ${tests} tests, ${right} right, ${refused} refused, ${wrong} wrong`);
    return formatTable(part, rows);
  });
  console.log(`\n${tables.join('\n\n')}`);
  await writeTables(path.join(ROOT, 'docs/grammar.md'), tables.join('\n\n'));
}
