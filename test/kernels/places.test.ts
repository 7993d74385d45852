/** What data decides: order among special values and ties, indices that are none, and what that does to gradients. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward, HostRandom, randomKey, release, scope, tensor } from '../../engine/index.ts';
import type { Device, DType, Shape, Tensor } from '../../engine/index.ts';
import {
  argSort,
  averagePool2d,
  gather,
  indexSelect,
  maxPool2d,
  oneHot,
  pad,
  rope,
  ropeFrequencies,
  ropeTable,
  scatterAdd,
  slice,
  sort,
  sum,
  topK,
  transpose,
} from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';

let device: Device;
beforeAll(async () => void (device = await guardedDevice()));
afterAll(() => device.checkGuards());

const i32 = (values: number[], shape: Shape = [values.length]): Tensor =>
  tensor(device, values, shape, { dtype: 'i32' });

/** The values of what `body` returns. */
async function read(body: () => readonly Tensor[]): Promise<number[][]> {
  const tensors = scope(device, body);
  const values = await Promise.all(tensors.map(async (t) => [...(await t.read())]));
  release(...tensors);
  return values;
}

/** The gradient of x under upstream gradients 1, 2, 3, … */
function gradient(x: Tensor, f: (x: Tensor) => Tensor): Tensor {
  x.requiresGrad = true;
  const out = f(x);
  backward(out, tensor(device, Float32Array.from({ length: out.size }, (_, i) => i + 1), out.shape, { dtype: out.dtype })); // prettier-ignore
  return x.grad!;
}

describe('order', () => {
  // NaN is the largest and equals itself; −0 equals 0; equal ones stay in order.
  const values = [NaN, 0, -Infinity, -0, 3, Infinity, -NaN, -1e-40, 3, -2];
  const rising = [2, 9, 7, 1, 3, 4, 8, 5, 0, 6];
  const falling = [0, 6, 5, 4, 8, 1, 3, 7, 9, 2];

  it.each(['f32', 'f16'] as const)('of special values: %s', async (dtype) => {
    const [up, down, sorted, top] = await read(() => {
      // In f16 the subnormal is −0, and stands where the other zeros do.
      const x = tensor(device, values, [10], { dtype });
      const best = topK(x, 3);
      return [argSort(x), argSort(x, { descending: true }), sort(x).values, best.indices];
    });
    const zeros = (places: number[]) => {
      if (dtype === 'f32' || !device.profile.f16) return places;
      const first = Math.min(...[1, 3, 7].map((place) => places.indexOf(place)));
      return [...places.slice(0, first), 1, 3, 7, ...places.slice(first + 3)];
    };
    expect(up).toEqual(zeros(rising));
    expect(down).toEqual(zeros(falling));
    expect(sorted!.slice(-2)).toEqual([NaN, NaN]);
    expect(top).toEqual(falling.slice(0, 3));
  });

  it('keeps ties in their order across runs and merges, for rows whole and cut', async () => {
    const n = 1000;
    const random = new HostRandom(randomKey(3, 'ties'));
    const values = Array.from({ length: n }, () => random.below(7));
    const places = values.map((_, i) => i);
    const [up, top] = await read(() => [
      argSort(i32(values)),
      topK(tensor(device, values, [n]), 333, { smallest: true }).indices,
    ]);
    const expected = places.toSorted((a, b) => values[a]! - values[b]!);
    expect(up).toEqual(expected);
    expect(top).toEqual(expected.slice(0, 333));
  });

  it('records places that take part in no gradient', async () => {
    const [indices, grad] = await read(() => {
      const x = tensor(device, [3, 1, 2, 5], [2, 2]);
      x.requiresGrad = true;
      const best = topK(x, 1);
      expect(best.indices.tracked).toBe(false);
      backward(sum(best.values));
      return [best.indices, x.grad!];
    });
    expect(indices).toEqual([0, 1]);
    expect(grad).toEqual([1, 0, 0, 1]);
  });
});

