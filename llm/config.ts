/** Configurations of decoders: the `config.json` of the families that are known, read into one form. */
import { z } from 'zod';
import { channelCount, headWidth, idCount, layerCount, parseConfig } from '../nn/config.ts';
import { ropeScaling } from './rope.ts';
import type { RopeConfig } from './rope.ts';

/** The tree of a `tree` layer: see kernels/tree. */
export interface TreeConfig {
  /** Keys of a leaf. */
  readonly block: number;
  /** Nodes that make one of the next level. */
  readonly fanout: number;
  /** Nodes that a query goes on with on each level; leaves that it attends to. */
  readonly beam: number;
  readonly summary: 'pooled' | 'boxes';
}

/** Which keys a layer's queries see. */
export interface LayerConfig {
  /** Keys back from the query, itself included; all where null. */
  readonly window: number | null;
  /** First keys of the sequence that are seen beyond the window. */
  readonly sinks: number;
  /** And selected leaves of what lies before the window. */
  readonly tree: TreeConfig | null;
  /** Null where positions are not encoded. */
  readonly rope: RopeConfig | null;
}

export interface TransformerConfig {
  readonly family: Family;
  /** Names of ids: V. */
  readonly vocabulary: number;
  /** C */
  readonly width: number;
  /** Between the two products of a layer's MLP. */
  readonly hidden: number;
  readonly heads: number;
  readonly keyHeads: number;
  /** D */
  readonly headDim: number;
  /** The longest sequence that the model is made for. */
  readonly context: number;
  readonly layers: readonly LayerConfig[];
  readonly activation: 'silu' | 'gelu_tanh';
  readonly normEps: number;
  /** What is added to the weights of norms: 1 in Gemma's. */
  readonly normOffset: 0 | 1;
  /** Which products have a bias. */
  readonly bias: { readonly qkv: boolean; readonly out: boolean; readonly mlp: boolean };
  /** RMS norms of each query's and key's head, before they turn (Qwen 3, Gemma 3). */
  readonly headNorms: boolean;
  /** Norms behind attention and MLP besides those before them (Gemma 3). */
  readonly postNorms: boolean;
  /** Whether the head is the table of embeddings. */
  readonly tied: boolean;
  readonly embeddingScale: number;
  /** What scores are multiplied by. */
  readonly attentionScale: number;
  /** Ids that end a text; none where the file doesn't say. */
  readonly ends: readonly number[];
}

const count = z
  .int()
  .min(1)
  .max(1 << 24);
const ids = z.union([z.int().min(0).transform((id) => [id]), z.array(z.int().min(0))]).nullish(); // prettier-ignore
const layerType = z.enum(['full_attention', 'sliding_attention', 'tree_attention']);

const USED = {
  vocab_size: idCount,
  hidden_size: channelCount,
  intermediate_size: z
    .int()
    .min(1)
    .max(1 << 20),
  num_hidden_layers: layerCount,
  num_attention_heads: z.int().min(1).max(4096),
  num_key_value_heads: z.int().min(1).max(4096).nullish(),
  head_dim: z.int().min(2).max(256).nullish(),
  hidden_act: z.string().default('silu'),
  max_position_embeddings: count,
  rms_norm_eps: z.number().gt(0).default(1e-6),
  rope_theta: z.number().gt(1).nullish(),
  rope_scaling: z.record(z.string(), z.unknown()).nullish(),
  rope_parameters: z.record(z.string(), z.unknown()).nullish(), // the newer name of both
  tie_word_embeddings: z.boolean().nullish(),
  eos_token_id: ids,
};

/** What says nothing about the computation: other ids, initialisation, how weights were stored, what wrote the file. */
const IGNORED = [
  'architectures', 'bos_token_id', 'pad_token_id', 'unk_token_id', 'initializer_range', 'torch_dtype', 'dtype',
  'transformers_version', 'use_cache', 'pretraining_tp', 'max_window_layers', 'cache_implementation', 'auto_map',
  'transformers.js_config', 'is_llama_config', 'model_type',
]; // prettier-ignore

const NEUTRAL = {
  attention_dropout: [0],
  quantization_config: [null],
  partial_rotary_factor: [1, null],
  final_logit_softcapping: [null],
  attn_logit_softcapping: [null],
  rope_interleaved: [false],
};

/** Options that only some families have. */
const OPTIONS = {
  attention_bias: z.boolean(),
  mlp_bias: z.boolean(),
  hidden_activation: z.string().nullable(),
  sliding_window: count.nullable(),
  use_sliding_window: z.boolean(),
  sliding_window_pattern: z.int().min(1).nullable(), // each n-th layer sees all: the older form of layer_types
  layer_types: z.array(layerType).nullable(),
  query_pre_attn_scalar: z.number().gt(0),
  rope_local_base_freq: z.number().gt(1),
  attention_sinks: z.int().min(0),
  tree: z.strictObject({
    block: z.int().min(1).max(1024).default(64),
    fanout: z.int().min(2).max(64).default(8),
    beam: z.int().min(1).max(64).default(8),
    summary: z.enum(['pooled', 'boxes']).default('pooled'),
  }),
  /** Kinds of layers whose queries and keys are not turned. */
  no_rope: z.array(layerType),
  qk_norm: z.boolean(),
};

