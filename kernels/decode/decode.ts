/**
 * Kernels of decoding: one token of each of a few sequences through a layer of a decoder in at most six dispatches. What that
 * costs is reading weights and cache once, and the host's work for a dispatch; so what stands between products is
 * computed beside them. Inference alone: nothing here has a gradient.
 */
import { byteLength, empty, formatShape, preprocess, sizeOf, typed, view, wgsl, windowOf } from '../../engine/index.ts'; // prettier-ignore
import type { Defines, Device, Tensor, Window } from '../../engine/index.ts';
import { scalesAt } from '../cache/cache.ts';
import type { KeysValues } from '../cache/cache.ts';
import { hasScales, reader } from '../matmul/formats.ts';
import { multiply } from '../matmul/product.ts';
import { selectLeaves } from '../tree/selection.ts';
import type { SelectionOptions } from '../tree/selection.ts';
import type { TreeSummaries } from '../tree/summaries.ts';

const projectSource = wgsl(import.meta.url, './decode_project.wgsl');
const gateSource = wgsl(import.meta.url, './decode_gate.wgsl');
const normSource = wgsl(import.meta.url, './decode_norm.wgsl');
const attentionSource = wgsl(import.meta.url, './decode_attention.wgsl');
const combineSource = wgsl(import.meta.url, './decode_combine.wgsl');
// Inserted into the first two, and included by the others.
const dotsSource = wgsl(import.meta.url, './dots.wgsl');
wgsl(import.meta.url, './shared.wgsl');

/** Sequences that are decoded so: more of them are rather a matter of matrix products. */
export const DECODE_SEQUENCES = 8;

/** A product, as a module has it. */
interface Product {
  /** (out, in) in any dtype. */
  readonly weight: Tensor;
  readonly bias: Tensor | null;
}

/** An RMS norm's weight (C). */
interface Norm {
  readonly weight: Tensor;
}

export interface NormSettings {
  readonly eps: number;
  /** What is added to the weights of norms: 0 or 1. */
  readonly offset: number;
}

export interface ProjectWeights {
  /** That behind the MLP of the layer before; any one in the first layer. */
  readonly behind: Norm | null;
  readonly norm: Norm;
  readonly q: Product;
  readonly k: Product;
  readonly v: Product;
  readonly queryNorm: Norm | null;
  readonly keyNorm: Norm | null;
}

export interface GateWeights {
  /** That behind the attention. */
  readonly behind: Norm | null;
  readonly norm: Norm;
  readonly gate: Product;
  readonly up: Product;
}

export interface ProjectOptions extends NormSettings {
  /** How many tokens each sequence has, and gets (0 or 1): u32 (2, B rounded up to 64). */
  readonly extents: Tensor;
  /** First positions that keep their slots. */
  readonly sinks: number;
  /** Of `ropeTable`, D / 2 frequencies, and what turned columns are multiplied by. */
  readonly table: Tensor;
  readonly turnScale: number;
}

/**
 * States (B, 1, C) between the halves of layers: x; and where a norm stands behind each half, what the half before has given,
 * y, in the same buffer. Then the states are x + norm(y), which the next kernel that reads them finds by itself.
 */
export interface States {
  readonly x: Tensor;
  readonly whole: Tensor;
  /** Null where nothing stands behind x, or not yet. */
  readonly y: Tensor | null;
}

/** Room for states as x with what stands behind them, and for `more` elements: `decodeProject` puts queries there. */
export function decodeStates({ device, shape, size, dtype }: Tensor, more = 0): States {
  const at = Math.ceil(size / 128) * 128; // 256 bytes of either dtype
  const whole = empty(device, [2 * at + more], dtype);
  return { whole, x: view(whole, 0, shape), y: view(whole, byteLength(at, dtype), shape) };
}

/** Small vectors in the buffer that they share, and where each begins in it, in elements; null where they share none. */
function together(device: Device, vectors: readonly Tensor[]): { window: Window; at: number[] } | null {
  const { storage } = vectors[0]!;
  if (vectors.some((vector) => vector.storage !== storage || vector.dtype !== 'f32')) return null;
  vectors[0]!.window(); // throws where it is released
  const window = windowOf(storage, 0, storage.bytes);
  return window.bytes > device.bindingLimit ? null : { window, at: vectors.map(({ offset }) => offset / 4) };
}

