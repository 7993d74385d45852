import { advanceAll, complete } from '../../llm/grammar/stack.ts';
import type { Matcher } from '../../llm/grammar/matcher.ts';
import type { Tokens } from './tokens.ts';

export interface Replay {
  readonly accepted: boolean;
  /** Of each token after the first: taking the one before and making its mask, in µs. */
  readonly steps: readonly number[];
}

/** Whether every token of a text is in the mask of its place, and the end at its end. `first` is the mask of the start. */
export function replay(matcher: Matcher, first: Uint32Array, { vocabulary, encode }: Tokens, text: string): Replay {
  const steps: number[] = [];
  let mask = first;
  for (const token of encode(text)) {
    if (!has(mask, token)) return refused(matcher, vocabulary.bytes(token), steps, text);
    const start = performance.now();
    if (!matcher.accept(token)) throw new Error(`[grammar] token ${token} is in the mask and not accepted, in ${text}`);
    mask = matcher.mask();
    steps.push((performance.now() - start) * 1000);
  }
  const ends = vocabulary.end.some((token) => has(mask, token));
  if (ends !== complete(matcher.stack)) throw new Error(`[grammar] the mask is wrong about the end of ${text}`);
  return { accepted: ends, steps };
}

function has(mask: Uint32Array, token: number): boolean {
  return ((mask[token >>> 5]! >>> (token & 31)) & 1) === 1;
}

function refused(matcher: Matcher, bytes: Uint8Array, steps: readonly number[], text: string): Replay {
  if (advanceAll(matcher.stack, bytes) === null) return { accepted: false, steps };
  throw new Error(`[grammar] a token that may come byte by byte is not in the mask, in ${text}`);
}
