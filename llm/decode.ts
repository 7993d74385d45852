/**
 * A step of one token a sequence by the kernels of kernels/decode, at most six dispatches a layer: norm and projections into
 * the cache, attention (in two parts where the cache is long, behind the selection where there is a tree), output product,
 * norm and gated product, second product. Products are added to the states; where a norm stands behind them, the next kernel
 * that reads the states adds it.
 */
import { scope } from '../engine/index.ts';
import type { Tensor } from '../engine/index.ts';
import {
  decodeAttention,
  decodeGate,
  decodeNorm,
  decodeProduct,
  decodeProject,
  decodes,
  decodeStates,
} from '../kernels/index.ts';
import type { GateWeights, NormSettings, ProjectWeights, States } from '../kernels/index.ts';
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

/** A layer, its place in the cache, and how its heads turn: see `rope`. */
export interface DecodeStep {
  readonly layer: DecodedLayer;
  readonly sight: LayerConfig;
  readonly cached: Cached;
  readonly turn: { readonly table: Tensor; readonly scale: number };
}

export interface DecodeOptions extends NormSettings {
  readonly activation: 'silu' | 'gelu_tanh';
  readonly attentionScale: number;
}

/** `before`: the norm behind the MLP of the layer before, of which the first layer finds nothing behind its states. */
const projectOf = (
  { self_attn, input_layernorm, post_feedforward_layernorm: own }: DecodedLayer,
  before?: DecodedLayer,
): ProjectWeights => ({
  behind: own && (before?.post_feedforward_layernorm ?? own),
  norm: input_layernorm,
  q: self_attn.q_proj,
  k: self_attn.k_proj,
  v: self_attn.v_proj,
  queryNorm: self_attn.q_norm,
  keyNorm: self_attn.k_norm,
});
const gateOf = ({ mlp, post_attention_layernorm, pre_feedforward_layernorm }: DecodedLayer): GateWeights => ({
  behind: pre_feedforward_layernorm && post_attention_layernorm,
  norm: pre_feedforward_layernorm ?? post_attention_layernorm,
  gate: mlp.gate_proj,
  up: mlp.up_proj,
});

/** Whether `decodeLayers` serves: one token of each of a few sequences that nothing is learned from, and weights that fit. */
export const decodable = (x: Tensor, steps: readonly DecodeStep[]): boolean =>
  !x.tracked &&
  steps.every(({ layer, cached }, i) => decodes(x, projectOf(layer, steps[i - 1]?.layer), gateOf(layer), cached));

/** x (B, 1, C), which is written over, → the states behind the last layer. */
export function decodeLayers(
  x: Tensor,
  steps: readonly DecodeStep[],
  { activation, attentionScale, ...norms }: DecodeOptions,
): Tensor {
  const { post_feedforward_layernorm: last } = steps.at(-1)!.layer;
  // With norms behind: what attention and MLP leave, each written from the other.
  const queries = x.shape[0]! * steps[0]!.layer.self_attn.q_proj.weight.shape[0]!;
  const places = last && { attention: decodeStates(x, queries), mlp: decodeStates(x) };
  let states: States = { x, whole: x, y: null };
  steps.forEach(({ layer, sight, cached, turn }, i) =>
    scope(x.device, () => {
      const { self_attn, mlp } = layer;
      const add = (y: Tensor, { weight, bias }: Product) =>
        decodeProduct(y, { weight, bias: bias && like(bias, x) }, states.y ?? states.x, !states.y);
      const { extents } = cached.step;
      const { window, sinks, tree } = sight;
      const place = { ...norms, extents, sinks: tree ? 0 : sinks, table: turn.table, turnScale: turn.scale };
      const q = decodeProject(states, projectOf(layer, steps[i - 1]?.layer), cached, place, places?.attention);
      const leaves = tree && { summaries: cached.summaries!, window: window!, beam: tree.beam, sinks };
      states = places?.attention ?? states;
      add(decodeAttention(q, cached, { extents, scale: attentionScale, tree: leaves }), self_attn.o_proj);
      const gated = decodeGate(states, gateOf(layer), { ...norms, activation }, places?.mlp);
      states = places?.mlp ?? states;
      add(gated, mlp.down_proj);
    }),
  );
  return last ? decodeNorm(states, last, norms) : x;
}
