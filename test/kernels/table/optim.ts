import fc from 'fast-check';
import type { Tensor } from '../../../engine/index.ts';
import { TILE } from '../../../kernels/index.ts';
import type { AdamWSettings } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { NdArray, Rows } from '../row.ts';

/** A chunk of `size` elements: windows of 64 with padding between them, one of them in two tiles, one frozen. */
const SIZE = 448;
const tiles = [0, 64, 0, 64, 37, 0, 128, 1, 1, 192, 64, 2, 256, 128, 3]; // first, count, segment
const segments = [1, 0.01, 0, 0.5, 0, 0, 1, 0.1, 1, 2, 0.3, 0]; // factor of the rate, decay, frozen
const values = (list: number[], dtype: 'f32' | 'u32') => ({
  shape: [list.length / 3, 3],
  dtype,
  value: (_: unknown, i: number) => list[i]!,
});
const inTiles = (element: number) => {
  for (let t = 0; t < tiles.length; t += 3)
    if (element >= tiles[t]! && element < tiles[t]! + tiles[t + 1]!) return tiles[t + 2]!;
  return null;
};
/** Gradients, with what is no number in the padding, where nobody may look. */
const gradients = {
  shape: [SIZE],
  value: (random: { normal(n: number): Float32Array }, i: number) =>
    inTiles(i) === null ? NaN : 1e-2 * random.normal(1)[0]!,
};

/** Numbers throughout: none is a variable. */
type Settings = { [K in keyof AdamWSettings]: number };

const settings: Settings = {
  learningRate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, maxNorm: 0.05, step: 3,
}; // prettier-ignore

interface Attributes {
  settings: Settings;
  /** Which of (parameters, gradients, first, second) is looked at. */
  result: 0 | 2 | 3;
}

/** torch.optim.AdamW with torch.nn.utils.clip_grad_norm_, element by element. */
function reference(inputs: NdArray[], { settings, result }: Attributes): NdArray {
  const [p, g, m, v, , , norm] = inputs.map((input) => input.data);
  if (norm![1] !== 0 || !Number.isFinite(norm![0])) return inputs[result]!;
  const { learningRate, beta1, beta2, epsilon, maxNorm, step } = settings;
  const clip = Math.min(1, maxNorm / (Math.sqrt(norm![0]!) + 1e-6));
  return nd(inputs[result]!.shape, (i) => {
    const segment = inTiles(i);
    if (segment === null || segments[3 * segment + 2] !== 0) return inputs[result]!.data[i]!;
    const rate = learningRate * segments[3 * segment]!;
    const first = beta1 * m![i]! + (1 - beta1) * g![i]! * clip;
    const second = beta2 * v![i]! + (1 - beta2) * (g![i]! * clip) ** 2;
    const denominator = Math.sqrt(second) / Math.sqrt(1 - beta2 ** step) + epsilon;
    const decayed = p![i]! * (1 - rate * segments[3 * segment + 1]!);
    return [decayed - ((rate / (1 - beta1 ** step)) * first) / denominator, 0, first, second][result]!;
  });
}

const chunk = [
  { shape: [SIZE], value: (r: { normal(n: number): Float32Array }, i: number) => (inTiles(i) === null ? 0 : r.normal(1)[0]!) },
  gradients,
  { shape: [SIZE], value: (r: { normal(n: number): Float32Array }, i: number) => (inTiles(i) === null ? 0 : 1e-2 * r.normal(1)[0]!) },
  { shape: [SIZE], value: (r: { uniform(): number }, i: number) => (inTiles(i) === null ? 0 : 1e-4 * r.uniform()) },
  values(tiles, 'u32'),
  values(segments, 'f32'),
]; // prettier-ignore
const norm = (squares: number, strange: number) => ({
  shape: [2],
  value: (_: unknown, i: number) => [squares, strange][i]!,
});
const everyResult = (name: string, inputs: readonly object[], changed: Partial<AdamWSettings> = {}) =>
  ([0, 2, 3] as const).map((result) => ({
    name: `${name}: ${['parameters', '', 'first moments', 'second moments'][result]}`,
    inputs: inputs as never[],
    attributes: { settings: { ...settings, ...changed }, result },
  }));

/** A chunk of one parameter of four million elements. */
const large = 2 ** 22;
const largeTiles = Array.from({ length: large / TILE }, (_, t) => [t * TILE, TILE, 0]).flat();

