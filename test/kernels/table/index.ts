import type { Table } from '../row.ts';
import { convRows } from './conv.ts';
import { elementwiseRows } from './elementwise.ts';
import { matmulRows } from './matmul.ts';
import { optimRows } from './optim.ts';
import { randomRows } from './random.ts';
import { reduceRows } from './reduce.ts';
import { samplerRows } from './sampler.ts';

/** Every operation, its float64 reference and its samples. A missing row does not compile. */
export const table: Table = {
  ...convRows,
  ...elementwiseRows,
  ...matmulRows,
  ...optimRows,
  ...randomRows,
  ...reduceRows,
  ...samplerRows,
};
