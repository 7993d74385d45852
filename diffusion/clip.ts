/**
 * CLIP's text encoder (Radford et al. 2021): a transformer with causal attention whose hidden states are what the UNet reads.
 * Fields carry the names of transformers' weight files.
 */
import { z } from 'zod';
import { formatShape, reshape, scope, tensor } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { add, attention, cast, embedding, gelu, quickGelu, slice } from '../kernels/index.ts';
import { Embedding, LayerNorm, Linear } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { channelCount, headWidth, idCount, layerCount, parseConfig } from '../nn/config.ts';

const USED = {
  model_type: z.literal('clip_text_model').default('clip_text_model'),
  vocab_size: idCount.default(49408),
  hidden_size: channelCount.default(512),
  intermediate_size: channelCount.default(2048),
  num_hidden_layers: layerCount.default(12),
  num_attention_heads: channelCount.default(8),
  max_position_embeddings: channelCount.default(77),
  hidden_act: z.enum(['quick_gelu', 'gelu']).default('quick_gelu'),
  layer_norm_eps: z.number().gt(0).default(1e-5),
  eos_token_id: z.int().min(0).default(49407),
};

const RULES = {
  used: USED,
  neutral: { attention_dropout: [0], dropout: [0] },
  // Initialisation, ids of the tokenizer, the width of another head, and how the weights were stored.
  ignored: [
    'architectures',
    'bos_token_id',
    'initializer_factor',
    'initializer_range',
    'pad_token_id',
    'projection_dim',
    'torch_dtype',
    'transformers_version',
  ],
};

export type ClipTextConfig = z.infer<z.ZodObject<typeof USED>>;

class SelfAttention extends Module {
  k_proj: Linear;
  v_proj: Linear;
  q_proj: Linear;
  out_proj: Linear;
  readonly #heads: number;

  constructor(device: Device, width: number, heads: number) {
    super(device);
    this.k_proj = new Linear(device, width, width);
    this.v_proj = new Linear(device, width, width);
    this.q_proj = new Linear(device, width, width);
    this.out_proj = new Linear(device, width, width);
    this.#heads = heads;
  }

