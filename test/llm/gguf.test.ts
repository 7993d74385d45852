/** GGUF: files made byte by byte as the format's description says, round trips of models, and hostile headers. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { f32ToF16 } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { loadTransformer, openGguf, saveGguf } from '../../llm/folder.ts';
import { ggufConfig, ggufOf } from '../../llm/gguf.ts';
import { rounded } from '../../llm/weights.ts';
import { openSafetensors } from '../../nn/files.ts';
import { readGguf } from '../../nn/gguf.ts';
import { bytesSource } from '../../nn/safetensors.ts';
import { plainDevice } from '../device.ts';
import { distance, logitsOf, randomModel, SMALL, weightsOf } from './helpers.ts';

const goldens = new URL('../goldens', import.meta.url).pathname;
const IDS = [1, 5, 90, 3, 3, 17, 60, 2, 44, 8];

// A writer of its own, from the format's description.
const bytesOf = (array: ArrayBufferView): number[] => [
  ...new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
];
const u32 = (n: number) => bytesOf(Uint32Array.of(n));
const u64 = (n: number | bigint) => bytesOf(BigUint64Array.of(BigInt(n)));
const f32 = (n: number) => bytesOf(Float32Array.of(n));
const f16 = (n: number) => bytesOf(f32ToF16(Float32Array.of(n)));
const text = (s: string) => [...u64(Buffer.byteLength(s)), ...Buffer.from(s)];
const strings = (list: string[]) => [...u32(8), ...u64(list.length), ...list.flatMap(text)];
/** Key, type, value. */
const entry = (key: string, type: number, value: number[]) => [...text(key), ...u32(type), ...value];
const info = (name: string, dims: (number | bigint)[], type: number, offset: number | bigint) =>
  [...text(name), ...u32(dims.length), ...dims.flatMap(u64), ...u32(type), ...u64(offset)]; // prettier-ignore

interface Parts {
  magic?: string;
  version?: number;
  keys?: number[][];
  infos?: number[][];
  counts?: [number | bigint, number | bigint];
  data?: number[];
  alignment?: number;
}
function fileOf({ magic = 'GGUF', version = 3, keys = [], infos = [], counts = [infos.length, keys.length], data = [], alignment = 32 }: Parts): Uint8Array {
  const header = [...Buffer.from(magic), ...u32(version), ...u64(counts[0]), ...u64(counts[1]), ...keys.flat(), ...infos.flat()];
  while (header.length % alignment !== 0) header.push(0);
  return Uint8Array.from([...header, ...data]);
} // prettier-ignore
const read = (parts: Parts | Uint8Array) =>
  readGguf(bytesSource(parts instanceof Uint8Array ? parts : fileOf(parts), 'a.gguf'));

