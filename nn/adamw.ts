import { release, tensor } from '../engine/index.ts';
import type { Tensor } from '../engine/index.ts';
import { adamw, gradientNorm } from '../kernels/index.ts';
import { own } from './arena.ts';
import type { Arena } from './arena.ts';

/** What one parameter has of its own. */
export interface Group {
  /** Factor of the learning rate; 1 by default. */
  rate?: number;
  /** Weight decay in place of the optimizer's. */
  decay?: number;
  /** Left as it is, moments and all; its gradient does not count for the norm. */
  frozen?: boolean;
}

export interface AdamWOptions {
  betas?: readonly [number, number];
  epsilon?: number;
  /** Decoupled weight decay, on every parameter as in PyTorch, unless its group says otherwise. */
  weightDecay?: number;
  /** The gradients' global L2 norm is cut to this. */
  maxNorm?: number;
  /** The group of each parameter, by its name in the arena. */
  group?: (name: string) => Group;
}

/** AdamW (Loshchilov & Hutter, 2019) with clipping over an arena: PyTorch's `clip_grad_norm_` and `AdamW`. */
export class AdamW {
  readonly arena: Arena;
  /** Steps taken, skipped ones too. */
  steps = 0;
  /** What changes from step to step, also in replays of a captured step. */
  readonly #rate = { value: 0 };
  readonly #step = { value: 0 };
  /** Moments, one buffer a chunk. */
  readonly first: readonly Tensor[];
  readonly second: readonly Tensor[];
  readonly #segments: readonly Tensor[];
  readonly #options: Required<Omit<AdamWOptions, 'group'>>;

  constructor(arena: Arena, options: AdamWOptions = {}) {
    const {
      betas = [0.9, 0.999],
      epsilon = 1e-8,
      weightDecay = 0.01,
      maxNorm = Infinity,
      group = (): Group => ({}),
    } = options;
    if (!betas.every((beta) => beta >= 0 && beta < 1))
      throw new Error(`[adamw] betas are from 0 to below 1, not ${betas.join(' and ')}`);
    if (!(maxNorm > 0)) throw new Error(`[adamw] maxNorm must be positive, not ${maxNorm}`);
    this.arena = arena;
    this.#options = { betas, epsilon, weightDecay, maxNorm };
    this.first = arena.like('moments');
    this.second = arena.like('moments');
    this.#segments = arena.chunks.map(({ names }) => {
      const rows = names
        .map(group)
        .flatMap(({ rate = 1, decay = weightDecay, frozen = false }) => [rate, decay, Number(frozen)]);
      return own(tensor(arena.device, rows, [names.length, 3], { tag: 'moments' }));
    });
  }

  /**
   * One step on the gradients that `backward` delivered since the last one, which are then forgotten. Returns what
   * `gradientNorm` says: (sum of squares before clipping, number of values that are not finite), shape (2,). Where that is
   * not finite, parameters and moments stay as they are: decided on the device, without waiting for it.
   */
  step(learningRate: number): Tensor {
    const { arena, first, second } = this;
    const { betas, epsilon, maxNorm } = this.#options;
    arena.completeGradients();
    const chunks = arena.chunks.map((chunk, i) => ({
      ...chunk,
      first: first[i]!,
      second: second[i]!,
      segments: this.#segments[i]!,
    }));
    const norm = gradientNorm(chunks);
    this.advance(learningRate);
    const [beta1, beta2] = betas;
    const settings = { learningRate: this.#rate, beta1, beta2, epsilon, maxNorm, step: this.#step };
    for (const chunk of chunks) adamw(chunk, norm, settings);
    arena.clearGradients();
    return norm;
  }

  /** Counts a step at this rate: `step` does, and the caller before each replay of a captured step that calls it. */
  advance(learningRate: number): void {
    this.#rate.value = learningRate;
    this.#step.value = ++this.steps;
  }

  release(): void {
    release(...this.first, ...this.second, ...this.#segments);
  }
}
