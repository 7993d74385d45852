/** Softmax attention to a window and to the leaves of a tree that each query has selected. */
import { apply, empty, formatShape, operation, view, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { check as checkAttention, cut, forwardPass, keyPass, queryPass } from '../attention/attention.ts';
import type { AttentionLists, Attributes as Attention, Inputs as AttentionInputs } from '../attention/attention.ts';
import { scalesAt } from '../cache/cache.ts';
import { cast } from '../elementwise/elementwise.ts';
import { transpose } from '../layout/layout.ts';
import { sortedPairs } from '../sort/order.ts';

const forwardSource = wgsl(import.meta.url, './tree_attention.wgsl');
const queryGradientSource = wgsl(import.meta.url, './tree_attention_query_gradient.wgsl');
const keyGradientSources = {
  staged: wgsl(import.meta.url, './tree_attention_key_gradient.wgsl'),
  subgroup: wgsl(import.meta.url, './tree_attention_key_gradient_subgroup.wgsl'),
};
const leafSources = {
  out: wgsl(import.meta.url, './tree_leaf_attention.wgsl'),
  dq: wgsl(import.meta.url, './tree_leaf_query_gradient.wgsl'),
};
// Included by these.
wgsl(import.meta.url, './tree_entries.wgsl');
wgsl(import.meta.url, './tree_runs.wgsl');
wgsl(import.meta.url, './tree_leaf.wgsl');

export interface TreeAttentionOptions {
  /**
   * u32 (B, Tq, KV, n): the leaves of each query and key head, as `selectLeaves` gives them for the same window. What
   * is past the last leaf fills up shorter lists, at their end.
   */
  selected: Tensor;
  /** Keys back from the query, itself included; the window begins at the leaf of the first. */
  window: number;
  /** Keys of a leaf; 64 by default. */
  block?: number;
  /** What scores are multiplied by; 1 / √D by default. */
  scale?: number;
  /** How many queries and keys of each sequence count, u32 (B), as in `attention`. */
  queryLengths?: Tensor;
  keyLengths?: Tensor;
  /** Shared by layers with the same lengths and windows. */
  lists?: AttentionLists;
}

interface Attributes {
  readonly window: number;
  readonly block: number;
  readonly scale: number;
  readonly lists: AttentionLists | null;
  /** Whether there are lengths of queries, and of keys. */
  readonly given: readonly [boolean, boolean];
}

type Inputs = readonly [
  q: Tensor,
  k: Tensor,
  v: Tensor,
  selected: Tensor,
  queryLengths: Tensor | null,
  keyLengths: Tensor | null,
];

/** The window's part, as the attention family has it. */
function windowPart(
  [q, k, v, , queryLengths, keyLengths]: Inputs,
  { window, block, scale, lists }: Attributes,
): [AttentionInputs, Attention] {
  const inputs: AttentionInputs = [q, k, v, null, queryLengths, keyLengths, null];
  const given = inputs.map((input) => input !== null);
  const rules = { causal: true, window, windowBlock: block, sinks: 0, blocks: null };
  return [inputs, { ...rules, scale, lists, layout: 'bthd', given }];
}

/** A parameter of kernels that read keys and values in q8. */
const scales = (k: Tensor): Record<string, number> => (k.dtype === 'q8' ? { scales: scalesAt(k) } : {});

/** What the kernels with a workgroup a query are specialised by, their parameters and workgroups. */
function byQuery([q, k, , selected]: Inputs, { window, block, scale }: Attributes) {
  const [batch, queries, heads, dim] = q.shape as [number, number, number, number];
  const [, keys, kvHeads] = k.shape as [number, number, number];
  const rows = heads === kvHeads ? 1 : 4; // heads of a workgroup
  const defines = {
    Q: q.dtype,
    K: k.dtype,
    Q8: k.dtype === 'q8',
    F16: q.dtype === 'f16' || k.dtype === 'f16',
    ROWS: `${rows}u`,
    LANES: q.device.profile.software ? '8u' : '64u',
  };
  const params = {
    batch,
    heads,
    kvHeads,
    queries,
    keys,
    width: dim / 4,
    beam: selected.shape[3]!,
    block,
    window,
    scale,
    ...scales(k),
  };
  return { defines, params, groups: batch * queries * kvHeads * Math.ceil(heads / kvHeads / rows) };
}

/** Whether the kernel of the leaves walks the windows too: few queries fill no tile of the window's kernels. */
const few = ([q, k]: Inputs) => (q.shape[2]! / k.shape[2]!) * q.shape[1]! <= 16;

/** (B · KV · n, Tq, 2): for each place in the queries' lists, the queries in the order of the leaf that they have there. */
function runsOf(selected: Tensor): Tensor {
  const [batch, queries, kvHeads, beam] = selected.shape as [number, number, number, number];
  return sortedPairs(view(transpose(selected, [0, 2, 3, 1]), 0, [batch * kvHeads * beam, queries]), 1);
}

/** What the kernels that walk runs are specialised by, their parameters and workgroups; rows are queries, or keys for dk, dv. */
function byLeaf([q, k, , selected]: Inputs, { block, scale }: Attributes, kernel: 'out' | 'dq' | 'dkv') {
  const [batch, queries, heads, dim] = q.shape as [number, number, number, number];
  const [, keys, kvHeads] = k.shape as [number, number, number];
  const { variant, tile, part, defines } = cut(q.device, dim, null, kernel);
  const [row, column] = kernel === 'dkv' ? [k, q] : [q, k];
  const leaves = Math.floor(keys / block);
  const tiles = kernel === 'dkv' ? Math.ceil(block / tile) : 1;
  return {
    variant,
    defines: {
      SUBGROUPS: variant === 'subgroup',
      Q8: k.dtype === 'q8',
      F16: q.dtype === 'f16' || k.dtype === 'f16',
      TREE: true,
      VEC4: true,
      MASK: false,
      ROW: `vec4<${row.dtype}>`,
      COLUMN: column.dtype === 'q8' ? 'u32' : `vec4<${column.dtype}>`,
      ...defines,
    },
    params: {
      batch, heads, kvHeads, queries, keys, dim, positionsFirst: 1, tiles, block, leaves, beam: selected.shape[3]!, slot: 0,
      columns: part, scale, ...scales(k),
    }, // prettier-ignore
    groups: tiles * leaves * kvHeads * batch,
  };
}

/**
 * Whether leaves are gone through one by one, with all their queries: on software adapters, unless most leaves have no query
 * (2048 queries of one head, of the processor's time there: 0.09 s for 256 leaves, 0.24 for 1024, against 0.51 query by query).
 */
const leafByLeaf = ([q, k]: Inputs, { block }: Attributes) =>
  cut(q.device, q.shape[3]!, null, 'out').variant === 'subgroup' &&
  (q.shape[1]! * q.shape[2]!) / k.shape[2]! >= k.shape[1]! / block;

/** Runs one of the two kernels that go leaf by leaf, for each place in the queries' lists. */
function runLeaves(kernel: 'out' | 'dq', tensors: readonly Tensor[], inputs: Inputs, attributes: Attributes): void {
  const { device } = inputs[0];
  const { defines, params, groups } = byLeaf(inputs, attributes, kernel);
  const compiled = device.kernel(leafSources[kernel], defines);
  for (let slot = 0; slot < params.beam; slot++) device.run(compiled, tensors, { ...params, slot }, groups);
}

/** Result and log-sum-exp over window and leaves. */
function attend(inputs: Inputs, attributes: Attributes): [out: Tensor, lse: Tensor] {
  const [q, k, v, selected, queryLengths, keyLengths] = inputs;
  const { device } = q;
  if (!few(inputs) && leafByLeaf(inputs, attributes)) {
    const [seen, lse] = forwardPass(...windowPart(inputs, attributes));
    const out = cast(seen, 'f32');
    runLeaves('out', [q, k, v, runsOf(selected), out, lse], inputs, attributes);
    return [cast(out, q.dtype), lse];
  }
  const { defines, params, groups } = byQuery(inputs, attributes);
  const out = empty(device, q.shape, q.dtype);
  const lse = empty(device, [q.shape[0]!, q.shape[2]!, q.shape[1]!]);
  const data = [q, k, v, selected, out, lse];
  if (few(inputs)) {
    const binding = (given: Tensor | null) => given !== null && data.push(given) - 1;
    const lengths = { QUERY_LENGTHS: binding(queryLengths), KEY_LENGTHS: binding(keyLengths) };
    device.run(device.kernel(forwardSource, { ...defines, WINDOW: true, ...lengths }), data, params, groups);
  } else {
    const seen = forwardPass(...windowPart(inputs, attributes));
    device.run(device.kernel(forwardSource, { ...defines, WINDOW: false }), [...data, ...seen], params, groups);
  }
  return [out, lse];
}

const treeAttentionOp = operation<Inputs, Attributes, readonly [Tensor, Tensor]>({
  name: 'treeAttention',
  dtypes: 'any',
  shape(inputs, attributes) {
    const [q, k, , selected] = inputs;
    const fail = (message: string): never => {
      throw new Error(`[treeAttention] ${message}`);
    };
    checkAttention('treeAttention', ...windowPart(inputs, attributes));
    if (q.shape[3]! % 4 !== 0) fail(`the head width of q ${formatShape(q.shape)} must be a multiple of 4`);
    const [batch, queries] = q.shape as [number, number];
    const [b, t, h, n] = selected.shape;
    if (
      selected.dtype !== 'u32' ||
      selected.shape.length !== 4 ||
      b !== batch ||
      t !== queries ||
      h !== k.shape[2] ||
      !(n! > 0)
    )
      fail(
        `selected is ${selected.dtype} ${formatShape(selected.shape)}; it must be u32 (${batch}, ${queries}, ${k.shape[2]}, n)`,
      );
    return q.shape;
  },
  forward(ctx, inputs, attributes) {
    const results = attend(inputs, attributes);
    ctx.save(...results, ...inputs.filter((input) => input !== null));
    return results;
  },
  backward(ctx, [dout, dlse], attributes) {
    if (dlse || !dout) throw new Error('[treeAttention] the log-sum-exp has no gradient; use the result alone');
    const [out, lse, q, k, v, selected, ...lengths] = ctx.saved as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];
    const [queryLengths, keyLengths] = attributes.given.map((given) => (given ? (lengths as Tensor[]).shift()! : null));
    const inputs: Inputs = [q, k, v, selected, queryLengths!, keyLengths!];
    const [windowInputs, window] = windowPart(inputs, attributes);
    const runs = runsOf(selected);
    let dq = ctx.gradient(0);
    const delta = queryPass(windowInputs, window, { out, dout, lse }, dq);
    if (leafByLeaf(inputs, attributes)) {
      const sum = dq.dtype === 'f32' ? dq : cast(dq, 'f32');
      runLeaves('dq', [q, k, v, runs, dout, lse, delta, sum], inputs, attributes);
      if (sum !== dq) dq = cast(sum, 'f16');
    } else {
      const { defines, params, groups } = byQuery(inputs, attributes);
      const kernel = ctx.device.kernel(queryGradientSource, defines);
      ctx.device.run(kernel, [q, k, v, selected, dout, lse, delta, dq], params, groups);
    }
    if (!ctx.needs[1] && !ctx.needs[2]) return [dq, null, null, null, null, null];
    const [dk, dv] = [ctx.gradient(1), ctx.gradient(2)];
    keyPass(windowInputs, window, { dout, lse, delta }, [dk, dv]);
    const { variant, defines, params, groups } = byLeaf(inputs, attributes, 'dkv');
    const kernel = ctx.device.kernel(keyGradientSources[variant], defines);
    ctx.device.run(kernel, [q, k, v, runs, dout, lse, delta, dk, dv], params, groups);
    return [dq, dk, dv, null, null, null];
  },
});

/**
 * Attention of q (B, Tq, H, D) to keys and values (B, Tk, KV, D): softmax over the query's window and the leaves that it
 * selected, which lie before it, so that no key counts twice. The window of query i, whose sequence ends with the keys',
 * is block · ⌊max(0, i − window + 1) / block⌋ … i. The result is as q. The window's part is `attention`'s; the leaves' is
 * merged with it by the log-sum-exps (Dao et al. 2023, Flash-Decoding), and so are the gradients, in which the selection is fixed.
 * D is a multiple of 4, at most 256. k and v may be in q8, as in `attention`. Throws where extents don't fit.
 */
export function treeAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { selected, window, block = 64, queryLengths, keyLengths, lists, ...options }: TreeAttentionOptions,
): Tensor {
  const scale = options.scale ?? 1 / Math.sqrt(q.shape.at(-1) ?? 1);
  const inputs: Inputs = [q, k, v, selected, queryLengths ?? null, keyLengths ?? null];
  const given = [queryLengths !== undefined, keyLengths !== undefined] as const;
  return apply(treeAttentionOp, inputs, { window, block, scale, lists: lists ?? null, given })[0];
}
