/** What the operations' table does not ask of the element-wise operations: values so large that powers of them overflow. */
import { beforeAll, describe, expect, it } from 'vitest';
import { backward, release, scope, tensor } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { gelu, geluTanh, quickGelu, silu } from '../../kernels/index.ts';
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
