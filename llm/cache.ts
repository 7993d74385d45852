/**
 * Keys and values of the tokens so far: growing for layers that see all, rolling for windows (the sinks and the last
 * `window` positions), with several sequences of lengths of their own in a batch.
 */
import {
  byteLength,
  empty,
  keep,
  release,
  scalesOffset,
  scope,
  sizeOf,
  tensor,
  view,
  windowOf,
  write,
} from '../engine/index.ts';
import type { Device, Shape, Tensor, Window } from '../engine/index.ts';
import { appendSummaries, emptySummaries, nodeCount } from '../kernels/index.ts';
import type { KeysValues, TreeSummaries } from '../kernels/index.ts';
import type { LayerConfig, TransformerConfig } from './config.ts';

/** How keys and values are stored: as computed with, rounded to f16, or to q8 (8.5 bits a value; see engine/formats.ts). */
export type CacheFormat = 'f32' | 'f16' | 'q8';

export interface CacheSize {
  /** Sequences: B. */
  readonly batch: number;
  /** Tokens that each can have. */
  readonly capacity: number;
  readonly dtype?: CacheFormat;
}

/** What a forward pass over the next tokens of each sequence needs to know, on the device. */
export interface Step {
  readonly cache: KeyValueCache;
  /** (B, T), i32 */
  readonly positions: Tensor;
  /** Tokens of each sequence before this step, and in it, u32 (B). */
  readonly starts: Tensor;
  readonly counts: Tensor;
  /** Both in one, (2, B rounded up to 64). */
  readonly extents: Tensor;
  /** Keys that are in sight of the new tokens where a layer keeps so many slots, u32 (B). */
  inSight(slots: number): Tensor;
  /**
   * Says that the step's keys and values are in the cache. A forward pass does so itself; who runs a captured one again calls
   * `step` before and this afterwards.
   */
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

/**
 * Bytes of keys and values, 2 · B · slots · KV · D · bytes (of q8 1 1/16) a layer, and of the summaries of a tree's nodes,
 * B · KV · nodes · D · 4, twice that for boxes.
 */
export const cacheBytes = (config: TransformerConfig, size: CacheSize): number =>
  config.layers.reduce((sum, layer) => {
    const { tree } = layer;
    const { batch, capacity, dtype = 'f32' } = size;
    const boxes = tree?.summary === 'boxes' ? 2 : 1;
    const nodes = tree ? batch * config.keyHeads * nodeCount(capacity, tree) * boxes : 0;
    return sum + 2 * byteLength(sizeOf(shapeOf(config, layer, size)), dtype) + nodes * config.headDim * 4;
  }, 0);

/** The same of one layer as a text, for who wants to see where they come from. */
export function cacheFormula(config: TransformerConfig, layer: LayerConfig, size: CacheSize): string {
  const { batch, capacity, dtype = 'f32' } = size;
  const { tree } = layer;
  const kept = [2, ...shapeOf(config, layer, size), { f32: '4', f16: '2', q8: '17/16' }[dtype]].join(' · ');
  if (!tree) return kept;
  const summaries = [...(tree.summary === 'boxes' ? [2] : []), batch, config.keyHeads, nodeCount(capacity, tree), config.headDim, 4]; // prettier-ignore
  return `(${kept} + ${summaries.join(' · ')})`;
}

/** What is kept of a layer: keys and values (B, slots, KV, D), and where it has a tree the nodes' summaries. */
export interface LayerCache extends KeysValues {
  readonly summaries: TreeSummaries | null;
}

export class KeyValueCache {
  readonly device: Device;
  readonly config: TransformerConfig;
  readonly batch: number;
  readonly capacity: number;
  readonly layers: readonly LayerCache[];
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
    if (dtype === 'q8' && (config.headDim % 32 !== 0 || (config.keyHeads * config.headDim) % 64 !== 0))
      throw new Error(
        `[cache] q8 rounds blocks of 32 columns, two at a time: ${config.keyHeads} key heads of ${config.headDim} columns don't divide into such; take f16`,
      );
    this.device = device;
    this.config = config;
    this.batch = batch;
    this.capacity = capacity;
    this.lengths = Array.from({ length: batch }, () => 0);
    const own = (tensor: Tensor) => (device.scope ? keep(tensor) : tensor);
    this.layers = config.layers.map((layer) => {
      const make = () => own(empty(device, shapeOf(config, layer, size), dtype, 'key-value cache', { exact: true }));
      const keys = make();
      const { tree } = layer;
      const summaries = tree && emptySummaries(device, keys.shape, { ...tree, kind: tree.summary });
      if (summaries) own(summaries.nodes);
      return { keys, values: make(), summaries };
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
    const padded = Math.ceil(this.batch / 64) * 64;
    const extents = new Uint32Array(2 * padded);
    extents.set(starts);
    extents.set(counts, padded);
    const whole = this.#write('starts and counts', extents, [2, padded]);
    const part = (name: string, row: number) => this.#known(name, () => view(whole, row * padded * 4, [this.batch]));
    const positions = starts.flatMap((start) => Array.from({ length }, (_, t) => start + t));
    const sights = new Map<number, Tensor>();
    for (const { keys } of this.layers) {
      const slots = keys.shape[1]!;
      const seen = starts.map((start, b) => Math.min(start, slots - 1) + counts[b]!);
      if (!sights.has(slots)) sights.set(slots, this.#write(`in sight of ${slots}`, Uint32Array.from(seen)));
    }
    return {
      cache: this,
      positions: this.#write(`positions ${length}`, Int32Array.from(positions), [this.batch, length]),
      starts: part('starts', 0),
      counts: part('counts', 1),
      extents: whole,
      inSight: (slots) => sights.get(slots)!,
      end: () => starts.forEach((start, b) => (this.lengths[b] = start + counts[b]!)),
    };
  }

  /** Forgets a sequence, or all of them. */
  reset(sequence?: number): void {
    if (sequence === undefined) this.lengths.fill(0);
    else this.truncate(sequence, 0);
  }

  /**
   * Goes back to a sequence's first `length` tokens, to go on from there otherwise. A layer that rolls has only its last
   * `window` positions (and sinks): throws where the next token would see one that has been written over.
   */
  truncate(sequence: number, length: number): void {
    this.#check(sequence);
    const now = this.lengths[sequence]!;
    if (!(Number.isInteger(length) && length >= 0 && length <= now))
      throw new Error(`[cache] sequence ${sequence} has ${now} tokens; it cannot be cut to ${length}`);
    const turned = this.#turned(now, length);
    if (turned)
      throw new Error(
        `[cache] sequence ${sequence} has ${now} tokens, of which windows keep the last ${turned.window}` +
          `${turned.sinks > 0 ? ` and the first ${turned.sinks}` : ''}: it can be cut to ${now - 1}, or to ${turned.sinks} ` +
          `or fewer, not to ${length}`,
      );
    this.lengths[sequence] = length;
  }

  /** Whether `truncate` could go back from so many tokens to the first `length` of them. */
  keeps(length: number, now: number): boolean {
    return length <= now && !this.#turned(now, length);
  }

  /** Copies a sequence, as it stands, to others: to go on from one prefix in several ways. */
  fork(from: number, to: readonly number[]): void {
    this.copyTo(from, this, to.filter((sequence) => sequence !== from)); // prettier-ignore
  }

  /** Copies a sequence to some of another cache, which has the same capacity and format. */
  copyTo(from: number, target: KeyValueCache, to: readonly number[]): void {
    this.#check(from);
    for (const sequence of to) target.#check(sequence);
    const length = this.lengths[from]!;
    const formats = [this, target].map(({ capacity, layers }) => `${capacity} tokens in ${layers[0]?.keys.dtype}`);
    if (target.config !== this.config || formats[0] !== formats[1])
      throw new Error(`[cache] a sequence is copied to a cache of the same model, capacity and format, not from ${formats.join(' to ')}`); // prettier-ignore
    if (to.length === 0) return;
    const { stream } = this.device;
    const copies = to.map((sequence) => target.parts(sequence, length));
    this.parts(from, length).forEach(({ window }, i) =>
      scope(this.device, () => {
        if (window.bytes === 0) return;
        // A copy within one buffer is not allowed, so by way of another.
        const between = target === this ? empty(this.device, [window.bytes / 4], 'u32').window() : window;
        if (target === this) stream.copy(window, between, window.bytes);
        for (const parts of copies) stream.copy(between, parts[i]!.window, window.bytes);
      }),
    );
    for (const sequence of to) target.lengths[sequence] = length;
    target.summarize(to);
  }

  /** Makes the summaries of trees anew from some sequences' keys. */
  summarize(sequences: readonly number[]): void {
    const ends = Uint32Array.from(this.lengths);
    const starts = ends.map((length, b) => (sequences.includes(b) ? 0 : length));
    scope(this.device, () => {
      const extents = {
        starts: tensor(this.device, starts, [this.batch]),
        keyLengths: tensor(this.device, ends, [this.batch]),
      };
      for (const { keys, summaries } of this.layers)
        if (summaries) appendSummaries(keys, summaries, { ...extents, added: Math.max(...ends) });
    });
  }

  /** Where the first `tokens` of a sequence lie, as far as layers keep them: by layer, keys and values, quants and scales. */
  parts(sequence: number, tokens: number): CachePart[] {
    return this.layers.flatMap(({ keys, values }, l) =>
      Object.entries({ keys, values }).flatMap(([name, { storage, shape, size, dtype }]) => {
        const [, slots, heads, columns] = shape as [number, number, number, number];
        const kept = Math.min(tokens, slots);
        const part = (suffix: string, dtype: CachePart['dtype'], at: number, row: number, shape: Shape): CachePart => {
          const [offset, bytes] = [at + sequence * slots * row, kept * row];
          return {
            name: `layers.${l}.${name}${suffix}`,
            dtype,
            shape,
            window: { ...windowOf(storage, offset, bytes), bytes },
          };
        };
        const row = heads * columns; // elements
        if (dtype !== 'q8')
          return [part('', dtype as 'f32' | 'f16', 0, byteLength(row, dtype), [kept, heads, columns])];
        return [
          part('', 'u32', 0, row, [kept, heads, columns / 4]), // four quants a word
          part('.scales', 'u32', scalesOffset(size, dtype), row / 16, [kept, row / 64]), // two scales
        ];
      }),
    );
  }

  release(): void {
    release(
      ...this.layers.flatMap(({ keys, values, summaries }) => [keys, values, ...(summaries ? [summaries.nodes] : [])]),
      ...this.#written.values(),
    );
    this.#written.clear();
  }

  /** A layer that has written over what the next token sees, after a cut from `now` tokens to `length`. */
  #turned(now: number, length: number): LayerConfig | undefined {
    // A ring that has turned keeps what the next token sees, and one position more; or the sinks alone.
    return this.config.layers.find((layer, l) => {
      const slots = this.layers[l]!.keys.shape[1]!;
      return now > slots && length > layer.sinks && length < now - 1;
    });
  }

  #check(sequence: number): void {
    if (!(Number.isInteger(sequence) && sequence >= 0 && sequence < this.batch))
      throw new Error(`[cache] there is no sequence ${sequence}: the cache has 0 to ${this.batch - 1}`);
  }

  #known(name: string, make: () => Tensor): Tensor {
    let known = this.#written.get(name);
    if (!known) {
      known = make();
      this.#written.set(name, this.device.scope ? keep(known) : known);
    }
    return known;
  }

  #write(name: string, data: Int32Array | Uint32Array, shape: Shape = [data.length]): Tensor {
    const known = this.#written.get(name);
    if (known) write(known, data);
    return known ?? this.#known(name, () => tensor(this.device, data, shape));
  }
}

/** What a cache holds of a sequence, in one place. */
export interface CachePart {
  readonly name: string;
  /** Of its words or values; quants and scales of q8 are words. */
  readonly dtype: 'f32' | 'f16' | 'u32';
  readonly shape: Shape;
  readonly window: Window;
}
