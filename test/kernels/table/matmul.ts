import fc from 'fast-check';
import { sizeOf } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { NdArray, Rows, Sample } from '../row.ts';
import type { MatmulOptions } from '../../../kernels/index.ts';

/** Σ over k of a[…, i, k] · b[…, k, j]; a batch of one matrix serves every item. */
function product(a: NdArray, b: NdArray, { transposeA = false, transposeB = false }: MatmulOptions): NdArray {
  const [rowsA, colsA] = a.shape.slice(-2) as [number, number];
  const [rowsB, colsB] = b.shape.slice(-2) as [number, number];
  const [m, k] = transposeA ? [colsA, rowsA] : [rowsA, colsA];
  const n = transposeB ? rowsB : colsB;
  const batches = [a, b].map(({ shape }) => shape.slice(0, -2)) as [number[], number[]];
  const longer = batches[0].length > batches[1].length ? batches[0] : batches[1];
  const shape = sizeOf(batches[0]) > 1 ? batches[0] : sizeOf(batches[1]) > 1 ? batches[1] : longer;
  return nd([...shape, m, n], (index) => {
    const item = Math.floor(index / (m * n));
    const i = Math.floor(index / n) % m;
    const j = index % n;
    const startA = sizeOf(batches[0]) > 1 ? item * m * k : 0;
    const startB = sizeOf(batches[1]) > 1 ? item * k * n : 0;
    let total = 0;
    for (let t = 0; t < k; t++)
      total +=
        a.data[startA + (transposeA ? t * m + i : i * k + t)]! * b.data[startB + (transposeB ? j * k + t : t * n + j)]!;
    return total;
  });
}

const matrix = (rows: number, cols: number, transposed: boolean) => (transposed ? [cols, rows] : [rows, cols]);

/** (batch of a, batch of b, m, k, n) with either operand transposed. */
const sample = (
  batchA: readonly number[],
  batchB: readonly number[],
  [m, k, n]: readonly [number, number, number],
  transposeA: boolean,
  transposeB: boolean,
): Sample<MatmulOptions> => ({
  inputs: [
    [...batchA, ...matrix(m, k, transposeA)],
    [...batchB, ...matrix(k, n, transposeB)],
  ],
  attributes: { transposeA, transposeB },
});

const transposes = [false, true].flatMap((transposeA) => [false, true].map((b) => [transposeA, b] as const));

const samples: Sample<MatmulOptions>[] = [
  // ones, odd sizes, whole tiles, past a tile of 32 and of 64; k below, at and past a step; vec4 and scalar variants
  ...(
    [
      [1, 1, 1],
      [3, 5, 7],
      [4, 4, 4],
      [8, 12, 36],
      [9, 3, 33],
      [32, 16, 32],
      [36, 20, 68],
      [65, 17, 66],
    ] as const
  ).flatMap((extents) => transposes.map(([a, b]) => sample([], [], extents, a, b))),
  // equal batches, a shared B, a shared A, with k at no multiple of four between vec4 rows
  ...transposes.flatMap(([a, b]) => [
    sample([2, 2], [2, 2], [4, 7, 8], a, b),
    sample([3], [], [5, 6, 4], a, b),
    sample([], [3], [4, 8, 12], a, b),
    sample([1, 2], [2], [3, 4, 5], a, b),
  ]),
  { name: 'no rows', inputs: [[0, 3], [3, 2]], attributes: {}, forwardOnly: true },
  { name: 'nothing to add', inputs: [[2, 0], [0, 3]], attributes: {}, forwardOnly: true },
  // 65,601 workgroups, past one dimension of the grid
  { name: 'past 65,535 workgroups', inputs: [[65_601, 1, 2], [65_601, 2, 1]], attributes: {}, forwardOnly: true },
]; // prettier-ignore

const extent = fc.integer({ min: 1, max: 40 });

