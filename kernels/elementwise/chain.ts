/**
 * Chains of element-wise operations become one kernel, made from the operations' own expressions.
 *
 * `evaluate` gives a tensor whose content is *pending*: it remembers what is to be computed from which memory. An
 * element-wise operation on a pending tensor takes the expression over instead of a result; memory and a dispatch are
 * spent when something else asks for the values (a product, a copy, a read). What nobody asks for is never computed, and
 * what two ask for in different ways is computed twice, never with more dispatches than without fusion.
 */
import {
  byteLength,
  computedDType,
  formatShape,
  mebibytes,
  sameShape,
  sizeOf,
  Tensor,
  typed,
  windowOf,
  wgsl,
} from '../../engine/index.ts';
import type { Device, DType, Kernel, Pending, Shape, Storage, Window } from '../../engine/index.ts';

const source = wgsl(import.meta.url, './elementwise.wgsl');

/** An element-wise operation. */
export interface Expression {
  /** Of the WGSL function that is made of it: one name, one expression. */
  readonly name: string;
  /** WGSL of the operands x, y, z and of the numbers alpha and beta. f16 operands are f32 here. */
  readonly f: string;
  /** WGSL functions that `f` calls, each a text of its own. */
  readonly helpers?: readonly string[];
  readonly alpha?: number;
  readonly beta?: number;
  /** The result's, where it isn't that of x. */
  readonly dtype?: DType;
}

/** Memory that a chain reads. */
interface Leaf {
  readonly storage: Storage;
  readonly window: Window;
  readonly shape: Shape;
  readonly dtype: DType;
}

/** One operation of a chain, on leaves and on other steps' results. */
interface Step {
  readonly expression: Expression;
  readonly operands: readonly (Leaf | Step)[];
  readonly dtype: DType;
}

/** Beside the result these are nine bindings, of the ten that every device has (`openDevice` refuses others). */
const MAX_LEAVES = 8;
/** Longer chains gain nothing: their arithmetic outweighs the memory traffic that is saved. */
const MAX_STEPS = 16;

/** The shape that all broadcast to, by NumPy's rule: extents are aligned at the end and are equal or 1. */
export function broadcastShape(operation: string, ...shapes: readonly Shape[]): Shape {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, i) => {
    let extent = 1;
    for (const shape of shapes) {
      const own = shape[i - rank + shape.length] ?? 1;
      if (own === 1 || own === extent) continue;
      if (extent !== 1)
        throw new Error(
          `[${operation}] ${shapes.map(formatShape).join(' and ')} do not broadcast: extents must be equal or 1, counted from the end`,
        );
      extent = own;
    }
    return extent;
  });
}

/** Element steps of an operand along the result's dimensions: 0 where it is repeated. */
function stepsAlong(shape: Shape, result: Shape): number[] {
  let step = 1;
  const steps = Array<number>(result.length).fill(0);
  for (let i = shape.length - 1; i >= 0; i--) {
    const at = i + result.length - shape.length;
    steps[at] = shape[i] === 1 ? 0 : step;
    step *= shape[i]!;
  }
  return steps;
}

/** Joins neighbouring dimensions that every operand walks alike, so that four suffice for any usual broadcast. */
function collapse(result: Shape, operands: number[][]): { extents: number[]; steps: number[][] } | null {
  const extents: number[] = [];
  const steps: number[][] = operands.map(() => []);
  for (let i = result.length - 1; i >= 0; i--) {
    const extent = result[i]!;
    if (extent === 1) continue;
    const joins = extents.length > 0 && operands.every((operand, k) => operand[i] === steps[k]![0]! * extents[0]!);
    if (joins) extents[0]! *= extent;
    else {
      extents.unshift(extent);
      operands.forEach((operand, k) => steps[k]!.unshift(operand[i]!));
    }
  }
  if (extents.length > 4) return null;
  while (extents.length < 4) {
    extents.unshift(1);
    for (const operand of steps) operand.unshift(0);
  }
  return { extents, steps };
}

const arithmetic = (dtype: DType): 'f32' | 'i32' | 'u32' => (dtype === 'i32' || dtype === 'u32' ? dtype : 'f32');

