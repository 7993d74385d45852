import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { Tokenizer } from '@huggingface/tokenizers';
import ranks from 'gpt-tokenizer/bpeRanks/cl100k_base';
import { describe, expect, it } from 'vitest';
import { PLAIN_LIMIT, plainSuffixes } from '../../../llm/grammar/plain.ts';
import { find, trieOf } from '../../../llm/grammar/trie.ts';
import { Vocabulary } from '../../../llm/grammar/vocabulary.ts';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const textOf = (bytes: Uint8Array): string => new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
const ids = (mask: Uint32Array, size: number): number[] =>
  [...Array(size).keys()].filter((id) => (mask[id >>> 5]! >>> (id & 31)) & 1);

describe('tries', () => {
  const tokens = fc.array(fc.uint8Array({ min: 0, max: 3, minLength: 0, maxLength: 5 }), { maxLength: 40 });

  it('hold each token at the end of its path, and nothing else', () => {
    fc.assert(
      fc.property(tokens, (all) => {
        const { size, byte, depth, end, first, ids: placed } = trieOf(all);
        const path: number[] = [];
        const found: [number, number[]][] = [];
        for (let node = 0; node < size; node += 1) {
          path.length = depth[node]! - 1;
          path.push(byte[node]!);
          // A node's subtree ends where one of no greater depth begins, and it has a token.
          const behind = [...depth].findIndex((other, i) => i > node && other <= depth[node]!);
          expect(end[node]).toBe(behind < 0 ? size : behind);
          expect(first[end[node]!]).toBeGreaterThan(first[node]!);
          for (let i = first[node]!; i < first[node + 1]!; i += 1) found.push([placed[i]!, [...path]]);
        }
        const expected = all.flatMap((token, id): [number, number[]][] =>
          token.length === 0 ? [] : [[id, [...token]]],
        );
        expect(found.sort((a, b) => a[0] - b[0])).toEqual(expected);
        for (const [id, bytes] of expected) {
          const node = find(trieOf(all), bytes)!;
          expect([...placed.subarray(first[node], first[node + 1])]).toContain(id);
        }
      }),
      { seed: 1, numRuns: 300 },
    );
  });

  it('know where tokens are plain string content', () => {
    const bytes = fc.constantFrom(
      0x00,
      0x1f,
      0x20,
      0x22,
      0x5c,
      0x61,
      0x7f,
      0x80,
      0xa0,
      0xbf,
      0xc2,
      0xe0,
      0xe6,
      0xed,
      0xf0,
      0xf4,
    );
    const token = fc.array(bytes, { minLength: 1, maxLength: 6 }).map((list) => Uint8Array.from(list));
    // Some characters that complete what a token's end may have cut.
    const rests = [
      [],
      [0x80],
      [0xbf],
      [0x80, 0x80],
      [0xa0, 0x80],
      [0x9f, 0x80],
      [0x90, 0x80, 0x80],
      [0x80, 0x80, 0x80],
    ];
    const characters = (list: readonly number[]): number => {
      for (const rest of rests) {
        try {
          const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
            Uint8Array.from([...list, ...rest]),
          );
          // A character of its own behind is no completion.
          if (rest.length > 0 && list.at(-1)! < 0x80) continue;
          return /["\\\u0000-\u001f]/.test(text) ? PLAIN_LIMIT : [...text].length;
        } catch {
          continue;
        }
      }
      return PLAIN_LIMIT;
    };
    fc.assert(
      fc.property(token, (list) => {
        const expected = [...list].map((_, i) => characters([...list].slice(i)));
        expect([...plainSuffixes(list)]).toEqual(expected);
      }),
      { seed: 1, numRuns: 3000 },
    );
  });
});

