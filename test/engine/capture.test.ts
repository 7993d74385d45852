/** Capture and replay of a step, checkpointing, and the dry run. */
import { beforeAll, describe, expect, it } from 'vitest';
import {
  apply,
  backward,
  capture,
  checkpoint,
  clearGradient,
  HostRandom,
  noGrad,
  operation,
  randomKey,
  release,
  reshape,
  scope,
  tensor,
  wgsl,
  write,
  zeros,
} from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { add, affine, geluTanh, layerNorm, linear, matmul, mean, mul, silu, square, sum } from '../../kernels/index.ts';
import { openNodeDevice } from '../../engine/node.ts';

const scale = wgsl(import.meta.url, './scale.wgsl');

let device: Device;
beforeAll(async () => {
  device = await openNodeDevice({ guard: true });
});

const random = (shape: number[], seed = 0): Tensor =>
  tensor(device, new HostRandom(randomKey(seed, 'capture')).normal(shape.reduce((a, b) => a * b, 1)), shape);

describe('a captured step', () => {
  it('runs again on new inputs and variables, with what it needs and nothing new', async () => {
    const [x, w] = [random([4, 8]), random([8, 8], 1)];
    const factor = { value: 2 };
    const step = () => {
      const y = silu(matmul(x, w));
      const z = zeros(device, [4, 8]);
      device.run(device.kernel(scale), [y, z], { size: z.size, factor }, 1);
      return { z, total: sum(square(add(z, tensor(device, [1])))) };
    };
    const replay = capture(device, step);
    // Memory that the step let go of is used by others meanwhile.
    const others = Array.from({ length: 12 }, (_, i) => zeros(device, [4, 8 + i]));
    for (let run = 0; run < 3; run++) {
      if (run > 0) {
        write(x, new HostRandom(randomKey(run, 'again')).normal(32));
        factor.value = 2 + run;
        const [pipelines, buffers, groups] = [device.pipelines, device.memory.created, device.stream.bindGroups];
        replay.run();
        expect([device.pipelines, device.memory.created, device.stream.bindGroups]).toEqual([
          pipelines,
          buffers,
          groups,
        ]);
      }
      const eager = scope(device, step);
      expect(await replay.result.z.read()).toEqual(await eager.z.read());
      expect(await replay.result.total.read()).toEqual(await eager.total.read());
      release(eager.z, eager.total);
    }
    for (const other of others) expect(Math.max(...(await other.read()))).toBe(0);
    release(replay.result.z, replay.result.total);
    replay.release();
    expect(() => replay.run()).toThrow(/released step/);
    release(x, w, ...others);
    await device.checkGuards();
  });

  it('may be a training step', async () => {
    const [x, w] = [random([4, 8]), random([8, 8], 1)];
    w.requiresGrad = true;
    const gradient = () => {
      clearGradient(w);
      backward(mean(square(linear(x, w))));
      return w.grad!;
    };
    const replay = capture(device, gradient);
    write(x, new HostRandom(randomKey(7, 'x')).normal(32));
    replay.run();
    const replayed = await replay.result.read();
    clearGradient(w);
    const again = scope(device, gradient);
    expect(replayed).toEqual(await again.read());
    clearGradient(w);
    replay.release();
    release(x, w);
  });

  it('refuses what a replay would not repeat', async () => {
    const x = random([4]);
    expect(() =>
      capture(device, () => {
        write(x, [1, 2, 3, 4]);
        return affine(x, 2);
      }),
    ).toThrow(/\[capture\] the body writes host values into a tensor made before it/);
    expect(() => capture(device, () => capture(device, () => affine(x, 2)))).toThrow(/captures do not nest/);
    const reading: Promise<unknown>[] = [];
    const replay = capture(device, () => {
      reading.push(x.read());
      return affine(x, 2);
    });
    await expect(reading[0]).rejects.toThrow(/\[capture\] the body reads values back/);
    release(replay.result);
    replay.release();
    const after = scope(device, () => affine(x, 2)); // the device works on
    expect((await after.read()).length).toBe(4);
    release(x, after);
  });

  it('keeps host values apart from memory that it works in', async () => {
    const x = tensor(device, [1, 2, 3, 4]);
    const replay = capture(device, () => {
      const total = scope(device, () => sum(square(matmul(reshape(x, [2, 2]), reshape(x, [2, 2])))));
      return { total, y: add(tensor(device, [10, 20, 30, 40]), x) }; // as large as what the scope has released
    });
    replay.run();
    expect([...(await replay.result.y.read())]).toEqual([11, 22, 33, 44]);
    const second = (overwrite: (values: Tensor) => void) => () =>
      capture(device, () => {
        const values = tensor(device, [1, 2]);
        overwrite(values);
        return affine(values, 1);
      });
    expect(second((values) => write(values, [3, 4]))).toThrow(
      /\[capture\] the body writes host values into a tensor that/,
    );
    expect(second((values) => device.stream.copy(x.window(), values.window(), 8))).toThrow(/\[capture\] a copy writes/);
    expect(second((values) => device.stream.clear(values.window()))).toThrow(/\[capture\] a clear writes/);
    expect(() =>
      capture(device, () => {
        const values = zeros(device, [2]);
        write(values, [1, 2]);
        return values;
      }),
    ).toThrow(/\[capture\] the body writes host values into a tensor that/);
    release(x, replay.result.total, replay.result.y);
    replay.release();
  });

  it('computes gradients that it leaves in leaves', async () => {
    const [x, w] = [tensor(device, [1, 2]), tensor(device, [3, 4])];
    w.requiresGrad = true;
    const replay = capture(device, () => {
      clearGradient(w);
      backward(sum(mul(w, x)));
    });
    for (const values of [
      [10, 20],
      [7, 8],
    ]) {
      write(x, values);
      replay.run();
      expect([...(await w.grad!.read())]).toEqual(values);
    }
    clearGradient(w);
    replay.release();
    release(x, w);
  });

  it('computes what was pending before it by itself', async () => {
    const x = tensor(device, [1, 2, 3, 4]);
    const y = affine(x, 10);
    const replay = capture(device, () => mul(y, y));
    write(x, [0, 0, 0, 0]);
    replay.run();
    expect([...(await replay.result.read())]).toEqual([100, 400, 900, 1600]);
    expect([...(await y.read())]).toEqual([10, 20, 30, 40]);
    release(x, y, replay.result);
    replay.release();
  });
});

