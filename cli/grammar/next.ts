import type { Stack } from '../../llm/grammar/automaton.ts';
import { advanceAll, complete } from '../../llm/grammar/stack.ts';

/** The end of a document, among the characters that may come. */
export const END = Symbol('the end');
export type Next = string | typeof END;

/** What JSON is built with: each is named by itself. */
const SIGNS = [...'"\\[]{}:,'];
const OTHERS = Array.from({ length: 0x7f - 0x21 }, (_, i) => String.fromCharCode(0x21 + i)).filter(
  (character) => !SIGNS.includes(character),
);
/** One stands for each kind of white space, and for all that is beyond ASCII, of which others may come where these may not. */
const NEWLINE = '\n';
const BEYOND: readonly string[] = ['é', 'ж', '中', '😀'];

/** What is tried, signs first. */
export const NEXT: readonly Next[] = [...SIGNS, ...OTHERS, ' ', NEWLINE, ...BEYOND, END];

const encoder = new TextEncoder();

export function mayCome(stack: Stack, next: Next): boolean {
  return next === END ? complete(stack) : advanceAll(stack, encoder.encode(next)) !== null;
}

/** What may come next, in words: `"`, `0` to `9`, white space, the end. */
export function nextInWords(stack: Stack): string {
  return inWords(new Set(NEXT.filter((next) => mayCome(stack, next))));
}

export function inWords(some: ReadonlySet<Next>): string {
  const words = SIGNS.filter((sign) => some.has(sign)).map((sign) => `\`${sign}\``);
  const runs = OTHERS.map((character) => (some.has(character) ? character : ' ')).join('');
  for (const [run] of runs.matchAll(/[^ ]+/g)) {
    if (run.length < 4) words.push(...[...run].map((character) => `\`${character}\``));
    else words.push(`\`${run[0]}\` to \`${run.at(-1)}\``);
  }
  if (some.has(' ')) words.push(some.has(NEWLINE) ? 'white space' : 'a space');
  if (BEYOND.some((character) => some.has(character))) words.push('characters beyond ASCII');
  if (some.has(END)) words.push('the end');
  return words.join(', ');
}
