import fc from 'fast-check';
import { sizeOf } from '../../../engine/index.ts';
import type { HostRandom, Shape } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { NdArray, Rows, Sample } from '../row.ts';

/** Where index `i` of a row-major array of `shape` lies along each axis. */
function placeOf(shape: Shape, i: number): number[] {
  return shape.map((extent, k) => Math.floor(i / sizeOf(shape.slice(k + 1))) % extent);
}

const at = ({ shape, data }: NdArray, place: number[]): number =>
  data[place.reduce((index, position, k) => index * shape[k]! + position, 0)]!;

/** Whole numbers: read as f32, these bits are subnormal or NaN. */
const whole = (shape: Shape) => ({ shape, dtype: 'i32' as const, value: (random: HostRandom) => random.below(99) - 9 });

const fromEnd = (axis: number, rank: number) => (axis < 0 ? axis + rank : axis);

const transposed = (shape: Shape, permutation: number[]): Sample<{ permutation: number[] }> => ({
  inputs: [shape],
  attributes: { permutation },
});

const extents = (maxLength: number) => fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength });

export const layoutRows: Rows<'concat' | 'slice' | 'transpose'> = {
  concat: {
    call: (operation, inputs, { axis }) => operation(inputs, axis),
    reference(inputs, { axis }) {
      const rank = inputs[0]!.shape.length;
      const k = fromEnd(axis, rank);
      const total = inputs.reduce((sum, { shape }) => sum + shape[k]!, 0);
      const shape = inputs[0]!.shape.map((extent, i) => (i === k ? total : extent));
      return nd(shape, (i) => {
        const place = placeOf(shape, i);
        const input = inputs.find((candidate) => {
          if (place[k]! < candidate.shape[k]!) return true;
          place[k]! -= candidate.shape[k]!;
          return false;
        });
        return at(input!, place);
      });
    },
    samples: [
      { inputs: [[3], [5]], attributes: { axis: 0 } },
      { inputs: [[2, 3, 4, 4], [2, 5, 4, 4]], attributes: { axis: 1 } }, // skip connections
      { inputs: [[2, 3], [2, 1], [2, 2]], attributes: { axis: -1 } },
      { inputs: [[2, 8], [2, 4]], attributes: { axis: 1 } },
      { inputs: [[4, 2]], attributes: { axis: 0 } },
      { inputs: [whole([4, 2]), whole([4, 3])], attributes: { axis: 1 }, name: 'whole numbers', forwardOnly: true },
      { inputs: [[1_400_021, 2], [1_400_021, 1]], attributes: { axis: 1 }, name: 'past 65,535 workgroups', forwardOnly: true },
    ], // prettier-ignore
    gradient: [0, 1, 2],
    bench: [
      {
        inputs: [
          [8, 96, 16, 16],
          [8, 48, 16, 16],
        ],
        attributes: { axis: 1 },
        flops: 0,
      },
    ],
    arbitrary: extents(4).chain((shape) =>
      fc
        .tuple(
          fc.nat({ max: shape.length - 1 }),
          fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 }),
        )
        .map(([axis, parts]) => ({
          inputs: parts.map((part) => shape.map((extent, k) => (k === axis ? part : extent))),
          attributes: { axis },
        })),
    ),
    bad: [
      [(operation) => operation([], 0), /at least one tensor/],
      [(operation, t) => operation([t([2, 3])], 2), /axis 2 does not exist in \(2, 3\)/],
      [(operation, t) => operation([t([2, 3]), t([3, 3])], 1), /tensor 1 is \(3, 3\), the first \(2, 3\)/],
      [
        (operation, t) => operation([t([2]), t([2], 'i32')], 0),
        /\[concat\] input 1 is i32; f32, as the inputs before it, is needed/,
      ],
    ],
  },
  slice: {
    call: (operation, [x], { axis, start, end }) => operation(x!, axis, start, end),
    reference([x], { axis, start, end }) {
      const k = fromEnd(axis, x!.shape.length);
      const shape = x!.shape.map((extent, i) => (i === k ? end - start : extent));
      return nd(shape, (i) =>
        at(
          x!,
          placeOf(shape, i).map((position, axis) => (axis === k ? position + start : position)),
        ),
      );
    },
    samples: [
      { inputs: [[7]], attributes: { axis: 0, start: 2, end: 5 } },
      { inputs: [[2, 8, 4]], attributes: { axis: 1, start: 4, end: 8 } },
      { inputs: [[3, 16]], attributes: { axis: -1, start: 4, end: 12 } },
      { inputs: [[3, 5]], attributes: { axis: 1, start: 0, end: 5 } },
      { inputs: [whole([3, 5])], attributes: { axis: 1, start: 1, end: 4 }, name: 'whole numbers', forwardOnly: true },
      { inputs: [[3, 5]], attributes: { axis: 0, start: 1, end: 1 }, name: 'nothing', forwardOnly: true },
      { inputs: [[4_200_080, 1]], attributes: { axis: 0, start: 3, end: 4_200_066 }, name: 'past 65,535 workgroups', forwardOnly: true },
    ], // prettier-ignore
    gradient: [0],
    arbitrary: extents(4).chain((shape) =>
      fc.nat({ max: shape.length - 1 }).chain((axis) =>
        fc
          .tuple(fc.nat({ max: shape[axis]! - 1 }), fc.integer({ min: 1, max: shape[axis]! }))
          .map(([start, length]) => ({
            inputs: [shape],
            attributes: { axis, start, end: Math.min(start + length, shape[axis]!) },
          })),
      ),
    ),
    bad: [
      [(operation, t) => operation(t([2, 3]), 1, 2, 4), /2 to 4 does not lie within axis 1 of \(2, 3\)/],
      [(operation, t) => operation(t([2, 3]), 1, 2, 1), /0 ≤ start ≤ end ≤ 3/],
      [(operation, t) => operation(t([2, 3]), -3, 0, 1), /axis -3 does not exist/],
    ],
  },
  transpose: {
    call: (operation, [x], { permutation }) => operation(x!, permutation),
    reference([x], { permutation }: { permutation: number[] }) {
      const shape = permutation.map((axis) => x!.shape[axis]!);
      return nd(shape, (i) => {
        const place = placeOf(shape, i);
        return at(
          x!,
          x!.shape.map((_, axis) => place[permutation.indexOf(axis)]!),
        );
      });
    },
    samples: [
      transposed([3, 5], [1, 0]),
      transposed([8, 12], [1, 0]),
      transposed([2, 8, 16], [0, 2, 1]), // blocks of 4 × 4
      transposed([2, 6, 3, 8], [0, 2, 1, 3]), // heads
      transposed([4, 3, 8, 2], [2, 1, 3, 0]),
      transposed([8, 3, 4], [2, 1, 0]),
      transposed([3, 4, 5], [0, 1, 2]),
      transposed([1, 7, 1], [1, 2, 0]), // nothing moves
      { inputs: [whole([3, 5])], attributes: { permutation: [1, 0] }, name: 'whole numbers', forwardOnly: true },
      { ...transposed([2_100_011, 2], [1, 0]), name: 'past 65,535 workgroups', forwardOnly: true },
    ],
    gradient: [0],
    bench: [{ ...transposed([8, 96, 256], [0, 2, 1]), flops: 0 }],
    arbitrary: fc.array(fc.constantFrom(1, 2, 3, 4, 8), { minLength: 1, maxLength: 4 }).chain((shape) =>
      fc
        .shuffledSubarray(
          shape.map((_, i) => i),
          { minLength: shape.length },
        )
        .map((permutation) => transposed(shape, permutation)),
    ),
    bad: [
      [(operation, t) => operation(t([2, 3]), [0, 0]), /\(0, 0\) is no order of the 2 axes of \(2, 3\)/],
      [(operation, t) => operation(t([2, 3]), [0]), /is no order of the 2 axes/],
      [(operation, t) => operation(t([2, 2, 2, 2, 2]), [4, 3, 2, 1, 0]), /more than four groups/],
    ],
  },
};
