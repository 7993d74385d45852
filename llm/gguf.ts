/**
 * Decoders in GGUF files, as llama.cpp has them: their configuration, the names of their tensors, and what it stores in
 * another form than transformers does. Both ways.
 */
import { byteLength, unpackBlocks } from '../engine/index.ts';
import type { Blocks, Device, Tensor } from '../engine/index.ts';
import { ropeFrequencies } from '../kernels/index.ts';
import { encodeGguf, VALUE } from '../nn/gguf.ts';
import type { Gguf, GgufValue, GgufWritable } from '../nn/gguf.ts';
import { loaded } from '../nn/model_files.ts';
import type { Weights } from '../nn/module.ts';
import { parseTransformerConfig } from './config.ts';
import type { TransformerConfig } from './config.ts';
import { Transformer } from './model.ts';
import { ropeValues } from './rope.ts';
import type { LoadedTokenizer } from './tokenizer_files.ts';
import { ggufTokenizerOf } from './tokenizer_gguf.ts';
import { loadOptions } from './weights.ts';
import type { TransformerOptions } from './weights.ts';

/** Architectures, and the model types of transformers that they are. Mistral's models are llamas there. */
const ARCHITECTURES = {
  llama: 'llama',
  qwen2: 'qwen2',
  qwen3: 'qwen3',
  gemma: 'gemma',
  gemma3: 'gemma3_text',
} as const;
type Architecture = keyof typeof ARCHITECTURES;

/** Keys of an architecture's metadata that are read, and those that are passed over at these values. */
const KEYS = [
  'context_length', 'embedding_length', 'block_count', 'feed_forward_length', 'vocab_size', 'attention.head_count',
  'attention.head_count_kv', 'attention.key_length', 'attention.value_length', 'attention.layer_norm_rms_epsilon',
  'attention.sliding_window', 'rope.dimension_count', 'rope.freq_base', 'rope.freq_base_swa', 'rope.scaling.type',
  'rope.scaling.factor', 'rope.scaling.original_context_length', 'rope.scaling.finetuned',
]; // prettier-ignore
const NEUTRAL: Readonly<Record<string, readonly unknown[]>> = { expert_count: [0], expert_used_count: [0] };

/** llama.cpp's model of 62 blocks, Gemma 3 27B, scales scores by the width for each head in place of the heads' own. */
const GEMMA3_27B = 62;
/** Not in the file: each sixth layer is global. */
const GEMMA3_PATTERN = 6;
const GEMMA3_LOCAL_BASE = 10_000;

/** The configuration of a file in the form of transformers' `config.json`. Throws, by name, on what is not supported. */
export async function ggufConfig(file: Gguf): Promise<Record<string, unknown>> {
  const fail = (what: string): never => {
    throw new Error(`[gguf] ${file.name}: ${what}`);
  };
  const architecture = file.metadata.get('general.architecture');
  if (typeof architecture !== 'string' || !Object.hasOwn(ARCHITECTURES, architecture))
    return fail(
      `its architecture is ${JSON.stringify(architecture) ?? 'not given'}; known are ${Object.keys(ARCHITECTURES).join(', ')}`,
    );
  for (const [key, value] of file.metadata) {
    if (!key.startsWith(`${architecture}.`)) continue;
    const own = key.slice(architecture.length + 1);
    const neutral = Object.hasOwn(NEUTRAL, own) ? NEUTRAL[own]! : [];
    if (!KEYS.includes(own) && !neutral.includes(value))
      fail(`${key} (${String(value).slice(0, 40)}) is not supported`);
  }
  const optional = (key: string): number | undefined => {
    const value = file.metadata.get(key);
    if (value !== undefined && typeof value !== 'number') return fail(`${key} must be a number, not ${typeof value}`);
    return value;
  };
  const own = (key: string) => optional(`${architecture}.${key}`);
  const needed = (key: string): number => own(key) ?? fail(`${architecture}.${key} is missing`);
  const width = needed('embedding_length');
  const heads = needed('attention.head_count');
  const layers = needed('block_count');
  const headDim = own('attention.key_length') ?? width / heads;
  for (const key of ['attention.value_length', 'rope.dimension_count'])
    if ((own(key) ?? headDim) !== headDim)
      fail(`${architecture}.${key} is ${own(key)}; supported is the width of a head, ${headDim}, only`);
  const window = own('attention.sliding_window');
  const gemma3 = architecture === 'gemma3';
  const ends = ['eos', 'eot'].map((which) => optional(`tokenizer.ggml.${which}_token_id`));
  // Weights of single precision, such as 1e-5, come as the nearest f32.
  const decimal = (value: number) => Number(value.toPrecision(7));
  return {
    model_type: architecture === 'llama' && window ? 'mistral' : ARCHITECTURES[architecture as Architecture],
    vocab_size: file.info('token_embd.weight').shape[0],
    hidden_size: width,
    intermediate_size: needed('feed_forward_length'),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: own('attention.head_count_kv') ?? heads,
    head_dim: headDim,
    hidden_act: architecture.startsWith('gemma') ? 'gelu_pytorch_tanh' : 'silu',
    max_position_embeddings: needed('context_length'),
    rms_norm_eps: decimal(needed('attention.layer_norm_rms_epsilon')),
    rope_theta: decimal(own('rope.freq_base') ?? (gemma3 ? 1e6 : 10_000)),
    rope_scaling: await scalingOf(file, architecture, fail),
    tie_word_embeddings: !file.tensors.has('output.weight'),
    eos_token_id: [...new Set(ends.filter((id) => id !== undefined))],
    ...(window ? { sliding_window: window } : {}),
    ...(architecture === 'llama' && file.tensors.has('blk.0.attn_q.bias') ? { attention_bias: true } : {}),
    ...(gemma3
      ? {
          sliding_window_pattern: GEMMA3_PATTERN,
          rope_local_base_freq: own('rope.freq_base_swa') ?? GEMMA3_LOCAL_BASE,
          query_pre_attn_scalar: layers === GEMMA3_27B ? width / heads : headDim,
        }
      : {}),
  };
}