/**
 * Which of these each family's file may have, options that it may have at one value only, and its own defaults of what a
 * file leaves out.
 */
const FAMILIES = {
  llama: { options: ['attention_bias', 'mlp_bias'], neutral: { sliding_window: [null] } },
  mistral: { options: ['sliding_window'], neutral: {} },
  qwen2: { options: ['sliding_window', 'use_sliding_window', 'layer_types'], neutral: { use_mrope: [false] } },
  qwen3: { options: ['sliding_window', 'use_sliding_window', 'layer_types', 'attention_bias'], neutral: {} },
  gemma: {
    options: ['hidden_activation', 'attention_bias'],
    neutral: {},
    defaults: { hidden_act: 'gelu_pytorch_tanh', head_dim: 256 },
  },
  gemma3_text: {
    options: ['hidden_activation', 'attention_bias', 'sliding_window', 'sliding_window_pattern', 'layer_types', 'query_pre_attn_scalar', 'rope_local_base_freq'], // prettier-ignore
    neutral: { use_bidirectional_attention: [false, null] },
    defaults: { hidden_act: 'gelu_pytorch_tanh', head_dim: 256, query_pre_attn_scalar: 256 },
  },
  /** Our own models: a Llama whose layers choose what they see. */
  dawngrad: {
    options: ['layer_types', 'sliding_window', 'attention_sinks', 'tree', 'no_rope', 'qk_norm'],
    neutral: {},
  },
} as const satisfies Record<string, FamilyRules>;
interface FamilyRules {
  readonly options: readonly (keyof typeof OPTIONS)[];
  readonly neutral: object;
  readonly defaults?: object;
}
export type Family = keyof typeof FAMILIES;
export const isFamily = (name: unknown): name is Family => typeof name === 'string' && Object.hasOwn(FAMILIES, name);
type Parsed = z.infer<z.ZodObject<typeof USED>> & Partial<z.infer<z.ZodObject<typeof OPTIONS>>>;

const ACTIVATIONS: Record<string, TransformerConfig['activation']> = {
  silu: 'silu',
  swish: 'silu',
  gelu_pytorch_tanh: 'gelu_tanh',
  gelu_new: 'gelu_tanh',
  // Gemma's first files say "gelu" and mean the other (https://github.com/huggingface/transformers/pull/29402).
  gelu: 'gelu_tanh',
};

/** Reads a parsed `config.json`; `name` stands in errors. Throws on a family, an option or a value that is not supported. */
export function parseTransformerConfig(json: unknown, name = 'config.json'): TransformerConfig {
  const fail = (what: string): never => {
    throw new Error(`[config] ${name}: ${what}`);
  };
  const family = (json as { model_type?: unknown } | null)?.model_type;
  if (!isFamily(family))
    return fail(
      `model_type is ${JSON.stringify(family) ?? 'missing'}; known are ${Object.keys(FAMILIES).join(', ')}` +
        (family === 'gemma3' ? ' (of a Gemma 3 that also sees, take the text model)' : ''),
    );
  const { options, neutral, defaults }: FamilyRules = FAMILIES[family];
  const own = Object.fromEntries(options.map((key) => [key, OPTIONS[key].optional()]));
  const rules = { used: { ...USED, ...own }, neutral: { ...NEUTRAL, ...neutral }, ignored: IGNORED };
  const all = parseConfig({ ...defaults, ...(json as object) }, name, rules) as Parsed;
  const gemma = family === 'gemma' || family === 'gemma3_text';

  const heads = all.num_attention_heads;
  const keyHeads = all.num_key_value_heads ?? heads;
  const headDim = all.head_dim ?? headWidth(name, all.hidden_size, heads);
  if (heads % keyHeads !== 0)
    fail(`num_attention_heads (${heads}) must be a multiple of num_key_value_heads (${keyHeads})`);
  if (headDim % 2 !== 0) fail(`the width of a head, ${headDim}, must be even: columns turn in pairs`);
  const activation = ACTIVATIONS[(gemma && all.hidden_activation) || all.hidden_act];
  if (!activation || (!gemma && all.hidden_act === 'gelu'))
    return fail(
      `hidden_act is "${all.hidden_act}"; supported are ${Object.keys(ACTIVATIONS).filter((key) => key !== 'gelu').join(', ')}`, // prettier-ignore
    );

  const types = layerTypes(all, family, fail);
  const ropes = new Map(types.map((type) => [type, ropeOf(all, family, type, headDim, fail)]));
  const layers = types.map((type): LayerConfig => {
    const window = type === 'full_attention' ? null : (all.sliding_window ?? fail(`${type} needs a sliding_window`));
    const tree = type === 'tree_attention' ? (all.tree ?? fail('tree_attention needs the option tree')) : null;
    const rope = all.no_rope?.includes(type) ? null : ropes.get(type)!;
    return { window, sinks: window === null ? 0 : (all.attention_sinks ?? 0), tree, rope };
  });
  return {
    family: family,
    vocabulary: all.vocab_size,
    width: all.hidden_size,
    hidden: all.intermediate_size,
    heads,
    keyHeads,
    headDim,
    context: Math.max(all.max_position_embeddings, ...layers.map(({ rope }) => reachOf(rope))),
    layers,
    activation,
    normEps: all.rms_norm_eps,
    normOffset: gemma ? 1 : 0,
    bias: {
      qkv: family === 'qwen2' || (all.attention_bias ?? false),
      out: all.attention_bias ?? false,
      mlp: all.mlp_bias ?? false,
    },
    headNorms: family === 'qwen3' || family === 'gemma3_text' || (all.qk_norm ?? false),
    postNorms: family === 'gemma3_text',
    tied: all.tie_word_embeddings ?? gemma,
    embeddingScale: gemma ? Math.sqrt(all.hidden_size) : 1,
    attentionScale: 1 / Math.sqrt(all.query_pre_attn_scalar ?? headDim),
    ends: all.eos_token_id ?? [],
  };
}

