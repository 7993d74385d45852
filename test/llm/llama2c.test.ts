/** llama2.c files: written here as its export does, against the same weights in a folder's order; its tokenizer. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Device } from '../../engine/index.ts';
import { loadTransformer } from '../../llm/folder.ts';
import { readLlama2c } from '../../llm/llama2c.ts';
import { tokenizerOf } from '../../llm/tokenizer.ts';
import { readLlama2cTokenizer } from '../../llm/tokenizer_files.ts';
import { bytesSource } from '../../nn/safetensors.ts';
import { plainDevice } from '../device.ts';
import { logitsOf, randomModel, SMALL, weightsOf } from './helpers.ts';

const { hidden_size: C, intermediate_size: F, num_hidden_layers: L, num_attention_heads: H, num_key_value_heads: KV, vocab_size: V, max_position_embeddings: T } = SMALL; // prettier-ignore
const D = C / H;

/** The bytes of a model: Meta's order of rows, in which row 2i of a head is transformers' i, and 2i + 1 its i + D / 2. */
function fileOf(weights: ReadonlyMap<string, Float32Array>, tied: boolean): Uint8Array {
  const pairs = (values: Float32Array, heads: number): number[] => {
    const rows: number[] = [];
    for (let head = 0; head < heads; head++)
      for (let i = 0; i < D / 2; i++)
        for (const half of [0, D / 2]) {
          const row = head * D + half + i;
          rows.push(...values.subarray(row * C, (row + 1) * C));
        }
    return rows;
  };
  const layers = (part: string, change = (values: Float32Array): Iterable<number> => values) =>
    Array.from({ length: L }, (_, i) => [...change(weights.get(`model.layers.${i}.${part}.weight`)!)]).flat();
  const floats = [
    ...weights.get('model.embed_tokens.weight')!,
    ...layers('input_layernorm'),
    ...layers('self_attn.q_proj', (values) => pairs(values, H)),
    ...layers('self_attn.k_proj', (values) => pairs(values, KV)),
    ...layers('self_attn.v_proj'),
    ...layers('self_attn.o_proj'),
    ...layers('post_attention_layernorm'),
    ...layers('mlp.gate_proj'),
    ...layers('mlp.down_proj'),
    ...layers('mlp.up_proj'),
    ...weights.get('model.norm.weight')!,
    ...Array<number>(T * D).fill(7), // cosines and sines
    ...(tied ? [] : weights.get('lm_head.weight')!),
  ];
  const header = Int32Array.of(C, F, L, H, KV, tied ? V : -V, T);
  return Buffer.concat([Buffer.from(header.buffer), Buffer.from(Float32Array.from(floats).buffer)]);
}

describe('models', () => {
  let device: Device;
  let root: string;
  beforeAll(async () => {
    device = await plainDevice();
    root = await mkdtemp(path.join(tmpdir(), 'dawngrad-llama2c-'));
  });
  afterAll(() => rm(root, { recursive: true }));

  it.each([false, true])('tied: %s', async (tied) => {
    const model = randomModel(device, { ...SMALL, tie_word_embeddings: tied });
    const file = path.join(root, 'model.bin');
    await writeFile(file, fileOf(await weightsOf(model), tied));
    const again = await loadTransformer(device, file);
    expect(await weightsOf(again)).toEqual(await weightsOf(model));
    expect(await logitsOf(again, [1, 5, 9])).toEqual(await logitsOf(model, [1, 5, 9]));
    expect(again.config).toEqual(model.config);
    const q8 = await loadTransformer(device, file, { weights: 'q8' });
    expect(q8.model.embed_tokens.weight.dtype).toBe('q8');
    for (const made of [model, again, q8]) made.release();
  });

  it('what is refused', async () => {
    const read = (bytes: Uint8Array) => readLlama2c(bytesSource(bytes, 'a.bin'));
    const header = (...values: number[]) => new Uint8Array(Int32Array.from(values).buffer);
    await expect(read(new Uint8Array(27))).rejects.toThrow(
      '[llama2c] a.bin: 27 bytes are too few: a file begins with 28',
    );
    await expect(read(header(64, 96, 2, 4, 2, 96, 64))).rejects.toThrow(/a model of its header \(64, 96, 2, 4, 2, 96, 64\) has \d+ bytes, the file has 28/); // prettier-ignore
    await expect(read(header(0x616b3432, 1, 0, 0, 0, 0, 0))).rejects.toThrow('it is of a later version');
    await expect(read(header(64, 96, 2 ** 31 - 1, 4, 2, 96, 64))).rejects.toThrow('[config] a.bin: num_hidden_layers');
    await expect(read(header(64, 96, 2, 0, 0, 96, 64))).rejects.toThrow('[config] a.bin: num_attention_heads');
    await expect(read(header(-64, 96, 2, 4, 2, 96, 64))).rejects.toThrow('[config] a.bin: hidden_size');
    await expect(read(header(64, 96, 2, 4, 2, -(2 ** 31), 64))).rejects.toThrow('[config] a.bin: vocab_size');
    const model = randomModel(device, SMALL);
    const whole = fileOf(await weightsOf(model), false);
    model.release();
    for (const bytes of [whole.subarray(0, -4), Buffer.concat([whole, new Uint8Array(4)])])
      await expect(read(bytes)).rejects.toThrow('it is no llama2.c file, or damaged');
  });
});