describe('cl100k_base', () => {
  const vocabulary = Vocabulary.fromRanks(
    readFileSync(new URL('../../../node_modules/gpt-tokenizer/data/cl100k_base.tiktoken', import.meta.url), 'latin1'),
  );

  it('has the bytes of another form of its ranks, its special tokens apart', () => {
    expect(vocabulary.size).toBe(100_277);
    expect(vocabulary.trie.ids.length).toBe(100_256);
    expect(vocabulary.end).toEqual([100_257]);
    ranks.forEach((token, id) => {
      const bytes = typeof token === 'string' ? utf8(token) : Uint8Array.from(token);
      if (String(bytes) !== String(vocabulary.bytes(id))) expect.fail(`token ${id} is ${String(vocabulary.bytes(id))}`);
    });
    expect(ranks.length).toBe(100_256);
    expect(vocabulary.isSpecial(100_257)).toBe(true);
    expect(vocabulary.bytes(100_256).length).toBe(0);
  });

  it('has its plain tokens by length', () => {
    for (const most of [1, 3, 1000]) {
      const expected = [...Array(100_256).keys()].filter((id) => {
        const length = plainSuffixes(vocabulary.bytes(id))[0]!;
        return length <= most && length < PLAIN_LIMIT;
      });
      expect(ids(vocabulary.plain(most), vocabulary.size)).toEqual(expected);
    }
  });
});

