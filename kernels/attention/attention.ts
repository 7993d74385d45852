import { apply, empty, formatShape, operation, sameShape, wgsl } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { blockLists } from './lists.ts';
import type { AttentionLists, BlockPattern, Lists } from './lists.ts';
import { scalesAt } from '../cache/cache.ts';
import { variant } from '../variants.ts';

export { AttentionLists } from './lists.ts';
export type { BlockPattern } from './lists.ts';

const sources = {
  out: {
    staged: wgsl(import.meta.url, './attention.wgsl'),
    subgroup: wgsl(import.meta.url, './attention_subgroup.wgsl'),
  },
  dq: {
    staged: wgsl(import.meta.url, './attention_query_gradient.wgsl'),
    subgroup: wgsl(import.meta.url, './attention_query_gradient_subgroup.wgsl'),
  },
  dkv: {
    staged: wgsl(import.meta.url, './attention_key_gradient.wgsl'),
    subgroup: wgsl(import.meta.url, './attention_key_gradient_subgroup.wgsl'),
  },
};
const maskGradientSource = wgsl(import.meta.url, './attention_mask_gradient.wgsl');
const splitSource = wgsl(import.meta.url, './attention_split.wgsl');
const combineSource = wgsl(import.meta.url, './attention_combine.wgsl');
// Included by the others.
wgsl(import.meta.url, './attention_tile.wgsl');
wgsl(import.meta.url, './attention_staged.wgsl');
wgsl(import.meta.url, './attention_shared.wgsl');

export interface AttentionOptions {
  /** Query i sees keys j ≤ i + Tk − Tq only: the sequences end together. */
  causal?: boolean;
  /** With `causal`: of those, the last `window` (the query's own position included). */
  window?: number;
  /**
   * With `window`: it begins at a multiple of so many keys, the one at or before its first key; 1 by default. So a query sees
   * between `window` and `window` + `windowBlock` − 1 keys, and what lies before are whole blocks.
   */
  windowBlock?: number;
  /** With `window`: and the first `sinks` (Xiao et al. 2023, StreamingLLM). */
  sinks?: number;
  /** What scores are multiplied by; 1 / √D by default. */
  scale?: number;
  /** Restricts which blocks of keys a block of queries sees. */
  blocks?: BlockPattern;
  /** (B, 1 | H, Tq, Tk), f32 or f16, added to the scores; −∞, or anything below −2e38, hides a pair. */
  mask?: Tensor;
  /**
   * How many queries of each sequence count, u32 (B); those after them give zeros and get no gradient. A sequence's length
   * takes the place of Tq in the rules above.
   */
  queryLengths?: Tensor;
  /**
   * How many keys of each sequence count, u32 (B), e.g. of a cache with room for Tk; likewise. What lies behind them is not
   * read. A rolling cache of a window needs no more than this: without `causal`, the order of keys does not matter.
   */
  keyLengths?: Tensor;
  /** Where lengths or selected blocks lie on the device: saves making their lists again for every layer. */
  lists?: AttentionLists;
  /** Whether heads come before positions, (B, H, T, D), or after, (B, T, H, D), as projections leave them. */
  layout?: 'bhtd' | 'bthd';
}

export interface Attributes {
  readonly causal: boolean;
  readonly window: number | null;
  readonly windowBlock: number;
  readonly sinks: number;
  readonly scale: number;
  readonly blocks: BlockPattern | null;
  readonly lists: AttentionLists | null;
  readonly layout: 'bhtd' | 'bthd';
  /** Which inputs there are. */
  readonly given: readonly boolean[];
}

export type Inputs = readonly [
  q: Tensor,
  k: Tensor,
  v: Tensor,
  mask: Tensor | null,
  queryLengths: Tensor | null,
  keyLengths: Tensor | null,
  visible: Tensor | null, // of `blocks`, where it lies on the device
];

export interface Extents {
  batch: number;
  heads: number;
  kvHeads: number;
  queries: number;
  keys: number;
  dim: number;
}

const isFloat = ({ dtype }: Tensor) => dtype === 'f32' || dtype === 'f16';

/** Of valid inputs. */
export function extents([q, k]: Inputs, { layout }: Attributes): Extents {
  const [head, position] = layout === 'bhtd' ? [1, 2] : [2, 1];
  return {
    batch: q.shape[0]!,
    heads: q.shape[head]!,
    kvHeads: k.shape[head]!,
    queries: q.shape[position]!,
    keys: k.shape[position]!,
    dim: q.shape[3]!,
  };
}