async function scalingOf(file: Gguf, architecture: string, fail: (what: string) => never): Promise<object | null> {
  const get = (key: string) => file.metadata.get(`${architecture}.rope.scaling.${key}`);
  const type = get('type') ?? (get('factor') === undefined ? 'none' : 'linear');
  if (file.tensors.has('rope_freqs.weight')) {
    if (type !== 'none') fail('it scales frequencies both by rope_freqs.weight and by rope.scaling');
    return { rope_type: 'factors', factors: Array.from(await file.floats('rope_freqs.weight')) };
  }
  if (type === 'none') return null;
  if (type !== 'linear' && type !== 'yarn')
    return fail(`${architecture}.rope.scaling.type is ${JSON.stringify(type)}; supported are none, linear and yarn`);
  const original = get('original_context_length');
  return {
    rope_type: type,
    factor: get('factor'),
    ...(type === 'yarn' && original !== undefined ? { original_max_position_embeddings: original } : {}),
  };
}

/** Within a layer, and in the model. */
const NAMES: Readonly<Record<string, string>> = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  input_layernorm: 'attn_norm',
  post_attention_layernorm: 'ffn_norm',
};
/** Where norms stand behind attention and MLP too. */
const POST_NAMES: Readonly<Record<string, string>> = {
  ...NAMES,
  post_attention_layernorm: 'post_attention_norm',
  pre_feedforward_layernorm: 'ffn_norm',
  post_feedforward_layernorm: 'post_ffw_norm',
};

/** A parameter's name in a file. */
function ggufName(path: string, { postNorms }: TransformerConfig): string {
  const [, layer, part, kind] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(path) ?? [];
  if (layer) return `blk.${layer}.${(postNorms ? POST_NAMES : NAMES)[part!]!}.${kind}`;
  return { 'model.embed_tokens.weight': 'token_embd.weight', 'model.norm.weight': 'output_norm.weight', 'lm_head.weight': 'output.weight' }[path]!; // prettier-ignore
}

/**
 * Rows of queries and keys lie in llama.cpp's llamas so that the columns that turn together are neighbours, as in Meta's own
 * files: row 2i + s of a head is row s · D/2 + i of transformers'. Gives the row of one order for each of the other.
 */
function rowsFrom(order: 'pairs' | 'halves', rows: number, headDim: number): Int32Array {
  const half = headDim / 2;
  return Int32Array.from({ length: rows }, (_, row) => {
    const column = row % headDim;
    // From pairs: what is wanted is in halves.
    const source =
      order === 'pairs' ? 2 * (column % half) + Math.floor(column / half) : (column & 1) * half + (column >> 1);
    return row - column + source;
  });
}

/** The rows of an array in another order. */
export function pickRows<T extends Float32Array | Int8Array | Uint16Array>(array: T, rows: Int32Array): T {
  const width = array.length / rows.length;
  const out = array.slice() as T;
  rows.forEach((row, i) => out.set(array.subarray(row * width, (row + 1) * width), i * width));
  return out;
}

