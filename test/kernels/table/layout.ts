import fc from 'fast-check';
import type { Shape } from '../../../engine/index.ts';
import { concat } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { Rows, Sample } from '../row.ts';
import { at, fromEnd, moved, placeOf, resized, whole } from './places.ts';

const transposed = (shape: Shape, permutation: number[]): Sample<{ permutation: number[] }> => ({
  inputs: [shape],
  attributes: { permutation },
});

const extents = (maxLength: number) => fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength });

const along = (shape: Shape, axis: number, n: number): Sample<{ axis: number; n: number }> => ({
  inputs: [shape],
  attributes: { axis, n },
});
/** Shapes with an axis. */
const axes = extents(4).chain((shape) => fc.tuple(fc.constant(shape), fc.nat({ max: shape.length - 1 })));

interface Pad {
  padding: [number, number][];
  mode?: 'constant' | 'reflect' | 'replicate';
  value?: number;
}
const padded = (shape: Shape, padding: [number, number][], mode: Pad['mode'] = 'constant'): Sample<Pad> => ({
  inputs: [shape],
  attributes: { padding, mode, value: mode === 'constant' ? 0.5 : undefined },
});

export const layoutRows: Rows<
  'concat' | 'slice' | 'transpose' | 'pad' | 'flip' | 'roll' | 'tile' | 'repeat' | 'stack' | 'split'
