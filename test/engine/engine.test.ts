import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  backward,
  clearGradient,
  empty,
  keep,
  noGrad,
  openDevice,
  preprocess,
  release,
  reshape,
  scope,
  tensor,
  Tensor,
  view,
  write,
  zeros,
} from '../../engine/index.ts';
import type { Device, DType, Host } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { Pool, sizeClass } from '../../engine/memory.ts';
import { add, affine, exp, mul, square, sum } from '../../kernels/index.ts';
import { plainDevice } from '../device.ts';

let device: Device;
beforeAll(async () => {
  device = await plainDevice();
});

describe('memory', () => {
  let before = 0;
  beforeAll(() => void (before = device.memory.live));
  afterEach(() => expect(device.memory.live, 'a test left memory behind').toBe(before));

  it('wastes at most a quarter, and keeps 64-byte granularity so that vec4 tails fit', () => {
    for (const bytes of [1, 256, 257, 1000, 1025, 4097, 1e6, 123456789]) {
      const size = sizeClass(bytes);
      expect(size).toBeGreaterThanOrEqual(bytes);
      expect(size).toBeLessThanOrEqual(Math.max(256, bytes * 1.25));
      expect(size % 64).toBe(0);
    }
  });

  it('gives released buffers out again', () => {
    const first = empty(device, [1000]);
    const { id } = first.storage.block;
    release(first);
    const second = empty(device, [1001]);
    expect(second.storage.block.id).toBe(id);
    release(second);
  });

  it('counts live and peak bytes by tag', () => {
    const x = empty(device, [64], 'f32', 'a test');
    const y = empty(device, [64], 'f32', 'a test');
    release(x);
    expect(device.memory.usage.get('a test')).toEqual({ live: 256, peak: 512 });
    release(y);
    expect(device.memory.usage.get('a test')).toEqual({ live: 0, peak: 512 });
  });

  it('refuses what the budget does not allow, naming tag and remedy, and loses nothing', () => {
    const { budget } = device.memory;
    device.memory.trim();
    device.memory.budget = device.memory.reserved + 1000;
    expect(() => empty(device, [1000], 'f32', 'moments')).toThrow(
      /more for moments would exceed the budget .* raise the budget/,
    );
    device.memory.budget = budget;
  });

  it('submits recorded work before it destroys the buffers that the work uses', async () => {
    const y = scope(device, () => affine(affine(tensor(device, [1, 2]), 2), 3));
    device.memory.trim();
    expect([...(await y.read())]).toEqual([6, 12]);
    release(y);
  });

  it('refuses a buffer over the adapter limit', () => {
    expect(() => empty(device, [2 ** 31])).toThrow(/largest buffer/);
  });

  it('ends the largest size class at the adapter limit', () => {
    expect(sizeClass(2049, 2500)).toBe(2500);
    expect(sizeClass(2049, 3000)).toBe(2560);
    const created: number[] = [];
    const gpu = { limits: { maxBufferSize: 2500 }, createBuffer: ({ size }: { size: number }) => created.push(size) };
    const pool = new Pool(gpu as unknown as GPUDevice);
    expect(pool.allocate(2400).block.bytes).toBe(2500);
    expect(() => pool.allocate(2501)).toThrow(/exceed this adapter's largest buffer/);
    expect(created).toEqual([2500]);
  });

  it('refuses to bind more than the adapter can, and works on', async ({ skip }) => {
    const { maxStorageBufferBindingSize: limit, maxBufferSize } = device.gpu.limits;
    if (limit > 2 ** 28 || limit === maxBufferSize) skip('this adapter binds more than a test should allocate');
    const x = empty(device, [1.25 * (limit / 4)]);
    expect(() => scope(device, () => sum(x))).toThrow(
      /\[reduce.*\] \(\d+,\) takes \d+\.\d MiB, more than the \d+\.\d MiB that can be bound at once here/,
    );
    write(x, new Float32Array(x.size)); // writing and copying need no binding
    release(x);
    device.memory.trim();
    const y = scope(device, () => affine(tensor(device, [1, 2]), 3));
    expect([...(await y.read())]).toEqual([3, 6]);
    release(y);
  });

  it('says when a released tensor is used', () => {
    const x = tensor(device, [1, 2]);
    release(x);
    expect(() => add(x, x)).toThrow(/\(2,\) is used after its release/);
    expect(() => release(x)).toThrow(/released more often/);
  });

  it('orders host writes after recorded work that still reads the old values', async () => {
    const x = tensor(device, [1, 2, 3]);
    const y = affine(x, 10);
    write(x, [4, 5, 6]);
    expect([...(await y.read())]).toEqual([10, 20, 30]);
    release(x, y);
  });
});

describe('scope', () => {
  it('releases all but what its result reaches', async () => {
    const before = device.memory.live;
    const result = scope(device, () => {
      const a = tensor(device, [1, 2]);
      const b = affine(a, 2);
      affine(b, 3);
      return { list: [add(a, b)] };
    });
    expect(device.memory.live - before).toBe(256);
    expect([...(await result.list[0]!.read())]).toEqual([3, 6]);
    release(...result.list);
    expect(device.memory.live).toBe(before);
  });

  it('passes results to the outer scope, and releases them when the body throws', () => {
    const before = device.memory.live;
    scope(device, () => void scope(device, () => tensor(device, [1])));
    expect(() =>
      scope(device, () => {
        scope(device, () => tensor(device, [1]));
        throw new Error('oh');
      }),
    ).toThrow('oh');
    expect(device.memory.live).toBe(before);
  });

  it('leaves kept tensors to their keeper', () => {
    const before = device.memory.live;
    const kept = scope(device, () => {
      const x = keep(tensor(device, [1]));
      return { x: null, of: () => x };
    });
    expect(device.memory.live - before).toBe(256);
    release(kept.of());
    expect(device.memory.live).toBe(before);
  });

  it('shows the first error, and releases the rest, where the body released what was the scope’s', () => {
    const before = device.memory.live;
    const wrong = (error: string | null) =>
      scope(device, () => {
        tensor(device, [1]);
        release(tensor(device, [2]));
        tensor(device, [3]);
        if (error) throw new Error(error);
      });
    expect(() => wrong('oh')).toThrow('oh');
    expect(() => wrong(null)).toThrow(/released more often/);
    expect(device.memory.live).toBe(before);
    expect(device.scope).toBeNull();
  });

  it('refuses an asynchronous body, as noGrad and withTag do', () => {
    const body = () => Promise.resolve(1);
    expect(() => scope(device, body)).toThrow(/\[scope\] the body must be synchronous/);
    expect(() => noGrad(device, body)).toThrow(/\[noGrad\] the body must be synchronous/);
    expect(() => device.memory.withTag('a test', body)).toThrow(/\[withTag\] the body must be synchronous/);
    expect(device.recording).toBe(true);
  });
});

describe('tensor', () => {
  it('round-trips every dtype', async () => {
    const values = [0, 1, 2, 65504, 5];
    for (const dtype of ['f32', 'f16', 'i32', 'u32'] as const) {
      const x = tensor(device, values, [5], { dtype });
      expect([...(await x.read())]).toEqual(values);
      release(x);
    }
  });

  it('says what is wrong with a shape', () => {
    expect(() => tensor(device, [1, 2], [3])).toThrow('[tensor] (3,) needs 3 values, got 2');
    expect(() => empty(device, [1.5])).toThrow(/whole numbers/);
    expect(() => empty(device, [70000, 70000])).toThrow(/more elements than/);
    const x = zeros(device, [128]);
    expect(() => view(x, 4, [1])).toThrow(/multiples of 256/);
    expect(() => view(x, 256, [65])).toThrow(/past the end/);
    expect(() => reshape(x, [3, -1])).toThrow('[reshape] (128,) does not fill (3, -1)');
    expect(() => reshape(x, [-2, -64])).toThrow(/whole numbers/);
    release(x);
  });

  // What programs without types give, as values of any type.
  it('says what it was given in place of a device, values, a shape or a tensor', () => {
    const given = (value: unknown) => value as never;
    const x = zeros(device, [2, 2]);
    expect(() => tensor(given([1, 2, 3]), given(undefined))).toThrow('[tensor] a device comes first');
    expect(() => tensor(given([1, 2, 3]), [3])).toThrow('[tensor] a device comes first');
    expect(() => tensor(device, given(5))).toThrow('[tensor] the data must be an array of numbers, not 5');
    for (const [value, dtype] of [
      [3e9, 'i32'],
      [1.5, 'i32'],
      [NaN, 'i32'],
      [-1, 'u32'],
    ] as const)
      // prettier-ignore
      expect(() => tensor(device, [0, value], [2], { dtype })).toThrow(`[tensor] element 1 is ${value}, which ${dtype}`);
    for (const shape of [undefined, [2, 2]])
      expect(() => tensor(device, given([[1, 2], [3, 4]]), shape)).toThrow('[tensor] the data are nested; give flat data and a shape'); // prettier-ignore
    expect(() => write(x, given([[1, 2], [3, 4]]))).toThrow('[write] the data are nested'); // prettier-ignore
    expect(() => tensor(device, [1, 2], given(2))).toThrow('[tensor] a shape is an array of extents, not 2');
    expect(() => empty(device, given(2))).toThrow('[empty] a shape is an array');
    expect(() => reshape(x, given(4))).toThrow('[reshape] a shape is an array');
    expect(() => add(x, given(1))).toThrow('[add] input 1 must be a tensor, not 1');
    expect(() => add(given(undefined), x)).toThrow('[add] input 0 must be a tensor, not undefined');
    release(x);
  });

  it('names the dtypes that there are', () => {
    const f64 = 'f64' as DType;
    expect(() => tensor(device, [1], [1], { dtype: f64 })).toThrow(
      '[tensor] f64 is no dtype: there are f32, f16, i32, u32, bf16, q8, q4',
    );
    expect(() => empty(device, [1], f64)).toThrow('[empty] f64 is no dtype');
  });

  it('reads zeros and empty tensors', async () => {
    const x = zeros(device, [2, 3]);
    const none = empty(device, [0, 3]);
    expect([...(await x.read())]).toEqual([0, 0, 0, 0, 0, 0]);
    expect((await none.read()).length).toBe(0);
    release(x, none);
  });
});

describe('tape', () => {
  const leaf = (values: number[]): Tensor => {
    const x = tensor(device, values);
    x.requiresGrad = true;
    return x;
  };
  const gradient = async (x: Tensor) => [...(await x.grad!.read())];

  it('adds the gradients of all uses, and of several backward passes', async () => {
    const x = leaf([1, 2, 3]);
    const loss = () => scope(device, () => sum(add(mul(x, x), affine(x, 5))));
    scope(device, () => backward(loss()));
    expect(await gradient(x)).toEqual([7, 9, 11]);
    scope(device, () => backward(loss()));
    expect(await gradient(x)).toEqual([14, 18, 22]);
    clearGradient(x);
    scope(device, () => backward(loss()));
    expect(await gradient(x)).toEqual([7, 9, 11]);
    clearGradient(x);
    release(x);
  });

  it('keeps the caller’s upstream apart from gradients', async () => {
    const x = leaf([1, 2]);
    const upstream = tensor(device, [3, 4]);
    scope(device, () => backward(reshape(add(x, zeros(device, [2])), [2]), upstream));
    write(upstream, [9, 9]);
    expect(await gradient(x)).toEqual([3, 4]);
    clearGradient(x);
    release(upstream, x);
  });

  it('writes into the place that an arena gives, and accumulates there', async () => {
    const before = device.memory.live;
    const arena = zeros(device, [128]);
    const x = leaf([1, 2, 3]);
    const y = leaf([1, 1, 1]);
    x.gradTarget = view(arena, 256, [3]);
    y.gradTarget = view(arena, 0, [3]);
    scope(device, () => backward(sum(mul(affine(x, 2), x))));
    scope(device, () => backward(sum(add(square(x), y)))); // add passes one gradient to both
    scope(device, () => backward(sum(y)));
    expect(x.grad).toBe(x.gradTarget);
    expect(await gradient(x)).toEqual([6, 12, 18]);
    expect(await gradient(y)).toEqual([2, 2, 2]);
    release(x.gradTarget, y.gradTarget, arena, x, y);
    expect(device.memory.live).toBe(before);
  });

  it('gives a leaf that is both operands its whole gradient', async () => {
    const arena = zeros(device, [64]);
    const x = leaf([3]);
    x.gradTarget = view(arena, 0, [1]);
    scope(device, () => backward(sum(add(x, x))));
    expect(await gradient(x)).toEqual([2]);
    release(x.gradTarget, arena, x);
  });

  it('stores nothing for frozen branches and under noGrad', () => {
    const frozen = tensor(device, [1, 2]);
    const x = leaf([1, 2]);
    const before = device.memory.live;
    const [a, b] = scope(device, () => [exp(exp(frozen)), noGrad(device, () => exp(exp(x)))]);
    expect([a.node, b.node]).toEqual([null, null]);
    for (const result of [a, b]) result.window(); // computes what is pending
    expect(device.memory.live - before).toBe(512);
    release(a, b, x, frozen);
  });

  it('releases saved tensors while it consumes them', () => {
    const x = leaf(Array<number>(64).fill(0.1));
    const before = device.memory.live;
    const loss = scope(device, () => {
      let y: Tensor = x;
      for (let i = 0; i < 20; i++) y = square(y);
      return sum(y);
    });
    expect(device.memory.live - before).toBeLessThanOrEqual(256 * 20); // 19 saved results at most, and the loss
    device.memory.resetPeak();
    backward(loss);
    expect(device.memory.peak - before).toBeLessThanOrEqual(256 * 25);
    release(loss);
    clearGradient(x);
    expect(device.memory.live).toBe(before);
    release(x);
  });

  it('lets go of a graph that nobody differentiates', () => {
    const x = leaf([1]);
    const before = device.memory.live;
    scope(device, () => void exp(exp(x)));
    expect(device.memory.live).toBe(before);
    release(x);
  });

  it('says when there is nothing to differentiate, twice, or no upstream', () => {
    const x = leaf([1, 2]);
    scope(device, () => {
      expect(() => backward(tensor(device, [1]))).toThrow(/does not depend on any tensor/);
      expect(() => backward(exp(x))).toThrow(/give the upstream gradient/);
      const loss = sum(exp(x));
      backward(loss);
      expect(() => backward(loss)).toThrow(/already differentiated/);
    });
    clearGradient(x);
    release(x);
  });

  it('differentiates through reshape', async () => {
    const x = leaf([1, 2, 3, 4]);
    scope(device, () => backward(sum(mul(reshape(x, [2, -1]), tensor(device, [10, 100]))))); // (2, 2) · (2,)
    expect(await gradient(x)).toEqual([10, 100, 10, 100]);
    expect(() => reshape(x, [3, 2])).toThrow(/has 4 elements/);
    clearGradient(x);
    release(x);
  });
});

describe('kernel text', () => {
  it('keeps what is asked for, and line numbers', () => {
    const text = '#if A\na $B\n#else\nc\n#endif\n#if !A\nd\n#endif\ne';
    expect(preprocess('k', text, { A: true, B: 3 }).split('\n')).toEqual(['', 'a 3', '', '', '', '', '', '', 'e']);
    expect(preprocess('k', text, {}).split('\n')).toEqual(['', '', '', 'c', '', '', 'd', '', 'e']);
  });

  it('says what is wrong and where', () => {
    expect(() => preprocess('k', 'a\n$B', {})).toThrow('[kernel] k.wgsl:2: $B is not defined');
    expect(() => preprocess('k', '#endif', {})).toThrow('k.wgsl:1: #endif without #if');
    expect(() => preprocess('k', '#if A', {})).toThrow('#if without #endif');
  });
});

describe('device', () => {
  it('works without immediates: parameters go through the uniform ring', async () => {
    const other = await openNodeDevice({ without: ['immediates', 'subgroups', 'f16'] });
    expect(other.profile).toMatchObject({ immediates: false, subgroupSize: 0, f16: false });
    const x = tensor(other, [1, 2, 3]);
    let y = x;
    for (let i = 0; i < 200; i++) y = affine(y, 1, i); // more dispatches than a batch holds
    expect([...(await y.read())]).toEqual([1, 2, 3].map((value) => value + (199 * 200) / 2));
    other.destroy();
  });

  it('does not open on an adapter that binds fewer buffers than kernels need', async () => {
    const adapter = { limits: { maxStorageBuffersPerShaderStage: 8 } };
    const gpu = { requestAdapter: () => Promise.resolve(adapter) } as unknown as GPU;
    const host: Host = { readText: () => Promise.resolve(''), wait: (promise) => promise, cores: 1 };
    await expect(openDevice(gpu, host)).rejects.toThrow(
      /lets a kernel bind 8 storage buffers \(maxStorageBuffersPerShaderStage\); 10 are needed/,
    );
  });

  it('is an error when lost, not a hang', async () => {
    const other = await openNodeDevice();
    const x = tensor(other, [1]);
    other.destroy();
    await expect(x.read()).rejects.toThrow(/the GPU device was lost .* resume from the last checkpoint/);
  });

  it('compiles nothing and creates neither buffers nor bind groups in a repeated step', async () => {
    const weights = [1, 2, 3].map(() => {
      const leaf = tensor(device, Array<number>(64).fill(0.5));
      leaf.requiresGrad = true;
      return leaf;
    });
    const step = () => {
      scope(device, () => {
        let x = tensor(device, Array<number>(64).fill(1));
        for (const weight of weights) x = exp(mul(add(x, weight), weight));
        backward(sum(x));
      });
      weights.forEach(clearGradient);
    };
    step();
    await device.drain();
    const made = () => [device.pipelines, device.memory.created, device.stream.bindGroups];
    const before = made();
    for (let i = 0; i < 10; i++) step();
    expect(made()).toEqual(before);
    release(...weights);
  });

  it('keeps no more bind groups than a driver bears, and works on when it forgets them', async () => {
    const tensors = Array.from({ length: 100 }, (_, i) => tensor(device, [i]));
    const before = device.stream.bindGroups;
    scope(device, () => tensors.forEach((x) => tensors.forEach((y) => scope(device, () => void add(x, y).window()))));
    expect(device.stream.bindGroups - before).toBeGreaterThanOrEqual(10_000); // more than are kept
    expect(device.stream.cachedBindGroups).toBeLessThanOrEqual(8192);
    const last = add(tensors[98]!, tensors[99]!);
    expect(await last.item()).toBe(197);
    release(last, ...tensors);
  });

  it('has garbage collected as bind groups are forgotten', () => {
    const collect = vi.spyOn(device.host, 'collect');
    const tensors = Array.from({ length: 200 }, (_, i) => tensor(device, [i]));
    scope(device, () => tensors.forEach((x) => tensors.forEach((y) => scope(device, () => void add(x, y).window()))));
    expect(collect.mock.calls.length).toBeGreaterThanOrEqual(4); // of 40,000, each 8192 at most
    collect.mockRestore();
    release(...tensors);
  });

  it('finds writes behind the end of a buffer', async () => {
    const other = await openNodeDevice({ guard: true });
    const x = tensor(other, [1, 2, 3]);
    await other.checkGuards();
    other.gpu.queue.writeBuffer(x.storage.block.raw, 16, new Uint32Array([7]));
    await expect(other.checkGuards()).rejects.toThrow(/wrote behind the end/);
    other.destroy();
  });
});
