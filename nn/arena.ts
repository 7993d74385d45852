import { ALIGNMENT, clear, clearGradient, copy, keep, Tensor, tensor, view, zeros } from '../engine/index.ts';
import type { Device, Shape } from '../engine/index.ts';
import { TILE } from '../kernels/index.ts';
import type { Module } from './module.ts';

const ITEM = 4; // bytes of an f32

/** Where a parameter lies. */
interface Place {
  readonly chunk: number; // where it begins; one that is larger than a chunk goes on in the next ones
  readonly first: number; // element of the chunk
  readonly size: number;
  readonly shape: Shape;
}

/** Neighbouring elements of one parameter: rows of a table, for example. Both numbers are multiples of four. */
export interface Part {
  readonly first: number;
  readonly size: number;
}

/** What of the parameters a kernel can bind at once, with their gradients, and how optimizers divide it. */
export interface Chunk {
  readonly parameters: Tensor; // (elements,)
  readonly gradients: Tensor; // (elements,)
  readonly tiles: Tensor; // (tiles, 3) u32; see kernels/optim
  /** Names of the parameters, one that is cut among them; the n-th has segment n. */
  readonly names: readonly string[];
}

/**
 * The trainable parameters of some modules, side by side in a few large buffers (chunks) of at most what a kernel can
 * bind, so that an optimizer's step is one dispatch a chunk. A parameter that is larger than that has a buffer of its own,
 * and its chunks are windows of it. Each parameter becomes a window of its chunk, its gradient the
 * same window of the gradients' buffer, which `backward` writes directly. Moments and averages are further buffers of the
 * chunks' shapes: `like`. What needs no gradient stays outside.
 */
export class Arena {
  readonly device: Device;
  readonly chunks: readonly Chunk[];
  /** By path, the module's name in front: `unet.conv_in.weight`. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly #places: ReadonlyMap<string, Place>;
  /** Elements of each buffer's chunks. */
  readonly #buffers: readonly (readonly number[])[];
  readonly #gradients: ReadonlyMap<string, Tensor>;

  /**
   * Moves the modules' trainable parameters, values and all, into the arena. A module under the name '' adds nothing to
   * its parameters' names. Of parameters in `parts`, by path, optimizers change that part alone, and the rest's gradient
   * counts for nothing. `chunkBytes` limits a chunk beyond the adapter's own limit.
   */
  constructor(
    modules: Readonly<Record<string, Module>>,
    { chunkBytes = Infinity, parts = new Map() }: { chunkBytes?: number; parts?: ReadonlyMap<string, Part> } = {},
  ) {
    const old = trainableParameters(modules);
    const any = old.values().next().value;
    if (!any) throw new Error('[arena] nothing to train: every parameter is frozen');
    const device = (this.device = any.device);
    for (const [name, part] of parts) checkPart(name, part, old.get(name));
    const { maxBufferSize } = device.gpu.limits;
    const limit = Math.floor(Math.min(chunkBytes, device.bindingLimit, maxBufferSize) / ALIGNMENT) * ALIGNMENT;
    const { places, buffers } = divide(old, limit / ITEM);
    this.#places = places;
    this.#buffers = buffers;
    const [parameters, gradients] = [this.like('parameters'), this.like('gradients')];
    this.chunks = buffers.flat().map((_, chunk) => {
      const inside = [...places].flatMap(([name, place]) => pieceOf(place, chunk, limit / ITEM, name));
      const found = inside.flatMap(({ name, first, size, before }, segment) => {
        const { first: from, size: count } = parts.get(name) ?? { first: 0, size: Infinity };
        const start = Math.max(from, before);
        const end = Math.min(from + count, before + size);
        return tilesOf(first + start - before, end - start, segment);
      });
      const tiles = Uint32Array.from(found.length > 0 ? found : [0, 0, 0]); // one of nothing: buffers cannot be empty
      return {
        parameters: parameters[chunk]!,
        gradients: gradients[chunk]!,
        tiles: own(tensor(device, tiles, [tiles.length / 3, 3], { tag: 'parameters' })),
        names: inside.map(({ name }) => name),
      };
    });
    this.parameters = this.windows(parameters);
    this.#gradients = this.windows(gradients);
    for (const [name, parameter] of this.parameters) {
      const source = old.get(name)!;
      copy(source, parameter);
      parameter.requiresGrad = true;
      parameter.gradTarget = this.#gradients.get(name)!;
    }
    for (const [prefix, module] of Object.entries(modules)) {
      const paths = [...module.namedParameters().keys()].filter((path) => this.parameters.has(join(prefix, path)));
      module.replaceParameters(new Map(paths.map((path) => [path, this.parameters.get(join(prefix, path))!])));
    }
    device.stream.flush(); // the copies come before the buffers they read are destroyed
    device.memory.trim();
  }

