import { apply, empty, formatShape, operation, sameShape, wgsl } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { deviceRuns, pattern } from './blocks.ts';
import type { BlockPattern } from './blocks.ts';

export type { BlockPattern } from './blocks.ts';

const forwardSource = wgsl(import.meta.url, './attention.wgsl');
const queryGradientSource = wgsl(import.meta.url, './attention_query_gradient.wgsl');
const keyGradientSource = wgsl(import.meta.url, './attention_key_gradient.wgsl');

export interface AttentionOptions {
  /** Query i sees keys j ≤ i + Tk − Tq only. */
  causal?: boolean;
  /** With `causal`: of those, the last `window` (the query's own position included). */
  window?: number;
  /** What scores are multiplied by; 1 / √D by default. */
  scale?: number;
  /** Restricts which blocks of keys a block of queries sees. */
  blocks?: BlockPattern;
  /** (B, 1 | H, Tq, Tk), added to the scores; −∞, or anything below −5e29, hides a pair. It gets no gradient. */
  mask?: Tensor;
  /** Whether heads come before positions, (B, H, T, D), or after, (B, T, H, D), as projections leave them. */
  layout?: 'bhtd' | 'bthd';
}

interface Attributes {
  readonly causal: boolean;
  readonly window: number | null;
  readonly scale: number;
  readonly blocks: BlockPattern | null;
  readonly layout: 'bhtd' | 'bthd';
}

type Inputs = readonly [q: Tensor, k: Tensor, v: Tensor, mask: Tensor | null];

interface Extents {
  batch: number;
  heads: number;
  kvHeads: number;
  queries: number;
  keys: number;
  dim: number;
}

/** Extents of valid inputs. Throws on any others. */
function extents([q, k, v, mask]: Inputs, { causal, window, blocks, layout }: Attributes): Extents {
  const fail = (message: string): never => {
    throw new Error(`[attention] ${message}`);
  };
  const form = layout === 'bhtd' ? '(B, H, T, D)' : '(B, T, H, D)';
  for (const [name, { shape }] of Object.entries({ q, k, v }))
    if (shape.length !== 4) fail(`${name} is ${formatShape(shape)}; with layout '${layout}' it must be ${form}`);
  if (!sameShape(k.shape, v.shape))
    fail(`k is ${formatShape(k.shape)} and v is ${formatShape(v.shape)}; they must be alike`);
  const [head, position] = layout === 'bhtd' ? [1, 2] : [2, 1];
  const [batch, dim] = [q.shape[0]!, q.shape[3]!];
  const [heads, queries] = [q.shape[head]!, q.shape[position]!];
  const [kvHeads, keys] = [k.shape[head]!, k.shape[position]!];
  const both = `q is ${formatShape(q.shape)}, k is ${formatShape(k.shape)} in layout ${form}`;
  if (k.shape[0] !== batch || k.shape[3] !== dim) fail(`batch and head width differ: ${both}`);
  if (kvHeads === 0 ? heads > 0 : heads % kvHeads !== 0)
    fail(`the ${heads} query heads must be a multiple of the ${kvHeads} key heads: ${both}`);
  if (dim < 1 || dim > 256) fail(`the head width ${dim} must be 1 to 256: ${both}`);
  if (window !== null && !causal) fail('a window counts back from the query, so it needs causal: true');
  if (window !== null && !(Number.isInteger(window) && window >= 1))
    fail(`the window ${window} must be a whole number of keys, at least 1`);
  if (mask) {
    const [b, h, i, j] = mask.shape;
    if (mask.shape.length !== 4 || b !== batch || (h !== 1 && h !== heads) || i !== queries || j !== keys)
      fail(`the mask is ${formatShape(mask.shape)}; it must be (${batch}, 1 or ${heads}, ${queries}, ${keys})`);
    if (mask.tracked) fail('the mask asks for a gradient, which it has none; wrap its making in noGrad');
  }
  if (blocks) {
    const [rows, columns] = [Math.ceil(queries / blocks.size), Math.ceil(keys / blocks.size)];
    if (blocks.size < 32 || blocks.size % 32 !== 0) fail(`blocks.size is ${blocks.size}; it must be a multiple of 32`);
    if (blocks.visible.length !== rows)
      fail(`blocks.visible lists ${blocks.visible.length} query blocks; ${queries} queries make ${rows}`);
    for (const j of blocks.visible.flat())
      if (!(Number.isInteger(j) && j >= 0 && j < columns))
        fail(`blocks.visible names key block ${j}; ${keys} keys make 0 to ${columns - 1}`);
  }
  return { batch, heads, kvHeads, queries, keys, dim };
}

/**
 * How the kernels are cut: `lanes` a workgroup, `block` rows of the other side at a time, and `queries` a lane in the
 * forward pass (one in the backward pass, where a lane holds more of each).
 * Software adapters hand blocks around by shuffle, everything else by workgroup memory, of which a block takes
 * 2 · block · D floats: 16 KiB at most, which every adapter has. A software adapter without subgroups keeps its loops
 * rolled: unrolled, the reads of workgroup memory took a minute to compile.
 */
function tiling({ profile }: Device, dim: number) {
  if (profile.software && profile.subgroupSize > 0)
    return { subgroups: true, lanes: profile.subgroupSize, block: profile.subgroupSize, queries: 2, rolled: false };
  const block = dim <= 128 && !profile.software ? 16 : 8;
  return { subgroups: false, lanes: 32, block, queries: 1, rolled: profile.software };
}

