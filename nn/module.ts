import {
  byteLength,
  checkpoint,
  clearGradient,
  empty,
  formatMultiple,
  formatShape,
  HostRandom,
  isStorageFormat,
  keep,
  randomKey,
  sameShape,
  scope,
  sizeOf,
  Tensor,
  tensor,
  write,
} from '../engine/index.ts';
import type { Blocks, Device, Shape, StorageFormat } from '../engine/index.ts';
import { fromBlocks } from '../kernels/index.ts';

/** How a fresh parameter is filled. */
export type Distribution = { normal: number } | { uniform: number } | { constant: number };

/** Where weights come from: an open safetensors file, or anything like it. */
export interface Weights {
  /** Said in errors. */
  readonly name: string;
  readonly tensors: ReadonlyMap<string, { readonly shape: Shape }>;
  /** The values of one tensor as f32. */
  floats(name: string): Promise<Float32Array>;
  /** The blocks of one that is stored in this format; null where it is in another. */
  blocks?(name: string, format: 'q8' | 'q4'): Promise<Blocks | null>;
}

/** What parameters are kept in. Those in other formats than f32 are not trained. */
export type WeightFormat = 'f32' | 'f16' | StorageFormat;
export const WEIGHT_FORMATS = ['f32', 'f16', 'bf16', 'q8', 'q4'] as const satisfies readonly WeightFormat[];

export interface LoadOptions {
  /** Turns a parameter's path into the file's key. */
  readonly rename?: (path: string) => string;
  /** Keys that a file may hold besides. */
  readonly ignore?: RegExp;
  /** What a parameter is kept in; f32 by default. */
  readonly format?: (path: string, shape: Shape) => WeightFormat;
}

let declaring = false;

/**
 * Makes modules by `make` (synchronous) whose parameters take no memory before they are filled: so a model that is loaded
 * in another format is never there in f32.
 */
export function declare<T>(make: () => T): T {
  declaring = true;
  try {
    return make();
  } finally {
    declaring = false;
  }
}

/**
 * A part of a model. Parameters are its fields of type Tensor; parts are its fields of type Module and arrays of them.
 * Fields carry the names that weight files use (`down_blocks`, `to_q`), so that a parameter's path
 * (`down_blocks.0.resnets.1.conv1.weight`) is its key in the file and no table of names is needed.
 */
export abstract class Module {
  readonly device: Device;
  readonly #distributions = new Map<string, Distribution>();
  #checkpointing = false;

  constructor(device: Device) {
    this.device = device;
  }

  /** A parameter for the field `name`, uninitialised until `initialize` or `load`. It belongs to the module. */
  protected parameter(name: string, shape: Shape, distribution: Distribution): Tensor {
    this.#distributions.set(name, distribution);
    const { device } = this;
    const tensor = declaring
      ? new Tensor(device, device.memory.declare(byteLength(sizeOf(shape), 'f32'), 'parameters'), 0, shape, 'f32')
      : empty(device, shape, 'f32', 'parameters');
    if (device.scope) tensor.storage.retain(); // the scope's part ends with it, the module's stays
    tensor.requiresGrad = true;
    return tensor;
  }

