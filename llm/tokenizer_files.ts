/** Tokenizers that come in other files than `tokenizer.json`, turned into that: SentencePiece's pieces, llama2.c's files. */
import type { ChatTemplateOptions } from './chat.ts';
import type { Tokenizer } from './tokenizer.ts';

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
  /** The template of chats, where the file has one, and the tokens that it names. */
  readonly chat: ChatTemplateOptions;
}

/** A tokenizer with what it was made of. */
export interface LoadedTokenizer extends Omit<TokenizerFile, 'ends'> {
  readonly tokenizer: Tokenizer;
}

export const SPACE = '▁';

/**
 * SentencePiece's BPE (Kudo & Richardson, 2018): of all neighbours whose joint text is a piece, those of the best score are
 * merged first. As ranks: every way to put a piece together, by falling score.
 */
export function sentencePiece(
  pieces: readonly Piece[],
  { begin, prefix }: { begin: number | null; prefix: boolean },
): object {
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
      vocab: vocabularyOf(pieces),
      merges,
    },
  };
}

export const addedTokens = (pieces: readonly Pick<Piece, 'text' | 'kind'>[]): object[] =>
  pieces.flatMap(({ text, kind }, id) =>
    kind === 'unknown' || kind === 'control' || kind === 'user'
      ? [{ id, content: text, single_word: false, lstrip: false, rstrip: false, normalized: false, special: kind !== 'user' }] // prettier-ignore
      : [],
  );

/** Puts a token in front of texts. */
export function template(pieces: readonly Pick<Piece, 'text'>[], begin: number | null): object | null {
  if (begin === null) return null;
  const text = pieces[begin]!.text;
  const [token, sequence] = [{ SpecialToken: { id: text, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }];
  const special_tokens = { [text]: { id: text, ids: [begin], tokens: [text] } };
  return { type: 'TemplateProcessing', single: [token, sequence], pair: [token, sequence], special_tokens };
}

/** Ids by texts. Those that are not in use have no token. */
export function vocabularyOf(pieces: readonly Pick<Piece, 'text' | 'kind'>[]): Record<string, number> {
  const used = [...pieces.entries()].filter(([, { kind }]) => kind !== 'unused');
  const ids = new Map(used.map(([id, { text }]) => [text, id]));
  const twice = used.find(([id, { text }]) => ids.get(text) !== id);
  if (twice) throw new Error(`[tokenizer] the token ${JSON.stringify(twice[1].text)} stands there twice`);
  return Object.fromEntries(ids);
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
  return {
    json: sentencePiece(pieces, { begin: 1, prefix: true }),
    ends: [2],
    chat: { source: null, bos: '<s>', eos: '</s>' },
  };
}