/** Throws, in the name of an operation, unless the inputs fit each other and the options. */
export function check(operation: string, inputs: Inputs, attributes: Attributes): void {
  const [q, k, v, mask, queryLengths, keyLengths] = inputs;
  const { causal, window, windowBlock, sinks, blocks, layout } = attributes;
  const fail = (message: string): never => {
    throw new Error(`[${operation}] ${message}`);
  };
  const form = layout === 'bhtd' ? '(B, H, T, D)' : '(B, T, H, D)';
  for (const [name, { shape }] of Object.entries({ q, k, v }))
    if (shape.length !== 4) fail(`${name} is ${formatShape(shape)}; with layout '${layout}' it must be ${form}`);
  const stored = k.dtype === 'q8';
  if (!isFloat(q) || !(isFloat(k) || stored) || k.dtype !== v.dtype || (q.dtype === 'f16' && k.dtype === 'f32'))
    fail(`q is ${q.dtype}, k is ${k.dtype}, v is ${v.dtype}; they must be f32 or f16, all alike, or k and v f16 or q8`);
  if (stored && (q.tracked || q.shape.at(-1)! % 4 !== 0))
    fail('k and v in q8 are stored: there is no gradient, and their head width is a multiple of 4');
  if (!sameShape(k.shape, v.shape))
    fail(`k is ${formatShape(k.shape)} and v is ${formatShape(v.shape)}; they must be alike`);
  const { batch, heads, kvHeads, queries, keys, dim } = extents(inputs, attributes);
  const both = () => `q is ${formatShape(q.shape)}, k is ${formatShape(k.shape)} in layout ${form}`;
  if (k.shape[0] !== batch || k.shape[3] !== dim) fail(`batch and head width differ: ${both()}`);
  if (kvHeads === 0 ? heads > 0 : heads % kvHeads !== 0)
    fail(`the ${heads} query heads must be a multiple of the ${kvHeads} key heads: ${both()}`);
  if (dim < 1 || dim > 256) fail(`the head width ${dim} must be 1 to 256: ${both()}`);
  if (window !== null && !causal) fail('a window counts back from the query, so it needs causal: true');
  if (window !== null && !(Number.isInteger(window) && window >= 1))
    fail(`the window ${window} must be a whole number of keys, at least 1`);
  if (!(Number.isInteger(windowBlock) && windowBlock >= 1))
    fail(`windowBlock is ${windowBlock}; it must be a whole number of keys, at least 1`);
  if (windowBlock > 1 && window === null) fail('windowBlock says where a window begins, so it needs one');
  if (sinks > 0 && window === null) fail('sinks are keys beyond a window, so they need one');
  if (!(Number.isInteger(sinks) && sinks >= 0)) fail(`sinks is ${sinks}; it must be a whole number of keys`);
  if (mask) {
    const [b, h, i, j] = mask.shape;
    if (mask.shape.length !== 4 || b !== batch || (h !== 1 && h !== heads) || i !== queries || j !== keys)
      fail(`the mask is ${formatShape(mask.shape)}; it must be (${batch}, 1 or ${heads}, ${queries}, ${keys})`);
    if (!isFloat(mask)) fail(`the mask is ${mask.dtype}; it must be f32 or f16`);
  }
  for (const [name, lengths] of Object.entries({ queryLengths, keyLengths }))
    if (lengths && !(lengths.dtype === 'u32' && lengths.shape.length === 1 && lengths.shape[0] === batch))
      fail(`${name} is ${lengths.dtype} ${formatShape(lengths.shape)}; it must be u32 (${batch})`);
  if (blocks) checkBlocks(blocks, { batch, heads, kvHeads, queries, keys, dim }, fail);
}

function checkBlocks(
  { size, visible }: BlockPattern,
  { batch, kvHeads, queries, keys }: Extents,
  fail: (message: string) => never,
): void {
  const [rows, columns] = [Math.ceil(queries / size), Math.ceil(keys / size)];
  if (size < 32 || size % 32 !== 0) fail(`blocks.size is ${size}; it must be a multiple of 32`);
  if ('shape' in visible) {
    const [b, h, i] = visible.shape;
    const fits = visible.shape.length === 4 && (b === 1 || b === batch) && (h === 1 || h === kvHeads) && i === rows;
    if (visible.dtype !== 'u32' || !fits)
      fail(
        `blocks.visible is ${visible.dtype} ${formatShape(visible.shape)}; it must be u32 (1 or ${batch}, 1 or ${kvHeads}, ${rows}, n)`,
      );
    return;
  }
  if (visible.length !== rows)
    fail(`blocks.visible lists ${visible.length} query blocks; ${queries} queries make ${rows}`);
  for (const j of visible.flat())
    if (!(Number.isInteger(j) && j >= 0 && j < columns))
      fail(`blocks.visible names key block ${j}; ${keys} keys make 0 to ${columns - 1}`);
}

