import { HostRandom, randomKey } from '../engine/index.ts';

/**
 * The order in which a data set is gone through: each epoch is a permutation by (seed, epoch). Which item comes at which
 * position is a function of these alone, so a resumed run needs no state to go on where it was.
 */
export class DataOrder {
  readonly count: number;
  readonly #seed: number;
  readonly #purpose: string;
  #epoch = -1;
  #permutation: number[] = [];

  constructor(count: number, seed: number, purpose = 'data') {
    if (!(count > 0)) throw new Error('[data] there are no items to take in order');
    this.count = count;
    this.#seed = seed;
    this.#purpose = purpose;
  }

  /** The item at a position, counted over all epochs. */
  at(position: number): number {
    const epoch = Math.floor(position / this.count);
    if (epoch !== this.#epoch) {
      this.#permutation = new HostRandom(randomKey(this.#seed, this.#purpose), 0, epoch).permutation(this.count);
      this.#epoch = epoch;
    }
    return this.#permutation[position % this.count]!;
  }

  /** The items of batch n. */
  batch(n: number, size: number): number[] {
    return Array.from({ length: size }, (_, i) => this.at(n * size + i));
  }
}
