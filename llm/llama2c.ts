/**
 * llama2.c's model files (https://github.com/karpathy/llama2.c), version 0: a header of 7 int32 (width, hidden, layers, heads,
 * key heads, vocabulary, context; a negative vocabulary: the head has weights of its own), then f32 weights kind by kind, each
 * for all layers, in a fixed order. Norms' epsilon is 1e-5, the base 10,000. Nothing here imports from Node.
 */
import { sizeOf } from '../engine/index.ts';
import type { Device, Shape } from '../engine/index.ts';
import { loaded } from '../nn/model_files.ts';
import type { Weights } from '../nn/module.ts';
import type { ByteSource } from '../nn/safetensors.ts';
import { parseTransformerConfig } from './config.ts';
import { fromPairs } from './gguf.ts';
import { Transformer } from './model.ts';
import { loadOptions } from './weights.ts';
import type { TransformerOptions } from './weights.ts';

const HEADER = 7 * 4;

/** A file's configuration in the form of transformers' `config.json`, and its weights under transformers' names. */
export async function readLlama2c(source: ByteSource): Promise<{ json: Record<string, unknown>; weights: Weights }> {
  const fail = (what: string): never => {
    throw new Error(`[llama2c] ${source.name}: ${what}`);
  };
  if (source.size < HEADER) fail(`${source.size} bytes are too few: a file begins with ${HEADER} bytes of header`);
  const header = new Int32Array((await source.read(0, HEADER)).buffer as ArrayBuffer, 0, 7);
  const [width, hidden, layers, heads, keyHeads, signed, context] = Array.from(header) as [number, number, number, number, number, number, number]; // prettier-ignore
  if (width === 0x616b3432) fail('it is of a later version; files of version 0 are read (export.py --version 0)');
  const vocabulary = Math.abs(signed);
  const json = {
    model_type: 'llama',
    vocab_size: vocabulary,
    hidden_size: width,
    intermediate_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: keyHeads,
    max_position_embeddings: context,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    tie_word_embeddings: signed > 0,
    eos_token_id: 2,
  };
  const { headDim } = parseTransformerConfig(json, source.name); // bounds all of them
  const keys = keyHeads * headDim;
  const layer = (part: string, shape: Shape) =>
    Array.from({ length: layers }, (_, i) => [`model.layers.${i}.${part}.weight`, shape] as const);
  const order: readonly (readonly [string | null, Shape])[] = [
    ['model.embed_tokens.weight', [vocabulary, width]],
    ...layer('input_layernorm', [width]),
    ...layer('self_attn.q_proj', [width, width]),
    ...layer('self_attn.k_proj', [keys, width]),
    ...layer('self_attn.v_proj', [keys, width]),
    ...layer('self_attn.o_proj', [width, width]),
    ...layer('post_attention_layernorm', [width]),
    ...layer('mlp.gate_proj', [hidden, width]),
    ...layer('mlp.down_proj', [width, hidden]),
    ...layer('mlp.up_proj', [hidden, width]),
    ['model.norm.weight', [width]],
    [null, [context, headDim]], // cosines and sines, which are computed here
    ...(signed < 0 ? [['lm_head.weight', [vocabulary, width]] as const] : []),
  ];
  const tensors = new Map<string, { shape: Shape; start: number }>();
  let at = HEADER;
  for (const [name, shape] of order) {
    if (name !== null) tensors.set(name, { shape, start: at });
    at += 4 * sizeOf(shape);
  }
  if (at !== source.size)
    fail(`a model of its header (${Array.from(header).join(', ')}) has ${at} bytes, the file has ${source.size}: it is no llama2.c file, or damaged`); // prettier-ignore
  const floats = async (name: string) => {
    const { shape, start } = tensors.get(name)!;
    const bytes = await source.read(start, start + 4 * sizeOf(shape));
    const values = new Float32Array(bytes.buffer, 0, sizeOf(shape));
    return /[qk]_proj/.test(name) ? fromPairs(values, shape[0]!, headDim) : values;
  };
  return { json, weights: { name: source.name, tensors, floats } };
}

/** A decoder from a llama2.c file. Throws, naming file and fault, on anything damaged or not supported. */
export async function readLlama2cTransformer(
  device: Device,
  source: ByteSource,
  options: TransformerOptions = {},
): Promise<Transformer> {
  const { json, weights } = await readLlama2c(source);
  return loaded(() => Transformer.fromConfig(device, json, source.name), weights, loadOptions(options));
}
