/** Fusion of element-wise chains: fewer dispatches, the same values, and nothing read after it was overwritten. */
import { beforeAll, describe, expect, it } from 'vitest';
import {
  backward,
  f16ToF32,
  f32ToF16,
  HostRandom,
  randomKey,
  release,
  reshape,
  scope,
  tensor,
  write,
  zeros,
} from '../../engine/index.ts';
import {
  add,
  affine,
  cast,
  clamp,
  matmul,
  mul,
  sigmoid,
  silu,
  square,
  sub,
  sum,
  tanh,
  where,
} from '../../kernels/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { guardedDevice } from '../device.ts';

let device: Device;
beforeAll(async () => {
  device = await guardedDevice();
});

const random = (shape: number[], seed = 0, on = device): Tensor =>
  tensor(on, new HostRandom(randomKey(seed, 'chain')).normal(shape.reduce((a, b) => a * b, 1)), shape);

/** Dispatches that `body` and reading its result take, and the values. */
async function run(body: () => Tensor, on = device): Promise<{ dispatches: number; values: number[] }> {
  const before = on.stream.dispatches;
  const result = scope(on, body);
  const values = [...(await result.read())];
  const dispatches = on.stream.dispatches - before;
  release(result);
  return { dispatches, values };
}

describe('a chain', () => {
  it('is one dispatch, with broadcasting, and gives what its parts give', async () => {
    const [x, y, b] = [random([3, 8]), random([3, 8], 1), random([8], 2)];
    const { dispatches, values } = await run(() => affine(mul(silu(add(x, b)), sub(x, y)), 2, 0.5));
    expect(dispatches).toBe(1);
    const [vx, vy, vb] = [await x.read(), await y.read(), await b.read()];
    values.forEach((value, i) => {
      const s = vx[i]! + vb[i % 8]!;
      const expected = 2 * (s / (1 + Math.exp(-s))) * (vx[i]! - vy[i]!) + 0.5;
      expect(Math.abs(value - expected)).toBeLessThan(2e-6 * (1 + Math.abs(expected)));
    });
  });

  it('computes an operand used twice once, and functions that share helpers in one kernel', async () => {
    const x = random([40]);
    const { dispatches, values } = await run(() => {
      const y = sigmoid(x);
      return add(mul(y, y), tanh(y));
    });
    expect(dispatches).toBe(1);
    (await x.read()).forEach((v, i) => {
      const s = 1 / (1 + Math.exp(-v));
      expect(Math.abs(values[i]! - (s * s + Math.tanh(s)))).toBeLessThan(5e-6);
    });
  });

  it('that nobody reads is never computed', () => {
    const before = device.stream.dispatches;
    scope(device, () => {
      square(add(random([8]), random([8], 1)));
    });
    expect(device.stream.dispatches).toBe(before);
  });

  it('stays right when its operands are overwritten before it is computed', async () => {
    const x = tensor(device, [1, 2, 3, 4]);
    const results = scope(device, () => {
      const y = affine(x, 10);
      write(x, [5, 6, 7, 8]);
      return [y, affine(x, 10)];
    });
    expect([...(await results[0]!.read())]).toEqual([10, 20, 30, 40]);
    expect([...(await results[1]!.read())]).toEqual([50, 60, 70, 80]);
    release(x, ...results);
  });

  it('ends where more is asked for than a kernel binds', async () => {
    const parts = Array.from({ length: 20 }, (_, i) => random([16], i));
    const { dispatches, values } = await run(() => parts.reduce((total, part) => add(total, part)));
    expect(dispatches).toBeLessThanOrEqual(3);
    const all = await Promise.all(parts.map((part) => part.read()));
    values.forEach((value, i) => {
      const expected = all.reduce((total, part) => total + part[i]!, 0);
      expect(Math.abs(value - expected)).toBeLessThan(1e-5);
    });
  });

  it('of many steps on one operand ends where arithmetic outweighs memory', async () => {
    const x = random([16]);
    const { dispatches, values } = await run(() => {
      let y = x;
      for (let i = 0; i < 40; i++) y = affine(y, 1, 0.25);
      return y;
    });
    expect(dispatches).toBe(3);
    (await x.read()).forEach((v, i) => expect(Math.abs(values[i]! - v - 10)).toBeLessThan(1e-5));
  });

  it('is computed once for all that comes after, where a product reads it', async () => {
    const x = random([8, 8]);
    const { dispatches } = await run(() => {
      const y = affine(x, 2);
      const p = matmul(y, y);
      return add(p, y); // y has its memory by now
    });
    expect(dispatches).toBe(3);
  });

  it('seen in another shape is computed', async () => {
    const x = random([6]);
    const { dispatches, values } = await run(() => add(reshape(affine(x, 2), [2, 3]), random([3], 5)));
    expect(dispatches).toBe(2);
    const [v, b] = [await x.read(), await random([3], 5).read()];
    values.forEach((value, i) => expect(Math.abs(value - 2 * v[i]! - b[i % 3]!)).toBeLessThan(2e-6));
  });

  it('casts between floats on the way, with the rounding', async ({ skip }) => {
    if (!device.profile.f16) skip('this adapter has no f16');
    // also what f16 has as subnormal numbers, or halfway between two of them
    const small = [6e-8, 2e-8, -3e-5, 1e-6, 3 * 2 ** -25, 5 * 2 ** -25, 6.1034e-5, 2 ** -14];
    const x = tensor(device, [...(await random([9]).read()), 1e6, ...small]);
    const { dispatches, values } = await run(() => cast(affine(cast(x, 'f16'), 0.5), 'f32'));
    expect(dispatches).toBe(1);
    const rounded = f16ToF32(f32ToF16(Float32Array.from(await x.read())));
    expect(values).toEqual([...rounded].map((v) => v / 2));
    expect((await run(() => cast(x, 'f16'))).values).toEqual([...rounded]);
  });

  it.each([
    ['rows', [6, 32], [1]],
    ['odd rows', [6, 33], [1]],
    ['columns', [40, 12], [0]],
    ['everything', [3, 5, 8], undefined],
  ] as const)('closes with a reduction in the same kernel: %s', async (_, shape, axes) => {
    const [x, b] = [random([...shape]), random([shape.at(-1)!], 1)];
    const { dispatches, values } = await run(() => sum(square(add(x, b)), axes));
    expect(dispatches).toBe(1);
    const [vx, vb] = [await x.read(), await b.read()];
    const columns = shape.at(-1)!;
    const expected = values.map(() => 0);
    vx.forEach((v, i) => {
      const place = !axes ? 0 : axes[0] === 0 ? i % columns : Math.floor(i / columns);
      expected[place]! += (v + vb[i % columns]!) ** 2;
    });
    values.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-5 * expected[i]!));
  });

  it('takes gradients in as few', async () => {
    const x = random([4, 8]);
    x.requiresGrad = true;
    const before = device.stream.dispatches;
    const grad = scope(device, () => {
      backward(sum(square(affine(x, 3))));
      return x.grad!;
    });
    const values = await grad.read();
    // sum, its spread, then square's and affine's gradients in one
    expect(device.stream.dispatches - before).toBeLessThanOrEqual(4);
    (await x.read()).forEach((v, i) => expect(Math.abs(values[i]! - 18 * v)).toBeLessThan(1e-5 * (1 + Math.abs(v))));
    release(grad);
  });

  it('over more than a binding goes by parts', async () => {
    const small = await openNodeDevice({ bindingLimit: 4096, guard: true });
    const [x, b] = [random([700, 7], 0, small), random([7], 1, small)];
    const { dispatches, values } = await run(() => clamp(add(x, b), -1, 1), small);
    expect(dispatches).toBe(5); // 4,900 elements, 1,024 a part
    const [vx, vb] = [await x.read(), await b.read()];
    values.forEach((value, i) => expect(value).toBe(Math.min(1, Math.max(-1, Math.fround(vx[i]! + vb[i % 7]!)))));
    await small.checkGuards();
    small.destroy();
  });

  it('takes as many parameters as its operands and numbers need', async () => {
    const [row, column] = [tensor(device, [1, 2], [1, 2]), tensor(device, [10, 20], [2, 1])];
    const chosen = Array.from({ length: 4 }, () => tensor(device, new Uint32Array([1, 1]), [1, 2]));
    const others = Array.from({ length: 3 }, () => zeros(device, [2, 1]));
    const make = () => {
      let y = where(chosen[0]!, row, column);
      for (let i = 0; i < 2; i++) y = where(chosen[i + 1]!, y, others[i]!);
      for (let i = 0; i < 12; i++) y = affine(y, 1, 1);
      y = where(chosen[3]!, y, others[2]!);
      y.window();
      return y;
    };
    const before = device.stream.dispatches;
    const results = scope(device, () => [make(), make(), make()]); // the next one's parameters lie behind
    expect(device.stream.dispatches - before).toBe(3);
    for (const result of results) expect([...(await result.read())]).toEqual([13, 14, 13, 14]);
    release(...results, row, column, ...chosen, ...others);
  });

  it('refuses operands that alternate too often at once, and takes apart those that do so together', async () => {
    const shape = [2, 2, 2, 2, 2];
    const [x, b, c] = [random(shape), random([2, 1, 1, 2, 2], 1), random([2, 2, 1, 1, 2], 2)];
    const { dispatches, values } = await run(() => add(add(x, b), c));
    expect(dispatches).toBe(2);
    const [vx, vb, vc] = [await x.read(), await b.read(), await c.read()];
    values.forEach((value, i) => {
      const [d0, d1, d3, d4] = [i >> 4, (i >> 3) & 1, (i >> 1) & 1, i & 1];
      const expected = Math.fround(Math.fround(vx[i]! + vb[d0 * 4 + d3 * 2 + d4]!) + vc[d0 * 4 + d1 * 2 + d4]!);
      expect(value).toBe(expected);
    });
    const live = device.memory.live;
    expect(() =>
      scope(device, () => add(zeros(device, [2, 1, 2, 1, 2, 1]), zeros(device, [1, 2, 1, 2, 1, 2]))),
    ).toThrow(/\[add\] broadcasting over \(2, 2, 2, 2, 2, 2\) alternates more than four times/);
    expect(device.memory.live).toBe(live);
    release(x, b, c);
  });

  it('that cannot be computed stays pending, and holds nothing when it is dropped', async () => {
    const small = await openNodeDevice({ bindingLimit: 4096 });
    const x = tensor(small, new Float32Array(2000).fill(3), [1, 2000]);
    const live = small.memory.live;
    scope(small, () => {
      const y = add(x, zeros(small, [2, 2000]));
      for (let i = 0; i < 2; i++)
        expect(() => y.window()).toThrow(/\[add\] \(1, 2000\), which is repeated, takes 0.0 MiB, more than/);
    });
    expect(small.memory.live).toBe(live);
    small.memory.trim();
    small.memory.budget = small.memory.reserved;
    const y = affine(x, 2);
    expect(() => y.window()).toThrow(/exceed the budget/);
    expect(() => scope(small, () => add(x, reshape(y, [2000])))).toThrow(/exceed the budget/);
    small.memory.budget = Infinity;
    expect((await y.read())[1999]).toBe(6);
    release(x, y);
    expect(small.memory.live).toBe(0);
    small.destroy();
  });

  it('releases what it held', () => {
    const live = device.memory.live;
    scope(device, () => {
      const x = zeros(device, [64]);
      const y = affine(x, 2);
      const z = mul(y, y);
      z.window();
    });
    expect(device.memory.live).toBe(live);
  });
});