/** A pending element-wise result: its expression, and a hold on the memory that it reads. */
class Chain implements Pending {
  readonly device: Device;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly step: Step;
  readonly leaves: Leaf[] = [];
  readonly #steps = new Set<Step>();
  /** What will hold the result. */
  storage: Storage | null = null;

  constructor(expression: Expression, inputs: readonly Tensor[], shape: Shape, dtype: DType) {
    this.device = inputs[0]!.device;
    this.shape = shape;
    this.dtype = dtype;
    try {
      const operands = inputs.map((input) => this.#take(input));
      this.step = { expression, operands, dtype };
    } catch (error) {
      this.discard();
      throw error;
    }
    this.#steps.add(this.step);
  }

  /** Whether four dimensions suffice to walk all operands. */
  get walkable(): boolean {
    return this.shape.length <= 4 || this.#joined() !== null;
  }

  get #broadcast(): Leaf[] {
    const size = sizeOf(this.shape);
    return this.leaves.filter((leaf) => sizeOf(leaf.shape) !== size);
  }

  #joined() {
    return collapse(
      this.shape,
      this.#broadcast.map((leaf) => stepsAlong(leaf.shape, this.shape)),
    );
  }

  /** Takes over a pending operand's expression, where the result is of its shape and the whole stays small. */
  #take(input: Tensor): Leaf | Step {
    const chain = pendingChain(input);
    if (chain && input.size === sizeOf(this.shape)) {
      const added = chain.leaves.filter((leaf) => !this.#find(leaf)).length;
      const steps = new Set([...this.#steps, ...chain.#steps]);
      // One more step and leaf for each operand still to come.
      if (this.leaves.length + added < MAX_LEAVES && steps.size < MAX_STEPS) {
        for (const step of chain.#steps) this.#steps.add(step);
        for (const leaf of chain.leaves) if (!this.#find(leaf)) this.#hold(leaf);
        return chain.step;
      }
    }
    const leaf = { storage: input.storage, window: input.window(), shape: input.shape, dtype: input.dtype };
    return this.#find(leaf) ?? this.#hold(leaf);
  }

  #find(leaf: Leaf): Leaf | undefined {
    return this.leaves.find((other) => sameLeaf(leaf, other));
  }

  #hold(leaf: Leaf): Leaf {
    leaf.storage.retain();
    this.leaves.push(leaf);
    return leaf;
  }

  /** Enters the leaves' lists of readers: they must not be overwritten before this is computed. */
  defer(storage: Storage): void {
    this.storage = storage;
    for (const leaf of this.leaves) leaf.window.block.readers.add(storage);
  }

  make(): void {
    this.write(windowOf(this.storage!, 0, byteLength(sizeOf(this.shape), this.dtype)));
    this.discard();
  }

  discard(): void {
    for (const leaf of this.leaves) {
      if (this.storage) leaf.window.block.readers.delete(this.storage);
      leaf.storage.drop();
    }
    this.leaves.length = 0;
  }

  /** Records the kernel that computes the chain into `out`, in parts where it is larger than a binding. */
  write(out: Window): void {
    const { device } = this;
    const size = sizeOf(this.shape);
    const bytes = byteLength(1, this.dtype) / (this.dtype === 'f16' ? 2 : 1);
    if (size * Math.max(bytes, ...this.leaves.map(bytesEach)) <= device.bindingLimit) {
      this.#writePart(out, 0, size, false);
      return;
    }
    for (const leaf of this.#broadcast)
      if (leaf.window.bytes > device.bindingLimit)
        throw new Error(
          `[${this.step.expression.name}] ${formatShape(leaf.shape)}, which is repeated, takes ${mebibytes(leaf.window.bytes)}, ` +
            `more than the ${mebibytes(device.bindingLimit)} that can be bound at once here. Compute it in parts`,
        );
    // Parts begin at multiples of 256 bytes in every operand.
    const widest = Math.max(bytes, ...this.leaves.map(bytesEach));
    const part = Math.floor(device.bindingLimit / widest / 256) * 256;
    for (let start = 0; start < size; start += part)
      this.#writePart(
        { block: out.block, offset: out.offset + start * bytes, bytes: roundUp(Math.min(part, size - start) * bytes) },
        start,
        Math.min(part, size - start),
        true,
      );
  }

  #writePart(out: Window, start: number, count: number, part: boolean): void {
    const operand = this.operand(true);
    const { vec4 } = operand;
    const key = `${operand.key}→${this.dtype}`;
    const kernel = cached(this.device, key, () =>
      this.device.kernel(source, {
        NAME: operand.name,
        ...typed(this),
        ...(operand.f16 ? { F16: true } : {}),
        VEC4: vec4,
        OUT: `@group(0) @binding(${this.leaves.length})\n`,
        OPERAND: operand.text,
        FIELDS: `${operand.fields}\n`,
      }),
    );
    const windows = this.leaves.map((leaf) => {
      if (!part || sizeOf(leaf.shape) !== sizeOf(this.shape)) return leaf.window;
      const each = bytesEach(leaf);
      return { ...leaf.window, offset: leaf.window.offset + start * each, bytes: roundUp(count * each) };
    });
    const params = { size: count, ...operand.params };
    if ('start' in operand.params) Object.assign(params, { start });
    this.device.dispatch(kernel, [...windows, out], params, Math.ceil(count / (vec4 ? 256 : 64)));
  }

  /** The chain as what a kernel reads; see `Operand`. */
  operand(wantVec4: boolean): Operand {
    const { leaves } = this;
    const broadcast = this.#broadcast;
    const { extents, steps } = this.#joined()!;
    const splat = (along: number[]) => along[3] === 0 && extents[3]! > 1;
    const vec4 =
      wantVec4 &&
      (broadcast.length === 0 ||
        (extents[3]! % 4 === 0 &&
          steps.every(
            (along) => along[3] === 0 || (along[3] === 1 && along.every((step, i) => i === 3 || step % 4 === 0)),
          )));
    const modes = leaves.map((leaf) => {
      const at = broadcast.indexOf(leaf);
      return at < 0 ? 'flat' : splat(steps[at]!) ? 'splat' : 'stepped';
    });
    const order = this.#order();
    const key =
      `${vec4 ? 4 : 1} ` +
      leaves.map((leaf, i) => `${leaf.dtype}${modes[i]} `).join('') +
      order
        .map(({ expression, operands, dtype }) => {
          return `${expression.name}:${dtype}(${operands.map((operand) => place(operand, leaves, order)).join()})`;
        })
        .join(' ');
    const params: Record<string, number> = {};
    if (broadcast.length > 0) {
      params['start'] = 0;
      for (let d = 1; d < 4; d++) params[`n${d}`] = extents[d]!;
      broadcast.forEach((leaf, b) => {
        for (let d = 0; d < 4; d++) params[`step${leaves.indexOf(leaf)}_${d}`] = steps[b]![d]!;
      });
    }
    const integers = Object.keys(params).length;
    order.forEach(({ expression: { alpha, beta } }, i) => {
      if (alpha !== undefined) params[`alpha${i}`] = alpha;
      if (beta !== undefined) params[`beta${i}`] = beta;
    });
    const dtype = this.dtype;
    return {
      key,
      name: order.map(({ expression }) => expression.name).join(' '),
      vec4,
      f16: leaves.some((leaf) => leaf.dtype === 'f16'),
      windows: leaves.map((leaf) => leaf.window),
      params,
      get fields() {
        return Object.keys(params)
          .map((name, i) => `${name}: ${i < integers ? 'u32' : 'f32'},\n`)
          .join('  ');
      },
      get text() {
        return operandText(leaves, modes, order, dtype, vec4);
      },
    };
  }

  /** The steps, each after those that it uses. */
  #order(): Step[] {
    const order: Step[] = [];
    const visit = (step: Step): void => {
      if (order.includes(step)) return;
      for (const operand of step.operands) if (!('window' in operand)) visit(operand);
      order.push(step);
    };
    visit(this.step);
    return order;
  }
}

