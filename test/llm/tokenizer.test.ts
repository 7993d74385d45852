/** Tokenizers: texts there and back, special tokens that users cannot write, streams, files that come in other forms. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cl100k, readTokenizer, TextStream, tokenizerOf } from '../../llm/tokenizer.ts';
import type { Tokenizer } from '../../llm/tokenizer.ts';
import type { LoadedTokenizer } from '../../llm/tokenizer_files.ts';
import { ggufTokenizer, ggufTokenizerOf } from '../../llm/tokenizer_gguf.ts';
import { encodeGguf, readGguf, VALUE } from '../../nn/gguf.ts';
import type { GgufMetadata } from '../../nn/gguf.ts';
import { bytesSource } from '../../nn/safetensors.ts';

const TEXTS = [
  '',
  'hello world',
  '  two  spaces ',
  'zwölf Größen',
  '日本語 text',
  '👩‍👩‍👧 and 😀',
  "I'll don't\n\n\tx = 12345;",
  '\u0000\u007f',
];

// GPT-2's alphabet: a character a byte.
const alphabet = Array.from({ length: 256 }, () => '');
for (let byte = 0, next = 256; byte < 256; byte++)
  alphabet[byte] = String.fromCharCode((byte > 32 && byte < 127) || (byte > 160 && byte !== 173) ? byte : next++);
const spelled = (text: string): string => [...Buffer.from(text)].map((byte) => alphabet[byte]!).join('');

const SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'];
const MERGES = ['h e', 'l l', 'he ll', 'hell o', `${spelled(' ')} w`, 'o r', '< |'];
const TOKENS = [...alphabet, ...MERGES.map((merge) => merge.replace(' ', ''))];
const LITERAL = '<think>';

/** Byte-level BPE whose special tokens stand in the vocabulary too, as in some files. */
function byteLevelJson({ begin = false } = {}): object {
  const names = [...SPECIAL, LITERAL];
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  const id = TOKENS.length;
  return {
    added_tokens: names.map((content, i) => ({ id: id + i, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: content !== LITERAL })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: begin
      ? { type: 'TemplateProcessing', single: [{ SpecialToken: { id: SPECIAL[0], type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }], pair: [], special_tokens: { [SPECIAL[0]!]: { id: SPECIAL[0], ids: [id], tokens: [SPECIAL[0]] } } }
      : null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      unk_token: null,
      vocab: Object.fromEntries([...TOKENS, SPECIAL[0]!].map((token, i) => [token, i])),
      merges: MERGES,
    },
  };
} // prettier-ignore

const all: [string, () => Promise<Tokenizer>, readonly string[]][] = [
  ['cl100k_base', cl100k, ['<|endoftext|>', '<|fim_prefix|>', '<|endofprompt|>']],
  ['tokenizer.json', () => tokenizerOf(byteLevelJson(), { ends: [SPECIAL[0]!] }), SPECIAL],
];
describe.each(all)('%s', (_, make, specials) => {
  it('texts there and back', async () => {
    const tokenizer = await make();
    const back = (text: string) => tokenizer.decode(tokenizer.encode(text));
    for (const text of TEXTS) expect(back(text)).toBe(text);
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => back(text) === text),
      { numRuns: 200 },
    );
    expect(back('a\ud800b')).toBe('a\ufffdb');
    for (const id of tokenizer.encode('hello wörld')) expect(tokenizer.bytes(id).length).toBeGreaterThan(0);
  });

  it('what users write is never special', async () => {
    const tokenizer = await make();
    const special = (ids: readonly number[]) => ids.filter((id) => tokenizer.vocabulary.isSpecial(id));
    const text = fc.array(fc.oneof(fc.constantFrom(...specials, '<|', '|>', '<'), fc.string()), { maxLength: 6 });
    fc.assert(
      fc.property(text, (parts) => {
        const ids = tokenizer.encode(parts.join(''));
        return special(ids).length === 0 && tokenizer.decode(ids) === parts.join('');
      }),
      { numRuns: 300 },
    );
    for (const name of specials) {
      const ids = tokenizer.encode(`hello ${name}world`, { special: true });
      expect(special(ids).length, name).toBe(1);
      expect(tokenizer.decode(ids, { special: true })).toBe(`hello ${name}world`);
      expect(tokenizer.decode(ids)).toBe('hello world');
    }
    expect(tokenizer.ends).toEqual(tokenizer.encode(specials[0]!, { special: true }));
  });

  it('a stream gives whole characters alone', async () => {
    const tokenizer = await make();
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.nat(), (text, cut) => {
        const ids = tokenizer.encode(text);
        const stream = new TextStream(tokenizer);
        const pieces = ids.map((id) => stream.push(id));
        expect(pieces.join('') + stream.end()).toBe(text);
        for (const piece of pieces) expect(encodeURIComponent(piece)).toBeDefined(); // throws on half a pair of surrogates
        expect(pieces.join('').includes('\ufffd')).toBe(text.includes('\ufffd'));
        // Cut anywhere: what came is the text's beginning, but for one mark in place of a character that isn't whole.
        const short = new TextStream(tokenizer);
        const half = ids.slice(0, cut % (ids.length + 1)).map((id) => short.push(id)).join(''); // prettier-ignore
        expect(text.startsWith(half)).toBe(true);
        expect(['', '\ufffd']).toContain(short.end());
      }),
      { numRuns: 200 },
    );
    // Four tokens of a byte each, where the vocabulary has them: nothing until the last.
    const bytes = [...Buffer.from('😀')].map((byte) => Array.from({ length: tokenizer.size }, (_, id) => id).find((id) => tokenizer.bytes(id).length === 1 && tokenizer.bytes(id)[0] === byte)!); // prettier-ignore
    const stream = new TextStream(tokenizer);
    expect(bytes.map((id) => stream.push(id))).toEqual(['', '', '', '😀']);
    expect(stream.end()).toBe('');
    stream.push(bytes[0]!);
    stream.push(bytes[1]!);
    expect(stream.end()).toBe('\ufffd');
  });

  it('must fit the model', async () => {
    const tokenizer = await make();
    tokenizer.requireFit(tokenizer.size);
    tokenizer.requireFit(tokenizer.size + 100); // tables are padded
    expect(() => tokenizer.requireFit(256, 'a.gguf')).toThrow(
      `[tokenizer] the tokenizer has ${tokenizer.size} tokens, a.gguf 256: is it another model's?`,
    );
  });
});

