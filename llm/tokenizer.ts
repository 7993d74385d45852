/**
 * Tokenizers: cl100k_base and any `tokenizer.json`, as one. Encoding is the libraries'; what bytes a token stands for is read
 * where grammars read it (llm/grammar/vocabulary.ts). Nothing here imports from Node.
 */
import { readJson, readSettings } from '../nn/model_files.ts';
import type { ModelFiles } from '../nn/model_files.ts';
import { CL100K_SPECIAL, Vocabulary } from './grammar/vocabulary.ts';
import type { TokenName } from './grammar/vocabulary.ts';
import { Pieces } from './pieces.ts';

export interface EncodeOptions {
  /** Special tokens in the text are special. By default they are text like any other: what users write cannot be one. */
  readonly special?: boolean;
  /** Added tokens that are not special, such as `<think>`, are tokens where the text has their names (the default). */
  readonly added?: boolean;
  /** The tokens that the model wants in front of a text come in front. */
  readonly begin?: boolean;
}

/** What is different from one library to the other. */
interface Codec {
  /** Ids of a text, in which names of tokens stand for them: of all added ones, of those that are not special, of none. */
  encode(text: string, names: 'all' | 'added' | 'none'): number[];
  /** Added tokens that are not special, by their names; without those of white space, which control nothing. */
  readonly added: ReadonlyMap<string, number>;
  /** What stands in front of a text. */
  readonly begin: () => readonly number[];
}

export class Tokenizer {
  /** The bytes of each token; which are special, and which end a text. */
  readonly vocabulary: Vocabulary;
  /**
   * Tokens that say something beside the text, by their names: special ones, and added ones such as `<think>`. What users
   * write must not become one.
   */
  readonly control: ReadonlyMap<string, number>;
  readonly #codec: Codec;
  /** Texts are encoded as if a space stood in front (SentencePiece): it is taken away again. */
  readonly #spaced: boolean;

  constructor(vocabulary: Vocabulary, codec: Codec) {
    this.vocabulary = vocabulary;
    this.#codec = codec;
    this.control = new Map([...specialTokens(vocabulary), ...codec.added]);
    const [first] = codec.encode('a', 'none');
    this.#spaced = first !== undefined && vocabulary.bytes(first)[0] === 0x20;
  }

  /** Ids are below it. */
  get size(): number {
    return this.vocabulary.size;
  }

  /** The ids that end a text. */
  get ends(): readonly number[] {
    return this.vocabulary.end;
  }

  /** The ids of a text. Unpaired surrogates become U+FFFD. */
  readonly encode = (text: string, { special = false, added = true, begin = false }: EncodeOptions = {}): number[] => {
    const ids = text === '' ? [] : this.#codec.encode(wellFormed(text), special ? 'all' : added ? 'added' : 'none');
    return begin ? [...this.#codec.begin(), ...ids] : ids;
  };

  /** The bytes of a token; none where the id has no token. */
  bytes(id: number): Uint8Array {
    return this.vocabulary.bytes(id);
  }

  /** A text of its own; `special`: with the special tokens in it. What is not UTF-8 becomes U+FFFD. */
  decode(ids: Iterable<number>, { special = false } = {}): string {
    const stream = new TextStream(this, { special });
    let text = '';
    for (const id of ids) text += stream.push(id);
    text += stream.end();
    return this.#spaced && text.startsWith(' ') ? text.slice(1) : text;
  }

  /** Throws where the tokenizer has ids that a model of so many doesn't have. Models may have more: tables are padded. */
  requireFit(vocabulary: number, model = 'the model'): void {
    if (this.size > vocabulary)
      throw new Error(
        `[tokenizer] the tokenizer has ${this.size} tokens, ${model} ${vocabulary}: is it another model's?`,
      );
  }
}

function specialTokens(vocabulary: Vocabulary): [string, number][] {
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  const ids = Array.from({ length: vocabulary.size }, (_, id) => id).filter((id) => vocabulary.isSpecial(id));
  return ids.map((id): [string, number] => [utf8.decode(vocabulary.bytes(id)), id]).filter(([name]) => name !== '');
}

/** Text out of tokens as they come: whole characters alone. A text that goes on: a space in front stays. */
export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #special: boolean;
  readonly #pieces = new Pieces();
  /** The bytes of a character that isn't whole yet are at most 3. */
  #pending: number[] = [];

