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

/** Operands that are often equal, so that ties come up. */
const few = (random: HostRandom) => random.below(3) - 1;

const comparison = (f: (x: number, y: number) => boolean) => ({
  ...binary((x, y) => Number(f(x, y)), few),
  samples: [
    ...pairs.slice(0, 5).map(([a, b]) => ({
      inputs: [
        { shape: a, value: few },
        { shape: b, value: few },
      ],
      attributes: {},
    })),
    {
      name: 'integers',
      inputs: [
        { shape: [2, 8], dtype: 'i32' as const, value: few },
        { shape: [8], dtype: 'i32' as const, value: few },
      ],
      attributes: {},
    },
  ],
  gradient: 'none' as const,
});

const integers = (operands: readonly Shape[], value: (random: HostRandom) => number): Sample<object> => ({
  name: 'integers',
  inputs: operands.map((shape) => ({ shape, dtype: 'i32', value })),
  attributes: {},
  forwardOnly: true,
});

const angle = (random: HostRandom) => 2 * Math.PI * (random.uniform() - 0.5);
const inside = (random: HostRandom) => 1.8 * (random.uniform() - 0.5);
const steep = (random: HostRandom) => random.below(2) * 2 - 1 + 0.8 * (random.uniform() - 0.5);
// Away from whole numbers and halves, where a step's neighbours are.
const between = (random: HostRandom) => random.below(9) - 4 + (random.below(2) ? 0.25 : -0.25);
const special = [0, -0, 1, -2.5, 65504, 1e-40, NaN, Infinity, -Infinity];

/** WGSL's bounds (section 14.6.2): an absolute error of 2⁻¹¹ for sin and cos within [−π, π]; the other functions follow. */
const TRIGONOMETRIC = 2 ** -11;

/** Central differences at one of two tied operands see each side's gradient half the time: the halves that the rule gives. */
const tied: Sample<object> = {
  name: 'ties',
  inputs: [
    { shape: [16], value: (_, i) => i % 4 },
    { shape: [16], value: (_, i) => i % 3 },
  ],
  attributes: {},
};

