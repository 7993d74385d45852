import { beforeAll, describe, expect, it } from 'vitest';
import { backward, capture, HostRandom, randomKey, release, scope, tensor, write } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { add, linear, mean, mul, square, sub, sum } from '../../kernels/index.ts';
import { AdamW } from '../../nn/adamw.ts';
import { Arena } from '../../nn/arena.ts';
import { ExponentialAverage } from '../../nn/ema.ts';
import { openSafetensors } from '../../nn/files.ts';
import { Module } from '../../nn/module.ts';
import { schedule } from '../../nn/schedule.ts';
import { plainDevice } from '../device.ts';

let device: Device;
beforeAll(async () => {
  device = await plainDevice();
});

/** A module with parameters of given shapes. */
class Parameters extends Module {
  constructor(shapes: Record<string, readonly number[]>) {
    super(device);
    for (const [name, shape] of Object.entries(shapes))
      (this as unknown as Record<string, Tensor>)[name] = this.parameter(name, shape, { normal: 1 });
  }
}
const read = async (t: Tensor) => (await t.read()) as Float32Array;
const values = async (map: ReadonlyMap<string, Tensor>) => {
  const found: Record<string, Float32Array> = {};
  for (const [name, t] of map) found[name] = await read(t);
  return found;
};

describe('Arena', () => {
  const shapes = { a: [3, 5], b: [1], c: [70, 2], d: [64] };

  it('keeps values, and puts windows at multiples of 256 bytes into chunks under the limit', async () => {
    const module = new Parameters(shapes);
    module.initialize(1);
    const before = await values(module.namedParameters());
    const arena = new Arena({ part: module }, { chunkBytes: 1024 });
    // a and b take 256 bytes each, c (560 bytes) 768: 1280 together, so c and d begin a chunk each
    expect(arena.chunks.map(({ names }) => names)).toEqual([
      ['part.a', 'part.b'],
      ['part.c', 'part.d'],
    ]);
    expect(await values(module.namedParameters())).toEqual(before);
    const moved = module.namedParameters();
    for (const [name, parameter] of arena.parameters) {
      expect(parameter).toBe(moved.get(name.slice('part.'.length)));
      expect(parameter.offset % 256).toBe(0);
    }
    arena.release();
    module.release();
  });

  it('leaves frozen parameters outside, and says so where nothing is left', () => {
    const [module, frozen] = [new Parameters(shapes), new Parameters(shapes)];
    frozen.setTrainable(false);
    const before = frozen.namedParameters().get('a');
    const arena = new Arena({ module, frozen });
    expect([...arena.parameters.keys()]).toEqual(['module.a', 'module.b', 'module.c', 'module.d']);
    expect(frozen.namedParameters().get('a')).toBe(before);
    expect(() => new Arena({ frozen })).toThrow('nothing to train');
    arena.release();
    module.release();
    frozen.release();
  });

  it('leaves parameters that train on without it, and modules that leave nothing behind', async () => {
    const before = device.memory.live;
    const module = new Parameters({ a: [3, 5] });
    module.initialize(1);
    const step = () => scope(device, () => backward(sum(module.namedParameters().get('a')!)));
    const arena = new Arena({ module });
    step();
    arena.release();
    const a = module.namedParameters().get('a')!;
    expect([a.grad, a.gradTarget]).toEqual([null, null]);
    step();
    expect([...(await read(a.grad!))]).toEqual(Array<number>(15).fill(1));
    module.release();
    expect(a.grad).toBeNull();
    expect(device.memory.live).toBe(before);
  });

  it('cuts a parameter beyond the limit into chunks of one buffer', async () => {
    const live = device.memory.live;
    const module = new Parameters(shapes);
    module.initialize(1);
    const before = await values(module.namedParameters());
    const arena = new Arena({ '': module }, { chunkBytes: 512 });
    expect(arena.chunks.map(({ names, parameters }) => [names.join(), parameters.size])).toEqual([
      ['a,b', 128],
      ['c', 128],
      ['c', 64], // 140 elements, padded to 192
      ['d', 64],
    ]);
    expect(await values(module.namedParameters())).toEqual(before);
    arena.release();
    module.release();
    expect(device.memory.live).toBe(live);
  });

  it('counts memory by what it is for', () => {
    const live = (tag: string) => device.memory.usage.get(tag)?.live ?? 0;
    const before = ['parameters', 'gradients', 'moments'].map(live);
    const module = new Parameters({ w: [1 << 16] });
    const arena = new Arena({ module });
    const optimizer = new AdamW(arena);
    const grown = ['parameters', 'gradients', 'moments'].map((tag, i) => live(tag) - before[i]!);
    expect(grown[1]).toBe(1 << 18);
    expect(grown[0]).toBeGreaterThanOrEqual(1 << 18);
    expect(grown[0]).toBeLessThan((1 << 18) + 1024); // with the tiles
    expect(grown[2]).toBeLessThan((1 << 19) + 1024); // with the segments
    optimizer.release();
    arena.release();
    module.release();
    expect(['parameters', 'gradients', 'moments'].map(live)).toEqual(before);
  });
});

