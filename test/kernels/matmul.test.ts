/** What the operations' table can't show of matrix products: parts, bits, formats, and every kernel that runs here. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  backward,
  f16ToF32,
  f32ToF16,
  HostRandom,
  packBlocks,
  randomKey,
  release,
  scope,
  sizeOf,
  tensor,
  unpackBlocks,
} from '../../engine/index.ts';
import type { Device, DType, Shape, Tensor } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { cast, dequantize, fromBlocks, linear, matmul, quantize } from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';
import { checkSample } from './check.ts';
import { expectClose } from './row.ts';

let device: Device;
beforeAll(async () => {
  device = await guardedDevice();
});
afterAll(() => device.checkGuards());

const normal = (shape: Shape, key: string): Float64Array =>
  Float64Array.from(new HostRandom(randomKey(7, key)).normal(sizeOf(shape)));

const leaf = (on: Device, shape: Shape, key: string, dtype: DType = 'f32'): Tensor =>
  Object.assign(tensor(on, normal(shape, key), shape, { dtype }), { requiresGrad: dtype === 'f32' || dtype === 'f16' });

const bits = async (x: Tensor): Promise<Uint32Array> => new Uint32Array((await x.read()).slice().buffer);

it.each([1, 3, 40])(
  'a weight in f16 beside f32 gives the bits of the widened one, for %i rows, and has no gradient',
  async (rows) => {
    const [k, n] = [68, 36];
    const results = scope(device, () => {
      const x = leaf(device, [1, rows, k], 'x');
      const weight = tensor(device, normal([n, k], 'weight'), [n, k], { dtype: 'f16' });
      const bias = tensor(device, normal([n], 'bias'), [n]);
      const both = [weight, cast(weight, 'f32')].map((each) => {
        const out = linear(x, each, bias);
        backward(out, tensor(device, normal(out.shape, 'upstream'), out.shape));
        const grad = x.grad!;
        x.grad = null;
        return [out, grad];
      });
      weight.requiresGrad = true;
      expect(() => linear(x, weight)).toThrow(/\[linear\] a weight in f16 is stored, not trained/);
      return both.flat();
    });
    const [out, grad, wideOut, wideGrad] = await Promise.all(results.map(bits));
    expect(out).toEqual(wideOut);
    expect(grad).toEqual(wideGrad);
    release(...results);
  },
);

describe('the order of additions', () => {
  it.each([1, 3, 5, 40])('of a linear layer with %i rows a sample is the same in a batch', async (rows) => {
    const [batch, k, n] = [6, 68, 36];
    const x = normal([batch, rows, k], 'x');
    const results = scope(device, () => {
      const weight = leaf(device, [n, k], 'weight');
      const bias = leaf(device, [n], 'bias');
      const all = linear(tensor(device, x, [batch, rows, k]), weight, bias);
      const one = linear(tensor(device, x.slice(rows * k, 2 * rows * k), [1, rows, k]), weight, bias);
      return [all, one];
    });
    const [all, one] = await Promise.all(results.map(bits));
    expect(all!.slice(rows * n, 2 * rows * n)).toEqual(one);
    release(...results);
  });

  it('of (N, in), whose rows may be samples, is the same for any N', async () => {
    const x = normal([9, 68], 'x');
    const results = scope(device, () => {
      const weight = leaf(device, [36, 68], 'weight');
      return [9, 1].map((count) => linear(tensor(device, x.slice(0, count * 68), [count, 68]), weight));
    });
    const [nine, one] = await Promise.all(results.map(bits));
    expect(nine!.slice(0, 36)).toEqual(one);
    release(...results);
  });

  it('of a product with few rows is the same in a batch', async () => {
    const [a, b] = [normal([3, 2, 40], 'a'), normal([3, 24, 40], 'b')];
    const results = scope(device, () => [
      matmul(tensor(device, a, [3, 2, 40]), tensor(device, b, [3, 24, 40]), { transposeB: true }),
      matmul(tensor(device, a.slice(160), [2, 40]), tensor(device, b.slice(1920), [24, 40]), { transposeB: true }),
    ]);
    const [all, one] = await Promise.all(results.map(bits));
    expect(all!.slice(96)).toEqual(one);
    release(...results);
  });
});

describe('operands over the binding limit', () => {
  const LIMIT = 8192;
  let narrow: Device;
  beforeAll(async () => {
    narrow = await openNodeDevice({ bindingLimit: LIMIT });
    const dispatch = narrow.dispatch.bind(narrow);
    narrow.dispatch = (kernel, windows, ...rest) => {
      for (const { bytes } of windows) expect(bytes, kernel.label).toBeLessThanOrEqual(LIMIT);
      dispatch(kernel, windows, ...rest);
    };
  });
  afterAll(() => narrow.destroy());

  const cases: [string, Shape[], (inputs: Tensor[]) => Tensor, DType?][] = [
    ['A by rows', [[160, 20], [20, 8]], ([a, b]) => matmul(a!, b!)],
    ['A by k', [[160, 20], [160, 8]], ([a, b]) => matmul(a!, b!, { transposeA: true })],
    ['B by k', [[8, 160], [160, 20]], ([a, b]) => matmul(a!, b!)],
    ['B by columns', [[8, 20], [160, 20]], ([a, b]) => matmul(a!, b!, { transposeB: true })],
    ['the result by rows', [[160, 16], [16, 20]], ([a, b]) => matmul(a!, b!)],
    ['odd extents', [[157, 21], [21, 130]], ([a, b]) => matmul(a!, b!)],
    ['all, in a batch', [[3, 64, 68], [3, 68, 72]], ([a, b]) => matmul(a!, b!)],
    ['a shared B in a batch, by k', [[2, 36, 20], [36, 160]], ([a, b]) => matmul(a!, b!, { transposeA: true })],
    ['a sum over a batch', [[5, 24, 32], [32, 36]], ([a, b]) => matmul(a!, b!)],
    ['a linear layer', [[2, 72, 40], [100, 40], [100]], ([x, w, b]) => linear(x!, w!, b!)],
    ['a linear layer of one row', [[1, 1, 40], [100, 40], [100]], ([x, w, b]) => linear(x!, w!, b!)],
    ['a linear layer with its weight in bf16', [[2, 5, 64], [160, 64], [160]], ([x, w, b]) => linear(x!, w!, b!), 'bf16'],
    ['a linear layer with its weight in q8', [[2, 5, 64], [200, 64], [200]], ([x, w, b]) => linear(x!, w!, b!), 'q8'],
    ['a linear layer with its weight in q4', [[1, 1, 96], [320, 96], [320]], ([x, w, b]) => linear(x!, w!, b!), 'q4'],
  ]; // prettier-ignore

  it.each(cases)('%s', async (name, shapes, run, format = 'f32') => {
    const record = (on: Device) =>
      scope(on, () => {
        const inputs = shapes.map((shape, i) => leaf(on, shape, `input ${i}`, i === 1 ? format : 'f32'));
        const out = run(inputs);
        backward(out, leaf(on, out.shape, 'upstream'));
        return [out, ...inputs.flatMap(({ grad }) => grad ?? [])];
      });
    const [parts, whole] = [record(narrow), record(device)];
    expect(parts.length).toBe(whole.length);
    for (const [i, part] of parts.entries()) {
      // Halves of k are added last, in another order: each of some hundred additions rounds by 2⁻²⁴ at most.
      const expected = { shape: part.shape, data: Float64Array.from(await whole[i]!.read()) };
      expectClose(`${name} ${i}`, await part.read(), expected, 2e-6);
      if (i === 0 && !/by k|odd|all/.test(name)) expect(await bits(part)).toEqual(await bits(whole[0]!));
    }
    release(...parts, ...whole);
  });

  it('of which one row is too large are refused', () => {
    scope(narrow, () => {
      const [a, b] = [
        tensor(narrow, normal([1, 4096], 'a'), [1, 4096]),
        tensor(narrow, normal([2, 4096], 'b'), [2, 4096]),
      ];
      expect(() => matmul(a, b, { transposeB: true })).toThrow(
        /\[matmul\] one row of \(1, 4096\) takes more than the 8192 bytes/,
      );
    });
  });
});

describe('storage formats', () => {
  it.each(['q8', 'q4'] as const)('%s holds blocks of scales and quants as they are', async (format) => {
    const [low, high] = format === 'q8' ? [-128, 127] : [-8, 7];
    const random = new HostRandom(randomKey(1, 'quants'));
    const quants = Int8Array.from({ length: 128 }, () => low + random.below(high - low + 1));
    const scales = Uint16Array.from([0x3c00, 0x0001, 0x8400, 0x2e66]); // 1, the least subnormal, a negative one, 0.1
    const packed = packBlocks({ quants, scales }, format);
    expect(unpackBlocks(packed.buffer, 128, format)).toEqual({ quants, scales });
    const values = Float32Array.from(quants, (q, i) => q * f16ToF32(scales)[i >> 5]!);
    const [stored, decoded] = scope(device, (): [Tensor, Tensor] => {
      const weight = fromBlocks(device, { quants, scales }, [2, 64], format);
      return [weight, dequantize(weight)];
    });
    expect(await stored.read()).toEqual(values);
    expect(await decoded.read()).toEqual(values);
    release(stored, decoded);
    expect(() => fromBlocks(device, { quants, scales }, [4, 64], format)).toThrow(/\[fromBlocks\] \(4, 64\) needs 256 quants and 8 scales, got 128 and 4/);
  }); // prettier-ignore

  it.each([
    ['bf16', 2 ** -8], // half a unit of 8 bits
    ['q8', 1 / 254 + 2 ** -11], // half a step of the largest value's 127th, and the scale's rounding
  ] as const)('%s is off by what its bits allow', async (format, bound) => {
    const values = normal([4, 64], 'values');
    const weight = quantize(device, values, [4, 64], format);
    const back = await weight.read();
    release(weight);
    values.forEach((value, i) => {
      const block = format === 'bf16' ? [value] : [...values.slice(i - (i % 32), i - (i % 32) + 32)];
      expect(Math.abs(back[i]! - value)).toBeLessThanOrEqual(bound * Math.max(...block.map(Math.abs)));
    });
  });

  it('q4 is nearer, block by block, than with the largest value at −8', async () => {
    const values = normal([16, 64], 'values');
    const weight = quantize(device, values, [16, 64], 'q4');
    const back = await weight.read();
    release(weight);
    for (let start = 0; start < values.length; start += 32) {
      const block = values.slice(start, start + 32);
      const most = block.reduce((m, v) => (Math.abs(v) > Math.abs(m) ? v : m));
      const scale = f16ToF32(f32ToF16(Float32Array.of(most / -8)))[0]!;
      const distance = (of: (value: number, i: number) => number) =>
        block.reduce((sum, value, i) => sum + (value - of(value, i)) ** 2, 0);
      const plain = distance((value) => scale * Math.max(-8, Math.min(7, Math.round(value / scale))));
      expect(distance((_, i) => back[start + i]!)).toBeLessThanOrEqual(plain);
    }
  });

  it.each(['bf16', 'q8', 'q4'] as const)('%s times f16, many rows and few', async (dtype) => {
    for (const rows of [9, 1])
      await checkSample(device, 'linear', { inputs: [[2, rows, 64], { shape: [12, 64], dtype }, [12]], attributes: {} }, 0, true); // prettier-ignore
  });

  it('are refused where rows are no whole blocks, and values do not fit', () => {
    const zeros = new Float32Array(48);
    expect(() => quantize(device, zeros, [1, 48], 'q8')).toThrow(
      /\[quantize\] rows in q8 are multiples of 32 values; \(1, 48\) has rows of 48/,
    );
    expect(() => quantize(device, zeros, [24, 2], 'bf16')).toThrow(
      /\[quantize\] rows in bf16 are multiples of 4 values/,
    );
    expect(() => quantize(device, new Float32Array(32).fill(NaN), [1, 32], 'q4')).toThrow(
      /\[quantize\] value 0 is NaN/,
    );
  });

  it('are refused where there is no such format', () => {
    for (const format of ['q5', 'f16'])
      expect(() => quantize(device, new Float32Array(32), [1, 32], format as 'q8')).toThrow(
        `[quantize] ${format} is none of the formats bf16, q8, q4`,
      );
    const blocks = { quants: new Int8Array(32), scales: new Uint16Array(1) };
    expect(() => fromBlocks(device, blocks, [1, 32], 'bf16' as 'q8')).toThrow('[fromBlocks] bf16 is none of the formats q8, q4'); // prettier-ignore
  });
});

/** Through the kernels that the rules don't choose here; the poorest device's share of the table goes through them, too. */
describe('workgroup memory', () => {
  let tuned: Device;
  beforeAll(async () => {
    tuned = await openNodeDevice({ guard: true, tuning: { matmul: 'tiled', 'matmul f16': 'tiled', 'one row': 'workgroup', 'few rows': 'workgroup' } }); // prettier-ignore
  });
  afterAll(async () => {
    await tuned.checkGuards();
    tuned.destroy();
  });

  const transposes = [false, true].flatMap((transposeA) => [false, true].map((b) => ({ transposeA, transposeB: b })));
  const matrix = (rows: number, columns: number, transposed: boolean): Shape => (transposed ? [columns, rows] : [rows, columns]); // prettier-ignore

  it.each(transposes)('tiles of 32, vec4s and scalars: %o', async (attributes) => {
    for (const [m, k, n] of [[40, 36, 68], [33, 67, 35]] as const) // prettier-ignore
      await checkSample(tuned, 'matmul', { inputs: [matrix(m, k, attributes.transposeA), matrix(k, n, attributes.transposeB)], attributes }, 0); // prettier-ignore
  });
  it('tiles of 64', () => checkSample(tuned, 'matmul', { inputs: [[9, 68, 36], [9, 36, 68]], attributes: {} }, 0)); // prettier-ignore
  it('f16', () => checkSample(tuned, 'matmul', { inputs: [[40, 36], [36, 68]], attributes: {} }, 0, true)); // prettier-ignore
  it('biases and their gradients', () => checkSample(tuned, 'linear', { inputs: [[2, 37, 40], [36, 40], [36]], attributes: {} }, 0)); // prettier-ignore
  it.each(['bf16', 'q8', 'q4'] as const)('%s, many rows and few', async (dtype) => {
    for (const rows of [9, 1])
      await checkSample(
        tuned,
        'linear',
        { inputs: [[2, rows, 64], { shape: [10, 64], dtype }, [10]], attributes: {} },
        0,
      );
  });
});