type Kernels = keyof typeof sources;

export interface Cut {
  variant: 'subgroup' | 'staged';
  lanes: number;
  /** Rows of a workgroup. */
  tile: number;
  /** Columns at a time. */
  block: number;
  defines: Record<string, string | boolean>;
  /** Quads of a row that an invocation holds. */
  part: number;
}

/** Columns that each lane of a subgroup loads: two compile in two thirds of the time that four take, and run as fast to a tenth. */
const OWN = 2;

/**
 * How the kernels are cut. Software adapters hand columns around by shuffle (attention_tile.wgsl), everything else by
 * workgroup memory.
 */
export function cut(device: Device, dim: number, blocks: BlockPattern | null, kernel: Kernels): Cut {
  const { software, subgroupSize: lanes } = device.profile;
  const quads = Math.ceil(dim / 4);
  if (variant(device, 'attention') === 'subgroup' && (!blocks || blocks.size % (4 * lanes) === 0)) {
    // Room for a row's sums; it is cleared for each tile, so there are three sizes of it.
    const width = quads <= 16 ? 16 : quads <= 32 ? 32 : 64;
    const defines = { LANES: `${lanes}u`, OWN: `${OWN}u`, WIDTH: `${width}u`, KEYS: kernel === 'dkv' };
    return { variant: 'subgroup', lanes, tile: 4 * lanes, block: OWN * lanes, part: width, defines };
  }
  const parts = Math.ceil(quads / 8);
  const part = Math.ceil(quads / parts);
  // Workgroup memory holds one block at a time in the forward pass, two in the backward pass, and the parts' shares.
  const block = (dim <= 128 && !software ? 16 : 8) / (kernel === 'out' ? 1 : 2);
  const defines = {
    LANES: '32u', PARTS: `${parts}u`, PART: `${part}u`, BLOCK: `${block}u`, SPLIT: parts > 1,
    COLUMNS: software ? 'params.columns' : 'PART',
  }; // prettier-ignore
  return { variant: 'staged', lanes: 32, tile: 32, block, part, defines };
}

/** Whom each tile sees. */
function listsOf(device: Device, inputs: Inputs, attributes: Attributes, kernel: Kernels): Lists {
  const { queries, keys, dim } = extents(inputs, attributes);
  const { causal, window, windowBlock, sinks, blocks, lists } = attributes;
  const { tile, block } = cut(device, dim, blocks, kernel);
  const [, , , , queryLengths, keyLengths] = inputs;
  const rules = { causal, window: window ?? 0, windowBlock, sinks };
  const pattern = { queries, keys, ...rules, blocks, queryLengths, keyLengths };
  return blockLists(device, pattern, { tile, block, transposed: kernel === 'dkv' }, lists);
}

/** What specialises every kernel: the types of its rows and columns. */
function typeDefines([q, k, , mask]: Inputs, kernel: Kernels) {
  const vec4 = q.shape[3]! % 4 === 0;
  const element = ({ dtype }: Tensor) => (dtype === 'q8' ? 'u32' : vec4 ? `vec4<${dtype}>` : dtype);
  const [rows, columns] = kernel === 'dkv' ? [k, q] : [q, k];
  return {
    F16: [q, k, ...(mask ? [mask] : [])].some(({ dtype }) => dtype === 'f16'),
    VEC4: vec4,
    Q8: k.dtype === 'q8',
    ROW: element(rows),
    COLUMN: element(columns),
    MASK: mask !== null && mask.dtype,
  };
}

/** Parameters of attention_shared.wgsl; written out, because spreading objects took longer than all else of a dispatch. */
function parameters(inputs: Inputs, attributes: Attributes, tiles: number, lists: Lists, columns: number) {
  const { batch, heads, kvHeads, queries, keys, dim } = extents(inputs, attributes);
  const { listTiles, listWords, listHeads, listBatches } = lists.params;
  const positionsFirst = Number(attributes.layout === 'bthd');
  const maskHeads = inputs[3]?.shape[1] ?? 1;
  const { scale } = attributes;
  const params: Record<string, number> = {
    batch, heads, kvHeads, queries, keys, dim, positionsFirst, maskHeads, tiles, listTiles, listWords, listHeads,
    listBatches, columns, scale,
  }; // prettier-ignore
  if (inputs[1].dtype === 'q8') params['scales'] = scalesAt(inputs[1]);
  return params;
}

