import { ALIGNMENT, byteLength, clearGradient, formatShape, keep, tensor, view, zeros } from '../engine/index.ts';
import type { Device, Shape, Tensor } from '../engine/index.ts';
import { TILE } from '../kernels/index.ts';
import type { Module } from './module.ts';

const ITEM = 4; // bytes of an f32

/** Where a parameter lies. */
interface Place {
  readonly chunk: number;
  readonly first: number; // element of the chunk
  readonly size: number;
  readonly shape: Shape;
}

/** One buffer of parameters with that of their gradients, and how optimizers divide it. */
export interface Chunk {
  readonly parameters: Tensor; // (elements,)
  readonly gradients: Tensor; // (elements,)
  readonly tiles: Tensor; // (tiles, 3) u32; see kernels/optim
  /** Names of the parameters; the n-th has segment n. */
  readonly names: readonly string[];
}

/**
 * The trainable parameters of some modules, side by side in a few large buffers (chunks) of at most what a kernel can
 * bind, so that an optimizer's step is one dispatch a chunk. Each parameter becomes a window of its chunk, its gradient the
 * same window of the gradients' buffer, which `backward` writes directly. Moments and averages are further buffers of the
 * chunks' shapes: `like`. What needs no gradient stays outside.
 */
export class Arena {
  readonly device: Device;
  readonly chunks: readonly Chunk[];
  /** By path, the module's name in front: `unet.conv_in.weight`. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly #places: ReadonlyMap<string, Place>;
  readonly #gradients: ReadonlyMap<string, Tensor>;

  /**
   * Moves the modules' trainable parameters, values and all, into the arena. A module under the name '' adds nothing to
   * its parameters' names. `chunkBytes` limits a chunk beyond the adapter's own limit.
   */
  constructor(modules: Readonly<Record<string, Module>>, { chunkBytes = Infinity } = {}) {
    const old = trainableParameters(modules);
    const any = old.values().next().value;
    if (!any) throw new Error('[arena] nothing to train: every parameter is frozen');
    const device = (this.device = any.device);
    const { maxStorageBufferBindingSize, maxBufferSize } = device.gpu.limits;
    const { places, sizes } = divide(old, Math.min(chunkBytes, maxStorageBufferBindingSize, maxBufferSize));
    this.#places = places;
    this.chunks = sizes.map((size, chunk) => {
      const names = [...places.keys()].filter((name) => places.get(name)!.chunk === chunk);
      const tiles = Uint32Array.from(names.flatMap((name, segment) => tilesOf(places.get(name)!, segment)));
      return {
        parameters: own(zeros(device, [size], 'f32', 'parameters')),
        gradients: own(zeros(device, [size], 'f32', 'gradients')),
        tiles: own(tensor(device, tiles, [tiles.length / 3, 3], { tag: 'parameters' })),
        names,
      };
    });
    const parameters = this.windows(this.chunks.map((chunk) => chunk.parameters));
    this.parameters = parameters;
    this.#gradients = this.windows(this.chunks.map((chunk) => chunk.gradients));
    for (const [name, parameter] of parameters) {
      const source = old.get(name)!;
      device.stream.copy(source.window(), parameter.window(), byteLength(source.size, 'f32'));
      parameter.requiresGrad = true;
      parameter.gradTarget = this.#gradients.get(name)!;
    }
    for (const [prefix, module] of Object.entries(modules)) {
      const paths = [...module.namedParameters().keys()].filter((path) => parameters.has(join(prefix, path)));
      module.replaceParameters(new Map(paths.map((path) => [path, parameters.get(join(prefix, path))!])));
    }
    device.stream.flush(); // the copies come before the buffers they read are destroyed
    device.memory.trim();
  }

  /** Zeros of the chunks' shapes, one buffer a chunk, counted under `tag`. They belong to the caller. */
  like(tag: string): Tensor[] {
    return this.chunks.map(({ parameters }) => own(zeros(this.device, parameters.shape, 'f32', tag)));
  }

  /** What `buffers`, of the chunks' shapes, hold for each parameter. The windows belong to the caller. */
  windows(buffers: readonly Tensor[]): Map<string, Tensor> {
    const found = new Map<string, Tensor>();
    for (const [name, { chunk, first, shape }] of this.#places)
      found.set(name, own(view(buffers[chunk]!, first * ITEM, shape)));
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
      this.device.stream.clear({ ...target.window(), bytes: byteLength(target.size, 'f32') });
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

/** Puts parameters one after the other, each at a multiple of 256 bytes, into chunks of at most `limit` bytes. */
function divide(
  parameters: ReadonlyMap<string, Tensor>,
  limit: number,
): { places: Map<string, Place>; sizes: number[] } {
  const places = new Map<string, Place>();
  const sizes: number[] = [0];
  for (const [name, { size, shape }] of parameters) {
    const padded = (Math.ceil((size * ITEM) / ALIGNMENT) * ALIGNMENT) / ITEM;
    if (padded * ITEM > limit)
      throw new Error(
        `[arena] ${name} is ${formatShape(shape)}, ${mebibytes(size * ITEM)}: more than the ${mebibytes(limit)} ` +
          'that can be bound at once here. Freeze it, or take an adapter with a larger limit',
      );
    if (sizes.at(-1)! > 0 && (sizes.at(-1)! + padded) * ITEM > limit) sizes.push(0);
    places.set(name, { chunk: sizes.length - 1, first: sizes.at(-1)!, size, shape });
    sizes[sizes.length - 1]! += padded;
  }
  return { places, sizes };
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** The tiles of one parameter: (first element, count, segment) each. */
function tilesOf({ first, size }: Place, segment: number): number[] {
  const tiles: number[] = [];
  for (let at = 0; at < size; at += TILE) tiles.push(first + at, Math.min(TILE, size - at), segment);
  return tiles;
}
