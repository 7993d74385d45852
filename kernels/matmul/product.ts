import { byteLength, formatShape, isStorageFormat, scalesOffset, typed, wgsl, windowOf } from '../../engine/index.ts';
import type { Defines, KernelSource, Tensor, Window } from '../../engine/index.ts';
import { cached } from '../elementwise/chain.ts';
import { variant } from '../variants.ts';
import { hasScales, reader } from './formats.ts';
import { matrixConfig } from './matrix.ts';

wgsl(import.meta.url, './product.wgsl');
wgsl(import.meta.url, './blocks.wgsl');
const tiled = wgsl(import.meta.url, './matmul.wgsl');
const broadcast = wgsl(import.meta.url, './matmul_subgroup.wgsl');
const matrices = wgsl(import.meta.url, './matmul_matrix.wgsl');
const fewRows = wgsl(import.meta.url, './matvec.wgsl');

/** Rows of A up to which a product reads B once for all of them, and is bound by that. */
const FEW_ROWS = 4;
/** Rows and columns from which subgroup matrices are worth their tile. */
const LARGE = 32;
/** Workgroups under which a product is cut into smaller tiles, so that it spreads over a GPU. */
const SPREAD = 16;

export interface Product {
  m: number;
  n: number;
  k: number;
  /** A lies as (k, m) instead of (m, k). */
  transposeA?: boolean;
  /** B lies as (n, k) instead of (k, n). */
  transposeB?: boolean;
  /** Independent results, one after another in `out`. */
  batch?: number;
  /** Products added into one result, in their order. */
  sum?: number;
  /** All results share A (or B): it holds a single matrix. */
  sharedA?: boolean;
  sharedB?: boolean;
  /** Added to each row (n values), or to each column (m values). */
  bias?: { values: Tensor; along: 'row' | 'column' } | undefined;
  /** Takes Σ over k of op(A) along, (m) values: the gradient of a bias where A is the gradient of the result. */
  rowSum?: Tensor | undefined;
  /**
   * Rows of A in one sample, m when absent. The kernel, and with it the order of additions, is chosen by these, not by m,
   * which may count the batch: the same sample gives the same bits whatever the batch.
   */
  rows?: number;
}

/**
 * Lanes of a subgroup that hold four rows each: all of them, or a half or a quarter where that already covers the rows,
 * so that most of a tile isn't thrown away.
 */
export function roundsFor(rows: number, subgroupSize: number): number {
  return [subgroupSize / 4, subgroupSize / 2].find((rounds) => rounds >= 1 && 4 * rounds >= rows) ?? subgroupSize;
}

/** A part of a tensor as the kernels see it; extents in elements. */
interface Operand {
  readonly tensor: Tensor;
  /** Where the first matrix begins. */
  readonly at: number;
  /** From one row to the next, as it lies. */
  readonly row: number;
  /** From one product's matrix to the next one's; 0 where it is shared. */
  readonly step: number;
}

/** A part of a product. */
interface Part {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch: number;
  readonly sum: number;
  readonly a: Operand;
  readonly b: Operand;
  readonly out: Operand;
  readonly bias: Product['bias'];
  readonly rowSum: Tensor | undefined;
  /** Whether it adds to what stands in `out` (and in the row sums). */
  readonly added: boolean;
  /** Where this part of the bias, or of the row sums, begins. */
  readonly vectorAt: number;
}

/**
 * Records out = Σ op(A) · op(B) + bias: the one place where matrices are multiplied. Reads elements in row-major order. B
 * may be in a storage format. Operands larger than what can be bound at once go by parts.
 */
export function multiply(a: Tensor, b: Tensor, out: Tensor, product: Product): void {
  const { m, n, k, transposeA = false, transposeB = false, batch = 1, sum = 1, bias, rowSum } = product;
  if (out.size === 0) return;
  const whole: Part = {
    m, n, k, batch, sum, bias, rowSum,
    a: { tensor: a, at: 0, row: transposeA ? m : k, step: product.sharedA ? 0 : m * k },
    b: { tensor: b, at: 0, row: transposeB ? k : n, step: product.sharedB ? 0 : k * n },
    out: { tensor: out, at: 0, row: n, step: m * n },
    vectorAt: 0,
    added: false,
  }; // prettier-ignore
  const form = { transposeA, transposeB };
  const choice = choose(whole, form, product.rows ?? m);
  divide(whole, form, (part) => record(part, form, choice));
}

type Form = { readonly transposeA: boolean; readonly transposeB: boolean };
type Name = 'a' | 'b' | 'out';

/** Windows of a tensor begin at multiples of so many elements: 256 bytes of them and, in a format, of their scales. */
const granule = ({ dtype }: Tensor): number => (dtype === 'q8' || dtype === 'q4' ? 4096 : 128);

