/** What the operations' table does not ask of the kernels that walk rows: ties, other devices' walks, batches. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward, scope, sizeOf, tensor } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { logSumExp, max, min, norm, prod } from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';
import { checksOf } from './check.ts';
import type { AnySample } from './rows.ts';

/** The gradient of x (2, 4) along the last axis, with upstream gradients 6 and 12. */
async function gradient(f: (x: Tensor) => Tensor, values: readonly number[]): Promise<number[]> {
  const device = await guardedDevice();
  const grad = scope(device, () => {
    const x = tensor(device, values, [2, 4]);
    x.requiresGrad = true;
    backward(f(x), tensor(device, [6, 12], [2]));
    return x.grad!;
  });
  const result = [...(await grad.read())];
  grad.storage.drop();
  return result;
}

describe('where the gradient has a kink', () => {
  it.each([
    ['max', (x: Tensor) => max(x, [1]), [3, 1, 3, 3, 5, -5, 2, 1], [2, 0, 2, 2, 12, 0, 0, 0]],
    ['min', (x: Tensor) => min(x, [1]), [1, 1, 3, 3, 5, -5, 2, 1], [3, 3, 0, 0, 0, 12, 0, 0]],
    ['L∞', (x: Tensor) => norm(x, [1], { order: Infinity }), [3, -3, 1, 0, 0, 0, 0, 0], [3, -3, 0, 0, 0, 0, 0, 0]],
    ['L1', (x: Tensor) => norm(x, [1], { order: 1 }), [3, -3, 1, 0, 0, 0, 0, 0], [6, -6, 6, 0, 0, 0, 0, 0]],
    ['L2', (x: Tensor) => norm(x, [1]), [3, -4, 0, 0, 0, 0, 0, 0], [3.6, -4.8, 0, 0, 0, 0, 0, 0]],
    ['a product with zeros', (x: Tensor) => prod(x, [1]), [2, 0, 3, 4, 0, 1, 0, 5], [0, 144, 0, 0, 0, 0, 0, 0]],
  ])('%s', async (_, f, values, expected) => {
    const got = await gradient(f, values);
    expected.forEach((value, i) => expect(got[i]).toBeCloseTo(value, 5));
  });
});

it('log Σ exp of infinities is infinite', async () => {
  const device = await guardedDevice();
  const values = [-Infinity, -Infinity, Infinity, 1, -Infinity, 2];
  const out = scope(device, () => logSumExp(tensor(device, values, [3, 2]), [1]));
  expect([...(await out.read())]).toEqual([-Infinity, Infinity, 2]);
  out.storage.drop();
});

it('multiplies axes that lie apart in f32, whatever f16 could hold between', async () => {
  const device = await guardedDevice();
  const [out, grad] = scope(device, () => {
    const x = tensor(device, [256, 512, 2 ** -7, 2 ** -8], [2, 1, 2], { dtype: 'f16' });
    x.requiresGrad = true;
    const y = prod(x, [2, 0]);
    backward(y, tensor(device, [1], [1], { dtype: y.dtype }));
    return [y, x.grad!] as const;
  });
  expect([...(await out.read()), ...(await grad.read())]).toEqual([4, 2 ** -6, 2 ** -7, 512, 1024]);
  out.storage.drop();
  grad.storage.drop();
});

it('takes a list of axes', async () => {
  const x = tensor(await guardedDevice(), [1, 2]);
  for (const axes of [{ axis: 7 }, 0, null])
    expect(() => max(x, axes as never)).toThrow('[max] the axes are an array, as in max(x, [0, -1]), not');
  x.storage.drop();
});

// As on GPUs, whatever this adapter is.
describe('a workgroup a row', () => {
  let device: Device;
  beforeAll(async () => {
    device = await openNodeDevice({ guard: true, tuning: { rows: 'workgroup' } });
  });
  afterAll(async () => {
    await device.checkGuards();
    device.destroy();
  });

  const names = ['softmax', 'groupNorm', 'layerNorm', 'rmsNorm', 'sum', 'max', 'mse', 'crossEntropy'];
  const small = (sample: AnySample | null) =>
    sample !== null &&
    sample.inputs.every((input) => input === null || sizeOf('shape' in input ? input.shape : input) < 16_000);
  for (const name of names)
    describe(name, () => {
      for (const { title, sample, run } of checksOf(name)) if (small(sample)) it(title, () => run(device));
    });
});
