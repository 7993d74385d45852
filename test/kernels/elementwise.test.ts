/** What the operations' table does not ask of the element-wise operations: values so large that powers of them overflow. */
import { beforeAll, describe, expect, it } from 'vitest';
import { backward, clearGradient, release, scope, tensor } from '../../engine/index.ts';
import type { Device, DType, Tensor } from '../../engine/index.ts';
import { cast, cosh, div, gelu, geluTanh, pow, quickGelu, reciprocal, silu, sinh, sum } from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';

let device: Device;
beforeAll(async () => void (device = await guardedDevice()));

describe('activations far out', () => {
  it.each(Object.entries({ gelu, geluTanh, quickGelu, silu }))('%s is x or 0, its gradient 1 or 0', async (_, f) => {
    const values = Float32Array.of(-1e30, -1e20, -1e3, 1e3, 1e20, 1e30);
    const [out, grad] = scope(device, () => {
      const x = tensor(device, values);
      x.requiresGrad = true;
      const y = f(x);
      backward(y, tensor(device, new Float32Array(6).fill(1)));
      return [y, x.grad!] as const;
    });
    // + 0 makes −0 a 0
    expect([...(await out.read())].map((value) => value + 0)).toEqual([...values].map((value) => Math.max(value, 0)));
    expect([...(await grad.read())].map((value) => value + 0)).toEqual([0, 0, 0, 1, 1, 1]);
    release(out, grad);
  });
});

it('sinh and cosh reach as far as f32', async () => {
  const values = [-89.2, -81, 79, 89.2]; // e^89.2 is over the largest f32, half of it is not
  for (const [f, exact] of [
    [sinh, Math.sinh],
    [cosh, Math.cosh],
  ] as const) {
    const out = scope(device, () => f(tensor(device, values)));
    [...(await out.read())].forEach((got, i) => expect(got / exact(values[i]!), `${values[i]}`).toBeCloseTo(1, 4));
    release(out);
  }
});

describe('gradients', () => {
  async function gradients(f: (...inputs: Tensor[]) => Tensor, ...values: number[][]): Promise<number[][]> {
    const inputs = values.map((v) => tensor(device, v));
    for (const input of inputs) input.requiresGrad = true;
    scope(device, () => backward(sum(f(...inputs))));
    const found = await Promise.all(inputs.map(async ({ grad }) => [...(await grad!.read())]));
    inputs.forEach(clearGradient);
    release(...inputs);
    return found;
  }
  const close = (found: number[], expected: number[]) =>
    found.forEach((value, i) =>
      expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(1e-6 * Math.abs(expected[i]!)),
    );

  it('of quotients of numbers whose squares f32 does not hold', async () => {
    const [a, b] = await gradients(div, [1e-20, 1e20], [1e-20, 1e20]);
    close(a!, [1e20, 1e-20]);
    close(b!, [-1e20, -1e-20]);
    close((await gradients(reciprocal, [1e-19]))[0]!, [-1e38]);
  });

  it('of 0 to the power of 0 and 1', async () => {
    expect((await gradients(pow, [0, 0], [0, 1]))[0]).toEqual([0, 1]);
  });

  it('of a cast need not its operand', () => {
    const live = device.memory.live;
    const y = scope(device, () => {
      const x = tensor(device, new Float32Array(1000));
      x.requiresGrad = true;
      const y = cast(x, 'i32');
      y.window();
      return y;
    });
    expect(device.memory.live - live).toBe(4096);
    release(y);
  });
});

it('casts to what kernels compute with, and harms nothing where more is asked for', async () => {
  const x = tensor(device, [1, 2, 3, 4]);
  const live = device.memory.live;
  expect(() => cast(x, 'q8')).toThrow("[cast] q8 is a storage format: use quantize(device, values, shape, 'q8')");
  expect(() => cast(x, 'f64' as DType)).toThrow('[cast] f64 is no dtype: there are f32, f16, i32, u32, bf16, q8, q4');
  expect(device.memory.live).toBe(live);
  const total = sum(x);
  expect(await total.item()).toBe(10);
  release(x, total);
});

describe('powers', () => {
  it('are of floats', () => {
    const x = tensor(device, new Int32Array([2, 3]));
    expect(() => pow(x, x)).toThrow('[pow] input 0 is i32; f32 or f16 is needed');
    release(x);
  });
});
