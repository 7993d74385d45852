/** What every engine of the comparison does, each in a process of its own. */
import { HostRandom, randomKey, sizeOf } from '../../../engine/index.ts';
import type { Shape } from '../../../engine/index.ts';
import { describeCase } from '../cases.ts';
import type { Case } from '../cases.ts';

/**
 * What is timed, until the device is done: `forward` with inputs and results on the device; `copies`, the same from host
 * arrays to a host array; `gradient`, forward and backward to all inputs, on the device.
 */
export type Pass = 'forward' | 'copies' | 'gradient';

/** A case ready to run. */
export interface Prepared {
  run(): Promise<void>;
  /** Σ y² over the result, or Σ g² over all gradients: shows that every engine computes the same. */
  check(): Promise<number>;
  release(): void;
}

/** Null where the engine has no such pass. Throws where it should have, and fails. */
export type Engine = (c: Case, pass: Pass) => Promise<Prepared | null>;

/** An engine's module. `load` gives a package of the folder where the peers are installed. */
export type Open = (load: (name: string) => unknown) => Promise<Engine>;

/** The case's inputs in this project's layouts, the same for every engine; and what the result's gradient is. */
export function caseData(c: Case): { inputs: { data: Float32Array; shape: Shape }[]; upstream: Float32Array } {
  const normal = (what: string, shape: Shape) => new HostRandom(randomKey(0, what)).normal(sizeOf(shape));
  const { inputs, output } = describeCase(c);
  return {
    inputs: inputs.map((shape, i) => ({ data: normal(`input ${i}`, shape), shape })),
    upstream: normal('upstream', output),
  };
}

/** Host data with its dimensions in another order: result dimension i is dimension `order[i]`. */
export function permute(data: Float32Array, shape: Shape, order: readonly number[]): Float32Array {
  const steps = shape.map((_, i) => sizeOf(shape.slice(i + 1)));
  const result = new Float32Array(data.length);
  let to = 0;
  const walk = (depth: number, from: number): void => {
    if (depth === order.length) {
      result[to++] = data[from]!;
      return;
    }
    const axis = order[depth]!;
    for (let i = 0; i < shape[axis]!; i++) walk(depth + 1, from + i * steps[axis]!);
  };
  walk(0, 0);
  return result;
}

export const sumOfSquares = (...arrays: ArrayLike<number>[]): number => {
  let sum = 0;
  for (const array of arrays) for (let i = 0; i < array.length; i++) sum += array[i]! ** 2;
  return sum;
};
