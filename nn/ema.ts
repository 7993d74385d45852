import { copy, empty, release, scope } from '../engine/index.ts';
import type { Tensor } from '../engine/index.ts';
import { lerp } from '../kernels/index.ts';
import type { Arena } from './arena.ts';

/**
 * An exponential moving average of an arena's parameters (Polyak & Juditsky, 1992). The decay of update n is
 * min(decay, (1 + n) / (10 + n)), so that early updates are not dominated by the initial values.
 */
export class ExponentialAverage {
  readonly arena: Arena;
  readonly decay: number;
  /** Updates made. */
  updates = 0;
  /** The averages, one buffer a chunk; while `swap`ped, the parameters. */
  readonly buffers: readonly Tensor[];

  /** Begins with the parameters' present values. */
  constructor(arena: Arena, decay: number) {
    if (!(decay >= 0 && decay < 1)) throw new Error(`[ema] decay is from 0 to below 1, not ${decay}`);
    this.arena = arena;
    this.decay = decay;
    this.buffers = arena.like('averages');
    arena.chunks.forEach(({ parameters }, i) => copy(parameters, this.buffers[i]!));
  }

  /** average += (1 − decay) · (parameters − average). */
  update(): void {
    const decay = Math.min(this.decay, (1 + this.updates) / (10 + this.updates));
    this.updates++;
    this.arena.chunks.forEach(({ parameters }, i) => lerp(this.buffers[i]!, parameters, 1 - decay));
  }

  /** Exchanges averages and parameters, for sampling or saving with the averages; a second call restores both exactly. */
  swap(): void {
    const { device, chunks } = this.arena;
    chunks.forEach(({ parameters }, i) =>
      scope(device, () => {
        const between = empty(device, parameters.shape);
        copy(parameters, between);
        copy(this.buffers[i]!, parameters);
        copy(between, this.buffers[i]!);
      }),
    );
  }

  release(): void {
    release(...this.buffers);
  }
}
