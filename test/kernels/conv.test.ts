/** Convolution's variants that the operations' table does not meet on this adapter, and samples by chunks. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward, release, scope, tensor } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { conv2d } from '../../kernels/index.ts';
import { guardedDevice } from '../device.ts';
import { checkSample } from './check.ts';
import { expectClose } from './row.ts';
import { sample, transposedSample } from './table/conv.ts';

const winogradSample = sample([1, 32, 3, 8], 36, 3, { padding: 1 });
const bytes = ({ buffer, byteOffset, byteLength }: Float32Array) => new Uint8Array(buffer, byteOffset, byteLength);
let opened: Device[] = [];
let tiled: Device; // direct kernels by workgroup memory
let transformed: Device; // Winograd around the product by workgroup memory
let guarded: Device;

beforeAll(async () => {
  const direct = { conv2d: 'tiled', 'conv2d weight': 'tiled', 'conv2d 3×3': 'direct' };
  tiled = await openNodeDevice({ guard: true, tuning: direct });
  transformed = await openNodeDevice({ guard: true, without: ['subgroups'], tuning: { 'conv2d 3×3': 'winograd' } });
  opened = [tiled, transformed];
  guarded = await guardedDevice();
});
afterAll(async () => {
  for (const device of [...opened, guarded]) await device.checkGuards();
  for (const device of opened) device.destroy();
});

describe('kernels by workgroup memory', () => {
  it('make tiles of 32, and a weight gradient in several parts of a sample', () =>
    checkSample(tiled, 'conv2d', sample([1, 3, 36, 36], 5, 3, { padding: 1 }), 0));
  it('make tiles of 64 where there are many', () =>
    checkSample(tiled, 'conv2d', sample([2, 80, 3, 3], 80, 3, { groups: 16, padding: 1 }), 1));
  it('make tiles of 64, phase by phase', () =>
    checkSample(tiled, 'convTranspose2d', transposedSample([1, 80, 3, 2], 80, 3, { groups: 16, stride: 2 }), 2));
  it('make a weight gradient at once where there are many tiles', () =>
    checkSample(tiled, 'conv2d', sample([2, 64, 4, 3], 64, 3, { groups: 64, padding: 1 }), 3));
  it('make 3×3 convolutions directly', () => checkSample(tiled, 'conv2d', winogradSample, 4));
  it('hold in f16', () => checkSample(tiled, 'conv2d', sample([2, 6, 5, 7], 5, 3, { stride: 2, padding: 1 }), 5, true));
});

describe('Winograd', () => {
  it('stands on any product', () => checkSample(transformed, 'conv2d', winogradSample, 6));
  it('holds in f16, four tiles of a row at once', () => checkSample(guarded, 'conv2d', winogradSample, 7, true));
  it('holds in f16, tile by tile', () =>
    checkSample(guarded, 'conv2d', sample([1, 36, 3, 4], 32, 3, { padding: 1, bias: false }), 8, true));

  it('goes by chunks of samples: the bits of one sample at a time, and the sum of their gradients by weights', async () => {
    // 1,024 channels of 16×16 tiles: three samples fill V's 64 MiB.
    const [batch, channels, rows, size] = [4, 1024, 32, 32];
    const values = (count: number, seed: number) => Float32Array.from({ length: count }, (_, i) => (((i + seed) * 7919) % 1009) / 1009 - 0.5); // prettier-ignore
    const [each, eachGrad] = [channels * size * size, rows * size * size];
    const [x, weight, grad] = [values(batch * each, 0), values(rows * channels * 9, 1), values(batch * eachGrad, 2)];
    /** Result, gradient by x and by the weight, of `count` samples from `first`. */
    const passes = async (first: number, count: number): Promise<Float32Array[]> => {
      const results = scope(guarded, () => {
        const a = tensor(guarded, x.subarray(first * each, (first + count) * each), [count, channels, size, size]);
        const w = tensor(guarded, weight, [rows, channels, 3, 3]);
        a.requiresGrad = w.requiresGrad = true;
        const out = conv2d(a, w, null, { padding: 1 });
        backward(out, tensor(guarded, grad.subarray(first * eachGrad, (first + count) * eachGrad), out.shape));
        return [out, a.grad!, w.grad!];
      });
      const read = await Promise.all(results.map(async (t) => (await t.read()) as Float32Array));
      release(...results);
      return read;
    };
    const [out, gradX, gradWeight] = await passes(0, batch);
    const total = new Float64Array(weight.length);
    for (let n = 0; n < batch; n++) {
      const [one, oneX, oneWeight] = await passes(n, 1);
      // By words: comparing element by element takes a matcher seconds.
      expect(Buffer.compare(bytes(out!.subarray(n * eachGrad, (n + 1) * eachGrad)), bytes(one!))).toBe(0);
      expect(Buffer.compare(bytes(gradX!.subarray(n * each, (n + 1) * each)), bytes(oneX!))).toBe(0);
      oneWeight!.forEach((value, i) => (total[i]! += value));
    }
    expectClose('gradient by the weight', gradWeight!, { shape: [total.length], data: total }, 2e-6);
  });
});
