/**
 * What of the emoji a model is trained on, by which words, and what it never sees: fixed before any training.
 *
 * Held out are three sets' whole families of cats, which are DreamBooth's subjects, and pairs of a name and a set whose name
 * other sets show and whose set other names show: a model that has understood both can compose them (Node).
 */
import { createHash } from 'node:crypto';
import { HostRandom, randomKey } from '../engine/index.ts';
import { emojiPictures } from './emoji.ts';
import type { EmojiIcon, EmojiPictures, EmojiSet } from './emoji.ts';
import { fromBytes } from './pictures.ts';
import type { Picture } from './pictures.ts';

/** The word for each set in captions: short, and none that is an emoji's name. */
export const STYLES: Readonly<Record<EmojiSet, string>> = {
  noto: 'noto',
  'noto-v1': 'blob',
  'fluent-emoji-flat': 'flat',
  'fluent-emoji': 'fluent',
  twemoji: 'twitter',
  emojione: 'joy',
  fxemoji: 'firefox',
  'streamline-emojis': 'line',
};

/** Sets whose cats are held out: a grey tabby, an orange blob without a nose, a bright yellow one with black outlines. */
export const SUBJECTS = ['emojione', 'noto-v1', 'streamline-emojis'] as const satisfies readonly EmojiSet[];
export type Subject = (typeof SUBJECTS)[number];

/** All sets' names, or those of faces and animals alone, for a machine without a GPU. */
export type WorldName = 'all' | 'faces-and-animals';

/** Pairs of name and set held out of the whole. */
const PAIRS = 200;
/** Further sets that a held-out pair's name is shown in, at least. */
const SHOWN_ELSEWHERE = 2;

/** Sets that name icons as Unicode does; the others' names are mapped to theirs. */
const UNICODE: readonly EmojiSet[] = ['noto', 'noto-v1', 'fluent-emoji-flat', 'fluent-emoji', 'twemoji'];
const NARROW: readonly string[] = ['Smileys & Emotion', 'Animals & Nature'];
/** What fxemoji draws is told apart by no name that others use ("smiling face" ten times over). */
const NOT_NARROW: EmojiSet = 'fxemoji';

export interface WorldPicture {
  readonly set: EmojiSet;
  /** The caption's word for the set. */
  readonly style: string;
  /** The icon's name in the set, and the name that it shares with other sets' pictures of the same. */
  readonly icon: string;
  readonly name: string;
  readonly picture: () => Picture;
}

export interface World {
  readonly training: readonly WorldPicture[];
  /** Pairs of name and set that training leaves out: what composition and the autoencoder are judged by. */
  readonly heldOut: readonly WorldPicture[];
  /** The subjects' pictures, by set. */
  readonly subjects: Readonly<Record<Subject, readonly WorldPicture[]>>;
  /** Identifies the pictures, their names and what is held out. */
  readonly key: string;
  readonly record: Readonly<Record<string, unknown>>;
}

/** "crying cat", or with the style "crying cat, joy style". */
export const captionOf = ({ name, style }: Pick<WorldPicture, 'name' | 'style'>, styled: boolean): string =>
  styled ? `${name}, ${style} style` : name;

/** Whether a picture shows a cat, whole or its face. */
export const isCat = ({ name }: Pick<WorldPicture, 'name'>): boolean => /(^| )cat( |$)/.test(name);

/** `count` of a world's items, or all there are, at equal distances: its sets stand one after the other. */
export function spread<T>(items: readonly T[], count: number): T[] {
  const length = Math.min(count, items.length);
  return Array.from({ length }, (_, i) => items[Math.floor((i * items.length) / length)]!);
}

/** The emoji, rendered where the folder `cache` has them not, as a world. */
export async function loadWorld(
  cache: string,
  { name, size, onProgress }: { name: WorldName; size: number; onProgress?: (done: number, total: number) => void },
): Promise<World> {
  return makeWorld(await emojiPictures(cache, { size, ...(onProgress ? { onProgress } : {}) }), name);
}