/** Runs one of the three kernels over `tensors`, in binding order up to the mask. */
function run(kernel: Kernels, tensors: readonly Tensor[], lists: Lists, inputs: Inputs, attributes: Attributes): void {
  const { device } = inputs[0];
  const mask = inputs[3] ? [inputs[3]] : [];
  const { batch, heads, kvHeads, queries, keys, dim } = extents(inputs, attributes);
  const { variant, tile, part, defines } = cut(device, dim, attributes.blocks, kernel);
  const tiles = Math.ceil((kernel === 'dkv' ? keys : queries) / tile);
  device.run(
    device.kernel(sources[kernel][variant], {
      SUBGROUPS: variant === 'subgroup',
      ...typeDefines(inputs, kernel),
      ...defines,
    }),
    [...tensors, ...mask],
    parameters(inputs, attributes, tiles, lists, part),
    tiles * batch * (kernel === 'dkv' ? kvHeads : heads),
  );
}

/** Keys that a workgroup takes when the keys are split. */
const SPAN = 512;

/**
 * Whether the keys are split, by the shape of one sample: where most rows of a tile would be empty, and from so many keys
 * on that two kernels are faster than one (a software adapter, 8 heads over 2: 0.46 ms against 2.1 at 1,024 keys, 12
 * against 61 at 32,768; alike at 128).
 */
const splits = ({ heads, kvHeads, queries, keys }: Extents) =>
  queries > 0 && (heads / kvHeads) * queries <= 16 && keys >= 256;

/** The forward pass by spans of keys: the same results as `run('out', …)` within rounding. */
function runSplit(out: Tensor, lse: Tensor, lists: Lists, inputs: Inputs, attributes: Attributes): void {
  const [q, k, v] = inputs;
  const { device } = q;
  const mask = inputs[3] ? [inputs[3]] : [];
  const { batch, heads, kvHeads, queries, keys, dim } = extents(inputs, attributes);
  const { block } = cut(device, dim, attributes.blocks, 'out');
  const spans = Math.ceil(keys / SPAN);
  const width = Math.ceil(dim / 4);
  const sums = empty(device, [batch, heads, queries, spans, width * 4]);
  const statistics = empty(device, [batch, heads, queries, spans, 2]);
  const share = (heads / kvHeads) * queries;
  const rows = share === 1 ? 1 : 4; // of a workgroup
  const tiles = Math.ceil(share / rows);
  const oneList = { ...lists, params: { ...lists.params, listTiles: tiles } };
  const params = parameters(inputs, attributes, tiles, oneList, width);
  const types = typeDefines(inputs, 'out');
  const spanDefines = { ...types, SPAN: `${SPAN}u`, ROWS: `${rows}u`, BLOCK: `${block}u` };
  device.run(
    device.kernel(splitSource, spanDefines),
    [q, k, v, lists.tensor, sums, statistics, ...mask],
    params,
    spans * tiles * kvHeads * batch,
  );
  device.run(
    device.kernel(combineSource, { ...types, MASK: false, SPAN: `${SPAN}u` }),
    [sums, statistics, lists.tensor, out, lse],
    params,
    Math.ceil((batch * heads * queries * width) / 64),
  );
}

/** The mask's gradient, with the lists of dq. */
function runMask(tensors: readonly Tensor[], lists: Lists, inputs: Inputs, attributes: Attributes): void {
  const mask = inputs[3]!;
  const { device } = mask;
  const { queries, dim } = extents(inputs, attributes);
  const { tile, block } = cut(device, dim, attributes.blocks, 'dq');
  device.run(
    device.kernel(maskGradientSource, { ...typeDefines(inputs, 'dq'), TILE: `${tile}u`, BLOCK: `${block}u` }),
    [...tensors, mask],
    parameters(inputs, attributes, Math.ceil(queries / tile), lists, 0),
    Math.ceil(mask.size / 64),
  );
}

/** Result and log-sum-exp of valid inputs; this and the two below are what operations over more keys are made of. */
export function forwardPass(inputs: Inputs, attributes: Attributes): readonly [out: Tensor, lse: Tensor] {
  const [q, k, v] = inputs;
  const { device } = q;
  const { batch, heads, queries } = extents(inputs, attributes);
  const out = empty(device, q.shape, q.dtype);
  const lse = empty(device, [batch, heads, queries]);
  const lists = listsOf(device, inputs, attributes, 'out');
  if (splits(extents(inputs, attributes))) runSplit(out, lse, lists, inputs, attributes);
  else run('out', [q, k, v, lists.tensor, out, lse], lists, inputs, attributes);
  return [out, lse];
}

