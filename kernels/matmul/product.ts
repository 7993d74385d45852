import { wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';

const tiled = wgsl(import.meta.url, './matmul.wgsl');
const broadcast = wgsl(import.meta.url, './matmul_subgroup.wgsl');

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
}

/**
 * Lanes of a subgroup that hold four rows each: all of them, or a half or a quarter where that already covers the rows,
 * so that most of a tile isn't thrown away.
 */
export function roundsFor(rows: number, subgroupSize: number): number {
  return [subgroupSize / 4, subgroupSize / 2].find((rounds) => rounds >= 1 && 4 * rounds >= rows) ?? subgroupSize;
}

/** Records out = Σ op(A) · op(B) + bias: the one place where matrices are multiplied. Reads elements in row-major order. */
export function multiply(a: Tensor, b: Tensor, out: Tensor, product: Product): void {
  const { m, n, k, transposeA = false, transposeB = false, batch = 1, sum = 1, bias, rowSum } = product;
  const { software, subgroupSize } = out.device.profile;
  const variant = {
    TRANSPOSE_A: transposeA,
    TRANSPOSE_B: transposeB,
    BIAS: bias !== undefined,
    BIAS_ROW: bias?.along === 'column',
    ROW_SUM: rowSum !== undefined,
  };
  const tensors = [a, b, out];
  if (bias) tensors.push(bias.values);
  if (rowSum) tensors.push(rowSum);
  const params = {
    m, n, k, batch, sum,
    a_step: product.sharedA ? 0 : m * k,
    b_step: product.sharedB ? 0 : k * n,
  }; // prettier-ignore
  const device = out.device;
  if (software && subgroupSize > 0) {
    const rounds = roundsFor(m, subgroupSize);
    const vec4 = [transposeA ? m : k, transposeB ? k : n, n].every((extent) => extent % 4 === 0);
    const kernel = device.kernel(broadcast, {
      SUBGROUPS: true,
      SUBGROUP: `${subgroupSize}u`,
      ROUNDS: `${rounds}u`,
      VEC4: vec4,
      ...variant,
    });
    device.run(kernel, tensors, params, batch * Math.ceil(m / (4 * rounds)) * Math.ceil(n / (4 * subgroupSize)));
  } else {
    device.run(device.kernel(tiled, variant), tensors, params, batch * Math.ceil(m / 64) * Math.ceil(n / 64));
  }
}
