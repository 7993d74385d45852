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

const UNTAUGHT = { selection: 0, dense: 0 };

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
    const whole = new NextTokenTask(model, packing, { seed: 0, batch: 4, accumulate: 1, ...UNTAUGHT });
    const parts = new NextTokenTask(model, packing, { seed: 0, batch: 1, accumulate: 4, ...UNTAUGHT });
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

describe('a model with a layer that has a tree', () => {
  const TREE = { block: 4, fanout: 2, beam: 2 };
  const json = (tree: object) => ({
    model_type: 'dawngrad',
    vocab_size: VOCABULARY,
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    max_position_embeddings: 64,
    layer_types: ['sliding_attention', 'tree_attention'],
    sliding_window: 8,
    no_rope: ['tree_attention'],
    tree: { ...TREE, ...tree },
  });
  const packing = new Packing(documents, { length: 64, alone: true });
  const make = (tree: object) => {
    const made = Transformer.fromConfig(device, json(tree));
    made.initialize(5);
    return made;
  };
  const options = { seed: 0, batch: 4, accumulate: 1, dense: 0 };
  const values = async (task: NextTokenTask, step = 0): Promise<Record<string, number>> => {
    const losses = scope(device, () => task.loss({ step, pass: 1 }));
    const read = Object.entries(losses).map(async ([name, loss]) => [name, (await loss.read())[0]!] as const);
    return Object.fromEntries(await Promise.all(read));
  };

  it('learns to select beside the next token, by a weight, and by the same bits for the same pass', async () => {
    const tree = make({});
    const task = (selection: number) => new NextTokenTask(tree, packing, { ...options, selection });
    const [none, once, twice] = [await values(task(0)), await values(task(1)), await values(task(2))];
    expect(Object.keys(none)).toEqual(['loss']);
    expect(once['selection']).toBeGreaterThan(0);
    expect(once['next_token']).toBe(none['loss']);
    expect(once['loss']).toBeCloseTo(once['next_token']! + once['selection']!, 5);
    expect(twice['loss']).toBeCloseTo(twice['next_token']! + 2 * twice['selection']!, 5);
    expect(await values(task(1))).toEqual(once);
    tree.release();
  });

  it('has the gradient of both, also where layers are computed again', async () => {
    const tree = make({});
    const gradientsOf = async (selection: number): Promise<Map<string, Float32Array>> => {
      const task = new NextTokenTask(tree, packing, { ...options, selection });
      scope(device, () => backward(task.loss({ step: 0, pass: 1 }).loss));
      const found = new Map<string, Float32Array>();
      for (const [name, parameter] of tree.namedParameters()) {
        found.set(name, (await parameter.grad!.read()) as Float32Array);
        clearGradient(parameter);
      }
      return found;
    };
    const [none, taught] = [await gradientsOf(0), await gradientsOf(1)];
    const moved = (name: string) => taught.get(name)!.some((g, i) => g !== none.get(name)![i]);
    for (const name of ['q_proj', 'k_proj']) expect(moved(`model.layers.1.self_attn.${name}.weight`), name).toBe(true);
    // What comes after the queries and keys of the last layer has no part in the selection.
    for (const name of ['v_proj', 'o_proj']) expect(moved(`model.layers.1.self_attn.${name}.weight`), name).toBe(false);
    tree.setCheckpointing(true);
    const again = await gradientsOf(1);
    for (const [name, gradient] of taught) expect(again.get(name), name).toEqual(gradient);
    tree.release();
  });

  it('sees all in its first steps where that is asked for, as with full attention', async () => {
    const tree = make({});
    const wide = make({ beam: 16 });
    const first = new NextTokenTask(tree, packing, { ...options, selection: 0, dense: 3 });
    const all = new NextTokenTask(wide, packing, { ...options, selection: 0 });
    const of = async (task: NextTokenTask, step: number) => (await values(task, step))['loss']!;
    expect(await of(first, 2)).toBeCloseTo(await of(all, 2), 5);
    expect(Math.abs((await of(first, 3)) - (await of(all, 3)))).toBeGreaterThan(1e-5);
    tree.release();
    wide.release();
  });

  it('is taught nothing where nodes are boxes, or texts are too short for a choice', async () => {
    const boxes = make({ summary: 'boxes' });
    expect(Object.keys(await values(new NextTokenTask(boxes, packing, { ...options, selection: 1 })))).toEqual(['loss']); // prettier-ignore
    const tree = make({});
    const short = new Packing(documents.slice(0, 1), { length: 64, alone: true });
    const losses = await values(new NextTokenTask(tree, short, { ...options, batch: 1, selection: 1 }));
    expect(losses['selection']).toBe(0);
    expect(losses['loss']).toBe(losses['next_token']);
    boxes.release();
    tree.release();
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