describe('indices that are none', () => {
  it.each([
    ['f32', NaN],
    ['f16', NaN],
    ['i32', 0],
  ] as const)('give nothing and no gradient: %s', async (dtype, nothing) => {
    const [taken, rows] = await read(() => {
      const x = tensor(device, [1, 2, 3, 4, 5, 6], [3, 2], { dtype });
      return [gather(x, i32([2, -1, 0, 3], [2, 2]), 0), indexSelect(x, i32([-1, 1, 3]), 0)];
    });
    expect(taken).toEqual([5, nothing, 1, nothing]);
    expect(rows).toEqual([nothing, nothing, 3, 4, nothing, nothing]);
  });

  it('add nothing', async () => {
    const [out, dx, dsource, selected] = await read(() => {
      const source = tensor(device, [10, 20, 30], [3]);
      source.requiresGrad = true;
      const index = i32([2, 3, -1]);
      const x = tensor(device, [1, 2, 3], [3]);
      const out = scatterAdd(x, index, source, 0);
      backward(out, tensor(device, [7, 8, 9]));
      const dx = gradient(tensor(device, [1, 2, 3]), (y) => gather(y, i32([1, 5, -2, 1]), 0));
      return [out, dx, source.grad!, gradient(tensor(device, [1, 2, 3]), (y) => indexSelect(y, i32([3, 0, -1]), 0))];
    });
    expect(out).toEqual([1, 2, 13]);
    expect(dsource).toEqual([9, 0, 0]);
    expect(dx).toEqual([0, 1 + 4, 0]);
    expect(selected).toEqual([2, 0, 0]);
  });
});

describe('pools', () => {
  it('take the first of equal pixels, and a NaN before all', async () => {
    const [ties, special, mean] = await read(() => [
      gradient(tensor(device, [4, 4, 4, 4], [1, 1, 2, 2]), (x) => maxPool2d(x, 2)),
      maxPool2d(tensor(device, [1, NaN, 9, -Infinity, -Infinity, -Infinity], [1, 1, 1, 6]), [1, 3]),
      averagePool2d(tensor(device, [2, 4], [1, 1, 1, 2]), [1, 2], { padding: [0, 1], stride: 2 }),
    ]);
    expect(ties).toEqual([1, 0, 0, 0]);
    expect(special).toEqual([NaN, -Infinity]);
    expect(mean).toEqual([1, 2]);
  });
});

describe('rope', () => {
  // In f32, the product of position and frequency would be off by 0.004 here, and cosines of such angles by more.
  it('is exact far out', async () => {
    const position = 131_071;
    const frequencies = ropeFrequencies(64, 500_000);
    const [out] = await read(() => [
      rope(
        tensor(device, new Float32Array(64).fill(1), [1, 1, 1, 64]),
        i32([position]),
        ropeTable(device, frequencies),
      ),
    ]);
    frequencies.forEach((frequency, i) => {
      const angle = position * frequency;
      expect(Math.abs(out![i]! - (Math.cos(angle) - Math.sin(angle)))).toBeLessThan(5e-7);
      expect(Math.abs(out![i + 32]! - (Math.cos(angle) + Math.sin(angle)))).toBeLessThan(5e-7);
    });
  });

  it('refuses frequencies that are none', () => {
    expect(() => ropeTable(device, [1, NaN])).toThrow(/\[rope\] frequency 1 is NaN/);
  });
});

describe('moving bits', () => {
  const bits = (body: () => Tensor): Promise<Uint32Array> => {
    const result = scope(device, body);
    return result.read().then((values) => {
      release(result);
      return new Uint32Array(values.buffer);
    });
  };

  it('keeps −0, infinities and subnormals of f32', async () => {
    const special = Float32Array.of(-0, Infinity, -Infinity, 1e-45, -1e-40, 3);
    const x = () => tensor(device, special, [3, 2]);
    const words = new Uint32Array(special.buffer);
    expect(await bits(() => transpose(transpose(x(), [1, 0]), [1, 0]))).toEqual(words);
    expect(await bits(() => slice(pad(x(), [[0, 0], [1, 0]]), 1, 1, 3))).toEqual(words); // prettier-ignore
    expect(await bits(() => indexSelect(x(), i32([0, 1, 2]), 0))).toEqual(words);
  });

  it.each([
    ['f16', -2.5],
    ['i32', -3],
    ['u32', 7],
  ] as const)('fills with a constant of %s', async (dtype: DType, value) => {
    const [out, classes] = await read(() => [
      pad(tensor(device, [1, 2, 3], [3], { dtype }), [[2, 2]], { value }),
      oneHot(i32([1, 0]), 2, { dtype: dtype as 'f16' }),
    ]);
    expect(out).toEqual([value, value, 1, 2, 3, value, value]);
    expect(classes).toEqual([0, 1, 1, 0]);
  });
});
