import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { backward, noGrad, release, scope } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { ClipTextModel } from '../../diffusion/clip.ts';
import { loadClipText } from '../../diffusion/folder.ts';
import { plainDevice } from '../device.ts';
import { openNodeDevice, openNodeDryDevice } from '../../engine/node.ts';
import { square, sum } from '../../kernels/index.ts';
import { AdamW } from '../../nn/adamw.ts';
import { Arena } from '../../nn/arena.ts';

const goldens = new URL('../goldens/', import.meta.url).pathname;

let device: Device;
beforeAll(async () => {
  device = await plainDevice();
});

describe('CLIP text encoder', () => {
  it('has the parameters of Stable Diffusion 1', async () => {
    const model = ClipTextModel.fromConfig(await openNodeDryDevice(), {
      _name_or_path: 'openai/clip-vit-large-patch14',
      architectures: ['CLIPTextModel'],
      attention_dropout: 0.0,
      bos_token_id: 0,
      dropout: 0.0,
      eos_token_id: 2,
      hidden_act: 'quick_gelu',
      hidden_size: 768,
      initializer_factor: 1.0,
      initializer_range: 0.02,
      intermediate_size: 3072,
      layer_norm_eps: 1e-5,
      max_position_embeddings: 77,
      model_type: 'clip_text_model',
      num_attention_heads: 12,
      num_hidden_layers: 12,
      pad_token_id: 1,
      projection_dim: 768,
      torch_dtype: 'float32',
      transformers_version: '4.21.0.dev0',
      vocab_size: 49408,
    });
    const parameters = model.namedParameters();
    expect(parameters.size).toBe(196);
    expect([...parameters.values()].reduce((sum, { size }) => sum + size, 0)).toBe(123_060_480);
  });

  it('sees no later token, and pools at the first end mark', async () => {
    const model = await loadClipText(device, `${goldens}clip_text`); // end mark 999
    const read = async (ids: number[]) => {
      const { lastHidden, pooled, hiddenStates } = noGrad(device, () => scope(device, () => model.forward([ids])));
      const values = { hidden: await lastHidden.read(), pooled: await pooled.read(), states: hiddenStates.length };
      release(lastHidden, pooled, ...hiddenStates);
      return values;
    };
    const a = await read([998, 5, 6, 999, 7, 999]);
    const b = await read([998, 5, 6, 999, 8, 3]);
    expect(a.states).toBe(4); // embeddings and three layers
    expect(b.hidden.slice(0, 4 * 32)).toEqual(a.hidden.slice(0, 4 * 32));
    expect(b.hidden.slice(4 * 32)).not.toEqual(a.hidden.slice(4 * 32));
    expect(a.pooled).toEqual(a.hidden.slice(3 * 32, 4 * 32));
    model.release();
  });

  it('skips layers at the end', async () => {
    const model = await loadClipText(device, `${goldens}clip_text`);
    const encoding = noGrad(device, () => scope(device, () => model.forward([[998, 5, 999]])));
    expect(model.skipped(encoding, 0)).toBe(encoding.lastHidden);
    const before = noGrad(device, () => scope(device, () => model.skipped(encoding, 1)));
    expect(await before.read()).not.toEqual(await encoding.lastHidden.read());
    expect(() => model.skipped(encoding, 4)).toThrow('[clip] cannot skip 4 of 3 layers');
    release(before, encoding.lastHidden, encoding.pooled, ...encoding.hiddenStates);
    model.release();
  });

  it('runs and learns with a table of embeddings that no kernel can bind at once', async () => {
    const limited = await openNodeDevice({ bindingLimit: 65_536 }); // the table is 1,000 rows of 32: 125 KiB
    const steps = async (on: Device) => {
      const model = await loadClipText(on, `${goldens}clip_text`);
      const arena = new Arena({ model });
      const optimizer = new AdamW(arena, { maxNorm: 1 });
      for (let step = 0; step < 2; step++)
        scope(on, () => {
          backward(sum(square(model.forward([[998, 5, 700, 999]]).lastHidden)));
          optimizer.step(1e-2);
        });
      const learned = await model.text_model.embeddings.token_embedding.weight.read();
      const chunks = arena.chunks.length;
      optimizer.release();
      arena.release();
      model.release();
      return { learned, chunks };
    };
    const [whole, parts] = [await steps(device), await steps(limited)];
    expect(parts.chunks).toBeGreaterThan(whole.chunks);
    // The same sums, but the norm of the gradients is summed over other chunks.
    whole.learned.forEach((value, i) => expect(Math.abs(value - parts.learned[i]!)).toBeLessThan(1e-5));
    limited.destroy();
  });

  it('refuses ids and configurations that do not fit it', async () => {
    const model = await loadClipText(device, `${goldens}clip_text`);
    expect(() => model.forward([])).toThrow('[clip] texts must have one common length of 1 to 77 ids, not none');
    expect(() => model.forward([[1, 2], [1]])).toThrow('not 2, 1');
    expect(() => model.forward([Array<number>(78).fill(1)])).toThrow('not 78');
    expect(() => model.forward([[1, 1000]])).toThrow(
      "[clip] token id 1000 is not in this model's vocabulary, 0 to 999",
    );
    model.release();
    const json = JSON.parse(await readFile(`${goldens}clip_text/config.json`, 'utf8')) as Record<string, unknown>;
    const make = (changes: Record<string, unknown>) => () =>
      ClipTextModel.fromConfig(device, { ...json, ...changes }, 'clip.json');
    expect(make({ model_type: 'bert' })).toThrow('[config] clip.json: model_type: ');
    expect(make({ hidden_act: 'relu' })).toThrow('hidden_act: ');
    expect(make({ attention_dropout: 0.1 })).toThrow('attention_dropout is 0.1; supported is 0 only');
    expect(make({ num_attention_heads: 5 })).toThrow('32 channels cannot be divided among 5 attention heads');
    expect(make({ layers: 3 })).toThrow('option "layers" is not known');
  });
});
