import type { Stack } from '../../llm/grammar/automaton.ts';
import { advance, complete } from '../../llm/grammar/stack.ts';

/** The bytes that may come next. */
export function nextBytes(stack: Stack): number[] {
  return Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => advance(stack, byte) !== null);
}

/** What may come next, in words: `"`, `-`, `0` to `9`, white space, the end. */
export function nextInWords(stack: Stack): string {
  const bytes = nextBytes(stack);
  const words: string[] = [];
  const shown = bytes.filter((byte) => byte > 0x20 && byte < 0x7f);
  for (let i = 0; i < shown.length;) {
    let last = i;
    while (shown[last + 1] === shown[last]! + 1) last += 1;
    const [from, to] = [shown[i]!, shown[last]!].map((byte) => `\`${String.fromCharCode(byte)}\``);
    words.push(
      ...(last - i < 2 ? shown.slice(i, last + 1).map((b) => `\`${String.fromCharCode(b)}\``) : [`${from} to ${to}`]),
    );
    i = last + 1;
  }
  if (bytes.includes(0x20)) words.push(bytes.includes(0x0a) ? 'white space' : 'a space');
  if (bytes.some((byte) => byte >= 0x80)) words.push('characters beyond ASCII');
  if (complete(stack)) words.push('the end');
  return words.join(', ');
}