const projectVectors = ({ behind, norm, q, k, v, queryNorm, keyNorm }: ProjectWeights): Tensor[] => [
  norm.weight,
  ...(behind ? [behind.weight] : []),
  ...(q.bias && k.bias && v.bias ? [q.bias, k.bias, v.bias] : []),
  ...(queryNorm && keyNorm ? [queryNorm.weight, keyNorm.weight] : []),
];
const gateVectors = ({ behind, norm, gate, up }: GateWeights): Tensor[] => [
  norm.weight,
  ...(behind ? [behind.weight] : []),
  ...(gate.bias && up.bias ? [gate.bias, up.bias] : []),
];

/**
 * Whether the kernels here serve a layer: x (B, 1, C) of few sequences, extents in whole quads, each weight in one binding,
 * and norms and biases of a kernel side by side in one buffer.
 */
export function decodes(x: Tensor, project: ProjectWeights, gate: GateWeights, { keys }: KeysValues): boolean {
  const { device, shape } = x;
  const [batch, length, width] = shape as [number, number, number];
  const [, , kvHeads, dim] = keys.shape as [number, number, number, number];
  const weights = [project.q, project.k, project.v, gate.gate, gate.up].map(({ weight }) => weight);
  const bound = [...weights, keys];
  return (
    length === 1 &&
    batch <= DECODE_SEQUENCES &&
    width % 4 === 0 &&
    dim % 8 === 0 &&
    dim <= 256 &&
    gate.gate.weight.shape[0]! % 8 === 0 &&
    // A head's scales are whole words.
    (keys.dtype !== 'q8' || dim % 64 === 0) &&
    kvHeads > 0 &&
    bound.every(({ size, dtype }) => byteLength(size, dtype) <= device.bindingLimit) &&
    together(device, projectVectors(project)) !== null &&
    together(device, gateVectors(gate)) !== null
  );
}

/** The text that reads a weight and multiplies it, for `$NAME` of a kernel. `rows` are its parameters' names. */
function dots(name: string, { weight: { dtype } }: Product, binding: number, rows: string): string {
  const defines = {
    NAME: name,
    READER: reader(name, dtype, binding, 'inside'),
    BLOCKS: hasScales(dtype),
    SIZE: `(${rows} * params.width)`,
    PER_256: dtype === 'q4' ? '512u' : '256u',
  };
  return preprocess(dotsSource.name, dotsSource.text!, defines);
}

/** What specialises kernels by the adapter and by how many sequences there are. */
function lanesOf({ profile }: Device, batch: number): Defines & { readonly TEAMS: string } {
  const { subgroupSize } = profile;
  const rows = `${batch === 1 ? 1 : 4}u`;
  if (subgroupSize === 0) return { LANES: '64u', TEAMS: '1u', ROWS: rows };
  return { SUBGROUPS: true, LANES: `${subgroupSize}u`, TEAMS: '4u', ROWS: rows };
}

const rowsOf = (batch: number): number => (batch === 1 ? 1 : 4);

/** How a cache's elements are read and written. */
function cachedAs({ dtype }: Tensor, x: Tensor): Defines {
  const q8 = dtype === 'q8';
  return { ...typed(x), C: q8 ? 'u32' : dtype, Q8: q8, F16: x.dtype === 'f16' || dtype === 'f16' };
}

/** Parameters by which kernels find what stands behind x. */
function behindOf({ x, y }: States, at: number): Record<string, number> {
  const behind = y ? (y.offset - x.offset) / (byteLength(y.size, y.dtype) / y.size) : 0;
  return { behind: at, y: behind, gain: y ? 1 : 0 };
}

/**
 * Queries (B, 1, H, D) of states (B, 1, C) after their RMS norm, with biases, norms of heads and rotation; keys and values go
 * into the cache, as by `cacheWrite`. With a norm behind the states, the states themselves go `into` a place that has room
 * for the queries behind them. See `decodes` for what it takes.
 */
