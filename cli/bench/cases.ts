/** Cases of a benchmark: an operation with its extents, as a JSON file lists them. */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { complaint } from '../complaint.ts';
import { formatShape, sizeOf } from '../../engine/index.ts';
import type { Shape } from '../../engine/index.ts';

/** The most elements of one tensor, 2 GiB: what the larger adapters bind at once. */
const MAX_ELEMENTS = 2 ** 29;

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
    kernel: extent.refine((k) => k % 2 === 1, 'must be odd: the window is centred'),
    stride: extent.default(1),
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
export type Case = z.infer<typeof caseSchema>;

/** Shapes of a case's inputs and result, and the arithmetic operations of one forward pass, a multiply-add as two. */
export function describeCase(c: Case): { inputs: Shape[]; output: Shape; flops: number } {
  switch (c.op) {
    case 'matmul': {
      const { m, k, n } = c;
      return { inputs: [[m, k], [k, n]], output: [m, n], flops: 2 * m * k * n }; // prettier-ignore
    }
    case 'conv2d': {
      const { batch, cin, cout, h, w, kernel, stride } = c;
      const [oh, ow] = [Math.ceil(h / stride), Math.ceil(w / stride)];
      return {
        inputs: [[batch, cin, h, w], [cout, cin, kernel, kernel]], // prettier-ignore
        output: [batch, cout, oh, ow],
        flops: 2 * batch * oh * ow * cin * cout * kernel ** 2,
      };
    }
    case 'attention': {
      const { batch, heads, length, keys = length, dim } = c;
      return {
        inputs: [length, keys, keys].map((positions) => [batch, heads, positions, dim]),
        output: [batch, heads, length, dim],
        flops: 4 * batch * heads * length * keys * dim, // two products, the softmax left out
      };
    }
    case 'layernorm': {
      const { rows, cols } = c;
      return { inputs: [[rows, cols], [cols], [cols]], output: [rows, cols], flops: 8 * rows * cols };
    }
    case 'softmax': {
      const { rows, cols } = c;
      return { inputs: [[rows, cols]], output: [rows, cols], flops: 5 * rows * cols };
    }
  }
}

/** Reads a file of cases: a JSON list of `{name, op, …}`. Throws, naming the case, on what is not known or too large. */
export async function readCases(file: string): Promise<Case[]> {
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
  if (json.length === 0)
    return fail('holds no cases; one is such as {"name": "square", "op": "matmul", "m": 256, "k": 256, "n": 256}');
  return json.map((value: unknown, i) => {
    const result = caseSchema.safeParse(value);
    if (result.success) {
      const { inputs, output } = describeCase(result.data);
      const large = [...inputs, output].find((shape) => sizeOf(shape) > MAX_ELEMENTS);
      if (large)
        fail(
          `case ${i + 1}, ${result.data.name}: a tensor of ${formatShape(large)} has ${sizeOf(large).toLocaleString('en')} elements, ` +
            `more than ${MAX_ELEMENTS.toLocaleString('en')} (2 GiB)`,
        );
      return result.data;
    }
    const issue = result.error.issues[0]!;
    const place = `case ${i + 1}: ${issue.path.join('.') || 'it'}`;
    if (issue.code !== 'unrecognized_keys') return fail(`${place} ${complaint(issue, value)}`);
    const { op } = value as Case;
    const known = Object.keys(caseSchema.options.find(({ shape }) => shape.op.value === op)!.shape);
    return fail(`case ${i + 1}: ${issue.keys[0]} is no field of ${op}; known are ${known.join(', ')}`);
  });
}

/** For the `--help` of what reads them. */
export const CASES_HELP = `Operations of --cases, with their fields:
  matmul     m, k, n                                     (m, k) · (k, n)
  conv2d     batch, cin, cout, h, w, kernel, [stride]    padded by half a window
  attention  batch, heads, length, [keys], dim           dense
  layernorm  rows, cols                                  along cols
  softmax    rows, cols                                  along cols
`;
