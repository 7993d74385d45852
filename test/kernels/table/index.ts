import type { Table } from '../row.ts';
import { elementwiseRows } from './elementwise.ts';
import { matmulRows } from './matmul.ts';
import { reduceRows } from './reduce.ts';

/** Every operation, its float64 reference and its samples. A missing row does not compile. */
export const table: Table = {
  ...elementwiseRows,
  ...matmulRows,
  ...reduceRows,
};
