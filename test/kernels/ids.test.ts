/** Ids and targets out of range, and the embedding's gradient in an arena. */
import { beforeAll, describe, expect, it } from 'vitest';
import { backward, release, scope, tensor, view } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { crossEntropy, embedding, tokenIds } from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';

let device: Device;
beforeAll(async () => void (device = await guardedDevice()));

const count = (n: number) => Float32Array.from({ length: n }, (_, i) => i + 1);

describe('embedding', () => {
  it.each([4, 3])('gives NaN and no gradient for ids that are no row, at width %i', async (width) => {
    const [out, grad] = scope(device, () => {
      const table = tensor(device, count(3 * width), [3, width]);
      table.requiresGrad = true;
      const rows = embedding(table, tensor(device, [2, -1, 3, 2], [4], { dtype: 'i32' }));
      backward(rows, tensor(device, count(4 * width), [4, width]));
      return [rows, table.grad!] as const;
    });
    const values = await out.read();
    const row = count(3 * width).slice(2 * width);
    expect(values.slice(0, width)).toEqual(row);
    expect([...values.slice(width, 3 * width)].every(Number.isNaN)).toBe(true);
    expect(values.slice(3 * width)).toEqual(row);
    const upstream = count(4 * width);
    const sums = Float32Array.from({ length: width }, (_, i) => upstream[i]! + upstream[3 * width + i]!);
    expect(await grad.read()).toEqual(Float32Array.from([...Array<number>(2 * width).fill(0), ...sums]));
    release(out, grad);
  });

  it('writes its gradient into an arena and nothing beside it', async () => {
    const arena = tensor(device, new Float32Array(192).fill(7), [192]);
    scope(device, () => {
      const table = tensor(device, count(60), [15, 4]);
      table.requiresGrad = true;
      table.gradTarget = view(arena, 256, [15, 4]);
      const rows = embedding(table, tensor(device, [14, 0, 14], [3], { dtype: 'i32' }));
      backward(rows, tensor(device, new Float32Array(12).fill(1), [3, 4]));
      expect(table.grad).toBe(table.gradTarget);
    });
    const expected = new Float32Array(192).fill(7);
    expected.fill(0, 64, 124);
    expected.fill(1, 64, 68);
    expected.fill(2, 120, 124);
    expect(await arena.read()).toEqual(expected);
    release(arena);
  });
});

describe('tokenIds', () => {
  it('refuses ids that are no row of the table', () => {
    expect(() => tokenIds(device, [0, 9, 10], [3], 10)).toThrow(/\[embedding\] id 10 at position 2 is no row.* 0 to 9/);
    expect(() => tokenIds(device, [-1], [1], 10)).toThrow(/id -1 at position 0/);
    expect(() => tokenIds(device, [0.5], [1], 10)).toThrow(/id 0.5 at position 0/);
  });
});

describe('crossEntropy', () => {
  it.each([8, -1])('is NaN for the target %i of 8 classes', async (target) => {
    const loss = scope(device, () =>
      crossEntropy(tensor(device, count(16), [2, 8]), tensor(device, [1, target], [2], { dtype: 'i32' })),
    );
    expect(await loss.item()).toBeNaN();
    release(loss);
  });
});
