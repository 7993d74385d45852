/** What a layer's queries see: the whole sequence, a window, or a window and a tree's leaves, with a cache or without. */
import type { Tensor } from '../engine/index.ts';
import { attention, cacheGather, cacheWrite } from '../kernels/index.ts';
import type { AttentionLists, KeysValues } from '../kernels/index.ts';
import type { Step } from './cache.ts';
import type { LayerConfig } from './config.ts';

/** A layer's place in the cache of the step that is under way. */
export interface Cached extends KeysValues {
  readonly step: Step;
  /** Of the pass: layers whose lengths are the same share lists. */
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
): Tensor {
  const { window, sinks, tree } = layer;
  if (tree) throw new Error('[attend] tree layers: not yet');
  const sight = window === null ? { causal: true } : { causal: true, window, sinks };
  const layout = 'bthd';
  if (!cached) return attention(q, k, v, { ...sight, scale, layout });
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
