import fc from 'fast-check';
import type { Shape } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { Rows, Sample } from '../row.ts';

const sample = (rows: number, width: number, shape: Shape): Sample<object> => ({
  inputs: [[rows, width], { shape, dtype: 'i32', value: (random) => random.below(rows) }],
  attributes: {},
});

export const embeddingRows: Rows<'embedding'> = {
  embedding: {
    call: (operation, [table, ids]) => operation(table!, ids!),
    reference([table, ids]) {
      const width = table!.shape[1]!;
      const out = nd([...ids!.shape, width]);
      return nd(out.shape, (i) => table!.data[ids!.data[Math.floor(i / width)]! * width + (i % width)]!);
    },
    samples: [
      sample(13, 6, [3, 9]), // ids repeat
      sample(500, 8, [40]), // rows of the table without a gradient
      sample(2, 160, [2, 33]),
      sample(1, 1, [1]),
      sample(5, 4, []),
      { ...sample(7, 5, [840_000]), name: 'past 65,535 workgroups', forwardOnly: true },
    ],
    gradient: [0],
    bench: [
      {
        name: '(49408, 128) (8, 24)',
        inputs: [{ shape: [49_408, 128], value: () => 0.02 }, sample(49_408, 128, [8, 24]).inputs[1]!],
        attributes: {},
        flops: 0,
      },
    ],
    arbitrary: fc
      .tuple(
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 9 }),
        fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 2 }),
      )
      .map(([rows, width, shape]) => sample(rows, width, shape)),
    bad: [
      [(operation, t) => operation(t([2, 3, 4]), t([2], 'i32')), /the table must be \(V, D\), not \(2, 3, 4\)/],
      [(operation, t) => operation(t([2, 3]), t([2])), /\[embedding\] input 1 is f32; i32 is needed/],
    ],
  },
};
