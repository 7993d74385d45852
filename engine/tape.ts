import type { Device } from './device.ts';
import { isStorageFormat } from './formats.ts';
import { scope } from './scope.ts';
import { checkShape, formatShape, requireShape, sameShape, sizeOf } from './shape.ts';
import type { Shape } from './shape.ts';
import { copy, empty, tensor, Tensor, view } from './tensor.ts';
import type { DType } from './tensor.ts';

/** What an operation's forward and backward share. */
export class Context {
  readonly device: Device;
  /** Which inputs want a gradient; all false where nothing is recorded. */
  readonly needs: readonly boolean[];
  /** Tensors that the forward pass saved for the gradient. */
  saved: Tensor[] = [];
  readonly #targets: readonly (Tensor | null)[];
  readonly #shapes: readonly Shape[];
  readonly #dtypes: readonly DType[];

  constructor(device: Device, inputs: readonly (Tensor | null)[], needs: readonly boolean[]) {
    this.device = device;
    this.needs = needs;
    // A leaf that stands in two places (a · a) has one place in the arena: only its first gradient is written there.
    this.#targets = inputs.map((input, i) =>
      needs[i] && input!.requiresGrad && inputs.indexOf(input) === i ? input : null,
    );
    this.#shapes = inputs.map((input) => input?.shape ?? []);
    this.#dtypes = inputs.map((input) => input?.dtype ?? 'f32');
  }

  /** Holds tensors until the backward pass has used them; does nothing when no input wants a gradient. */
  save(...tensors: Tensor[]): void {
    if (!this.needs.includes(true)) return;
    for (const tensor of tensors) tensor.storage.retain();
    this.saved.push(...tensors);
  }

  /**
   * Where `backward` writes the gradient of input `i`: its place in the arena when this is the leaf's first gradient,
   * which saves a copy, else fresh memory of the input's shape and dtype.
   */
  gradient(i: number): Tensor {
    return this.target(i) ?? empty(this.device, this.#shapes[i]!, this.#dtypes[i]!);
  }

  /** The place in the arena alone, for operations that make their own memory otherwise. */
  target(i: number): Tensor | null {
    const leaf = this.#targets[i];
    return leaf && leaf.grad === null ? leaf.gradTarget : null;
  }

  inputShape(i: number): Shape {
    return this.#shapes[i]!;
  }

  inputDType(i: number): DType {
    return this.#dtypes[i]!;
  }

  dispose(): void {
    for (const tensor of this.saved) tensor.storage.drop();
    this.saved = [];
  }
}

type Inputs = readonly (Tensor | null)[];

/** What an input's dtype may be; see `Operation.dtypes`. */
export type DTypeRule = DType | 'float' | 'alike' | 'any';

/** An operation: one definition of its shape rule, its forward and its gradient. */
export interface Operation<I extends Inputs, A, O extends Tensor | readonly Tensor[]> {
  readonly name: string;
  /**
   * The inputs' dtypes, a rule each; what is left out is `'float'`: f32 or f16, all such inputs alike, and so are the
   * result and the gradients. `'alike'`: any that kernels compute with, the same for all. `'any'`: no matter which.
   */
  readonly dtypes?: readonly DTypeRule[] | 'alike' | 'any';
  /** Shape of the (first) result. Throws the error that the user sees. */
  shape(inputs: I, attributes: A): Shape;
  /** Records the work. `shape` is what the shape rule gave. */
  forward(ctx: Context, inputs: I, attributes: A, shape: Shape): O;
  /** Gradients of the inputs, `null` where none is needed; `grads` are those of the results (`null`: not used further). */
  backward(ctx: Context, grads: readonly (Tensor | null)[], attributes: A): readonly (Tensor | null)[];
}

/** Declares an operation; see `apply`. */
export function operation<I extends Inputs, A, O extends Tensor | readonly Tensor[] = Tensor>(
  definition: Operation<I, A, O>,
): Operation<I, A, O> {
  return definition;
}

/** Leads to where an input's gradient goes: the node that made it, or a leaf. */
interface Edge {
  node: TapeNode | null;
  output: number; // which result of `node` the input was
  leaf: Tensor | null;
}