describe('the format', () => {
  it('metadata of every type, in versions 2 and 3', async () => {
    const keys = [
      entry('a', 0, [200]),
      entry('b', 1, [200]),
      entry('c', 2, [1, 2]),
      entry('d', 3, [255, 255]),
      entry('e', 4, u32(4e9)),
      entry('f', 5, bytesOf(Int32Array.of(-5))),
      entry('g', 6, f32(0.5)),
      entry('h', 7, [1]),
      entry('i', 8, text('zwölf')),
      entry('j', 9, strings(['', 'ab', '▁c'])),
      entry('k', 10, u64(2n ** 63n)),
      entry('l', 11, bytesOf(BigInt64Array.of(-1n))),
      entry('m', 12, bytesOf(Float64Array.of(0.1))),
      entry('n', 9, [...u32(6), ...u64(2), ...f32(1), ...f32(-2)]),
    ];
    for (const version of [2, 3]) {
      const { metadata } = await read({ version, keys });
      expect([...metadata.values()]).toEqual([200, -56, 513, -1, 4e9, -5, 0.5, true, 'zwölf', ['', 'ab', '▁c'], 2n ** 63n, -1n, 0.1, [1, -2]]); // prettier-ignore
    }
  });

  it('texts as they stand there: a byte order mark, which vocabularies have as a token; behind the end of a range', async () => {
    const long = 'ü'.repeat(1_100_000);
    const pieces = ['\ufeff', '\ufeffusing', 'a\ufeff', ''];
    const { metadata } = await read({ keys: [entry('a', 9, strings(pieces)), entry('b', 8, text(long)), entry('c', 8, text('\ufeff'))] }); // prettier-ignore
    expect([metadata.get('a'), metadata.get('c')]).toEqual([pieces, '\ufeff']);
    expect(metadata.get('b') === long).toBe(true);
  });

  it('F32, F16 and BF16, rows last, at any alignment', async () => {
    for (const alignment of [8, 32, 256]) {
      const at = (n: number) => n * alignment;
      const pad = (bytes: number[]) => [...bytes, ...Array<number>((alignment - (bytes.length % alignment)) % alignment).fill(0)]; // prettier-ignore
      const file = await read({
        alignment,
        keys: alignment === 32 ? [] : [entry('general.alignment', 4, u32(alignment))],
        infos: [info('w', [3, 1, 2], 0, 0), info('h', [2], 1, at(24 / 8)), info('b', [2], 30, at(24 / 8 + 1))],
        data: [
          ...pad([1, 2, 3, 4, 5, 6].flatMap(f32)),
          ...Array<number>(at(3) - pad([1, 2, 3, 4, 5, 6].flatMap(f32)).length).fill(0),
          ...pad([...f16(0.25), ...f16(-3)]),
          ...pad([0x80, 0x3f, 0x49, 0xc0]),
        ],
      });
      expect(file.info('w').shape).toEqual([2, 1, 3]);
      expect([...(await file.floats('w'))]).toEqual([1, 2, 3, 4, 5, 6]);
      expect([...(await file.floats('h'))]).toEqual([0.25, -3]);
      expect([...(await file.floats('b'))]).toEqual([1, -3.140625]);
    }
  });

  it('Q8_0 and Q4_0: values, and blocks without a change', async () => {
    const q8 = Array.from({ length: 64 }, (_, i) => ((i * 37) % 256) - 128);
    const q4 = Array.from({ length: 64 }, (_, i) => ((i * 7) % 16) - 8);
    const scales = [0.5, -0.125];
    const block8 = scales.flatMap((d, b) => [...f16(d), ...q8.slice(32 * b, 32 * b + 32).map((q) => q & 255)]);
    // Byte i of a block: value i low, value 16 + i high, each plus 8.
    const block4 = scales.flatMap((d, b) => [
      ...f16(d),
      ...Array.from({ length: 16 }, (_, i) => (q4[32 * b + i]! + 8) | ((q4[32 * b + 16 + i]! + 8) << 4)),
    ]);
    const file = await read({
      infos: [info('e', [32, 2], 8, 0), info('f', [64, 1], 2, 96)],
      data: [...block8, ...Array<number>(96 - 68).fill(0), ...block4],
    });
    expect([...(await file.floats('e'))]).toEqual(q8.map((q, i) => q * scales[i >> 5]!));
    expect([...(await file.floats('f'))]).toEqual(q4.map((q, i) => q * scales[i >> 5]!));
    const blocks = await file.blocks('f', 'q4');
    expect([...blocks!.quants]).toEqual(q4);
    expect([...blocks!.scales]).toEqual([...f32ToF16(Float32Array.from(scales))]);
    expect(await file.blocks('f', 'q8')).toBeNull();
    expect([...(await file.blocks('e', 'q8'))!.quants]).toEqual(q8);
  });

  it('Q4_K: 8 groups with scales and minima of 6 bits', async () => {
    const scale = [1, 2, 17, 63, 31, 48, 5, 60];
    const least = [0, 63, 3, 33, 16, 47, 62, 1];
    const q = Array.from({ length: 256 }, (_, i) => (i * 11 + (i >> 4)) % 16);
    // 12 bytes: s0–s3 and t0–t3 with the upper bits of s4–s7 and t4–t7, then those' lower bits.
    const packed = [
      ...[0, 1, 2, 3].map((j) => scale[j]! | ((scale[j + 4]! >> 4) << 6)),
      ...[0, 1, 2, 3].map((j) => least[j]! | ((least[j + 4]! >> 4) << 6)),
      ...[4, 5, 6, 7].map((j) => (scale[j]! & 15) | ((least[j]! & 15) << 4)),
    ];
    const quants = [0, 1, 2, 3].flatMap((pair) =>
      Array.from({ length: 32 }, (_, j) => q[pair * 64 + j]! | (q[pair * 64 + 32 + j]! << 4)),
    );
    const [d, m] = [0.0625, 0.03125];
    const block = [...f16(d), ...f16(m), ...packed, ...quants];
    expect(block.length).toBe(144);
    const file = await read({ infos: [info('w', [256], 12, 0)], data: block });
    expect([...(await file.floats('w'))]).toEqual(q.map((q, i) => d * scale[i >> 5]! * q - m * least[i >> 5]!));
  });

  it('Q6_K: 16 groups with signed scales, quants of 4 and 2 bits apart', async () => {
    const scale = Array.from({ length: 16 }, (_, i) => i * 15 - 128 + (i > 8 ? 9 : 0));
    const q = Array.from({ length: 256 }, (_, i) => (i * 29 + (i >> 5)) % 64);
    const low = Array<number>(128).fill(0);
    const high = Array<number>(64).fill(0);
    for (let half = 0; half < 2; half++)
      for (let l = 0; l < 32; l++) {
        const [q1, q2, q3, q4] = [0, 32, 64, 96].map((at) => q[half * 128 + at + l]!) as [
          number,
          number,
          number,
          number,
        ];
        low[half * 64 + l] = (q1 & 15) | ((q3 & 15) << 4);
        low[half * 64 + 32 + l] = (q2 & 15) | ((q4 & 15) << 4);
        high[half * 32 + l] = (q1 >> 4) | ((q2 >> 4) << 2) | ((q3 >> 4) << 4) | ((q4 >> 4) << 6);
      }
    const block = [...low, ...high, ...scale.map((s) => s & 255), ...f16(0.0625)];
    expect(block.length).toBe(210);
    const file = await read({ infos: [info('w', [256, 2], 14, 0)], data: [...block, ...block] });
    const expected = q.map((q, i) => 0.0625 * scale[i >> 4]! * (q - 32));
    expect([...(await file.floats('w'))]).toEqual([...expected, ...expected]);
  });
});

