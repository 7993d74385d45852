/** Configurations as transformers writes them for released models, and what must be refused. */
import { describe, expect, it } from 'vitest';
import { parseTransformerConfig } from '../../llm/config.ts';

/** What every file of transformers has and nothing here depends on. */
const COMMON = {
  attention_dropout: 0.0,
  bos_token_id: 1,
  initializer_range: 0.02,
  torch_dtype: 'bfloat16',
  transformers_version: '4.46.0',
  use_cache: true,
};

const llama2 = {
  ...COMMON,
  _name_or_path: 'meta-llama/Llama-2-7b-hf',
  architectures: ['LlamaForCausalLM'],
  eos_token_id: 2,
  hidden_act: 'silu',
  hidden_size: 4096,
  intermediate_size: 11008,
  max_position_embeddings: 4096,
  model_type: 'llama',
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 32,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  tie_word_embeddings: false,
  vocab_size: 32000,
};

const llama3Scaling = {
  factor: 8.0,
  high_freq_factor: 4.0,
  low_freq_factor: 1.0,
  original_max_position_embeddings: 8192,
  rope_type: 'llama3',
};

const llama31 = {
  ...llama2,
  attention_bias: false,
  eos_token_id: [128001, 128008, 128009],
  intermediate_size: 14336,
  max_position_embeddings: 131072,
  mlp_bias: false,
  num_key_value_heads: 8,
  rope_scaling: llama3Scaling,
  rope_theta: 500000.0,
  vocab_size: 128256,
};

const mistral = {
  ...COMMON,
  architectures: ['MistralForCausalLM'],
  eos_token_id: 2,
  hidden_act: 'silu',
  hidden_size: 4096,
  intermediate_size: 14336,
  max_position_embeddings: 32768,
  model_type: 'mistral',
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-5,
  rope_theta: 10000.0,
  sliding_window: 4096,
  tie_word_embeddings: false,
  vocab_size: 32000,
};

const qwen2 = {
  ...COMMON,
  architectures: ['Qwen2ForCausalLM'],
  eos_token_id: 151645,
  hidden_act: 'silu',
  hidden_size: 896,
  intermediate_size: 4864,
  max_position_embeddings: 32768,
  max_window_layers: 21,
  model_type: 'qwen2',
  num_attention_heads: 14,
  num_hidden_layers: 24,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  rope_theta: 1000000.0,
  sliding_window: 32768,
  tie_word_embeddings: true,
  use_mrope: false,
  use_sliding_window: false,
  vocab_size: 151936,
};

const qwen3 = {
  ...COMMON,
  architectures: ['Qwen3ForCausalLM'],
  attention_bias: false,
  eos_token_id: 151645,
  head_dim: 128,
  hidden_act: 'silu',
  hidden_size: 1024,
  intermediate_size: 3072,
  max_position_embeddings: 40960,
  max_window_layers: 28,
  model_type: 'qwen3',
  num_attention_heads: 16,
  num_hidden_layers: 28,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: null,
  tie_word_embeddings: true,
  use_sliding_window: false,
  vocab_size: 151936,
};

const smollm2 = {
  ...COMMON,
  architectures: ['LlamaForCausalLM'],
  attention_bias: false,
  eos_token_id: 0,
  hidden_act: 'silu',
  hidden_size: 576,
  intermediate_size: 1536,
  is_llama_config: true,
  max_position_embeddings: 8192,
  mlp_bias: false,
  model_type: 'llama',
  num_attention_heads: 9,
  num_hidden_layers: 30,
  num_key_value_heads: 3,
  pad_token_id: null,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_interleaved: false,
  rope_scaling: null,
  rope_theta: 100000,
  tie_word_embeddings: true,
  vocab_size: 49152,
};

const gemma = {
  ...COMMON,
  architectures: ['GemmaForCausalLM'],
  attention_bias: false,
  eos_token_id: 1,
  head_dim: 256,
  hidden_act: 'gelu',
  hidden_activation: null,
  hidden_size: 2048,
  intermediate_size: 16384,
  max_position_embeddings: 8192,
  model_type: 'gemma',
  num_attention_heads: 8,
  num_hidden_layers: 18,
  num_key_value_heads: 1,
  pad_token_id: 0,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 10000.0,
  vocab_size: 256000,
};

