import type { Frame, Stack } from '../../llm/grammar/automaton.ts';
import { forcedBytes } from '../../llm/grammar/forced.ts';
import { jsonSchema } from '../../llm/grammar/index.ts';
import { document } from '../../llm/grammar/json/value.ts';
import { Masks } from '../../llm/grammar/mask.ts';
import { rulesAt } from '../../llm/grammar/cfg/at.ts';
import { schemasAt } from '../../llm/grammar/schema/at.ts';
import { compile, type SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { advanceAll, start } from '../../llm/grammar/stack.ts';
import { shortened } from './clauses.ts';
import { jsonText } from './json.ts';
import { keysInWords } from './keys.ts';
import { END, inWords, mayCome, NEXT, nextInWords, type Next } from './next.ts';
import { placeOf } from './place.ts';
import { inReason, Reasons, type Question } from './reasons.ts';
import type { Tokens } from './tokens.ts';

const FORCED = 200;
/** What a schema says is shown up to so many characters. */
const SAID = 1000;
/** Rules of a grammar that are named, at most. */
const RULES = 20;

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

/** What there is to say of the beginning of a document. */
export interface Explanation {
  readonly lines: readonly string[];
  /** Whether some document of the grammar begins so. */
  readonly fits: boolean;
}

/** What may come behind the beginning of a document; where it breaks the grammar, what might have come. */
export function explain(grammar: Frame, prefix: string, tokens: Tokens): Explanation {
  const { read, refused, stack } = reading(grammar, prefix);
  const lines = [
    behind(read),
    ...(refused === null ? [] : [`  ${shown(refused)} may not come: no rule that is open goes on with it.`]),
    ...nextOf(stack, tokens),
    ...rules(stack),
  ];
  return { lines, fits: refused === null };
}

/** The same of documents of a schema, and why: by which keywords. */
export function explainSchema(schema: unknown, prefix: string, options: SchemaOptions, tokens: Tokens): Explanation {
  const { algebra, formula } = compile(schema, options);
  const grammar = document(algebra, formula, { whitespace: Infinity });
  if (!grammar) return { lines: [`No JSON value satisfies the schema: ${whyNothing(schema, options)}.`], fits: false };
  const { read, refused, stack } = reading(grammar, prefix);
  const json = behindAsJson(read);
  const reasons = new Reasons(schema, options, read);
  const lines = [
    behind(read),
    ...(refused === null ? [] : [`  ${shown(refused)} may not come: ${whyNot(refused, json, read, reasons)}.`]),
    ...nextOf(stack, tokens),
    ...others(stack, json, refused, reasons),
    ...keysInWords(schema, options, read, stack, json, reasons),
    ...placeInWords(schema, read, options),
  ];
  return { lines, fits: refused === null };
}

/** Which rules of a grammar are open, and what each of them goes on with. */
function rules(stack: Stack): string[] {
  const lines = (rulesAt(stack) ?? []).map(({ name, line, wants, ends }) => {
    const all = [...wants, ...(ends ? ['its end'] : [])].join(' or ');
    return `  ${name} (line ${line}): ${all}`;
  });
  // A rule may be at places that read alike.
  const open = [...new Set(lines)];
  if (open.length === 0) return [];
  const more = open.length > RULES ? [`  … and ${open.length - RULES} more`] : [];
  return ['Rules that are open, innermost first, and what they go on with:', ...open.slice(0, RULES), ...more];
}

/** The stack behind the beginning of a document of which nothing is asked. */
const behindAsJson = (read: string): Stack =>
  advanceAll(start(jsonSchema(true, { whitespace: Infinity })), encode(read))!;

/** Why no document of a schema exists. */
function whyNothing(schema: unknown, options: SchemaOptions): string {
  const reason = new Reasons(schema, options, '').why((stack) => stack !== null);
  return reason ? inReason(reason) : '#: false';
}

/** Where a text that is no document of the grammar leaves it, and what might have come there. */
export function refusal(grammar: Frame, text: string): string {
  const { read, refused, stack } = reading(grammar, text);
  if (refused === null) return `at the end: ${nextInWords(stack)} may come, not the end`;
  const place =
    read === '' ? 'at the beginning' : `at character ${read.length}, behind \`${[...read].slice(-40).join('')}\``;
  return `${place}: ${shown(refused)} may not come, but ${nextInWords(stack)}`;
}

/** By which keywords a JSON text is no document of a schema: what follows "because". */
export function whyRejected(schema: unknown, text: string, options: SchemaOptions): string {
  const { algebra, formula } = compile(schema, options);
  const grammar = document(algebra, formula, { whitespace: Infinity });
  if (!grammar) return `of ${whyNothing(schema, options)}`;
  const { read, refused } = reading(grammar, text);
  const next = refused ?? END;
  const json = behindAsJson(read);
  if (!mayCome(json, next)) return whyNoJson(next, read);
  return `of ${whyNot(next, json, read, new Reasons(schema, options, read))}`;
}

/** A character in words: those that would not be seen by their escapes. */
const shown = (character: string): string =>
  `\`${character < ' ' ? JSON.stringify(character).slice(1, -1) : character}\``;

const behind = (read: string): string =>
  read === ''
    ? 'At the beginning:'
    : `Behind \`${[...read].slice(-60).join('')}\` (characters so far: ${[...read].length}):`;

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
  if (!mayCome(json, next)) return whyNoJson(next, read);
  return inReason(reasons.why((stack) => stack !== null && mayCome(stack, next)));
}

/** The same where no JSON has it there. */
function whyNoJson(next: Next, read: string): string {
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
    lines.push(`  Not ${inWords(new Set(same))}: ${inReason(reason)}.`);
    left = left.filter((next) => !same.includes(next));
  }
  return lines;
}

/** Which schemas have a say at the end of a document's beginning. */
function placeInWords(schema: unknown, read: string, options: SchemaOptions): string[] {
  const { path } = placeOf(read);
  const schemas = schemasAt(schema, path, options);
  return [
    `Schemas that have a say at ${['$', ...path.map((step) => `[${JSON.stringify(step)}]`)].join('')}:`,
    ...schemas.map(({ place, keywords }) => `  ${place}: ${shortened(jsonText(keywords), SAID)}`),
    ...(schemas.length === 0 ? ['  none: any value is good'] : []),
  ];
}