describe('hostile and damaged files are refused before anything is allocated', () => {
  const one = [info('w', [8], 0, 0)];
  const huge = 2n ** 62n;
  const cases: [string, Parts, string | RegExp][] = [
    ['another format', { magic: 'GGML' }, 'it does not begin with "GGUF"'],
    ['version 1', { version: 1 }, 'version 1 is not read; 2 and 3 are'],
    ['a later version', { version: 4 }, 'version 4 is not read'],
    ['big endian', { version: 0x03000000 }, 'it is big endian, which is not read'],
    ['more tensors than bytes', { counts: [huge, 0] }, `it would have ${huge} tensors and 0 keys, for which 32 bytes are too few`],
    ['more keys than bytes', { counts: [0, huge] }, 'for which 32 bytes are too few'],
    ['counts that overflow', { counts: [2n ** 64n - 1n, 2n ** 64n - 1n] }, 'for which 32 bytes are too few'],
    ['a key of enormous length', { keys: [[...u64(huge), ...u32(0), ...u64(0)]] }, /its header is damaged: String length/],
    ['a text of enormous length', { keys: [entry('a', 8, u64(huge))] }, /its header is damaged: String length/],
    ['a text that goes on behind the end', { keys: [entry('a', 8, [...u64(5000), 65])] }, /truncated|damaged|not UTF-8/],
    ['a list of enormous length', { keys: [entry('a', 9, [...u32(4), ...u64(huge)])] }, /its header is damaged: Metadata array length/],
    ['a list that goes on behind the end', { keys: [entry('a', 9, [...u32(4), ...u64(900_000)])] }, 'it is truncated'],
    ['lists in lists without end', { keys: [entry('a', 9, Array.from({ length: 9 }, () => [...u32(9), ...u64(1)]).flat())] }, /its header is damaged: Nested/],
    ['lists in lists', { keys: [entry('a', 9, [...u32(9), ...u64(1), ...u32(4), ...u64(0)])] }, 'lists of lists are not read'],
    ['a type of metadata', { keys: [entry('a', 77, u32(0))] }, /its header is damaged: Unsupported metadata type/],
    ['a key twice', { keys: [entry('a', 4, u32(1)), entry('a', 4, u32(2))] }, 'a key of its metadata stands there twice'],
    ['a key that the library makes itself', { keys: [entry('version', 4, u32(3))] }, 'a key of its metadata stands there twice'],
    ['a key of Object', { keys: [entry('__proto__', 8, text('x'))] }, 'a key of its metadata stands there twice'],
    ['text that is not UTF-8', { keys: [entry('a', 8, [...u64(2), 0xff, 0xfe])] }, 'a text in it is not UTF-8'],
    ['alignment', { keys: [entry('general.alignment', 4, u32(24))], infos: one, data: Array<number>(32).fill(0) }, 'general.alignment is 24; it must be a power of two'],
    ['alignment 0', { keys: [entry('general.alignment', 4, u32(0))] }, /alignment/],
    ['a type of tensors', { infos: [info('w', [8], 13, 0)] }, 'tensor "w" is of type Q5_K; read are F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K'],
    ['an unknown type', { infos: [info('w', [8], 99, 0)] }, 'tensor "w" is of type number 99'],
    ['many dimensions', { infos: [info('w', [1, 1, 1, 1, 8], 0, 0)] }, 'has 5 dimensions; there are at most 4'],
    ['very many dimensions', { infos: [info('w', Array<number>(9).fill(1), 0, 0)] }, /its header is damaged: Tensor n_dims/],
    ['a size that overflows', { infos: [info('w', [2 ** 32, 2 ** 32, 2 ** 32, 2 ** 32], 0, 0)] }, 'has no size that could be'],
    ['a dimension beyond all', { infos: [info('w', [2n ** 63n], 0, 0)] }, /its header is damaged: Tensor "w" dimension/],
    ['no values', { infos: [info('w', [0, 8], 0, 0)] }, 'has no size that could be'],
    ['rows that are no blocks', { infos: [info('w', [33], 8, 0)], data: Array<number>(64).fill(0) }, 'of shape (33) and type Q8_0 needs rows of multiples of 32 values'],
    ['data that end early', { infos: one, data: Array<number>(31).fill(0) }, 'of shape (8) and type F32 needs 32 bytes from byte 0 of the data on, of which there are 31: the file is truncated or damaged'],
    ['an offset behind the end', { infos: [info('w', [8], 0, 2n ** 63n)], data: Array<number>(32).fill(0) }, 'the file is truncated or damaged'],
    ['an offset between', { infos: [info('w', [8], 0, 8)], data: Array<number>(64).fill(0) }, 'begins at byte 8 of the data, no multiple of 32'],
    ['tensors over one another', { infos: [...one, info('v', [16], 0, 0)], data: Array<number>(64).fill(0) }, /overlaps tensor/],
    ['a tensor twice', { infos: [...one, info('w', [8], 0, 32)], data: Array<number>(64).fill(0) }, 'tensor "w" stands there twice'],
  ]; // prettier-ignore
  it.each(cases)('%s', async (_, parts, message) => {
    await expect(read(parts)).rejects.toThrow(message);
    await expect(read(parts)).rejects.toThrow(/^\[gguf\] a\.gguf: /);
  });

  it('a file cut anywhere in its header', async () => {
    const whole = fileOf({ keys: [entry('key', 9, strings(['abc', 'def'])), entry('b', 8, text('xyz'))], infos: one, data: Array<number>(32).fill(0) }); // prettier-ignore
    await read(whole);
    for (let end = 0; end < whole.length; end++)
      await expect(read(whole.subarray(0, end)), `cut at ${end}`).rejects.toThrow(/^\[gguf\] a\.gguf: /);
  });
});

