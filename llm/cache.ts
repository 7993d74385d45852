/**
 * Keys and values of the tokens so far: growing for layers that see all, rolling for windows (the sinks and the last
 * `window` positions), with several sequences of lengths of their own in a batch.
 */
import { empty, keep, release, sizeOf, tensor, write } from '../engine/index.ts';
import type { Device, Shape, Tensor } from '../engine/index.ts';
import type { KeysValues } from '../kernels/index.ts';
import type { LayerConfig, TransformerConfig } from './config.ts';

export interface CacheSize {
  /** Sequences: B. */
  readonly batch: number;
  /** Tokens that each can have. */
  readonly capacity: number;
  readonly dtype?: 'f32' | 'f16';
}

/** What a forward pass over the next tokens of each sequence needs to know, on the device. */
export interface Step {
  readonly cache: KeyValueCache;
  /** (B, T), i32 */
  readonly positions: Tensor;
  /** Tokens of each sequence before this step, and in it, u32 (B). */
  readonly starts: Tensor;
  readonly counts: Tensor;
  /** Keys that are in sight of the new tokens where a layer keeps so many slots, u32 (B). */
  inSight(slots: number): Tensor;
  /** Says that the step's keys and values are in the cache. */
  end(): void;
}

/** Slots that a layer keeps of `capacity` positions. */
export const slotsOf = ({ window, sinks, tree }: LayerConfig, capacity: number): number =>
  window === null || tree ? capacity : Math.min(capacity, sinks + window);

/** Shapes of one layer's keys (and of its values): (B, slots, KV, D). */
const shapeOf = (config: TransformerConfig, layer: LayerConfig, { batch, capacity }: CacheSize): Shape => [
  batch,
  slotsOf(layer, capacity),
  config.keyHeads,
  config.headDim,
];

/** Bytes of keys and values: 2 · layers · B · slots · KV · D · bytes. */
export const cacheBytes = (config: TransformerConfig, size: CacheSize): number =>
  config.layers.reduce((sum, layer) => sum + 2 * sizeOf(shapeOf(config, layer, size)), 0) *
  (size.dtype === 'f16' ? 2 : 4);

export class KeyValueCache {
  readonly device: Device;
  readonly batch: number;
  readonly capacity: number;
  readonly layers: readonly KeysValues[];
  /** Tokens of each sequence. */
  readonly lengths: number[];
  /** Positions and lengths of the step under way: written before each, so that a captured one can be run again. */
  readonly #written = new Map<string, Tensor>();

  /** Throws where the size is not one, or over the model's context. */
  constructor(device: Device, config: TransformerConfig, size: CacheSize) {
    const { batch, capacity, dtype = 'f32' } = size;
    for (const [what, value] of Object.entries({ batch, capacity }))
      if (!Number.isInteger(value) || value < 1)
        throw new Error(`[cache] ${what} is ${value}; it must be a whole number from 1 on`);
    if (capacity > config.context)
      throw new Error(`[cache] a capacity of ${capacity} tokens is over the model's context of ${config.context}`);
    this.device = device;
    this.batch = batch;
    this.capacity = capacity;
    this.lengths = Array.from({ length: batch }, () => 0);
    this.layers = config.layers.map((layer) => {
      const make = () => empty(device, shapeOf(config, layer, size), dtype, 'key-value cache');
      return { keys: make(), values: make() };
    });
  }

  /**
   * Prepares a forward pass over T more tokens of each sequence, or `counts[b]` of them. Throws where one gets longer than
   * the cache.
   */
  step(length: number, counts: readonly number[] = this.lengths.map(() => length)): Step {
    const starts = [...this.lengths];
    if (counts.length !== this.batch || counts.some((count) => !(count >= 0 && count <= length)))
      throw new Error(`[cache] ${this.batch} sequences have 0 to ${length} new tokens each, not ${counts.join(', ')}`);
    starts.forEach((start, b) => {
      if (start + counts[b]! > this.capacity)
        throw new Error(
          `[cache] sequence ${b} has ${start} tokens and gets ${counts[b]} more: over the ${this.capacity} that the cache holds`,
        );
    });
    const shape = [this.batch, length];
    const positions = starts.flatMap((start) => Array.from({ length }, (_, t) => start + t));
    return {
      cache: this,
      positions: this.#write(`positions ${length}`, Int32Array.from(positions), shape),
      starts: this.#write('starts', Uint32Array.from(starts)),
      counts: this.#write('counts', Uint32Array.from(counts)),
      inSight: (slots) => {
        const seen = starts.map((start, b) => Math.min(start, slots - 1) + counts[b]!);
        return this.#write(`in sight of ${slots}`, Uint32Array.from(seen));
      },
      end: () => starts.forEach((start, b) => (this.lengths[b] = start + counts[b]!)),
    };
  }

  release(): void {
    release(...this.layers.flatMap(({ keys, values }) => [keys, values]), ...this.#written.values());
  }

  #write(name: string, data: Int32Array | Uint32Array, shape: Shape = [data.length]): Tensor {
    let known = this.#written.get(name);
    if (known) write(known, data);
    else this.#written.set(name, (known = keep(tensor(this.device, data, shape))));
    return known;
  }
}