describe('tokenizer.json', () => {
  it('merges in their order, added tokens that are not special, the begin of a text', async () => {
    const tokenizer = await tokenizerOf(byteLevelJson({ begin: true }), { ends: [256 + MERGES.length] });
    const id = (token: string) => TOKENS.indexOf(token);
    expect(tokenizer.encode('hello wor')).toEqual([id('hello'), id(spelled(' w')), id('or')]);
    expect(tokenizer.encode(`a${LITERAL}`)).toEqual([id('a'), TOKENS.length + SPECIAL.length]);
    expect(tokenizer.decode(tokenizer.encode(`a${LITERAL}`, { added: false }))).toBe(`a${LITERAL}`);
    expect(tokenizer.encode(`a${LITERAL}`, { added: false }).every((id) => id < TOKENS.length)).toBe(true);
    expect([...tokenizer.control]).toEqual([...SPECIAL, LITERAL].map((name, i) => [name, TOKENS.length + i]));
    expect(tokenizer.encode('a', { begin: true })).toEqual([TOKENS.length, id('a')]);
    expect(tokenizer.encode('', { begin: true })).toEqual([TOKENS.length]);
  });

  it('what is unknown keeps its id, and its name is text', async () => {
    const [replace, decoder] = [
      { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      { type: 'Sequence', decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'Fuse' }] },
    ]; // prettier-ignore
    const letters = ['u', 'n', 'k', 's', '/', '▁'];
    const added = [
      { id: 0, content: '<unk>', special: true },
      { id: 1, content: '<s>', special: true },
      { id: 2, content: '<tool>', special: false },
      { id: 3, content: '▁▁', special: false },
    ];
    const names = [...added.map(({ content }) => content), ...letters];
    const bpe = { type: 'BPE', unk_token: '<unk>', fuse_unk: true, vocab: Object.fromEntries(names.map((name, id) => [name, id])), merges: [] }; // prettier-ignore
    const unigram = { type: 'Unigram', unk_id: 0, vocab: names.map((name, id) => [name, -id]) };
    for (const model of [bpe, unigram]) {
      const tokenizer = await tokenizerOf({ added_tokens: added, normalizer: replace, decoder, model }, { ends: [] });
      const shown = (text: string, options = {}) => tokenizer.encode(text, options).map((id) => names[id]);
      // Neither < nor > has a token: each is unknown, which is no control of what follows.
      expect(shown('<unk>u')).toEqual(['<unk>', 'u', 'n', 'k', '<unk>', 'u']);
      expect(shown('<s>')).toEqual(['<unk>', 's', '<unk>']);
      expect(shown('<tool>n')).toEqual(['<tool>', 'n']);
      expect(shown('<tool>n', { added: false })).not.toContain('<tool>');
      expect(shown('<s>n', { special: true })).toEqual(['<s>', 'n']);
      expect([...tokenizer.control.keys()]).toEqual(['<unk>', '<s>', '<tool>']);
    }
  });

  it('a folder says which tokens end a text', async () => {
    const folder = (files: Record<string, object>) => ({
      name: 'folder',
      text: (path: string) => Promise.resolve(path in files ? JSON.stringify(files[path]) : null),
      weights: () => Promise.reject(new Error('none')),
    });
    const json = { 'tokenizer.json': byteLevelJson() };
    const first = TOKENS.length;
    const ends = async (files: Record<string, object>) => (await readTokenizer(folder({ ...json, ...files }))).ends;
    expect(await ends({ 'generation_config.json': { eos_token_id: [first, first + 2] }, 'config.json': { eos_token_id: first } })).toEqual([first, first + 2]); // prettier-ignore
    expect(await ends({ 'config.json': { eos_token_id: first }, 'tokenizer_config.json': { eos_token: '<|im_end|>' } })).toEqual([first]); // prettier-ignore
    expect(await ends({ 'tokenizer_config.json': { eos_token: { content: '<|im_end|>' } } })).toEqual([first + 2]);
    expect(await ends({})).toEqual([]);
    await expect(readTokenizer(folder({}))).rejects.toThrow('[folder] folder/tokenizer.json is missing');
    await expect(ends({ 'config.json': { eos_token_id: 99999 } })).rejects.toThrow('special token 99999 is not among');
  });
});

