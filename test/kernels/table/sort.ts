import fc from 'fast-check';
import type { Shape } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { InputSpec, NdArray, Rows, Sample } from '../row.ts';
import { apart, at, fromEnd, moved, placeOf, resized, whole } from './places.ts';

interface Attributes {
  axis?: number;
  descending?: boolean;
}
const sorting = (input: InputSpec, attributes: Attributes = {}, name?: string): Sample<Attributes> => ({
  inputs: [input],
  attributes,
  ...(name === undefined ? {} : { name }),
});

/** The first `keep` places of each line in order; JavaScript's sort is stable. */
export function ordered(x: NdArray, axis: number, descending: boolean, keep: number): NdArray {
  const k = fromEnd(axis, x.shape.length);
  const shape = resized(x.shape, k, keep);
  const lines = new Map<string, number[]>();
  return nd(shape, (i) => {
    const place = placeOf(shape, i);
    const line = moved(place, k, 0).join();
    if (!lines.has(line)) {
      const value = (position: number) => at(x, moved(place, k, position)) * (descending ? -1 : 1);
      const positions = Array.from({ length: x.shape[k]! }, (_, position) => position);
      lines.set(line, positions.sort((a, b) => value(a) - value(b))); // prettier-ignore
    }
    return lines.get(line)![place[k]!]!;
  });
}

const taken = (x: NdArray, places: NdArray, axis: number): NdArray => {
  const k = fromEnd(axis, x.shape.length);
  return nd(places.shape, (i) => at(x, moved(placeOf(places.shape, i), k, places.data[i]!)));
};

const samples: Sample<Attributes>[] = [
  sorting(apart([3, 13])),
  sorting(apart([2, 9, 4]), { axis: 1, descending: true }),
  sorting(apart([1, 900]), {}, 'several runs'), // seven of 128 and one of 4
  sorting(apart([1, 600]), {}, 'in one pass'),
  { ...sorting(whole([3, 250, 4]), { axis: 1, descending: true }, 'runs of an inner axis'), forwardOnly: true },
  sorting(apart([5, 1])),
  sorting(apart([3, 0])),
  { ...sorting(whole([2, 600]), {}, 'whole numbers, many alike'), forwardOnly: true },
  { ...sorting(whole([2, 70]), { descending: true }, 'whole numbers downwards'), forwardOnly: true },
  { ...sorting({ shape: [3, 50], dtype: 'u32', value: (random) => random.word() }, {}, 'u32'), forwardOnly: true },
];

const cases = fc.tuple(
  fc
    .array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 })
    .chain((shape) => fc.tuple(fc.constant(shape), fc.nat({ max: shape.length - 1 }))),
  fc.boolean(),
);

const top = (shape: Shape, k: number, axis = -1, smallest = false): Sample<{ k: number; axis: number; smallest: boolean }> => ({
  inputs: [apart(shape)],
  attributes: { k, axis, smallest },
}); // prettier-ignore

export const sortRows: Rows<'argSort' | 'sort' | 'topK'> = {
  argSort: {
    call: (operation, [x], attributes) => operation(x!, attributes),
    reference: ([x], { axis = -1, descending = false }) =>
      ordered(x!, axis, descending, x!.shape[fromEnd(axis, x!.shape.length)]!),
    samples,
    gradient: 'none',
    tolerance: 0,
    f16: 0, // places
    arbitrary: cases.map(([[shape, axis], descending]) => sorting(whole(shape), { axis, descending })),
    bad: [[(operation, t) => operation(t([2, 3]), { axis: 2 }), /\[argSort\] axis 2 does not exist in \(2, 3\)/]],
  },
  sort: {
    call: (operation, [x], attributes) => operation(x!, attributes).values,
    reference: ([x], { axis = -1, descending = false }) =>
      taken(x!, ordered(x!, axis, descending, x!.shape[fromEnd(axis, x!.shape.length)]!), axis),
    samples,
    gradient: [0],
    bench: [{ ...sorting([8, 4096]), flops: 0 }],
    arbitrary: cases.map(([[shape, axis], descending]) => sorting(apart(shape), { axis, descending })),
    bad: [[(operation, t) => operation(t([])), /\[sort\] axis -1 does not exist in \(\)/]],
  },
  topK: {
    call: (operation, [x], { k, axis, smallest }) => operation(x!, k, { axis, smallest }).values,
    reference: ([x], { k, axis, smallest }) => taken(x!, ordered(x!, axis, !smallest, k), axis),
    samples: [
      top([3, 13], 4),
      top([2, 9, 3], 2, 1, true),
      top([1, 900], 5), // eight runs, cut to 5 each
      top([1, 800], 300), // runs whole at first, cut as they grow
      top([2, 5], 0),
      top([2, 5], 5),
    ],
    gradient: [0],
    bench: [{ ...top([8, 32_000], 40), flops: 0 }],
    arbitrary: cases.map(([[shape, axis], smallest]) => top(shape, Math.ceil(shape[axis]! / 2), axis, smallest)),
    bad: [[(operation, t) => operation(t([2, 3]), 4), /\[topK\] k is a whole number from 0 to 3, .*, not 4/]],
  },
};
