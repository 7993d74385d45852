import { HostRandom, randomKey } from '../../engine/random.ts';
import type { Frame, Stack } from '../../llm/grammar/automaton.ts';
import { Closing } from '../../llm/grammar/budget.ts';
import { Matcher } from '../../llm/grammar/matcher.ts';
import { start } from '../../llm/grammar/stack.ts';
import type { Vocabulary } from '../../llm/grammar/vocabulary.ts';
import type { Tokens } from './tokens.ts';

/** How a random document is written. */
interface Walk {
  /** In this share of the steps a token that begins with what closes or goes on is taken, where one may come. */
  readonly closing: number;
  /** Tokens at most; more where the shortest document needs them. */
  readonly tokens: number;
}

const CLOSING: ReadonlySet<number> = new Set([...'"]},:'].map((character) => character.charCodeAt(0)));

/** A document whose tokens are drawn from the masks, until the end of text is drawn. */
export function randomDocument(
  vocabulary: Vocabulary,
  grammar: Frame,
  random: HostRandom,
  { closing, tokens: most }: Walk,
): string {
  const close = new Closing();
  const least = close.cost(start(grammar));
  const budget = { tokens: Math.max(most, least), closing: (stack: Stack) => close.cost(stack) };
  const matcher = new Matcher(vocabulary, grammar, budget);
  const bytes: number[] = [];
  for (;;) {
    const tokens = bits(matcher.mask());
    const near = tokens.filter((token) => vocabulary.end.includes(token) || CLOSING.has(vocabulary.bytes(token)[0]!));
    const among = near.length > 0 && random.uniform() < closing ? near : tokens;
    const token = among[random.below(among.length)]!;
    if (vocabulary.end.includes(token)) return new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(bytes));
    if (!matcher.accept(token)) throw new Error(`[grammar] token ${token} is in the mask and not accepted`);
    bytes.push(...vocabulary.bytes(token));
  }
}

/** The tokens of a mask. */
function bits(mask: Uint32Array): number[] {
  const tokens: number[] = [];
  mask.forEach((word, index) => {
    for (let rest = word; rest !== 0; rest &= rest - 1) tokens.push(index * 32 + 31 - Math.clz32(rest & -rest));
  });
  return tokens;
}

/** `count` random documents of a grammar. */
export function* samples(grammar: Frame, count: number, seed: number, { vocabulary }: Tokens): Iterable<string> {
  for (let sample = 0; sample < count; sample++) {
    const random = new HostRandom(randomKey(seed, 'grammar'), sample);
    yield randomDocument(vocabulary, grammar, random, { closing: 0.3, tokens: 1000 });
  }
}
