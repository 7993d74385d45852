/** Which leaves of a tree over keys each query attends to. */
import { apply, empty, formatShape, noGrad, operation, typed, wgsl } from '../../engine/index.ts';
import type { Defines, Device, Tensor } from '../../engine/index.ts';
import { variant } from '../variants.ts';
import { levelSizes } from './summaries.ts';
import type { TreeShape, TreeSummaries } from './summaries.ts';

const selectionSource = wgsl(import.meta.url, './tree_selection.wgsl');
// Included by the kernels that search.
wgsl(import.meta.url, './tree_search.wgsl');
wgsl(import.meta.url, './tree_score.wgsl');

export interface SelectionOptions {
  /** Keys back from the query, itself included, that it attends to anyway; the window begins at the leaf of the first. */
  window: number;
  /** Nodes that go on at each level, and leaves that are selected; 8 by default. */
  beam?: number;
  /** The first keys of the sequence, whose leaves are always selected, among the `beam`. */
  sinks?: number;
  /** Position of the first query in each sequence, u32 (B); 0 by default. */
  starts?: Tensor;
}

export interface Selection {
  /** u32 (B, T, KV, beam): leaves in ascending order, filled up with 2³² − 1. */
  readonly selected: Tensor;
  /** u32 (B, T, KV, 2): how many nodes were scored for each query, and how many keys it attends to, its window's included. */
  readonly touched: Tensor;
}

/** Candidates of a level, at most: what workgroup memory has room for. */
const MOST = 1024;

/** A tree, and where the windows of its queries begin. */
export interface TreeOf extends TreeShape {
  readonly keys: number;
  readonly window: number;
}

interface Attributes extends TreeOf {
  readonly beam: number;
  readonly sinks: number;
}

type Inputs = readonly [q: Tensor, nodes: Tensor, starts: Tensor | null];

/** Throws unless queries and summaries fit each other. */
export function check(name: string, [q, nodes, starts]: Inputs, { window, kind }: TreeOf): void {
  const fail = (message: string): never => {
    throw new Error(`[${name}] ${message}`);
  };
  const both = () => `q is ${formatShape(q.shape)}, the summaries are ${formatShape(nodes.shape)}`;
  if (q.shape.length !== 4) fail(`q is ${formatShape(q.shape)}; it must be (B, T, H, D)`);
  const [batch, , heads, dim] = q.shape as [number, number, number, number];
  if (nodes.shape.length !== (kind === 'boxes' ? 5 : 4)) fail(`these are no summaries of kind ${kind}: ${both()}`);
  if (nodes.shape[0] !== batch || nodes.shape.at(-1) !== dim) fail(`batch and head width differ: ${both()}`);
  const kvHeads = nodes.shape[1]!;
  if (kvHeads === 0 ? heads > 0 : heads % kvHeads !== 0)
    fail(`the ${heads} query heads must be a multiple of the ${kvHeads} key heads: ${both()}`);
  if (!(Number.isInteger(window) && window >= 1))
    fail(`the window ${window} must be a whole number of keys, at least 1`);
  if (starts && !(starts.shape.length === 1 && starts.shape[0] === batch))
    fail(`starts is ${formatShape(starts.shape)}; it must be (${batch})`);
}

/** Lanes of a workgroup, which a query has to itself. */
const lanesOf = ({ profile }: Device) => (profile.software ? 8 : 32);

/** What the kernels that descend are specialised by, and the parameters that they have in common. */
export function common([q, nodes]: Inputs, { kind, keys, block, fanout, window }: TreeOf) {
  const [batch, queries, heads, dim] = q.shape as [number, number, number, number];
  const kvHeads = nodes.shape[1]!;
  const defines = {
    ...typed(q),
    BOXES: kind === 'boxes',
    LANES: `${lanesOf(q.device)}u`,
    HEADS: heads === kvHeads ? '1u' : '4u',
  };
  const params = {
    batch,
    queries,
    heads,
    kvHeads,
    width: dim / 4,
    nodes: nodes.shape[2]!,
    keys,
    block,
    fanout,
    window,
  };
  return { defines, params, groups: batch * queries * kvHeads };
}

