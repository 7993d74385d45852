/** What the benchmark runs of single operations: the samples of the operations' table, or cases from a file. */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
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
import type { Device, Shape, Tensor } from '../../engine/index.ts';
import * as operations from '../../kernels/index.ts';
import { makeInput } from '../../test/kernels/row.ts';
import type { Row } from '../../test/kernels/row.ts';
import { table } from '../../test/kernels/table/index.ts';
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
      await visit({ name, flops, run: () => scope(device, () => void forward()) });
      const leaves = row.gradient === 'none' ? [] : row.gradient.flatMap((i) => inputs[i] ?? []);
      if (leaves.length > 0 && !sample.forwardOnly) {
        const result = scope(device, forward);
        const upstream = tensor(device, new HostRandom(randomKey(0, 'upstream')).normal(result.size), result.shape);
        release(result);
        for (const leaf of leaves) leaf.requiresGrad = true;
        const run = () =>
          scope(device, () => {
            backward(forward(), upstream);
            leaves.forEach(clearGradient);
          });
        // Gradients by inputs and by weights each take as many operations as the forward pass.
        await visit({ name: `${name}, forward + backward`, flops: 3 * flops, run });
        release(upstream);
      }
      release(...inputs.filter((input) => input !== null));
    },
  };
}

const extent = z.int().min(1);
const caseSchema = z.discriminatedUnion('op', [
  z.strictObject({ name: z.string(), op: z.literal('matmul'), m: extent, k: extent, n: extent }),
  z.strictObject({
    name: z.string(),
    op: z.literal('conv2d'),
    batch: extent,
    cin: extent,
    cout: extent,
    h: extent,
    w: extent,
    kernel: extent.refine((k) => k % 2 === 1, 'must be odd: the window keeps the size'),
  }),
  z.strictObject({
    name: z.string(),
    op: z.literal('attention'),
    batch: extent,
    heads: extent,
    length: extent,
    keys: extent.optional(),
    dim: extent,
  }),
  z.strictObject({ name: z.string(), op: z.literal('layernorm'), rows: extent, cols: extent }),
  z.strictObject({ name: z.string(), op: z.literal('softmax'), rows: extent, cols: extent }),
]);
type Case = z.infer<typeof caseSchema>;

/** Shapes of a case's inputs, the operations it counts for one forward pass, and how it is called. */
function describeCase(c: Case): { shapes: Shape[]; flops: number; call: (inputs: Tensor[]) => Tensor } {
  switch (c.op) {
    case 'matmul': {
      const { m, k, n } = c;
      return { shapes: [[m, k], [k, n]], flops: 2 * m * k * n, call: ([a, b]) => operations.matmul(a!, b!) }; // prettier-ignore
    }
    case 'conv2d': {
      const { batch, cin, cout, h, w, kernel } = c;
      return {
        shapes: [[batch, cin, h, w], [cout, cin, kernel, kernel]], // prettier-ignore
        flops: 2 * batch * h * w * cin * cout * kernel ** 2,
        call: ([x, weight]) => operations.conv2d(x!, weight!, null, { padding: (kernel - 1) / 2 }),
      };
    }
    case 'attention': {
      const { batch, heads, length, keys = length, dim } = c;
      return {
        shapes: [length, keys, keys].map((extent) => [batch, heads, extent, dim]),
        flops: 4 * batch * heads * length * keys * dim, // two products, the softmax left out
        call: ([q, k, v]) => operations.attention(q!, k!, v!),
      };
    }
    case 'layernorm': {
      const { rows, cols } = c;
      return {
        shapes: [[rows, cols], [cols], [cols]],
        flops: 8 * rows * cols,
        call: ([x, weight, bias]) => operations.layerNorm(x!, weight!, bias!),
      };
    }
    case 'softmax': {
      const { rows, cols } = c;
      return { shapes: [[rows, cols]], flops: 5 * rows * cols, call: ([x]) => operations.softmax(x!) };
    }
  }
}

/** Reads a file of cases: a JSON list of `{name, op, …}`. Throws, naming the case, on what is not known. */
export async function readCases(file: string): Promise<Benchmark[]> {
  const fail = (what: string): never => {
    throw new Error(`[bench] ${file}: ${what}`);
  };
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) =>
    fail(`cannot be read (${error.code})`),
  );
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return fail(`is not JSON: ${(error as Error).message}`);
  }
  if (!Array.isArray(json)) return fail('must be a list of cases');
  return json.map((value: unknown, i) => {
    const result = caseSchema.safeParse(value);
    if (result.success) return caseBenchmark(result.data);
    const issue = result.error.issues[0]!;
    return fail(`case ${i + 1}: ${[...issue.path, issue.message].join(': ')}`);
  });
}

function caseBenchmark(c: Case): Benchmark {
  const { shapes, flops, call } = describeCase(c);
  return {
    name: c.name,
    async each(device, visit) {
      const inputs = shapes.map((shape, i) => {
        const { data } = makeInput(shape, new HostRandom(randomKey(0, `input ${i}`)));
        return tensor(device, data, shape);
      });
      await visit({ name: c.name, flops, run: () => scope(device, () => void call(inputs)) });
      release(...inputs);
    },
  };
}
