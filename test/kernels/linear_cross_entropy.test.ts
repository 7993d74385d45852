/** What the fused head and loss is beyond its row of the table: the bits of the plain operations, in less memory. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { backward, HostRandom, randomKey, release, scope, tensor } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';
import { crossEntropy, linear, linearCrossEntropy } from '../../kernels/index.ts';
import { expectClose } from './row.ts';
import { guardedDevice } from '../device.ts';

let device: Device;
beforeAll(async () => void (device = await guardedDevice()));
afterAll(() => device.checkGuards());

const [ROWS, INNER, COLUMNS] = [300, 64, 1000];
const random = new HostRandom(randomKey(11, 'head'));
const values = { x: random.normal(ROWS * INNER), weight: random.normal(COLUMNS * INNER) };
const goals = Array.from({ length: ROWS }, (_, r) => (r % 7 === 0 ? -100 : random.below(COLUMNS)));

async function run(loss: (x: Tensor, weight: Tensor, targets: Tensor) => Tensor) {
  const before = device.memory.live;
  device.memory.resetPeak();
  const made = scope(device, () => {
    const x = tensor(device, values.x, [ROWS, INNER]);
    const weight = tensor(device, values.weight, [COLUMNS, INNER]);
    x.requiresGrad = weight.requiresGrad = true;
    const result = loss(x, weight, tensor(device, goals, [ROWS], { dtype: 'i32' }));
    backward(result, tensor(device, [3], []));
    return [result, x.grad!, weight.grad!];
  });
  const bytes = device.memory.peak - before;
  const read = await Promise.all(made.map((t) => t.read()));
  release(...made);
  return { loss: read[0]!, dx: read[1]!, dweight: read[2]!, bytes };
}

it('has the loss’s bits and the gradients of plain operations, in less memory', async () => {
  const plain = await run((x, weight, targets) => crossEntropy(linear(x, weight), targets));
  for (const rows of [1, 64, 1000]) {
    const fused = await run((x, weight, targets) =>
      linearCrossEntropy(x, weight, targets, { chunkBytes: rows * COLUMNS * 4 }),
    );
    expect(fused.loss).toEqual(plain.loss);
    for (const name of ['dx', 'dweight'] as const)
      expectClose(name, fused[name], { shape: [], data: Float64Array.from(plain[name]) }, 2e-6, []);
    if (rows < ROWS) expect(fused.bytes).toBeLessThan(plain.bytes / 2);
  }
});
