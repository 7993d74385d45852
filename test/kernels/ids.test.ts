/** Ids and targets out of range, and the embedding's gradient in an arena; tables in parts and in storage formats. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  backward,
  byteLength,
  HostRandom,
  randomKey,
  release,
  scope,
  tensor,
  view,
  zeros,
} from '../../engine/index.ts';
import type { Device, DType } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
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

describe('embedding of tables in parts', () => {
  const rows = 1300;
  const width = 20;
  let limited: Device;
  beforeAll(async () => void (limited = await openNodeDevice({ guard: true, bindingLimit: 16 * 1024 })));
  afterAll(async () => {
    await limited.checkGuards();
    limited.destroy();
  });

  /** Rows and the table's gradient; ids lie in every part, at their ends, and outside. */
  const evaluate = async (on: Device, dtype: DType, columns: number) => {
    const [out, grad] = scope(on, () => {
      const table = tensor(on, new HostRandom(randomKey(1, 'table')).normal(rows * columns), [rows, columns], { dtype });
      const trained = dtype === 'f32' || dtype === 'f16';
      table.requiresGrad = trained;
      const ids = Array.from({ length: 30 }, (_, i) => (i < 24 ? (i * 337) % rows : [0, rows - 1, 255, 256, rows, -1][i % 6]!));
      const result = embedding(table, tensor(on, ids, [5, 6], { dtype: 'i32' }));
      if (trained) backward(result, tensor(on, count(30 * columns), [5, 6, columns], { dtype }));
      return [result, table.grad] as const;
    }); // prettier-ignore
    const values = { out: await out.read(), grad: await grad?.read() };
    release(out, ...(grad ? [grad] : []));
    return values;
  };

  it.each([
    ['f32', width],
    ['f32', 7],
    ['f16', width],
    ['f16', 7],
    ['bf16', width],
    ['q8', 32],
    ['q4', 96],
  ] as const)('gives the same bits as at once: %s, width %i', async (dtype, columns) => {
    expect(byteLength(rows * columns, dtype)).toBeGreaterThan(limited.bindingLimit);
    expect(await evaluate(limited, dtype, columns)).toEqual(await evaluate(device, dtype, columns));
  });

  it.each(['bf16', 'q8', 'q4'] as const)('decodes %s', async (dtype) => {
    const [table, out] = scope(device, () => {
      const table = tensor(device, new HostRandom(randomKey(2, 'table')).normal(9 * 64), [9, 64], { dtype });
      return [table, embedding(table, tensor(device, [4, 8, 0], [3], { dtype: 'i32' }))];
    });
    const values = await table.read();
    expect(await out.read()).toEqual(Float32Array.from([4, 8, 0].flatMap((id) => [...values.slice(id * 64, id * 64 + 64)])));
    release(table, out);
  }); // prettier-ignore

  it('refuses rows that cannot be bound, and gradients of stored weights', () => {
    scope(limited, () => {
      const ids = tensor(limited, [0], [1], { dtype: 'i32' });
      expect(() => embedding(zeros(limited, [3, 5000]), ids)).toThrow(/1[26]* rows of the table \(3, 5000\) exceed the 16384/);
      const stored = zeros(limited, [3, 32], 'bf16');
      stored.requiresGrad = true;
      expect(() => embedding(stored, ids)).toThrow(/\[embedding\] a weight in bf16 .* has no gradient/);
      expect(() => embedding(zeros(limited, [3, 32], 'i32'), ids)).toThrow(/\[embedding\] the table is i32/);
    });
  }); // prettier-ignore

  it("takes CLIP's table in f32, which exceeds the 128 MiB of the software adapter", async () => {
    const [vocabulary, columns] = [49_408, 768];
    const host = new Float32Array(vocabulary * columns);
    for (let i = 0; i < host.length; i++) host[i] = i % 1021;
    const [out, tail] = scope(device, () => {
      const table = tensor(device, host, [vocabulary, columns]);
      table.requiresGrad = true;
      const ids = tensor(device, [vocabulary - 1, 0, vocabulary - 1], [3], { dtype: 'i32' });
      const out = embedding(table, ids);
      backward(out, tensor(device, count(3 * columns), [3, columns]));
      return [out, embedding(table.grad!, ids)];
    });
    const row = (id: number) => [...host.subarray(id * columns, (id + 1) * columns)];
    expect(await out.read()).toEqual(Float32Array.from([...row(vocabulary - 1), ...row(0), ...row(vocabulary - 1)]));
    const sums = Array.from({ length: columns }, (_, i) => 2 * (i + 1) + 2 * columns);
    const once = Array.from({ length: columns }, (_, i) => columns + i + 1);
    expect(await tail.read()).toEqual(Float32Array.from([...sums, ...once, ...sums]));
    release(out, tail);
    device.memory.trim();
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

  it.each([NaN, -Infinity])('lets ignored rows hold %f: their gradient is 0', async (value) => {
    const dx = scope(device, () => {
      const logits = tensor(device, [0, 0, value, value], [2, 2]);
      logits.requiresGrad = true;
      backward(crossEntropy(logits, tensor(device, [1, -100], [2], { dtype: 'i32' })));
      return logits.grad!;
    });
    expect([...(await dx.read())]).toEqual([0.5, -0.5, 0, 0]);
    release(dx);
  });
});
