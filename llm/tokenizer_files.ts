/** Tokenizers that come in other files than `tokenizer.json`, turned into that: llama2.c's and those inside GGUF. */
import type { Gguf } from '../nn/gguf.ts';

/** A piece of SentencePiece's, and how willingly it is merged. */
export interface Piece {
  readonly text: string;
  readonly score: number;
  readonly kind: 'normal' | 'unknown' | 'control' | 'user' | 'unused' | 'byte';
}

export interface TokenizerFile {
  /** As `tokenizer.json`. */
  readonly json: object;
  readonly ends: readonly number[];
  /** The template of chats, where the file has one. */
  readonly template: string | null;
}

const SPACE = '▁';

/**
 * SentencePiece's BPE (Kudo & Richardson, 2018): of all neighbours whose joint text is a piece, those of the best score are
 * merged first. As ranks: every way to put a piece together, by falling score.
 */
function sentencePiece(pieces: readonly Piece[], { begin, prefix }: { begin: number | null; prefix: boolean }): object {
  const known = new Set(pieces.filter(({ kind }) => kind === 'normal').map(({ text }) => text));
  const single = (text: string) => [...text].length === 1;
  const merges = pieces
    .map((piece, id) => ({ ...piece, id }))
    .filter(({ kind, text }) => kind === 'normal' && !single(text))
    .sort((a, b) => b.score - a.score || a.id - b.id)
    .flatMap(({ text }) => {
      const characters = [...text];
      return characters
        .slice(1)
        .map((_, i) => [characters.slice(0, i + 1).join(''), characters.slice(i + 1).join('')] as const)
        .filter((parts) => parts.every((part) => known.has(part) || single(part)));
    });
  const unknown = pieces.find(({ kind }) => kind === 'unknown')?.text ?? null;
  const replace = { type: 'Replace', pattern: { String: ' ' }, content: SPACE };
  const back = { type: 'Replace', pattern: { String: SPACE }, content: ' ' };
  return {
    added_tokens: addedTokens(pieces),
    normalizer: prefix ? { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: SPACE }, replace] } : replace,
    pre_tokenizer: null,
    post_processor: template(pieces, begin),
    decoder: { type: 'Sequence', decoders: [back, { type: 'ByteFallback' }, { type: 'Fuse' }] },
    model: {
      type: 'BPE',
      unk_token: unknown,
      fuse_unk: true,
      byte_fallback: pieces.some(({ kind }) => kind === 'byte'),
      vocab: vocabularyOf(pieces.map(({ text }) => text)),
      merges,
    },
  };
}

const addedTokens = (pieces: readonly Pick<Piece, 'text' | 'kind'>[]): object[] =>
  pieces.flatMap(({ text, kind }, id) =>
    kind === 'unknown' || kind === 'control' || kind === 'user'
      ? [{ id, content: text, single_word: false, lstrip: false, rstrip: false, normalized: false, special: kind !== 'user' }] // prettier-ignore
      : [],
  );

/** Puts a token in front of texts. */
function template(pieces: readonly Pick<Piece, 'text'>[], begin: number | null): object | null {
  if (begin === null) return null;
  const text = pieces[begin]!.text;
  const [token, sequence] = [{ SpecialToken: { id: text, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }];
  const special_tokens = { [text]: { id: text, ids: [begin], tokens: [text] } };
  return { type: 'TemplateProcessing', single: [token, sequence], pair: [token, sequence], special_tokens };
}

function vocabularyOf(tokens: readonly string[]): Record<string, number> {
  const ids = new Map(tokens.map((text, id) => [text, id]));
  if (ids.size !== tokens.length) {
    const twice = tokens.find((text, id) => ids.get(text) !== id);
    throw new Error(`[tokenizer] the token ${JSON.stringify(twice)} stands there twice`);
  }
  return Object.fromEntries(ids);
}

/** How texts are cut before they are merged, by the names that llama.cpp gives the ways. */
const SPLITS: Readonly<Record<string, object>> = {
  'llama-bpe': splits("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"), // prettier-ignore
  qwen2: splits("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"), // prettier-ignore
  'gpt-2': byteLevel(true),
  default: byteLevel(true),
  smollm: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel(true)] },
};

function byteLevel(use_regex: boolean): object {
  return { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex };
}

function splits(Regex: string): object {
  const split = { type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false };
  return { type: 'Sequence', pretokenizers: [split, byteLevel(false)] };
}

const KINDS: readonly Piece['kind'][] = ['normal', 'unknown', 'control', 'user', 'unused', 'byte'];

