import type { Profile, SubgroupMatrixConfig } from '../../engine/index.ts';

/**
 * The matrices of f16, added in f32, that the kernel works with: the largest that the adapter multiplies, up to what its
 * pieces in workgroup memory allow (32 KiB). Null where there are none.
 */
export function matrixConfig({ subgroupMatrix, subgroupSize }: Profile): SubgroupMatrixConfig | null {
  if (subgroupSize === 0) return null;
  const fitting = subgroupMatrix.filter(
    ({ componentType, resultComponentType, M, N, K }) =>
      componentType === 'f16' &&
      resultComponentType === 'f32' &&
      M <= 16 &&
      N <= 16 &&
      N % 4 === 0 &&
      K <= 32 &&
      32 % K === 0,
  );
  return fitting.sort((x, y) => y.M * y.N * y.K - x.M * x.N * x.K)[0] ?? null;
}
