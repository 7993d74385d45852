/**
 * What every row of the operations' table is checked for, as plain functions of a device: `npm test`, the adapters' runs
 * (test/adapters), the browser (test/browser) and the fuzzer (test/fuzz) all run these. Nothing here imports from Node.
 */
import fc from 'fast-check';
import { backward, HostRandom, isStorageFormat, randomKey, scope, sizeOf, tensor } from '../../engine/index.ts';
import type { Device, Shape } from '../../engine/index.ts';
import { expectClose, makeInput } from './row.ts';
import type { NdArray } from './row.ts';
import { forward, FORWARD_TOLERANCE, label, makeInputs, operationOf, rows, upload } from './rows.ts';
import type { AnyRow, AnySample, Made } from './rows.ts';
import { checkValues } from './values.ts';

/** Rounding to nearest in f16 is off by at most this share of a value. */
const F16_ROUNDING = 2 ** -11;
/** … and by this where it is subnormal. */
const F16_SPACING = 2 ** -24;

/** One thing to check of an operation. `run` throws when it does not hold. */
export interface Check {
  readonly operation: string;
  readonly title: string;
  /** The sample that it runs, where it is one of the row's. */
  readonly sample: AnySample | null;
  run(device: Device): Promise<void>;
}

/** All checks of a row: each sample; the first one in f16, twice, with other values and with none; random samples; refusals. */
export function checksOf(operation: string): Check[] {
  const row = rows.get(operation)!;
  const first = row.samples[0]!;
  const checks: Check[] = row.samples.map((sample, i) => ({
    operation,
    title: label(sample),
    sample,
    run: (device) => checkSample(device, operation, sample, i),
  }));
  if (row.f16 !== 'none' && makeInputs(first, 0).some((input) => input?.dtype === 'f32'))
    checks.push({
      operation,
      title: 'holds in f16',
      sample: first,
      run: (device) => checkSample(device, operation, first, 0, true),
    });
  checks.push({
    operation,
    title: 'gives the same bits again',
    sample: first,
    run: (device) => checkRepeats(device, operation, first),
  });
  if (first.inputs.some((input) => input && !('shape' in input)))
    for (const kind of ['special', 'zeros'] as const)
      checks.push({
        operation,
        title: kind === 'zeros' ? 'holds for ±0' : 'holds for values of all magnitudes',
        sample: first,
        run: (device) => checkValues(device, operation, first, kind, 0),
      });
  if (first.inputs.every((input) => input && !('shape' in input)))
    checks.push({
      operation,
      title: 'holds for no elements',
      sample: first,
      run: (device) => checkEmpty(device, operation, first),
    });
  if (row.arbitrary)
    checks.push({
      operation,
      title: 'holds for random shapes',
      sample: null,
      run: (device) =>
        fc.assert(
          fc.asyncProperty(row.arbitrary!, fc.nat(), (sample, seed) => checkSample(device, operation, sample, seed)),
          { numRuns: 12, seed: 20, endOnFailure: true },
        ),
    });
  for (const bad of row.bad ?? [])
    checks.push({
      operation,
      title: `refuses: ${bad[1].source}`,
      sample: null,
      run: async (device) => checkRefusal(device, operation, bad),
    });
  return checks;
}

/** Compares forward pass and gradient of one sample with the row's reference; `half`: in f16. */
export async function checkSample(
  device: Device,
  operation: string,
  sample: AnySample,
  seed: number,
  half = false,
): Promise<void> {
  const row = rows.get(operation)!;
  const inputs = makeInputs(sample, seed, half);
  const what = `${operation} ${label(sample)}`;
  const result = await forward(device, operation, sample.attributes, inputs);
  const units = half ? (row.f16 as number | undefined) : 0;
  const tolerance = (row.tolerance ?? FORWARD_TOLERANCE) + (units ?? 1) * F16_ROUNDING;
  const expected = row.reference(inputs as NdArray[], sample.attributes);
  expectClose(what, result.data, expected, tolerance, result.shape, half ? F16_SPACING : 0);
  if (row.gradient === 'none' || sample.forwardOnly) return;
  const slack = (row.gradientTolerance ?? 2 * (row.tolerance ?? FORWARD_TOLERANCE)) + (units ?? 4) * F16_ROUNDING;
  await checkGradient(device, what, row, operationOf(operation), sample, inputs, seed, slack);
}

/**
 * Checks the device's gradient against central differences of the float64 reference (error about 1e-9), with a random
 * upstream: each of up to 24 elements of every input, and one random direction through all of them.
 */
async function checkGradient(
  device: Device,
  what: string,
  row: AnyRow,
  operation: (...args: unknown[]) => unknown,
  sample: AnySample,
  inputs: Made,
  seed: number,
  tolerance: number,
): Promise<void> {
  const wanted = (row.gradient as readonly number[]).filter((i) => inputs[i] && !isStorageFormat(inputs[i].dtype));
  const arrays = inputs as NdArray[];
  const shape = row.reference(arrays, sample.attributes).shape;
  const half = inputs.some((input) => input?.dtype === 'f16');
  const upstream = makeInput(shape, new HostRandom(randomKey(seed, 'upstream')), half);
  const floor = half ? 4 * F16_SPACING : 1e-8;
  const grads = scope(device, () => {
    const tensors = upload(device, inputs, wanted);
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
      if (!(error <= tolerance * (Math.abs(expected[k]!) + largest) + floor))
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

/** With each of the sample's extents put to zero, an operation gives what its reference does, or says why it does not. */
async function checkEmpty(device: Device, operation: string, sample: AnySample): Promise<void> {
  const row = rows.get(operation)!;
  const shapes = sample.inputs as Shape[];
  for (const extent of new Set(shapes.flat())) {
    const inputs = shapes.map((shape) => shape.map((other) => (other === extent ? 0 : other)));
    const made = makeInputs({ ...sample, inputs }, 0);
    const what = `${operation} ${JSON.stringify(inputs)}`;
    try {
      const { data, shape } = await forward(device, operation, sample.attributes, made);
      const tolerance = row.tolerance ?? FORWARD_TOLERANCE;
      expectClose(what, data, row.reference(made as NdArray[], sample.attributes), tolerance, shape);
    } catch (error) {
      if (!(error as Error).message.startsWith(`[${operation}] `)) throw error;
    }
  }
}

async function checkRepeats(device: Device, operation: string, sample: AnySample): Promise<void> {
  const inputs = makeInputs(sample, 1);
  const bits = async () =>
    new Uint32Array((await forward(device, operation, sample.attributes, inputs)).data.slice().buffer);
  const [first, second] = [await bits(), await bits()];
  const at = first.findIndex((word, i) => word !== second[i]);
  if (at >= 0) throw new Error(`${operation} ${label(sample)}: element ${at} has other bits the second time`);
}

function checkRefusal(device: Device, operation: string, [call, message]: NonNullable<AnyRow['bad']>[number]): void {
  let said: string | null = null;
  let narrowed = false; // where the adapter lacks f16, tensors of it are f32: there is nothing to refuse
  scope(device, () => {
    try {
      call(operationOf(operation), (shape, dtype = 'f32') => {
        const made = tensor(device, new Float64Array(sizeOf(shape)), shape, { dtype });
        narrowed ||= made.dtype !== dtype;
        return made;
      });
    } catch (error) {
      said = (error as Error).message;
    }
  });
  if (narrowed) return;
  if (said === null) throw new Error(`${operation} did not refuse what it must: no error like ${message.source}`);
  if (!message.test(said)) throw new Error(`${operation} says "${said as string}", not ${message.source}`);
}