export function decodeProject(
  states: States,
  weights: ProjectWeights,
  cache: KeysValues,
  options: ProjectOptions,
  into: States | null = null,
): Tensor {
  const { x } = states;
  const { device } = x;
  const { behind, q, k, v } = weights;
  const { extents, sinks, table, turnScale, eps, offset } = options;
  const [batch, , width] = x.shape as [number, number, number];
  const [, slots, kvHeads, dim] = cache.keys.shape as [number, number, number, number];
  const heads = q.weight.shape[0]! / dim;
  if (table.shape[0]! * 2 !== dim) throw new Error(`[decodeProject] ${table.shape[0]} pairs of columns turn; they must be all ${dim / 2}`); // prettier-ignore
  const { window, at } = shared('decodeProject', device, projectVectors(weights));
  const biases = q.bias !== null;
  const headNorms = weights.queryNorm !== null;
  const q8 = cache.keys.dtype === 'q8';
  const whole = headNorms || q8;
  const shape = [batch, 1, heads, dim];
  const first = into ? into.whole.size - sizeOf(shape) : 0;
  const queries = into ? view(into.whole, byteLength(first, x.dtype), shape) : empty(device, shape, x.dtype);
  const kernel = device.kernel(projectSource, {
    ...cachedAs(cache.keys, x),
    ...lanesOf(device, batch),
    WHOLE: whole,
    BIAS: biases,
    HEAD_NORMS: headNorms,
    BEHIND: behind !== null,
    FORMATS: [q, k, v].map(({ weight }) => weight.dtype).join(' '),
    X: reader('x', x.dtype, 0, 0),
    Q: dots('q', q, 2, 'params.heads * params.dim'),
    K: dots('k', k, 3, 'params.kvHeads * params.dim'),
    V: dots('v', v, 4, 'params.kvHeads * params.dim'),
  });
  const bound = [q.weight, k.weight, v.weight, extents, table, into?.whole ?? queries, cache.keys, cache.values];
  const named = at.slice(1);
  const norm = behind ? { ...behindOf(states, named.shift()!), queries: first } : {};
  const bias: Record<string, number> = biases
    ? { queryBias: named.shift()!, keyBias: named.shift()!, valueBias: named.shift()! }
    : {};
  const norms: Record<string, number> = headNorms ? { queryNorm: named.shift()!, keyNorm: named.shift()! } : {};
  device.dispatch(
    kernel,
    [
      device.bindable(states.whole, kernel.label),
      window,
      ...bound.map((tensor) => device.bindable(tensor, kernel.label)),
    ],
    {
      batch, width, heads, kvHeads, dim, slots, sinks, counts: extents.shape[1]!, eps, offset, turnScale, norm: at[0]!,
      ...norm, ...bias, ...norms, ...(q8 ? { scales: scalesAt(cache.keys), block: 8 } : {}),
    }, // prettier-ignore
    (heads + 2 * kvHeads) * (whole ? 1 : dim / 8) * Math.ceil(batch / rowsOf(batch)),
  );
  return queries;
}

function shared(operation: string, device: Device, vectors: readonly Tensor[]) {
  const found = together(device, vectors);
  if (!found) throw new Error(`[${operation}] the norm and the biases must lie in one buffer, in f32`);
  return found;
}

/** Keys that a workgroup takes at a time; as many as in kernels/attention. */
const SPAN = 512;

/** What a layer with a tree attends to beside its window. */
export interface DecodeTree extends Omit<SelectionOptions, 'starts'> {
  readonly summaries: TreeSummaries;
}

export interface DecodeAttentionOptions {
  readonly extents: Tensor;
  readonly scale: number;
  readonly tree?: DecodeTree | null;
}

/**
 * Attention of one query a head, (B, 1, H, D), to all that a cache holds of its sequence, or to a window and the leaves of a
 * tree that the query selects: (B, 1, H, D). Nodes that the new token completes are made, as by `appendSummaries`.
 */
export function decodeAttention(
  q: Tensor,
  cache: KeysValues,
  { extents, scale, tree = null }: DecodeAttentionOptions,
): Tensor {
  const { device, dtype } = q;
  const [batch, , heads, dim] = q.shape as [number, number, number, number];
  const [, slots, kvHeads] = cache.keys.shape as [number, number, number, number];
  const spans = tree ? 1 : Math.ceil(slots / SPAN);
  const share = heads / kvHeads;
  const rows = share === 1 ? 1 : 4;
  const out = empty(device, q.shape, dtype);
  const parts =
    spans > 1 ? [empty(device, [batch, heads, spans, dim]), empty(device, [batch, heads, spans, 2])] : [out];
  const counts = extents.shape[1]!;
  let sight: Record<string, number> = {};
  if (tree) {
    const { summaries, ...options } = tree;
    const { selected } = selectLeaves(q, summaries, { ...options, starts: view(extents, 0, [batch]) });
    parts.push(selected, summaries.nodes);
    const { block, fanout, nodes } = summaries;
    sight = { window: tree.window, block, beam: selected.shape[3]!, fanout, nodes: nodes.shape[2]! };
  }
  device.run(
    device.kernel(attentionSource, {
      ...cachedAs(cache.keys, q),
      ONE: spans === 1,
      ROWS: `${rows}u`,
      SPAN: `${SPAN}u`,
      TREE: tree !== null,
      BOXES: tree?.summaries.kind === 'boxes',
    }),
    [q, cache.keys, cache.values, extents, ...parts],
    { batch, heads, kvHeads, dim, slots, counts, spans, scales: scalesAt(cache.keys), scale, ...sight },
    spans * Math.ceil(share / rows) * kvHeads * batch,
  );
  if (spans > 1)
    device.run(
      device.kernel(combineSource, typed(q)),
      [...parts, out],
      { rows: batch * heads, width: dim / 4, spans },
      Math.ceil((batch * heads * dim) / 4 / 64),
    );
  return out;
}

