import fc from 'fast-check';
import type { Shape } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { InputSpec, NdArray, Rows, Sample } from '../row.ts';
import { at, indexOf, moved, placeOf, resized, whole } from './places.ts';

const indices = (shape: Shape, n: number): InputSpec => ({ shape, dtype: 'i32', value: (random) => random.below(n) });

type Along = Sample<{ axis: number }>;

/** x of a shape, and `count` indices along an axis for each line, or for all lines together. */
const gathering = (shape: Shape, axis: number, count: number): Along => ({
  inputs: [shape, indices(resized(shape, axis, count), shape[axis]!)],
  attributes: { axis },
});
const selecting = (shape: Shape, axis: number, count: number): Along => ({
  inputs: [shape, indices([count], shape[axis]!)],
  attributes: { axis },
});
const scattering = (shape: Shape, axis: number, count: number): Along => ({
  inputs: [...gathering(shape, axis, count).inputs, resized(shape, axis, count)],
  attributes: { axis },
});

const cases = fc
  .array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 3 })
  .chain((shape) => fc.tuple(fc.constant(shape), fc.nat({ max: shape.length - 1 }), fc.nat({ max: 9 })));

const gathered = ([x, index]: NdArray[], { axis }: { axis: number }): NdArray =>
  nd(index!.shape, (i) => at(x!, moved(placeOf(index!.shape, i), axis, index!.data[i]!)));

export const indexingRows: Rows<'gather' | 'scatterAdd' | 'indexSelect' | 'oneHot'> = {
  gather: {
    call: (operation, [x, index], { axis }) => operation(x!, index!, axis),
    reference: gathered,
    samples: [
      gathering([2, 5, 3], 1, 7), // indices repeat
      gathering([6], 0, 4),
      gathering([3, 40], 1, 1), // one of each row: the target's log-probability
      gathering([1, 3], 1, 800), // several runs of the sort
      gathering([2, 3], 1, 0),
      {
        ...gathering([3, 7], 1, 5),
        inputs: [whole([3, 7]), indices([3, 5], 7)],
        name: 'whole numbers',
        forwardOnly: true,
      },
    ],
    gradient: [0],
    arbitrary: cases.map(([shape, axis, count]) => gathering(shape, axis, count)),
    bad: [
      [
        (operation, t) => operation(t([2, 3]), t([3, 3], 'i32'), 1),
        /\[gather\] the indices are \(3, 3\), x is \(2, 3\)/,
      ],
      [(operation, t) => operation(t([2, 3]), t([2, 3]), 1), /\[gather\] input 1 is f32; i32 is needed/],
      [
        (operation, t) => operation(t([2, 32], 'bf16'), t([2, 32], 'i32'), 0),
        /\[gather\] input 0 is bf16; f32, f16, i32 or u32/,
      ],
      [(operation, t) => operation(t([2, 3]), t([2, 3], 'i32'), 2), /\[gather\] axis 2 does not exist/],
    ],
  },
  scatterAdd: {
    call: (operation, [x, index, source], { axis }) => operation(x!, index!, source!, axis),
    reference([x, index, source], { axis }) {
      const out = nd(x!.shape, (i) => x!.data[i]!);
      index!.data.forEach((position, i) => {
        out.data[indexOf(x!.shape, moved(placeOf(index!.shape, i), axis, position))]! += source!.data[i]!;
      });
      return out;
    },
    samples: [
      scattering([2, 4, 3], 1, 9),
      scattering([5], 0, 12),
      scattering([2, 3], 1, 0),
      scattering([2, 3], 0, 700),
    ],
    gradient: [0, 2],
    arbitrary: cases.map(([shape, axis, count]) => scattering(shape, axis, count)),
    bad: [
      [
        (operation, t) => operation(t([2, 3]), t([2, 4], 'i32'), t([2, 3]), 1),
        /source is \(2, 3\), the indices \(2, 4\)/,
      ],
      [(operation, t) => operation(t([2, 3]), t([3, 4], 'i32'), t([3, 4]), 1), /all extents but that of axis 1/],
    ],
  },
  indexSelect: {
    call: (operation, [x, index], { axis }) => operation(x!, index!, axis),
    reference([x, index], { axis }) {
      const shape = resized(x!.shape, axis, index!.shape[0]!);
      return nd(shape, (i) => {
        const place = placeOf(shape, i);
        return at(x!, moved(place, axis, index!.data[place[axis]!]!));
      });
    },
    samples: [
      selecting([2, 5, 3], 1, 7),
      selecting([5, 8], 0, 12), // rows by vec4
      selecting([3, 6], 1, 4),
      selecting([2, 3], 1, 0),
      {
        ...selecting([5, 4], 0, 3),
        inputs: [whole([5, 4]), indices([3], 5)],
        name: 'whole numbers',
        forwardOnly: true,
      },
    ],
    gradient: [0],
    arbitrary: cases.map(([shape, axis, count]) => selecting(shape, axis, count)),
    bad: [
      [(operation, t) => operation(t([2, 3]), t([2, 1], 'i32'), 1), /the indices must be a list \(K,\), not \(2, 1\)/],
    ],
  },
  oneHot: {
    call: (operation, [ids], { classes }) => operation(ids!, classes),
    reference: ([ids], { classes }) =>
      nd([...ids!.shape, classes], (i) => (ids!.data[Math.floor(i / classes)] === i % classes ? 1 : 0)),
    samples: [
      { inputs: [indices([2, 3], 5)], attributes: { classes: 5 } },
      { inputs: [indices([], 3)], attributes: { classes: 3 } },
      { inputs: [indices([7], 9)], attributes: { classes: 4 } }, // some are no class
      { inputs: [indices([0], 9)], attributes: { classes: 4 } },
    ],
    gradient: 'none',
    arbitrary: fc
      .tuple(fc.array(fc.nat({ max: 5 }), { maxLength: 3 }), fc.integer({ min: 1, max: 7 }))
      .map(([shape, classes]) => ({ inputs: [indices(shape, 7)], attributes: { classes } })),
    bad: [
      [(operation, t) => operation(t([2], 'i32'), 0), /\[oneHot\] the number of classes .* ≥ 1, not 0/],
      [(operation, t) => operation(t([2]), 3), /\[oneHot\] input 0 is f32; i32 is needed/],
    ],
  },
};
