import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { captionOf, isCat, loadWorld, makeWorld, spread, SUBJECTS } from '../../diffusion/world.ts';
import type { World, WorldPicture } from '../../diffusion/world.ts';

let cache: string;
let world: World;
beforeAll(async () => {
  cache = await mkdtemp(path.join(tmpdir(), 'world-'));
  world = await loadWorld(cache, { name: 'faces-and-animals', size: 64 });
});
afterAll(() => rm(cache, { recursive: true }));

describe('the world of faces and animals', () => {
  it('is divided as it was before any training', () => {
    expect(world.record).toEqual({
      world: 'faces-and-animals',
      size: 64,
      names: 340,
      training: 1758,
      heldOut: 200,
      subjects: { emojione: 11, 'noto-v1': 11, 'streamline-emojis': 11 },
      sets: {
        noto: 297,
        'noto-v1': 204,
        'fluent-emoji-flat': 287,
        'fluent-emoji': 292,
        twemoji: 305,
        emojione: 204,
        fxemoji: 0,
        'streamline-emojis': 169,
      },
      sha256: '160e99f98c04c313f16d16c43a88141478f71744328c53721e7575b7f2c0a83f',
    });
  });

  it('keeps three sets’ cats apart, all in the same eleven names', () => {
    const cats = (pictures: readonly WorldPicture[]) => pictures.filter(isCat);
    const names = (pictures: readonly WorldPicture[]) => pictures.map(({ name }) => name).sort();
    for (const subject of SUBJECTS) {
      expect(cats([...world.training, ...world.heldOut]).filter(({ set }) => set === subject)).toEqual([]);
      expect(cats(world.subjects[subject])).toEqual(world.subjects[subject]);
      expect(names(world.subjects[subject])).toEqual(names(world.subjects.emojione));
    }
    expect(cats(world.training).length).toBeGreaterThanOrEqual(40);
  });

  it('holds out pairs whose name other sets show, and whose set shows other names', () => {
    for (const { name, set } of world.heldOut) {
      const same = world.training.filter((one) => one.name === name);
      expect(new Set(same.map((one) => one.set)).size, name).toBeGreaterThanOrEqual(2);
      expect(same.map((one) => one.set)).not.toContain(set);
    }
    expect(new Set(world.heldOut.map(({ name }) => name)).size).toBe(200);
  });

  it('tells cats by the word', () => {
    expect(['cat', 'crying cat', 'cat face', 'catfish', 'bobcat face'].map((name) => isCat({ name }))).toEqual([
      true,
      true,
      true,
      false,
      false,
    ]);
  });

  it('spreads a part of the held-out pairs over all sets', () => {
    expect(new Set(spread(world.heldOut, 20).map(({ set }) => set)).size).toBeGreaterThan(5);
    expect(spread(world.heldOut, 1000)).toEqual(world.heldOut);
  });

  it('says the style where it is asked for', () => {
    const tabby = world.subjects.emojione.find(({ name }) => name === 'crying cat')!;
    expect([captionOf(tabby, false), captionOf(tabby, true)]).toEqual(['crying cat', 'crying cat, joy style']);
  });
});

it('a world too small for what is to be held out is refused', () => {
  const icons = [{ set: 'noto', name: 'bear', caption: 'bear', category: null }] as const;
  expect(() => makeWorld({ icons, pixels: new Uint8Array(48), size: 4 }, 'all')).toThrow(/only 0 of 200 pairs/);
});