  /** Every parameter by its path, in the order of the fields. */
  namedParameters(): Map<string, Tensor> {
    const found = new Map<string, Tensor>();
    this.#visit('', (module, path) => {
      for (const [key, value] of Object.entries(module)) if (value instanceof Tensor) found.set(path + key, value);
    });
    return found;
  }

  /** Puts other tensors of the same shapes in the place of parameters: an arena's windows. The old ones are released. */
  replaceParameters(replacements: ReadonlyMap<string, Tensor>): void {
    this.#visit('', (module, path) => {
      for (const [key, value] of Object.entries(module)) {
        const replacement = value instanceof Tensor && replacements.get(path + key);
        if (!replacement) continue;
        if (!sameShape(replacement.shape, value.shape))
          throw new Error(
            `[module] ${path + key} is ${formatShape(value.shape)}, not ${formatShape(replacement.shape)}`,
          );
        value.storage.drop();
        (module as unknown as Record<string, Tensor>)[key] = replacement;
      }
    });
  }

  /** Whether `backward` computes gradients for this module's parameters. A frozen branch stores nothing. */
  setTrainable(trainable: boolean): void {
    for (const [path, tensor] of this.namedParameters()) {
      if (trainable && tensor.dtype !== 'f32')
        throw new Error(`[module] ${path} is kept in ${tensor.dtype}; parameters that are trained are f32`);
      tensor.requiresGrad = trainable;
    }
  }

  /**
   * Whether blocks of layers keep nothing but their inputs for the backward pass, which runs them again: less memory for
   * about a third more time.
   */
  setCheckpointing(on: boolean): void {
    this.#visit('', (module) => (module.#checkpointing = on));
  }

  /** Runs a block of layers, in a scope of its own; see `setCheckpointing`. */
  protected block(body: (...inputs: Tensor[]) => Tensor, ...inputs: Tensor[]): Tensor {
    return this.#checkpointing ? checkpoint(this.device, body, inputs) : scope(this.device, () => body(...inputs));
  }

  /** Fills every parameter from its distribution; values depend on the seed and the parameter's path alone. */
  initialize(seed: number): void {
    this.#visit('', (module, path) => {
      for (const [key, distribution] of module.#distributions) {
        const tensor = (module as unknown as Record<string, Tensor>)[key]!;
        const random = new HostRandom(randomKey(seed, `initialize/${path}${key}`));
        if ('constant' in distribution) write(tensor, new Float32Array(tensor.size).fill(distribution.constant));
        else if ('normal' in distribution)
          write(
            tensor,
            random.normal(tensor.size).map((value) => value * distribution.normal),
          );
        else
          write(
            tensor,
            Float32Array.from({ length: tensor.size }, () => (2 * random.uniform() - 1) * distribution.uniform),
          );
      }
    });
  }

  /**
   * Loads every parameter from `weights`, strictly: throws, before anything is changed, on missing names, unknown names, other
   * shapes and rows that a format doesn't hold. One tensor at a time is on the host.
   */
  async load(
    weights: Weights,
    { rename = (path) => path, ignore = /^$/, format = () => 'f32' }: LoadOptions = {},
  ): Promise<void> {
    const parameters = [...this.namedParameters()].map(([path, tensor]) => ({
      path,
      key: rename(path),
      tensor,
      dtype: format(path, tensor.shape),
    }));
    const fail = (...faults: (string | false)[]): void => {
      const found = faults.filter(Boolean);
      if (found.length > 0) throw new Error(`[load] ${weights.name} does not fit this model: ${found.join('; ')}`);
    };
    const missing = parameters.filter(({ key }) => !weights.tensors.has(key)).map(({ key }) => key);
    const known = new Set(parameters.map(({ key }) => key));
    const unknown = [...weights.tensors.keys()].filter((key) => !known.has(key) && !ignore.test(key));
    fail(missing.length > 0 && `missing ${list(missing)}`, unknown.length > 0 && `unknown ${list(unknown)}`);
    const shapes = parameters
      .filter(({ key, tensor }) => !sameShape(weights.tensors.get(key)!.shape, tensor.shape))
      .map(
        ({ key, tensor }) =>
          `${key} is ${formatShape(weights.tensors.get(key)!.shape)}, the model's is ${formatShape(tensor.shape)}`,
      );
    fail(shapes.length > 0 && list(shapes));
    const rows = parameters
      .filter(({ tensor, dtype }) => isStorageFormat(dtype) && (tensor.shape.at(-1) ?? 1) % formatMultiple(dtype) !== 0)
      .map(({ key, tensor, dtype }) => `${key} is ${formatShape(tensor.shape)}, and rows in ${dtype} are multiples of ${formatMultiple(dtype as StorageFormat)}`); // prettier-ignore
    fail(rows.length > 0 && `${list(rows)}; take f16`);
    for (const { path, key, tensor, dtype } of parameters) {
      if (dtype === tensor.dtype) write(tensor, await weights.floats(key));
      else this.replaceParameters(new Map([[path, await converted(this.device, weights, key, tensor.shape, dtype)]]));
    }
  }

  /** Releases the parameters and their gradients. */
  release(): void {
    for (const tensor of this.namedParameters().values()) {
      clearGradient(tensor);
      tensor.storage.drop();
    }
  }

  #visit(path: string, visitor: (module: Module, path: string) => void): void {
    visitor(this, path);
    for (const [key, value] of Object.entries(this)) {
      if (value instanceof Module) value.#visit(`${path}${key}.`, visitor);
      else if (Array.isArray(value))
        value.forEach((item, i) => item instanceof Module && item.#visit(`${path}${key}.${i}.`, visitor));
    }
  }
}

/** A tensor of a file in another format than f32. It belongs to the caller. */
async function converted(
  device: Device,
  weights: Weights,
  key: string,
  shape: Shape,
  dtype: WeightFormat,
): Promise<Tensor> {
  const own = (made: Tensor) => (device.scope ? keep(made) : made);
  const blocks = dtype === 'q8' || dtype === 'q4' ? await weights.blocks?.(key, dtype) : null;
  if (blocks)
    return device.memory.withTag('parameters', () => own(fromBlocks(device, blocks, shape, dtype as 'q8' | 'q4')));
  const values = await weights.floats(key);
  try {
    return own(scope(device, () => tensor(device, values, shape, { dtype, tag: 'parameters' })));
  } catch (error) {
    throw new Error(`[load] ${weights.name}: ${key}: ${(error as Error).message}`, { cause: error });
  }
}

/** The first three of a list of names, and how many more there are. */
function list(names: readonly string[]): string {
  return names.slice(0, 3).join(', ') + (names.length > 3 ? ` and ${names.length - 3} more` : '');
}
