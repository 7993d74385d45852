/**
 * Tokenizers inside GGUF files (`tokenizer.ggml.*`), as llama.cpp has them: BPE of bytes (`gpt2`) and SentencePiece's (`llama`).
 * Turned into a `tokenizer.json`, and back.
 */
import { VALUE } from '../nn/gguf.ts';
import type { Gguf, GgufMetadata, GgufValue } from '../nn/gguf.ts';
import { addedTokens, sentencePiece, SPACE, template, vocabularyOf } from './tokenizer_files.ts';
import type { LoadedTokenizer, Piece, TokenizerFile } from './tokenizer_files.ts';

/** GPT-2's words and what is between them, without white space at a text's end. */
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)";
/** GPT-4's, with so many digits in a row. */
const gpt4 = (digits: string): string =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
/** Words of Mistral's Tekken: capitals begin a word of their own. */
const [UPPER, LOWER] = ['[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]', '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]'];
const TEKKEN = `[^\\r\\n\\p{L}\\p{N}]?${UPPER}*${LOWER}+|[^\\r\\n\\p{L}\\p{N}]?${UPPER}+${LOWER}*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

/** How texts are cut before they are merged, by the names that llama.cpp gives the ways. */
const SPLITS: Readonly<Record<string, object>> = {
  'llama-bpe': splits(gpt4('\\p{N}{1,3}')),
  qwen2: splits(gpt4('\\p{N}')),
  'gpt-2': byteLevel(true),
  smollm: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel(true)] },
  tekken: splits(TEKKEN),
  // What llama.cpp takes where a file doesn't say.
  default: splits('[\\p{P}$+<=>^~|]+', GPT2, '\\p{N}+', '[0-9][0-9][0-9]'),
};
/** Other names of the same. */
const ALIASES: Readonly<Record<string, string>> = {
  llama3: 'llama-bpe',
  'llama-v3': 'llama-bpe',
  'deepseek-r1-qwen': 'qwen2',
  'phi-2': 'gpt-2',
  starcoder: 'smollm',
};
/** Those that take a word whole where it is a token, and begin texts with a token where a file doesn't say. */
const WHOLE_WORDS = ['llama-bpe', 'tekken'];

function byteLevel(use_regex: boolean): object {
  return { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex };
}

function splits(...expressions: readonly string[]): object {
  const split = (Regex: string) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false });
  return { type: 'Sequence', pretokenizers: [...expressions.map(split), byteLevel(false)] };
}

/** By their numbers, from 1 on. */
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
  const source = metadata.get('tokenizer.chat_template');
  const text = (token: number | null) => (token === null ? '' : tokens[token]!);
  const chat = { source: typeof source === 'string' ? source : null, bos: text(id('bos_token_id')), eos: text(id('eos_token_id')) }; // prettier-ignore
  const rest = { ends: [...new Set(ends)], chat };
  const begins = (usual: boolean) => ((get('add_bos_token') ?? usual) ? id('bos_token_id') : null);
  if (model === 'llama') {
    const scores = list('scores', 'number');
    if (scores.length !== tokens.length) fail(`it has ${tokens.length} tokens and ${scores.length} scores`);
    const pieces = tokens.map((text, i): Piece => ({ text, score: scores[i]!, kind: kinds[i]! }));
    return { json: sentencePiece(pieces, { begin: begins(true), prefix: get('add_space_prefix') !== false }), ...rest };
  }
  if (model !== 'gpt2') return fail(`its tokenizer is ${JSON.stringify(model)}; known are llama (SentencePiece) and gpt2 (BPE of bytes)`); // prettier-ignore
  const given = get('pre') ?? 'default';
  const pre = typeof given === 'string' && Object.hasOwn(ALIASES, given) ? ALIASES[given]! : given;
  if (typeof pre !== 'string' || !Object.hasOwn(SPLITS, pre))
    return fail(`tokenizer.ggml.pre is ${JSON.stringify(given)}; known are ${[...Object.keys(SPLITS), ...Object.keys(ALIASES)].join(', ')}`); // prettier-ignore
  const pieces = tokens.map((text, i) => ({ text, kind: kinds[i]! }));
  const whole = WHOLE_WORDS.includes(pre);
  const json = {
    added_tokens: addedTokens(pieces),
    normalizer: null,
    pre_tokenizer: SPLITS[pre],
    post_processor: template(pieces, begins(whole)),
    decoder: byteLevel(true),
    model: { type: 'BPE', unk_token: null, ignore_merges: whole, vocab: vocabularyOf(pieces), merges: list('merges', 'string') }, // prettier-ignore
  };
  return { json, ...rest };
}

/** What is read of a `tokenizer.json`. */
interface Json {
  readonly added_tokens?: readonly { readonly id: number; readonly content: string; readonly special?: boolean }[];
  readonly normalizer?: Step | null;
  readonly pre_tokenizer?: Step | null;
  readonly model: {
    readonly type?: string;
    readonly vocab: unknown;
    readonly merges?: readonly (string | readonly [string, string])[];
    readonly unk_token?: string | null;
    readonly ignore_merges?: boolean;
  };
}
interface Step {
  readonly type: string;
  readonly [key: string]: unknown;
}

/**
 * A tokenizer as metadata for llama.cpp, of as many tokens as the model has. Throws where llama.cpp has none that makes the
 * same tokens: it merges, and knows some ways of cutting texts.
 */
export function ggufTokenizerOf({ json, tokenizer, chat }: LoadedTokenizer, size: number): GgufMetadata {
  tokenizer.requireFit(size);
  const { model, added_tokens: added = [], normalizer, pre_tokenizer: before } = json as Json;
  if ((model.type ?? 'BPE') !== 'BPE' || Array.isArray(model.vocab)) return refuse(`it is a ${model.type} model, and llama.cpp merges`); // prettier-ignore
  const merges = (model.merges ?? []).map((merge) => (typeof merge === 'string' ? (merge.split(' ') as [string, string]) : merge)); // prettier-ignore
  const bytes = steps(before, 'pretokenizers').some(({ type }) => type === 'ByteLevel');
  const byte = (text: string) => !bytes && /^<0x[0-9A-F]{2}>$/.test(text);
  const pieces = Array.from({ length: size }, (_, id): Omit<Piece, 'score'> => ({
    text: `[PAD${id}]`,
    kind: 'unused',
  }));
  for (const [text, id] of Object.entries(model.vocab as Record<string, number>))
    pieces[id] = { text, kind: text === model.unk_token ? 'unknown' : byte(text) ? 'byte' : 'normal' };
  for (const { id, content, special } of added)
    if (pieces[id]?.kind !== 'unknown') pieces[id] = { text: content, kind: special ? 'control' : 'user' };
  vocabularyOf(pieces); // none twice

  const begin = tokenizer.encode('', { begin: true });
  if (begin.length > 1) return refuse(`it begins texts with ${begin.length} tokens`);
  const [eos, eot] = tokenizer.ends;
  const ids = {
    bos: begin[0] ?? tokenizer.control.get(chat.bos ?? ''),
    eos,
    eot,
    unknown: pieces.findIndex(({ kind }) => kind === 'unknown'),
  };
  const value =
    (type: number) =>
    (value: GgufValue['value']): GgufValue => ({ type, value });
  const list =
    (subType: number) =>
    (value: (string | number)[]): GgufValue => ({ type: VALUE.array, subType, value });
  const [string, bool, u32] = [value(VALUE.string), value(VALUE.bool), value(VALUE.u32)];
  const own: Record<string, GgufValue> = bytes
    ? {
        model: string('gpt2'),
        pre: string(splitsOf(model, normalizer, before)),
        merges: list(VALUE.string)(merges.map((pair) => pair.join(' '))),
      }
    : {
        model: string('llama'),
        pre: string('default'),
        scores: list(VALUE.f32)(scoresOf(pieces, merges)),
        add_space_prefix: bool(prefixOf(normalizer, before)),
      };
  const entries = Object.entries({
    ...own,
    tokens: list(VALUE.string)(pieces.map(({ text }) => text)),
    token_type: list(VALUE.i32)(pieces.map(({ kind }) => KINDS.indexOf(kind) + 1)),
    add_bos_token: bool(begin.length === 1),
  });
  for (const [which, id] of Object.entries(ids))
    if (id !== undefined && id >= 0) entries.push([`${which}_token_id`, u32(id)]);
  const metadata = new Map(entries.map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
  return chat.source === null ? metadata : metadata.set('tokenizer.chat_template', string(chat.source));
}

function refuse(why: string): never {
  throw new Error(`[gguf] the tokenizer cannot be written for llama.cpp: ${why}`);
}

/** A step, or the steps of a sequence of them. */
const steps = (step: Step | null | undefined, key: string): readonly Step[] =>
  !step ? [] : step.type === 'Sequence' ? (step[key] as Step[]).flatMap((one) => steps(one, key)) : [step];

/** The name of a way of cutting texts. */
function splitsOf(
  { ignore_merges = false }: Json['model'],
  normalizer: Json['normalizer'],
  before: Json['pre_tokenizer'],
): string {
  const changed = steps(normalizer, 'normalizers').find(({ type }) => type !== 'NFC');
  if (changed) return refuse(`it changes texts by ${changed.type}`);
  const shown = (step: Json['pre_tokenizer']): string =>
    JSON.stringify(
      steps(step, 'pretokenizers').map(({ type, pattern, behavior, invert, individual_digits, use_regex = true, add_prefix_space }) => [type, pattern, behavior, invert, individual_digits, type === 'ByteLevel' && use_regex, add_prefix_space]),
    ); // prettier-ignore
  const found = Object.entries(SPLITS).find(([name, splits]) => shown(splits as Step) === shown(before) && WHOLE_WORDS.includes(name) === ignore_merges); // prettier-ignore
  return found ? found[0] : refuse(`its way of cutting texts into words is none of ${Object.keys(SPLITS).join(', ')}`);
}

/** Whether texts begin with a space. */
function prefixOf(normalizer: Json['normalizer'], before: Json['pre_tokenizer']): boolean {
  let prefix = false;
  for (const { type, prepend, content } of steps(normalizer, 'normalizers'))
    if (type === 'Prepend' && prepend === SPACE) prefix = true;
    else if (!(type === 'Replace' && content === SPACE)) refuse(`it changes texts by ${type}`);
  for (const { type, pattern, prepend_scheme: scheme, add_prefix_space: space } of steps(before, 'pretokenizers'))
    if (type === 'Metaspace') prefix = scheme === undefined ? space !== false : scheme !== 'never';
    // Spaces are replaced by then.
    else if (!(type === 'Split' && (pattern as { String?: string }).String === ' ')) refuse(`it cuts texts by ${type}`);
  return prefix;
}

/** SentencePiece's scores from the order of merges: the earlier, the better. */
function scoresOf(pieces: readonly Pick<Piece, 'text'>[], merges: readonly (readonly [string, string])[]): number[] {
  const ranks = new Map<string, number>();
  for (const pair of merges) if (!ranks.has(pair.join(''))) ranks.set(pair.join(''), ranks.size);
  return pieces.map(({ text }) => -(ranks.get(text) ?? merges.length));
}
