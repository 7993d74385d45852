import { byteLength, formatShape, isStorageFormat, scalesOffset, typed, wgsl, windowOf } from '../../engine/index.ts';
import type { Defines, Device, DType, Tensor, Window } from '../../engine/index.ts';
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
  /** Adds to what stands in `out`. */
  added?: boolean;
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
 * may be in a storage format; A, B and `out` may be f32 and f16 as they like. Operands larger than what can be bound at once
 * go by parts.
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
    added: product.added ?? false,
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
  if (byteLength(size, dtype) <= device.bindingLimit) return true;
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

/** Which kernel a product takes, and how much of C its workgroups make. */
interface Choice {
  readonly way: 'matrix' | 'subgroup' | 'tiled' | 'few rows';
  /** Of `few rows`: by subgroups, not by workgroup memory. */
  readonly subgroups: boolean;
  /** Rows and columns of C that a workgroup makes. */
  readonly down: number;
  readonly across: number;
  /** Rows of the operands and of C are whole vec4s. */
  readonly vec4: boolean;
}

/**
 * The kernel of a whole product, which its parts run as well. It follows from `rows`, n and k; where tiles of two sizes add
 * in the same order, from the number of workgroups too.
 */
function choose(part: Part, { transposeA, transposeB }: Form, rows: number): Choice {
  const { m, n, k, batch, sum, a, b, out, bias, rowSum } = part;
  const { device } = out.tensor;
  const vec4 = a.row % 4 === 0 && b.row % 4 === 0 && n % 4 === 0;
  if (
    rows <= FEW_ROWS &&
    !transposeA &&
    transposeB &&
    k % 4 === 0 &&
    sum === 1 &&
    !rowSum &&
    bias?.along !== 'column'
  ) {
    const how = rows === 1 ? variant(device, 'one row') : variant(device, 'few rows');
    const together = m === 1 ? 1 : FEW_ROWS;
    if (how !== 'tiles') return { way: 'few rows', subgroups: how === 'subgroup', down: together, across: 4, vec4: n % 4 === 0 }; // prettier-ignore
  }
  const half = a.tensor.dtype === 'f16' && b.tensor.dtype === 'f16' && vec4 && rows >= LARGE && n >= LARGE;
  const way = half ? variant(device, 'matmul f16') : variant(device, 'matmul');
  if (way === 'matrix') {
    const { M, N } = matrixConfig(device.profile)!;
    return { way, subgroups: true, down: 8 * M, across: 8 * N, vec4 };
  }
  const { subgroupSize } = device.profile;
  if (way === 'subgroup') {
    const rounds = roundsFor(m, subgroupSize);
    return { way, subgroups: true, down: 4 * rounds, across: 4 * subgroupSize, vec4 };
  }
  const tile = batch * Math.ceil(m / 64) * Math.ceil(n / 64) < SPREAD ? 32 : 64;
  return { way, subgroups: false, down: tile, across: tile, vec4 };
}

const SOURCES = { matrix: matrices, subgroup: broadcast, tiled, 'few rows': fewRows };

/** How subgroup matrices' kernel reads: f16 as it is. Ends in a line break, as inserted texts do. */
const halfOperand = (name: string, binding: number) =>
  `@group(0) @binding(${binding}) var<storage, read> ${name}: array<vec4<f16>>;\n`;