  /** x (N, T, C) → (N, T, C) */
  forward(x: Tensor): Tensor {
    const [n, t, c] = x.shape as [number, number, number];
    const split = (y: Tensor) => reshape(y, [n, t, this.#heads, c / this.#heads]);
    const y = attention(
      split(this.q_proj.forward(x)),
      split(this.k_proj.forward(x)),
      split(this.v_proj.forward(x)),
      { causal: true, layout: 'bthd' }, // padding is not masked: the originals train without
    );
    return this.out_proj.forward(reshape(y, x.shape));
  }
}

class Mlp extends Module {
  fc1: Linear;
  fc2: Linear;
  readonly #activation: (x: Tensor) => Tensor;

  constructor(device: Device, config: ClipTextConfig) {
    super(device);
    this.fc1 = new Linear(device, config.hidden_size, config.intermediate_size);
    this.fc2 = new Linear(device, config.intermediate_size, config.hidden_size);
    this.#activation = config.hidden_act === 'gelu' ? gelu : quickGelu;
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(this.#activation(this.fc1.forward(x)));
  }
}

class Layer extends Module {
  self_attn: SelfAttention;
  layer_norm1: LayerNorm;
  mlp: Mlp;
  layer_norm2: LayerNorm;

  constructor(device: Device, config: ClipTextConfig) {
    super(device);
    this.self_attn = new SelfAttention(device, config.hidden_size, config.num_attention_heads);
    this.layer_norm1 = new LayerNorm(device, config.hidden_size, config.layer_norm_eps);
    this.mlp = new Mlp(device, config);
    this.layer_norm2 = new LayerNorm(device, config.hidden_size, config.layer_norm_eps);
  }

  forward(x: Tensor): Tensor {
    const body = (x: Tensor) => {
      const y = add(x, this.self_attn.forward(this.layer_norm1.forward(x)));
      return add(y, this.mlp.forward(this.layer_norm2.forward(y)));
    };
    return this.block(body, x);
  }
}

class Embeddings extends Module {
  token_embedding: Embedding;
  position_embedding: Embedding;

  constructor(device: Device, config: ClipTextConfig) {
    super(device);
    this.token_embedding = new Embedding(device, config.vocab_size, config.hidden_size);
    this.position_embedding = new Embedding(device, config.max_position_embeddings, config.hidden_size);
  }

  /** ids (N, T) i32 → (N, T, C) */
  forward(ids: Tensor): Tensor {
    const positions = this.position_embedding.weight;
    const length = ids.shape[1]!;
    return add(
      this.token_embedding.forward(ids),
      length === positions.shape[0] ? positions : slice(positions, 0, 0, length),
    );
  }
}

class Encoder extends Module {
  layers: Layer[];

  constructor(device: Device, config: ClipTextConfig) {
    super(device);
    this.layers = Array.from({ length: config.num_hidden_layers }, () => new Layer(device, config));
  }
}

class TextModel extends Module {
  embeddings: Embeddings;
  encoder: Encoder;
  final_layer_norm: LayerNorm;

  constructor(device: Device, config: ClipTextConfig) {
    super(device);
    this.embeddings = new Embeddings(device, config);
    this.encoder = new Encoder(device, config);
    this.final_layer_norm = new LayerNorm(device, config.hidden_size, config.layer_norm_eps);
  }
}

export interface TextEncoding {
  /** Final norm of the last layer (N, T, C): Stable Diffusion's context. */
  lastHidden: Tensor;
  /** The row of `lastHidden` at each text's end mark (N, C). */
  pooled: Tensor;
  /** The embeddings, then each layer's result, before any final norm: (N, T, C) each. The last but one is clip-skip 2's. */
  hiddenStates: Tensor[];
}

export class ClipTextModel extends Module {
  text_model: TextModel;
  readonly config: ClipTextConfig;

  constructor(device: Device, config: ClipTextConfig) {
    super(device);
    this.config = config;
    this.text_model = new TextModel(device, config);
  }

  /** From a parsed `config.json` of transformers; `name` stands in errors. */
  static fromConfig(device: Device, json: unknown, name = 'CLIPTextModel'): ClipTextModel {
    const config = parseConfig(json, name, RULES);
    headWidth(name, config.hidden_size, config.num_attention_heads);
    return new ClipTextModel(device, config);
  }

  /** Encodes texts of equal length, each as the tokenizer gives it; `dtype` is that of all that is computed. */
  forward(ids: readonly ArrayLike<number>[], dtype: 'f32' | 'f16' = 'f32'): TextEncoding {
    const { vocab_size: vocabulary, max_position_embeddings: positions } = this.config;
    const length = ids[0]?.length ?? 0;
    if (length === 0 || length > positions || ids.some((text) => text.length !== length))
      throw new Error(
        `[clip] texts must have one common length of 1 to ${positions} ids, not ${ids.map((text) => text.length).join(', ') || 'none'}`,
      );
    const flat = Int32Array.from(ids.flatMap((text) => Array.from(text)));
    const wrong = flat.find((id) => !(id >= 0 && id < vocabulary));
    if (wrong !== undefined)
      throw new Error(
        `[clip] token id ${wrong} is not in this model's vocabulary, 0 to ${vocabulary - 1}: is the tokenizer another model's?`,
      );
    return scope(this.device, () => {
      const { embeddings, encoder, final_layer_norm: norm } = this.text_model;
      let x = cast(embeddings.forward(tensor(this.device, flat, [ids.length, length])), dtype);
      const hiddenStates = [x];
      for (const layer of encoder.layers) hiddenStates.push((x = layer.forward(x)));
      const lastHidden = norm.forward(x);
      const rows = ids.map((text, n) => n * length + this.#endOf(text));
      const pooled = embedding(
        reshape(lastHidden, [ids.length * length, lastHidden.shape[2]!]),
        tensor(this.device, Int32Array.from(rows), [rows.length]),
      );
      return { lastHidden, pooled, hiddenStates };
    });
  }

  /** A text's hidden states after skipping the last `skip` layers, with the final norm: what "clip skip" feeds the UNet. */
  skipped({ hiddenStates, lastHidden }: TextEncoding, skip: number): Tensor {
    if (skip === 0) return lastHidden;
    const state = hiddenStates.at(-1 - skip);
    if (!state)
      throw new Error(
        `[clip] cannot skip ${skip} of ${hiddenStates.length - 1} layers of ${formatShape(lastHidden.shape)}`,
      );
    return this.text_model.final_layer_norm.forward(state);
  }

  /**
   * Position of a text's end mark: the first one. Configurations of early exports name id 2, which is no end mark; there
   * the largest id is, which CLIP's end mark has.
   */
  #endOf(text: ArrayLike<number>): number {
    const ids = Array.from(text);
    const { eos_token_id: eos } = this.config;
    return Math.max(0, ids.indexOf(eos === 2 ? Math.max(...ids) : eos));
  }
}
