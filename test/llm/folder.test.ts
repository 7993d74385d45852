/** Folders of decoders: whole and in shards, in every type, loaded into every format, and what must be refused. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { byteLength, f16ToF32, f32ToF16 } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { trainTokenizer } from '../../llm/bpe.ts';
import { loadTokenizer, loadTransformer, loadTransformerConfig, saveTransformer } from '../../llm/folder.ts';
import { rounded, weightErrors } from '../../llm/weights.ts';
import { makeFolder, openSafetensors, saveSafetensors } from '../../nn/files.ts';
import { folderFiles } from '../../nn/folder.ts';
import { WEIGHT_FORMATS } from '../../nn/module.ts';
import type { Writable } from '../../nn/safetensors.ts';
import { plainDevice } from '../device.ts';
import { distance, logitsOf, randomModel, SMALL, weightsOf } from './helpers.ts';

const golden = new URL('../goldens/llm_llama', import.meta.url).pathname;
const IDS = [1, 5, 90, 3, 3, 17, 60, 2];
let device: Device;
let root: string;
beforeAll(async () => {
  device = await plainDevice();
  root = await mkdtemp(path.join(tmpdir(), 'dawngrad-folder-'));
});
afterAll(() => rm(root, { recursive: true }));

type Values = Map<string, { shape: readonly number[]; values: Float32Array }>;

/** A folder with a configuration and shards of some tensors each. */
async function shardedFolder(
  name: string,
  json: object,
  tensors: Values,
  { shards = 3, index = (map: Record<string, string>): unknown => ({ weight_map: map }) } = {},
): Promise<string> {
  const folder = path.join(root, name);
  await makeFolder(folder);
  await writeFile(path.join(folder, 'config.json'), JSON.stringify(json));
  const map: Record<string, string> = {};
  const entries = [...tensors];
  for (let i = 0; i < shards; i++) {
    const file = `model-0000${i + 1}-of-0000${shards}.safetensors`;
    const own = entries.filter((_, n) => n % shards === i);
    for (const [tensor] of own) map[tensor] = file;
    const writable = own.map(([tensor, { shape, values }]): [string, Writable] => [tensor, { dtype: 'F32', shape, data: values }]); // prettier-ignore
    await saveSafetensors(path.join(folder, file), new Map(writable));
  }
  await writeFile(path.join(folder, 'model.safetensors.index.json'), JSON.stringify(index(map)));
  return folder;
}

/** A file of bytes of one type: what is not written here, but read. */
function fileOf(
  tensors: ReadonlyMap<string, { shape: readonly number[]; bytes: Uint8Array }>,
  dtype: string,
): Uint8Array {
  let at = 0;
  const header: Record<string, unknown> = {};
  for (const [name, { shape, bytes }] of tensors)
    header[name] = { dtype, shape, data_offsets: [at, (at += bytes.length)] };
  const json = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(BigUint64Array.of(BigInt(json.length)).buffer);
  return Buffer.concat([length, json, ...[...tensors.values()].map(({ bytes }) => bytes)]);
}

async function small(seed: number, json: object = SMALL): Promise<Values> {
  const model = randomModel(device, json, seed);
  const values = await weightsOf(model);
  const shapes = model.namedParameters();
  model.release();
  return new Map([...values].map(([name, values]) => [name, { shape: shapes.get(name)!.shape, values }]));
}

