import type { Uniform } from './automaton.ts';
import { checkOptions, shown } from './options.ts';
import { PLAIN_LIMIT, plainSuffixes } from './plain.ts';
import { readRanks } from './tokenizer/ranks.ts';
import { readTokenizer } from './tokenizer/json.ts';
import { trieOf, type Trie } from './trie.ts';
import { UniformTokens } from './uniform.ts';

/** Bits of 32 tokens a word: bit i % 32 of word i / 32 is token i. */
export type Mask = Uint32Array;

/** A token by its id, or by its text where it is special. */
export type TokenName = number | string;

/**
 * The tokens of a model as bytes. Special tokens (control, padding, roles) are never part of a document; those that end a
 * text are possible where the document is complete.
 */
export class Vocabulary {
  /** Ids are below it; ids without a token may be among them. */
  readonly size: number;
  /** Of the ids that end a text. */
  readonly end: readonly number[];
  /** The tokens of which documents are made, those that are neither special nor empty. */
  readonly trie: Trie;
  private readonly tokens: readonly (Uint8Array | null)[];
  private readonly special: ReadonlySet<number>;
  /** The tokens of plain string content, by their number of code points. */
  private readonly plainTokens: number[][] = [];
  private readonly slices = new Map<number, Mask>();
  private readonly uniforms = new Map<string, UniformTokens>();
  /** The most bytes that a token has of which documents are made. */
  readonly longest: number;
  /** The most code points that a token of plain string content has. */
  readonly longestPlain: number;

  private constructor(tokens: readonly (Uint8Array | null)[], special: ReadonlySet<number>, end: readonly number[]) {
    this.size = tokens.length;
    this.tokens = tokens;
    this.special = special;
    this.end = end;
    this.trie = trieOf(tokens.map((token, id) => (special.has(id) ? null : token)));
    this.longest = this.trie.depth.reduce((most, depth) => Math.max(most, depth), 0);
    for (const id of this.trie.ids) {
      const codePoints = plainSuffixes(tokens[id]!)[0]!;
      if (codePoints < PLAIN_LIMIT) (this.plainTokens[codePoints] ??= []).push(id);
    }
    this.longestPlain = Math.max(0, this.plainTokens.length - 1);
  }

  /** From the bytes of each token, by id: null (or no bytes) where an id has none. Those of `end` are special too. */
  static of(
    tokens: readonly (Uint8Array | null)[],
    { special = [], end = [] }: { readonly special?: Iterable<number>; readonly end?: readonly number[] } = {},
  ): Vocabulary {
    const apart = new Set([...special, ...end]);
    for (const id of apart) {
      if (tokens[id] === undefined) {
        throw new Error(`[grammar] special token ${id} is not among the vocabulary's ids, 0 to ${tokens.length - 1}`);
      }
    }
    tokens.forEach((token, id) => {
      if (token !== null && token.length > LONGEST_TOKEN) {
        throw new Error(
          `[grammar] token ${id} has ${token.length} bytes; a vocabulary's tokens have at most ${LONGEST_TOKEN}`,
        );
      }
    });
    return new Vocabulary(tokens, apart, [...end]);
  }

  /**
   * Of a rank file (a token in base64 and its id a line), as OpenAI's byte-level vocabularies are published, with the special
   * tokens by their text and the texts of those that end a text. Rank files do not hold these.
   */
  static fromRanks(
    text: string,
    special: Readonly<Record<string, number>> = CL100K_SPECIAL,
    end: readonly string[] = ['<|endoftext|>'],
  ): Vocabulary {
    const tokens = readRanks(text);
    for (const [name, id] of Object.entries(special)) {
      while (tokens.length <= id) tokens.push(null);
      tokens[id] = new TextEncoder().encode(name);
    }
    const ends = end.map((name) => {
      const id = special[name];
      if (id === undefined) throw new Error(`[grammar] "${name}" ends a text and is not among the special tokens`);
      return id;
    });
    return Vocabulary.of(tokens, { special: Object.values(special), end: ends });
  }

  /**
   * Of a parsed Hugging Face `tokenizer.json`: byte-level BPE, or SentencePiece's pieces (▁ for a space, <0xNN> for bytes). `end`
   * names the tokens that end a text, by text or id; they stand in the model's other files. Spaces that the decoder drops
   * at the very beginning of a text are kept: documents follow a prompt.
   */
  static fromTokenizer(tokenizer: unknown, options: { readonly end: readonly TokenName[] }): Vocabulary {
    const where = 'Vocabulary.fromTokenizer(tokenizer, options)';
    checkOptions(where, options, ['end']);
    const { end } = options;
    if (!Array.isArray(end)) {
      throw new Error(`[grammar] ${where}: end is ${shown(end)}; it must be a list of tokens, such as ['</s>']`);
    }
    const { tokens, special, named } = readTokenizer(tokenizer);
    const ends = (end as readonly TokenName[]).map((name) => {
      const id = typeof name === 'number' ? name : named.get(name);
      if (id === undefined) throw new Error(`[grammar] the tokenizer has no token "${name}" to end a text with`);
      return id;
    });
    return Vocabulary.of(tokens, { special, end: ends });
  }

  /** The bytes of a token; none where the id has no token. */
  bytes(id: number): Uint8Array {
    return this.tokens[id] ?? NO_BYTES;
  }

  /** Whether a token is special: no part of any document. */
  isSpecial(id: number): boolean {
    return this.special.has(id);
  }

  /** The number of words of a mask. */
  get words(): number {
    return (this.size + 31) >>> 5;
  }

  /** The tokens of plain string content (see `plainSuffixes`) of at most so many code points. Not to be written to. */
  plain(codePoints: number): Mask {
    const most = Math.min(codePoints, this.longestPlain);
    let slice = this.slices.get(most);
    if (slice === undefined) {
      slice = new Uint32Array(this.words);
      for (let count = 1; count <= most; count += 1) {
        for (const id of this.plainTokens[count] ?? []) slice[id >>> 5]! |= 1 << (id & 31);
      }
      this.slices.set(most, slice);
    }
    return slice;
  }

  /** What text makes of the tokens whose characters are told apart so. */
  uniform({ key, first }: Uniform): UniformTokens {
    let tokens = this.uniforms.get(key);
    if (tokens === undefined) {
      if (this.uniforms.size >= UNIFORMS) this.uniforms.clear();
      this.uniforms.set(key, (tokens = new UniformTokens(this.trie, this.words, first)));
    }
    return tokens;
  }
}

/** For so many kinds of uniform text it is remembered what they make of the tokens. */
const UNIFORMS = 32;

const LONGEST_TOKEN = 65_535;
const NO_BYTES = new Uint8Array(0);

/** The special tokens of cl100k_base. */
export const CL100K_SPECIAL: Readonly<Record<string, number>> = {
  '<|endoftext|>': 100257,
  '<|fim_prefix|>': 100258,
  '<|fim_middle|>': 100259,
  '<|fim_suffix|>': 100260,
  '<|endofprompt|>': 100276,
};