describe('AdamW', () => {
  /** torch.optim.AdamW after clip_grad_norm_, in float64. */
  class Reference {
    step = 0;
    readonly m = new Map<string, Float64Array>();
    readonly v = new Map<string, Float64Array>();
    update(
      parameters: Record<string, Float64Array>,
      gradients: Record<string, Float64Array>,
      lr: number,
      maxNorm: number,
      group: (name: string) => { rate: number; decay: number },
    ): number {
      this.step++;
      const norm = Math.sqrt(Object.values(gradients).reduce((t, g) => t + g.reduce((s, x) => s + x * x, 0), 0));
      const clip = Math.min(1, maxNorm / (norm + 1e-6));
      for (const [name, p] of Object.entries(parameters)) {
        const m = this.m.get(name) ?? new Float64Array(p.length);
        const v = this.v.get(name) ?? new Float64Array(p.length);
        this.m.set(name, m);
        this.v.set(name, v);
        const { rate, decay } = group(name);
        for (let i = 0; i < p.length; i++) {
          const g = gradients[name]![i]! * clip;
          m[i] = 0.9 * m[i]! + 0.1 * g;
          v[i] = 0.99 * v[i]! + 0.01 * g * g;
          p[i]! *= 1 - lr * rate * decay;
          p[i]! -=
            ((lr * rate) / (1 - 0.9 ** this.step)) * (m[i]! / (Math.sqrt(v[i]! / (1 - 0.99 ** this.step)) + 1e-8));
        }
      }
      return norm;
    }
  }

  it('replays as a captured step what it does step by step', async () => {
    const run = async (replayed: boolean) => {
      const module = new Parameters({ w: [8, 8], b: [8] });
      module.initialize(5);
      const arena = new Arena({ '': module });
      const optimizer = new AdamW(arena, { maxNorm: 1 });
      const [x, y] = [tensor(device, new HostRandom(randomKey(1, 'x')).normal(32), [4, 8]), tensor(device, new Float32Array(32), [4, 8])]; // prettier-ignore
      const step = (rate: number) => {
        const [w, b] = ['w', 'b'].map((name) => arena.parameters.get(name)!) as [Tensor, Tensor];
        backward(sum(square(sub(linear(x, w, b), y))));
        return optimizer.step(rate);
      };
      const rates = [0.1, 0.05, 0.2, 0.01];
      if (replayed) {
        const replay = capture(device, () => step(rates[0]!));
        for (const rate of rates.slice(1)) {
          optimizer.advance(rate);
          replay.run();
        }
        release(replay.result);
        replay.release();
      } else for (const rate of rates) scope(device, () => void step(rate));
      const result = await values(arena.parameters);
      for (const part of [optimizer, arena, module]) part.release();
      release(x, y);
      return result;
    };
    expect(await run(true)).toEqual(await run(false));
  });

  it.each([
    [36_096, 3],
    [16_384, 5],
  ])(
    'is PyTorch’s over several steps, chunks of %i bytes, groups and gradients that do not come',
    async (bytes, chunks) => {
      const shapes = { a: [5, 7], b: [3], c: [9000], never: [10] };
      const module = new Parameters(shapes);
      module.initialize(3);
      const arena = new Arena({ '': module }, { chunkBytes: bytes });
      expect(arena.chunks.length).toBe(chunks);
      const group = (name: string) => ({ rate: name === 'b' ? 0.1 : 1, decay: name === 'c' ? 0 : 0.05 });
      const optimizer = new AdamW(arena, { betas: [0.9, 0.99], weightDecay: 0.05, maxNorm: 2, group });
      const expected: Record<string, Float64Array> = {};
      for (const [name, value] of Object.entries(await values(arena.parameters)))
        expected[name] = Float64Array.from(value);
      const reference = new Reference();
      const random = new HostRandom(randomKey(4, 'targets'));
      for (let step = 0; step < 6; step++) {
        // loss = Σ (p · t)² of each parameter; in odd steps b has none
        const targets = Object.fromEntries(
          ['a', 'b', 'c'].map((name) => [name, random.normal(arena.parameters.get(name)!.size).map((x) => 0.1 * x)]),
        );
        const used = step % 2 === 1 ? ['a', 'c'] : ['a', 'b', 'c'];
        const norm = scope(device, () => {
          const losses = used.map((name) => {
            const p = arena.parameters.get(name)!;
            return sum(square(mul(p, tensor(device, targets[name]!, p.shape))));
          });
          backward(losses.reduce((x, y) => add(x, y)));
          return optimizer.step(0.01 * (step + 1));
        });
        const gradients = Object.fromEntries(
          Object.entries(expected).map(([name, p]) => [
            name,
            p.map((x, i) => (used.includes(name) ? 2 * x * targets[name]![i]! ** 2 : 0)),
          ]),
        );
        const expectedNorm = reference.update(expected, gradients, 0.01 * (step + 1), 2, group);
        const [squares, strange] = await read(norm);
        norm.storage.drop();
        expect(strange).toBe(0);
        expect(Math.abs(Math.sqrt(squares!) / expectedNorm - 1)).toBeLessThan(1e-5);
      }
      const got = await values(arena.parameters);
      // Adam divides by √v, so where g is tiny its relative error in f32 moves the parameter by that share of the rate.
      for (const name of Object.keys(shapes))
        got[name]!.forEach((x, i) => expect(Math.abs(x - expected[name]![i]!)).toBeLessThan(2e-6));
      optimizer.release();
      arena.release();
      module.release();
    },
  );

  it('changes the part of a parameter that it is told to, by that part’s norm', async () => {
    const table = { first: 24, size: 8 }; // two rows of four
    const run = async (shapes: Record<string, readonly number[]>, options: ConstructorParameters<typeof Arena>[1]) => {
      const module = new Parameters(shapes);
      module.initialize(1);
      const t = module.namedParameters().get('table')!;
      if (t.size === table.size) write(t, (await initial()).slice(table.first, table.first + table.size));
      const arena = new Arena({ module }, options);
      const optimizer = new AdamW(arena, { weightDecay: 0.1, maxNorm: 1 });
      const norms: number[] = [];
      for (let step = 0; step < 3; step++) {
        scope(device, () => backward(sum(square(arena.parameters.get('module.table')!))));
        const norm = optimizer.step(0.1);
        norms.push((await read(norm))[0]!);
        release(norm);
      }
      const after = (await read(arena.parameters.get('module.table')!)).slice();
      optimizer.release();
      arena.release();
      module.release();
      return { after, norms };
    };
    const initial = async () => {
      const module = new Parameters({ table: [70, 4] });
      module.initialize(1);
      const values = (await read(module.namedParameters().get('table')!)).slice();
      module.release();
      return values;
    };
    const before = await initial();
    const alone = await run({ table: [2, 4] }, {});
    for (const chunkBytes of [Infinity, 256]) {
      const { after, norms } = await run({ table: [70, 4] }, { chunkBytes, parts: new Map([['module.table', table]]) });
      expect(norms).toEqual(alone.norms);
      before.set(alone.after, table.first);
      expect(after).toEqual(before);
    }
  });

  it('refuses parts that are none', () => {
    const module = new Parameters({ a: [3, 4] });
    const arena = (name: string, first: number, size: number) => () =>
      new Arena({ module }, { parts: new Map([[name, { first, size }]]) });
    expect(arena('module.b', 0, 4)).toThrow('[arena] a part of module.b is to be trained, which is no parameter');
    for (const [first, size] of [
      [2, 4],
      [4, 3],
      [8, 8],
      [0, 0],
    ] as const)
      expect(arena('module.a', first, size)).toThrow(
        `[arena] the part of module.a must be some of its 12 elements, in multiples of four, not ${size} from ${first} on`,
      );
    module.release();
  });

  it('takes PyTorch’s recorded first step from its recorded gradients', async () => {
    const folder = new URL('../goldens/', import.meta.url).pathname;
    const outputs = await openSafetensors(`${folder}dreambooth/outputs.safetensors`);
    const weights = await openSafetensors(`${folder}pipeline/unet/diffusion_pytorch_model.safetensors`);
    const names = [...outputs.tensors.keys()]
      .filter((name) => name.startsWith('step1.clipped_grad.'))
      .map((name) => name.slice('step1.clipped_grad.'.length));
    const module = new Parameters(Object.fromEntries(names.map((name) => [name, weights.info(name).shape])));
    await module.load({
      name: 'some of the UNet',
      tensors: new Map(names.map((name) => [name, weights.info(name)])),
      floats: (name) => weights.floats(name),
    });
    const arena = new Arena({ '': module });
    const optimizer = new AdamW(arena, { maxNorm: 1 }); // these alone are below 1: they are not clipped again
    for (const [name, parameter] of arena.parameters) {
      write(parameter.gradTarget!, await outputs.floats(`step1.clipped_grad.${name}`));
      parameter.grad = parameter.gradTarget;
    }
    scope(device, () => optimizer.step(1e-3));
    let compared = 0;
    for (const [name, parameter] of arena.parameters) {
      const [before, after, got] = [
        await weights.floats(name),
        await outputs.floats(`step1.${name}`),
        await read(parameter),
      ];
      let difference = 0;
      let update = 0;
      got.forEach((value, i) => {
        difference += (value - after[i]!) ** 2;
        update += (after[i]! - before[i]!) ** 2;
        compared++;
      });
      // one rounding of the parameter, 6e-8 of it, against an update of 1e-3
      expect(Math.sqrt(difference / update), name).toBeLessThan(2e-4);
    }
    expect(compared).toBeGreaterThan(500);
    optimizer.release();
    arena.release();
    module.release();
    await outputs.close();
    await weights.close();
  });

  it('skips a step whose gradients are not finite, and goes on', async () => {
    const module = new Parameters({ w: [100] });
    module.initialize(1);
    const arena = new Arena({ '': module });
    const optimizer = new AdamW(arena);
    const w = arena.parameters.get('w')!;
    const before = await read(w);
    const step = (factor: number) =>
      scope(device, () => {
        const factors = new Float32Array(100).fill(1);
        factors[42] = factor;
        backward(mean(square(mul(w, tensor(device, factors)))));
        return optimizer.step(0.1);
      });
    const bad = step(1e30); // (1e30 w)² overflows
    expect((await read(bad))[1]).toBe(1);
    expect(await read(w)).toEqual(before);
    expect((await read(optimizer.first[0]!)).every((x) => x === 0)).toBe(true);
    const good = step(1);
    expect((await read(good))[1]).toBe(0);
    expect((await read(w)).every((x, i) => x !== before[i] && Number.isFinite(x))).toBe(true);
    for (const norm of [bad, good]) norm.storage.drop();
    optimizer.release();
    arena.release();
    module.release();
  });
});

