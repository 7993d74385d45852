/**
 * Pictures with captions for pre-training: the icons of eight emoji sets (SVG, one JSON file a package), an icon's name its
 * caption and a set a drawing style. Variants of one picture are dropped; `world.ts` says what of the rest is trained on (Node).
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { makeFolder, writeFileAtomic } from '../nn/files.ts';
import { fromBytes, type Picture } from './pictures.ts';

export const EMOJI_SETS = [
  'noto',
  'noto-v1',
  'fluent-emoji-flat',
  'fluent-emoji',
  'twemoji',
  'emojione',
  'fxemoji',
  'streamline-emojis',
] as const;
export type EmojiSet = (typeof EMOJI_SETS)[number];

interface Icon {
  body: string;
  /** An old name of another icon. */
  hidden?: boolean;
  left?: number;
  top?: number;
  width?: number;
  height?: number;
}
interface IconSet {
  icons: Record<string, Icon>;
  width: number;
  height: number;
}

const require = createRequire(import.meta.url);

async function readPackage<T>(set: EmojiSet, file: string): Promise<T> {
  return JSON.parse(await readFile(require.resolve(`@iconify-json/${set}/${file}`), 'utf8')) as T;
}

/** Why an icon is left out; `fail` is what the renderer cannot draw, `dup` looks like another. */
export type Drop = 'skin' | 'flag' | 'keycap' | 'gender' | 'dup' | 'fail';

/** Why an icon is left out by its name alone, if it is. `names` are the set's, `flags` those of its category of flags. */
function dropByName(set: EmojiSet, name: string, names: Set<string>, flags: Set<string>): Drop | undefined {
  if (/keycap|^\d+$/.test(name)) return 'keycap';
  // One picture in five colours of skin. The fluent sets mark them by the tone alone.
  const tone = /^(.+)-(light|medium-light|medium|medium-dark|dark)$/.exec(name);
  if (name.includes('skin-tone') || (set.startsWith('fluent') && tone && names.has(tone[1]))) return 'skin';
  // Countries' flags, which take more than a small model has; plain ones are objects like others.
  const plain = /^(black|white|chequered|triangular|rainbow)-flag$|^crossed-flags$|^flag-in-hole$/;
  if (flags.has(name) || (/(^|-)flags?(-|$)/.test(name) && !plain.test(name))) return 'flag';
  // Families and couples in all combinations, and men and women where a person does the same (two words stay: they are short).
  if (/^(family|couple-with-heart|kiss)-(man|woman|adult)|holding-hands/.test(name)) return 'gender';
  const person = name.replace(/^(man|woman)-(?=.+-)/, 'person-').replace(/^(men|women)-/, 'people-');
  if (person !== name && names.has(person)) return 'gender';
  return undefined;
}

/** Which icons of a set are drawn, their categories where the set has any, and how many are left out by their names, by reason. */
async function chooseIcons(
  set: EmojiSet,
): Promise<{ names: string[]; categories: Map<string, string>; dropped: Record<Drop, number> }> {
  const { icons } = await readPackage<IconSet>(set, 'icons.json');
  const { categories = {} } = await readPackage<{ categories?: Record<string, string[]> }>(set, 'metadata.json');
  // These two name a country's flag by the country, or in one word.
  const flags = new Set(set === 'streamline-emojis' || set === 'fxemoji' ? categories.Flags : undefined);
  const dropped: Record<Drop, number> = { skin: 0, flag: 0, keycap: 0, gender: 0, dup: 0, fail: 0 };
  const shown = new Set(Object.keys(icons).filter((name) => !icons[name].hidden));
  dropped.dup = Object.keys(icons).length - shown.size;
  const names = [...shown].filter((name) => {
    const why = dropByName(set, name, shown, flags);
    if (why) dropped[why]++;
    return why === undefined;
  });
  const all = Object.entries(categories).flatMap(([category, those]) => those.map((name) => [name, category] as const));
  return { names, categories: new Map(all), dropped };
}

/** Captions: names with spaces for hyphens. fxemoji writes words together; they are parted where other sets know the words. */
async function makeCaptions(set: EmojiSet, names: readonly string[]): Promise<string[]> {
  if (set !== 'fxemoji') return names.map((name) => name.replaceAll('-', ' '));
  const others = await Promise.all(EMOJI_SETS.filter((other) => other !== set).map(chooseIcons));
  const words = new Set(others.flatMap((other) => other.names.flatMap((name) => name.split('-'))));
  return names.map((name) =>
    name
      .split('-')
      .flatMap((part) => splitWords(part, words))
      .join(' '),
  );
}

