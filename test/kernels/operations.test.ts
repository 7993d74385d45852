/** The tests that every row of the operations' table gets. `npx vitest run test/kernels -t matmul` runs one row's. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward, HostRandom, randomKey, scope, sizeOf, tensor } from '../../engine/index.ts';
import type { Device, HostArray, Shape, Tensor } from '../../engine/index.ts';
import * as operations from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';
import { expectClose, makeInput } from './row.ts';
import type { NdArray, Row, Sample } from './row.ts';
import { table } from './table/index.ts';

type AnyRow = Row<(...args: unknown[]) => unknown>;
type Made = (ReturnType<typeof makeInput> | null)[];

const FORWARD_TOLERANCE = 2e-6;
/** Rounding to nearest in f16 is off by at most this share of a value. */
const F16_ROUNDING = 2 ** -11;
let device: Device;

beforeAll(async () => {
  device = await guardedDevice();
});
afterAll(async () => {
  await device.checkGuards();
});

const makeInputs = (sample: Sample<unknown>, seed: number, half = false): Made =>
  sample.inputs.map((spec, i) => spec && makeInput(spec, new HostRandom(randomKey(seed, `input ${i}`)), half));

const upload = (inputs: Made, wanted: readonly number[]): Tensor[] =>
  inputs.map((input, i) => {
    if (!input) return null as unknown as Tensor;
    const result = tensor(device, input.data, input.shape, { dtype: input.dtype });
    result.requiresGrad = wanted.includes(i);
    return result;
  });

async function forward(
  row: AnyRow,
  operation: (...args: unknown[]) => unknown,
  sample: Sample<unknown>,
  inputs: Made,
): Promise<{ shape: Shape; data: HostArray }> {
  const result = scope(device, () => row.call(operation, upload(inputs, []), sample.attributes));
  const data = await result.read();
  result.storage.drop();
  return { shape: result.shape, data };
}

/**
 * Checks the device's gradient against central differences of the float64 reference (error about 1e-9), with a random
 * upstream: each of up to 24 elements of every input, and one random direction through all of them.
 */
async function checkGradient(
  what: string,
  row: AnyRow,
  operation: (...args: unknown[]) => unknown,
  sample: Sample<unknown>,
  inputs: Made,
  seed: number,
  tolerance: number,
): Promise<void> {
  const wanted = (row.gradient as readonly number[]).filter((i) => inputs[i]);
  const arrays = inputs as NdArray[];
  const shape = row.reference(arrays, sample.attributes).shape;
  const half = inputs.some((input) => input?.dtype === 'f16');
  const upstream = makeInput(shape, new HostRandom(randomKey(seed, 'upstream')), half);
  const grads = scope(device, () => {
    const tensors = upload(inputs, wanted);
    const result = row.call(operation, tensors, sample.attributes);
    backward(result, tensor(device, upstream.data, shape, { dtype: result.dtype }));
    return wanted.map((i) => tensors[i]!.grad!);
  });
  const values = await Promise.all(grads.map(async (grad) => Float64Array.from(await grad.read())));
  for (const grad of grads) grad.storage.drop();
  const loss = (changed: NdArray[]): number => {
    const { data } = row.reference(changed, sample.attributes);
    return data.reduce((total, value, i) => total + value * upstream.data[i]!, 0);
  };
  const h = 1e-5;
  const along = (i: number, direction: (k: number) => number): number => {
    const shifted = (sign: number) =>
      arrays.map((array, k) =>
        k === i ? { shape: array.shape, data: array.data.map((v, e) => v + sign * h * direction(e)) } : array,
      );
    return (loss(shifted(1)) - loss(shifted(-1))) / (2 * h);
  };
  wanted.forEach((i, n) => {
    const size = sizeOf(arrays[i]!.shape);
    const random = new HostRandom(randomKey(seed, `places ${i}`));
    const places =
      size <= 24 ? Array.from({ length: size }, (_, k) => k) : Array.from({ length: 24 }, () => random.below(size));
    const got = values[n]!;
    const expected = places.map((place) => along(i, (e) => (e === place ? 1 : 0)));
    // Relative to the gradient's largest element, since what cancels in one element is as large as that.
    const largest = got.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    places.forEach((place, k) => {
      const error = Math.abs(got[place]! - expected[k]!);
      if (!(error <= tolerance * (Math.abs(expected[k]!) + largest) + 1e-8))
        throw new Error(`${what}: gradient of input ${i}, element ${place} is ${got[place]}, expected ${expected[k]}`);
    });
    const direction = random.normal(size);
    const slope = got.reduce((total, value, e) => total + value * direction[e]!, 0);
    const sizeOfTerms = Math.sqrt(got.reduce((total, value, e) => total + (value * direction[e]!) ** 2, 0));
    const error = Math.abs(slope - along(i, (e) => direction[e]!));
    if (!(error <= 4 * tolerance * sizeOfTerms + tolerance * largest + 1e-7))
      throw new Error(`${what}: gradient of input ${i} along a random direction is off by ${error} of ${slope}`);
  });
}

const label = (sample: Sample<unknown>) =>
  sample.name ?? JSON.stringify(sample.inputs.map((input) => (input && 'shape' in input ? input.shape : input)));

for (const [name, typedRow] of Object.entries(table)) {
  const row = typedRow as unknown as AnyRow;
  const operation = operations[name as keyof typeof operations] as unknown as (...args: unknown[]) => unknown;

  const check = async (sample: Sample<unknown>, seed: number, half = false) => {
    const inputs = makeInputs(sample, seed, half);
    const what = `${name} ${label(sample)}`;
    const result = await forward(row, operation, sample, inputs);
    const units = half ? (row.f16 as number | undefined) : 0;
    const tolerance = (row.tolerance ?? FORWARD_TOLERANCE) + (units ?? 1) * F16_ROUNDING;
    expectClose(what, result.data, row.reference(inputs as NdArray[], sample.attributes), tolerance, result.shape);
    if (row.gradient === 'none' || sample.forwardOnly) return;
    const slack = (row.gradientTolerance ?? 2 * (row.tolerance ?? FORWARD_TOLERANCE)) + (units ?? 4) * F16_ROUNDING;
    await checkGradient(what, row, operation, sample, inputs, seed, slack);
  };

  describe(name, () => {
    row.samples.forEach((sample, i) => it(label(sample), () => check(sample, i)));

    if (row.f16 !== 'none' && makeInputs(row.samples[0]!, 0).some((input) => input?.dtype === 'f32'))
      it('holds in f16', () => check(row.samples[0]!, 0, true));

    it('gives the same bits again', async () => {
      const sample = row.samples[0]!;
      const inputs = makeInputs(sample, 1);
      const [first, second] = [
        await forward(row, operation, sample, inputs),
        await forward(row, operation, sample, inputs),
      ];
      expect(new Uint8Array(second.data.buffer)).toEqual(new Uint8Array(first.data.buffer));
    });

    if (row.arbitrary)
      it('holds for random shapes', () =>
        fc.assert(
          fc.asyncProperty(row.arbitrary!, fc.nat(), (sample, seed) => check(sample, seed)),
          { numRuns: 12, seed: 20, endOnFailure: true },
        ));

    row.bad?.forEach(([call, message]) =>
      it(`refuses: ${message.source}`, () => {
        scope(device, () =>
          expect(() =>
            call(operation, (shape, dtype = 'f32') =>
              tensor(device, new Float64Array(sizeOf(shape)), shape, { dtype }),
            ),
          ).toThrow(message),
        );
      }),
    );
  });
}