describe('inside GGUF', () => {
  async function open(entries: Record<string, unknown>) {
    const metadata = Object.entries(entries).map(([key, value]) => {
      const items = Array.isArray(value) ? (value as unknown[]) : [value];
      const type = typeof items[0] === 'string' ? VALUE.string : typeof items[0] === 'boolean' ? VALUE.bool : key.endsWith('scores') ? VALUE.f32 : VALUE.i32; // prettier-ignore
      const name = key === 'chat_template' ? 'tokenizer.chat_template' : `tokenizer.ggml.${key}`;
      return [name, Array.isArray(value) ? { type: VALUE.array, subType: type, value } : { type, value }] as const;
    });
    const chunks: Uint8Array[] = [];
    for await (const chunk of encodeGguf(new Map(metadata) as GgufMetadata, new Map())) chunks.push(chunk);
    return readGguf(bytesSource(Buffer.concat(chunks), 'a.gguf'));
  }
  const bpe = {
    model: 'gpt2',
    pre: 'gpt-2',
    tokens: [...TOKENS, ...SPECIAL, LITERAL],
    token_type: [...TOKENS.map(() => 1), 3, 3, 3, 4],
    merges: MERGES,
    eos_token_id: TOKENS.length,
    eot_token_id: TOKENS.length + 2,
    chat_template: '{{ messages }}',
  };

  const pieces: [string, number, number][] = [
    ['<unk>', 0, 2], ['<s>', 0, 3], ['</s>', 0, 3],
    ...Array.from({ length: 256 }, (_, byte): [string, number, number] => [`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, 0, 6]),
    ['he', -1, 1], ['ll', -2, 1], ['lo', -3, 1], ['hell', -4, 1], ['▁hell', -5, 1], ['▁', -9, 1], ['h', -10, 1], ['e', -11, 1], ['l', -12, 1], ['o', -13, 1], ['<', -14, 1], ['s', -15, 1], ['>', -16, 1], ['s>', -17, 1],
  ]; // prettier-ignore
  const llama = { model: 'llama', tokens: pieces.map(([t]) => t), scores: pieces.map(([, s]) => s), token_type: pieces.map(([, , k]) => k), bos_token_id: 1, eos_token_id: 2 }; // prettier-ignore

  it('BPE of bytes: as the tokenizer.json of the same tokens', async () => {
    const { json, ends, chat } = ggufTokenizer(await open(bpe))!;
    expect(chat).toEqual({ source: '{{ messages }}', bos: '', eos: SPECIAL[0] });
    const [inside, outside] = [await tokenizerOf(json, { ends }), await all[1]![1]()];
    expect(inside.ends).toEqual([TOKENS.length, TOKENS.length + 2]);
    for (const text of [...TEXTS, `hello ${SPECIAL[1]} ${LITERAL}`])
      for (const special of [false, true])
        expect(inside.encode(text, { special }), text).toEqual(outside.encode(text, { special }));
  });

  it('digits are cut one by one or by threes, as the file says', async () => {
    const digits = [...bpe.tokens, '12', '123'];
    const merges = [...MERGES, '1 2', '12 3'];
    const token_type = [...bpe.token_type, 1, 1];
    const encode = async (pre: string) => {
      const { json, ends } = ggufTokenizer(await open({ ...bpe, pre, tokens: digits, merges, token_type }))!;
      const tokenizer = await tokenizerOf(json, { ends });
      return tokenizer.encode('123123').map((id) => Buffer.from(tokenizer.bytes(id)).toString());
    };
    expect(await encode('llama-bpe')).toEqual(['123', '123']);
    expect(await encode('qwen2')).toEqual([...'123123']);
    expect(await encode('smollm')).toEqual([...'123123']);
    expect(await encode('tekken')).toEqual([...'123123']);
    expect(await encode('default')).toEqual(['123', '123']);
    expect(await encode('llama3')).toEqual(['123', '123']);
  });

  it('SentencePiece: by score; the space in front; control tokens apart', async () => {
    const { json, ends } = ggufTokenizer(await open(llama))!;
    const tokenizer = await tokenizerOf(json, { ends });
    const named = (ids: number[]) => ids.map((id) => pieces[id]![0]);
    expect(named(tokenizer.encode('hello'))).toEqual(['▁hell', 'o']);
    expect(named(tokenizer.encode('hello', { begin: true }))).toEqual(['<s>', '▁hell', 'o']);
    expect(named(tokenizer.encode('<s>'))).toEqual(['▁', '<', 's>']);
    expect(named(tokenizer.encode('ü'))).toEqual(['▁', '<0xC3>', '<0xBC>']);
    for (const text of TEXTS) expect(tokenizer.decode(tokenizer.encode(text)), text).toBe(text);
    const bare = ggufTokenizer(await open({ ...llama, add_space_prefix: false, add_bos_token: false }))!;
    const other = await tokenizerOf(bare.json, { ends });
    expect(named(other.encode('hello', { begin: true }))).toEqual(['hell', 'o']);
  });

  it('written and read again: the same tokens', async () => {
    const again = async (own: LoadedTokenizer, size: number) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of encodeGguf(ggufTokenizerOf(own, size), new Map())) chunks.push(chunk);
      const file = await readGguf(bytesSource(Buffer.concat(chunks), 'a.gguf'));
      const { json, ends, chat } = ggufTokenizer(file)!;
      return { metadata: file.metadata, tokenizer: await tokenizerOf(json, { ends }), chat };
    };
    const check = (tokenizer: Tokenizer, own: Tokenizer, specials: readonly string[]) => {
      expect([tokenizer.ends, [...tokenizer.control]]).toEqual([own.ends, [...own.control]]);
      for (const text of [...TEXTS, ...specials.map((name) => `hello ${name}world`)])
        for (const options of [{}, { special: true }, { begin: true }, { added: false }])
          expect(tokenizer.encode(text, options), text).toEqual(own.encode(text, options));
    };
    const chat = { source: '{{ messages }}', bos: SPECIAL[0]!, eos: SPECIAL[2]! };
    const json = byteLevelJson({ begin: true });
    const bytes = await tokenizerOf(json, { ends: [SPECIAL[2]!, SPECIAL[0]!] });
    const written = await again({ json, tokenizer: bytes, chat }, bytes.size + 3);
    check(written.tokenizer, bytes, SPECIAL);
    expect(written.chat).toEqual(chat);
    const { metadata } = written;
    expect(metadata.get('tokenizer.ggml.pre')).toBe('gpt-2');
    expect((metadata.get('tokenizer.ggml.tokens') as string[]).slice(-4)).toEqual([LITERAL, ...[0, 1, 2].map((i) => `[PAD${bytes.size + i}]`)]); // prettier-ignore
    expect((metadata.get('tokenizer.ggml.token_type') as number[]).slice(-5)).toEqual([3, 4, 5, 5, 5]);
    expect(['bos', 'eos', 'eot'].map((which) => metadata.get(`tokenizer.ggml.${which}_token_id`))).toEqual([TOKENS.length, TOKENS.length + 2, TOKENS.length]); // prettier-ignore

    const source = ggufTokenizer(await open(llama))!;
    const pieces = await tokenizerOf(source.json, { ends: source.ends });
    const other = await again({ ...source, tokenizer: pieces }, pieces.size);
    check(other.tokenizer, pieces, ['<s>', '</s>']);
    expect(other.metadata.get('tokenizer.ggml.token_type')).toEqual(llama.token_type);

    const refused: [Record<string, unknown>, string][] = [
      [{ pre_tokenizer: { type: 'Split', pattern: { Regex: '.' }, behavior: 'Isolated' } }, 'it cuts texts by Split'],
      [{ pre_tokenizer: { type: 'ByteLevel', add_prefix_space: true } }, 'its way of cutting texts into words is none of llama-bpe,'],
      [{ normalizer: { type: 'Lowercase' } }, 'it changes texts by Lowercase'],
      [{ model: { type: 'Unigram', vocab: [['a', 0]] } }, 'it is a Unigram model, and llama.cpp merges'],
    ]; // prettier-ignore
    for (const [change, message] of refused)
      expect(() => ggufTokenizerOf({ json: { ...json, ...change }, tokenizer: bytes, chat }, bytes.size)).toThrow(`[gguf] the tokenizer cannot be written for llama.cpp: ${message}`); // prettier-ignore
    expect(() => ggufTokenizerOf({ json, tokenizer: bytes, chat }, 100)).toThrow("is it another model's?");
  });

  it('none, and what is refused', async () => {
    expect(ggufTokenizer(await open({}))).toBeNull();
    expect(ggufTokenizer(await open({ model: 'no_vocab' }))).toBeNull();
    const refused: [object, string][] = [
      [{ ...bpe, model: 'bert' }, 'its tokenizer is "bert"; known are llama (SentencePiece) and gpt2 (BPE of bytes)'],
      [{ ...bpe, pre: 'viking' }, 'tokenizer.ggml.pre is "viking"; known are llama-bpe, qwen2, gpt-2, smollm, tekken, default, llama3'],
      [{ ...bpe, tokens: 'a' }, 'tokenizer.ggml.tokens must be a list of strings'],
      [{ ...bpe, token_type: [1] }, `it has ${bpe.tokens.length} tokens and 1 types of tokens`],
      [{ ...bpe, token_type: bpe.tokens.map(() => 9) }, 'tokenizer.ggml.token_type has 9; known are 1 to 6'],
      [{ ...bpe, eos_token_id: 5000 }, 'tokenizer.ggml.eos_token_id is 5000; its tokens are 0 to'],
      [{ ...bpe, tokens: bpe.tokens.map((t, i) => (i === 5 ? bpe.tokens[6] : t)) }, 'stands there twice'],
    ]; // prettier-ignore
    for (const [entries, message] of refused) {
      const file = await open(entries as Record<string, unknown>);
      expect(() => ggufTokenizer(file)).toThrow(message);
    }
  });
});
