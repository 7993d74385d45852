import type { Stack } from '../../llm/grammar/automaton.ts';
import { keysAt } from '../../llm/grammar/schema/at.ts';
import type { SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { advanceAll } from '../../llm/grammar/stack.ts';
import { complement, intersect, union } from '../../llm/grammar/text/combine.ts';
import { DEAD, NONE, type Language, type Range } from '../../llm/grammar/text/language.ts';
import { words } from '../../llm/grammar/text/words.ts';
import { placeOf } from './place.ts';
import { inReason, type Question, type Reasons } from './reasons.ts';

/** Names of members that are tried one by one, at most. */
const NAMES = 30;
/** States of an automaton, or frames, that are looked at for an example, at most. */
const STATES = 2000;
/** Names that examples have where they can. */
const PLAIN = ['x', 'y', 'key', 'other'];
/** Characters that keys are looked for with. */
const CHARACTERS = Array.from({ length: 0x7f - 0x20 }, (_, i) => String.fromCharCode(0x7e - i)).filter(
  (character) => character !== '"' && character !== '\\',
);

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Which members may come next in an object, and why others may not: by name, by pattern, and all others. */
export function keysInWords(
  schema: unknown,
  options: SchemaOptions,
  read: string,
  stack: Stack,
  json: Stack,
  reasons: Reasons,
): string[] {
  const { path, keys, between, quoted } = placeOf(read);
  if (keys === null || quoted) return [];
  const lead = between ? '' : ',';
  const begins: Question = (stack) => stack !== null && advanceAll(stack, encode(`${lead}"`)) !== null;
  if (!begins(json) || !begins(stack)) return [];
  const { names, patterns } = keysAt(schema, between ? path : path.slice(0, -1), options);
  const named = words([...names, ...keys]);
  const may: string[] = [];
  const refused: string[] = [];
  const goesOn =
    (key: string): Question =>
    (stack) =>
      stack !== null && advanceAll(stack, encode(`${lead}${JSON.stringify(key)}:`)) !== null;
  const mayNot = (what: string, key: string): void => {
    refused.push(`  ${what}: ${keys.includes(key) ? 'it is there already' : inReason(reasons.why(goesOn(key)))}.`);
  };
  for (const name of names.slice(0, NAMES)) {
    if (goesOn(name)(stack)) may.push(JSON.stringify(name));
    else mayNot(`Not the key ${JSON.stringify(name)}`, name);
  }
  const kinds = may.length > 0 ? [may.join(', ')] : [];
  for (const [pattern, language] of patterns) {
    const key = exampleOf(intersect(language, complement(named)));
    if (key === null) continue;
    const those = `those that match ${pattern}, such as ${JSON.stringify(key)}`;
    if (goesOn(key)(stack)) kinds.push(those);
    else mayNot(`Not ${those}`, key);
  }
  const others = complement(union(named, ...patterns.values()));
  const plain = PLAIN.find((name) => holds(others, name)) ?? exampleOf(others);
  if (plain !== null && goesOn(plain)(stack)) kinds.push(`others, such as ${JSON.stringify(plain)}`);
  else {
    const key = keyFrom(advanceAll(stack, encode(`${lead}"`))!, others);
    if (key !== null) kinds.push(`others, such as ${JSON.stringify(key)}`);
    if (plain !== null) mayNot(`${key === null ? 'No others, such as' : 'Not'} ${JSON.stringify(plain)}`, plain);
  }
  return [...(kinds.length > 0 ? [`  Keys that may come: ${kinds.join('; ')}.`] : []), ...refused];
}

function holds(language: Language, text: string): boolean {
  let state = language.start;
  for (const character of text) if (state !== DEAD) state = language.step(state, character.codePointAt(0)!);
  return state !== DEAD && language.label(state) !== NONE;
}

/** A shortest text of a language that is not empty, of letters and digits where it can be. */
function exampleOf(language: Language): string | null {
  if (language.start === DEAD) return null;
  const texts = new Map([[language.start, '']]);
  for (const [state, text] of texts) {
    if (text !== '' && language.label(state) !== NONE) return text;
    if (texts.size > STATES) return null;
    for (const range of language.ranges(state)) {
      if (!texts.has(range.state)) texts.set(range.state, text + characterOf(range));
    }
  }
  return null;
}

function characterOf({ from, to }: Range): string {
  const nice = ['a', '0', 'A', '_', '!'].map((character) => character.codePointAt(0)!);
  return String.fromCodePoint(nice.find((codePoint) => from <= codePoint && codePoint <= to) ?? from);
}

/** A key of these that may come behind its first quote: the shortest, where one is found. */
function keyFrom(stack: Stack, keys: Language): string | null {
  const known = new Set([stack.frame]);
  const open = [{ stack, text: '' }];
  for (const { stack, text } of open) {
    if (known.size > STATES) return null;
    if (text !== '' && holds(keys, text) && advanceAll(stack, encode('":'))) return text;
    for (const character of CHARACTERS) {
      const next = advanceAll(stack, encode(character));
      if (!next || known.has(next.frame)) continue;
      known.add(next.frame);
      open.push({ stack: next, text: text + character });
    }
  }
  return null;
}