/** Tokens that YaRN stretches the rotation to: files may give the context of before as theirs (Qwen's instructions do). */
function reachOf(rope: RopeConfig | null): number {
  if (rope?.scaling.rope_type !== 'yarn') return 0;
  const { factor, original_max_position_embeddings: trained = 0 } = rope.scaling;
  return Math.floor(factor * trained);
}

/** What each layer sees, by whichever option says it. */
function layerTypes(all: Parsed, family: Family, fail: (what: string) => never): z.infer<typeof layerType>[] {
  const count = all.num_hidden_layers;
  if (all.layer_types) {
    if (all.layer_types.length !== count)
      fail(`layer_types names ${all.layer_types.length} layers, num_hidden_layers is ${count}`);
    if (family !== 'dawngrad' && all.layer_types.includes('tree_attention'))
      fail('layers of the type tree_attention are for models of model_type dawngrad');
    return all.layer_types;
  }
  if (family === 'gemma3_text') {
    const pattern = all.sliding_window_pattern ?? 6;
    return Array.from({ length: count }, (_, i) => ((i + 1) % pattern === 0 ? 'full_attention' : 'sliding_attention'));
  }
  if (all.use_sliding_window) return fail('use_sliding_window needs layer_types, which say for which layers');
  const sliding = family === 'mistral' && all.sliding_window != null;
  return Array.from({ length: count }, () => (sliding ? 'sliding_attention' : 'full_attention'));
}

/**
 * The rotation of a kind of layers, from `rope_theta` and `rope_scaling` or from `rope_parameters`, which has both, for all
 * layers or by their kind. Gemma 3's local layers have a base of their own, and no scaling.
 */
function ropeOf(
  all: Parsed,
  family: Family,
  type: z.infer<typeof layerType>,
  columns: number,
  fail: (what: string) => never,
): RopeConfig {
  const context = all.max_position_embeddings;
  const { rope_parameters: both, rope_scaling: old } = all;
  if (both && old) fail('rope_parameters and rope_scaling say the same thing; give one');
  const byType = both && Object.keys(both).some((key) => layerType.safeParse(key).success);
  if (byType && !isRecord(both[type])) fail(`rope_parameters must have the parameters of ${type} layers`);
  const own = byType ? (both[type] as Record<string, unknown>) : (both ?? old ?? {});
  const local = family === 'gemma3_text' && type === 'sliding_attention' && !byType;
  if (local) return { base: all.rope_local_base_freq ?? 10_000, columns, scaling: { rope_type: 'default' }, context };
  const { rope_theta: theta = all.rope_theta, type: kind, partial_rotary_factor: part, ...rest } = own;
  if (part !== undefined && part !== null && part !== 1)
    fail(`partial_rotary_factor is ${JSON.stringify(part)}; supported is 1 only`);
  const result = ropeScaling.safeParse({ ...rest, rope_type: rest['rope_type'] ?? kind ?? 'default' });
  if (!result.success) {
    const { path, message } = result.error.issues[0]!;
    const option = both ? `rope_parameters${byType ? `.${type}` : ''}` : 'rope_scaling';
    return fail(`${option}${path.map((key) => `.${String(key)}`).join('')}: ${message}`);
  }
  if (result.data.rope_type === 'factors' && result.data.factors.length !== columns / 2)
    fail(`rope factors are ${result.data.factors.length}, pairs of columns ${columns / 2}`);
  const base = theta ?? (family === 'gemma3_text' ? 1_000_000 : 10_000);
  if (typeof base !== 'number' || !(base > 1 && base < Infinity))
    return fail(`rope_theta is ${JSON.stringify(base)}; it must be a number over 1`);
  return { base, columns, scaling: result.data, context };
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
