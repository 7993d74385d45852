/**
 * A layer's step of one token a sequence by the kernels of kernels/decode: norm and projections into the cache, attention
 * (in two parts where the cache is long), output and residual, norm and gated product, second product and residual. Norms behind attention and MLP are dispatches of their own.
 */
import { reshape, scope } from '../engine/index.ts';
import type { Tensor } from '../engine/index.ts';
import {
  decodeAdd,
  decodeAttention,
  decodeGate,
  decodeNorm,
  decodeProject,
  decodes,
  linear,
} from '../kernels/index.ts';
import type { GateWeights, NormSettings, ProjectWeights } from '../kernels/index.ts';
import { like } from '../nn/layers.ts';
import type { Cached } from './attend.ts';
import type { LayerConfig } from './config.ts';

interface Weighted {
  readonly weight: Tensor;
}
interface Product extends Weighted {
  readonly bias: Tensor | null;
}

/** What is read of a layer, by the names of its fields. */
export interface DecodedLayer {
  readonly self_attn: {
    readonly q_proj: Product;
    readonly k_proj: Product;
    readonly v_proj: Product;
    readonly o_proj: Product;
    readonly q_norm: Weighted | null;
    readonly k_norm: Weighted | null;
  };
  readonly mlp: { readonly gate_proj: Product; readonly up_proj: Product; readonly down_proj: Product };
  readonly input_layernorm: Weighted;
  readonly post_attention_layernorm: Weighted;
  /** Where there are norms behind attention and MLP, before and behind the MLP. */
  readonly pre_feedforward_layernorm: Weighted | null;
  readonly post_feedforward_layernorm: Weighted | null;
}

export interface DecodeOptions extends NormSettings {
  readonly layer: LayerConfig;
  readonly activation: 'silu' | 'gelu_tanh';
  readonly attentionScale: number;
  /** How heads turn: see `rope`. */
  readonly turn: { readonly table: Tensor; readonly scale: number };
}

const projectOf = ({ self_attn, input_layernorm }: DecodedLayer): ProjectWeights => ({
  norm: input_layernorm,
  q: self_attn.q_proj,
  k: self_attn.k_proj,
  v: self_attn.v_proj,
  queryNorm: self_attn.q_norm,
  keyNorm: self_attn.k_norm,
});
const gateOf = ({ mlp, post_attention_layernorm, pre_feedforward_layernorm }: DecodedLayer): GateWeights => ({
  norm: pre_feedforward_layernorm ?? post_attention_layernorm,
  gate: mlp.gate_proj,
  up: mlp.up_proj,
});

/** Whether `decodeLayer` serves: one token of each of a few sequences that nothing is learned from, and weights that fit. */
export const decodable = (layer: DecodedLayer, x: Tensor, cached: Cached): boolean =>
  !x.tracked && decodes(x, projectOf(layer), gateOf(layer), cached);

/** x (B, 1, C) → the same tensor with the layer's output. */
export function decodeLayer(layer: DecodedLayer, x: Tensor, cached: Cached, options: DecodeOptions): Tensor {
  const { layer: sight, activation, attentionScale, turn, ...norms } = options;
  const { extents } = cached.step;
  /** x += y · Wᵀ + b, or the norm of that. */
  const addTo = (y: Tensor, { weight, bias }: Product, behind: Weighted | null) => {
    const product = { weight, bias: bias && like(bias, x) };
    if (behind) decodeNorm(x, linear(reshape(y, [x.shape[0]!, 1, -1]), like(weight, x), product.bias), behind, norms);
    else decodeAdd(x, y, product);
  };
  const { self_attn, mlp, pre_feedforward_layernorm: before, post_feedforward_layernorm: after } = layer;
  scope(x.device, () => {
    const { sinks } = sight;
    const { table, scale: turnScale } = turn;
    const q = decodeProject(x, projectOf(layer), cached, { ...norms, extents, sinks, table, turnScale });
    const attended = decodeAttention(q, cached, extents, attentionScale);
    addTo(attended, self_attn.o_proj, before && layer.post_attention_layernorm);
    addTo(decodeGate(x, gateOf(layer), { ...norms, activation }), mlp.down_proj, after);
  });
  return x;
}