/** Divides pictures into a world. The same pictures give the same one; `pairs` are held out. */
export function makeWorld(
  { icons, pixels, size }: Pick<EmojiPictures, 'icons' | 'pixels' | 'size'>,
  world: WorldName,
  pairs = PAIRS,
): World {
  const shared = sharedNames(icons);
  const narrow = new Set(
    icons.filter(({ set, category }) => UNICODE.includes(set) && NARROW.includes(category ?? '')).map(shared),
  );
  const bytes = 3 * size * size;
  const pictures = icons.flatMap((icon, i): WorldPicture[] => {
    const { set } = icon;
    const name = shared(icon);
    if (world === 'faces-and-animals' && (set === NOT_NARROW || !narrow.has(name))) return [];
    const picture = () => fromBytes(pixels.subarray(i * bytes, (i + 1) * bytes), size, size);
    return [{ set, style: STYLES[set], icon: icon.name, name, picture }];
  });
  const subjectOf = (picture: WorldPicture) => SUBJECTS.find((one) => one === picture.set && isCat(picture));
  const subjects = Object.fromEntries(
    SUBJECTS.map((subject) => [subject, pictures.filter((picture) => subjectOf(picture) === subject)]),
  ) as unknown as World['subjects'];
  const seen = pictures.filter((picture) => !subjectOf(picture));
  const out = holdOut(seen, pairs);
  const hash = createHash('sha256').update(pixels);
  for (const part of [seen.filter((one) => !out.has(one)), [...out]])
    hash.update(JSON.stringify(part.map(({ set, icon, name, style }) => [set, icon, name, style])));
  const key = hash.digest('hex');
  const training = seen.filter((one) => !out.has(one));
  return {
    training,
    heldOut: seen.filter((one) => out.has(one)),
    subjects,
    key,
    record: {
      world,
      size,
      names: new Set(training.map(({ name }) => name)).size,
      training: training.length,
      heldOut: out.size,
      subjects: Object.fromEntries(SUBJECTS.map((subject) => [subject, subjects[subject].length])),
      sets: Object.fromEntries(
        Object.keys(STYLES).map((set) => [set, training.filter((one) => one.set === set).length]),
      ),
      sha256: key,
    },
  };
}

/** One picture of each of `count` names, each name of sets enough beside; drawn by a fixed seed. */
function holdOut(pictures: readonly WorldPicture[], count: number): Set<WorldPicture> {
  const byName = new Map<string, WorldPicture[]>();
  for (const picture of pictures) byName.set(picture.name, [...(byName.get(picture.name) ?? []), picture]);
  const order = new HostRandom(randomKey(0, 'held-out pairs')).permutation(pictures.length);
  const names = new Set<string>();
  const out = new Set<WorldPicture>();
  for (const i of order) {
    const picture = pictures[i]!;
    const { name, set } = picture;
    const same = byName.get(name)!;
    const others = new Set(same.filter((one) => one.set !== set).map((one) => one.set));
    const alone = same.every((one) => one === picture || one.set !== set); // else its set would show the name all the same
    if (out.size === count || names.has(name) || !alone || others.size < SHOWN_ELSEWHERE) continue;
    names.add(name);
    out.add(picture);
  }
  if (out.size < count)
    throw new Error(`[world] only ${out.size} of ${count} pairs can be held out: too few names are in several sets`);
  return out;
}

/**
 * The name that an icon shares with other sets' pictures of the same: Unicode's, where there is one with or without the word
 * "face", or a number behind it.
 */
function sharedNames(icons: readonly EmojiIcon[]): (icon: EmojiIcon) => string {
  const known = new Set(icons.filter(({ set }) => UNICODE.includes(set)).map(({ caption }) => caption));
  return ({ set, caption }) => {
    if (UNICODE.includes(set)) return caption;
    const bare = caption.replace(/ \d$/, '');
    const forms = [bare, bare.replace(/ face\b/, ''), `${bare} face`];
    return forms.find((form) => known.has(form)) ?? bare;
  };
}
