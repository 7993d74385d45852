/**
 * A decoder-only transformer of the Llama family (Touvron et al. 2023), by configuration: which keys a layer sees, how
 * positions turn, which norms and biases there are. Fields carry the names of transformers' weight files.
 */
import {
  ALIGNMENT,
  empty,
  formatShape,
  keep,
  reshape,
  sameShape,
  scope,
  Tensor,
  tensor,
  view,
} from '../engine/index.ts';
import type { Device } from '../engine/index.ts';
import { add, affine, AttentionLists, cast, geluTanh, linear, mul, rope, ropeTable, swiglu } from '../kernels/index.ts';
import { Embedding, factor, Linear, RmsNorm } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { attend } from './attend.ts';
import type { Cached, Documents } from './attend.ts';
import type { Step } from './cache.ts';
import { parseTransformerConfig } from './config.ts';
import { decodable, decodeLayers } from './decode.ts';
import type { LayerConfig, TransformerConfig } from './config.ts';
import { ropeValues } from './rope.ts';
import type { RopeConfig } from './rope.ts';
import { learnsSelection, selectionLoss } from './selection_loss.ts';
import type { DrawnQueries } from './selection_loss.ts';

/** How a layer's heads turn; see `rope`. */
interface Turn {
  readonly table: Tensor;
  readonly scale: number;
}

/** What all layers of a forward pass share. */
interface Pass {
  /** (B, T), i32 */
  readonly positions: Tensor;
  /** Null: by nothing. */
  readonly turn: (rope: RopeConfig | null) => Turn;
  readonly cached: Cached | null;
  readonly documents: Documents | null;
  readonly dense: boolean;
}

class Attention extends Module {
  q_proj: Linear;
  k_proj: Linear;
  v_proj: Linear;
  o_proj: Linear;
  q_norm: RmsNorm | null;
  k_norm: RmsNorm | null;
  readonly #config: TransformerConfig;
  readonly #layer: LayerConfig;

  constructor(device: Device, config: TransformerConfig, layer: LayerConfig) {
    super(device);
    const { width, heads, keyHeads, headDim, bias, headNorms } = config;
    this.q_proj = new Linear(device, width, heads * headDim, { bias: bias.qkv });
    this.k_proj = new Linear(device, width, keyHeads * headDim, { bias: bias.qkv });
    this.v_proj = new Linear(device, width, keyHeads * headDim, { bias: bias.qkv });
    this.o_proj = new Linear(device, heads * headDim, width, { bias: bias.out });
    this.q_norm = headNorms ? norm(device, config, headDim) : null;
    this.k_norm = headNorms ? norm(device, config, headDim) : null;
    this.#config = config;
    this.#layer = layer;
  }

  /** x (B, T, C) → (B, T, C) */
  forward(x: Tensor, pass: Pass): Tensor {
    const { heads, keyHeads, headDim, attentionScale } = this.#config;
    const [b, t] = x.shape as [number, number, number];
    const [q, k] = this.#queriesAndKeys(x, pass);
    const v = reshape(this.v_proj.forward(x), [b, t, keyHeads, headDim]);
    const { cached, documents, dense } = pass;
    const layer = dense && this.#layer.tree ? { ...this.#layer, window: null, sinks: 0, tree: null } : this.#layer;
    const y = attend(q, k, v, layer, attentionScale, cached, documents);
    return this.o_proj.forward(reshape(y, [b, t, heads * headDim]));
  }

