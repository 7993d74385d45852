/** Names, numbers and words that texts are made of. */
import type { HostRandom } from '../../engine/index.ts';

const ADJECTIVES =
  'able amber ample ancient arctic autumn bare bitter black blue blunt bold brave brief bright brisk broad bronze calm careful cheap chief civil clean clear clever cold common cool coral crisp cubic curly daily damp dark deep dense distant double dry dusty eager early easy eastern equal exact faint fair famous fast final fine firm flat fond formal fresh frozen full gentle giant glad golden grand gray great green handy happy hard heavy hidden high hollow honest humble icy idle inner iron jolly junior keen kind large late lean level light little local lofty lone long loud loyal lucky marble mellow mild minor misty modern narrow'.split(
    ' ',
  );
const NOUNS =
  'acorn anchor anvil apple arch arrow badge barn basin basket beacon bell bench berry blanket boat bottle bridge broom brush bucket button cabin camel candle canyon carpet castle cedar chain chair cherry circle clock cloud coin comet copper cradle crane creek crown desert diary donkey dragon drum eagle engine falcon feather fence fiddle flag flute forest fountain fox garden gate glacier glove goose grape hammer harbor hat hill horse island jacket jar kettle key kite ladder lake lamp lantern leaf lemon lion mill mirror mountain needle nest oak ocean orchard otter owl paddle palace pearl pencil pepper piano pigeon pillow planet plum pocket pond puppet quilt rabbit ribbon river'.split(
    ' ',
  );

/** Different words "adjective-noun", as many as asked for. */
export function keyWords(random: HostRandom, count: number): string[] {
  const all = ADJECTIVES.length * NOUNS.length;
  if (count > all) throw new Error(`[ruler] ${count} words are needed, and there are ${all}`);
  return random
    .permutation(all)
    .slice(0, count)
    .map((i) => `${ADJECTIVES[i % ADJECTIVES.length]!}-${NOUNS[Math.floor(i / ADJECTIVES.length)]!}`);
}

const letters = (random: HostRandom, from: string, count: number) =>
  Array.from({ length: count }, () => from[random.below(from.length)]!).join('');

/** Seven digits. */
export const number = (random: HostRandom): string => String(1_000_000 + random.below(9_000_000));

/** A random UUID (version 4). */
export const uuid = (random: HostRandom): string =>
  '00000000-0000-4000-8000-000000000000'
    .replaceAll('0', () => letters(random, '0123456789abcdef', 1))
    .replace('-8', () => `-${letters(random, '89ab', 1)}`);

/** `count` results of `make`, no two alike. */
export function distinct(count: number, make: () => string): string[] {
  const found = new Set<string>();
  while (found.size < count) found.add(make());
  return [...found];
}

/** Random letters. */
export const coded = (random: HostRandom, count: number): string =>
  letters(random, 'abcdefghijklmnopqrstuvwxyz', count);

export const shuffled = <T>(random: HostRandom, items: readonly T[]): T[] =>
  random.permutation(items.length).map((i) => items[i]!);

/** A name that can be spoken. */
export function name(random: HostRandom, syllables: number): string {
  const parts = Array.from(
    { length: syllables },
    () => letters(random, 'bdfgklmnprstvz', 1) + letters(random, 'aeiou', 1),
  );
  const text = parts.join('') + letters(random, 'lnrst', 1);
  return text[0]!.toUpperCase() + text.slice(1);
}
