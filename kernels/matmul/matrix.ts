import type { Profile, SubgroupMatrixConfig } from '../../engine/index.ts';

/**
 * Bytes of workgroup memory that the kernel takes: its pieces of A and B in f16, whichever way they lie, and a matrix of f32
 * for each subgroup (see matmul_matrix.wgsl).
 */
export function matrixBytes({ M, N, K }: SubgroupMatrixConfig): number {
  const depth = Math.max(32, K);
  const piece = (extent: number) => 2 * Math.max(extent * (depth + 8), depth * (extent + 8));
  return piece(8 * M) + piece(8 * N) + 4 * 8 * M * N;
}

/**
 * The matrices of f16, added in f32, that the kernel works with: the largest that the adapter multiplies and whose pieces fit
 * into its workgroup memory. Null where there are none.
 */
export function matrixConfig({ subgroupMatrix, subgroupSize, workgroupMemory }: Profile): SubgroupMatrixConfig | null {
  if (subgroupSize === 0) return null;
  const fitting = subgroupMatrix.filter(
    (config) =>
      config.componentType === 'f16' &&
      config.resultComponentType === 'f32' &&
      config.N % 4 === 0 &&
      32 % config.K === 0 &&
      matrixBytes(config) <= workgroupMemory,
  );
  return fitting.sort((x, y) => y.M * y.N * y.K - x.M * x.N * x.K)[0] ?? null;
}
