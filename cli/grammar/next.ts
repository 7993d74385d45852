import type { Stack } from '../../llm/grammar/automaton.ts';
import { advance, complete } from '../../llm/grammar/stack.ts';

/** What JSON is built with: each is named by itself. */
const SIGNS = '"\\[]{}:,';

/** What may come next, in words: `"`, `0` to `9`, white space, the end. */
export function nextInWords(stack: Stack): string {
  const may = (byte: number): boolean => advance(stack, byte) !== null;
  const words = [...SIGNS].filter((sign) => may(sign.charCodeAt(0))).map((sign) => `\`${sign}\``);
  const others = Array.from({ length: 0x7f - 0x21 }, (_, i) => String.fromCharCode(0x21 + i)).filter(
    (character) => !SIGNS.includes(character),
  );
  const runs = others.map((character) => (may(character.charCodeAt(0)) ? character : ' ')).join('');
  for (const [run] of runs.matchAll(/[^ ]+/g)) {
    if (run.length < 4) words.push(...[...run].map((character) => `\`${character}\``));
    else words.push(`\`${run[0]}\` to \`${run.at(-1)}\``);
  }
  if (may(0x20)) words.push(may(0x0a) ? 'white space' : 'a space');
  if (Array.from({ length: 128 }, (_, i) => 128 + i).some(may)) words.push('characters beyond ASCII');
  if (complete(stack)) words.push('the end');
  return words.join(', ');
}
