import { beforeAll, describe, expect, it } from 'vitest';
import { backward, clearGradient, HostRandom, randomKey, scope } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { Transformer } from '../../llm/model.ts';
import { Packing } from '../../llm/packing.ts';
import { nextTokenLoss } from '../../llm/training.ts';
import { plainDevice } from '../device.ts';

const VOCABULARY = 50;
const random = new HostRandom(randomKey(0, 'documents'));
const documents = [70, 5, 33, 34, 97, 2, 20].map((length) =>
  Int32Array.from({ length }, () => random.below(VOCABULARY)),
);
const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

describe('packing', () => {
  it('has every token behind the first as a target once, with what is before it in the same document', () => {
    const packing = new Packing(documents, { length: 64 });
    const { ids, targets, positions } = packing.batch(numbers(packing.count));
    const found: string[] = [];
    let run: number[] = [];
    targets.forEach((target, i) => {
      if (positions[i] === 0 || target === -100) run = [];
      if (target === -100) return;
      run.push(ids[i]!);
      expect(positions[i]).toBe(run.length - 1);
      found.push(`${run.join(' ')} > ${target}`);
    });
    const expected = documents.flatMap((tokens) =>
      [...tokens.subarray(1)].map((target, i) => {
        const begin = Math.floor(i / 64) * 64; // of the piece
        return `${tokens.subarray(begin, i + 1).join(' ')} > ${target}`;
      }),
    );
    expect(found.toSorted()).toEqual(expected.toSorted());
    expect(packing.tokens).toBe(expected.length);
    // 64 + 32, 32 | 32, 32 + 64 | 64 + 64 | 32, 32 in blocks: the least number of sequences that hold them
    expect(packing.count).toBe(Math.ceil((64 + 32 + 32 + 32 + 64 + 64 + 32 + 32 + 32) / 64));
  });

  it('lets a block see the blocks of its own document up to itself', () => {
    const packing = new Packing([new Int32Array(70), new Int32Array(30)], { length: 96 });
    const { visible, targets } = packing.batch([0]);
    expect(packing.count).toBe(2); // 70 tokens have 69 targets: three blocks
    expect(visible).toBeNull();
    expect(targets.filter((target) => target !== -100).length).toBe(69);
    const shared = new Packing([new Int32Array(40), new Int32Array(30)], { length: 96 }).batch([0]);
    expect([...shared.visible!]).toEqual([0, 3, 3, 0, 1, 3, 2, 3, 3]);
    expect([...shared.positions.subarray(60, 70)]).toEqual([0, 0, 0, 0, 0, 1, 2, 3, 4, 5]);
  });

  it('puts no two into one sequence where that is asked for', () => {
    const packing = new Packing(documents, { length: 64, alone: true });
    expect(packing.count).toBe(9); // two documents are cut
    expect(packing.batch(numbers(9)).visible).toBeNull();
  });

  it('takes larger blocks for long sequences', () => {
    expect(new Packing(documents, { length: 131_072 }).block).toBe(512);
    expect(new Packing(documents, { length: 8192 }).block).toBe(32);
  });

  it.each([0, 31, 100, 64.5])('refuses sequences of %d tokens', (length) => {
    expect(() => new Packing(documents, { length })).toThrow('it must be a multiple of 32');
  });
});

describe('a packed batch', () => {
  let device: Device;
  beforeAll(async () => {
    device = await plainDevice();
  });

  const config = {
    model_type: 'dawngrad',
    vocab_size: VOCABULARY,
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    max_position_embeddings: 128,
    layer_types: ['sliding_attention', 'full_attention'],
    sliding_window: 24,
    tie_word_embeddings: true,
  };
  const make = (changes: object = {}) => {
    const model = Transformer.fromConfig(device, { ...config, ...changes });
    model.initialize(3);
    return model;
  };

  /** The loss and all gradients, of batches weighed by their targets. */
  async function measure(model: Transformer, batches: readonly ReturnType<Packing['batch']>[]) {
    const parameters = [...model.namedParameters()];
    const sums = new Map(parameters.map(([name, { size }]) => [name, new Float64Array(size)]));
    let [total, count] = [0, 0];
    for (const batch of batches) {
      const targets = batch.targets.filter((target) => target !== -100).length;
      const loss = scope(device, () => {
        const loss = nextTokenLoss(model, batch);
        backward(loss);
        return loss;
      });
      total += (await loss.read())[0]! * targets;
      count += targets;
      for (const [name, parameter] of parameters) {
        const gradient = await parameter.grad!.read();
        sums.get(name)!.forEach((_, i, all) => (all[i]! += gradient[i]! * targets));
        clearGradient(parameter);
      }
    }
    return {
      loss: total / count,
      gradients: new Map([...sums].map(([name, sum]) => [name, sum.map((g) => g / count)])),
    };
  }

  it('has the loss and the gradients of its documents one by one', async () => {
    const model = make();
    const packing = new Packing(documents, { length: 96 });
    const packed = packing.batch(numbers(packing.count));
    expect(packed.visible).not.toBeNull();
    const together = await measure(model, [packed]);
    const single = documents.map((document) => new Packing([document], { length: 128 }).batch([0]));
    // The longest is longer than a sequence: as its two pieces.
    const pieces = [documents[4]!.subarray(0, 97), documents[4]!.subarray(96)];
    single.splice(
      4,
      1,
      ...pieces.filter(({ length }) => length > 1).map((piece) => new Packing([piece], { length: 128 }).batch([0])),
    );
    const apart = await measure(model, single);
    // Sums of 254 targets' terms in f32, in another order: 2^-24 times the square root of their number, with room.
    expect(Math.abs(together.loss - apart.loss)).toBeLessThan(1e-6 * apart.loss);
    for (const [name, expected] of apart.gradients) {
      const largest = expected.reduce((most, g) => Math.max(most, Math.abs(g)), 0);
      const error = together.gradients.get(name)!.reduce((most, g, i) => Math.max(most, Math.abs(g - expected[i]!)), 0);
      expect(largest, name).toBeGreaterThan(0);
      expect(error, name).toBeLessThan(2e-5 * largest);
    }
    model.release();
  });

  it('is not the same without the documents: the check can fail', async () => {
    const model = make();
    const packing = new Packing(documents, { length: 96 });
    const packed = packing.batch(numbers(packing.count));
    const [right, wrong] = [await measure(model, [packed]), await measure(model, [{ ...packed, visible: null }])];
    expect(Math.abs(right.loss - wrong.loss)).toBeGreaterThan(1e-4);
    model.release();
  });

  it('is refused by layers that look at the beginning of a sequence', () => {
    const model = make({ attention_sinks: 2 });
    const batch = new Packing(documents, { length: 96 }).batch([0, 1, 2, 3]);
    expect(() => scope(device, () => nextTokenLoss(model, batch))).toThrow(/sinks.*pack them alone/);
    model.release();
  });
});