> = {
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
  pad: {
    call: (operation, [x], { padding, mode, value }: Pad) => operation(x!, padding, { mode, value }),
    reference([x], { padding, mode, value = 0 }: Pad) {
      const lead = x!.shape.length - padding.length;
      const sides = x!.shape.map((_, k) => padding[k - lead] ?? [0, 0]);
      const shape = x!.shape.map((extent, k) => extent + sides[k]![0] + sides[k]![1]);
      return nd(shape, (i) => {
        let outside = false;
        const place = placeOf(shape, i).map((position, k) => {
          const [own, last] = [position - sides[k]![0], x!.shape[k]! - 1];
          if (own >= 0 && own <= last) return own;
          outside = true;
          if (mode === 'reflect') return own < 0 ? -own : 2 * last - own;
          return own < 0 ? 0 : last;
        });
        return outside && mode === 'constant' ? value : at(x!, place);
      });
    },
    samples: [
      padded(
        [2, 3, 5, 5],
        [
          [1, 2],
          [0, 1],
        ],
      ),
      padded(
        [2, 8, 8],
        [
          [2, 1],
          [0, 0],
        ],
      ),
      padded(
        [3, 4],
        [
          [2, 2],
          [3, 1],
        ],
        'reflect',
      ),
      padded(
        [2, 3, 8],
        [
          [2, 2],
          [0, 0],
        ],
        'reflect',
      ),
      padded([5], [[3, 4]], 'replicate'),
      padded(
        [2, 1, 4],
        [
          [3, 2],
          [0, 0],
        ],
        'replicate',
      ),
      padded([1], [[0, 0]], 'reflect'),
      padded(
        [0, 3],
        [
          [2, 1],
          [1, 1],
        ],
      ),
      {
        ...padded(
          [2, 1_050_001],
          [
            [1, 1],
            [1, 0],
          ],
        ),
        name: 'past 65,535 workgroups',
        forwardOnly: true,
      },
      {
        inputs: [whole([2, 3])],
        attributes: { padding: [[1, 1]], mode: 'constant', value: -7 },
        name: 'whole numbers',
        forwardOnly: true,
      },
    ],
    gradient: [0],
    arbitrary: extents(3).chain((shape) =>
      fc
        .tuple(
          fc.constantFrom('constant' as const, 'reflect' as const, 'replicate' as const),
          fc.array(fc.tuple(fc.nat({ max: 4 }), fc.nat({ max: 4 })), { maxLength: shape.length }),
        )
        .map(([mode, padding]) =>
          padded(
            shape,
            padding.map((sides, i): [number, number] => {
              const most = mode === 'reflect' ? shape[shape.length - padding.length + i]! - 1 : 4;
              return [Math.min(sides[0], most), Math.min(sides[1], most)];
            }),
            mode,
          ),
        ),
    ),
    bad: [
      [(operation, t) => operation(t([2, 3]), [[-1, 0]]), /axis 1 is to be padded by -1 and 0: .* whole numbers ≥ 0/],
      [(operation, t) => operation(t([2, 3]), [[0, 3]], { mode: 'reflect' }), /at most 2, not 3/],
      [(operation, t) => operation(t([0]), [[0, 3]], { mode: 'replicate' }), /no edge to replicate/],
      [
        (operation, t) =>
          operation(t([2]), [
            [1, 1],
            [1, 1],
          ]),
        /2 axes are to be padded, \(2,\) has 1/,
      ],
    ],
  },
  flip: {
    call: (operation, [x], { axis }) => operation(x!, axis),
    reference([x], { axis }) {
      const k = fromEnd(axis, x!.shape.length);
      return nd(x!.shape, (i) => {
        const place = placeOf(x!.shape, i);
        return at(x!, moved(place, k, x!.shape[k]! - 1 - place[k]!));
      });
    },
    samples: [along([2, 3, 5], 1, 0), along([4, 8], 0, 0), along([7], -1, 0), along([2, 0], 1, 0)],
    gradient: [0],
    arbitrary: axes.map(([shape, axis]) => along(shape, axis, 0)),
    bad: [[(operation, t) => operation(t([2, 3]), 2), /\[flip\] axis 2 does not exist in \(2, 3\)/]],
  },
  roll: {
    call: (operation, [x], { axis, n }) => operation(x!, n, axis),
    reference([x], { axis, n }) {
      const extent = x!.shape[axis]!;
      return nd(x!.shape, (i) => {
        const place = placeOf(x!.shape, i);
        return at(x!, moved(place, axis, (((place[axis]! - n) % extent) + extent) % extent));
      });
    },
    samples: [along([2, 3, 5], 1, 1), along([7], 0, -9), along([3, 4], 0, 3), along([2, 0], 1, 2)],
    gradient: [0],
    arbitrary: fc.tuple(axes, fc.integer({ min: -9, max: 9 })).map(([[shape, axis], n]) => along(shape, axis, n)),
    bad: [[(operation, t) => operation(t([2, 3]), 0.5, 0), /\[roll\] shift must be a whole number, not 0.5/]],
  },
  tile: {
    call: (operation, [x], { axis, n }) => operation(x!, n, axis),
    reference([x], { axis, n }) {
      const shape = resized(x!.shape, axis, n * x!.shape[axis]!);
      return nd(shape, (i) => {
        const place = placeOf(shape, i);
        return at(x!, moved(place, axis, place[axis]! % x!.shape[axis]!));
      });
    },
    samples: [along([2, 3, 5], 1, 3), along([4, 4], 0, 2), along([3], 0, 1), along([3], 0, 0)],
    gradient: [0],
    arbitrary: fc.tuple(axes, fc.nat({ max: 3 })).map(([[shape, axis], n]) => along(shape, axis, n)),
    bad: [[(operation, t) => operation(t([2, 3]), -1, 0), /\[tile\] the number of copies .* ≥ 0, not -1/]],
  },
  repeat: {
    call: (operation, [x], { axis, n }) => operation(x!, n, axis),
    reference([x], { axis, n }) {
      const shape = resized(x!.shape, axis, n * x!.shape[axis]!);
      return nd(shape, (i) => {
        const place = placeOf(shape, i);
        return at(x!, moved(place, axis, Math.floor(place[axis]! / n)));
      });
    },
    samples: [along([2, 3, 5], 1, 3), along([4, 4], 0, 2), along([3], 0, 0)],
    gradient: [0],
    arbitrary: fc.tuple(axes, fc.nat({ max: 3 })).map(([[shape, axis], n]) => along(shape, axis, n)),
    bad: [[(operation, t) => operation(t([2, 3]), 1.5, 0), /\[repeat\] the number of copies .* not 1.5/]],
  },
  stack: {
    call: (operation, inputs, { axis }) => operation(inputs, axis),
    reference(inputs, { axis }) {
      const own = inputs[0]!.shape;
      const k = fromEnd(axis, own.length + 1);
      const shape = [...own.slice(0, k), inputs.length, ...own.slice(k)];
      return nd(shape, (i) => {
        const place = placeOf(shape, i);
        return at(inputs[place[k]!]!, [...place.slice(0, k), ...place.slice(k + 1)]);
      });
    },
    samples: [
      {
        inputs: [
          [2, 3],
          [2, 3],
          [2, 3],
        ],
        attributes: { axis: 1 },
      },
      {
        inputs: [
          [2, 4],
          [2, 4],
        ],
        attributes: { axis: 0 },
      },
      { inputs: [[5], [5]], attributes: { axis: -1 } },
      { inputs: [[], []], attributes: { axis: 0 } },
    ],
    gradient: [0, 1, 2],
    arbitrary: fc
      .tuple(axes, fc.integer({ min: 1, max: 3 }))
      .map(([[shape, axis], count]) => ({ inputs: Array<Shape>(count).fill(shape), attributes: { axis } })),
    bad: [
      [(operation) => operation([], 0), /\[stack\] needs at least one tensor/],
      [(operation, t) => operation([t([2]), t([3])], 0), /tensor 1 is \(3,\), the first \(2,\): all must be alike/],
      [(operation, t) => operation([t([2])], 2), /\[stack\] axis 2 does not exist/],
    ],
  },
  split: {
    // Backwards, so that all parts and their places show.
    call: (operation, [x], { axis, extents }) => concat(operation(x!, extents, axis).toReversed(), axis),
    reference([x], { axis, extents }: { axis: number; extents: number[] }) {
      const starts = extents.map((_, i) => extents.slice(0, i).reduce((sum, extent) => sum + extent, 0));
      const order = extents
        .map((extent, i) => Array.from({ length: extent }, (_, k) => starts[i]! + k))
        .toReversed()
        .flat();
      return nd(x!.shape, (i) => {
        const place = placeOf(x!.shape, i);
        return at(x!, moved(place, axis, order[place[axis]!]!));
      });
    },
    samples: [
      { inputs: [[2, 6, 3]], attributes: { axis: 1, extents: [1, 3, 2] } },
      { inputs: [[8]], attributes: { axis: 0, extents: [4, 0, 4] } },
    ],
    gradient: [0],
    arbitrary: fc
      .tuple(axes, fc.array(fc.nat({ max: 4 }), { minLength: 1, maxLength: 3 }))
      .map(([[shape, axis], parts]) => ({
        inputs: [
          resized(
            shape,
            axis,
            parts.reduce((sum, part) => sum + part, 0),
          ),
        ],
        attributes: { axis, extents: parts },
      })),
    bad: [
      [(operation, t) => operation(t([2, 3]), [1, 1], 1), /the parts \(1, 1\) do not add up to axis 1 of \(2, 3\)/],
      [(operation, t) => operation(t([2, 3]), [4, -1], 1), /do not add up/],
    ],
  },
};
