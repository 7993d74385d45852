/** Texts that say nothing of what is asked, with something in them that does. */
import type { HostRandom } from '../../engine/index.ts';

const NOISE = [
  'Rain falls on the roof.',
  'A slow train passes the mill.',
  'The tea is warm again.',
  'Someone opens a window and shuts it.',
];

/** `count` sentences, the same few over and over, in parts between which something can be put. */
export const noise = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${NOISE[i % NOISE.length]!} `);

/** Words of a text with the space behind them. */
export const wordsOf = (text: string): string[] => text.match(/\S+\s*/g) ?? [];

/**
 * `count` words of a text, from a random one on and around its end, in parts that end with sentences or lines.
 */
export function prose(words: readonly string[], count: number, random: HostRandom): string[] {
  const start = random.below(words.length);
  const parts: string[] = [];
  let part = '';
  for (let i = 0; i < count; i++) {
    part += words[(start + i) % words.length]!;
    if (/[.!?]\s+$|\n$/.test(part)) {
      parts.push(part);
      part = '';
    }
  }
  return part === '' ? parts : [...parts, `${part.trimEnd()} `];
}

/** Puts sentences between the parts, each at a random depth; `ordered`: in their order. */
export function hide(
  parts: readonly string[],
  sentences: readonly string[],
  random: HostRandom,
  { ordered = false } = {},
): string {
  const depths = sentences.map(() => random.uniform());
  if (ordered) depths.sort((a, b) => a - b);
  const before = parts.map(() => '');
  before.push('');
  depths.forEach((depth, i) => (before[Math.round(depth * parts.length)] += `${sentences[i]!} `));
  return [...parts.flatMap((part, i) => [before[i]!, part]), before.at(-1)!].join('').trimEnd();
}
