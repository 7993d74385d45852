import type { Table } from '../row.ts';
import { attentionRows } from './attention.ts';
import { activationRows } from './activation.ts';
import { convRows } from './conv.ts';
import { elementwiseRows } from './elementwise.ts';
import { embeddingRows } from './embedding.ts';
import { indexingRows } from './indexing.ts';
import { layoutRows } from './layout.ts';
import { lossRows } from './loss.ts';
import { matmulRows } from './matmul.ts';
import { normRows } from './norm.ts';
import { optimRows } from './optim.ts';
import { poolRows } from './pool.ts';
import { randomRows } from './random.ts';
import { reduceRows } from './reduce.ts';
import { resizeRows } from './resize.ts';
import { ropeRows } from './rope.ts';
import { samplerRows } from './sampler.ts';
import { samplingRows } from './sampling.ts';
import { softmaxRows } from './softmax.ts';
import { sortRows } from './sort.ts';
import { treeRows } from './tree.ts';

/** Every operation, its float64 reference and its samples. A missing row does not compile. */
export const table: Table = {
  ...attentionRows,
  ...activationRows,
  ...convRows,
  ...elementwiseRows,
  ...embeddingRows,
  ...indexingRows,
  ...layoutRows,
  ...lossRows,
  ...matmulRows,
  ...normRows,
  ...optimRows,
  ...poolRows,
  ...randomRows,
  ...reduceRows,
  ...resizeRows,
  ...ropeRows,
  ...samplerRows,
  ...samplingRows,
  ...softmaxRows,
  ...sortRows,
  ...treeRows,
};
