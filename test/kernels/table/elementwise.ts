import fc from 'fast-check';
import { nd, broadcastMap } from '../row.ts';
import type { InputSpec, NdArray, Rows, Sample } from '../row.ts';
import type { HostRandom, Shape, Tensor } from '../../../engine/index.ts';

const map =
  (f: (x: number) => number) =>
  ([x]: NdArray[]) =>
    nd(x!.shape, (i) => f(x!.data[i]!));

const unarySamples = (value?: (random: HostRandom) => number): Sample<object>[] =>
  [[], [1], [7], [64], [3, 5], [2, 3, 8]].map((shape) => ({
    inputs: [value ? { shape, value } : shape],
    attributes: {},
  }));

const positive = (random: HostRandom) => 0.1 + 4 * random.uniform();
const wide = (random: HostRandom) => 40 * (random.uniform() - 0.5);

/** erf by its series Σ (−1)ⁿ x²ⁿ⁺¹ / (n!(2n+1)) where it converges fast, else by the continued fraction of erfc. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a < 3) {
    let term = a;
    let total = a;
    for (let n = 1; n < 200; n++) {
      term *= (-a * a) / n;
      total += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * total) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / (a + fraction) / Math.sqrt(Math.PI));
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

const unary = (f: (x: number) => number, value?: (random: HostRandom) => number) => ({
  call: (operation: (x: Tensor) => Tensor, [x]: Tensor[]) => operation(x!),
  reference: map(f),
  samples: unarySamples(value),
  gradient: [0],
});

/** Pairs of shapes that broadcast, from one shape with extents of either side set to 1. */
const broadcastPair: fc.Arbitrary<Sample<object>> = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 6 }), fc.constantFrom('both', 'both', 'left', 'right')), { maxLength: 4 })
  .chain((axes) => fc.tuple(fc.constant(axes), fc.nat({ max: axes.length }), fc.boolean()))
  .map(([axes, drop, swap]) => {
    const left = axes.map(([extent, who]) => (who === 'right' ? 1 : extent));
    const right = axes.map(([extent, who]) => (who === 'left' ? 1 : extent)).slice(drop);
    return { inputs: swap ? [right, left] : [left, right], attributes: {} };
  });

const pairs: (readonly [Shape, Shape])[] = [
  [[], []],
  [[7], [7]],
  [[3, 5], [5]],
  [
    [2, 3, 4, 4],
    [1, 3, 1, 1],
  ], // a bias of channels
  [
    [2, 8, 4, 4],
    [2, 8, 1, 1],
  ], // a time embedding
  [
    [4, 1, 8],
    [3, 1],
  ], // both are broadcast
  [
    [1, 6],
    [5, 1],
  ],
  [[2, 16], [1]],
];

const binary = (f: (x: number, y: number) => number, second?: (random: HostRandom) => number) => ({
  call: (operation: (a: Tensor, b: Tensor) => Tensor, [a, b]: Tensor[]) => operation(a!, b!),
  reference: (inputs: NdArray[]) => broadcastMap(f as (...values: number[]) => number, ...inputs),
  samples: pairs.map(([a, b]) => ({
    inputs: [a, (second ? { shape: b, value: second } : b) as InputSpec],
    attributes: {},
  })),
  gradient: [0, 1],
  bad: [
    [
      (operation: (a: Tensor, b: Tensor) => Tensor, t: (shape: Shape) => Tensor) => operation(t([2, 3]), t([2, 4])),
      /\(2, 3\) and \(2, 4\) do not broadcast/,
    ],
  ] as const,
});

export const elementwiseRows: Rows<
  | 'add' | 'sub' | 'mul' | 'div' | 'affine' | 'exp' | 'log' | 'sqrt' | 'square' | 'clamp'
  | 'silu' | 'quickGelu' | 'gelu' | 'geluTanh'
> = {
  add: {
    ...binary((x, y) => x + y),
    arbitrary: broadcastPair,
    samples: [
      ...binary((x, y) => x + y).samples,
      // 65,626 workgroups of 64: past one dimension of the grid; rows of odd length keep to the scalar variant
      { name: 'past 65,535 workgroups', inputs: [[4_200_063 / 3, 3], [3]], attributes: {}, forwardOnly: true },
    ],
    bench: [
      { inputs: [[8, 96, 16, 16], [8, 96, 16, 16]], attributes: {}, flops: 8 * 96 * 256 },
      { inputs: [[8, 96, 16, 16], [8, 96, 1, 1]], attributes: {}, flops: 8 * 96 * 256 },
    ],
  },
  sub: { ...binary((x, y) => x - y), arbitrary: broadcastPair },
  mul: {
    ...binary((x, y) => x * y),
    arbitrary: broadcastPair,
    bad: [[(operation, t) => operation(t([2]), t([2], 'i32')), /\[mul\] input 1 is i32; f32, as the inputs before it, is needed/]],
  },
  div: binary((x, y) => x / y, positive),
  affine: {
    call: (operation, [x], { scale, shift }) => operation(x!, scale, shift),
    reference: ([x], { scale, shift }) => nd(x!.shape, (i) => scale * x!.data[i]! + shift),
    samples: [
      { inputs: [[5]], attributes: { scale: 2.5, shift: -1 } },
      { inputs: [[4, 4]], attributes: { scale: -0.5, shift: 0 } },
    ],
    gradient: [0],
  },
  exp: unary(Math.exp),
  log: unary(Math.log, positive),
  sqrt: unary(Math.sqrt, positive),
  square: unary((x) => x * x),
  clamp: {
    call: (operation, [x], { low, high }) => operation(x!, low, high),
    reference: ([x], { low, high }) => nd(x!.shape, (i) => Math.min(Math.max(x!.data[i]!, low), high)),
    samples: [{ inputs: [[33]], attributes: { low: -0.5, high: 0.75 } }],
    gradient: [0],
    bad: [[(operation, t) => operation(t([2]), 1, 0), /low must not exceed high/]],
  },
  silu: {
    ...unary((x) => x * sigmoid(x), wide),
    bench: [{ inputs: [[1024, 1024]], attributes: {}, flops: 4 * 1024 * 1024 }],
  },
  quickGelu: unary((x) => x * sigmoid(1.702 * x), wide),
  gelu: unary((x) => 0.5 * x * (1 + erf(x / Math.SQRT2))),
  geluTanh: unary((x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))),
}; // prettier-ignore