/** What the three kernels share: those of the result and of dq go over tiles of queries, that of dk and dv of keys. */
function plan(device: Device, inputs: Inputs, attributes: Attributes, kernel: 'out' | 'dq' | 'dk, dv') {
  const { batch, heads, kvHeads, queries, keys, dim } = extents(inputs, attributes);
  const { causal, window, scale, blocks, layout } = attributes;
  const { subgroups, lanes, block, rolled, ...cut } = tiling(device, dim);
  const rows = kernel === 'out' ? cut.queries : 1;
  const overKeys = kernel === 'dk, dv';
  const mask = inputs[3];
  const seen = pattern(queries, keys, causal, window, blocks);
  const tiles = Math.ceil((overKeys ? keys : queries) / (lanes * rows));
  const runs = deviceRuns(device, seen, lanes * rows, block, overKeys);
  const vec4 = dim % 4 === 0;
  const defines = {
    SUBGROUPS: subgroups,
    VEC4: vec4,
    ELEMENT: vec4 ? 'vec4f' : 'f32',
    MASK: mask !== null,
    DIM: `${dim}u`,
    WIDTH: `${Math.ceil(dim / 4)}u`,
    COLUMNS: rolled ? 'params.width' : 'WIDTH',
    LANES: `${lanes}u`,
    ROWS: `${rows}u`,
    BLOCK: `${block}u`,
  };
  // Elements from one position to the next, and from one head to the next.
  const steps = (h: number, t: number) => (layout === 'bhtd' ? [dim, t * dim] : [h * dim, dim]) as [number, number];
  const [[qRow, qHead], [kRow, kHead]] = [steps(heads, queries), steps(kvHeads, keys)];
  const { ahead, behind } = seen;
  const [maskHeads, width] = [mask?.shape[1] ?? 1, Math.ceil(dim / 4)];
  const params = {
    batch, heads, kvHeads, queries, keys, tiles, qRow, qHead, kRow, kHead, ahead, behind, maskHeads, width, scale,
  }; // prettier-ignore
  return { defines, params, runs, groups: tiles * batch * (overKeys ? kvHeads : heads) };
}

const attentionOp = operation<Inputs, Attributes, readonly [Tensor, Tensor]>({
  name: 'attention',
  shape(inputs, attributes) {
    extents(inputs, attributes);
    return inputs[0].shape;
  },
  forward(ctx, inputs, attributes, shape) {
    const [q, k, v, mask] = inputs;
    const { batch, heads, queries } = extents(inputs, attributes);
    const out = empty(ctx.device, shape);
    const lse = empty(ctx.device, [batch, heads, queries]);
    const { defines, params, runs, groups } = plan(ctx.device, inputs, attributes, 'out');
    const tensors = [q, k, v, runs, out, lse, ...(mask ? [mask] : [])];
    ctx.device.run(ctx.device.kernel(forwardSource, defines), tensors, params, groups);
    ctx.save(q, k, v, out, lse, ...(mask ? [mask] : []));
    return [out, lse];
  },
  backward(ctx, [dout, dlse], attributes) {
    const { device } = ctx;
    const [q, k, v, out, lse, mask] = ctx.saved as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor?];
    if (dlse || !dout) throw new Error('[attention] the log-sum-exp has no gradient; use the result alone');
    const inputs: Inputs = [q, k, v, mask ?? null];
    const masks = mask ? [mask] : [];
    // The first kernel also makes delta, which the second reads.
    const [dq, delta] = [ctx.gradient(0), empty(device, lse.shape)];
    const byQuery = plan(device, inputs, attributes, 'dq');
    device.run(
      device.kernel(queryGradientSource, byQuery.defines),
      [q, k, v, byQuery.runs, out, dout, lse, dq, delta, ...masks],
      byQuery.params,
      byQuery.groups,
    );
    if (!ctx.needs[1] && !ctx.needs[2]) return [dq, null, null, null];
    const [dk, dv] = [ctx.gradient(1), ctx.gradient(2)];
    const byKey = plan(device, inputs, attributes, 'dk, dv');
    device.run(
      device.kernel(keyGradientSource, byKey.defines),
      [q, k, v, byKey.runs, dout, lse, delta, dk, dv, ...masks],
      byKey.params,
      byKey.groups,
    );
    return [dq, dk, dv, null];
  },
});

/**
 * Scaled dot-product attention, softmax(scale · q kᵀ + mask) v, without a (Tq, Tk) matrix in memory (Dao 2023,
 * FlashAttention-2). q is (B, H, Tq, D), k and v are (B, KV, Tk, D), and so is their gradient; the result is as q.
 * Query head h reads key head ⌊h / (H / KV)⌋. D is at most 256. A query that sees no key gives zeros.
 * Throws where extents don't fit, or an option does not.
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  return attentionWithLogSumExp(q, k, v, options).out;
}

/** The same, with the log-sum-exp of each query's scores, (B, H, Tq): −1e30 where it sees no key. */
export function attentionWithLogSumExp(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions = {},
): { out: Tensor; logSumExp: Tensor } {
  const { causal = false, window = null, blocks = null, mask = null, layout = 'bhtd' } = options;
  const scale = options.scale ?? 1 / Math.sqrt(q.shape.at(-1) ?? 1);
  const [out, logSumExp] = apply(attentionOp, [q, k, v, mask], { causal, window, scale, blocks, layout });
  return { out, logSumExp };
}
