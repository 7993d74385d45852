import type { Frame, Stack } from '../../llm/grammar/automaton.ts';
import { forcedBytes } from '../../llm/grammar/forced.ts';
import { jsonSchema } from '../../llm/grammar/index.ts';
import { document } from '../../llm/grammar/json/value.ts';
import { Masks } from '../../llm/grammar/mask.ts';
import { namesAt, schemasAt } from '../../llm/grammar/schema/at.ts';
import { compile, type SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { advanceAll, start } from '../../llm/grammar/stack.ts';
import { END, inWords, mayCome, NEXT, nextInWords, type Next } from './next.ts';
import { placeOf } from './place.ts';
import { reasonInWords, Reasons, type Question, type Reason } from './reasons.ts';
import type { Tokens } from './tokens.ts';

const FORCED = 200;
/** Names of members that are tried one by one, at most. */
const NAMES = 30;

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** As much of a prefix as the grammar takes, in whole characters, and the stack behind it. */
export interface Reading {
  readonly read: string;
  /** The character that may not come, if any. */
  readonly refused: string | null;
  readonly stack: Stack;
}

export function reading(grammar: Frame, prefix: string): Reading {
  let stack = start(grammar);
  let read = '';
  for (const character of prefix) {
    const next = advanceAll(stack, encode(character));
    if (!next) return { read, refused: character, stack };
    stack = next;
    read += character;
  }
  return { read, refused: null, stack };
}

/** What may come behind the beginning of a document; where it breaks the grammar, what might have come. */
export function explain(grammar: Frame, prefix: string, tokens: Tokens): string[] {
  const { read, refused, stack } = reading(grammar, prefix);
  return [behind(read), ...(refused === null ? [] : [`  \`${refused}\` may not come.`]), ...nextOf(stack, tokens)];
}

/** The same of documents of a schema, and why: by which keywords. */
export function explainSchema(schema: unknown, prefix: string, options: SchemaOptions, tokens: Tokens): string[] {
  const { algebra, formula } = compile(schema, options);
  const grammar = document(algebra, formula, { whitespace: Infinity });
  if (!grammar) return [`No JSON value satisfies the schema: ${whyNothing(schema, options)}.`];
  const { read, refused, stack } = reading(grammar, prefix);
  const json = behindAsJson(read);
  const reasons = new Reasons(schema, options, read);
  const lines = [behind(read)];
  if (refused !== null) lines.push(`  \`${refused}\` may not come: ${whyNot(refused, json, read, reasons)}.`);
  lines.push(
    ...nextOf(stack, tokens),
    ...others(stack, json, refused, reasons),
    ...keys(schema, options, read, stack, json),
  );
  return [...lines, ...placeInWords(schema, read, options)];
}

/** The stack behind the beginning of a document of which nothing is asked. */
const behindAsJson = (read: string): Stack =>
  advanceAll(start(jsonSchema(true, { whitespace: Infinity })), encode(read))!;

/** Why no document of a schema exists. */
function whyNothing(schema: unknown, options: SchemaOptions): string {
  const reason = new Reasons(schema, options, '').why((stack) => stack !== null);
  return reason ? reasonInWords(reason) : '#: false';
}

/** Where a text that is no document of the grammar leaves it, and what might have come there. */
export function refusal(grammar: Frame, text: string): string {
  const { read, refused, stack } = reading(grammar, text);
  if (refused === null) return `at the end: ${nextInWords(stack)} may come, not the end`;
  const place = `at character ${read.length}, behind \`${[...read].slice(-40).join('')}\``;
  return `${place}: \`${refused}\` may not come, but ${nextInWords(stack)}`;
}

/** By which keywords a JSON text is no document of a schema. */
export function whyRejected(schema: unknown, text: string, options: SchemaOptions): string {
  const { algebra, formula } = compile(schema, options);
  const grammar = document(algebra, formula, { whitespace: Infinity });
  if (!grammar) return whyNothing(schema, options);
  const { read, refused } = reading(grammar, text);
  return whyNot(refused ?? END, behindAsJson(read), read, new Reasons(schema, options, read));
}

const behind = (read: string): string =>
  read === '' ? 'At the beginning:' : `Behind \`${[...read].slice(-60).join('')}\`:`;

function nextOf(stack: Stack, { vocabulary }: Tokens): string[] {
  const lines = [`  What may: ${nextInWords(stack)}.`];
  const mask = new Uint32Array(vocabulary.words);
  new Masks(vocabulary).fill(mask, stack);
  const tokens = Array.from({ length: vocabulary.size }, (_, token) => token).filter(
    (token) => (mask[token >>> 5]! >>> (token & 31)) & 1,
  );
  const some = tokens.slice(0, 8).map((token) => JSON.stringify(new TextDecoder().decode(vocabulary.bytes(token))));
  lines.push(`  Tokens: ${tokens.length} of ${vocabulary.size}: ${some.join(' ')}${tokens.length > 8 ? ' …' : ''}`);
  const forced = new TextDecoder().decode(forcedBytes(stack, FORCED));
  if (forced !== '') lines.push(`  Nothing else can come than \`${forced}\`${forced.length === FORCED ? ' …' : ''}.`);
  return lines;
}

/** Why a character may not come that would be next. */
function whyNot(next: Next, json: Stack, read: string, reasons: Reasons): string {
  if (mayCome(json, next)) {
    const reason = reasons.why((stack) => stack !== null && mayCome(stack, next));
    return reason ? reasonInWords(reason) : UNTOLD;
  }
  const { keys, between, quoted } = placeOf(read);
  if (next === '"' && quoted && between && keys) {
    const key = JSON.parse(`"${/"((?:[^"\\]|\\.)*)$/s.exec(read)![1]!}"`) as string;
    if (keys.includes(key)) return `the key ${JSON.stringify(key)} is there already`;
  }
  if (typeof next === 'string') {
    const number = /\d[\d.eE+-]*$/.exec(read)?.[0];
    if (!quoted && number !== undefined && /^(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d*)?$/.test(number + next)) {
      return 'numbers are finite, and have at most 21 digits before the point, 24 behind it and 3 in the exponent';
    }
    const half = /\\ud[89ab][\da-f]{2}(\\(u[\da-f]{0,3})?)?$/i.test(read) || /\\ud?$/i.test(read);
    if (quoted && half) return 'half a surrogate is no character';
  }
  return 'that is no JSON';
}

const UNTOLD = 'by what the schema says in all, no part of which can be named';

/** What else may not come though it may in JSON, by the reasons. */
function others(stack: Stack, json: Stack, refused: Next | null, reasons: Reasons): string[] {
  const lines: string[] = [];
  let left = NEXT.filter((next) => next !== refused && mayCome(json, next) && !mayCome(stack, next));
  while (left.length > 0) {
    const [first] = left;
    const question =
      (next: Next): Question =>
      (stack) =>
        stack !== null && mayCome(stack, next);
    const reason = reasons.why(question(first!));
    const same = left.filter((next) => next === first || (reason && reasons.explains(reason, question(next))));
    lines.push(`  Not ${inWords(new Set(same))}: ${reason ? reasonInWords(reason) : UNTOLD}.`);
    left = left.filter((next) => !same.includes(next));
  }
  return lines;
}

/** Which members may come next in an object. */
function keys(schema: unknown, options: SchemaOptions, read: string, stack: Stack, json: Stack): string[] {
  const { path, keys, between, quoted } = placeOf(read);
  if (keys === null || quoted) return [];
  const lead = between ? '' : ',';
  if (!mayCome(json, lead || '"') || !mayCome(stack, lead || '"')) return [];
  const reasons = new Reasons(schema, options, read);
  const names = namesAt(schema, between ? path : path.slice(0, -1), options);
  const other = ['x', 'y', 'key', 'other'].find((name) => !names.includes(name) && !keys.includes(name));
  const may: string[] = [];
  const refused: string[] = [];
  for (const name of [...names.slice(0, NAMES), ...(other === undefined ? [] : [other])]) {
    const shown = name === other ? `others, such as ${JSON.stringify(name)}` : JSON.stringify(name);
    const bytes = encode(`${lead}${JSON.stringify(name)}:`);
    const goesOn = (stack: Stack | null): boolean => stack !== null && advanceAll(stack, bytes) !== null;
    if (goesOn(stack)) may.push(shown);
    else if (keys.includes(name)) refused.push(`  Not the key ${shown}: it is there already.`);
    else refused.push(`  ${name === other ? 'No' : 'Not the key'} ${shown}: ${inWordsOr(reasons.why(goesOn))}.`);
  }
  return [...(may.length > 0 ? [`  Keys that may come: ${may.join(', ')}.`] : []), ...refused];
}

const inWordsOr = (reason: Reason | null): string => (reason ? reasonInWords(reason) : UNTOLD);

/** Which schemas have a say at the end of a document's beginning. */
function placeInWords(schema: unknown, read: string, options: SchemaOptions): string[] {
  const { path } = placeOf(read);
  const schemas = schemasAt(schema, path, options);
  return [
    `Schemas that have a say at ${['$', ...path.map((step) => `[${JSON.stringify(step)}]`)].join('')}:`,
    ...schemas.map(({ place, keywords }) => `  ${place}: ${JSON.stringify(keywords)}`),
    ...(schemas.length === 0 ? ['  none: any value is good'] : []),
  ];
}
