import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { reason } from '../../nn/files.ts';
import { decodeUtf8 } from '../../nn/utf8.ts';
import { document } from '../../llm/grammar/json/value.ts';
import { Matcher } from '../../llm/grammar/matcher.ts';
import { Unsupported } from '../../llm/grammar/refusal.ts';
import { compile, type SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { SchemaError } from '../../llm/grammar/schema/errors.ts';
import { refusal, whyRejected } from './explain.ts';
import { jsonText, membersOf } from './json.ts';
import { replay } from './replay.ts';
import type { Tokens } from './tokens.ts';

export interface Verdict {
  readonly verdict: 'accepted' | 'rejected' | 'unsupported';
  readonly reason?: string;
  /** From the schema to the first mask, in ms. */
  readonly compileMs: number;
  /** Of the masks after the first, in µs; null where there are none. */
  readonly maskUs: { readonly mean: number; readonly p50: number; readonly p99: number; readonly max: number } | null;
}

/** Whether an instance can be written under the masks of a schema: members in any order, as much white space as it has. */
export function check(schema: unknown, instance: unknown, tokens: Tokens, options: SchemaOptions): Verdict {
  return checkText(schema, jsonText(instance), tokens, options);
}

/** The same of an instance as it is written. */
function checkText(schema: unknown, text: string, tokens: Tokens, options: SchemaOptions): Verdict {
  const start = performance.now();
  const elapsed = (): number => round(performance.now() - start);
  try {
    const { algebra, formula } = compile(schema, options);
    const grammar = document(algebra, formula, { whitespace: Infinity });
    if (!grammar) {
      const reason = 'no JSON value satisfies the schema';
      return { verdict: 'rejected', reason, compileMs: elapsed(), maskUs: null };
    }
    const matcher = new Matcher(tokens.vocabulary, grammar);
    const first = matcher.mask();
    const compileMs = elapsed();
    const { accepted, steps } = replay(matcher, first, tokens, text);
    const maskUs = steps.length === 0 ? null : statistics(steps);
    return accepted
      ? { verdict: 'accepted', compileMs, maskUs }
      : { verdict: 'rejected', reason: refusal(grammar, text), compileMs, maskUs };
  } catch (error) {
    if (!(error instanceof Unsupported || error instanceof SchemaError)) throw error;
    return { verdict: 'unsupported', reason: error.message, compileMs: elapsed(), maskUs: null };
  }
}

/** A line {"id", "schema", "instance"} that could not be checked, or its verdict. */
export type Line = { readonly id: unknown } & (Verdict | { readonly verdict: 'error'; readonly reason: string });

/** The lines of a file, as bytes: U+2028 and the like, which may stand in JSON's texts, end none. */
export async function* linesOf(file: string): AsyncIterable<Uint8Array> {
  try {
    const input = createReadStream(file, { encoding: 'latin1' });
    for await (const line of createInterface({ input, crlfDelay: Infinity })) yield Buffer.from(line, 'latin1');
  } catch (error) {
    throw new Error(`[file] ${file} cannot be read: ${reason(error)}`, { cause: error });
  }
}

/** What there is to say of the line with this number, from 1 on, of a JSONL file; null of one that is blank. */
export function checkLine(bytes: Uint8Array, number: number, tokens: Tokens, options: SchemaOptions): Line | null {
  let id: unknown = number;
  try {
    const text = decodeUtf8(bytes, (what) => {
      throw new Error(`it ${what}`);
    });
    if (text.trim() === '') return null;
    const line: unknown = JSON.parse(text);
    if (typeof line === 'object' && line !== null && 'id' in line) id = line.id;
    if (typeof line !== 'object' || line === null || !('schema' in line) || !('instance' in line)) {
      throw new Error('no object with "schema" and "instance"');
    }
    const instance = instanceText(line.instance, text);
    const verdict = checkText(line.schema, instance, tokens, options);
    if (verdict.verdict !== 'rejected') return { id, ...verdict };
    const because = whyRejected(line.schema, instance, options);
    return { id, ...verdict, reason: `${verdict.reason}, because ${because}` };
  } catch (error) {
    return { id, verdict: 'error', reason: `line ${number}: ${(error as Error).message}` };
  }
}

/** What is checked of a line's instance: its JSON, as it is written where an object has a key twice, which no value has. */
function instanceText(instance: unknown, line: string): string {
  const members = membersOf(line);
  for (const [i, { key, twice }] of members.entries()) {
    if (members.findIndex((other) => other.key === key) < i)
      throw new Error(`the key ${JSON.stringify(key)} comes twice`);
    if (key === 'schema' && twice !== null)
      throw new Error(`the key ${JSON.stringify(twice)} comes twice in the schema`);
  }
  const text = jsonText(instance);
  const written = members.find(({ key }) => key === 'instance')!;
  return written.twice === null ? text : written.text;
}

export function statistics(values: readonly number[]): { mean: number; p50: number; p99: number; max: number } {
  const sorted = values.toSorted((a, b) => a - b);
  const quantile = (share: number): number => round(sorted[Math.ceil(share * sorted.length) - 1]!);
  const mean = round(sorted.reduce((sum, value) => sum + value, 0) / sorted.length);
  return { mean, p50: quantile(0.5), p99: quantile(0.99), max: round(sorted.at(-1)!) };
}

const round = (value: number): number => Number(value.toFixed(3));