/** What a choice's kernel is specialised by. */
function definesOf(device: Device, { way, subgroups, down, vec4 }: Choice, a: DType, b: DType): Defines {
  const { subgroupSize } = device.profile;
  const width: Defines = subgroups ? { SUBGROUPS: true, SUBGROUP: `${subgroupSize}u` } : {};
  const operands = { A: reader('a', a, 0, 0), B: reader('b', b, 1, 3), FORMAT: isStorageFormat(b) ? b : false };
  const rows = { VEC4_A: vec4, VEC4_B: vec4 || isStorageFormat(b), VEC4_OUT: vec4 };
  if (way === 'few rows')
    return { ...width, ...operands, VEC4_A: true, VEC4_B: true, VEC4_OUT: vec4, ROWS: `${down}u`, LANES: subgroups ? `${subgroupSize}u` : '64u' }; // prettier-ignore
  if (way === 'subgroup') return { ...width, ...operands, ...rows, ROUNDS: `${down / 4}u` };
  if (way === 'tiled') return { ...operands, ...rows, TILE: `${down}u` };
  const { M, N, K } = matrixConfig(device.profile)!;
  return { ...width, ...rows, A: halfOperand('a', 0), B: halfOperand('b', 1), M: `${M}u`, N: `${N}u`, K: `${K}u` };
}

/** Records a part whose operands can be bound. */
function record(part: Part, form: Form, choice: Choice): void {
  const { m, n, k, batch, sum, a, b, out, bias, rowSum, vectorAt, added } = part;
  const { device } = out.tensor;
  const { way, subgroups, down, across, vec4 } = choice;
  const { transposeA, transposeB } = form;
  const flags = [vec4, subgroups, transposeA, transposeB, bias, bias?.along === 'column', rowSum, added];
  const bits = flags.reduce<number>((sum, flag) => 2 * sum + (flag ? 1 : 0), 0);
  const dtypes = [a, b, out].map(({ tensor }) => tensor.dtype);
  const kernel = cached(device, `product ${way} ${down} ${bits} ${dtypes.join(' ')}`, () =>
    device.kernel(SOURCES[way], {
      ...typed(out.tensor),
      ...(dtypes.includes('f16') ? { F16: true } : {}),
      T_A: dtypes[0]!,
      T_B: dtypes[1]!,
      ...definesOf(device, choice, a.tensor.dtype, b.tensor.dtype),
      VECTOR: hasScales(b.tensor.dtype) ? 4 : 3,
      TRANSPOSE_A: transposeA,
      TRANSPOSE_B: transposeB,
      BIAS: bias !== undefined,
      BIAS_COLUMN: bias?.along === 'column',
      ROW_SUM: rowSum !== undefined,
      ADD: added,
    }),
  );
  const [left, right, result] = [windows(part, form, 'a'), windows(part, form, 'b'), windows(part, form, 'out')];
  const bound = [left.values, right.values, result.values];
  if (right.scales) bound.push(right.scales);
  if (bias) bound.push(bias.values.window());
  if (rowSum) bound.push(rowSum.window());
  device.dispatch(
    kernel,
    bound,
    {
      m, n, k, batch, sum,
      a_at: left.at, a_row: a.row, a_step: a.step,
      b_at: right.at, b_row: b.row, b_step: b.step,
      out_at: result.at, out_row: out.row, out_step: out.step,
      vector_at: vectorAt,
    }, // prettier-ignore
    batch * Math.ceil(m / down) * Math.ceil(n / across),
  );
}

/** What is bound of an operand: the tensor where that is possible, else the part's window; and where its first matrix begins. */
function windows(part: Part, form: Form, name: Name): { values: Window; scales: Window | null; at: number } {
  const { tensor, at } = part[name];
  const { storage, offset, size, dtype, device } = tensor;
  const values = tensor.window();
  const whole = byteLength(size, dtype) <= device.bindingLimit;
  if (whole && !hasScales(dtype)) return { values, scales: null, at };
  const first = whole ? 0 : Math.floor(at / granule(tensor)) * granule(tensor);
  const count = whole ? size : Math.min(size, at + span(part, form, name)) - first;
  const bytes = hasScales(dtype) ? scalesOffset(granule(tensor), dtype) / granule(tensor) : byteLength(2, dtype) / 2;
  return {
    values: whole ? values : windowOf(storage, offset + first * bytes, Math.ceil(count * bytes)),
    scales: hasScales(dtype)
      ? windowOf(storage, offset + scalesOffset(size, dtype) + first / 16, Math.ceil(count / 64) * 4)
      : null,
    at: at - first,
  };
}
