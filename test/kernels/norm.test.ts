/** What the operations' table does not ask of the norms: the fused form against the composed one, frozen inputs, batches. */
import { beforeAll, describe, expect, it } from 'vitest';
import { backward, HostRandom, randomKey, scope, tensor } from '../../engine/index.ts';
import type { Device, HostArray, Shape, Tensor } from '../../engine/index.ts';
import { groupNorm, layerNorm, silu } from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';
import { expectClose, nd } from './row.ts';

let device: Device;
beforeAll(async () => void (device = await guardedDevice()));

const values = (shape: Shape, purpose: string) => {
  const random = new HostRandom(randomKey(3, purpose)).normal(shape.reduce((a, b) => a * b, 1));
  return nd(shape, (i) => Math.fround(random[i]!));
};

/** The result and the gradients of x, weight and bias (`null` where they are frozen). */
async function run(
  form: (x: Tensor, weight: Tensor, bias: Tensor) => Tensor,
  shape: Shape,
  channels: number,
  trained: readonly number[] = [0, 1, 2],
): Promise<(HostArray | null)[]> {
  const results = scope(device, () => {
    const inputs = [values(shape, 'x'), values([channels], 'weight'), values([channels], 'bias')].map((input, i) => {
      const made = tensor(device, input.data, input.shape);
      made.requiresGrad = trained.includes(i);
      return made;
    }) as [Tensor, Tensor, Tensor];
    const out = form(...inputs);
    const upstream = values(shape, 'upstream');
    backward(out, tensor(device, upstream.data, shape));
    return [out, ...inputs.map((input) => input.grad)];
  });
  const read = await Promise.all(results.map((result) => result?.read() ?? null));
  for (const result of results) result?.storage.drop();
  return read;
}

describe('groupNorm', () => {
  const shape = [2, 12, 5, 4];

  it('with silu is silu(groupNorm), gradients too', async () => {
    const fused = await run((x, w, b) => groupNorm(x, w, b, 4, { silu: true }), shape, 12);
    const composed = await run((x, w, b) => silu(groupNorm(x, w, b, 4)), shape, 12);
    fused.forEach((array, i) =>
      expectClose(
        `result ${i}`,
        array!,
        nd([array!.length], (k) => composed[i]![k]!),
        i === 0 ? 2e-6 : 8e-6,
      ),
    );
  });

  it.each([[[0]], [[1, 2]], [[2]]])('gives gradients to inputs %j alone, and the same bits', async (trained) => {
    const form = (x: Tensor, w: Tensor, b: Tensor) => groupNorm(x, w, b, 4, { silu: true });
    const all = await run(form, shape, 12);
    const some = await run(form, shape, 12, trained);
    [0, 1, 2].forEach((i) => expect(some[i + 1]).toEqual(trained.includes(i) ? all[i + 1] : null));
  });
});

describe('layerNorm', () => {
  it.each([[[0]], [[1, 2]], [[1]]])('gives gradients to inputs %j alone, and the same bits', async (trained) => {
    const all = await run(layerNorm, [40, 12], 12);
    const some = await run(layerNorm, [40, 12], 12, trained);
    [0, 1, 2].forEach((i) => expect(some[i + 1]).toEqual(trained.includes(i) ? all[i + 1] : null));
  });
});

describe('a sample', () => {
  it.each([
    ['groupNorm', (x: Tensor, w: Tensor, b: Tensor) => groupNorm(x, w, b, 4), [1, 12, 5, 4]],
    ['layerNorm', layerNorm, [1, 7, 12]],
  ] as const)('has the same bits in %s alone and in a batch', async (_, form, shape) => {
    const batch = [3, ...shape.slice(1)];
    const [alone, dAlone] = await run(form, shape, 12);
    const [together, dTogether] = await run(form, batch, 12);
    expect(together!.slice(0, alone!.length)).toEqual(alone);
    expect(dTogether!.slice(0, dAlone!.length)).toEqual(dAlone);
  });
});
