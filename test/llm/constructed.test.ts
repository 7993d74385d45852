import { beforeAll, describe, expect, it } from 'vitest';
import type { Device } from '../../engine/index.ts';
import { findNeedles, inductionModel, needleText } from '../../llm/constructed.ts';
import type { InductionOptions } from '../../llm/constructed.ts';
import { plainDevice } from '../device.ts';

const VOCABULARY = 64;
const LENGTH = 4095;
const WINDOW = 128;
const BLOCK = 64;

describe('an induction head with written weights', () => {
  let device: Device;
  const given = needleText(LENGTH, { vocabulary: VOCABULARY, needles: 20, seed: 1 });
  beforeAll(async () => {
    device = await plainDevice();
  });
  const ask = async (second: InductionOptions['second'], tree: object = {}) => {
    const model = inductionModel(device, { vocabulary: VOCABULARY, context: LENGTH + 1, window: WINDOW, second, tree });
    const found = await findNeedles(model, given);
    model.release();
    return found;
  };
  /** Distances from the question to what follows the keys that were found. */
  const reached = (found: Awaited<ReturnType<typeof ask>>) =>
    found.filter(({ answer, value }) => answer === value).map(({ position }) => LENGTH - position - 1);

  it('finds needles at all of 20 depths in 4,096 tokens through a tree, as with full attention', async () => {
    const all = await ask('full');
    expect(reached(all)).toHaveLength(20);
    const tree = await ask('tree');
    expect(reached(tree)).toHaveLength(20);
    // Within some roundings: 1 where nothing but the value was found, over what the last norm divides a row of four ones by.
    const most = 1 / Math.sqrt(4 / (3 * VOCABULARY + 4) + 1e-6);
    for (const { margin } of [...all, ...tree]) expect(Math.abs(margin / most - 1)).toBeLessThan(2e-6);
  });

  it('needs a beam of one node only: nothing but the asked token adds to a summary', async () => {
    expect(reached(await ask('tree', { block: BLOCK, beam: 1 }))).toHaveLength(20);
  });

  it('finds nothing beyond its reach by windows alone', async () => {
    const distances = reached(await ask('window'));
    expect(distances).toEqual([1]);
    expect(given.needles.map(({ position }) => LENGTH - position - 1).filter((distance) => distance < WINDOW)).toEqual([1]); // prettier-ignore
  });
});

describe('needles', () => {
  it('are refused where they find no room', () => {
    expect(() => needleText(100, { vocabulary: 40, needles: 20, seed: 1 })).toThrow('more than 40 tokens');
  });
});
