/** What a layer's queries see: the whole sequence, a window, or a window and a tree's leaves, with a cache or without. */
import type { Tensor } from '../engine/index.ts';
import {
  appendSummaries,
  attention,
  cacheGather,
  cacheWrite,
  selectLeaves,
  treeAttention,
  treeSummaries,
} from '../kernels/index.ts';
import type { AttentionLists, BlockPattern, KeysValues, TreeSummaries } from '../kernels/index.ts';
import type { Step } from './cache.ts';
import type { LayerConfig, TreeConfig } from './config.ts';

/** A layer's place in the cache of the step that is under way. */
export interface Cached extends KeysValues {
  /** Of a tree's nodes, in layers that have one. */
  readonly summaries: TreeSummaries | null;
  readonly step: Step;
  /** Of the pass: layers whose lengths are the same share lists. */
  readonly lists: AttentionLists;
}

/** Documents that share sequences (see packing.ts). */
export interface Documents {
  /** Of each token in its document, i32 (B, T). */
  readonly positions: Tensor;
  /** Null where each sequence is of one document. */
  readonly blocks: BlockPattern | null;
  readonly lists: AttentionLists;
}

/** q (B, T, H, D), k and v (B, T, KV, D), which come behind what is cached → (B, T, H, D). */
export function attend(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  layer: LayerConfig,
  scale: number,
  cached: Cached | null,
  documents: Documents | null,
): Tensor {
  const { window, sinks, tree } = layer;
  if (tree) return attendTree(q, k, v, layer, tree, scale, cached, documents);
  const sight = window === null ? { causal: true } : { causal: true, window, sinks };
  const layout = 'bthd';
  if (!cached) {
    const { blocks, lists } = documents ?? { blocks: null };
    if (blocks && sinks > 0)
      throw new Error(
        '[attend] sinks are the first tokens of a sequence, so documents cannot share one; pack them alone',
      );
    return attention(q, k, v, { ...sight, scale, layout, ...(blocks && { blocks, lists }) });
  }
  const { step, keys, values, lists } = cached;
  const { starts, counts } = step;
  const slots = keys.shape[1]!;
  const keyLengths = step.inSight(slots);
  const fresh = { keys: k, values: v };
  const options = { starts, counts, sinks };
  const common = { scale, layout, keyLengths, queryLengths: counts, lists } as const;
  // All positions fit, or the one new query sees all slots: then their order doesn't matter.
  const whole = slots === step.cache.capacity;
  if (whole || q.shape[1] === 1) {
    cacheWrite(cached, fresh, options);
    return attention(q, keys, values, whole ? { ...common, ...sight } : common);
  }
  const seen = cacheGather(cached, fresh, options);
  const out = attention(q, seen.keys, seen.values, { ...common, ...sight });
  cacheWrite(cached, fresh, options);
  return out;
}

/** A window, and the leaves that each query selects of what lies before it (see kernels/tree). */
function attendTree(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { window, sinks }: LayerConfig,
  { block, beam, fanout, summary: kind }: TreeConfig,
  scale: number,
  cached: Cached | null,
  documents: Documents | null,
): Tensor {
  if (documents?.blocks) throw new Error('[attend] tree layers read one document a sequence: pack documents alone');
  const sight = { window: window!, beam, sinks };
  if (!cached) {
    const { selected } = selectLeaves(q, treeSummaries(k, { block, fanout, kind }), sight);
    return treeAttention(q, k, v, { selected, window: window!, block, scale });
  }
  const { step, keys, values, summaries, lists } = cached;
  const { starts, counts } = step;
  const keyLengths = step.inSight(step.cache.capacity);
  cacheWrite(cached, { keys: k, values: v }, { starts, counts });
  appendSummaries(keys, summaries!, { starts, keyLengths, added: q.shape[1]! });
  const { selected } = selectLeaves(q, summaries!, { ...sight, starts });
  return treeAttention(q, keys, values, {
    selected,
    window: window!,
    block,
    scale,
    queryLengths: counts,
    keyLengths,
    lists,
  });
}