describe('checkpoint', () => {
  const layers = 4;
  const parts = () => {
    const weights = Array.from({ length: layers }, (_, i) => random([32, 32], i));
    const x = random([16, 32], 9);
    for (const t of [...weights, x]) t.requiresGrad = true;
    return { weights, x };
  };
  const ones = () => [tensor(device, Array<number>(32).fill(1)), zeros(device, [32])] as const;

  const run = async (checkpointed: boolean) => {
    const { weights, x } = parts();
    const [one, zero] = ones();
    device.memory.resetPeak();
    const before = device.memory.live;
    scope(device, () => {
      let y = x;
      for (const w of weights) {
        const layer = (input: Tensor) => add(input, geluTanh(linear(layerNorm(input, one, zero), w)));
        y = checkpointed ? checkpoint(device, layer, [y]) : scope(device, () => layer(y));
      }
      backward(mean(square(y)));
    });
    const grads = await Promise.all([...weights, x].map((t) => t.grad!.read()));
    const peak = device.memory.peak - before;
    for (const t of [...weights, x]) clearGradient(t);
    release(...weights, x, one, zero);
    return { grads, peak };
  };

  it('gives the same gradients from less memory', async () => {
    const live = device.memory.live;
    const [plain, saved] = [await run(false), await run(true)];
    plain.grads.forEach((grad, i) =>
      grad.forEach((value, k) =>
        expect(Math.abs(value - saved.grads[i]![k]!)).toBeLessThanOrEqual(1e-6 * (1e-3 + Math.abs(value))),
      ),
    );
    expect(saved.peak).toBeLessThan(plain.peak);
    expect(device.memory.live).toBe(live);
  });

  it('gives no gradient to what is no input, and leaves its graph alone', async () => {
    const x = tensor(device, [2, 3]);
    x.requiresGrad = true;
    scope(device, () => {
      const outside = square(x);
      const other = affine(outside, 3);
      backward(
        sum(
          add(
            other,
            checkpoint(device, (a) => mul(a, outside), [x]),
          ),
        ),
      );
    });
    expect([...(await x.grad!.read())]).toEqual([6 * 2 + 2 ** 2, 6 * 3 + 3 ** 2]);
    clearGradient(x);
    release(x);
  });

  it('takes a body’s second result', async () => {
    const halves = operation<readonly [Tensor], object, readonly Tensor[]>({
      name: 'halves',
      shape: ([x]) => x.shape,
      forward: (_ctx, [x]) => [affine(x, 1), affine(x, 2)],
      backward: (_ctx, [first, second]) => [first ?? affine(second!, 2)],
    });
    const x = tensor(device, [2, 3]);
    x.requiresGrad = true;
    scope(device, () => backward(sum(checkpoint(device, (a) => apply(halves, [a], {})[1]!, [x]))));
    expect([...(await x.grad!.read())]).toEqual([2, 2]);
    clearGradient(x);
    release(x);
  });

  it('nests, and stores nothing where nothing wants a gradient', async () => {
    const x = tensor(device, [1, 2, 3, 4]);
    const frozen = scope(device, () => checkpoint(device, (a) => square(a), [x]));
    expect(frozen.node).toBeNull();
    x.requiresGrad = true;
    scope(device, () => {
      const inner = (a: Tensor) => checkpoint(device, (b) => square(b), [a]);
      backward(sum(checkpoint(device, (a) => affine(inner(a), 2), [x]))); // Σ 2 x²
    });
    expect([...(await x.grad!.read())]).toEqual([4, 8, 12, 16]);
    const untracked = noGrad(device, () => checkpoint(device, (a) => square(a), [x]));
    expect(untracked.node).toBeNull();
    clearGradient(x);
    release(x, frozen, untracked);
  });
});