/** The same elements: chains that are joined may each hold them. */
const sameLeaf = (a: Leaf, b: Leaf): boolean =>
  a === b ||
  (a.window.block === b.window.block &&
    a.window.offset === b.window.offset &&
    a.dtype === b.dtype &&
    sameShape(a.shape, b.shape));

/** Where an operand's value stands in the text: a leaf's or a step's. */
const place = (operand: Leaf | Step, leaves: readonly Leaf[], order: readonly Step[]): string =>
  'window' in operand ? `v${leaves.findIndex((leaf) => sameLeaf(leaf, operand))}` : `r${order.indexOf(operand)}`;

const roundUp = (bytes: number) => Math.max(16, Math.ceil(bytes / 16) * 16);
const bytesEach = ({ dtype }: Leaf) => (dtype === 'f16' ? 2 : 4);

/** A tensor as a kernel reads it: memory, or a chain computed on the way. The text declares bindings from 0 on. */
export interface Operand {
  /** Identifies text and fields. */
  readonly key: string;
  readonly name: string;
  /** Whether `load(i)` of the text gives a vec4f, elements 4i … 4i + 3, or one f32; of integers a vec4i, an i32, …. */
  readonly vec4: boolean;
  /** Whether the text needs the f16 extension. */
  readonly f16: boolean;
  /** What to bind, in order. */
  readonly windows: readonly Window[];
  /** Values of the fields. */
  readonly params: Readonly<Record<string, number>>;
  /** Members of `struct Params`. */
  readonly fields: string;
  readonly text: string;
}