/** Rows of queries' and keys' weights and biases from neighbouring pairs (llama.cpp's, Meta's) to halves. */
export const fromPairs = <T extends Float32Array | Int8Array | Uint16Array>(
  array: T,
  rows: number,
  headDim: number,
): T => pickRows(array, rowsFrom('pairs', rows, headDim));

const PAIRED = /attn_[qk]\.(weight|bias)$/;

/** A file's weights in the form of transformers'. */
function ggufWeights(file: Gguf, architecture: Architecture, { headDim }: TransformerConfig): Weights {
  const rows = (name: string) =>
    architecture === 'llama' && PAIRED.test(name) ? rowsFrom('pairs', file.info(name).shape[0]!, headDim) : null;
  return {
    name: file.name,
    tensors: file.tensors,
    async floats(name) {
      const values = await file.floats(name);
      const order = rows(name);
      if (order) return pickRows(values, order);
      // llama.cpp adds Gemma's 1 beforehand.
      return architecture.startsWith('gemma') && name.endsWith('norm.weight') ? values.map((w) => w - 1) : values;
    },
    async blocks(name, format) {
      const blocks = await file.blocks(name, format);
      const order = rows(name);
      return blocks && order
        ? { quants: pickRows(blocks.quants, order), scales: pickRows(blocks.scales, order) }
        : blocks;
    },
  };
}

/** An open file as a model's configuration and weights. */
export async function ggufModel(file: Gguf): Promise<{ json: Record<string, unknown>; weights: Weights }> {
  const json = await ggufConfig(file);
  const config = parseTransformerConfig(json, file.name);
  return { json, weights: ggufWeights(file, file.metadata.get('general.architecture') as Architecture, config) };
}

/** Loads a decoder from an open GGUF file. Q8_0 into q8 and Q4_0 into q4 go without a change. */
export async function readGgufTransformer(
  device: Device,
  file: Gguf,
  options: TransformerOptions = {},
): Promise<Transformer> {
  const { json, weights } = await ggufModel(file);
  const config = parseTransformerConfig(json, file.name);
  return loaded(() => new Transformer(device, config), weights, {
    ...loadOptions(options),
    rename: (path) => ggufName(path, config),
    ignore: /^rope_freqs\.weight$/,
  });
}

export interface GgufOptions {
  /** Of products' weights and the table of embeddings; the others are F32. */
  readonly type?: GgufWritable['type'];
  readonly name?: string;
  /** Written beside the model, with its chat template. Without it llama.cpp takes ids alone. */
  readonly tokenizer?: LoadedTokenizer;
}

/** A decoder as a GGUF file for llama.cpp, in chunks. Throws where llama.cpp has no architecture that computes the same. */
export function ggufOf(
  model: Transformer,
  { type = 'F32', name = 'dawngrad', tokenizer }: GgufOptions = {},
): AsyncGenerator<Uint8Array> {
  const { config } = model;
  const architecture = architectureOf(config);
  const own = (key: string) => `${architecture}.${key}`;
  const u32 = (value: number) => ({ type: VALUE.u32, value });
  const f32 = (value: number) => ({ type: VALUE.f32, value });
  const string = (value: string) => ({ type: VALUE.string, value });
  // A Gemma 3's local layers have a base of their own, and no scaling.
  const turn = config.layers.find(({ window }) => window === null)!.rope!;
  const { scaling, base, context } = turn;
  const rope = (key: string) => own(`rope.${key}`);
  const window = config.layers[0]!.window;
  const metadata: [string, GgufValue][] = [
    ['general.architecture', string(architecture)],
    ['general.name', string(name)],
    ['general.file_type', u32({ F32: 0, F16: 1, Q8_0: 7 }[type])],
    [own('vocab_size'), u32(config.vocabulary)],
    [own('context_length'), u32(config.context)],
    [own('embedding_length'), u32(config.width)],
    [own('block_count'), u32(config.layers.length)],
    [own('feed_forward_length'), u32(config.hidden)],
    [own('attention.head_count'), u32(config.heads)],
    [own('attention.head_count_kv'), u32(config.keyHeads)],
    [own('attention.key_length'), u32(config.headDim)],
    [own('attention.value_length'), u32(config.headDim)],
    [own('attention.layer_norm_rms_epsilon'), f32(config.normEps)],
    [rope('dimension_count'), u32(config.headDim)],
    [rope('freq_base'), f32(base)],
  ];
  if (window !== null) metadata.push([own('attention.sliding_window'), u32(window)]);
  if (scaling.rope_type === 'linear' || scaling.rope_type === 'yarn') {
    metadata.push([rope('scaling.type'), string(scaling.rope_type)], [rope('scaling.factor'), f32(scaling.factor)]);
    if (scaling.rope_type === 'yarn')
      metadata.push([rope('scaling.original_context_length'), u32(scaling.original_max_position_embeddings ?? context)]); // prettier-ignore
  }
  const tensors = new Map<string, GgufWritable>();
  for (const [path, tensor] of model.namedParameters()) {
    const key = ggufName(path, config);
    const norm = architecture.startsWith('gemma') && key.endsWith('norm.weight');
    const paired = architecture === 'llama' && PAIRED.test(key);
    const rows = paired ? rowsFrom('halves', tensor.shape[0]!, config.headDim) : null;
    tensors.set(key, {
      type: tensor.shape.length === 2 ? type : 'F32',
      shape: tensor.shape,
      data: async () => {
        const blocks = type === 'Q8_0' && tensor.dtype === 'q8' ? await blocksIn(tensor) : null;
        if (blocks) return rows ? { quants: pickRows(blocks.quants, rows), scales: pickRows(blocks.scales, rows) } : blocks; // prettier-ignore
        const values = (await tensor.read()) as Float32Array;
        return rows ? pickRows(values, rows) : norm ? values.map((w) => w + 1) : values;
      },
    });
  }
  if (scaling.rope_type === 'llama3' || scaling.rope_type === 'factors') {
    const { frequencies } = ropeValues(turn, 0);
    const factors = Float32Array.from(ropeFrequencies(config.headDim, base), (plain, i) => plain / frequencies[i]!);
    tensors.set('rope_freqs.weight', { type: 'F32', shape: [factors.length], data: () => Promise.resolve(factors) });
  }
  const text = tokenizer
    ? ggufTokenizerOf(tokenizer, config.vocabulary)
    : new Map([['tokenizer.ggml.model', string('no_vocab')]]);
  return encodeGguf(new Map([...metadata, ...text]), tensors);
}

