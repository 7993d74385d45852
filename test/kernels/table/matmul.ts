import fc from 'fast-check';
import { formatMultiple, formatShape, sizeOf } from '../../../engine/index.ts';
import type { Shape, StorageFormat } from '../../../engine/index.ts';
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

/** Einstein's sum by its definition: a loop over every letter. */
function sumOfProducts(equation: string, inputs: readonly NdArray[]): NdArray {
  const [left, right] = equation.replaceAll(' ', '').split('->') as [string, string?];
  const terms = left.split(',');
  const letters = [...new Set(left.replaceAll(',', ''))];
  const extents = new Map(terms.flatMap((term, i) => [...term].map((letter, axis) => [letter, inputs[i]!.shape[axis]!])));
  const result = [...(right ?? letters.filter((letter) => left.split(letter).length === 2).sort())];
  const out = nd(result.map((letter) => extents.get(letter)!));
  const total = letters.reduce((product, letter) => product * extents.get(letter)!, 1);
  for (let place = 0; place < total; place++) {
    let rest = place;
    const at = new Map(letters.map((letter) => {
      const index = rest % extents.get(letter)!;
      rest = Math.floor(rest / extents.get(letter)!);
      return [letter, index];
    }));
    const offset = (names: Iterable<string>) => [...names].reduce((sum, letter) => sum * extents.get(letter)! + at.get(letter)!, 0);
    out.data[offset(result)]! += terms.reduce((product, term, i) => product * inputs[i]!.data[offset(term)]!, 1);
  }
  return out;
} // prettier-ignore

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

/** Storage formats, with a width that shows more than one block, or less than a vec4 for each lane. */
const FORMATS = [
  ['bf16', 20],
  ['q8', 64],
  ['q4', 64],
] as const;

const stored = (
  format: StorageFormat,
  a: Shape,
  b: Shape,
  transposeB: boolean,
  transposeA = false,
): Sample<MatmulOptions> => ({
  name: `${formatShape(a)}${transposeA ? ' transposed' : ''} and ${formatShape(b)} in ${format}`,
  inputs: [a, { shape: b, dtype: format }],
  attributes: { transposeA, transposeB },
});

const transposes = [false, true].flatMap((transposeA) => [false, true].map((b) => [transposeA, b] as const));