const selectionOp = operation<Inputs, Attributes, readonly [Tensor, Tensor]>({
  name: 'selectLeaves',
  dtypes: ['float', 'f32', 'u32'],
  shape(inputs, attributes) {
    check('selectLeaves', inputs, attributes);
    const { beam, fanout, sinks, block } = attributes;
    const fail = (message: string): never => {
      throw new Error(`[selectLeaves] ${message}`);
    };
    if (!(Number.isInteger(beam) && beam >= 1))
      fail(`the beam is ${beam}; it must be a whole number of nodes, at least 1`);
    if ((beam + 1) * fanout - 1 > MOST)
      fail(`a beam of ${beam} nodes with ${fanout} children each has too many candidates; ${MOST} fit`);
    if (!(Number.isInteger(sinks) && sinks >= 0)) fail(`sinks is ${sinks}; it must be a whole number of keys`);
    if (Math.ceil(sinks / block) > beam)
      fail(`${sinks} sinks lie in ${Math.ceil(sinks / block)} leaves of ${block} keys, more than the ${beam} selected`);
    const [batch, queries] = inputs[0].shape as [number, number];
    return [batch, queries, inputs[1].shape[1]!, beam];
  },
  forward({ device }, inputs, attributes, shape) {
    const [q, nodes, starts] = inputs;
    const { beam, sinks, block, fanout } = attributes;
    const { defines, params, groups } = common(inputs, attributes);
    const selected = empty(device, shape, 'u32');
    const touched = empty(device, [...shape.slice(0, 3), 2], 'u32');
    const room = (beam + 1) * fanout <= 128 ? 128 : MOST;
    const { subgroupSize: lanes } = device.profile;
    // A lane notes which of its candidates are chosen in 32 bits, and a level's row of candidates lies in 32 lanes.
    const subgroups = variant(device, 'attention') === 'subgroup' && room / lanes <= 32 && lanes <= 32;
    const descent = { BEAM: true, ROOM: `${room}u`, NODES: '3u', STARTS: starts !== null };
    const ranking: Defines = subgroups ? { SUBGROUPS: true, LANES: `${lanes}u` } : {};
    device.run(
      device.kernel(selectionSource, { ...defines, ...descent, ...ranking }),
      [q, nodes, selected, touched, ...(starts ? [starts] : [])],
      { ...params, beam, sinks: Math.ceil(sinks / block) },
      groups,
    );
    return [selected, touched];
  },
  backward: () => [null, null, null],
});

/**
 * Selects, for each query of q (B, T, H, D), `beam` leaves of the tree by a descent from its top: the heads that read the same
 * key head select together, by the largest of their scores, and only among leaves that lie wholly before the query's window.
 * So nothing that a query selects by holds a later key, and a query selects the same in whatever chunk it is computed. With a
 * beam of as many nodes as there are leaves all are selected. After Quest (Tang et al. 2024) and NSA (Yuan et al. 2025).
 *
 * No more than (beam + 1) · fanout nodes of each of log(T / block) levels are scored. There is no gradient.
 */
export function selectLeaves(
  q: Tensor,
  { nodes, ...tree }: TreeSummaries,
  { window, beam = 8, sinks = 0, starts }: SelectionOptions,
): Selection {
  const { block, fanout, kind, keys } = tree;
  const attributes = { block, fanout, kind, keys, window, beam, sinks };
  const [selected, touched] = noGrad(q.device, () => apply(selectionOp, [q, nodes, starts ?? null], attributes));
  return { selected, touched };
}

/** The most nodes that `selectLeaves` scores for one query, whatever it selects. */
export function mostNodesScored(
  keys: number,
  { block, fanout }: Pick<TreeShape, 'block' | 'fanout'>,
  beam: number,
): number {
  const sizes = levelSizes(keys, { block, fanout });
  return sizes.reduce((sum, size) => sum + Math.min(size, (beam + 1) * fanout - 1), 0);
}
