import { beforeAll, describe, expect, it } from 'vitest';
import { backward, clearGradient, HostRandom, randomKey, scope } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { recallAccuracy, recallLosses, recallModel, recallText, recoveredMass, RECALL_VOCABULARY, seeingWith, withTree } from '../../llm/recall.ts'; // prettier-ignore
import { plainDevice } from '../device.ts';

const LENGTH = 128;
const textsOf = (count: number) =>
  Array.from({ length: count }, (_, sample) => recallText(LENGTH, { pairs: 8, seed: 1, sample }));

describe('texts of associative recall', () => {
  it('tell each pair once before it is asked for, and the rest is filler', () => {
    for (const { ids, questions } of textsOf(20)) {
      expect(questions).toHaveLength(8);
      for (const { told, asked, value } of questions) {
        expect(told).toBeLessThan(LENGTH / 2);
        expect(asked).toBeGreaterThanOrEqual(LENGTH / 2);
        const key = ids[asked]!;
        expect([ids[told], ids[told + 1], ids[asked + 1]]).toEqual([key, value, value]);
        expect(ids.filter((id) => id === key)).toHaveLength(2);
      }
      expect(ids.filter((id) => id >= (RECALL_VOCABULARY / 3) * 2)).toHaveLength(LENGTH - 4 * 8);
    }
  });

  it('are the same by seed and sample, and refused where pairs find no room', () => {
    expect(textsOf(2)).toEqual(textsOf(2));
    expect(textsOf(2)[0]).not.toEqual(textsOf(2)[1]);
    expect(() => recallText(64, { pairs: 17, seed: 1, sample: 0 })).toThrow('1 to 16');
  });
});

describe('a model of associative recall', () => {
  let device: Device;
  beforeAll(async () => {
    device = await plainDevice();
  });

  it('has the loss of its questions’ values alone, and a gradient in every parameter', async () => {
    const model = await recallModel(device, 'tree', 256, 1);
    const texts = textsOf(2);
    const loss = scope(device, () => {
      const { answers } = recallLosses(model, texts);
      backward(answers);
      return answers;
    });
    let expected = 0;
    for (const { ids, questions } of texts) {
      const logits = scope(device, () => model.logits(model.forward([ids])));
      const scores = await logits.read();
      for (const { asked, value } of questions) {
        const own = Array.from(scores.subarray(asked * RECALL_VOCABULARY, (asked + 1) * RECALL_VOCABULARY));
        expected += Math.log(own.reduce((sum, score) => sum + Math.exp(score), 0)) - own[value]!;
      }
    }
    expect((await loss.read())[0]).toBeCloseTo(expected / 16, 4);
    for (const [name, parameter] of model.namedParameters()) {
      expect(
        (await parameter.grad!.read()).some((g) => g !== 0),
        name,
      ).toBe(true);
      clearGradient(parameter);
    }
    expect(await recallAccuracy(model, texts)).toBeLessThan(0.5); // it has learned nothing
    model.release();
  });

  it('can be taught to select, where it has a tree', async () => {
    const random = () => new HostRandom(randomKey(1, 'selection'));
    for (const second of ['tree', 'full'] as const) {
      const model = await recallModel(device, second, 256, 1);
      const read = async (dense: boolean) => {
        const losses = scope(device, () => recallLosses(model, textsOf(2), { random: random(), dense }));
        return [(await losses.answers.read())[0]!, losses.selection && (await losses.selection.read())[0]!] as const;
      };
      const [own, all] = [await read(false), await read(true)];
      if (second === 'full') expect([own, all[1]]).toEqual([all, null]);
      else {
        expect(own[1]).toBeGreaterThan(0);
        expect(all[1]).toBe(own[1]); // the last layer's queries and keys are the same
        expect(all[0]).not.toBe(own[0]);
      }
      model.release();
    }
  });

  it('recovers all of full attention’s mass where the beam takes all leaves, and less where not', async () => {
    const model = await recallModel(device, 'tree', 256, 1);
    const [text] = textsOf(1);
    const { tree, window } = model.config.layers[1]!;
    const all = await recoveredMass(model, text!, { ...tree!, beam: 64 }, window!);
    for (const { share, best, selected } of all) {
      expect(Math.abs(share - 1)).toBeLessThan(1e-12);
      expect(Math.abs(best - 1)).toBeLessThan(1e-12);
      expect(selected).toBe(true);
    }
    for (const { share, best, question } of await recoveredMass(model, text!, { ...tree!, beam: 1 }, window!)) {
      expect(share).toBeLessThan(1);
      expect(best).toBeGreaterThanOrEqual(share);
      // What a query of random weights sees is about as heavy as it is long.
      expect(share).toBeGreaterThan(16 / (question.asked + 1) / 4);
    }
    model.release();
  });

  it('can see with another tree, or with none', async () => {
    const model = await recallModel(device, 'tree', 256, 1);
    const { tree, window } = model.config.layers[1]!;
    const wide = await seeingWith(model, withTree(model.config.layers, { ...tree!, beam: 64 }, window));
    const full = await seeingWith(model, withTree(model.config.layers, null, null));
    const [{ ids }] = textsOf(1) as [ReturnType<typeof recallText>];
    const read = async (some: typeof model) => Array.from(await scope(device, () => some.forward([ids])).read());
    const [a, b, c] = [await read(wide), await read(full), await read(model)];
    const furthest = (x: number[], y: number[]) => Math.max(...x.map((value, i) => Math.abs(value - y[i]!)));
    expect(furthest(a, b)).toBeLessThan(2e-5); // of states of about 1, summed in another order
    expect(furthest(b, c)).toBeGreaterThan(1e-3);
    for (const some of [model, wide, full]) some.release();
  });
});
