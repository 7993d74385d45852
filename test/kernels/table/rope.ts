import fc from 'fast-check';
import type { Shape } from '../../../engine/index.ts';
import { ropeFrequencies, ropeTable } from '../../../kernels/index.ts';
import type { RopeOptions } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { Rows, Sample } from '../row.ts';
import { indexOf, moved, placeOf } from './places.ts';

interface Attributes extends RopeOptions {
  /** Columns that turn. */
  width: number;
}

const turned = (
  shape: Shape,
  { width = shape[3]!, below = 50, batched = false, ...options }: RopeOptions & { width?: number; below?: number; batched?: boolean } = {},
): Sample<Attributes> => {
  const length = shape[options.layout === 'bthd' ? 1 : 2]!;
  return {
    inputs: [shape, { shape: batched ? [shape[0]!, length] : [length], dtype: 'i32', value: (random) => random.below(below) }],
    attributes: { width, ...options },
  };
}; // prettier-ignore

export const ropeRows: Rows<'rope'> = {
  rope: {
    call: (operation, [x, positions], { width, ...options }: Attributes) =>
      operation(x!, positions!, ropeTable(x!.device, ropeFrequencies(width)), options),
    reference([x, positions], { width, interleaved = false, layout = 'bhtd', scale = 1 }: Attributes) {
      const { shape } = x!;
      const frequencies = ropeFrequencies(width);
      return nd(shape, (i) => {
        const place = placeOf(shape, i);
        const column = place[3]!;
        if (column >= width) return x!.data[i]!;
        const pair = interleaved ? Math.floor(column / 2) : column % (width / 2);
        const first = interleaved ? column % 2 === 0 : column < width / 2;
        const other = interleaved ? column + (first ? 1 : -1) : column + (first ? width / 2 : -width / 2);
        const t = place[layout === 'bhtd' ? 2 : 1]!;
        const position = positions!.data[positions!.shape.length === 2 ? place[0]! * positions!.shape[1]! + t : t]!;
        const angle = position * frequencies[pair]!;
        const partner = x!.data[indexOf(shape, moved(place, 3, other))]! * (first ? -1 : 1);
        return scale * (x!.data[i]! * Math.cos(angle) + partner * Math.sin(angle));
      });
    },
    samples: [
      turned([2, 3, 5, 16], { batched: true }),
      turned([2, 5, 3, 16], { layout: 'bthd', below: 131_072 }),
      turned([1, 2, 4, 12], { interleaved: true, width: 8, scale: 1.25 }),
      turned([1, 2, 4, 12], { width: 6, below: 2 ** 31 - 1 }), // pairs that are no vec4, columns that stay
      turned([2, 1, 3, 6], { interleaved: true, batched: true }),
      turned([1, 2, 0, 8]),
    ],
    gradient: [0],
    bench: [{ ...turned([1, 16, 1024, 64], { below: 1024 }), flops: 0 }],
    arbitrary: fc
      .record({
        extents: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 3, maxLength: 3 }),
        pairs: fc.integer({ min: 1, max: 6 }),
        more: fc.nat({ max: 4 }),
        interleaved: fc.boolean(),
        batched: fc.boolean(),
        layout: fc.constantFrom('bhtd' as const, 'bthd' as const),
      })
      .map(({ extents, pairs, more, ...options }) =>
        turned([...extents, 2 * pairs + more], { width: 2 * pairs, ...options }),
      ),
    bad: [
      [
        (operation, t) => operation(t([2, 3, 4, 8]), t([3], 'i32'), t([4, 2], 'u32')),
        /\[rope\] the positions for x \(2, 3, 4, 8\) are \(4,\) or \(2, 4\), not \(3,\)/,
      ],
      [
        (operation, t) => operation(t([2, 3, 4, 8]), t([4], 'i32'), t([5, 2], 'u32')),
        /5 pairs do not fit into the 8 columns/,
      ],
      [(operation, t) => operation(t([2, 3, 4]), t([4], 'i32'), t([4, 2], 'u32')), /x must be \(B, H, T, D\)/],
      [(operation, t) => operation(t([1, 1, 1, 2]), t([1], 'i32'), t([1, 2])), /input 2 is f32; u32 is needed/],
    ],
  },
};