function operandText(leaves: readonly Leaf[], modes: string[], order: readonly Step[], dtype: DType, vec4: boolean) {
  const lines: string[] = [];
  leaves.forEach((leaf, i) => {
    const wide = vec4 && modes[i] !== 'splat';
    lines.push(
      `@group(0) @binding(${i}) var<storage, read> operand${i}: array<${wide ? `vec4<${leaf.dtype}>` : leaf.dtype}>;`,
    );
  });
  const functions = new Map<string, string>();
  const suffix = (types: string[]) => (types.every((type) => type === 'f32') ? '' : `_${types.join('_')}`);
  const calls = order.map(({ expression, operands, dtype: result }, i) => {
    const { name, f, helpers, alpha, beta } = expression;
    const types = operands.map((operand) => arithmetic(operand.dtype));
    const own = `${name}${suffix([...types, arithmetic(result)])}`;
    const parameters = types.map((type, k) => `${'xyz'[k]}: ${type}`);
    const values = operands.map((operand) => place(operand, leaves, order));
    for (const [number, value] of Object.entries({ alpha, beta })) {
      if (value === undefined) continue;
      parameters.push(`${number}: f32`);
      values.push(`params.${number}${i}`);
    }
    for (const helper of helpers ?? []) functions.set(helper, helper);
    const text = `fn ${own}_(${parameters.join(', ')}) -> ${arithmetic(result)} { return ${f}; }`;
    functions.set(own, text);
    return `  let r${i} = ${own}_(${values.join(', ')});`;
  });
  lines.push(...functions.values());
  const type = arithmetic(dtype);
  const parameters = leaves.map((leaf, i) => `v${i}: ${arithmetic(leaf.dtype)}`);
  lines.push(
    `fn chain(${parameters.join(', ')}) -> ${type} {`,
    ...calls,
    `  return r${order.length - 1};`,
    '}',
    `fn load(i: u32) -> ${vec4 ? `vec4<${type}>` : type} {`,
  );
  if (modes.some((mode) => mode !== 'flat'))
    lines.push(
      `  var rest = params.start + i${vec4 ? ' * 4u' : ''};`,
      '  let i3 = rest % params.n3; rest /= params.n3;',
      '  let i2 = rest % params.n2; rest /= params.n2;',
      '  let i1 = rest % params.n1;',
      '  let i0 = rest / params.n1;',
    );
  leaves.forEach((leaf, k) => {
    const [one, four] = [arithmetic(leaf.dtype), `vec4<${arithmetic(leaf.dtype)}>`];
    const place = `i0 * params.step${k}_0 + i1 * params.step${k}_1 + i2 * params.step${k}_2 + i3 * params.step${k}_3`;
    const at = modes[k] === 'flat' ? 'i' : vec4 && modes[k] === 'stepped' ? `(${place}) / 4u` : place;
    const loaded = `operand${k}[${at}]`;
    lines.push(
      `  let v${k} = ${!vec4 ? `${one}(${loaded})` : modes[k] === 'splat' ? `${four}(${one}(${loaded}))` : `${four}(${loaded})`};`,
    );
  });
  const call = (component: string) => `chain(${leaves.map((_, i) => `v${i}${component}`).join(', ')})`;
  lines.push(
    vec4 ? `  return vec4<${type}>(${['.x', '.y', '.z', '.w'].map(call).join(', ')});` : `  return ${call('')};`,
  );
  lines.push('}');
  return lines.join('\n');
}