describe('ExponentialAverage', () => {
  it('follows the parameters, and swaps exactly', async () => {
    const module = new Parameters({ w: [33] });
    module.initialize(1);
    const arena = new Arena({ '': module });
    const average = new ExponentialAverage(arena, 0.9);
    const w = arena.parameters.get('w')!;
    const expected = Float64Array.from(await read(w));
    for (let n = 0; n < 100; n++) {
      const next = new HostRandom(randomKey(n, 'w')).normal(33);
      write(w, next);
      average.update();
      const decay = Math.min(0.9, (1 + n) / (10 + n));
      next.forEach((x, i) => (expected[i]! += (1 - decay) * (x - expected[i]!)));
    }
    const parameters = await read(w);
    average.swap();
    (await read(w)).forEach((x, i) => expect(Math.abs(x - expected[i]!)).toBeLessThan(2e-6));
    average.swap();
    expect(await read(w)).toEqual(parameters);
    average.release();
    arena.release();
    module.release();
  });
});

describe('schedule', () => {
  it('rises, and falls as asked', () => {
    const of = (options: object) => schedule({ kind: 'constant', rate: 2, steps: 100, ...options });
    expect([0, 50, 99].map(of({}))).toEqual([2, 2, 2]);
    expect([0, 1, 3, 4, 99].map(of({ warmup: 4 }))).toEqual([0.5, 1, 2, 2, 2]);
    expect([0, 50, 75, 100].map(of({ kind: 'linear' }))).toEqual([2, 1, 0.5, 0]);
    expect([10, 55, 100].map(of({ kind: 'linear', warmup: 10, floor: 0.5 }))).toEqual([2, 1.5, 1]);
    const cosine = of({ kind: 'cosine', floor: 0.1 });
    expect(cosine(0)).toBe(2);
    expect(cosine(50)).toBeCloseTo(1.1, 12);
    expect(cosine(100)).toBeCloseTo(0.2, 12);
    expect(() => of({ warmup: 101 })).toThrow('warmup must be from 0 to the run’s 100 steps'.replace('’', "'"));
    expect(() => of({ rate: 0 })).toThrow('must be positive');
  });
});
