/** The variants for adapters without subgroups: forward against the references, gradients against the checked ones. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward, HostRandom, randomKey, scope, tensor } from '../../engine/index.ts';
import type { Device, HostArray, Tensor } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import * as operations from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';
import { expectClose, makeInput } from './row.ts';
import type { NdArray, Row } from './row.ts';
import { convRows } from './table/conv.ts';
import { lossRows } from './table/loss.ts';
import { matmulRows } from './table/matmul.ts';
import { normRows } from './table/norm.ts';
import { softmaxRows } from './table/softmax.ts';

let portable: Device;
let checked: Device;

beforeAll(async () => {
  [portable, checked] = [await openNodeDevice({ guard: true, without: ['subgroups'] }), await guardedDevice()];
  expect(portable.profile.subgroupSize).toBe(0);
});
afterAll(async () => {
  await portable.checkGuards();
  portable.destroy();
});

const rows = { ...matmulRows, ...convRows, ...normRows, ...softmaxRows, ...lossRows };

describe.each(Object.entries(rows))('%s without subgroups', (name, typedRow) => {
  const row = typedRow as unknown as Row<(...args: unknown[]) => unknown>;
  const operation = operations[name as keyof typeof operations] as unknown as (...args: unknown[]) => unknown;

  it.each(row.samples.map((sample, i) => [i, JSON.stringify(sample)] as const))('%i: %s', async (i) => {
    const sample = row.samples[i]!;
    const random = new HostRandom(randomKey(i, 'inputs'));
    const inputs = sample.inputs.map((spec) => spec && makeInput(spec, random));
    const expected = row.reference(inputs as NdArray[], sample.attributes);
    const upstream = makeInput(expected.shape, random);
    const evaluate = async (device: Device): Promise<HostArray[]> => {
      const results = scope(device, () => {
        const tensors = inputs.map((input) => input && tensor(device, input.data, input.shape, input));
        if (!sample.forwardOnly)
          for (const k of row.gradient as number[]) if (tensors[k]) tensors[k].requiresGrad = true;
        const out = row.call(operation, tensors as Tensor[], sample.attributes);
        if (!sample.forwardOnly) backward(out, tensor(device, upstream.data, expected.shape));
        return [out, ...tensors.flatMap((t) => t?.grad ?? [])];
      });
      const values = await Promise.all(results.map((t) => t.read()));
      for (const t of results) t.storage.drop();
      return values;
    };
    const [out, ...grads] = await evaluate(portable);
    expectClose('forward', out!, expected, 2e-6);
    if (sample.forwardOnly) return;
    const [, ...reference] = await evaluate(checked);
    expect(grads.length).toBe(reference.length);
    const tolerance = row.gradientTolerance ?? 4e-6;
    grads.forEach((grad, k) =>
      expectClose(`gradient ${k}`, grad, { shape: [grad.length], data: Float64Array.from(reference[k]!) }, tolerance),
    );
  });
});