/** Elements from the first to the last of a part's operand. */
function span(part: Part, { transposeA, transposeB }: Form, name: Name): number {
  const { m, n, k, batch, sum } = part;
  const { row, step } = part[name];
  const [rows, length] =
    name === 'out' ? [m, n] : name === 'a' ? (transposeA ? [k, m] : [m, k]) : transposeB ? [n, k] : [k, n];
  const matrices = step === 0 ? 1 : name === 'out' ? batch : batch * sum;
  return Math.max(0, (matrices - 1) * step + (rows - 1) * row + length);
}

function fits(part: Part, form: Form, name: Name): boolean {
  const { tensor } = part[name];
  const { size, dtype, device } = tensor;
  const bytes = byteLength(Math.min(size, span(part, form, name) + granule(tensor)), dtype);
  return bytes <= device.bindingLimit;
}

/** Where an extent is cut in two: rows of whole vec4s stay such. */
const half = (extent: number): number => Math.ceil(extent / 8) * 4;

/**
 * Runs a part, halved until its operands can be bound: by results, rows or columns, which changes no bit; or by k and by the
 * products of a sum, where an operand lies that way: then the second half adds to what the first has stored.
 */
function divide(part: Part, form: Form, run: (part: Part) => void): void {
  const { m, n, k, batch, sum, a, b, out, vectorAt } = part;
  const large = (['a', 'b', 'out'] as const).find((name) => !fits(part, form, name));
  if (!large) return run(part);
  const moved = (operand: Operand, by: number): Operand => ({ ...operand, at: operand.at + by });
  const onTop = { added: true, bias: undefined };
  const alongRow = part.bias?.along === 'row';
  let halves: [Partial<Part>, Partial<Part>] | null = null;
  const shared = part[large].step === 0; // halving a batch or a sum doesn't make it smaller
  if (batch > 1 && !shared) {
    const cut = Math.ceil(batch / 2);
    halves = [
      { batch: cut },
      { batch: batch - cut, a: moved(a, cut * sum * a.step), b: moved(b, cut * sum * b.step), out: moved(out, cut * out.step) },
    ]; // prettier-ignore
  } else if (sum > 1 && !shared && large !== 'out') {
    const cut = Math.ceil(sum / 2);
    halves = [{ sum: cut }, { sum: sum - cut, a: moved(a, cut * a.step), b: moved(b, cut * b.step), ...onTop }];
  } else if ((large === 'a' && form.transposeA) || (large === 'b' && !form.transposeB)) {
    const cut = half(k);
    const next = { a: moved(a, form.transposeA ? cut * a.row : cut), b: moved(b, form.transposeB ? cut : cut * b.row) };
    if (cut < k) halves = [{ k: cut }, { k: k - cut, ...next, ...onTop }];
  } else if (large !== 'b' && half(m) < m) {
    const cut = half(m);
    const next = { a: moved(a, form.transposeA ? cut : cut * a.row), out: moved(out, cut * out.row) };
    halves = [{ m: cut }, { m: m - cut, ...next, vectorAt: vectorAt + (alongRow ? 0 : cut) }];
  } else if (large !== 'a' && half(n) < n) {
    const cut = half(n);
    const next = { b: moved(b, form.transposeB ? cut * b.row : cut), out: moved(out, cut) };
    // The first half has the row sums.
    halves = [{ n: cut }, { n: n - cut, ...next, rowSum: undefined, vectorAt: vectorAt + (alongRow ? cut : 0) }];
  }
  if (!halves)
    throw new Error(
      `[matmul] one row of ${formatShape(part[large].tensor.shape)} takes more than the ` +
        `${part[large].tensor.device.bindingLimit} bytes that can be bound at once here`,
    );
  const [first, second] = halves;
  divide({ ...part, ...first }, form, run);
  divide({ ...part, ...second }, form, run);
}

/** A kernel, and the tile of C that a workgroup of it makes. */
interface Choice {
  readonly source: KernelSource;
  readonly defines: Defines;
  readonly tile: readonly [number, number];
}

/**
 * The kernel of a whole product, which its parts run as well. It follows from `rows`, n and k; where tiles of two sizes add
 * in the same order, from the number of workgroups too.
 */
