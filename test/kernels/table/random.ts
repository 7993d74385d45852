import fc from 'fast-check';
import { HostRandom, philox, randomKey } from '../../../engine/index.ts';
import type { Key, Shape } from '../../../engine/index.ts';
import type { Counter } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { NdArray, Rows, Sample } from '../row.ts';

interface Attributes {
  shape: Shape;
  key: Key;
  counter?: Counter;
}

const key = randomKey(7, 'table');

/** The engine's own generator on the host, whose words `randomWords` must give exactly. */
function words({ shape, key, counter }: Attributes): NdArray {
  const random = new HostRandom(key, counter?.sample, counter?.step);
  return nd(shape, () => random.word());
}

/** Box–Muller in float64 over the words of each half block; see random.wgsl. */
function normals(attributes: Attributes): NdArray {
  const { shape, key, counter = {} } = attributes;
  const block = new Uint32Array(4);
  return nd(shape, (i) => {
    philox(block, Math.floor(i / 4), counter.sample ?? 0, counter.step ?? 0, 0, key.low, key.high);
    const half = i % 4 < 2 ? 0 : 2;
    const radius = Math.sqrt(-2 * Math.log((block[half]! + 0.5) / 2 ** 32));
    const angle = ((block[half + 1]! | 0) / 2 ** 31) * Math.PI;
    return radius * (i % 2 === 0 ? Math.cos(angle) : Math.sin(angle));
  });
}

// The operations take a device, which the table hands over in a tensor.
const samples: Sample<Attributes>[] = [
  { name: 'one', inputs: [[1]], attributes: { shape: [1], key } },
  { name: 'two blocks', inputs: [[1]], attributes: { shape: [7], key } },
  {
    name: 'a batch',
    inputs: [[1]],
    attributes: { shape: [2, 3, 50], key, counter: { sample: 3, step: 4_000_000_000 } },
  },
];

const shapes = fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 3 });
const counters = fc.record({ sample: fc.maxSafeNat().map((n) => n >>> 0), step: fc.nat() });
const arbitrary = fc.tuple(shapes, fc.nat(), counters).map(([shape, seed, counter]): Sample<Attributes> => ({
  inputs: [[1]],
  attributes: { shape, key: randomKey(seed, 'any'), counter },
}));

const dropped = (x: NdArray, p: number, attributes: Attributes): NdArray => {
  const drawn = words(attributes);
  return nd(x.shape, (i) => (drawn.data[i]! >= Math.round(p * 2 ** 32) ? x.data[i]! / (1 - p) : 0));
};

export const randomRows: Rows<'randomWords' | 'randomUniform' | 'randomNormal' | 'dropout'> = {
  randomWords: {
    call: (operation, [x], { shape, key, counter }) => operation(x!.device, shape, key, counter),
    reference: (_, attributes) => words(attributes),
    samples: [
      ...samples,
      // 65,540 workgroups of 256 elements
      {
        name: 'past 65,535 workgroups',
        inputs: [[1]],
        attributes: { shape: [256 * 65_539 + 1], key },
        forwardOnly: true,
      },
    ],
    gradient: 'none',
    arbitrary,
    tolerance: 0,
    bad: [[(operation, t) => operation(t([1]).device, [2], key, { step: -1 }), /sample and step are whole numbers/]],
  },
  randomUniform: {
    call: (operation, [x], { shape, key, counter }) =>
      operation(x!.device, shape, key, { ...counter, low: -2, high: 3 }),
    reference: (_, attributes) => {
      const drawn = words(attributes);
      return nd(drawn.shape, (i) => -2 + 5 * (Math.floor(drawn.data[i]! / 256) / 2 ** 24));
    },
    samples,
    gradient: 'none',
    arbitrary,
  },
  randomNormal: {
    call: (operation, [x], { shape, key, counter }) => operation(x!.device, shape, key, counter),
    reference: (_, attributes) => normals(attributes),
    samples,
    gradient: 'none',
    arbitrary,
  },
  dropout: {
    call: (operation, [x], { p, key, counter }) => operation(x!, p, key, counter),
    reference: ([x], { p, ...attributes }) => dropped(x!, p, { ...attributes, shape: x!.shape }),
    samples: [
      { inputs: [[33]], attributes: { p: 0.25, key } },
      { inputs: [[2, 5, 8]], attributes: { p: 0.9, key, counter: { sample: 1, step: 2 } } },
      { inputs: [[6]], attributes: { p: 0, key } },
    ],
    gradient: [0],
    arbitrary: fc
      .tuple(shapes, fc.constantFrom(0, 2 ** -32, 0.25, 0.5, 0.999), fc.nat(), counters)
      .map(([shape, p, seed, counter]) => ({
        inputs: [shape],
        attributes: { p, key: randomKey(seed, 'any'), counter },
      })),
    bad: [[(operation, t) => operation(t([2]), 1, key), /p is a probability/]],
  },
};