const gemma3 = {
  ...COMMON,
  architectures: ['Gemma3ForCausalLM'],
  attention_bias: false,
  attn_logit_softcapping: null,
  cache_implementation: 'hybrid',
  eos_token_id: [1, 106],
  final_logit_softcapping: null,
  head_dim: 256,
  hidden_activation: 'gelu_pytorch_tanh',
  hidden_size: 1152,
  intermediate_size: 6912,
  max_position_embeddings: 32768,
  model_type: 'gemma3_text',
  num_attention_heads: 4,
  num_hidden_layers: 26,
  num_key_value_heads: 1,
  pad_token_id: 0,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_local_base_freq: 10000,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: 512,
  sliding_window_pattern: 6,
  vocab_size: 262144,
};

const own = {
  ...llama2,
  model_type: 'dawngrad',
  num_hidden_layers: 3,
  layer_types: ['full_attention', 'sliding_attention', 'tree_attention'],
  sliding_window: 256,
  attention_sinks: 4,
  tree: {},
  no_rope: ['tree_attention'],
  qk_norm: true,
};

const plain = { rope_type: 'default' } as const;

describe('families', () => {
  it('Llama 2', () => {
    const config = parseTransformerConfig(llama2);
    expect(config).toMatchObject({
      family: 'llama',
      vocabulary: 32000,
      width: 4096,
      hidden: 11008,
      heads: 32,
      keyHeads: 32,
      headDim: 128,
      context: 4096,
      activation: 'silu',
      normEps: 1e-5,
      normOffset: 0,
      bias: { qkv: false, out: false, mlp: false },
      headNorms: false,
      postNorms: false,
      tied: false,
      embeddingScale: 1,
      attentionScale: 1 / Math.sqrt(128),
      ends: [2],
    });
    expect(config.layers.length).toBe(32);
    const rope = { base: 10_000, columns: 128, scaling: plain, context: 4096 };
    for (const layer of config.layers) expect(layer).toEqual({ window: null, sinks: 0, tree: null, rope });
  });

  it('Llama 3.1 and 3.2, also in the newer form', () => {
    const config = parseTransformerConfig(llama31);
    expect(config).toMatchObject({ keyHeads: 8, context: 131072, ends: [128001, 128008, 128009] });
    expect(config.layers[0]!.rope).toMatchObject({ base: 500_000, scaling: llama3Scaling });
    const small = { ...llama31, hidden_size: 2048, head_dim: 64, tie_word_embeddings: true };
    const factor = { ...llama3Scaling, factor: 32.0 };
    expect(parseTransformerConfig({ ...small, rope_scaling: factor })).toMatchObject({
      headDim: 64,
      tied: true,
      attentionScale: 1 / 8,
    });
    const { rope_scaling: _s, rope_theta: _t, torch_dtype: _d, ...rest } = llama31;
    const newer = { ...rest, dtype: 'bfloat16', rope_parameters: { ...llama3Scaling, rope_theta: 500000.0 } };
    expect(parseTransformerConfig(newer)).toEqual(config);
  });

  it('Mistral 7B, with its window and without', () => {
    for (const { window } of parseTransformerConfig(mistral).layers) expect(window).toBe(4096);
    const later = parseTransformerConfig({ ...mistral, sliding_window: null, head_dim: null, vocab_size: 32768 });
    expect(later).toMatchObject({ family: 'mistral', headDim: 128 });
    for (const { window } of later.layers) expect(window).toBeNull();
  });

  it('Qwen2.5: biases of queries, keys and values; a window that is not used', () => {
    const config = parseTransformerConfig(qwen2);
    expect(config).toMatchObject({ bias: { qkv: true, out: false, mlp: false }, headDim: 64, tied: true });
    for (const { window } of config.layers) expect(window).toBeNull();
    expect(() => parseTransformerConfig({ ...qwen2, use_sliding_window: true })).toThrow(
      '[config] config.json: use_sliding_window needs layer_types, which say for which layers',
    );
    const layer_types = Array.from({ length: 24 }, (_, i) => (i < 21 ? 'full_attention' : 'sliding_attention'));
    const windows = parseTransformerConfig({ ...qwen2, use_sliding_window: true, layer_types });
    expect(windows.layers.map(({ window }) => window)).toEqual(layer_types.map((t) => (t[0] === 'f' ? null : 32768)));
  });

  it('Qwen with YaRN as its instructions say: the context is the stretched one', () => {
    const yarn = { factor: 4.0, original_max_position_embeddings: 32768, type: 'yarn' };
    const config = parseTransformerConfig({ ...qwen2, rope_scaling: yarn });
    expect(config.context).toBe(131072);
    expect(config.layers[0]!.rope!.scaling).toMatchObject({
      rope_type: 'yarn',
      factor: 4,
      beta_fast: 32,
      beta_slow: 1,
    });
  });

  it('Qwen3: norms of heads, a width of heads of its own', () => {
    const config = parseTransformerConfig(qwen3);
    expect(config).toMatchObject({ headNorms: true, headDim: 128, width: 1024, bias: { qkv: false, out: false } });
    expect(parseTransformerConfig({ ...qwen3, attention_bias: true }).bias).toEqual({
      qkv: true,
      out: true,
      mlp: false,
    });
  });

  it('SmolLM2', () => {
    expect(parseTransformerConfig(smollm2)).toMatchObject({ headDim: 64, keyHeads: 3, tied: true, ends: [0] });
    expect(() => parseTransformerConfig({ ...smollm2, rope_interleaved: true })).toThrow(
      '[config] config.json: rope_interleaved is true; supported is false only',
    );
  });

  it('Gemma: scaled embeddings, 1 + w, GELU by tanh whatever the file calls it', () => {
    const config = parseTransformerConfig(gemma);
    expect(config).toMatchObject({
      activation: 'gelu_tanh',
      normOffset: 1,
      tied: true,
      embeddingScale: Math.sqrt(2048),
      headDim: 256,
      postNorms: false,
    });
    const { hidden_act: _a, hidden_activation: _b, head_dim: _c, ...rest } = gemma;
    expect(parseTransformerConfig(rest)).toEqual(config);
  });

  it('Gemma 3: five local layers to a global one, each with its base, in three forms', () => {
    const config = parseTransformerConfig(gemma3);
    expect(config).toMatchObject({ headNorms: true, postNorms: true, normOffset: 1, attentionScale: 1 / 16 });
    config.layers.forEach(({ window, rope }, i) => {
      const global = i % 6 === 5;
      expect(window).toBe(global ? null : 512);
      expect(rope!.base).toBe(global ? 1_000_000 : 10_000);
    });
    const { sliding_window_pattern: _p, ...rest } = gemma3;
    const layer_types = config.layers.map(({ window }) => (window ? 'sliding_attention' : 'full_attention'));
    const listed = { ...rest, _sliding_window_pattern: 6, layer_types, use_bidirectional_attention: false };
    expect(parseTransformerConfig(listed)).toEqual(config);
    const { rope_theta: _t, rope_local_base_freq: _l, rope_scaling: _s, ...less } = listed;
    const rope_parameters = {
      full_attention: { rope_theta: 1000000, rope_type: 'default' },
      sliding_attention: { rope_theta: 10000, rope_type: 'default' },
    };
    expect(parseTransformerConfig({ ...less, rope_parameters })).toEqual(config);
    expect(parseTransformerConfig(less)).toEqual(config); // transformers' defaults
    const stretched = parseTransformerConfig({ ...gemma3, rope_scaling: { factor: 8.0, rope_type: 'linear' } });
    expect(stretched.layers[5]!.rope!.scaling).toEqual({ rope_type: 'linear', factor: 8 });
    expect(stretched.layers[0]!.rope!.scaling).toEqual(plain);
    expect(() =>
      parseTransformerConfig({ ...less, rope_parameters: { full_attention: rope_parameters.full_attention } }),
    ).toThrow('rope_parameters must have the parameters of sliding_attention layers');
  });

  it('our own: kinds of layers, sinks, a tree, no rotation where it says so', () => {
    const [full, sliding, tree] = parseTransformerConfig(own).layers;
    expect(full).toMatchObject({ window: null, sinks: 0, tree: null });
    expect(sliding).toMatchObject({ window: 256, sinks: 4, tree: null });
    expect(sliding!.rope).not.toBeNull();
    expect(tree).toEqual({
      window: 256,
      sinks: 4,
      tree: { block: 64, fanout: 8, beam: 8, summary: 'pooled' },
      rope: null,
    });
  });
});