export const optimRows: Rows<'adamw' | 'gradientNorm' | 'lerp'> = {
  adamw: {
    call(operation, inputs, { settings, result }) {
      const [parameters, gradients, first, second, tiles, segments, norm] = inputs as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]; // prettier-ignore
      operation({ parameters, gradients, first, second, tiles, segments }, norm, settings);
      return inputs[result as number]!;
    },
    reference,
    samples: [
      ...everyResult('clipped', [...chunk, norm(0.04, 0)]),
      ...everyResult('not clipped', [...chunk, norm(0.04, 0)], { maxNorm: Infinity, step: 1000 }),
      ...everyResult('skipped for a value that is not finite', [...chunk, norm(0.04, 1)]),
      ...everyResult('skipped for a norm beyond f32', [...chunk, norm(Infinity, 0)]),
    ],
    gradient: 'none',
    f16: 'none', // arenas hold f32: the master weights and what is kept for them
    arbitrary: fc
      .record({
        learningRate: fc.constantFrom(0, 1e-6, 0.1),
        beta1: fc.constantFrom(0, 0.5, 0.9),
        beta2: fc.constantFrom(0, 0.99, 0.999),
        epsilon: fc.constantFrom(1e-8, 1e-3),
        maxNorm: fc.constantFrom(1e-3, 1, Infinity),
        step: fc.integer({ min: 1, max: 100_000 }),
        squares: fc.constantFrom(0, 0.04, 1e30, Infinity),
        strange: fc.constantFrom(0, 0, 3),
        result: fc.constantFrom(0 as const, 2 as const, 3 as const),
      })
      .map(({ squares, strange, result, ...settings }) => ({
        inputs: [...chunk, norm(squares, strange)],
        attributes: { settings, result },
      })),
    bench: [
      {
        name: `(${large},)`,
        inputs: [
          ...Array.from({ length: 4 }, () => ({ shape: [large], value: () => 1e-3 })),
          values(largeTiles, 'u32'),
          values([1, 0.01, 0], 'f32'),
          norm(1, 0),
        ],
        attributes: { settings, result: 0 },
        flops: 16 * large,
      },
    ],
    bad: [
      [
        (operation, t) => {
          const parameters = t([8]);
          operation({ parameters, gradients: t([4]), first: t([8]), second: t([8]), tiles: t([1, 3]), segments: t([1, 3]) }, t([2]), settings); // prettier-ignore
        },
        /one shape, got \(8,\) and \(4,\)/,
      ],
    ],
  },
  gradientNorm: {
    call: (operation, [gradients, tiles, segments]) =>
      // twice: the second chunk's partials follow the first's
      operation([
        { gradients: gradients!, tiles: tiles!, segments: segments! },
        { gradients: gradients!, tiles: tiles!, segments: segments! },
      ]),
    reference: ([g]) => {
      const out = nd([2]);
      g!.data.forEach((value, i) => {
        const segment = inTiles(i);
        if (segment === null || segments[3 * segment + 2] !== 0) return;
        if (Number.isFinite(value)) out.data[0]! += 2 * value * value;
        else out.data[1]! += 2;
      });
      return out;
    },
    samples: [
      { name: 'finite', inputs: [gradients, values(tiles, 'u32'), values(segments, 'f32')], attributes: {} },
      {
        name: 'NaN and infinities',
        inputs: [
          {
            shape: [SIZE],
            value: (random, i) => (i % 16 === 5 ? [NaN, Infinity, -Infinity][i % 3]! : random.uniform()),
          },
          values(tiles, 'u32'),
          values(segments, 'f32'),
        ],
        attributes: {},
      },
    ],
    gradient: 'none',
    f16: 'none', // gradients in arenas are f32
    arbitrary: fc
      .tuple(fc.constantFrom(0, 1e-30, 1e-3, 1, 1e15), fc.constantFrom(0, 0, 0.01, 1))
      .map(([scale, strange]) => ({
        inputs: [
          {
            shape: [SIZE],
            value: (random, i) =>
              random.uniform() < strange ? [NaN, Infinity, -Infinity][i % 3]! : scale * random.normal(1)[0]!,
          },
          values(tiles, 'u32'),
          values(segments, 'f32'),
        ],
        attributes: {},
      })),
  },
  lerp: {
    call(operation, [target, source], { share }) {
      operation(target!, source!, share);
      return target!;
    },
    reference: ([target, source], { share }) =>
      nd(target!.shape, (i) => (1 - share) * target!.data[i]! + share * source!.data[i]!),
    samples: [
      { inputs: [[260], [260]], attributes: { share: 0.01 } },
      {
        name: 'all of a small source',
        inputs: [{ shape: [4], value: () => -1e15 }, { shape: [4], value: (_, i) => i - 0.4 }], // prettier-ignore
        attributes: { share: 1 },
      },
    ],
    gradient: 'none',
    f16: 'none', // averages lie in arenas of f32
    arbitrary: fc
      .tuple(fc.integer({ min: 0, max: 70 }), fc.constantFrom(0, 1e-3, 0.5, 1))
      .map(([fours, share]) => ({ inputs: [[4 * fours], [4 * fours]], attributes: { share } })),
    bad: [
      [(operation, t) => operation(t([6]), t([6]), 0.5), /multiple of four elements, got \(6,\) and \(6,\)/],
      [(operation, t) => operation(t([4]), t([4], 'i32'), 0.5), /\[lerp\] \(4,\) is i32; what lies in arenas is f32/],
    ],
  },
};
