import type { Device } from './device.ts';
import type { TapeNode } from './tape.ts';
import { Tensor } from './tensor.ts';

/** What was made since a scope was opened: it is released when the scope closes, unless it is part of the result. */
export class Scope {
  readonly parent: Scope | null;
  readonly tensors: Tensor[] = [];
  readonly nodes: TapeNode[] = [];

  constructor(parent: Scope | null) {
    this.parent = parent;
  }
}

/**
 * Runs `body` and releases every tensor made inside, except those reachable in its result (a tensor, or arrays and plain
 * objects of them) and what the tape needs for their gradients. Synchronous; scopes nest, and results pass to the outer
 * scope, or to the caller, who then calls `release`.
 */
export function scope<T>(device: Device, body: () => T): T {
  const inner = new Scope(device.scope);
  device.scope = inner;
  const kept = new Set<Tensor>();
  // The body's error is what the user must see, whatever state it left; and one tensor's must not leave the others behind.
  const failures: unknown[] = [];
  const attempt = (work: () => void): void => {
    try {
      work();
    } catch (error) {
      failures.push(error);
    }
  };
  let result: T;
  attempt(() => {
    result = body();
    if (result instanceof Promise)
      throw new Error('[scope] the body must be synchronous; await before or after the scope');
    collect(result, kept);
  });
  device.scope = inner.parent;
  for (const tensor of inner.tensors) {
    if (!kept.has(tensor)) attempt(() => tensor.storage.drop());
    else inner.parent?.tensors.push(tensor);
  }
  attempt(() => closeNodes(inner, kept));
  if (failures.length > 0) throw failures[0];
  return result!;
}

/**
 * Takes part of a tensor's ownership beyond scopes (parameters, caches); `release` gives it back. A pending content is
 * computed now: what it is made from need not live as long.
 */
export function keep<T extends Tensor>(tensor: T): T {
  tensor.window();
  tensor.storage.retain();
  return tensor;
}

/** Gives up a tensor kept with `keep`, or one made outside every scope. */
export function release(...tensors: readonly Tensor[]): void {
  for (const tensor of tensors) tensor.storage.drop();
}

function collect(value: unknown, into: Set<Tensor>): void {
  if (value instanceof Tensor) into.add(value);
  else if (Array.isArray(value)) for (const item of value) collect(item, into);
  else if (value !== null && typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype)
    for (const item of Object.values(value)) collect(item, into);
}

/** Nodes that lead to a kept tensor move to the outer scope; the others will never run backward and let go of what they saved. */
function closeNodes(inner: Scope, kept: ReadonlySet<Tensor>): void {
  if (inner.nodes.length === 0) return;
  const mine = new Set(inner.nodes);
  const reached = new Set<TapeNode>();
  const stack: TapeNode[] = [];
  for (const tensor of kept) if (tensor.node) stack.push(tensor.node);
  // A tensor made outside but computed inside cannot exist, so edges never lead out of `mine` and back in.
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (reached.has(node) || !mine.has(node)) continue;
    reached.add(node);
    for (const edge of node.edges) if (edge && edge.node) stack.push(edge.node);
  }
  for (const node of inner.nodes) {
    if (!reached.has(node)) node.dispose();
    else inner.parent?.nodes.push(node);
  }
}