describe('tokenizer.json', () => {
  const letters = (...texts: string[]): Record<string, number> =>
    Object.fromEntries(texts.map((text, id) => [text, id]));
  const added = (id: number, content: string, special = true): object => ({
    id,
    content,
    special,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  });
  const bytePieces = [...Array(256).keys()].map((byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);

  const FILES: Record<string, object> = {
    'byte-level BPE': {
      added_tokens: [added(8, '<|end|>'), added(9, '<tool é>', false)],
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false },
      decoder: { type: 'ByteLevel' },
      model: { type: 'BPE', vocab: letters('a', 'Ġa', 'Ċ', 'Ã', '©', 'æ¼¢', 'ĠĠ', '"}'), merges: [] },
    },
    'byte-level BPE behind a split': {
      added_tokens: [added(4, '<|end|>')],
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [
          { type: 'Split', pattern: { Regex: '\\s+' }, behavior: 'Isolated', invert: false },
          { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
        ],
      },
      decoder: { type: 'ByteLevel' },
      model: { type: 'BPE', vocab: letters('a', 'Ġa', 'čĊ', 'Ń'), merges: [] },
    },
    "SentencePiece BPE, as Llama 2's": {
      added_tokens: [added(0, '<unk>'), added(1, '<s>'), added(2, '<|end|>')],
      normalizer: {
        type: 'Sequence',
        normalizers: [
          { type: 'Prepend', prepend: '▁' },
          { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
        ],
      },
      pre_tokenizer: null,
      decoder: {
        type: 'Sequence',
        decoders: [
          { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
          { type: 'ByteFallback' },
          { type: 'Fuse' },
          { type: 'Strip', content: ' ', start: 1, stop: 0 },
        ],
      },
      model: {
        type: 'BPE',
        byte_fallback: true,
        unk_token: '<unk>',
        vocab: letters('<unk>', '<s>', '<|end|>', ...bytePieces, 'a', '▁a', '▁▁', 'é', '漢字', '"}'),
        merges: [],
      },
    },
    'SentencePiece with Metaspace': {
      added_tokens: [added(2, '<|end|>')],
      pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false },
      decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false },
      model: {
        type: 'Unigram',
        unk_id: 0,
        vocab: [
          ['<unk>', 0],
          ['▁', -1],
          ['<|end|>', 0],
          ['a', -2],
          ['▁a', -3],
          ['漢', -4],
        ],
      },
    },
  };

  for (const [name, file] of Object.entries(FILES)) {
    it(`${name}: bytes are those that the tokenizer decodes behind others`, () => {
      const vocabulary = Vocabulary.fromTokenizer(file, { end: ['<|end|>'] });
      const tokenizer = new Tokenizer(
        { normalizer: null, post_processor: null, ...file },
        { clean_up_tokenization_spaces: false },
      );
      const before = [...Array(vocabulary.size).keys()].find((id) => textOf(vocabulary.bytes(id)) === 'a')!;
      const seen: string[] = [];
      const decoded = (tokens: number[]): string =>
        tokenizer.decode(tokens, { skip_special_tokens: false, clean_up_tokenization_spaces: false });
      for (let id = 0; id < vocabulary.size; id += 1) {
        if (vocabulary.isSpecial(id)) continue;
        const text = textOf(vocabulary.bytes(id));
        expect(decoded([before, id, before])).toBe(`a${text}a`);
        seen.push(text);
      }
      expect(seen).toContain('a');
      expect(vocabulary.end.map((id) => textOf(vocabulary.bytes(id)))).toEqual(['<|end|>']);
      expect([...vocabulary.trie.ids].some((id) => vocabulary.isSpecial(id))).toBe(false);
    });
  }

  it('refuses by name what it cannot turn to bytes', () => {
    const decoder = { type: 'ByteLevel' };
    const model = { type: 'BPE', vocab: { a: 0, '</s>': 1 }, merges: [] };
    const refused: [object | null, string][] = [
      [{ model: { type: 'WordPiece', vocab: { a: 0, '##b': 1 } } }, 'WordPiece model'],
      [{ model: { type: 'WordLevel', vocab: { a: 0 } } }, 'WordLevel model'],
      [
        { model: { ...model, end_of_word_suffix: '</w>' }, decoder },
        'model.end_of_word_suffix "</w>" is not supported',
      ],
      [{ model, decoder: { type: 'CTC' } }, 'decoder CTC'],
      [{ model, decoder: { type: 'Sequence', decoders: [{ type: 'BPEDecoder' }] } }, 'decoder BPEDecoder'],
      [{ model, decoder: { type: 'Replace', pattern: { Regex: '_' }, content: ' ' } }, 'is not supported; only ▁'],
      [{ model }, 'says how its tokens spell bytes'],
      [{ model, pre_tokenizer: decoder, decoder: { type: 'Metaspace' } }, 'the decoder Metaspace beside'],
      [{ model: { ...model, vocab: { 漢: 0, '</s>': 1 } }, decoder }, 'token 0, "漢", has "漢", which spells no byte'],
      [{ model: { ...model, vocab: { a: 1e9, '</s>': 1 } }, decoder }, 'numbers "a", one of 2 tokens, 1000000000'],
      [{ model: { ...model, vocab: { a: '0' } }, decoder }, '"model.vocab", "a", is not a number'],
      [{ model: { ...model, vocab: ['a'] }, decoder }, '"model.vocab", entry 0, is not a piece and its score'],
      [{ model, decoder, added_tokens: [{ id: 3 }] }, 'an added token is not an object with id and content'],
      [{ model, decoder, added_tokens: {} }, '"added_tokens" is not a list'],
      [{}, '"model" is not an object'],
      [null, 'the file is not an object'],
    ];
    for (const [file, message] of refused) {
      expect(() => Vocabulary.fromTokenizer(file, { end: ['</s>'] })).toThrow(message);
      expect(() => Vocabulary.fromTokenizer(file, { end: ['</s>'] })).toThrow('[grammar] tokenizer.json');
    }
    expect(() => Vocabulary.fromTokenizer({ model, decoder }, { end: ['<eos>'] })).toThrow(
      '[grammar] the tokenizer has no token "<eos>" to end a text with',
    );
    // Without what ends a text, and with options that are none.
    const from = (options: unknown): Vocabulary => Vocabulary.fromTokenizer({ model, decoder }, options as { end: [] });
    const where = '[grammar] Vocabulary.fromTokenizer(tokenizer, options): ';
    expect(() => from({})).toThrow(`${where}end is undefined; it must be a list of tokens`);
    expect(() => from(undefined)).toThrow(`${where}options are undefined; they must be { end }`);
    expect(() => from({ ends: ['</s>'] })).toThrow(`${where}option ends is not known; did you mean end?`);
  });
});

describe('vocabularies', () => {
  it('refuse what is wrong with them', () => {
    const encoded = btoa('a');
    expect(() => Vocabulary.of([utf8('a')], { end: [1] })).toThrow('special token 1 is not among');
    expect(() => Vocabulary.of([new Uint8Array(70_000)])).toThrow('token 0 has 70000 bytes');
    expect(() => Vocabulary.fromRanks('a')).toThrow('line 1 of the ranks is not a token in base64 and its number: a');
    expect(() => Vocabulary.fromRanks(`${encoded} 99999`)).toThrow('line 1 of the ranks numbers one of 1 tokens 99999');
    expect(() => Vocabulary.fromRanks(`${encoded} 0\n${encoded} 0\n`)).toThrow(
      'line 2 of the ranks has the number 0 again',
    );
    expect(() => Vocabulary.fromRanks(`${encoded} 0\n`, {}, ['x'])).toThrow('"x" ends a text and is not among');
  });
});
