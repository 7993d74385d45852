/** Capture and replay of a step, checkpointing, and the dry run. */
import { beforeAll, describe, expect, it } from 'vitest';
import { backward, capture, checkpoint, clearGradient, HostRandom, noGrad, randomKey } from '../../engine/index.ts';
import { release, scope, tensor, wgsl, write, zeros } from '../../engine/index.ts';
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

  it('nests, and stores nothing where nothing wants a gradient', () => {
    const x = random([4]);
    const frozen = scope(device, () => checkpoint(device, (a) => square(a), [x]));
    expect(frozen.node).toBeNull();
    x.requiresGrad = true;
    const y = scope(device, () => {
      const inner = (a: Tensor) => checkpoint(device, (b) => square(b), [a]);
      backward(sum(checkpoint(device, (a) => affine(inner(a), 2), [x])));
      return x.grad!;
    });
    expect(noGrad(device, () => checkpoint(device, (a) => square(a), [x])).node).toBeNull();
    expect(y.shape).toEqual([4]);
    clearGradient(x);
  });
});