function choose({ m, n, k, batch, sum, a, b, out, bias, rowSum }: Part, form: Form, rows: number): Choice {
  const { device } = out.tensor;
  const { subgroupSize } = device.profile;
  const subgroups = { SUBGROUPS: true, SUBGROUP: `${subgroupSize}u` };
  const vec4 = [a.row, b.row, n].every((extent) => extent % 4 === 0);
  const all = { VEC4_A: vec4, VEC4_B: vec4 || isStorageFormat(b.tensor.dtype), VEC4_OUT: vec4 };
  const few =
    rows <= FEW_ROWS && !form.transposeA && form.transposeB && k % 4 === 0 && sum === 1 && !rowSum && bias?.along !== 'column'; // prettier-ignore
  const split = few ? (rows === 1 ? variant(device, 'one row') : variant(device, 'few rows')) : 'tiles';
  if (split !== 'tiles') {
    const together = m === 1 ? 1 : FEW_ROWS;
    const lanes = split === 'subgroup' ? { ...subgroups, LANES: subgroups.SUBGROUP } : { LANES: '64u' };
    const defines = { ...lanes, ROWS: `${together}u`, VEC4_A: true, VEC4_B: true, VEC4_OUT: n % 4 === 0 };
    return { source: fewRows, defines, tile: [together, 4] };
  }
  const half = a.tensor.dtype === 'f16' && b.tensor.dtype === 'f16' && vec4 && Math.min(rows, n) >= LARGE;
  const way = half ? variant(device, 'matmul f16') : variant(device, 'matmul');
  if (way === 'matrix') {
    const { M, N, K } = matrixConfig(device.profile)!;
    const operands = { A: HALF_OPERAND('a', 0), B: HALF_OPERAND('b', 1) };
    return { source: matrices, defines: { ...all, ...subgroups, ...operands, M: `${M}u`, N: `${N}u`, K: `${K}u` }, tile: [8 * M, 8 * N] }; // prettier-ignore
  }
  if (way === 'subgroup') {
    const rounds = roundsFor(m, subgroupSize);
    return { source: broadcast, defines: { ...all, ...subgroups, ROUNDS: `${rounds}u` }, tile: [4 * rounds, 4 * subgroupSize] }; // prettier-ignore
  }
  const tile = batch * Math.ceil(m / 64) * Math.ceil(n / 64) < SPREAD ? 32 : 64;
  return { source: tiled, defines: { ...all, TILE: `${tile}u` }, tile: [tile, tile] };
}

/** How subgroup matrices' kernel reads: f16 as it is. Ends in a line break, as inserted texts do. */
const HALF_OPERAND = (name: string, binding: number) =>
  `@group(0) @binding(${binding}) var<storage, read> ${name}: array<vec4<f16>>;\n`;

/** Records a part whose operands can be bound. */
function record(part: Part, { transposeA, transposeB }: Form, { source, defines, tile }: Choice): void {
  const { m, n, k, batch, sum, a, b, out, bias, rowSum, vectorAt, added } = part;
  const { device } = out.tensor;
  const scales = hasScales(b.tensor.dtype);
  const key = `${source.name} ${Object.values(defines).join()} ${out.tensor.dtype} ${b.tensor.dtype} ${transposeA} ${transposeB} ${bias?.along} ${!!rowSum} ${added}`;
  const kernel = cached(device, key, () =>
    device.kernel(source, {
      ...typed(out.tensor),
      FORMAT: isStorageFormat(b.tensor.dtype) ? b.tensor.dtype : false,
      A: reader('a', a.tensor.dtype, 0, 0),
      B: reader('b', b.tensor.dtype, 1, 3),
      VECTOR: scales ? 4 : 3,
      ...defines,
      TRANSPOSE_A: transposeA,
      TRANSPOSE_B: transposeB,
      BIAS: bias !== undefined,
      BIAS_COLUMN: bias?.along === 'column',
      ROW_SUM: rowSum !== undefined,
      ADD: added,
    }),
  );
  const form = { transposeA, transposeB };
  const bound = { a: windows(part, form, 'a'), b: windows(part, form, 'b'), out: windows(part, form, 'out') };
  const vector = bias?.values ?? rowSum;
  device.dispatch(
    kernel,
    [bound.a.values, bound.b.values, bound.out.values, ...bound.b.scales, ...(vector ? [vector.window()] : [])],
    {
      m, n, k, batch, sum,
      a_at: bound.a.at, a_row: a.row, a_step: a.step,
      b_at: bound.b.at, b_row: b.row, b_step: b.step,
      out_at: bound.out.at, out_row: out.row, out_step: out.step,
      vector_at: vectorAt,
    }, // prettier-ignore
    batch * Math.ceil(m / tile[0]) * Math.ceil(n / tile[1]),
  );
}

/** What is bound of an operand: the tensor where that is possible, else the part's window; and where its first matrix begins there. */
function windows(part: Part, form: Form, name: Name): { values: Window; scales: Window[]; at: number } {
  const { tensor, at } = part[name];
  const { storage, offset, size, dtype, device } = tensor;
  const values = tensor.window();
  const behind = hasScales(dtype) ? offset + scalesOffset(size, dtype) : 0;
  if (byteLength(size, dtype) <= device.bindingLimit)
    return { values, scales: behind ? [windowOf(storage, behind, Math.ceil(size / 64) * 4)] : [], at };
  const first = Math.floor(at / granule(tensor)) * granule(tensor);
  const count = Math.min(size, at + span(part, form, name)) - first;
  const bytes = hasScales(dtype) ? scalesOffset(granule(tensor), dtype) / granule(tensor) : byteLength(2, dtype) / 2;
  return {
    values: windowOf(storage, offset + first * bytes, Math.ceil(count * bytes)),
    scales: behind ? [windowOf(storage, behind + first / 16, Math.ceil(count / 64) * 4)] : [],
    at: at - first,
  };
}
