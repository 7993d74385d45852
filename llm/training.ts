/** Training a decoder on packed documents to predict each token's next, and what that is measured by. */
import { HostRandom, noGrad, randomKey, release, reshape, scope, tensor } from '../engine/index.ts';
import type { Tensor } from '../engine/index.ts';
import { add, affine, linearCrossEntropy, linearLogProbabilities } from '../kernels/index.ts';
import { DataOrder } from '../nn/order.ts';
import type { Losses, Pass } from '../nn/trainer.ts';
import type { Transformer } from './model.ts';
import { upload } from './packing.ts';
import type { Batch, Packing } from './packing.ts';
import { drawQueries, learnsSelection } from './selection_loss.ts';
import type { DrawnQueries } from './selection_loss.ts';

/** The mean of −log p(next token) over a batch's targets, in nats. */
export function nextTokenLoss(model: Transformer, batch: Batch): Tensor {
  return losses(model, batch, null).next;
}

/** With queries, also how far off their selection is; `dense` is that of `Transformer.forward`. */
function losses(
  model: Transformer,
  batch: Batch,
  queries: DrawnQueries | null,
  dense = false,
): { next: Tensor; selection: Tensor | null } {
  const { ids, targets, documents } = upload(model.device, batch);
  const { states, selection } = queries
    ? model.forwardWithSelection(ids, queries, { documents, dense })
    : { states: model.forward(ids, { documents, dense }), selection: null }; // (B, T, C)
  const next = linearCrossEntropy(reshape(states, [targets.size, model.config.width]), model.head, targets);
  return { next, selection };
}

export interface NextTokenOptions {
  readonly seed: number;
  /** Sequences of a pass, and passes of a step. */
  readonly batch: number;
  readonly accumulate: number;
  /** Weight of the loss that teaches layers with a tree to select (see selection_loss.ts); 0: none. */
  readonly selection: number;
  /** First steps in which such layers see all; 0: none. */
  readonly dense: number;
}

/** The forward pass of a run, for the trainer: which sequences it takes is a function of the seed and the pass. */
export class NextTokenTask {
  readonly #model: Transformer;
  readonly #packing: Packing;
  readonly #order: DataOrder;
  readonly #options: NextTokenOptions;

  constructor(model: Transformer, packing: Packing, options: NextTokenOptions) {
    this.#model = model;
    this.#packing = packing;
    this.#order = new DataOrder(packing.count, options.seed);
    this.#options = options;
  }

  /**
   * Each pass weighs as much as it has targets, so that a step's gradient is that of the mean over all of its targets. Where
   * selection is taught, its loss is a part of `loss`, and both parts have a name.
   */
  loss({ step, pass }: Pass): Losses {
    const { seed, batch, accumulate, selection: weight, dense } = this.#options;
    const sequences = this.#order.batch(pass, batch);
    const { device, config } = this.#model;
    const taught = weight > 0 && config.layers.some(learnsSelection);
    const lengths = sequences.map((sequence) => this.#packing.targets(sequence)); // trees have sequences to themselves
    const random = new HostRandom(randomKey(seed, 'selection'), pass);
    const queries = taught ? drawQueries(device, config, lengths, this.#packing.length, random) : null;
    const { next, selection } = losses(this.#model, this.#packing.batch(sequences), queries, step < dense);
    const targetsOf = (sequences: readonly number[]) =>
      sequences.reduce((sum, sequence) => sum + this.#packing.targets(sequence), 0);
    const all = targetsOf(this.#order.batch(step, batch * accumulate));
    const weighed = accumulate === 1 ? next : affine(next, (targetsOf(sequences) * accumulate) / all);
    if (!taught) return { loss: weighed };
    if (!selection) return { loss: weighed, next_token: weighed, selection: tensor(device, [0], []) };
    return { loss: add(weighed, affine(selection, weight)), next_token: weighed, selection };
  }
}

/** The mean of −log p(next token) in nats over the targets of these sequences, or of all, `batch` at once. */
export async function heldOutLoss(
  model: Transformer,
  packing: Packing,
  batch: number,
  sequences: readonly number[] = Array.from({ length: packing.count }, (_, i) => i),
): Promise<number> {
  const { device, config } = model;
  let [sum, targets] = [0, 0];
  for (let from = 0; from < sequences.length; from += batch) {
    const some = sequences.slice(from, from + batch);
    const rows = noGrad(device, () =>
      scope(device, () => {
        const { ids, targets, documents } = upload(device, packing.batch(some));
        const states = model.forward(ids, { documents });
        return linearLogProbabilities(reshape(states, [targets.size, config.width]), model.head, targets); // (B · T)
      }),
    );
    for (const row of await rows.read()) sum -= row;
    release(rows);
    for (const sequence of some) targets += packing.targets(sequence);
  }
  return sum / targets;
}

/**
 * What counting gives for the same targets, in nats a token: the mean of −log p for n-grams of 1 to `order` tokens of the
 * training documents, each interpolated with the shorter ones (Witten & Bell 1991). The first is the unigram entropy.
 */
export function countingLosses(
  training: readonly Int32Array[],
  heldOut: readonly Int32Array[],
  { order, vocabulary }: { order: number; vocabulary: number },
): number[] {
  // Of each history of n − 1 tokens: what followed how often.
  const counts = Array.from({ length: order }, () => new Map<string, Map<number, number>>());
  const history = (tokens: Int32Array, at: number, n: number) => tokens.subarray(at - n, at).join();
  for (const tokens of training)
    for (let at = 1; at < tokens.length; at++)
      for (let n = 0; n < Math.min(order, at + 1); n++) {
        const key = history(tokens, at, n);
        let followers = counts[n]!.get(key);
        if (!followers) counts[n]!.set(key, (followers = new Map()));
        followers.set(tokens[at]!, (followers.get(tokens[at]!) ?? 0) + 1);
      }
  const totals = counts.map(
    (some) => new Map([...some].map(([key, followers]) => [key, [...followers.values()].reduce((a, b) => a + b, 0)])),
  );
  const losses = new Array<number>(order).fill(0);
  let targets = 0;
  for (const tokens of heldOut)
    for (let at = 1; at < tokens.length; at++, targets++) {
      let probability = 1 / vocabulary;
      for (let n = 0; n < order; n++) {
        const key = n <= at ? history(tokens, at, n) : '';
        const followers = n <= at ? counts[n]!.get(key) : undefined;
        if (followers) {
          const [total, kinds] = [totals[n]!.get(key)!, followers.size];
          probability = ((followers.get(tokens[at]!) ?? 0) + kinds * probability) / (total + kinds);
        }
        losses[n]! -= Math.log(probability);
      }
    }
  return losses.map((loss) => loss / targets);
}
