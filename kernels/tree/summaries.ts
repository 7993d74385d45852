/** The tree over keys that queries descend: which nodes there are, where they lie, and their summaries. */
import { apply, formatShape, noGrad, operation, typed, wgsl, zeros } from '../../engine/index.ts';
import type { Device, Shape, Tensor } from '../../engine/index.ts';
import { scalesAt } from '../cache/cache.ts';

const source = wgsl(import.meta.url, './tree_summaries.wgsl');
wgsl(import.meta.url, './tree_node.wgsl'); // included by it

/** How keys are cut and summarised. */
export interface TreeShape {
  /** Keys of a leaf. */
  readonly block: number;
  /** Complete nodes that make one of the next level. */
  readonly fanout: number;
  /**
   * `pooled`: the mean of a node's keys; a query's score of it is q · mean. `boxes`: the least and the largest value of its
   * keys in each dimension; the score is Σ max(q · least, q · largest), which no key in it exceeds.
   */
  readonly kind: 'pooled' | 'boxes';
}

/** Summaries of all complete nodes of keys (B, Tk, KV, D). */
export interface TreeSummaries extends TreeShape {
  /**
   * f32, (B, KV, nodes, D), or (B, KV, nodes, 2, D) for boxes: leaves, then the levels above, each with room for all nodes
   * that Tk keys can fill. Node n of level l covers the leaves n · fanoutˡ … (n + 1) · fanoutˡ − 1. What is not complete holds
   * nothing of use.
   */
  readonly nodes: Tensor;
  /** Tk: keys that there is room for. */
  readonly keys: number;
}

export interface SummariesOptions extends Partial<TreeShape> {
  /** How many keys of each sequence count, u32 (B); all by default. */
  keyLengths?: Tensor;
}

export interface AppendOptions {
  /** Keys whose complete nodes are there already, u32 (B). */
  starts: Tensor;
  /** How many keys count now, u32 (B). */
  keyLengths: Tensor;
  /** By how many at most they have grown. */
  added: number;
}

/** Nodes of each level that `keys` keys fill, leaves first. */
export function levelSizes(keys: number, { block, fanout }: Pick<TreeShape, 'block' | 'fanout'>): number[] {
  const sizes: number[] = [];
  for (let n = Math.floor(keys / block); n > 0; n = Math.floor(n / fanout)) sizes.push(n);
  return sizes;
}

export const nodeCount = (keys: number, shape: Pick<TreeShape, 'block' | 'fanout'>): number =>
  levelSizes(keys, shape).reduce((sum, n) => sum + n, 0);

/** Throws unless keys of this shape can be cut so. */
function check(k: Tensor, { block, fanout }: TreeShape): void {
  const fail = (message: string): never => {
    throw new Error(`[treeSummaries] ${message}`);
  };
  if (k.shape.length !== 4) fail(`k is ${formatShape(k.shape)}; it must be (B, T, KV, D)`);
  if (k.shape[3]! % 4 !== 0) fail(`the head width of k ${formatShape(k.shape)} must be a multiple of 4`);
  if (!(Number.isInteger(block) && block >= 1))
    fail(`block is ${block}; it must be a whole number of keys, at least 1`);
  if (!(Number.isInteger(fanout) && fanout >= 2))
    fail(`fanout is ${fanout}; it must be a whole number of nodes, at least 2`);
}

function nodesShape(k: Shape, { block, fanout, kind }: TreeShape): number[] {
  const [batch, keys, kvHeads, dim] = k as [number, number, number, number];
  return [batch, kvHeads, nodeCount(keys, { block, fanout }), ...(kind === 'boxes' ? [2] : []), dim];
}

interface Since {
  readonly keyLengths: Tensor | null;
  readonly starts: Tensor | null;
  /** Keys since `starts`. */
  readonly added: number;
}

/** Makes the nodes that have become complete. */
function make(k: Tensor, nodes: Tensor, shape: TreeShape, { keyLengths, starts, added }: Since): void {
  const { device } = k;
  const [batch, keys, kvHeads, dim] = k.shape as [number, number, number, number];
  const { block, fanout, kind } = shape;
  const data = [k, nodes];
  const binding = (given: Tensor | null) => given !== null && data.push(given) - 1;
  const q8 = k.dtype === 'q8';
  const defines = { BOXES: kind === 'boxes', Q8: q8, KEY_LENGTHS: binding(keyLengths), STARTS: binding(starts) };
  const scales: Record<string, number> = q8 ? { scales: scalesAt(k) } : {};
  const kernel = device.kernel(source, { ...typed(k), ...defines });
  const run = (first: number, last: number, count: number) =>
    device.run(
      kernel,
      data,
      { batch, keys, kvHeads, width: dim / 4, block, fanout, nodes: nodes.shape[2]!, first, last, count, ...scales },
      Math.ceil((batch * kvHeads * count * (dim / 4)) / 64),
    );
  const { length } = levelSizes(keys, shape);
  if (added <= block)
    run(0, length, 1); // at most one leaf, and so one node of each level
  else for (let l = 0; l < length; l++) run(l, l + 1, Math.ceil(added / (block * fanout ** l)));
}

type Inputs = readonly [k: Tensor, keyLengths: Tensor | null];

const summariesOp = operation<Inputs, TreeShape>({
  name: 'treeSummaries',
  dtypes: ['float', 'u32'],
  shape([k], shape) {
    check(k, shape);
    return nodesShape(k.shape, shape);
  },
  forward(_ctx, [k, keyLengths], shape, nodes) {
    const made = zeros(k.device, nodes);
    make(k, made, shape, { keyLengths, starts: null, added: k.shape[1]! });
    return made;
  },
  backward: () => [null, null],
});

const withDefaults = ({ block = 64, fanout = 8, kind = 'pooled' }: Partial<TreeShape>): TreeShape => ({
  block,
  fanout,
  kind,
});

/**
 * The summaries of keys (B, T, KV, D), f32 or f16, in f32. Only complete nodes have one, and none is ever changed by later keys.
 * D is a multiple of 4. There is no gradient: a small change of the keys changes no selection.
 */
export function treeSummaries(k: Tensor, { keyLengths, ...options }: SummariesOptions = {}): TreeSummaries {
  const shape = withDefaults(options);
  const nodes = noGrad(k.device, () => apply(summariesOp, [k, keyLengths ?? null], shape));
  return { ...shape, nodes, keys: k.shape[1]! };
}

/** Summaries of a cache with keys of this shape, (B, room, KV, D), before there are any. */
export function emptySummaries(device: Device, keys: Shape, options: Partial<TreeShape> = {}): TreeSummaries {
  const shape = withDefaults(options);
  return { ...shape, nodes: zeros(device, nodesShape(keys, shape), 'f32', 'tree summaries'), keys: keys[1]! };
}

/**
 * Adds, in place, what has become complete since `starts`, with the bits that `treeSummaries` gives: one dispatch where `added`
 * is at most a block, else one a level.
 */
export function appendSummaries(
  k: Tensor,
  summaries: TreeSummaries,
  { starts, keyLengths, added }: AppendOptions,
): void {
  const { nodes, keys, block, fanout, kind } = summaries;
  const shape = { block, fanout, kind };
  check(k, shape);
  if (formatShape(nodesShape(k.shape, shape)) !== formatShape(nodes.shape))
    throw new Error(
      `[appendSummaries] k is ${formatShape(k.shape)}, the summaries ${formatShape(nodes.shape)} are of ${keys} keys: they must be of this shape`,
    );
  make(k, nodes, shape, { keyLengths, starts, added });
}