const kernels = new WeakMap<Device, Map<string, Kernel>>();

/** A kernel by a short key, such as an operand's: texts are made once. */
export function cached(device: Device, key: string, make: () => Kernel): Kernel {
  let known = kernels.get(device);
  if (!known) kernels.set(device, (known = new Map<string, Kernel>()));
  let kernel = known.get(key);
  if (!kernel) known.set(key, (kernel = make()));
  return kernel;
}

/** The chain that a tensor is still to be computed by, if it is seen in the shape that it has there. */
function pendingChain(x: Tensor): Chain | null {
  const { pending } = x.storage;
  return pending instanceof Chain && pending.dtype === x.dtype && sameShape(pending.shape, x.shape) ? pending : null;
}

/**
 * An element-wise result, pending; or, with `target`, computed at once into that tensor, whose shape the operands
 * broadcast to.
 */
export function evaluate(expression: Expression, inputs: readonly Tensor[], target?: Tensor | null): Tensor {
  const { device } = inputs[0]!;
  const shape = target?.shape ?? broadcastShape(expression.name, ...inputs.map((input) => input.shape));
  const dtype = target?.dtype ?? computedDType(device, expression.dtype ?? inputs[0]!.dtype);
  let chain = new Chain(expression, inputs, shape, dtype);
  try {
    if (!chain.walkable) {
      // With what was taken over; perhaps not without.
      chain.discard();
      for (const input of inputs) input.window();
      chain = new Chain(expression, inputs, shape, dtype);
      if (!chain.walkable)
        throw new Error(
          `[${expression.name}] broadcasting over ${formatShape(shape)} alternates more than four times; reshape or expand first`,
        );
    }
    if (target) {
      chain.write(target.window());
      chain.discard();
      return target;
    }
    const storage = device.memory.defer(byteLength(sizeOf(shape), dtype), chain);
    chain.defer(storage);
    return new Tensor(device, storage, 0, shape, dtype);
  } catch (error) {
    chain.discard();
    throw error;
  }
}

/**
 * What a kernel reads in place of a binding of x: a pending chain is computed on the way, and x stays pending. Four at a
 * time where `wantVec4` and the operands allow; `kernel` stands in errors.
 */
export function operandOf(x: Tensor, wantVec4: boolean, kernel: string): Operand {
  const chain = pendingChain(x);
  if (chain && chain.leaves.every(({ window }) => window.bytes <= x.device.bindingLimit))
    return chain.operand(wantVec4);
  const [stored, loaded] = wantVec4
    ? [`vec4<${x.dtype}>`, `vec4<${arithmetic(x.dtype)}>`]
    : [x.dtype, arithmetic(x.dtype)];
  return {
    key: `${wantVec4 ? 4 : 1} ${x.dtype}`,
    name: '',
    vec4: wantVec4,
    f16: x.dtype === 'f16',
    windows: [x.device.bindable(x, kernel)],
    params: {},
    fields: '',
    text:
      `@group(0) @binding(0) var<storage, read> x: array<${stored}>;\n` +
      `fn load(i: u32) -> ${loaded} { return ${loaded}(x[i]); }`,
  };
}