describe('folders', () => {
  it('save and load again, bit for bit; with them the tokenizer’s files', async () => {
    const source = path.join(root, 'source');
    await makeFolder(source);
    await writeFile(path.join(source, 'config.json'), JSON.stringify(SMALL));
    await writeFile(path.join(source, 'tokenizer.json'), '{"model": {}}');
    const model = randomModel(device, SMALL, 2);
    await saveTransformer(model, source, path.join(root, 'saved'));
    await saveTransformer(model, source, path.join(root, 'half'), { dtype: 'F16' });
    const again = await loadTransformer(device, path.join(root, 'saved'));
    expect(await weightsOf(again)).toEqual(await weightsOf(model));
    expect(await logitsOf(again, IDS)).toEqual(await logitsOf(model, IDS));
    expect(again.config).toEqual(model.config);
    expect(await readFile(path.join(root, 'saved', 'tokenizer.json'), 'utf8')).toBe('{"model": {}}');
    const half = await loadTransformer(device, path.join(root, 'half'));
    for (const [name, values] of await weightsOf(half))
      expect(values, name).toEqual(f16ToF32(f32ToF16((await weightsOf(model)).get(name)!)));
    for (const loaded of [model, again, half]) loaded.release();
  });

  it('shards', async () => {
    const tensors = await small(3);
    const model = await loadTransformer(device, await shardedFolder('shards', SMALL, tensors));
    for (const [name, values] of await weightsOf(model)) expect(values, name).toEqual(tensors.get(name)!.values);
    model.release();
  });

  it('F16 and BF16', async () => {
    const tensors = await small(4);
    for (const dtype of ['F16', 'BF16'] as const) {
      const folder = path.join(root, dtype);
      await makeFolder(folder);
      await writeFile(path.join(folder, 'config.json'), JSON.stringify(SMALL));
      // BF16 by truncation: any bits are a number.
      const bits = (values: Float32Array): Uint16Array =>
        dtype === 'F16' ? f32ToF16(values) : Uint16Array.from(new Uint32Array(values.slice().buffer), (word) => word >>> 16); // prettier-ignore
      const stored = new Map([...tensors].map(([name, { shape, values }]) => [name, { shape, bytes: new Uint8Array(bits(values).buffer) }])); // prettier-ignore
      await writeFile(path.join(folder, 'model.safetensors'), fileOf(stored, dtype));
      const model = await loadTransformer(device, folder);
      for (const [name, values] of await weightsOf(model)) {
        const halves = bits(tensors.get(name)!.values);
        const expected = dtype === 'F16' ? f16ToF32(halves) : new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer); // prettier-ignore
        expect(values, `${dtype} ${name}`).toEqual(expected);
      }
      model.release();
    }
  });

  it('a tied model’s file may repeat the head, and older files hold the frequencies', async () => {
    const json = { ...SMALL, tie_word_embeddings: true };
    const tensors = await small(5, json);
    tensors.set('lm_head.weight', tensors.get('model.embed_tokens.weight')!);
    tensors.set('model.layers.0.self_attn.rotary_emb.inv_freq', { shape: [8], values: new Float32Array(8) });
    const model = await loadTransformer(device, await shardedFolder('tied', json, tensors));
    expect(model.lm_head).toBeNull();
    model.release();
  });
});

