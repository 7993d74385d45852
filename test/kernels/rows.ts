/** The rows of the operations' table as data: their inputs made, their operations called on a device. */
import { HostRandom, randomKey, scope, tensor } from '../../engine/index.ts';
import type { Device, HostArray, Shape, Tensor } from '../../engine/index.ts';
import * as operations from '../../kernels/index.ts';
import { makeInput } from './row.ts';
import type { Row, Sample } from './row.ts';
import { table } from './table/index.ts';

export type AnyRow = Row<(...args: unknown[]) => unknown>;
export type AnySample = Sample<unknown>;
export type Made = (ReturnType<typeof makeInput> | null)[];

/** The rows by their operations' names. */
export const rows: ReadonlyMap<string, AnyRow> = new Map(
  Object.entries(table).map(([name, row]) => [name, row as unknown as AnyRow]),
);

/** A row's tolerance unless it says otherwise; see `Row`. */
export const FORWARD_TOLERANCE = 2e-6;

export const label = (sample: AnySample): string =>
  sample.name ?? JSON.stringify(sample.inputs.map((input) => (input && 'shape' in input ? input.shape : input)));

export const operationOf = (name: string) =>
  operations[name as keyof typeof operations] as unknown as (...args: unknown[]) => unknown;

export const makeInputs = (sample: AnySample, seed: number, half = false): Made =>
  sample.inputs.map((spec, i) => spec && makeInput(spec, new HostRandom(randomKey(seed, `input ${i}`)), half));

export const upload = (device: Device, inputs: Made, wanted: readonly number[]): Tensor[] =>
  inputs.map((input, i) => {
    if (!input) return null as unknown as Tensor;
    const result = tensor(device, input.data, input.shape, { dtype: input.dtype });
    result.requiresGrad = wanted.includes(i);
    return result;
  });

/** The operation's result on the device. */
export async function forward(
  device: Device,
  operation: string,
  attributes: unknown,
  inputs: Made,
): Promise<{ shape: Shape; data: HostArray }> {
  const row = rows.get(operation)!;
  const result = scope(device, () => row.call(operationOf(operation), upload(device, inputs, []), attributes));
  const data = await result.read();
  result.storage.drop();
  return { shape: result.shape, data };
}