let nextNode = 0;

/** One recorded operation. */
export class TapeNode {
  /** Counts up in recording order, which is a topological order. */
  readonly id = nextNode++;
  readonly name: string;
  readonly edges: readonly (Edge | null)[];
  /** Gradients of the results, as they arrive. */
  grads: (Tensor | null)[];
  #ctx: Context | null;
  readonly #backward: (ctx: Context, grads: readonly (Tensor | null)[]) => readonly (Tensor | null)[];

  constructor(
    name: string,
    ctx: Context,
    inputs: Inputs,
    outputs: number,
    backward: (ctx: Context, grads: readonly (Tensor | null)[]) => readonly (Tensor | null)[],
  ) {
    this.name = name;
    this.#ctx = ctx;
    this.#backward = backward;
    this.grads = Array<Tensor | null>(outputs).fill(null);
    this.edges = inputs.map((input, i) => {
      if (!ctx.needs[i]) return null;
      return input!.node
        ? { node: input!.node, output: outputIndex.get(input!) ?? 0, leaf: null }
        : { node: null, output: 0, leaf: input };
    });
  }

  run(): readonly (Tensor | null)[] {
    if (!this.#ctx)
      throw new Error(
        `[backward] ${this.name} was already differentiated or its scope has closed; compute the loss again`,
      );
    return this.#backward(this.#ctx, this.grads);
  }

  /** Lets go of saved tensors and of gradients not used. */
  dispose(): void {
    this.#ctx?.dispose();
    this.#ctx = null;
    for (const grad of this.grads) grad?.storage.drop();
    this.grads = this.grads.map(() => null);
  }
}

/** Which result of its node a tensor is, where it isn't the first. */
const outputIndex = new WeakMap<Tensor, number>();

function checkDTypes(name: string, inputs: Inputs, rules: readonly DTypeRule[] | 'alike' | 'any' = []): void {
  if (rules === 'any') return;
  let like: DType | null = null;
  inputs.forEach((input, i) => {
    const rule = rules === 'alike' ? 'alike' : (rules[i] ?? 'float');
    if (!input || rule === 'any') return;
    const { dtype } = input;
    const fail = (needed: string): never => {
      throw new Error(`[${name}] input ${i} is ${dtype}; ${needed} is needed`);
    };
    if (rule === 'float' || rule === 'alike') {
      if (like !== null && dtype !== like) fail(`${like}, as the inputs before it,`);
      if (rule === 'float' && dtype !== 'f32' && dtype !== 'f16') fail('f32 or f16');
      if (isStorageFormat(dtype)) fail('f32, f16, i32 or u32');
      like = dtype;
    } else if (dtype !== rule) fail(rule);
  });
}

/** What is wrong with inputs that don't share a device. */
function wrongInput(inputs: Inputs): string {
  const at = inputs.findIndex((input) => input !== null && !(input instanceof Tensor));
  if (at >= 0) return `input ${at} must be a tensor, not ${String(inputs[at])}`;
  return inputs.some((input) => input) ? 'the inputs lie on different devices' : 'needs a tensor';
}

/** Runs an operation and, where an input wants a gradient, records it on the tape. */
export function apply<I extends Inputs, A, O extends Tensor | readonly Tensor[]>(
  op: Operation<I, A, O>,
  inputs: I,
  attributes: A,
): O {
  const device = inputs.find((input) => input !== null)?.device;
  if (!device || inputs.some((input) => input !== null && (input as Tensor | undefined)?.device !== device))
    throw new Error(`[${op.name}] ${wrongInput(inputs)}`);
  checkDTypes(op.name, inputs, op.dtypes);
  const shape = op.shape(inputs, attributes);
  const needs = inputs.map((input) => device.recording && input !== null && input.tracked);
  const ctx = new Context(device, inputs, needs);
  const result = noGrad(device, () => scope(device, () => op.forward(ctx, inputs, attributes, shape)));
  if (needs.includes(true)) {
    const results: readonly Tensor[] = result instanceof Tensor ? [result] : result;
    const node = new TapeNode(op.name, ctx, inputs, results.length, (c, grads) => op.backward(c, grads, attributes));
    results.forEach((tensor, i) => {
      if (tensor.requiresGrad || inputs.includes(tensor))
        throw new Error(`[${op.name}] an operation must not return its input`);
      tensor.node = node;
      if (i > 0) outputIndex.set(tensor, i);
    });
    device.scope?.nodes.push(node);
  }
  return result;
}

/**
 * Runs `body(...inputs)` without keeping what its gradient needs: the backward pass runs it again (Chen et al., 2016:
 * memory for a second forward pass). The body is synchronous, gives one tensor, and must do the same both times.
 * Tensors that it uses beside its inputs get no gradient, unless they are parameters.
 */
export function checkpoint(device: Device, body: (...inputs: Tensor[]) => Tensor, inputs: readonly Tensor[]): Tensor {
  let tracked = false;
  const result = scope(device, () => {
    const made = body(...inputs);
    if (inputs.includes(made)) throw new Error('[checkpoint] the body must not return its input');
    tracked = made.node !== null;
    outputIndex.delete(made);
    made.node = null; // so that what was saved for its gradient is let go of
    return made;
  });
  if (!tracked) return result;
  const ctx = new Context(
    device,
    inputs,
    inputs.map((input) => input.tracked),
  );
  for (const input of inputs) input.storage.retain();
  ctx.saved.push(...inputs);
  const node = new TapeNode('checkpoint', ctx, inputs, 1, ({ saved, needs }, [grad]) => {
    const copies = saved.map((input) => view(input, 0, input.shape));
    copies.forEach((copy, i) => (copy.requiresGrad = needs[i]!));
    const first = nextNode;
    device.recording = true;
    try {
      const again = body(...copies);
      if (again.node) propagate(again, grad!, first);
    } finally {
      device.recording = false;
    }
    return copies.map((copy) => {
      if (!copy.grad) return null;
      const gradient = view(copy.grad, 0, copy.shape); // held by the scope, as other gradients are
      clearGradient(copy);
      return gradient;
    });
  });
  result.node = node;
  device.scope?.nodes.push(node);
  return result;
}

/** Runs `body`, which is synchronous, without recording on the tape. */
export function noGrad<T>(device: Device, body: () => T): T {
  const before = device.recording;
  device.recording = false;
  try {
    const result = body();
    if (result instanceof Promise) throw new Error('[noGrad] the body must be synchronous; await before or after it');
    return result;
  } finally {
    device.recording = before;
  }
}

/** How the tape adds two gradients; the operations hand it over, since the engine knows none. */
let add: ((a: Tensor, b: Tensor) => Tensor) | null = null;
/** `target += source`, in place. */
let accumulate: ((target: Tensor, source: Tensor) => void) | null = null;

export function registerAddition(operations: {
  add: (a: Tensor, b: Tensor) => Tensor;
  accumulate: (target: Tensor, source: Tensor) => void;
}): void {
  add = operations.add;
  accumulate = operations.accumulate;
}

/**
 * Reverse-mode differentiation of `output` (one element, or give `upstream` of its shape): adds each leaf's gradient to
 * its `grad`. Saved tensors are released as they are consumed; the graph can be used once.
 */
export function backward(output: Tensor, upstream?: Tensor): void {
  const device = output.device;
  if (!upstream) {
    if (output.size !== 1)
      throw new Error(
        `[backward] ${formatShape(output.shape)} is not one element; give the upstream gradient of its shape`,
      );
    const one = tensor(device, [1], output.shape, { dtype: output.dtype });
    backward(output, one);
    if (device.scope === null) one.storage.drop();
    return;
  }
  if (!sameShape(output.shape, upstream.shape) || output.dtype !== upstream.dtype)
    throw new Error(
      `[backward] the upstream gradient is ${upstream.dtype} ${formatShape(upstream.shape)}, ` +
        `the output ${output.dtype} ${formatShape(output.shape)}`,
    );
  if (!output.node) throw new Error('[backward] the output does not depend on any tensor that requires a gradient');
  propagate(output, upstream, 0);
}

/** Sends the gradient `seed` of `output` to the leaves, by way of the nodes from `first` on. */
function propagate(output: Tensor, seed: Tensor, first: number): void {
  const { device } = output;
  const within = (edge: Edge | null): edge is Edge => edge !== null && (edge.node === null || edge.node.id >= first);
  noGrad(device, () => {
    const nodes = reachable(output.node!, within);
    seed.storage.retain();
    arrive(output.node!, outputIndex.get(output) ?? 0, seed);
    for (const node of nodes) {
      scope(device, () => {
        const grads = node.grads.every((grad) => grad === null) ? [] : node.run();
        node.edges.forEach((edge, i) => {
          const grad = grads[i];
          if (!within(edge) || !grad) return;
          if (edge.leaf) deliver(edge.leaf, grad, seed);
          else {
            grad.storage.retain();
            arrive(edge.node!, edge.output, grad);
          }
        });
      });
      node.dispose();
    }
  });
}

/** Nodes that lead to `root`, latest first: each comes after all that used its result. */
function reachable(root: TapeNode, within: (edge: Edge | null) => boolean): TapeNode[] {
  const found = new Set<TapeNode>([root]);
  for (const node of found) for (const edge of node.edges) if (edge?.node && within(edge)) found.add(edge.node);
  return [...found].sort((a, b) => b.id - a.id);
}

/** Adds a gradient (held by the caller) to those of a node's result. */
function arrive(node: TapeNode, output: number, grad: Tensor): void {
  const before = node.grads[output];
  if (!before) {
    node.grads[output] = grad;
    return;
  }
  const sum = add!(before, grad);
  sum.storage.retain();
  before.storage.drop();
  grad.storage.drop();
  node.grads[output] = sum;
}

/** Adds a gradient to a leaf's. `seed` is the caller's: no leaf may have its memory for a gradient. */
function deliver(leaf: Tensor, grad: Tensor, seed: Tensor): void {
  if (!sameShape(leaf.shape, grad.shape))
    throw new Error(`[backward] a gradient ${formatShape(grad.shape)} for a leaf ${formatShape(leaf.shape)}`);
  if (leaf.gradTarget) {
    if (leaf.grad) accumulate!(leaf.grad, grad);
    else if (grad !== leaf.gradTarget) copy(grad, leaf.gradTarget);
    leaf.grad = leaf.gradTarget;
  } else {
    // Not in place: the gradient's memory may also be another tensor's gradient.
    const sum = leaf.grad ? add!(leaf.grad, grad) : grad.storage === seed.storage ? copyOf(grad) : grad;
    sum.storage.retain();
    leaf.grad?.storage.drop();
    leaf.grad = sum;
  }
}

function copyOf(source: Tensor): Tensor {
  const result = empty(source.device, source.shape, source.dtype);
  copy(source, result);
  return result;
}

/** Forgets a leaf's gradient; the next one starts afresh. */
export function clearGradient(leaf: Tensor): void {
  if (leaf.grad && leaf.grad !== leaf.gradTarget) leaf.grad.storage.drop();
  leaf.grad = null;
}

const reshapeOp = operation<readonly [Tensor], { shape: Shape }>({
  name: 'reshape',
  dtypes: 'any',
  shape([x], { shape }) {
    checkShape('reshape', shape);
    if (sizeOf(shape) !== x.size)
      throw new Error(
        `[reshape] ${formatShape(x.shape)} has ${x.size} elements, ${formatShape(shape)} needs ${sizeOf(shape)}`,
      );
    return shape;
  },
  forward: (_ctx, [x], _, shape) => view(x, 0, shape),
  backward(ctx, [grad], _) {
    return [view(grad!, 0, ctx.inputShape(0))];
  },
});

/** The same elements under another shape; one extent may be −1. Free: no copy. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  requireShape('reshape', shape);
  const known = shape.reduce((product, extent) => (extent === -1 ? product : product * extent), 1);
  if (shape.includes(-1) && !(x.size % known === 0))
    throw new Error(`[reshape] ${formatShape(x.shape)} does not fill ${formatShape(shape)}`);
  return apply(reshapeOp, [x], { shape: shape.map((extent) => (extent === -1 ? x.size / known : extent)) });
}