const samples: Sample<MatmulOptions>[] = [
  // ones, odd sizes, whole tiles, past a tile of 32 and of 64; k below, at and past a step; vec4 and scalar variants; few
  // rows; the first is run in f16 as well
  ...(
    [
      [8, 12, 36],
      [1, 1, 1],
      [3, 5, 7],
      [4, 4, 4],
      [1, 40, 6],
      [3, 36, 5],
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
  // weights in a storage format, either way round; rows of A and of the result that are no vec4s; few rows
  ...FORMATS.flatMap(([format, width]) => [
    stored(format, [5, width], [9, width], true),
    stored(format, [7, 6], [6, width], false),
    stored(format, [1, 2 * width], [6, 2 * width], true),
    // a transposed: its gradient, too, reads the weight
    stored(format, [width, 6], [9, width], true, true),
    stored(format, [2, 6, 7], [6, width], false, true),
    stored(format, [1, 6, 7], [3, 6, width], false, true),
  ]),
  { name: 'no rows', inputs: [[0, 3], [3, 2]], attributes: {}, forwardOnly: true },
  { name: 'nothing to add', inputs: [[2, 0], [0, 3]], attributes: {}, forwardOnly: true },
  // 65,601 workgroups, past one dimension of the grid
  { name: 'past 65,535 workgroups', inputs: [[65_601, 1, 2], [65_601, 2, 1]], attributes: {}, forwardOnly: true },
]; // prettier-ignore

const extent = fc.integer({ min: 1, max: 40 });
const letters = fc.array(fc.constantFrom<string[]>('a', 'b', 'c', 'd'), { maxLength: 4 });

export const matmulRows: Rows<'dequantize' | 'einsum' | 'linear' | 'matmul'> = {
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
  dequantize: {
    call: (operation, [x]) => operation(x!),
    reference: ([x]) => x!, // whose values were rounded by the host
    samples: (['bf16', 'q8', 'q4'] as const).flatMap((dtype) => [
      { name: `${dtype}`, inputs: [{ shape: [3, 96], dtype }], attributes: {} },
      // Blocks whose scales are subnormal in f16, or 0.
      { name: `${dtype}: tiny`, inputs: [{ shape: [64], dtype, value: (random, i) => (i < 32 ? random.uniform() * 1e-4 : 0) }], attributes: {} },
    ]),
    gradient: 'none',
    tolerance: 0, // a quant of 8 bits times a scale of 11 is exact in f32
    bad: [[(operation, t) => operation(t([32])), /\[dequantize\] f32 is no storage format/]],
  },
  einsum: {
    call: (operation, inputs, { equation }: { equation: string }) => operation(equation, ...inputs),
    reference: (inputs, { equation }: { equation: string }) => sumOfProducts(equation, inputs),
    samples: (
      [
        ['ij,jk->ik', [4, 5], [5, 6]],
        ['bij,bkj->bik', [3, 4, 5], [3, 6, 5]], // batched, transposed
        ['ij,jk', [4, 5], [5, 6]], // the result's letters implied
        ['bhid, bhjd -> bhij', [2, 3, 4, 8], [2, 3, 5, 8]], // attention's scores
        ['bqhd,bkhd->bhqk', [2, 4, 3, 8], [2, 5, 3, 8]], // the same, heads between
        ['ji,kj->ki', [5, 4], [6, 5]],
        ['i,i->', [7], [7]],
        ['i,j->ij', [3], [4]],
        ['ij->ji', [3, 4]],
        ['ij->', [3, 4]],
        ['ijk->j', [2, 3, 4]],
        ['ii->i', [5, 5]],
        ['iji->j', [3, 4, 3]],
        ['iii->', [3, 3, 3]],
        ['abc,cd,de->abe', [2, 3, 4], [4, 5], [5, 2]], // three, from the left
        ['ijx,jk->ik', [2, 3, 4], [3, 5]], // x in one operand alone
        ['ab,ab->ba', [3, 4], [3, 4]],
        ['ij,ji->', [3, 4], [4, 3]],
      ] as const
    ).map(([equation, ...inputs]) => ({ name: equation, inputs, attributes: { equation } })),
    gradient: [0, 1, 2],
    // Composed: what an operand is summed to is rounded to f16 before it is multiplied, and may be larger than the result.
    f16: 8,
    arbitrary: fc.tuple(letters, letters, fc.shuffledSubarray(['a', 'b', 'c', 'd'])).map(([x, y, result]) => {
      const equation = `${x.join('')},${y.join('')}->${result.filter((letter) => x.includes(letter) || y.includes(letter)).join('')}`;
      const shape = (term: string[]) => term.map((letter) => 2 + 'abcd'.indexOf(letter));
      return { name: equation, inputs: [shape(x), shape(y)], attributes: { equation } };
    }),
    bad: [
      [(operation, t) => operation('ij,jk->ik', t([2, 3])), /\[einsum\] "ij,jk->ik": 2 operands named, 1 given/],
      [(operation, t) => operation('ij->ij', t([2, 3, 4])), /\[einsum\] "ij->ij": "ij" names 2 axes, operand 0 is \(2, 3, 4\)/],
      [(operation, t) => operation('ij,jk->ik', t([2, 3]), t([4, 5])), /\[einsum\] "ij,jk->ik": j is 3 in operand 0 and 4 in operand 1/],
      [(operation, t) => operation('ij->ik', t([2, 3])), /\[einsum\] "ij->ik": the result's k is no axis/],
      [(operation, t) => operation('ij->ii', t([2, 3])), /\[einsum\] "ij->ii": the result has i twice/],
      [(operation, t) => operation('...i->i', t([2, 3])), /\[einsum\] "\.\.\.i->i": an equation is letters/],
    ],
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
      { inputs: [[2, 3, 68], [10, 68], [10]], attributes: {} }, // few rows of a sample
      { inputs: [[3, 1, 8], [33, 8], [33]], attributes: {} },
      ...FORMATS.map(([dtype, width]) => ({
        name: dtype,
        inputs: [[2, 4, width], { shape: [11, width], dtype }, [11]],
        attributes: {},
      })),
      { name: 'no inputs', inputs: [[3, 0], [4, 0], [4]], attributes: {} },
    ],
    gradient: [0, 1, 2],
    arbitrary: fc
      .tuple(fc.array(extent, { maxLength: 2 }), extent, extent, fc.boolean(), fc.constantFrom(null, null, 'bf16', 'q8', 'q4'))
      .map(([lead, width, n, bias, format]) => {
        const k = format === null ? width : formatMultiple(format) * (1 + (width % 3));
        return { inputs: [[...lead, k], format === null ? [n, k] : { shape: [n, k], dtype: format }, bias ? [n] : null], attributes: {} };
      }),
    bad: [
      [(operation, t) => operation(t([2, 3]), t([4, 3], 'i32')), /\[linear\] input 1 is i32; f32, as input 0, or a storage format is needed/],
      [(operation, t) => operation(t([2, 32]), Object.assign(t([4, 32], 'q8'), { requiresGrad: true })), /\[linear\] a weight in q8 is stored, not trained/],
      [(operation, t) => operation(t([2, 3]), t([4, 5])), /\[linear\] the last dimension of x \(2, 3\) must be 5, the weight is \(4, 5\)/],
      [(operation, t) => operation(t([2, 3]), t([3])), /\[linear\] the weight is \(out, in\), not \(3,\)/],
      [(operation, t) => operation(t([2, 3]), t([4, 3]), t([3])), /\[linear\] the bias must be \(4,\) for a weight \(4, 3\), not \(3,\)/],
    ],
    bench: [
      { name: '1024×384→384', inputs: [[1024, 384], [384, 384], [384]], attributes: {}, flops: 2 * 1024 * 384 * 384 },
      { name: '1×2048→2048', inputs: [[1, 1, 2048], [2048, 2048], null], attributes: {}, flops: 2 * 2048 * 2048 },
    ],
  },
}; // prettier-ignore