/**
 * act(gate) · up of states (B, 1, C) after their RMS norm: (B, 1, hidden). With a norm behind the states, the states
 * themselves go `into` another place. See `decodes` for what it takes.
 */
export function decodeGate(
  states: States,
  weights: GateWeights,
  { eps, offset, activation }: NormSettings & { activation: 'silu' | 'gelu_tanh' },
  into: States | null = null,
): Tensor {
  const { x } = states;
  const { device } = x;
  const { behind, gate, up } = weights;
  const [batch, , width] = x.shape as [number, number, number];
  const hidden = gate.weight.shape[0]!;
  const { window, at } = shared('decodeGate', device, gateVectors(weights));
  const out = empty(device, [batch, 1, hidden], x.dtype);
  const kernel = device.kernel(gateSource, {
    ...typed(x),
    ...lanesOf(device, batch),
    BIAS: gate.bias !== null,
    GELU: activation === 'gelu_tanh',
    BEHIND: behind !== null,
    FORMATS: `${gate.weight.dtype} ${up.weight.dtype}`,
    X: reader('x', x.dtype, 0, 0),
    GATE: dots('gate', gate, 2, 'params.hidden'),
    UP: dots('up', up, 3, 'params.hidden'),
  });
  const named = at.slice(1);
  const norm = behind ? behindOf(states, named.shift()!) : {};
  const bias: Record<string, number> = gate.bias ? { gateBias: named.shift()!, upBias: named.shift()! } : {};
  const bound = [gate.weight, up.weight, out, ...(into ? [into.whole] : [])];
  device.dispatch(
    kernel,
    [
      device.bindable(states.whole, kernel.label),
      window,
      ...bound.map((tensor) => device.bindable(tensor, kernel.label)),
    ],
    { batch, width, hidden, eps, offset, norm: at[0]!, ...norm, ...bias },
    (hidden / 8) * Math.ceil(batch / rowsOf(batch)),
  );
  return out;
}

/** out = y · weightᵀ + bias, or that much more with `added`: out (B, 1, out), y (B, …) of `in` elements a sequence. */
export function decodeProduct(y: Tensor, { weight, bias }: Product, out: Tensor, added: boolean): void {
  const [n, k] = weight.shape as [number, number];
  const m = out.shape[0]!;
  if (sizeOf(y.shape) !== m * k || out.size !== m * n)
    throw new Error(
      `[decodeProduct] ${formatShape(y.shape)} and a result ${formatShape(out.shape)} don't fit a weight ${formatShape(weight.shape)}`,
    );
  multiply(y, weight, out, {
    m, n, k, rows: 1, transposeB: true, added,
    bias: bias ? { values: bias, along: 'row' } : undefined,
  }); // prettier-ignore
}

/** x + norm(y) of states with a norm behind them: (B, 1, C). */
export function decodeNorm(states: States, norm: Norm, { eps, offset }: NormSettings): Tensor {
  const { x } = states;
  const { device } = x;
  const [batch, , width] = x.shape as [number, number, number];
  const { window, at } = shared('decodeNorm', device, [norm.weight]);
  const out = empty(device, x.shape, x.dtype);
  const kernel = device.kernel(normSource, {
    ...typed(x),
    ...lanesOf(device, 1),
    BEHIND: true,
    X: reader('x', x.dtype, 0, 0),
  });
  device.dispatch(
    kernel,
    [device.bindable(states.whole, kernel.label), window, device.bindable(out, kernel.label)],
    { batch, width, eps, offset, ...behindOf(states, at[0]!) },
    batch,
  );
  return out;
}