  constructor(tokenizer: Tokenizer, { special = false } = {}) {
    this.#tokenizer = tokenizer;
    this.#special = special;
  }

  /** The text that is sure by now. */
  push(id: number): string {
    const { vocabulary } = this.#tokenizer;
    if (vocabulary.isSpecial(id) && !this.#special) return '';
    const bytes = vocabulary.bytes(id);
    const text = this.#pieces.push(bytes).text;
    this.#pending = text === '' ? [...this.#pending, ...bytes] : openEnd(bytes);
    return text;
  }

  /** What is left when nothing more comes: U+FFFD for a character that isn't whole. */
  end(): string {
    const left = this.#pending.length > 0 ? '\uFFFD' : '';
    this.#pending = [];
    return this.#pieces.end() + left;
  }
}

/** The bytes at the end that begin a character and don't complete it. */
function openEnd(bytes: Uint8Array): number[] {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back]!;
    if ((byte & 0xc0) === 0x80) continue;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return length > back ? [...bytes.subarray(bytes.length - back)] : [];
  }
  return [];
}

/** Pairs of surrogates are characters; single ones are none. */
const wellFormed = (text: string): string =>
  text.replace(/[\uD800-\uDBFF][\uDC00-\uDFFF]|[\uD800-\uDFFF]/g, (match) => (match.length === 2 ? match : '\uFFFD'));

let known: Promise<Tokenizer> | null = null;

/** OpenAI's cl100k_base; made once. */
export const cl100k = (): Promise<Tokenizer> => (known ??= makeCl100k());

async function makeCl100k(): Promise<Tokenizer> {
  const { encode } = await import('gpt-tokenizer/encoding/cl100k_base');
  const { default: ranks } = await import('gpt-tokenizer/bpeRanks/cl100k_base');
  const utf8 = new TextEncoder();
  const tokens: (Uint8Array | null)[] = Array.from(ranks, (token) =>
    token === undefined ? null : typeof token === 'string' ? utf8.encode(token) : Uint8Array.from(token),
  );
  const ids = Object.values(CL100K_SPECIAL);
  while (tokens.length <= Math.max(...ids)) tokens.push(null);
  for (const [name, id] of Object.entries(CL100K_SPECIAL)) tokens[id] = utf8.encode(name);
  const plain = (text: string) => encode(text, { disallowedSpecial: new Set() });
  // The library finds allowed tokens at the beginning of a text alone.
  const names = /(<\|(?:endoftext|fim_prefix|fim_middle|fim_suffix|endofprompt)\|>)/;
  const whole = (text: string) => text.split(names).flatMap((part) => CL100K_SPECIAL[part] ?? plain(part));
  return new Tokenizer(Vocabulary.of(tokens, { special: ids, end: [CL100K_SPECIAL['<|endoftext|>']!] }), {
    encode: (text, names) => (names === 'all' ? whole(text) : plain(text)),
    added: new Map(),
    begin: () => [],
  });
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
}
interface TokenizerJson {
  readonly added_tokens?: readonly AddedToken[];
  readonly model: Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}

/**
 * Of a parsed `tokenizer.json`, and the `tokenizer_config.json` that may stand beside it. `ends` are the tokens that end a
 * text, by id or by text. Throws on files whose tokens are not bytes.
 */