describe('tokenizer.bin', () => {
  const letters = [...'abcdehlorw!'];
  const merged = ['he', 'll', 'hell', 'hello', ' h', ' w', 'or', ' wor', 'ld', ' hello', ' world', 'lo'];
  const pieces: [string, number][] = [
    ['<unk>', 0],
    ['\n<s>\n', 0],
    ['\n</s>\n', 0],
    ...Array.from({ length: 256 }, (_, byte): [string, number] => [`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, 0]), // prettier-ignore
    ...merged.map((piece, i): [string, number] => [piece, -i]),
    [' ', -100],
    ...letters.map((piece, i): [string, number] => [piece, -101 - i]),
  ];
  const bin = Buffer.concat([
    Buffer.from(Int32Array.of(8).buffer),
    ...pieces.flatMap(([text, score]) => [
      Buffer.from(Float32Array.of(score).buffer),
      Buffer.from(Int32Array.of(Buffer.byteLength(text)).buffer),
      Buffer.from(text),
    ]),
  ]);

  /** As llama2.c's run.c does it: characters or bytes, then the neighbours whose joint piece has the best score, the first of equals. */
  function encode(text: string): number[] {
    const ids = new Map(pieces.map(([piece], id) => [piece, id]));
    const all: number[] = text === '' ? [] : [ids.get(' ')!];
    for (const character of text) {
      const id = ids.get(character);
      if (id !== undefined) all.push(id);
      else for (const byte of Buffer.from(character)) all.push(byte + 3);
    }
    for (;;) {
      let [best, at] = [-Infinity, -1];
      for (let i = 0; i + 1 < all.length; i++) {
        const id = ids.get(pieces[all[i]!]![0] + pieces[all[i + 1]!]![0]);
        if (id !== undefined && pieces[id]![1] > best) [best, at] = [pieces[id]![1], i];
      }
      if (at < 0) return all;
      all.splice(at, 2, ids.get(pieces[all[at]!]![0] + pieces[all[at + 1]!]![0])!);
    }
  }

  it('encodes as run.c does, and back', async () => {
    const { json, ends } = readLlama2cTokenizer(bin, pieces.length);
    const tokenizer = await tokenizerOf(json, { ends });
    expect(tokenizer.size).toBe(pieces.length);
    expect(tokenizer.ends).toEqual([2]);
    for (const text of ['hello world', 'hello', 'wor ld  hell!', 'zß😀hello\n', ' hello', 'ored low hehehell', '<s>hello</s>']) {
      expect(tokenizer.encode(text), text).toEqual(encode(text));
      expect(tokenizer.decode(tokenizer.encode(text)), text).toBe(text);
      expect(tokenizer.encode(text, { begin: true })).toEqual([1, ...encode(text)]);
    } // prettier-ignore
    expect(tokenizer.encode('</s>', { special: true })).toEqual([2]);
    expect(tokenizer.encode('<s></s>')).not.toContain(1);
  });

  it('what is refused', () => {
    const read =
      (bytes: Uint8Array, size = pieces.length) =>
      () =>
        readLlama2cTokenizer(bytes, size);
    expect(read(bin.subarray(0, 1000))).toThrow('[tokenizer] tokenizer.bin: 1000 bytes are too few for 283 tokens');
    expect(read(bin.subarray(0, -1))).toThrow('token 282 would have 1 bytes, 0 are left');
    expect(read(bin, pieces.length - 1)).toThrow(
      '9 bytes follow 282 tokens: it is another vocabulary’s'.replace('’', "'"),
    );
    expect(read(bin, pieces.length + 1)).toThrow('it ends within token 283 of 284');
    const long = Buffer.from(bin);
    long.writeInt32LE(-1, 8);
    expect(read(long)).toThrow('token 0 would have -1 bytes');
    const broken = Buffer.from(bin);
    broken[broken.length - 1] = 0xff;
    expect(read(broken)).toThrow('token 282 is not UTF-8');
  });
});