/** The fewest known words, of at least two letters, that make up `text`; the text itself where none do. */
export function splitWords(text: string, words: ReadonlySet<string>): string[] {
  const best: (string[] | undefined)[] = [[]]; // best[i]: the first i letters
  for (let end = 1; end <= text.length; end++) {
    for (let start = 0; start <= end - 2; start++) {
      const before = best[start];
      const word = text.slice(start, end);
      if (before && words.has(word) && before.length + 1 < (best[end]?.length ?? Infinity))
        best[end] = [...before, word];
    }
  }
  return best[text.length] ?? [text];
}

/**
 * Draws SVG in a process of its own, because resvg aborts the whole process, uncatchably, on some icons. After that the next
 * drawing gets a new process.
 */
class Renderer {
  #child: ChildProcess | undefined;

  // Plain JavaScript as text: a module of ours could not be run by Node 20 before it is built.
  static readonly #CODE = `
    const { Resvg } = require(process.argv[1]);
    process.on('message', ({ svg, size }) => {
      const options = { fitTo: { mode: 'width', value: size }, background: 'white', font: { loadSystemFonts: false } };
      try {
        process.send({ pixels: new Resvg(svg, options).render().pixels });
      } catch (error) {
        process.send({ error: String(error) });
      }
    });
    process.send({ ready: true });`;

  async #start(): Promise<ChildProcess> {
    const child = spawn(process.execPath, ['-e', Renderer.#CODE, require.resolve('@resvg/resvg-js')], {
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      serialization: 'advanced',
    });
    await new Promise<void>((resolve, reject) => {
      child.once('message', () => resolve());
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`[emoji] the renderer ended with ${code} before it began`)));
    });
    child.removeAllListeners();
    return child;
  }

  /** (size, size, 3) bytes; undefined where the renderer fails or dies. */
  async render(svg: string, size: number): Promise<Uint8Array | undefined> {
    const child = (this.#child ??= await this.#start());
    const rgba = await new Promise<Uint8Array | undefined>((resolve) => {
      child.once('message', ({ pixels }: { pixels?: Uint8Array }) => resolve(pixels));
      child.once('exit', () => {
        this.#child = undefined;
        resolve(undefined);
      });
      child.send({ svg, size });
    });
    child.removeAllListeners();
    if (!rgba) return undefined;
    const rgb = new Uint8Array(size * size * 3);
    for (let i = 0; i < size * size; i++) {
      for (let c = 0; c < 3; c++) rgb[3 * i + c] = rgba[4 * i + c];
    }
    return rgb;
  }

  close(): void {
    this.#child?.kill();
    this.#child = undefined;
  }
}

/** An icon as an SVG text of a square, in whose middle it lies if it is not one itself. */
function toSvg(icon: Icon, set: IconSet): string {
  const { left = 0, top = 0, width = set.width, height = set.height } = icon;
  const side = Math.max(width, height);
  const box = [left - (side - width) / 2, top - (side - height) / 2, side, side].join(' ');
  const names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"';
  return `<svg ${names} viewBox="${box}">${icon.body}</svg>`;
}

export interface EmojiIcon {
  readonly set: EmojiSet;
  readonly name: string;
  readonly caption: string;
  /** The set's own word for what it belongs to, such as "Animals & Nature". */
  readonly category: string | null;
}

export interface EmojiPictures {
  readonly size: number;
  readonly icons: readonly EmojiIcon[];
  /** (icons, size, size, 3) bytes, on white. */
  readonly pixels: Uint8Array;
  /** Icons that the renderer could not draw, as "set/name". */
  readonly failed: readonly string[];
  readonly counts: Record<EmojiSet, Record<Drop | 'icons' | 'kept', number>>;
}

/** What is kept of a set beside its pixels. */
interface Index {
  /** Of this file's form and of the rules above: raise it when either changes. */
  version: 2;
  package: string;
  size: number;
  names: string[];
  captions: string[];
  categories: (string | null)[];
  failed: string[];
  counts: Record<Drop | 'icons' | 'kept', number>;
}

/**
 * All pictures of all sets, `size` pixels square. They are kept in the folder `cache`, one index and one file of pixels a set,
 * so that a second call only reads, and one that was interrupted goes on with the set it was at. `onProgress` hears how many
 * icons are done of how many.
 */
export async function emojiPictures(
  cache: string,
  { size = 64, onProgress = (() => {}) as (done: number, total: number) => void } = {},
): Promise<EmojiPictures> {
  await makeFolder(cache);
  const chosen = await Promise.all(EMOJI_SETS.map(chooseIcons));
  const total = chosen.reduce((sum, { names }) => sum + names.length, 0);
  const renderer = new Renderer();
  const parts: { index: Index; pixels: Uint8Array }[] = [];
  let done = 0;
  try {
    for (const [i, set] of EMOJI_SETS.entries()) {
      const before = done;
      const progress = (n: number) => onProgress(before + n, total);
      const { version } = await readPackage<{ version: string }>(set, 'package.json');
      const key = { version: 2, package: `${set} ${version}`, size } as const;
      const file = path.join(cache, `${set}-${size}`);
      parts.push((await readPart(file, key)) ?? (await drawPart(file, key, set, chosen[i], renderer, progress)));
      done += chosen[i].names.length;
      onProgress(done, total);
    }
  } finally {
    renderer.close();
  }
  const each = <T>(of: (index: Index, set: EmojiSet) => T[]) =>
    parts.flatMap(({ index }, i) => of(index, EMOJI_SETS[i]));
  return {
    size,
    icons: each((index, set) =>
      index.names.map((name, i) => ({ set, name, caption: index.captions[i], category: index.categories[i] })),
    ),
    pixels: Buffer.concat(parts.map(({ pixels }) => pixels)),
    failed: each((index, set) => index.failed.map((name) => `${set}/${name}`)),
    counts: Object.fromEntries(parts.map(({ index }, i) => [EMOJI_SETS[i], index.counts])) as EmojiPictures['counts'],
  };
}

type Key = Pick<Index, 'version' | 'package' | 'size'>;

/** A set from the cache, where it is there, whole and of the same package, size and rules. */
async function readPart(file: string, key: Key): Promise<{ index: Index; pixels: Uint8Array } | undefined> {
  try {
    const index = JSON.parse(await readFile(`${file}.json`, 'utf8')) as Index;
    const pixels = await readFile(`${file}.bin`);
    const same = index.version === key.version && index.package === key.package && index.size === key.size;
    return same && pixels.length === index.names.length * key.size ** 2 * 3 ? { index, pixels } : undefined;
  } catch {
    return undefined; // missing or damaged: it is drawn again
  }
}

async function drawPart(
  file: string,
  key: Key,
  set: EmojiSet,
  { names, categories, dropped }: Awaited<ReturnType<typeof chooseIcons>>,
  renderer: Renderer,
  progress: (done: number) => void,
): Promise<{ index: Index; pixels: Uint8Array }> {
  const icons = await readPackage<IconSet>(set, 'icons.json');
  const drawn = new Map<string, Uint8Array>();
  const seen = new Set<string>();
  const failed: string[] = [];
  for (const [i, name] of names.entries()) {
    const pixels = await renderer.render(toSvg(icons.icons[name], icons), key.size);
    const print = pixels && Buffer.from(pixels).toString('latin1');
    if (!print) failed.push(name);
    else if (!seen.has(print)) drawn.set(name, pixels);
    if (print) seen.add(print);
    progress(i + 1);
  }
  const kept = [...drawn.keys()];
  const counts = {
    ...dropped,
    dup: dropped.dup + names.length - failed.length - kept.length,
    fail: failed.length,
    icons: Object.keys(icons.icons).length,
    kept: kept.length,
  };
  const index: Index = {
    ...key,
    names: kept,
    captions: await makeCaptions(set, kept),
    categories: kept.map((name) => categories.get(name) ?? null),
    failed,
    counts,
  };
  const pixels = Buffer.concat([...drawn.values()]);
  // The index last: where it is there, so are the pixels.
  await writeFileAtomic(`${file}.bin`, [pixels]);
  await writeFileAtomic(`${file}.json`, [Buffer.from(JSON.stringify(index))]);
  return { index, pixels };
}

/** The default subject, emojione's grey tabby: expressions that training sees and such that it does not, by icon name. */
const SUBJECT = {
  shown: ['cat-face-with-tears-of-joy', 'crying-cat-face', 'grinning-cat-face', 'smiling-cat-face-with-heart-eyes'],
  unseen: [
    'kissing-cat-face',
    'pouting-cat-face',
    'weary-cat-face',
    'cat-face-with-wry-smile',
    'grinning-cat-face-with-smiling-eyes',
  ],
};

/** Draws the default subject. Captions leave out the word "face", as the sets that pre-training saw do. */
export async function subjectPictures(
  size = 64,
): Promise<Record<keyof typeof SUBJECT, { caption: string; picture: Picture }[]>> {
  const icons = await readPackage<IconSet>('emojione', 'icons.json');
  const renderer = new Renderer();
  const draw = async (name: string) => {
    const pixels = await renderer.render(toSvg(icons.icons[name], icons), size);
    if (!pixels) throw new Error(`[emoji] emojione's ${name} cannot be drawn`);
    const caption = name.replace('-face', '').replaceAll('-', ' ');
    return { caption, picture: fromBytes(pixels, size, size) };
  };
  try {
    const drawAll = async (names: string[]) => {
      const pictures = [];
      for (const name of names) pictures.push(await draw(name)); // one process, one at a time
      return pictures;
    };
    return { shown: await drawAll(SUBJECT.shown), unseen: await drawAll(SUBJECT.unseen) };
  } finally {
    renderer.close();
  }
}