/** What the gradients need of the forward pass and of what follows: those of a softmax, perhaps over more keys than these. */
export interface Upstream {
  readonly out: Tensor;
  readonly dout: Tensor;
  readonly lse: Tensor;
}

/** Writes dq, and that of a mask; returns delta = Σ dout · out of each row, (B, H, Tq). */
export function queryPass(
  inputs: Inputs,
  attributes: Attributes,
  { out, dout, lse }: Upstream,
  dq: Tensor,
  dmask: Tensor | null = null,
): Tensor {
  const [q, k, v] = inputs;
  const { device } = q;
  const delta = empty(device, lse.shape);
  const lists = listsOf(device, inputs, attributes, 'dq');
  run('dq', [q, k, v, lists.tensor, out, dout, lse, dq, delta], lists, inputs, attributes);
  if (dmask) runMask([q, k, v, lists.tensor, dout, lse, delta, dmask], lists, inputs, attributes);
  return delta;
}

/** Writes dk and dv. */
export function keyPass(
  inputs: Inputs,
  attributes: Attributes,
  { dout, lse, delta }: Omit<Upstream, 'out'> & { readonly delta: Tensor },
  [dk, dv]: readonly [Tensor, Tensor],
): void {
  const [q, k, v] = inputs;
  const lists = listsOf(q.device, inputs, attributes, 'dkv');
  run('dkv', [q, k, v, lists.tensor, dout, lse, delta, dk, dv], lists, inputs, attributes);
}

const attentionOp = operation<Inputs, Attributes, readonly [Tensor, Tensor]>({
  name: 'attention',
  dtypes: 'any',
  shape(inputs, attributes) {
    check('attention', inputs, attributes);
    return inputs[0].shape;
  },
  forward(ctx, inputs, attributes) {
    const results = forwardPass(inputs, attributes);
    ctx.save(...results, ...inputs.filter((input) => input !== null));
    return results;
  },
  backward(ctx, [dout, dlse], attributes) {
    const [out, lse, ...saved] = ctx.saved as [Tensor, Tensor, ...Tensor[]];
    if (dlse || !dout) throw new Error('[attention] the log-sum-exp has no gradient; use the result alone');
    const inputs = attributes.given.map((given) => (given ? saved.shift()! : null)) as unknown as Inputs;
    // The first pass also makes delta, which the second reads.
    const [dq, dmask] = [ctx.gradient(0), ctx.needs[3] ? ctx.gradient(3) : null];
    const delta = queryPass(inputs, attributes, { out, dout, lse }, dq, dmask);
    if (!ctx.needs[1] && !ctx.needs[2]) return [dq, null, null, dmask];
    const [dk, dv] = [ctx.gradient(1), ctx.gradient(2)];
    keyPass(inputs, attributes, { dout, lse, delta }, [dk, dv]);
    return [dq, dk, dv, dmask];
  },
});

/**
 * Scaled dot-product attention, softmax(scale · q kᵀ + mask) v, without a (Tq, Tk) matrix in memory (Dao 2023,
 * FlashAttention-2). q is (B, H, Tq, D), k and v are (B, KV, Tk, D), and so is their gradient; the result is as q.
 * Query head h reads key head ⌊h / (H / KV)⌋. D is at most 256. A query that sees no key gives zeros. f32 or f16, computed
 * in f32; k and v may be f16 beside a q in f32, or, where nothing wants a gradient, q8 beside both.
 * Throws where extents don't fit, or an option does not.
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  return attentionWithLogSumExp(q, k, v, options).out;
}

/** The same, with the log-sum-exp of each query's scores, f32 (B, H, Tq): −1e30 where it sees no key. */
export function attentionWithLogSumExp(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions = {},
): { out: Tensor; logSumExp: Tensor } {
  const { causal = false, window = null, windowBlock = 1, sinks = 0 } = options;
  const { blocks = null, mask = null, layout = 'bhtd', queryLengths = null, keyLengths = null, lists = null } = options;
  const scale = options.scale ?? 1 / Math.sqrt(q.shape.at(-1) ?? 1);
  const visible = blocks && 'shape' in blocks.visible ? blocks.visible : null;
  const inputs: Inputs = [q, k, v, mask, queryLengths, keyLengths, visible];
  const given = inputs.map((input) => input !== null);
  const rules = { causal, window, windowBlock, sinks };
  const [out, logSumExp] = apply(attentionOp, inputs, { ...rules, scale, blocks, lists, layout, given });
  return { out, logSumExp };
}
