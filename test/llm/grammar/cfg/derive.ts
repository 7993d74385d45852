import type { Expression, Grammar } from '../../../../llm/grammar/cfg/parse.ts';

/** A number from 0 on and below `bound`. */
export type Random = (bound: number) => number;

/** A generator of pseudo-random numbers (Marsaglia 2003, "Xorshift RNGs"). */
export function random(seed: number): Random {
  let state = seed;
  return (bound) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % bound;
  };
}

/**
 * Random texts of a grammar, written from its rules: nothing of the automaton takes part. Behind `depth` calls in each
 * other the shortest way to an end is taken. A difference is drawn from its left side until it has none of the texts
 * that its right side enumerates, in capitals or not.
 */
export function deriver(grammar: Grammar): (draw: Random, depth: number) => string {
  const rules = heightsOf(grammar);
  const height = remembered((one) => heightOf(one, rules));
  const excluded = remembered((one) => enumerated(one, grammar));
  const of = (one: Expression, left: number): string => {
    switch (one.kind) {
      case 'class': {
        // Mostly what is common, so that names are letters and texts are readable.
        const common = one.ranges.filter(({ to }) => to < 0x80);
        const ranges = common.length > 0 && draw(8) > 0 ? common : one.ranges;
        const { from, to } = ranges[draw(ranges.length)]!;
        const codePoint = from + draw(to - from + 1);
        return codePoint >= 0xd800 && codePoint < 0xe000 ? 'é' : String.fromCodePoint(codePoint);
      }
      case 'sequence':
        return one.of.map((part) => of(part, left)).join('');
      case 'choice': {
        const least = Math.min(...one.of.map(height));
        const ways = left > 0 ? one.of : one.of.filter((way) => height(way) === least);
        return of(ways[draw(ways.length)]!, left);
      }
      case 'repeat': {
        const more = left > 0 || height(one.of) === 0 ? Math.min(one.most - one.least, draw(3)) : 0;
        return Array.from({ length: one.least + more }, () => of(one.of, left)).join('');
      }
      case 'difference': {
        const without = excluded(one.without);
        for (;;) {
          const text = of(one.of, left);
          if (!without.has(text.toLowerCase())) return text;
        }
      }
      case 'call':
        return of(grammar.rules[one.rule]!.body, left - 1);
    }
  };
  let draw: Random;
  return (by, depth) => {
    draw = by;
    return of(grammar.rules[grammar.root]!.body, depth);
  };
}

function remembered<T>(of: (one: Expression) => T): (one: Expression) => T {
  const known = new Map<Expression, T>();
  return (one) => {
    let value = known.get(one);
    if (value === undefined) known.set(one, (value = of(one)));
    return value;
  };
}

/** By rule: how many calls in each other its shortest way takes. */
function heightsOf(grammar: Grammar): number[] {
  let heights = grammar.rules.map(() => Infinity);
  for (;;) {
    const next = grammar.rules.map(({ body }) => heightOf(body, heights));
    if (next.every((height, rule) => height === heights[rule])) return heights;
    heights = next;
  }
}

function heightOf(one: Expression, heights: readonly number[]): number {
  switch (one.kind) {
    case 'class':
      return 0;
    case 'sequence':
      return Math.max(0, ...one.of.map((part) => heightOf(part, heights)));
    case 'choice':
      return Math.min(...one.of.map((way) => heightOf(way, heights)));
    case 'repeat':
      return one.least === 0 ? 0 : heightOf(one.of, heights);
    case 'difference':
      return heightOf(one.of, heights);
    case 'call':
      return heights[one.rule]! + 1;
  }
}

/** The texts of choices and sequences of characters, in small letters; of a class only the last character. */
function enumerated(one: Expression, grammar: Grammar): Set<string> {
  switch (one.kind) {
    case 'class':
      return new Set([String.fromCodePoint(one.ranges.at(-1)!.to).toLowerCase()]);
    case 'sequence':
      return one.of
        .map((part) => enumerated(part, grammar))
        .reduce((a, b) => new Set([...a].flatMap((x) => [...b].map((y) => x + y))), new Set(['']));
    case 'choice':
      return new Set(one.of.flatMap((way) => [...enumerated(way, grammar)]));
    case 'call':
      return enumerated(grammar.rules[one.rule]!.body, grammar);
    default:
      throw new Error(`the texts of a ${one.kind} are not enumerated`);
  }
}

/** `text` with one or two characters left out, doubled, or replaced by another of its own or of `others`. */
export function changed(text: string, others: string, draw: Random): string {
  const characters = Array.from(text);
  for (let times = 1 + draw(2); times > 0; times--) {
    const at = draw(characters.length + 1);
    const pool = draw(2) === 0 ? Array.from(others) : characters;
    const fresh = pool.length === 0 ? [] : [pool[draw(pool.length)]!];
    characters.splice(at, draw(2), ...(draw(3) === 0 ? [] : fresh));
  }
  return characters.join('');
}
