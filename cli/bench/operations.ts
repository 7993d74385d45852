/** What the benchmark runs of single operations: the samples of the operations' table, or cases from a file. */
import {
  backward,
  clearGradient,
  formatShape,
  HostRandom,
  randomKey,
  release,
  scope,
  tensor,
} from '../../engine/index.ts';
import type { Device, DType, Tensor } from '../../engine/index.ts';
import * as operations from '../../kernels/index.ts';
import { makeInput } from '../../test/kernels/row.ts';
import type { Row } from '../../test/kernels/row.ts';
import { table } from '../../test/kernels/table/index.ts';
import { describeCase } from './cases.ts';
import type { Case } from './cases.ts';
import type { Task } from './measure.ts';

/** Tasks whose inputs are made when their turn comes, and released after it. */
export interface Benchmark {
  readonly name: string;
  /** Calls `visit` with the forward pass and, where there is a gradient, with forward and backward. */
  each(device: Device, visit: (task: Task) => Promise<void>): Promise<void>;
}

type AnyRow = Row<(...args: unknown[]) => unknown>;
type BenchSample = NonNullable<AnyRow['bench']>[number];

/** Every `bench` sample of the operations' table. */
export const tableBenchmarks = (): Benchmark[] =>
  Object.entries(table).flatMap(([name, typed]) => {
    const row = typed as unknown as AnyRow;
    return (row.bench ?? []).map((sample) => rowBenchmark(name, row, sample));
  });

const shapesOf = ({ inputs }: BenchSample): string =>
  inputs.flatMap((input) => (input ? [formatShape('shape' in input ? input.shape : input)] : [])).join(' ');

function rowBenchmark(operation: string, row: AnyRow, sample: BenchSample): Benchmark {
  const name = `${operation} ${sample.name ?? shapesOf(sample)}`;
  const call = operations[operation as keyof typeof operations] as unknown as (...args: unknown[]) => unknown;
  return {
    name,
    async each(device, visit) {
      const inputs = sample.inputs.map((spec, i) => {
        if (!spec) return null;
        const { data, shape, dtype } = makeInput(spec, new HostRandom(randomKey(0, `input ${i}`)));
        return tensor(device, data, shape, { dtype });
      });
      const forward = () => row.call(call, inputs as Tensor[], sample.attributes);
      const { flops } = sample;
      // A pending result (an element-wise chain) is computed when a window of it is asked for.
      await visit({ name, flops, run: () => scope(device, () => void forward().window()) });
      const leaves = row.gradient === 'none' ? [] : row.gradient.flatMap((i) => inputs[i] ?? []);
      if (leaves.length > 0 && !sample.forwardOnly) {
        const result = scope(device, forward);
        const upstream = tensor(device, new HostRandom(randomKey(0, 'upstream')).normal(result.size), result.shape);
        release(result);
        for (const leaf of leaves) leaf.requiresGrad = true;
        const run = () =>
          scope(device, () => {
            const result = forward();
            result.window();
            backward(result, upstream);
            for (const leaf of leaves) {
              leaf.grad?.window();
              clearGradient(leaf);
            }
          });
        // Gradients by inputs and by weights each take as many operations as the forward pass.
        await visit({ name: `${name}, forward + backward`, flops: 3 * flops, run });
        release(upstream);
      }
      release(...inputs.filter((input) => input !== null));
    },
  };
}

/** Runs a case's operation. */
export function callCase(c: Case, inputs: readonly Tensor[]): Tensor {
  const [first, second, third] = inputs as [Tensor, Tensor, Tensor];
  switch (c.op) {
    case 'matmul':
      return operations.matmul(first, second);
    case 'conv2d':
      return operations.conv2d(first, second, null, { stride: c.stride, padding: (c.kernel - 1) / 2 });
    case 'attention':
      return operations.attention(first, second, third);
    case 'layernorm':
      return operations.layerNorm(first, second, third);
    case 'softmax':
      return operations.softmax(first);
  }
}

/** A case's inputs are of `dtype`; an adapter without f16 computes in f32 instead. */
export function caseBenchmark(c: Case, dtype: DType = 'f32'): Benchmark {
  const { inputs: shapes, flops } = describeCase(c);
  return {
    name: c.name,
    async each(device, visit) {
      const arrays = shapes.map((shape, i) => makeInput(shape, new HostRandom(randomKey(0, `input ${i}`)))); // prettier-ignore
      const upload = () => arrays.map(({ data, shape }) => tensor(device, data, shape, { dtype }));
      const inputs = upload();
      const run = () => scope(device, () => void callCase(c, inputs));
      const withCopies = async () => {
        const result = scope(device, () => callCase(c, upload()));
        await result.read();
        release(result);
      };
      await visit({ name: c.name, flops, run, withCopies });
      release(...inputs);
    },
  };
}