describe('what is refused', () => {
  it('missing folders, files, shards and tensors; shards elsewhere; others’ shapes', async () => {
    const tensors = await small(6);
    const load = (folder: string) => loadTransformer(device, folder);
    const live = device.memory.live;
    await expect(load(path.join(root, 'nowhere'))).rejects.toThrow(/the model folder .*nowhere does not exist/);
    const empty = path.join(root, 'empty');
    await makeFolder(empty);
    await expect(load(empty)).rejects.toThrow(/empty\/config\.json is missing/);
    await writeFile(path.join(empty, 'config.json'), JSON.stringify(SMALL));
    await writeFile(path.join(empty, 'pytorch_model.bin'), '');
    await expect(load(empty)).rejects.toThrow(
      /empty has no model\.safetensors; pytorch_model\.bin is in a form that is not read/,
    );

    const lost = await shardedFolder('lost', SMALL, tensors);
    await rm(path.join(lost, 'model-00002-of-00003.safetensors'));
    await expect(load(lost)).rejects.toThrow(/cannot open .*model-00002-of-00003\.safetensors: there is no such file/);

    const name = 'model.layers.1.mlp.up_proj.weight';
    const misplaced = await shardedFolder('misplaced', SMALL, tensors, {
      index: (map) => {
        const other = Object.values(map).find((file) => file !== map[name])!;
        return { weight_map: { ...map, [name]: other } };
      },
    });
    await expect(load(misplaced)).rejects.toThrow(
      /index\.json: model\.layers\.1\.mlp\.up_proj\.weight is not in model-/,
    );

    for (const file of ['../lost/model-00001-of-00003.safetensors', '/etc/passwd', 'a/b.safetensors', 3, null]) {
      const outside = await shardedFolder('outside', SMALL, tensors, {
        index: (map) => ({ weight_map: { ...map, [name]: file } }),
      });
      await expect(load(outside)).rejects.toThrow(`${name} is in ${JSON.stringify(file)}, which is not the name of a`);
    }
    for (const [index, message] of [[{}, 'it must have weight_map'], [{ weight_map: null }, 'it must have weight_map']] as const) {
      await expect(load(await shardedFolder('index', SMALL, tensors, { index: () => index }))).rejects.toThrow(message);
    } // prettier-ignore

    const fewer = new Map(tensors);
    fewer.delete(name);
    fewer.delete('model.norm.weight');
    fewer.set('model.layers.2.mlp.up_proj.weight', tensors.get(name)!);
    await expect(load(await shardedFolder('fewer', SMALL, fewer))).rejects.toThrow(
      `does not fit this model: missing ${name}, model.norm.weight; unknown model.layers.2.mlp.up_proj.weight`,
    );
    const wider = { ...SMALL, vocab_size: 128 };
    await expect(load(await shardedFolder('wider', wider, tensors))).rejects.toThrow(
      "model.embed_tokens.weight is (96, 64), the model's is (128, 64)",
    );
    expect(device.memory.live).toBe(live);
  });
});

describe('texts of a folder', () => {
  const FILES = [
    'config.json',
    'generation_config.json',
    'tokenizer.json',
    'tokenizer_config.json',
    'chat_template.jinja',
  ];
  let folder: string;
  beforeAll(async () => {
    folder = path.join(root, 'texts');
    await makeFolder(folder);
    await writeFile(path.join(folder, 'config.json'), JSON.stringify(SMALL));
    await writeFile(path.join(folder, 'tokenizer.json'), JSON.stringify(trainTokenizer(['a cat sat'], 258)));
  });
  /** Reads them with one of them replaced. */
  async function withFile(file: string, content: string | Uint8Array): Promise<void> {
    const place = path.join(folder, file);
    const before = await readFile(place).catch(() => null);
    await writeFile(place, content);
    try {
      await loadTransformerConfig(folder);
      await loadTokenizer(folder, 258);
    } finally {
      await (before ? writeFile(place, before) : rm(place));
    }
  }

  it.each([...FILES, 'model.safetensors.index.json'])(
    '%s that is not UTF-8 is refused, with the byte',
    async (file) => {
      const bytes = Buffer.concat([Buffer.from('{"aé":"'), Buffer.from([0xe9]), Buffer.from('"}')]); // the last é in Latin-1
      const reading = file.startsWith('model.')
        ? writeFile(path.join(folder, file), bytes).then(() => folderFiles(folder).weights('', 'model'))
        : withFile(file, bytes);
      await expect(reading).rejects.toThrow(`[folder] ${path.join(folder, file)} is not UTF-8: byte 9 (0x22) is wrong`);
    },
  );

  it.each(FILES.slice(0, -1))('%s may begin with a byte order mark', async (file) => {
    const before = await readFile(path.join(folder, file), 'utf8').catch(() => '{}');
    await expect(withFile(file, `\ufeff${before}`)).resolves.toBeUndefined();
  });

  it.each(['generation_config.json', 'tokenizer_config.json'])('%s of a list or null is refused', async (file) => {
    for (const text of ['[1]', 'null', '"x"'])
      await expect(withFile(file, text)).rejects.toThrow(`${file} must be keys and values, not ${text}`);
  });
});

