import { advance, complete } from '../../llm/grammar/stack.ts';
import type { Matcher } from '../../llm/grammar/matcher.ts';
import { nextInWords } from './next.ts';
import type { Tokens } from './tokens.ts';

export interface Replay {
  /** Why the text is rejected: the place, and what was allowed there. */
  readonly rejected: string | null;
  /** Of each token after the first: taking the one before and making its mask, in µs. */
  readonly steps: readonly number[];
}

/** Whether every token of a text is in the mask of its place, and the end at its end. `first` is the mask of the start. */
export function replay(matcher: Matcher, first: Uint32Array, { vocabulary, encode }: Tokens, text: string): Replay {
  const steps: number[] = [];
  let mask = first;
  let written = 0;
  for (const token of encode(text)) {
    if (!has(mask, token)) return { rejected: refusal(matcher, vocabulary.bytes(token), text, written), steps };
    const start = performance.now();
    if (!matcher.accept(token)) throw new Error(`[grammar] token ${token} is in the mask and not accepted, in ${text}`);
    mask = matcher.mask();
    steps.push((performance.now() - start) * 1000);
    written += vocabulary.bytes(token).length;
  }
  const ends = vocabulary.end.some((token) => has(mask, token));
  if (ends !== complete(matcher.stack)) throw new Error(`[grammar] the mask is wrong about the end of ${text}`);
  return { rejected: ends ? null : `at the end: ${nextInWords(matcher.stack)} may come, not the end`, steps };
}

function has(mask: Uint32Array, token: number): boolean {
  return ((mask[token >>> 5]! >>> (token & 31)) & 1) === 1;
}

function refusal(matcher: Matcher, bytes: Uint8Array, text: string, written: number): string {
  let stack = matcher.stack;
  for (const [index, byte] of bytes.entries()) {
    const next = advance(stack, byte);
    if (next) {
      stack = next;
      continue;
    }
    const all = new TextEncoder().encode(text);
    const before = new TextDecoder().decode(all.subarray(0, written + index));
    const after = new TextDecoder().decode(all.subarray(written + index));
    const place = `at character ${before.length}, behind \`${before.slice(-40)}\``;
    return `${place}: \`${after.slice(0, 1)}\` may not come, but ${nextInWords(stack)}`;
  }
  throw new Error(`[grammar] a token that may come byte by byte is not in the mask, in ${text}`);
}