/** The tokenizer inside a GGUF file; null where it has none. Throws, by name, on kinds that are not known. */
export function ggufTokenizer({ name, metadata }: Gguf): TokenizerFile | null {
  const fail = (what: string): never => {
    throw new Error(`[tokenizer] ${name}: ${what}`);
  };
  const get = (key: string) => metadata.get(`tokenizer.ggml.${key}`);
  const list = <T extends 'string' | 'number'>(key: string, type: T): (T extends 'string' ? string : number)[] => {
    const value = get(key);
    if (!Array.isArray(value) || value.some((item) => typeof item !== type))
      return fail(`tokenizer.ggml.${key} must be a list of ${type}s`);
    return value as (T extends 'string' ? string : number)[];
  };
  const model = get('model');
  if (model === undefined || model === 'no_vocab') return null;
  const tokens = list('tokens', 'string');
  const types = get('token_type') === undefined ? tokens.map(() => 1) : list('token_type', 'number');
  if (types.length !== tokens.length) fail(`it has ${tokens.length} tokens and ${types.length} types of tokens`);
  const kinds = types.map((type) => KINDS[type - 1] ?? fail(`tokenizer.ggml.token_type has ${type}; known are 1 to 6`));
  const id = (key: string): number | null => {
    const value = get(key) ?? null;
    if (value !== null && !(typeof value === 'number' && value >= 0 && value < tokens.length))
      return fail(`tokenizer.ggml.${key} is ${String(value)}; its tokens are 0 to ${tokens.length - 1}`);
    return value as number | null;
  };
  const ends = [id('eos_token_id'), id('eot_token_id')].filter((end) => end !== null);
  const chat = metadata.get('tokenizer.chat_template');
  const rest = { ends: [...new Set(ends)], template: typeof chat === 'string' ? chat : null };
  const begins = (usual: boolean) => ((get('add_bos_token') ?? usual) ? id('bos_token_id') : null);
  if (model === 'llama') {
    const scores = list('scores', 'number');
    if (scores.length !== tokens.length) fail(`it has ${tokens.length} tokens and ${scores.length} scores`);
    const pieces = tokens.map((text, i): Piece => ({ text, score: scores[i]!, kind: kinds[i]! }));
    return { json: sentencePiece(pieces, { begin: begins(true), prefix: get('add_space_prefix') !== false }), ...rest };
  }
  if (model !== 'gpt2') return fail(`its tokenizer is ${JSON.stringify(model)}; known are llama (SentencePiece) and gpt2 (BPE of bytes)`); // prettier-ignore
  const pre = get('pre') ?? 'default';
  if (typeof pre !== 'string' || !Object.hasOwn(SPLITS, pre))
    return fail(`tokenizer.ggml.pre is ${JSON.stringify(pre)}; known are ${Object.keys(SPLITS).join(', ')}`);
  const pieces = tokens.map((text, i) => ({ text, kind: kinds[i]! }));
  const json = {
    added_tokens: addedTokens(pieces),
    normalizer: null,
    pre_tokenizer: SPLITS[pre],
    post_processor: template(pieces, begins(false)),
    decoder: byteLevel(true),
    model: { type: 'BPE', unk_token: null, ignore_merges: pre === 'llama-bpe', vocab: vocabularyOf(tokens), merges: list('merges', 'string') }, // prettier-ignore
  };
  return { json, ...rest };
}

/**
 * llama2.c's `tokenizer.bin`: the length of the longest piece, then for each its score (f32), its length and its bytes. A space
 * stands for SentencePiece's; 0 is unknown, 1 begins a text, 2 ends it, 3 to 258 are bytes. `size` is the model's vocabulary.
 */
export function readLlama2cTokenizer(bytes: Uint8Array, size: number, name = 'tokenizer.bin'): TokenizerFile {
  const fail = (what: string): never => {
    throw new Error(`[tokenizer] ${name}: ${what}`);
  };
  // A piece takes at least 8 bytes.
  if (bytes.length < 4 + 8 * size) fail(`${bytes.length} bytes are too few for ${size} tokens`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const pieces: Piece[] = [];
  let at = 4;
  while (pieces.length < size) {
    const id = pieces.length;
    if (at + 8 > bytes.length) fail(`it ends within token ${id} of ${size}: is it another model's, or truncated?`);
    const score = view.getFloat32(at, true);
    const length = view.getInt32(at + 4, true);
    at += 8;
    if (length < 0 || length > bytes.length - at)
      fail(`token ${id} would have ${length} bytes, ${bytes.length - at} are left`);
    const decode = () => {
      try {
        return utf8.decode(bytes.subarray(at, at + length));
      } catch {
        return fail(`token ${id} is not UTF-8`);
      }
    };
    const kind = id === 0 ? 'unknown' : id < 3 ? 'control' : /^<0x[0-9A-F]{2}>$/.test(decode()) ? 'byte' : 'normal';
    const text = id < 3 ? ['<unk>', '<s>', '</s>'][id]! : decode().replaceAll(' ', SPACE);
    pieces.push({ text, score, kind });
    at += length;
  }
  if (at !== bytes.length) fail(`${bytes.length - at} bytes follow ${size} tokens: it is another vocabulary's`);
  return { json: sentencePiece(pieces, { begin: 1, prefix: true }), ends: [2], template: null };
}