  /** Zeros of the chunks' shapes, in buffers as the parameters', counted under `tag`. They belong to the caller. */
  like(tag: string): Tensor[] {
    return this.#buffers.flatMap((chunks) => {
      const whole = zeros(this.device, [chunks.reduce((sum, size) => sum + size, 0)], 'f32', tag);
      let offset = 0;
      const parts = chunks.map((size) => {
        offset += size;
        return own(view(whole, (offset - size) * ITEM, [size]));
      });
      if (!this.device.scope) whole.storage.drop(); // the parts hold it
      return parts;
    });
  }

  /** What `buffers`, of the chunks' shapes, hold for each parameter. The windows belong to the caller. */
  windows(buffers: readonly Tensor[]): Map<string, Tensor> {
    const found = new Map<string, Tensor>();
    for (const [name, { chunk, first, shape }] of this.#places) {
      const { device, storage, offset } = buffers[chunk]!;
      storage.retain();
      found.set(name, own(new Tensor(device, storage, offset + first * ITEM, shape, 'f32')));
    }
    return found;
  }

  /** Forgets all gradients: what `backward` delivers next starts afresh. */
  clearGradients(): void {
    for (const parameter of this.parameters.values()) clearGradient(parameter);
  }

  /** Zeroes the gradients that `backward` did not deliver since `clearGradients`: their windows hold an older step's. */
  completeGradients(): void {
    for (const [name, parameter] of this.parameters) {
      if (parameter.grad !== null) continue;
      const target = this.#gradients.get(name)!;
      clear(target);
      parameter.grad = target;
    }
  }

  /** Releases gradients and chunks; the parameters' windows belong to their modules. */
  release(): void {
    this.clearGradients();
    for (const parameter of this.parameters.values()) parameter.gradTarget = null;
    for (const gradient of this.#gradients.values()) gradient.storage.drop();
    for (const { parameters, gradients, tiles } of this.chunks)
      for (const buffer of [parameters, gradients, tiles]) buffer.storage.drop();
  }
}

/** Takes a new tensor out of the scope that is open, if one is. */
export function own<T extends Tensor>(tensor: T): T {
  return tensor.device.scope ? keep(tensor) : tensor;
}

const join = (prefix: string, path: string): string => (prefix === '' ? path : `${prefix}.${path}`);

/** The parameters that want a gradient, by path with the module's name in front. */
export function trainableParameters(modules: Readonly<Record<string, Module>>): Map<string, Tensor> {
  const found = new Map<string, Tensor>();
  for (const [prefix, module] of Object.entries(modules))
    for (const [path, parameter] of module.namedParameters())
      if (parameter.requiresGrad) found.set(join(prefix, path), parameter);
  return found;
}

/** Puts parameters one after the other, each at a multiple of 256 bytes, into chunks of at most `limit` elements. */
function divide(
  parameters: ReadonlyMap<string, Tensor>,
  limit: number,
): { places: Map<string, Place>; buffers: number[][] } {
  const places = new Map<string, Place>();
  const buffers: number[][] = [];
  let [chunk, used] = [-1, Infinity]; // the chunk that is being filled
  for (const [name, { size, shape }] of parameters) {
    const padded = (Math.ceil((size * ITEM) / ALIGNMENT) * ALIGNMENT) / ITEM;
    if (padded > limit) {
      const chunks = Array.from({ length: Math.ceil(padded / limit) }, (_, i) => Math.min(limit, padded - i * limit));
      places.set(name, { chunk: chunk + 1, first: 0, size, shape });
      buffers.push(chunks);
      [chunk, used] = [chunk + chunks.length, Infinity];
      continue;
    }
    if (used + padded > limit) {
      buffers.push([0]);
      [chunk, used] = [chunk + 1, 0];
    }
    places.set(name, { chunk, first: used, size, shape });
    used += padded;
    buffers.at(-1)![0] = used;
  }
  return { places, buffers };
}

function checkPart(name: string, { first, size }: Part, parameter: Tensor | undefined): void {
  if (!parameter) throw new Error(`[arena] a part of ${name} is to be trained, which is no parameter that trains`);
  const inside = first >= 0 && size > 0 && first + size <= parameter.size;
  if (!inside || first % 4 !== 0 || size % 4 !== 0)
    throw new Error(
      `[arena] the part of ${name} must be some of its ${parameter.size} elements, in multiples of four, not ${size} from ${first} on`,
    );
}

/** What of a parameter lies in a chunk, if anything does, and how many of its elements do in earlier ones. */
function pieceOf(place: Place, chunk: number, limit: number, name: string) {
  const before = (chunk - place.chunk) * limit;
  if (chunk < place.chunk || before >= place.size) return [];
  return [{ name, first: before === 0 ? place.first : 0, size: Math.min(limit, place.size - before), before }];
}

/** The tiles of `size` elements of one parameter: (first element, count, segment) each. */
function tilesOf(first: number, size: number, segment: number): number[] {
  const tiles: number[] = [];
  for (let at = 0; at < size; at += TILE) tiles.push(first + at, Math.min(TILE, size - at), segment);
  return tiles;
}
