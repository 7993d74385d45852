import { cp, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backward, HostRandom, noGrad, randomKey, scope, write } from '../../engine/index.ts';
import { beginAs, chooseTrained, DreamBooth, modelHash } from '../../diffusion/dreambooth.ts';
import { loadStableDiffusion } from '../../diffusion/folder.ts';
import type { StableDiffusion } from '../../diffusion/folder.ts';
import { encode } from '../../diffusion/pipeline.ts';
import { plainDevice } from '../device.ts';

const WORD = 'x'; // a single token of the recorded pipeline's vocabulary

let model: StableDiffusion;
beforeAll(async () => {
  model = await loadStableDiffusion(await plainDevice(), 'test/goldens/pipeline');
});
afterAll(() => {
  for (const part of [model.unet, model.vae, model.textEncoder]) part.release();
});

it('a model is known by its weights, whichever name their files have', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'dreambooth-'));
  await cp(model.folder, folder, { recursive: true });
  const weights = path.join(folder, 'unet/diffusion_pytorch_model');
  await rename(`${weights}.safetensors`, `${weights}.fp16.safetensors`);
  expect(await modelHash({ ...model, folder })).toBe(await modelHash(model));
  await rename(path.join(folder, 'vae/diffusion_pytorch_model.safetensors'), `${weights}.fp16.safetensors`);
  await cp(path.join(model.folder, 'vae'), path.join(folder, 'vae'), { recursive: true });
  expect(await modelHash({ ...model, folder })).not.toBe(await modelHash(model));
  await rm(folder, { recursive: true });
});

describe('textual inversion', () => {
  it('trains one row of the table of tokens, whose gradient is that of the loss', async () => {
    const { device } = model.unet;
    const parts = chooseTrained(model, { unet: false, text: true, token: true }, WORD);
    const [[name, { first, size }]] = [...parts] as [[string, { first: number; size: number }]];
    expect(name).toBe('text_encoder.text_model.embeddings.token_embedding.weight');
    const wanted = [model.unet, model.vae, model.textEncoder].flatMap((part) =>
      [...part.namedParameters()].filter(([, { requiresGrad }]) => requiresGrad).map(([path]) => path),
    );
    expect(wanted).toEqual(['text_model.embeddings.token_embedding.weight']);
    const table = model.textEncoder.text_model.embeddings.token_embedding.weight;
    expect(first).toBe(model.tokenizer.tokenize(WORD)[0]! * table.shape[1]!);
    expect(size).toBe(table.shape[1]);

    const random = new HostRandom(randomKey(0, 'latents'));
    const latents = { mean: random.normal(4 * 8 * 8), deviation: new Float32Array(4 * 8 * 8).fill(0.1) };
    const task = new DreamBooth(model, [{ ids: encode(model, `a ${WORD} dog`), crops: [latents] }], [], {
      seed: 0,
      subjectBatch: 4,
      priorBatch: 0,
      priorWeight: 0,
    });
    scope(device, () => backward(task.loss(0).loss));
    const gradient = ((await table.grad!.read()) as Float32Array).slice(first, first + size);
    const values = ((await table.read()) as Float32Array).slice();
    const other = new HostRandom(randomKey(0, 'direction')).normal(size);
    for (const direction of [gradient, other]) {
      const unit = direction.map((value) => value / Math.hypot(...direction));
      const lossAt = (h: number) => {
        const moved = values.slice();
        unit.forEach((value, i) => (moved[first + i]! += h * value));
        write(table, moved);
        return noGrad(device, () => scope(device, () => task.loss(0).loss)).item();
      };
      const h = 0.1;
      const slope = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h);
      const expected = gradient.reduce((sum, value, i) => sum + value * unit[i]!, 0);
      // The loss is near 1.3, in steps of 1.2e-7: a few of them over 2h are 3e-6. The third derivative, from the slope at
      // h = 0.4, which is off by 1.4e-4, adds a sixteenth of that.
      expect(Math.abs(slope - expected)).toBeLessThan(1.5e-5);
      expect(Math.abs(expected)).toBeGreaterThan(1.5e-4);
    }
  });

  it('begins with the class, and leaves all other rows', async () => {
    const table = model.textEncoder.text_model.embeddings.token_embedding.weight;
    const before = ((await table.read()) as Float32Array).slice();
    const width = table.shape[1]!;
    const [row, like] = [model.tokenizer.tokenize(WORD)[0]!, model.tokenizer.tokenize('a dog')];
    expect(like.length).toBeGreaterThan(1);
    await beginAs(model, WORD, 'a dog');
    const after = (await table.read()) as Float32Array;
    const wanted = Float32Array.from(before, (value, i) =>
      Math.floor(i / width) === row
        ? like.reduce((sum, id) => sum + before[id * width + (i % width)]!, 0) / like.length
        : value,
    );
    expect([...after]).toEqual([...wanted]);
    write(table, before);
  });

  it('refuses a word of several tokens', () => {
    expect(() => chooseTrained(model, { unet: false, text: true, token: true }, 'sks')).toThrow(
      '[dreambooth] train.token trains one embedding, and "sks" is 2 tokens: choose a shorter word',
    );
  });
});