export const elementwiseRows: Rows<
  | 'add' | 'sub' | 'mul' | 'div' | 'maximum' | 'minimum' | 'pow' | 'where' | 'cast' | 'affine' | 'scaled' | 'clamp'
  | 'equal' | 'notEqual' | 'less' | 'lessEqual' | 'greater' | 'greaterEqual' | 'isFinite'
  | 'neg' | 'abs' | 'reciprocal' | 'exp' | 'log' | 'sqrt' | 'rsqrt' | 'square' | 'sign' | 'floor' | 'ceil' | 'round'
  | 'sin' | 'cos' | 'tan' | 'asin' | 'acos' | 'atan' | 'sinh' | 'cosh' | 'erf'
  | 'sigmoid' | 'tanh' | 'softplus' | 'relu' | 'relu2' | 'silu' | 'quickGelu' | 'gelu' | 'geluTanh'
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
  div: { ...binary((x, y) => x / y, positive) },
  maximum: {
    ...binary((x, y) => Math.max(x, y)),
    samples: [...binary((x, y) => Math.max(x, y)).samples, tied, integers([[3, 4], [4]], few)],
  },
  minimum: {
    ...binary((x, y) => Math.min(x, y)),
    samples: [...binary((x, y) => Math.min(x, y)).samples, tied, integers([[3, 4], [4]], few)],
  },
  pow: {
    ...binary((x, y) => x ** y),
    // WGSL: the error of pow(x, y) is that of exp2(y · log2(x)): here |y log2 x| < 12, times the 2⁻²¹ of log2 and exp2.
    tolerance: 3e-5,
    samples: [
      { inputs: [{ shape: [4, 8], value: positive }, [8]], attributes: {} },
      {
        name: 'negative bases, whole exponents',
        inputs: [{ shape: [12], value: (random) => -positive(random) }, { shape: [12], value: (_, i) => (i % 5) - 2 }],
        attributes: {},
        forwardOnly: true,
      },
      {
        name: 'zeros',
        inputs: [{ shape: [6], value: (_, i) => (i % 2 ? 0 : 2) }, { shape: [6], value: (_, i) => i / 2 }],
        attributes: {},
        forwardOnly: true,
      },
    ],
  },
  where: {
    call: (operation, [condition, a, b]) => operation(condition!, a!, b!),
    reference: (inputs) => broadcastMap((c, a, b) => (c !== 0 ? a! : b!), ...inputs),
    samples: [
      [[3, 8], [3, 8], [3, 8]],
      [[3, 1], [3, 8], [8]],
      [[5], [2, 5], [1]],
    ].map(([c, a, b]) => ({
      inputs: [{ shape: c!, dtype: 'u32', value: (random) => random.below(2) }, a!, b!],
      attributes: {},
    })),
    gradient: [1, 2],
    bad: [
      [(operation, t) => operation(t([2]), t([2]), t([2])), /\[where\] input 0 is f32; u32 is needed/],
      [(operation, t) => operation(t([2], 'u32'), t([2]), t([3])), /\[where\] \(2,\) and \(2,\) and \(3,\) do not broadcast/],
    ],
  },
  cast: {
    call: (operation, [x], { dtype }) => operation(x!, dtype),
    reference: ([x], { dtype }) => nd(x!.shape, (i) => (dtype === 'i32' ? Math.trunc(x!.data[i]!) : x!.data[i]!)),
    samples: [
      { inputs: [[3, 5]], attributes: { dtype: 'f32' } },
      { name: 'to integers', inputs: [{ shape: [9], value: between }], attributes: { dtype: 'i32' }, forwardOnly: true },
      { name: 'from integers', inputs: [{ shape: [9], dtype: 'i32', value: few }], attributes: { dtype: 'f32' }, forwardOnly: true },
    ],
    gradient: [0],
  },
  equal: comparison((x, y) => x === y),
  notEqual: comparison((x, y) => x !== y),
  less: comparison((x, y) => x < y),
  lessEqual: comparison((x, y) => x <= y),
  greater: comparison((x, y) => x > y),
  greaterEqual: comparison((x, y) => x >= y),
  isFinite: {
    call: (operation, [x]) => operation(x!),
    reference: ([x]) => nd(x!.shape, (i) => Number(Number.isFinite(x!.data[i]!))),
    samples: [
      { inputs: [{ shape: [9], value: (_, i) => special[i]! }], attributes: {} },
      { inputs: [[3, 5]], attributes: {} },
    ],
    gradient: 'none',
  },
  scaled: {
    call: (operation, [x], { scale }) => operation(x!, scale),
    reference: ([x], { scale }) => nd(x!.shape, (i) => scale * x!.data[i]!),
    samples: [{ inputs: [[3, 5]], attributes: { scale: -1.5 } }],
    gradient: 'none', // made for gradients, which are not differentiated
  },
  affine: {
    call: (operation, [x], { scale, shift }) => operation(x!, scale, shift),
    reference: ([x], { scale, shift }) => nd(x!.shape, (i) => scale * x!.data[i]! + shift),
    samples: [
      { inputs: [[5]], attributes: { scale: 2.5, shift: -1 } },
      { inputs: [[4, 4]], attributes: { scale: -0.5, shift: 0 } },
    ],
    gradient: [0],
  },
  neg: { ...unary((x) => -x), bad: [[(operation, t) => operation(t([2], 'i32')), /\[neg\] input 0 is i32/]] },
  abs: unary(Math.abs),
  reciprocal: unary((x) => 1 / x, positive),
  exp: unary(Math.exp),
  log: unary(Math.log, positive),
  sqrt: unary(Math.sqrt, positive),
  rsqrt: unary((x) => 1 / Math.sqrt(x), positive),
  square: unary((x) => x * x),
  sign: { ...unary(Math.sign, steep), gradient: 'none' },
  floor: { ...unary(Math.floor, between), gradient: 'none' },
  ceil: { ...unary(Math.ceil, between), gradient: 'none' },
  round: { ...unary((x) => Math.round(x), between), gradient: 'none' },
  sin: { ...unary(Math.sin, angle), tolerance: TRIGONOMETRIC },
  cos: { ...unary(Math.cos, angle), tolerance: TRIGONOMETRIC },
  tan: { ...unary(Math.tan, inside), tolerance: 4 * TRIGONOMETRIC },
  asin: { ...unary(Math.asin, inside), tolerance: TRIGONOMETRIC },
  acos: { ...unary(Math.acos, inside), tolerance: TRIGONOMETRIC },
  atan: { ...unary(Math.atan), tolerance: TRIGONOMETRIC },
  // WGSL's exp, which these are made from, may be off by 3 + 2|x| units in the last place: 2.1e-5 at the 88.8 of values.ts.
  sinh: { ...unary(Math.sinh), tolerance: 2e-5 },
  cosh: { ...unary(Math.cosh), tolerance: 1e-5 },
  erf: unary(erf),
  sigmoid: {
    ...unary(sigmoid, wide),
    bad: [[(operation, t) => operation(t([2], 'i32')), /\[sigmoid\] input 0 is i32/]],
  },
  tanh: { ...unary(Math.tanh, wide), tolerance: 1e-5 }, // WGSL: from sinh and cosh
  softplus: unary((x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), wide),
  relu: unary((x) => Math.max(x, 0), steep),
  relu2: unary((x) => Math.max(x, 0) ** 2),
  clamp: {
    call: (operation, [x], { low, high }) => operation(x!, low, high),
    reference: ([x], { low, high }) => nd(x!.shape, (i) => Math.min(Math.max(x!.data[i]!, low), high)),
    // Between two numbers of f16: at a bound the reference's differences see half of the slope.
    samples: [{ inputs: [[33]], attributes: { low: -0.50024, high: 0.75024 } }],
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