export async function tokenizerOf(
  json: unknown,
  { config = {}, ends }: { readonly config?: object; readonly ends: readonly TokenName[] },
): Promise<Tokenizer> {
  const vocabulary = Vocabulary.fromTokenizer(json, { end: ends }); // checks the file
  const library = await import('@huggingface/tokenizers');
  const file: TokenizerJson = { added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...(json as TokenizerJson) }; // prettier-ignore
  const make = (file: TokenizerJson) => {
    try {
      return new library.Tokenizer(file, config);
    } catch (error) {
      throw new Error(`[tokenizer] tokenizer.json: ${(error as Error).message}`, { cause: error });
    }
  };
  const all = file.added_tokens ?? [];
  const named = (tokens: readonly AddedToken[]) => new Set(tokens.map(({ content }) => content));
  const special = all.filter(({ special }) => special);
  const added = all.filter(({ special, content }) => !special && !/^[\s▁]*$/.test(content));
  const plain = make(without(file, named([...special, ...added])));
  const once = (makeIt: () => InstanceType<typeof library.Tokenizer>) => {
    let made: InstanceType<typeof library.Tokenizer> | null = null;
    return () => (made ??= makeIt());
  };
  const withAdded = added.length === 0 ? () => plain : once(() => make(without(file, named(special))));
  const whole = once(() => make(file));
  const of = { all: whole, added: withAdded, none: () => plain };
  const ids = (names: keyof typeof of, text: string, add_special_tokens = false): number[] => of[names]().encode(text, { add_special_tokens }).ids; // prettier-ignore
  return new Tokenizer(vocabulary, {
    encode: (text, names) => ids(names, text),
    added: new Map(added.map(({ content, id }) => [content, id])),
    begin: () => {
      const [bare, full] = [ids('all', 'a'), ids('all', 'a', true)];
      const at = full.findIndex((_, i) => bare.every((id, n) => full[i + n] === id));
      return full.slice(0, Math.max(0, at));
    },
  });
}

/** The file without tokens of these names, so that no text is taken for one; what is unknown keeps its id. */
function without(file: TokenizerJson, names: ReadonlySet<string>): TokenizerJson {
  const { vocab, merges, unk_token: unknown } = file.model as { vocab: unknown; merges?: readonly (string | readonly [string, string])[]; unk_token?: string }; // prettier-ignore
  const joined = (merge: string | readonly [string, string]) => (typeof merge === 'string' ? merge.replace(' ', '') : merge.join('')); // prettier-ignore
  // Half a pair of surrogates: no text that is encoded has one.
  const hidden = (name: string) => (names.has(name) ? `\ud800${name}` : name);
  return {
    ...file,
    added_tokens: (file.added_tokens ?? []).filter(({ content }) => !names.has(content)),
    model: {
      ...file.model,
      vocab: Array.isArray(vocab)
        ? (vocab as [string, number][]).map(([piece, score]) => [hidden(piece), score])
        : Object.fromEntries(Object.entries(vocab as object).map(([token, id]) => [hidden(token), id])),
      ...(typeof unknown === 'string' ? { unk_token: hidden(unknown) } : {}),
      ...(merges ? { merges: merges.filter((merge) => !names.has(joined(merge))) } : {}),
    },
  };
}

/** The tokenizer in a model's folder. Which tokens end a text is told by the files for generation, the model and it, in this order. */
export async function readTokenizer(files: ModelFiles): Promise<Tokenizer> {
  const json = await readJson(files, 'tokenizer.json');
  const config = await readSettings(files, 'tokenizer_config.json');
  const named = [await readSettings(files, 'generation_config.json'), await readSettings(files, 'config.json')].map((file) => file['eos_token_id']); // prettier-ignore
  const text = (token: unknown) => (token as { content?: unknown } | null | undefined)?.content ?? token;
  const found = [...named, text(config['eos_token'])].find((end) => end !== undefined && end !== null) ?? [];
  return tokenizerOf(json, { config, ends: [found].flat() as TokenName[] });
}