describe('models', () => {
  let device: Device;
  let root: string;
  beforeAll(async () => {
    device = await plainDevice();
    root = await mkdtemp(path.join(tmpdir(), 'dawngrad-gguf-'));
  });
  afterAll(() => rm(root, { recursive: true }));

  const six = { ...SMALL, num_hidden_layers: 6, hidden_size: 32, intermediate_size: 32, head_dim: 16 };
  const gemma = { hidden_act: 'gelu_pytorch_tanh', tie_word_embeddings: true };
  const models: [string, object][] = [
    ['llama', SMALL],
    ['llama, tied, with biases', { ...SMALL, tie_word_embeddings: true, attention_bias: true }],
    ['llama, linear', { ...SMALL, rope_scaling: { type: 'linear', factor: 2.5 } }],
    ['llama, yarn', { ...SMALL, rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 16 } }],
    ['llama, llama3', { ...SMALL, rope_theta: 500000, rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 } }],
    ['qwen2', { ...SMALL, model_type: 'qwen2' }],
    ['qwen3', { ...SMALL, model_type: 'qwen3', head_dim: 32 }],
    ['gemma', { ...SMALL, ...gemma, model_type: 'gemma', head_dim: 16, num_key_value_heads: 1 }],
    ['gemma3', { ...six, ...gemma, model_type: 'gemma3_text', sliding_window: 4, sliding_window_pattern: 6, query_pre_attn_scalar: 16, rope_theta: 1000000 }],
    ['gemma3 whose last layer is local', { ...six, ...gemma, num_hidden_layers: 8, model_type: 'gemma3_text', sliding_window: 4, query_pre_attn_scalar: 16, rope_theta: 1000000, rope_scaling: { rope_type: 'linear', factor: 8 } }],
  ]; // prettier-ignore
  it.each(models)('%s: written and read again', async (name, json) => {
    const model = randomModel(device, json, 3);
    const expected = await logitsOf(model, IDS);
    const file = path.join(root, 'model.gguf');
    await saveGguf(model, file, { name });
    const again = await loadTransformer(device, file);
    const { ends: _, ...config } = model.config;
    if (name !== 'llama, llama3') expect(again.config).toMatchObject(config);
    const originals = await weightsOf(model);
    for (const [path, values] of await weightsOf(again))
      // Gemma's norms go through 1 + w.
      if (name.startsWith('gemma')) expect(distance(values, originals.get(path)!) || 0, path).toBeLessThan(1e-6);
      else expect(values, path).toEqual(originals.get(path)!);
    expect(distance(await logitsOf(again, IDS), expected)).toBeLessThan(1e-5);
    model.release();
    again.release();
  });

  it('llamas’ queries and keys lie in pairs', async () => {
    const model = randomModel(device, SMALL, 4);
    const file = path.join(root, 'pairs.gguf');
    await saveGguf(model, file);
    const opened = await openGguf(file);
    const [own, pairs] = [(await weightsOf(model)).get('model.layers.1.self_attn.k_proj.weight')!, await opened.floats('blk.1.attn_k.weight')]; // prettier-ignore
    const row = (values: Float32Array, head: number, column: number) => values.slice((head * 16 + column) * 64, (head * 16 + column + 1) * 64); // prettier-ignore
    for (const head of [0, 1])
      for (let i = 0; i < 8; i++) {
        expect(row(pairs, head, 2 * i)).toEqual(row(own, head, i));
        expect(row(pairs, head, 2 * i + 1)).toEqual(row(own, head, i + 8));
      }
    expect([...opened.tensors.keys()].slice(0, 4)).toEqual(['token_embd.weight', 'blk.0.attn_q.weight', 'blk.0.attn_k.weight', 'blk.0.attn_v.weight']); // prettier-ignore
    await opened.close();
    model.release();
  });

  it('Q8_0: written, into q8 without a change, written from q8 without a change; into others by rounding', async () => {
    const golden = await loadTransformer(device, `${goldens}/llm_llama`);
    const file = path.join(root, 'q8.gguf');
    await saveGguf(golden, file, { type: 'Q8_0' });
    const source = await openSafetensors(`${goldens}/llm_llama/model.safetensors`);
    const q8 = await loadTransformer(device, file, { weights: 'q8' });
    const f = await loadTransformer(device, file);
    const half = await loadTransformer(device, file, { weights: 'f16' });
    for (const [name, tensor] of q8.namedParameters()) {
      const original = await source.floats(name);
      const matrix = tensor.shape.length === 2;
      expect(tensor.dtype).toBe(matrix ? 'q8' : 'f32');
      const kept = matrix ? rounded(original, 'q8') : original;
      expect(await tensor.read(), name).toEqual(kept);
      expect(await f.namedParameters().get(name)!.read(), name).toEqual(kept);
      expect(await half.namedParameters().get(name)!.read(), name).toEqual(matrix ? rounded(kept, 'f16') : kept);
    }
    const again = path.join(root, 'again.gguf');
    await saveGguf(q8, again, { type: 'Q8_0' });
    expect((await readFile(again)).equals(await readFile(file))).toBe(true);
    await source.close();
    for (const model of [golden, q8, f, half]) model.release();
  });

  it('what llama.cpp does not compute is not written', () => {
    const refused: [object, string][] = [
      [{ ...SMALL, model_type: 'mistral', sliding_window: 8 }, 'windows are Gemma 3’s alone'],
      [{ ...SMALL, rope_scaling: { type: 'dynamic', factor: 2 } }, 'it has no dynamic scaling'],
      [{ ...SMALL, mlp_bias: true }, 'none of its MLPs has biases'],
      [{ ...SMALL, hidden_act: 'gelu_pytorch_tanh' }, 'Gemmas’ MLPs have GELU, the others’ SiLU'],
      [{ ...SMALL, model_type: 'dawngrad', layer_types: ['tree_attention', 'full_attention'], sliding_window: 8, tree: {} }, 'it has no trees and no sinks'],
      [{ ...SMALL, model_type: 'dawngrad', layer_types: ['full_attention', 'full_attention'], no_rope: ['full_attention'] }, 'all of its layers turn'],
    ]; // prettier-ignore
    for (const [json, message] of refused) {
      const model = randomModel(device, json);
      expect(() => ggufOf(model)).toThrow(`[gguf] the model cannot be written for llama.cpp: ${message}`);
      model.release();
    }
  });

  it('what is not supported of others’ files is refused by name', async () => {
    const base = { architecture: [entry('general.architecture', 8, text('llama'))] };
    const config = async (keys: number[][], infos: number[][] = []) => ggufConfig(await read({ keys, infos, data: infos.length ? Array<number>(32).fill(0) : [] })); // prettier-ignore
    await expect(config([])).rejects.toThrow(
      'its architecture is not given; known are llama, qwen2, qwen3, gemma, gemma3',
    );
    await expect(config([entry('general.architecture', 8, text('mamba'))])).rejects.toThrow(
      'its architecture is "mamba"',
    );
    await expect(config([...base.architecture, entry('llama.expert_count', 4, u32(8))])).rejects.toThrow('llama.expert_count (8) is not supported'); // prettier-ignore
    await expect(config(base.architecture)).rejects.toThrow('llama.embedding_length is missing');
    await expect(config([...base.architecture, entry('llama.embedding_length', 8, text('64'))])).rejects.toThrow('llama.embedding_length must be a number, not string'); // prettier-ignore
    const file = path.join(root, 'no.gguf');
    await writeFile(file, fileOf({ keys: base.architecture }));
    await expect(loadTransformer(device, file)).rejects.toThrow(`[gguf] ${file}: llama.embedding_length is missing`);
  });
});