  /** Of a layer with a tree; see selection_loss.ts. */
  selectionLoss(x: Tensor, pass: Pass, queries: DrawnQueries): Tensor {
    const [q, k] = this.#queriesAndKeys(x, pass);
    return selectionLoss(q, k, this.#layer, this.#config.attentionScale, queries);
  }

  /** (B, T, H, D) and (B, T, KV, D), turned. */
  #queriesAndKeys(x: Tensor, { positions, turn }: Pass): [Tensor, Tensor] {
    const { heads, keyHeads, headDim } = this.#config;
    const [b, t] = x.shape as [number, number, number];
    let q = reshape(this.q_proj.forward(x), [b, t, heads, headDim]);
    let k = reshape(this.k_proj.forward(x), [b, t, keyHeads, headDim]);
    if (this.q_norm) q = this.q_norm.forward(q);
    if (this.k_norm) k = this.k_norm.forward(k);
    if (!this.#layer.rope) return [q, k];
    const { table, scale } = turn(this.#layer.rope);
    return [q, k].map((x) => rope(x, positions, table, { layout: 'bthd', scale })) as [Tensor, Tensor];
  }
}

class Mlp extends Module {
  gate_proj: Linear;
  up_proj: Linear;
  down_proj: Linear;
  readonly #activation: TransformerConfig['activation'];

  constructor(device: Device, { width, hidden, bias, activation }: TransformerConfig) {
    super(device);
    this.gate_proj = new Linear(device, width, hidden, { bias: bias.mlp });
    this.up_proj = new Linear(device, width, hidden, { bias: bias.mlp });
    this.down_proj = new Linear(device, hidden, width, { bias: bias.mlp });
    this.#activation = activation;
  }

  forward(x: Tensor): Tensor {
    const [gate, up] = [this.gate_proj.forward(x), this.up_proj.forward(x)];
    const gated = this.#activation === 'silu' ? swiglu(gate, up) : mul(geluTanh(gate), up);
    return this.down_proj.forward(gated);
  }
}

class Layer extends Module {
  self_attn: Attention;
  mlp: Mlp;
  input_layernorm: RmsNorm;
  post_attention_layernorm: RmsNorm;
  pre_feedforward_layernorm: RmsNorm | null;
  post_feedforward_layernorm: RmsNorm | null;
  readonly #layer: LayerConfig;

  constructor(device: Device, config: TransformerConfig, layer: LayerConfig) {
    super(device);
    const { width, postNorms } = config;
    this.#layer = layer;
    this.self_attn = new Attention(device, config, layer);
    this.mlp = new Mlp(device, config);
    this.input_layernorm = norm(device, config, width);
    this.post_attention_layernorm = norm(device, config, width);
    this.pre_feedforward_layernorm = postNorms ? norm(device, config, width) : null;
    this.post_feedforward_layernorm = postNorms ? norm(device, config, width) : null;
  }

  forward(x: Tensor, pass: Pass): Tensor {
    // Positions are an input, which checkpointing holds for the backward pass.
    const body = (x: Tensor, positions: Tensor) => {
      const attended = this.self_attn.forward(this.input_layernorm.forward(x), { ...pass, positions });
      const { pre_feedforward_layernorm: before, post_feedforward_layernorm: after } = this;
      // With norms behind, `post_attention_layernorm` is what its name says; otherwise it stands before the MLP.
      if (before && after) {
        const y = add(x, this.post_attention_layernorm.forward(attended));
        return add(y, after.forward(this.mlp.forward(before.forward(y))));
      }
      const y = add(x, attended);
      return add(y, this.mlp.forward(this.post_attention_layernorm.forward(y)));
    };
    return this.block(body, x, pass.positions);
  }

  /** Null where it learns no selection. Queries and keys are made once more, so that checkpointing takes it by itself. */
  selectionLoss(x: Tensor, pass: Pass, queries: DrawnQueries): Tensor | null {
    if (!learnsSelection(this.#layer)) return null;
    const body = (x: Tensor, positions: Tensor) =>
      this.self_attn.selectionLoss(this.input_layernorm.forward(x), { ...pass, positions }, queries);
    return this.block(body, x, pass.positions);
  }
}

class Decoder extends Module {
  embed_tokens: Embedding;
  layers: Layer[];
  norm: RmsNorm;

  constructor(device: Device, config: TransformerConfig) {
    super(device);
    this.embed_tokens = new Embedding(device, config.vocabulary, config.width);
    this.layers = config.layers.map((layer) => new Layer(device, config, layer));
    this.norm = norm(device, config, config.width);
    this.#putTogether();
  }

  /** Norms and biases of all layers become windows of one buffer: kernels of decoding bind that. */
  #putTogether(): void {
    const vectors = [...this.namedParameters()].filter(([, { shape }]) => shape.length === 1);
    const step = ALIGNMENT / 4; // elements
    const room = ({ size }: Tensor) => Math.ceil(size / step) * step;
    const { device } = this;
    const whole = empty(device, [vectors.reduce((sum, [, vector]) => sum + room(vector), 0)], 'f32', 'parameters');
    let at = 0;
    const windows = vectors.map(([path, vector]): [string, Tensor] => {
      const window = view(whole, 4 * at, vector.shape);
      window.requiresGrad = true;
      at += room(vector);
      return [path, device.scope ? keep(window) : window];
    });
    this.replaceParameters(new Map(windows));
    if (!device.scope) whole.storage.drop(); // the windows hold it
  }
}

const norm = (device: Device, { normEps: eps, normOffset: offset }: TransformerConfig, width: number): RmsNorm =>
  new RmsNorm(device, width, { eps, offset });

export interface ForwardOptions {
  /** Of a cache (`KeyValueCache.step`): the texts go on where it ends, and are added to it. */
  step?: Step;
  /** Where several share a sequence, without a cache. */
  documents?: Documents;
  /** Of all that is computed; f32 by default. */
  dtype?: 'f32' | 'f16';
  /** Whether one token of each sequence, too, goes through the operations of longer texts: for comparison. */
  composed?: boolean;
  /** Whether layers with a tree see all that lies before, as full attention does: for the beginning of a training. */
  dense?: boolean;
}

export class Transformer extends Module {
  model: Decoder;
  lm_head: Linear | null;
  readonly config: TransformerConfig;
  readonly #turns = new Map<string, Turn>();

  constructor(device: Device, config: TransformerConfig) {
    super(device);
    this.config = config;
    this.model = new Decoder(device, config);
    this.lm_head = config.tied ? null : new Linear(device, config.width, config.vocabulary, { bias: false });
  }

  /** From a parsed `config.json`; `name` stands in errors. */
  static fromConfig(device: Device, json: unknown, name?: string): Transformer {
    return new Transformer(device, parseTransformerConfig(json, name));
  }

  /**
   * The last layer's states after the final norm, (B, T, C). ids: i32 (B, T) on the device, or texts of one length.
   * Throws where ids are not in the vocabulary (of a tensor that can't be seen).
   */
  forward(ids: Tensor | readonly ArrayLike<number>[], options: ForwardOptions = {}): Tensor {
    return this.#run(ids, options, null)[0];
  }

  /**
   * The same, and how far off the selection of these queries is, added up over the layers with a tree, in nats: a loss beside
   * the task's, without which such layers don't learn to be selected from (see selection_loss.ts).
   */
  forwardWithSelection(
    ids: Tensor | readonly ArrayLike<number>[],
    queries: DrawnQueries,
    options: Omit<ForwardOptions, 'step' | 'composed'> = {},
  ): { states: Tensor; selection: Tensor } {
    const [states, ...losses] = this.#run(ids, options, queries);
    return { states, selection: losses.reduce((sum, loss) => add(sum, loss)) };
  }

  #run(
    ids: Tensor | readonly ArrayLike<number>[],
    { step, documents, dtype = 'f32', composed = false, dense = false }: ForwardOptions,
    queries: DrawnQueries | null,
  ): [states: Tensor, ...selection: Tensor[]] {
    const { device, config } = this;
    return scope(device, () => {
      const given = ids instanceof Tensor ? ids : this.#upload(ids);
      if (given.shape.length !== 2)
        throw new Error(`[transformer] ids must be (B, T), not ${formatShape(given.shape)}`);
      const length = given.shape[1]!;
      if (step && !sameShape(step.positions.shape, given.shape))
        throw new Error(
          `[transformer] the step is for ids ${formatShape(step.positions.shape)}, not ${formatShape(given.shape)}`,
        );
      const positions = step?.positions ?? documents?.positions ?? tensor(device, Int32Array.from({ length }, (_, t) => t), [length]); // prettier-ignore
      const reach = step?.cache.capacity ?? length;
      const lists = new AttentionLists(device);
      let x = cast(this.model.embed_tokens.forward(given), dtype);
      if (config.embeddingScale !== 1) x = affine(x, config.embeddingScale);
      const { layers } = this.model;
      const losses: Tensor[] = [];
      const turn = (rope: RopeConfig | null) => this.#turn(rope, reach);
      const cachedAt = (i: number) => (step ? { step, lists, ...step.cache.layers[i]! } : null);
      const steps =
        step && length === 1 && !composed
          ? layers.map((layer, i) => ({ layer, sight: config.layers[i]!, cached: cachedAt(i)!, turn: turn(config.layers[i]!.rope) })) // prettier-ignore
          : [];
      if (steps.length > 0 && decodable(x, steps)) {
        const { activation, attentionScale, normEps: eps, normOffset: offset } = config;
        x = decodeLayers(x, steps, { activation, attentionScale, eps, offset });
      } else {
        layers.forEach((layer, i) => {
          const pass = { positions, turn, cached: cachedAt(i), documents: documents ?? null, dense };
          const loss = queries && layer.selectionLoss(x, pass, queries);
          if (loss) losses.push(loss);
          x = layer.forward(x, pass);
        });
      }
      step?.end();
      return [this.model.norm.forward(x), ...losses];
    });
  }

  /** What the last states meet, (V, C): a row a token. */
  get head(): Tensor {
    return (this.lm_head ?? this.model.embed_tokens).weight;
  }

  /** Scores of the next token: states (…, C) → (…, V). */
  logits(states: Tensor): Tensor {
    return linear(states, factor(this.head, states));
  }

  override release(): void {
    super.release();
    for (const { table } of this.#turns.values()) table.storage.drop();
    this.#turns.clear();
  }

  #upload(texts: readonly ArrayLike<number>[]): Tensor {
    const { vocabulary } = this.config;
    const length = texts[0]?.length ?? 0;
    if (length === 0 || texts.some((text) => text.length !== length))
      throw new Error(
        `[transformer] texts must have one common length of at least 1 token, not ${texts.map((text) => text.length).join(', ') || 'none'}`,
      );
    const flat = Int32Array.from(texts.flatMap((text) => Array.from(text)));
    const wrong = flat.find((id) => !(id >= 0 && id < vocabulary));
    if (wrong !== undefined)
      throw new Error(
        `[transformer] token id ${wrong} is not in this model's vocabulary, 0 to ${vocabulary - 1}: is the tokenizer another model's?`,
      );
    return tensor(this.device, flat, [texts.length, length]);
  }

  /** A layer's turn for texts of up to `length` tokens, made once. */
  #turn(rope: RopeConfig | null, length: number): Turn {
    const reach = rope?.scaling.rope_type === 'dynamic' ? Math.max(length, rope.context) : 0;
    const key = JSON.stringify([rope, reach]);
    let turn = this.#turns.get(key);
    if (!turn) {
      const still = { frequencies: new Float64Array(this.config.headDim / 2), scale: 1 };
      const { frequencies, scale } = rope ? ropeValues(rope, reach) : still;
      this.#turns.set(key, (turn = { table: keep(ropeTable(this.device, frequencies)), scale }));
    }
    return turn;
  }
}