export const matmulRows: Rows<'matmul' | 'linear'> = {
  matmul: {
    call: (operation, [a, b], options: MatmulOptions) => operation(a!, b!, options),
    reference: ([a, b], options: MatmulOptions) => product(a!, b!, options),
    samples,
    gradient: [0, 1],
    arbitrary: fc
      .tuple(fc.constantFrom(...([[[], []], [[2], [2]], [[3], []], [[], [2]]] as const)), extent, extent, extent, fc.boolean(), fc.boolean())
      .map(([[a, b], m, k, n, transposeA, transposeB]) => sample(a, b, [m, k, n], transposeA, transposeB)),
    bad: [
      [(operation, t) => operation(t([3, 4]), t([5, 6])), /\[matmul\] inner dimensions differ: a is \(3, 4\), b is \(5, 6\)/],
      [(operation, t) => operation(t([3, 4]), t([3, 4]), { transposeA: true, transposeB: true }), /a is \(3, 4\) transposed/],
      [(operation, t) => operation(t([2, 2], 'i32'), t([2, 2])), /\[matmul\] input 0 is i32; f32 or f16 is needed/],
      [(operation, t) => operation(t([4]), t([4, 4])), /\[matmul\] operands are matrices or batches of them: a is \(4,\)/],
      [(operation, t) => operation(t([2, 3, 4]), t([3, 4, 5])), /\[matmul\] \(2,\) and \(3,\) do not broadcast/],
      [(operation, t) => operation(t([2, 1, 3, 4]), t([1, 3, 4, 5])), /\[matmul\] batches \(2, 1\) and \(1, 3\) must be equal/],
    ],
    bench: ([[256, 256, 256], [512, 512, 512], [77, 768, 320]] as const).map(([m, k, n]) => ({
      ...sample([], [], [m, k, n], false, false),
      name: `${m}×${k}×${n}`,
      flops: 2 * m * k * n,
    })),
  },
  linear: {
    call: (operation, [x, weight, bias]) => operation(x!, weight!, bias ?? null),
    reference: ([x, weight, bias]) => {
      const [outputs, inputs] = weight!.shape as [number, number];
      return nd([...x!.shape.slice(0, -1), outputs], (index) => {
        const row = Math.floor(index / outputs) * inputs;
        const column = index % outputs;
        let total = bias ? bias.data[column]! : 0;
        for (let i = 0; i < inputs; i++) total += x!.data[row + i]! * weight!.data[column * inputs + i]!;
        return total;
      });
    },
    samples: [
      { inputs: [[1, 1], [1, 1], [1]], attributes: {} },
      { inputs: [[6], [5, 6], [5]], attributes: {} },
      { inputs: [[2, 77, 16], [24, 16], [24]], attributes: {} },
      { inputs: [[2, 77, 16], [24, 16], null], attributes: {} },
      { inputs: [[8, 40], [36, 40], [36]], attributes: {} }, // few rows
      { inputs: [[3, 3, 7], [9, 7], [9]], attributes: {} },
      { inputs: [[70, 5], [67, 5], [67]], attributes: {} }, // past a tile of 64, scalar
      { name: 'no inputs', inputs: [[3, 0], [4, 0], [4]], attributes: {} },
    ],
    gradient: [0, 1, 2],
    arbitrary: fc.tuple(fc.array(extent, { maxLength: 2 }), extent, extent, fc.boolean()).map(([lead, k, n, bias]) => ({
      inputs: [[...lead, k], [n, k], bias ? [n] : null],
      attributes: {},
    })),
    bad: [
      [(operation, t) => operation(t([2, 3]), t([4, 5])), /\[linear\] the last dimension of x \(2, 3\) must be 5, the weight is \(4, 5\)/],
      [(operation, t) => operation(t([2, 3]), t([3])), /\[linear\] the weight is \(out, in\), not \(3,\)/],
      [(operation, t) => operation(t([2, 3]), t([4, 3]), t([3])), /\[linear\] the bias must be \(4,\) for a weight \(4, 3\), not \(3,\)/],
    ],
    bench: [{ name: '1024×384→384', inputs: [[1024, 384], [384, 384], [384]], attributes: {}, flops: 2 * 1024 * 384 * 384 }],
  },
}; // prettier-ignore
