/** Losses that compare two tensors element by element: one definition each, in WGSL, of the loss and its slopes. */
import { apply, empty, formatShape, operation, sameShape, sizeOf, typed, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { sum } from '../reduce/reduce.ts';
import { walkRows } from '../reduce/rows.ts';

const forwardSource = wgsl(import.meta.url, './pointwise.wgsl');
const backwardSource = wgsl(import.meta.url, './pointwise_backward.wgsl');

/** Bodies of WGSL functions of a and b, each a V: f32, or vec4f for four elements at a time (`Hit` are their bools). */
interface Definition {
  readonly name: string;
  readonly loss: string;
  /** Derivatives by a and b; null where b is a constant. */
  readonly slopes: readonly [string, string | null];
  /** Functions that they call. */
  readonly helpers?: string;
  /** What a sample's losses become: their mean by default, or their sum. */
  readonly of?: 'sum';
}

type Inputs = readonly [a: Tensor, b: Tensor, weights: Tensor | null];

function define({ name, loss, slopes, helpers = '', of }: Definition) {
  /** What each element's loss is multiplied by, besides a sample's weight. */
  const scaleOf = (a: Tensor, weights: Tensor | null): number => {
    const samples = a.shape[0] ?? 1;
    return (weights ? 1 : 1 / samples) * (of === 'sum' ? 1 : samples / a.size);
  };
  return operation<Inputs, { alpha: number }>({
    name,
    shape([a, b, weights]) {
      if (!sameShape(a.shape, b.shape))
        throw new Error(`[${name}] shapes differ: ${formatShape(a.shape)} and ${formatShape(b.shape)}`);
      if (a.size === 0) throw new Error(`[${name}] the mean over no elements is undefined: ${formatShape(a.shape)}`);
      if (slopes[1] === null && b.tracked)
        throw new Error(`[${name}] targets are constants; they cannot require a gradient`);
      if (weights && !sameShape(weights.shape, [a.shape[0] ?? 1]))
        throw new Error(
          `[${name}] weights must be one a sample, ${formatShape([a.shape[0] ?? 1])}, not ${formatShape(weights.shape)}`,
        );
      if (weights?.tracked) throw new Error(`[${name}] weights are constants; they cannot require a gradient`);
      return [];
    },
    forward(ctx, [a, b, weights], { alpha }) {
      const { device } = a;
      const samples = a.shape[0] ?? 1;
      const length = a.size / samples;
      const walk = walkRows(a, length);
      const pieces = Math.ceil(length / walk.piece);
      const rows = samples * pieces;
      const losses = empty(device, [rows]);
      device.run(
        walk.kernel(forwardSource, {
          WEIGHTS: weights !== null,
          NAME: name,
          LOSS: `${loss}\n`,
          HELPERS: `${helpers}\n`,
        }),
        weights ? [a, b, losses, weights] : [a, b, losses],
        {
          rows,
          length: length / walk.width,
          pieces,
          piece: walk.piece / walk.width,
          scale: scaleOf(a, weights),
          alpha,
        },
        Math.ceil(rows / walk.rows),
      );
      ctx.save(a, b, ...(weights ? [weights] : []));
      return sum(losses);
    },
    backward(ctx, [grad], { alpha }) {
      const [a, b, weights = null] = ctx.saved as [Tensor, Tensor, Tensor?];
      const { device } = a;
      const length = sizeOf(a.shape.slice(1));
      const vec4 = (weights ? length : a.size) % 4 === 0;
      const width = vec4 ? 4 : 1;
      const params = { size: a.size / width, length: length / width, scale: scaleOf(a, weights), alpha };
      return slopes.map((slope, i) => {
        if (slope === null || !ctx.needs[i]) return null;
        const target = ctx.gradient(i);
        const more = {
          WEIGHTS: weights !== null,
          VEC4: vec4,
          NAME: name,
          SLOPE: `${slope}\n`,
          HELPERS: `${helpers}\n`,
        };
        device.run(
          device.kernel(backwardSource, { ...typed(a), ...more }),
          weights ? [a, b, grad!, target, weights] : [a, b, grad!, target],
          params,
          Math.ceil(a.size / width / 64),
        );
        return target;
      });
    },
  });
}

const mseOp = define({
  name: 'mse',
  loss: 'let d = a - b; return d * d;',
  slopes: ['return 2.0 * (a - b);', 'return 2.0 * (b - a);'],
});

const l1Op = define({
  name: 'l1',
  loss: 'return abs(a - b);',
  slopes: ['return sign(a - b);', 'return sign(b - a);'],
});

const HUBER = 'let d = abs(a - b); return select(alpha * (d - 0.5 * alpha), 0.5 * d * d, d <= V(alpha))'.replaceAll(
  'alpha',
  'params.alpha',
);
const huberOp = define({
  name: 'huber',
  loss: `${HUBER};`,
  slopes: [
    'return clamp(a - b, V(-params.alpha), V(params.alpha));',
    'return clamp(b - a, V(-params.alpha), V(params.alpha));',
  ],
});

const smoothL1Op = define({
  name: 'smoothL1',
  loss: `${HUBER} / params.alpha;`,
  slopes: [
    'return clamp((a - b) / params.alpha, V(-1.0), V(1.0));',
    'return clamp((b - a) / params.alpha, V(-1.0), V(1.0));',
  ],
});

// A logarithm is at least −100, as in PyTorch, so that a wrong certainty costs much and not everything. That of 0 is said
// apart: it need not be −∞ (SwiftShader's is −88).
const bceOp = define({
  name: 'bce',
  loss: 'return -(b * bounded(a) + (1.0 - b) * bounded(1.0 - a));',
  helpers: 'fn bounded(p: V) -> V { return select(max(log(p), V(-100.0)), V(-100.0), p <= V(0.0)); }',
  slopes: ['return (a - b) / max(a * (1.0 - a), V(1e-12));', null],
});

const bceWithLogitsOp = define({
  name: 'bceWithLogits',
  loss: 'return max(a, V(0.0)) - a * b + log1p(exp(-abs(a)));',
  slopes: ['return 1.0 / (1.0 + exp(-a)) - b;', null],
  // log(1 + u) = 2 artanh(u / (2 + u)), whose series ends at 3⁻¹⁵ for u ≤ 1; log(1 + u) itself would lose a small u.
  helpers: `fn log1p(u: V) -> V {
  let s = u / (2.0 + u);
  let q = s * s;
  return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0))))));
}`,
});

const klOp = define({
  name: 'kl',
  loss: 'return select(V(0.0), b * (log(b) - a), b > V(0.0));',
  slopes: ['return -b;', null],
  of: 'sum',
});

export interface LossOptions {
  /** (N): weight of each sample; 1/N by default. Constants. */
  weights?: Tensor;
}

/**
 * Σₙ wₙ · mean((aₙ − bₙ)²) over the samples n, the first dimension of a and b (N, …): the mean squared error unless
 * `weights` say otherwise (a prior-preservation term, a weighting by noise level). A scalar, f32 as of all losses: a loss is
 * scaled and logged beyond what f16 can hold.
 */
export const mse = (a: Tensor, b: Tensor, { weights }: LossOptions = {}): Tensor =>
  apply(mseOp, [a, b, weights ?? null], { alpha: 0 });

/** Mean absolute error, with weights as in `mse`. The slope at equal elements is 0. */
export const l1 = (a: Tensor, b: Tensor, { weights }: LossOptions = {}): Tensor =>
  apply(l1Op, [a, b, weights ?? null], { alpha: 0 });

export interface HuberOptions extends LossOptions {
  /** Where the parabola goes over into a line; 1 by default. */
  delta?: number;
}

function checkDelta(name: string, delta: number): number {
  if (!(delta > 0)) throw new Error(`[${name}] delta must be above 0, not ${delta}`);
  return delta;
}

/** Mean of d²/2 where d = |a − b| ≤ delta, else delta · (d − delta/2) (Huber, 1964), with weights as in `mse`. */
export const huber = (a: Tensor, b: Tensor, { weights, delta = 1 }: HuberOptions = {}): Tensor =>
  apply(huberOp, [a, b, weights ?? null], { alpha: checkDelta('huber', delta) });

/** `huber` / delta: of slope ±1 outside of delta (Girshick, 2015). */
export const smoothL1 = (a: Tensor, b: Tensor, { weights, delta = 1 }: HuberOptions = {}): Tensor =>
  apply(smoothL1Op, [a, b, weights ?? null], { alpha: checkDelta('smoothL1', delta) });

/**
 * Mean binary cross-entropy −(t · log p + (1 − t) · log(1 − p)) of probabilities p and constant targets t, both of 0 … 1 and
 * of one shape, with weights as in `mse`. Logarithms are limited to −100. From logits take `bceWithLogits`.
 */
export const bce = (probabilities: Tensor, targets: Tensor, { weights }: LossOptions = {}): Tensor =>
  apply(bceOp, [probabilities, targets, weights ?? null], { alpha: 0 });

/** `bce` of the probabilities σ(logits), without their rounding: safe for any finite logits. */
export const bceWithLogits = (logits: Tensor, targets: Tensor, { weights }: LossOptions = {}): Tensor =>
  apply(bceWithLogitsOp, [logits, targets, weights ?? null], { alpha: 0 });

/**
 * Kullback–Leibler divergence KL(p ‖ q) = Σ p · (log p − log q): q by its logarithms (a `logSoftmax`), p as constant
 * probabilities, both (N, …). Summed over each sample, then the mean over the N samples, or with weights as in `mse`.
 */
export const kl = (logQ: Tensor, p: Tensor, { weights }: LossOptions = {}): Tensor =>
  apply(klOp, [logQ, p, weights ?? null], { alpha: 0 });
