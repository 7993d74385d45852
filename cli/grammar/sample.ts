import { HostRandom, randomKey } from '../../engine/random.ts';
import type { Frame } from '../../llm/grammar/automaton.ts';
import { closingOf, Matcher } from '../../llm/grammar/matcher.ts';
import { start } from '../../llm/grammar/stack.ts';
import type { Vocabulary } from '../../llm/grammar/vocabulary.ts';
import type { Tokens } from './tokens.ts';

/** So many tokens may be written beyond what the shortest document takes. */
const ROOM = 60;
/** In this share of the steps nothing is begun that makes the document longer to close, where that can be. */
const HOLD = 0.3;
/** So many tokens are looked at for one that can be printed, and for one that leaves enough to close. */
const TRIES = 50;

/**
 * A document whose tokens are drawn from the masks, those that can be printed first, until the end of text. Where no token
 * is drawn behind which the document could be closed within `tokens`, it is closed by the shortest way.
 */
function randomDocument(vocabulary: Vocabulary, grammar: Frame, random: HostRandom, tokens: number): string {
  const closing = closingOf(grammar);
  const matcher = new Matcher(vocabulary, grammar);
  const bytes: number[] = [];
  for (let left = tokens; ; left -= 1) {
    const hold = random.uniform() < HOLD;
    if (hold && matcher.complete()) break;
    const before = closing.cost(matcher.stack);
    const may = before < left ? bits(matcher.mask()) : [];
    let token: number | null = null;
    for (let i = 0; i < TRIES && may.length > 0; i++) {
      const drawn = draw(vocabulary, may, random);
      const ends = vocabulary.end.includes(drawn);
      if (!ends && !matcher.accept(drawn)) throw new Error(`[grammar] token ${drawn} is in the mask and not accepted`);
      const after = ends ? 0 : closing.cost(matcher.stack);
      if (!ends) matcher.rollback(1);
      if (after < left) token = drawn;
      if (after < left && !(hold && after > before)) break;
    }
    if (token === null) {
      for (const byte of closing.bytes(matcher.stack)) bytes.push(byte);
      break;
    }
    if (!matcher.accept(token)) break;
    bytes.push(...vocabulary.bytes(token));
  }
  return new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(bytes));
}

/** One of the tokens: of a few that are drawn the first of printable ASCII, else the last. */
function draw(vocabulary: Vocabulary, tokens: readonly number[], random: HostRandom): number {
  let token = tokens[0]!;
  for (let i = 0; i < TRIES; i++) {
    token = tokens[random.below(tokens.length)]!;
    if (vocabulary.bytes(token).every((byte) => byte >= 0x20 && byte < 0x7f)) break;
  }
  return token;
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
  const least = closingOf(grammar).cost(start(grammar));
  if (least === Infinity)
    throw new Error('[grammar] no short document of this grammar was found, at whose length samples aim');
  for (let sample = 0; sample < count; sample++) {
    yield randomDocument(vocabulary, grammar, new HostRandom(randomKey(seed, 'grammar'), sample), least + ROOM);
  }
}
