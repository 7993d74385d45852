/** What commands that write text load: a folder, a GGUF file and a llama2.c file, with tokenizers of their own or others'. */
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadLanguage } from '../../cli/generate/load.ts';
import type { Language } from '../../cli/generate/load.ts';
import { ROOT } from '../../cli/run.ts';
import { ChatTemplate } from '../../llm/chat.ts';
import { loadTransformer, loadTransformerConfig, saveGguf } from '../../llm/folder.ts';
import { generate } from '../../llm/generate.ts';
import { plainDevice } from '../device.ts';
import { randomModel, SMALL } from '../llm/helpers.ts';

const LM = path.join(ROOT, 'assets/lm');
const TEMPLATE = '{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}';
let root: string;
beforeAll(async () => void (root = await mkdtemp(path.join(tmpdir(), 'dawngrad-load-'))));
afterAll(() => rm(root, { recursive: true }));

async function textOf({ model, tokenizer }: Language): Promise<string> {
  let text = '';
  for await (const event of generate(model, ['The capital of'], { tokenizer, temperature: 0, maxTokens: 12 }))
    text += event.text;
  return text;
}

it('a GGUF file that was written with tokenizer and template says what the folder says', async () => {
  const { model, defaults: _, ...texts } = await loadLanguage(LM, { weights: 'f32' });
  const own = await textOf({ model, defaults: {}, ...texts });
  const chat = { ...texts.chat, source: TEMPLATE };
  const file = path.join(root, 'lm.gguf');
  await saveGguf(model, file, { type: 'F32', tokenizer: { ...texts, chat } });
  const inside = await loadLanguage(file, { weights: 'f32' });
  expect(await textOf(inside)).toBe(own);
  expect(inside.chat).toEqual(chat);
  const messages = [{ role: 'user', content: 'a <|endoftext|> b' }];
  const [template, same] = [inside, { tokenizer: texts.tokenizer }].map(({ tokenizer }) => new ChatTemplate(tokenizer, chat)); // prettier-ignore
  expect(template!.kind).toBe('own');
  expect(template!.encode(messages)).toEqual(same!.encode(messages));

  // By its name in capitals, as a model and as a place of its configuration and tokenizer.
  const capitals = path.join(root, 'LM.GGUF');
  await copyFile(file, capitals);
  expect(await textOf(await loadLanguage(capitals, { weights: 'f32', tokenizer: capitals }))).toBe(own);
  expect(await loadTransformerConfig(capitals)).toEqual(await loadTransformerConfig(file));

  // Without one inside, or with one that isn't wanted.
  const bare = path.join(root, 'bare.gguf');
  await saveGguf(model, bare, { type: 'F32' });
  await expect(loadLanguage(bare, { weights: 'f32' })).rejects.toThrow(`[tokenizer] ${bare} has no tokenizer in it; --tokenizer names another`); // prettier-ignore
  expect(await textOf(await loadLanguage(bare, { weights: 'f32', tokenizer: LM }))).toBe(own);
  expect(await textOf(await loadLanguage(bare, { weights: 'f32', tokenizer: file }))).toBe(own);
});

it('a llama2.c file has the tokenizer beside it', async () => {
  const device = await plainDevice();
  const model = randomModel(device, { ...SMALL, vocab_size: 262 });
  // Version 0: header, then weights kind by kind.
  const weights = new Map<string, Float32Array>();
  for (const [name, tensor] of model.namedParameters()) weights.set(name, (await tensor.read()) as Float32Array);
  const layers = (part: string) => [0, 1].map((i) => weights.get(`model.layers.${i}.${part}.weight`)!);
  const kinds = ['input_layernorm', 'self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj', 'self_attn.o_proj', 'post_attention_layernorm', 'mlp.gate_proj', 'mlp.down_proj', 'mlp.up_proj']; // prettier-ignore
  const arrays = [weights.get('model.embed_tokens.weight')!, ...kinds.flatMap(layers), weights.get('model.norm.weight')!, new Float32Array(64 * 16), weights.get('lm_head.weight')!]; // prettier-ignore
  const header = Int32Array.of(64, 96, 2, 4, 2, -262, 64);
  const file = path.join(root, 'model.bin');
  await writeFile(file, Buffer.concat([header, ...arrays].map((array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength)))); // prettier-ignore
  await loadTransformer(device, file).then((loaded) => loaded.release());
  model.release();
  await expect(loadLanguage(file, { weights: 'f32' })).rejects.toThrow(/cannot read .*tokenizer\.bin: .*; --tokenizer names another/); // prettier-ignore

  const pieces = ['<unk>', '<s>', '</s>', ...Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`), ' ', 'a', ' a']; // prettier-ignore
  const records = pieces.flatMap((piece, id) => {
    const [score, length] = [Float32Array.of(-id), Int32Array.of(Buffer.byteLength(piece))];
    return [Buffer.from(score.buffer), Buffer.from(length.buffer), Buffer.from(piece)];
  });
  const bin = Buffer.concat([Buffer.from(Int32Array.of(6).buffer), ...records]);
  await writeFile(path.join(root, 'other.bin'), bin);
  const named = await loadLanguage(file, { weights: 'f32', tokenizer: path.join(root, 'other.bin') });
  expect(named.tokenizer.encode('a', { begin: true })).toEqual([1, 261]);
  await copyFile(path.join(root, 'other.bin'), path.join(root, 'tokenizer.bin'));
  expect((await loadLanguage(file, { weights: 'f32' })).tokenizer.decode([261])).toBe('a');
  const capitals = path.join(root, 'MODEL.BIN');
  await copyFile(file, capitals);
  await copyFile(path.join(root, 'other.bin'), path.join(root, 'OTHER.BIN'));
  for (const tokenizer of [undefined, path.join(root, 'OTHER.BIN')])
    expect((await loadLanguage(capitals, { weights: 'f32', tokenizer })).tokenizer.decode([261])).toBe('a');
  await expect(loadLanguage(file, { weights: 'f32', tokenizer: LM })).rejects.toThrow(/the tokenizer has 2048 tokens, the model in .*model\.bin 262/); // prettier-ignore
});