describe('formats', () => {
  it.each(WEIGHT_FORMATS)('%s: the logits are those of the rounded weights, and no f32 is left', async (format) => {
    const ids = Array.from({ length: 24 }, (_, i) => (i * 37 + 11) % 256);
    const whole = await loadTransformer(device, golden);
    const exact = await logitsOf(whole, ids);
    // The same weights rounded on the host, in f32.
    const file = await openSafetensors(path.join(golden, 'model.safetensors'));
    const simulated = await loadTransformer(device, golden);
    const floats = async (name: string) => {
      const values = await file.floats(name);
      return file.info(name).shape.length === 2 ? rounded(values, format) : values;
    };
    await simulated.load({ name: 'rounded', tensors: file.tensors, floats });
    const expected = await logitsOf(simulated, ids);

    const tag = () => device.memory.usage.get('parameters')!;
    device.memory.resetPeak();
    const before = tag().live;
    const model = await loadTransformer(device, golden, { weights: format });
    const parameters = [...model.namedParameters().values()];
    for (const { dtype, shape } of parameters) expect(dtype).toBe(shape.length === 2 ? format : 'f32');
    const bytes = parameters.reduce((sum, { size, dtype }) => sum + byteLength(size, dtype), 0);
    // Size classes are at most a quarter over what is asked for, and at least 256 bytes.
    expect(tag().peak - before).toBeLessThanOrEqual(1.25 * bytes + 256 * parameters.length);
    expect(tag().live).toBe(tag().peak);
    const logits = await logitsOf(model, ids);
    // f32 sums of up to 96 products in another order.
    expect(distance(logits, expected)).toBeLessThan(1e-5);

    let [squares, count] = [0, 0];
    for await (const { relative, shape } of weightErrors(file, format)) {
      squares += relative ** 2;
      count++;
      expect(shape.length).toBe(2);
    }
    const weight = Math.sqrt(squares / count);
    // Of f16 and bf16 half a unit in the last of 11 and 8 bits; q8's step is 1/127 of a block's largest value, which is about
    // 2.2 deviations for 32 normal values, and an error of uniform distribution is 1/√12 of the step: 0.5 %. q4 as
    // engine/formats.ts measured it: 8.2 %.
    const bound = { f32: 0, f16: 2 ** -11, bf16: 2 ** -8, q8: 0.006, q4: 0.09 }[format];
    expect(weight).toBeLessThanOrEqual(bound);
    if (format !== 'f32') expect(weight).toBeGreaterThan(bound / 10);
    // Each product adds an error of that share to what it makes; on the way from the table to the logits there are two of
    // attention and two of the MLP a layer one behind the other, and the head. They are independent of one another.
    const chain = Math.sqrt(4 * model.config.layers.length + 2);
    const error = distance(logits, exact);
    expect(error).toBeLessThanOrEqual(chain * weight + 1e-6);
    if (format !== 'f32') expect(error).toBeGreaterThan(weight / 10);
    if (format !== 'f32')
      expect(() => model.setTrainable(true)).toThrow(`model.embed_tokens.weight is kept in ${format}; parameters that are trained are f32`); // prettier-ignore
    await file.close();
    for (const made of [whole, simulated, model]) made.release();
  });

  it('refuses rows that a format does not hold, values that it does not, and formats that there are not', async () => {
    const json = { ...SMALL, intermediate_size: 72 };
    const tensors = await small(7, json);
    const folder = await shardedFolder('rows', json, tensors);
    const live = device.memory.live;
    await expect(loadTransformer(device, folder, { weights: 'q4' })).rejects.toThrow(
      'model.layers.0.mlp.down_proj.weight is (64, 72), and rows in q4 are multiples of 32, model.layers.1.mlp.down_proj.weight is (64, 72), and rows in q4 are multiples of 32; take f16',
    );
    await expect(loadTransformer(device, folder, { weights: 'q5' as 'q4' })).rejects.toThrow('weights are f32, f16, bf16, q8, q4, not q5'); // prettier-ignore
    const bad = await small(8);
    bad.get('lm_head.weight')!.values[7] = NaN;
    await expect(loadTransformer(device, await shardedFolder('nan', SMALL, bad), { weights: 'q8' })).rejects.toThrow(
      'lm_head.weight: [quantize] value 7 is NaN: q8 holds finite values',
    );
    expect(device.memory.live).toBe(live);
  });
});
