/**
 * What teaches a tree layer's queries and keys to be selected by. Which leaves a query attends to is a choice, and has no
 * gradient: what is left out gets none from the task, and what is chosen none for having been chosen. So beside the task's loss
 * stands, on each level of the tree, how far the softmax over the nodes' scores is from attention's own mass on them
 * (Kullback–Leibler divergence; the mass is what full attention would give, and is held fixed). Summaries are means of keys, so
 * that this has a gradient in queries and keys. After the training of the indexer in DeepSeek-V3.2 (DeepSeek-AI 2025) and of the
 * gates in SeerAttention (Gao et al. 2024), with no weights but attention's own: what a query selects by is what it attends by.
 *
 * Full attention's mass takes all keys, so it is measured for some of a text's queries, which are drawn: for R of them the cost
 * is O(R n) in time and memory, and the gradient's expectation is that over all.
 */
import { noGrad, reshape, tensor } from '../engine/index.ts';
import type { Device, HostRandom, Tensor } from '../engine/index.ts';
import { add, affine, cast, div, einsum, indexSelect, lessEqual, log, logSoftmax, max, maximum, mean, mul, slice, softmax, sub, sum, where } from '../kernels/index.ts'; // prettier-ignore
import type { LayerConfig, TransformerConfig } from './config.ts';

/** Queries of a text whose selection is looked at, in a pass. */
const QUERIES = 256;
const HIDDEN = -1e30;
const TINY = 1e-30;

/** Queries of B texts: R of each. */
export interface DrawnQueries {
  /** Their rows of (B · T), i32 (B · R). */
  readonly rows: Tensor;
  /** Their places in the texts, on the host: (B, R), −1 where a text has fewer. */
  readonly positions: Int32Array;
}

/** The first position of a text that has two leaves before a layer's window, so that there is something to choose. */
const firstChoice = ({ window, tree }: LayerConfig): number => window! + 2 * tree!.block - 1;

/** Whether a layer has what can be taught: boxes bound their keys whatever these are. */
export const learnsSelection = ({ tree }: LayerConfig): boolean => tree?.summary === 'pooled';

/** Draws queries of texts of these lengths, each padded to `length`; null where no layer has anything to choose. */
export function drawQueries(
  device: Device,
  { layers }: TransformerConfig,
  lengths: readonly number[],
  length: number,
  random: HostRandom,
): DrawnQueries | null {
  const first = Math.min(...layers.filter(learnsSelection).map(firstChoice));
  const drawn = lengths.map((own) => random.permutation(Math.max(0, own - first)).slice(0, QUERIES).map((i) => first + i)); // prettier-ignore
  const count = Math.max(...drawn.map(({ length }) => length));
  if (!(first < Infinity && count > 0)) return null;
  const positions = Int32Array.from(drawn.flatMap((own) => Array.from({ length: count }, (_, i) => own[i] ?? -1)));
  const rows = positions.map((position, i) => length * Math.floor(i / count) + Math.max(0, position));
  return { rows: tensor(device, rows, [rows.length]), positions };
}

/**
 * The divergence of a layer's selection from its attention, in nats: the mean over the queries drawn and the key heads of
 *
 *     Σ over levels, Σ over usable nodes n of mass(n) · (log (mass(n) / mass) − log softmax(score)(n))
 *
 * with the mass of all keys, averaged over the heads that select together, as 1, and `mass` that of all usable nodes: what a query
 * has no use for beyond its window counts little. A node of m keys has the score √m · scale · max over heads of q · summary: the
 * order that selection goes by, and of the spread of one key's score where keys are independent, on each level.
 *
 * q (B, T, H, D) and k (B, T, KV, D), without a cache.
 */
export function selectionLoss(
  q: Tensor,
  k: Tensor,
  { window, sinks, tree }: LayerConfig,
  scale: number,
  { rows, positions }: DrawnQueries,
): Tensor {
  const { device } = q;
  const [b, t, h, d] = q.shape as [number, number, number, number];
  const kv = k.shape[2]!;
  const r = positions.length / b;
  const { block, fanout } = tree!;
  const keys = cast(k, 'f32');
  const queries = reshape(indexSelect(reshape(cast(q, 'f32'), [b * t, h * d]), rows, 0), [b, r, kv, h / kv, d]);
  const ends = (count: number, span: number) => Float32Array.from({ length: count }, (_, n) => (n + 1) * span);
  const perQuery = (of: (position: number) => number) => tensor(device, Float32Array.from(positions, of), [b, 1, r, 1]);
  const begins = perQuery((position) => block * Math.floor(Math.max(0, position - window! + 1) / block));
  const [hidden, zero, tiny] = [HIDDEN, 0, TINY].map((value) => tensor(device, [value], [1])) as [Tensor, Tensor, Tensor]; // prettier-ignore

  let mass = noGrad(device, () => {
    const scores = affine(einsum('brhgd,bthd->bhgrt', queries, keys), scale);
    const seen = lessEqual(tensor(device, ends(t, 1), [t]), reshape(perQuery((i) => i + 1), [b, 1, 1, r, 1])); // prettier-ignore
    return mean(softmax(where(seen, scores, hidden)), [2]); // (B, KV, R, T)
  });
  let summaries = keys;
  let loss = zero;
  let count = Math.floor(t / block); // nodes of a level
  for (let [step, span] = [block, block]; count > 0; [step, span] = [fanout, span * fanout]) {
    summaries = mean(reshape(slice(summaries, 1, 0, count * step), [b, count, step, kv, d]), [2]);
    // Leaves of sinks don't compete: they are always selected.
    const last = ends(count, span).map((end) => (span === block && end - span < sinks ? -HIDDEN : end));
    const usable = lessEqual(tensor(device, last, [count]), begins); // (B, 1, R, nodes)
    const constant = noGrad(device, () => {
      const sums = sum(reshape(slice(mass, 3, 0, count * step), [b, kv, r, count, step]), [4]);
      mass = where(usable, sums, zero);
      return mul(mass, log(maximum(div(mass, maximum(sum(mass, [3], { keepDims: true }), tiny)), tiny)));
    });
    const scores = affine(max(einsum('brhgd,bnhd->bhgrn', queries, summaries), [2]), scale * Math.sqrt(span));
    loss = add(loss, sum(sub(constant, mul(mass, logSoftmax(where(usable, scores, hidden))))));
    count = Math.floor(count / fanout);
  }
  const counted = positions.reduce((sum, position) => sum + Number(position >= 0), 0);
  return affine(reshape(loss, []), 1 / (counted * kv));
}