describe('what is refused', () => {
  const cases: [string, object, string][] = [
    ['a family', { ...llama2, model_type: 'gpt2' }, 'model_type is "gpt2"; known are llama, mistral, qwen2, qwen3, gemma, gemma3_text, dawngrad'],
    ['no family', { vocab_size: 3 }, 'model_type is missing; known are'],
    ['a family by a name of Object', { ...llama2, model_type: 'constructor' }, 'model_type is "constructor"; known are'],
    ['a model that sees', { ...gemma3, model_type: 'gemma3' }, 'of a Gemma 3 that also sees, take the text model'],
    ['an option', { ...llama2, num_experts: 8 }, 'option "num_experts" is not known; known are'],
    ['another family’s option', { ...llama2, layer_types: [] }, 'option "layer_types" is not known'],
    ['an option that would change the result', { ...gemma, final_logit_softcapping: 30.0 }, 'final_logit_softcapping is 30; supported is null only'],
    ['part of the columns turned', { ...llama2, partial_rotary_factor: 0.5 }, 'partial_rotary_factor is 0.5; supported is 1 or null only'],
    ['part of the columns turned, newer', { ...llama2, rope_parameters: { partial_rotary_factor: 0.5 }, rope_scaling: undefined }, 'partial_rotary_factor is 0.5; supported is 1 only'],
    ['a wrong type', { ...llama2, hidden_size: '4096' }, 'hidden_size: Invalid input: expected number, received string'],
    ['a missing option', { ...llama2, vocab_size: undefined }, 'vocab_size: Invalid input'],
    ['a size beyond all models', { ...llama2, hidden_size: 1e9 }, 'hidden_size: Too big'],
    ['many layers', { ...llama2, num_hidden_layers: 1e6 }, 'num_hidden_layers: Too big'],
    ['heads that do not divide', { ...llama2, num_attention_heads: 33, num_key_value_heads: 33 }, '4096 channels cannot be divided among 33 attention heads'],
    ['groups that do not divide', { ...llama2, num_key_value_heads: 5 }, 'num_attention_heads (32) must be a multiple of num_key_value_heads (5)'],
    ['an odd width of heads', { ...llama2, head_dim: 63 }, 'the width of a head, 63, must be even: columns turn in pairs'],
    ['an activation', { ...llama2, hidden_act: 'relu' }, 'hidden_act is "relu"; supported are silu, swish, gelu_pytorch_tanh, gelu_new'],
    ['GELU by erf outside Gemma', { ...llama2, hidden_act: 'gelu' }, 'hidden_act is "gelu"'],
    ['a scaling', { ...llama2, rope_scaling: { rope_type: 'longrope', factor: 2 } }, 'rope_scaling.rope_type: Invalid'],
    ['a scaling’s missing factor', { ...llama2, rope_scaling: { type: 'linear' } }, 'rope_scaling.factor: Invalid input'],
    ['a scaling’s unknown option', { ...llama2, rope_scaling: { type: 'linear', factor: 2, beta: 1 } }, 'Unrecognized key: "beta"'],
    ['blends the wrong way round', { ...llama31, rope_scaling: { ...llama3Scaling, low_freq_factor: 4 } }, 'rope_scaling.high_freq_factor: it must be over low_freq_factor'],
    ['two scalings', { ...llama31, rope_parameters: { rope_theta: 1e4 } }, 'rope_parameters and rope_scaling say the same thing; give one'],
    ['a base', { ...llama2, rope_parameters: { rope_theta: '1e4' }, rope_scaling: null }, 'rope_theta is "1e4"; it must be a number over 1'],
    ['factors for other columns', { ...llama2, rope_scaling: { type: 'factors', factors: [1, 2] } }, 'rope factors are 2, pairs of columns 64'],
    ['a list of layers of another length', { ...own, num_hidden_layers: 4 }, 'layer_types names 3 layers, num_hidden_layers is 4'],
    ['a kind of layer', { ...own, layer_types: ['full_attention', 'chunked_attention', 'full_attention'] }, 'layer_types.1: Invalid option'],
    ['a tree in a Qwen', { ...qwen3, num_hidden_layers: 1, layer_types: ['tree_attention'] }, 'layers of the type tree_attention are for models of model_type dawngrad'],
    ['windows without a width', { ...own, sliding_window: null }, 'sliding_attention needs a sliding_window'],
    ['a tree without its option', { ...own, tree: undefined }, 'tree_attention needs the option tree'],
  ]; // prettier-ignore
  it.each(cases)('%s', (_, json, message) => {
    expect(() => parseTransformerConfig(json)).toThrow(`[config] config.json: `);
    expect(() => parseTransformerConfig(json)).toThrow(message);
  });

  it('what is no object', () => {
    for (const json of [null, [], 3, 'llama'])
      expect(() => parseTransformerConfig(json, 'a.json')).toThrow('[config] a.json: ');
  });
});