async function blocksIn(tensor: Tensor): Promise<Blocks> {
  const buffer = await tensor.device.read(tensor.window(), byteLength(tensor.size, 'q8'));
  return unpackBlocks(buffer, tensor.size, 'q8');
}

/** The architecture of llama.cpp that computes what a configuration says. */
function architectureOf(config: TransformerConfig): Architecture {
  const { activation, bias, headNorms, postNorms, normOffset, layers, headDim } = config;
  const fail = (what: string): never => {
    throw new Error(`[gguf] the model cannot be written for llama.cpp: ${what}`);
  };
  if (layers.some(({ tree, sinks }) => tree || sinks > 0)) fail('it has no trees and no sinks');
  if (layers.some(({ rope }) => !rope)) fail('all of its layers turn queries and keys');
  if (bias.mlp) fail('none of its MLPs has biases');
  if ((activation === 'gelu_tanh') !== (normOffset === 1)) fail('Gemmas’ MLPs have GELU, the others’ SiLU');
  const kinds = new Set(layers.map(({ rope }) => rope!.scaling.rope_type));
  if (kinds.has('dynamic')) fail('it has no dynamic scaling of frequencies');
  const yarn = layers.map(({ rope }) => rope!.scaling).find((scaling) => scaling.rope_type === 'yarn');
  if (yarn) {
    const { rope_type: _, factor: _f, original_max_position_embeddings: _o, ...rest } = yarn;
    if (rest.beta_fast !== 32 || rest.beta_slow !== 1 || !rest.truncate || rest.attention_factor || rest.mscale)
      fail('YaRN is written with its usual constants only');
  }
  if (normOffset === 1 && postNorms) {
    layers.forEach(({ window, rope }, i) => {
      const local = (i + 1) % GEMMA3_PATTERN !== 0;
      if (local !== (window !== null) || (local && rope!.base !== GEMMA3_LOCAL_BASE))
        fail(`a Gemma 3 has ${GEMMA3_PATTERN - 1} local layers to a global one, of base ${GEMMA3_LOCAL_BASE}`);
    });
    if (layers.length < GEMMA3_PATTERN) fail(`a Gemma 3 has at least ${GEMMA3_PATTERN} layers`);
    if (Math.abs(config.attentionScale * Math.sqrt(headDim) - 1) > 1e-6)
      fail('scores are scaled by the width of a head');
    return 'gemma3';
  }
  if (layers.some(({ window }) => window !== null)) fail('windows are Gemma 3’s alone');
  if (normOffset === 1) return 'gemma';
  if (headNorms) return bias.qkv ? fail('it has no biases beside norms of heads') : 'qwen3';
  return bias.qkv && !bias.out ? 'qwen2' : 'llama';
}
