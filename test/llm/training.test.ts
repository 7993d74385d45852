import { beforeAll, describe, expect, it } from 'vitest';
import { backward, clearGradient, HostRandom, randomKey, scope } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { Transformer } from '../../llm/model.ts';
import { Packing } from '../../llm/packing.ts';
import { countingLosses, heldOutLoss, nextTokenLoss, NextTokenTask } from '../../llm/training.ts';
import { plainDevice } from '../device.ts';

const VOCABULARY = 40;
const random = new HostRandom(randomKey(1, 'documents'));
const documents = Array.from({ length: 9 }, (_, i) => Int32Array.from({ length: 10 + 9 * i }, () => random.below(VOCABULARY))); // prettier-ignore

let device: Device;
let model: Transformer;
beforeAll(async () => {
  device = await plainDevice();
  model = Transformer.fromConfig(device, {
    model_type: 'llama',
    vocab_size: VOCABULARY,
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    max_position_embeddings: 64,
  });
  model.initialize(5);
  return () => model.release();
});

/** The gradients of all parameters after these passes. */
async function gradients(passes: readonly (() => void)[]): Promise<Map<string, Float32Array>> {
  for (const pass of passes) pass();
  const found = new Map<string, Float32Array>();
  for (const [name, parameter] of model.namedParameters()) {
    found.set(name, (await parameter.grad!.read()) as Float32Array);
    clearGradient(parameter);
  }
  return found;
}

function expectClose(a: Map<string, Float32Array>, b: Map<string, Float32Array>): void {
  for (const [name, expected] of a) {
    const largest = expected.reduce((most, g) => Math.max(most, Math.abs(g)), 0);
    expect(largest, name).toBeGreaterThan(0);
    b.get(name)!.forEach((g, i) => {
      // Sums of some 250 terms in f32 in another order.
      if (!(Math.abs(g - expected[i]!) <= 2e-5 * largest)) expect(g, `${name} ${i}`).toBe(expected[i]);
    });
  }
}

describe('the next token task', () => {
  it('accumulates the gradient of the mean over all targets, however they are spread', async () => {
    const packing = new Packing(documents, { length: 64 });
    const perPass = [0, 1, 2, 3].map((i) => packing.targets(i));
    expect(new Set(perPass).size).toBeGreaterThan(1);
    const whole = new NextTokenTask(model, packing, { seed: 0, batch: 4, accumulate: 1 });
    const parts = new NextTokenTask(model, packing, { seed: 0, batch: 1, accumulate: 4 });
    const at = (task: NextTokenTask, step: number, pass: number) => () =>
      scope(device, () => backward(task.loss({ step, pass }).loss));
    const together = await gradients([at(whole, 1, 1)]);
    const apart = await gradients([4, 5, 6, 7].map((pass) => at(parts, 1, pass)));
    // The trainer takes the mean over the passes.
    expectClose(together, new Map([...apart].map(([name, sum]) => [name, sum.map((g) => g / 4)])));
  });

  it('gives the same bits where layers are computed again in the backward pass', async () => {
    const packing = new Packing(documents, { length: 64 });
    const batch = packing.batch(Array.from({ length: packing.count }, (_, i) => i));
    expect(batch.visible).not.toBeNull();
    const run = () => scope(device, () => backward(nextTokenLoss(model, batch)));
    const kept = await gradients([run]);
    model.setCheckpointing(true);
    const again = await gradients([run]);
    model.setCheckpointing(false);
    for (const [name, gradient] of kept) expect(again.get(name), name).toEqual(gradient);
  });

  it('is measured by the same loss, in batches of any size', async () => {
    const packing = new Packing(documents, { length: 64 });
    const all = Array.from({ length: packing.count }, (_, i) => i);
    const loss = scope(device, () => nextTokenLoss(model, packing.batch(all)));
    const expected = (await loss.read())[0]!;
    for (const batch of [1, 4, 100]) expect(Math.abs((await heldOutLoss(model, packing, batch)) / expected - 1)).toBeLessThan(1e-6); // prettier-ignore
  });
});

describe('counting', () => {
  it('gives the unigram entropy and longer n-grams, interpolated', () => {
    // After 0: 1, 1, 2. Targets 1, 1, 2, 2 in all, of two kinds.
    const training = [[0, 1], [0, 1], [0, 2, 2]].map((tokens) => Int32Array.from(tokens)); // prettier-ignore
    const heldOut = [Int32Array.from([0, 1, 3])];
    const one = (count: number) => (count + 2 / 4) / (4 + 2);
    const afterZero = (2 + 2 * one(2)) / (3 + 2);
    const [unigrams, bigrams] = countingLosses(training, heldOut, { order: 2, vocabulary: 4 });
    expect(unigrams).toBeCloseTo(-(Math.log(one(2)) + Math.log(one(0))) / 2, 12);
    // 1 was never followed by anything: what unigrams say.
    expect(bigrams).toBeCloseTo(-(Math.log(afterZero) + Math.log(one(0))) / 2, 12);
  });
});
