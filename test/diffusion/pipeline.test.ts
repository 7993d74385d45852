import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { affine } from '../../kernels/index.ts';
import { noGrad, release, scope, tensor } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { loadStableDiffusion, loadUNet, saveStableDiffusion } from '../../diffusion/folder.ts';
import type { StableDiffusion } from '../../diffusion/folder.ts';
import { decodeLatents, generate } from '../../diffusion/pipeline.ts';
import type { GenerateOptions } from '../../diffusion/pipeline.ts';
import { openSafetensors } from '../../nn/files.ts';
import { plainDevice } from '../device.ts';
import { heldBytes } from './helpers.ts';

const source = new URL('../goldens/pipeline', import.meta.url).pathname;

let device: Device;
let model: StableDiffusion;
let temporary: string;
beforeAll(async () => {
  device = await plainDevice();
  model = await loadStableDiffusion(device, source);
  temporary = await mkdtemp(path.join(tmpdir(), 'dawngrad-pipeline-'));
});
afterAll(async () => {
  for (const part of [model.unet, model.vae, model.textEncoder]) part.release();
  await rm(temporary, { recursive: true });
});

const draw = (options: Partial<GenerateOptions>) =>
  generate(model, { prompts: ['a dog', 'a cat', 'a dog'], seeds: [1, 1, 2], steps: 3, scale: 4, ...options });

describe('generate', () => {
  it('gives a prompt and seed the same bits, however they are batched', async () => {
    const before = heldBytes(device);
    const steps: [number, number][] = [];
    const pictures = await draw({ onStep: (done, total) => steps.push([done, total]) });
    expect(heldBytes(device)).toBe(before);
    expect(steps).toEqual([1, 2, 3].map((done) => [done, 3]));
    expect(pictures.map(({ width, height }) => [width, height])).toEqual(Array(3).fill([16, 16]));
    for (const { data } of pictures) expect(data.every((value) => value >= -1 && value <= 1)).toBe(true);
    expect(pictures[0]!.data).not.toEqual(pictures[1]!.data);
    expect(pictures[0]!.data).not.toEqual(pictures[2]!.data);
    steps.length = 0;
    const one = await draw({ batch: 2, onStep: (done, total) => steps.push([done, total]) });
    expect(one).toEqual(pictures);
    expect(steps.at(-1)).toEqual([6, 6]);
    expect(await draw({ prompts: ['a cat'], seeds: [1] })).toEqual([pictures[1]]);
  });

  it('heeds negative prompt, scale, size, sampler and eta', async () => {
    const one = { prompts: ['a dog'], seeds: [1] };
    const [picture] = await draw(one);
    const samplers = (['ddpm', 'pndm', 'euler', 'dpmpp2m', 'dpmpp2m-karras', 'dpmpp2m-trailing'] as const).map(
      (sampler) => ({ sampler }),
    );
    for (const change of [{ negative: 'blurry' }, { scale: 1 }, ...samplers, { eta: 1 }, { steps: 4 }])
      expect((await draw({ ...one, ...change }))[0]!.data).not.toEqual(picture!.data);
    // Without guidance the negative prompt is not read.
    expect(await draw({ ...one, scale: 1, negative: 'blurry' })).toEqual(await draw({ ...one, scale: 1 }));
    // Fresh noise comes by seed too.
    expect(await draw({ ...one, eta: 1 })).toEqual(await draw({ ...one, eta: 1 }));
    const [wide] = await draw({ ...one, size: [6, 10] });
    expect([wide!.height, wide!.width, wide!.data.length]).toEqual([6, 10, 180]);
  });

  it('emphasises what a prompt says beyond a plainer one', async () => {
    const before = heldBytes(device);
    const near = async (options: Partial<GenerateOptions>, other: Partial<GenerateOptions>) => {
      const [a, b] = [await draw(options), await draw(other)];
      const apart = a.flatMap(({ data }, i) => [...data].map((value, k) => Math.abs(value - b[i]!.data[k]!)));
      return Math.max(...apart);
    };
    const empty = { plain: ['', '', ''], strength: 2 };
    // Beyond the empty prompt it is guidance: c + 2(c − u) = u + 3(c − u), and u + 4(c + 2(c − u) − u) = u + 12(c − u).
    expect(await near({ scale: 1, emphasis: empty }, { scale: 3 })).toBeLessThan(1e-4);
    expect(await near({ scale: 4, emphasis: empty }, { scale: 12 })).toBeLessThan(1e-3);
    expect(await near({ scale: 4, emphasis: empty, sampler: 'dpmpp2m' }, { scale: 12, sampler: 'dpmpp2m' })).toBeLessThan(1e-3); // prettier-ignore
    // Beyond itself, or by nothing, it adds nothing; beyond anything else it does.
    expect(await near({ emphasis: { plain: ['a dog', 'a cat', 'a dog'], strength: 2 } }, {})).toBeLessThan(1e-4);
    expect(await near({ emphasis: { plain: ['a car', 'a car', 'a car'], strength: 0 } }, {})).toBeLessThan(1e-4);
    expect(await near({ emphasis: { plain: ['a car', 'a car', 'a car'], strength: 2 } }, {})).toBeGreaterThan(1e-2);
    expect(heldBytes(device)).toBe(before);
  });

  it.each(['pndm', 'dpmpp2m'] as const)('%s remembers no other picture’s steps', async (sampler) => {
    const before = heldBytes(device);
    const done: number[] = [];
    const onStep = (passes: number) => void done.push(passes);
    const [first, second] = await draw({
      prompts: ['a dog', 'a cat'],
      seeds: [1, 2],
      steps: 5,
      sampler,
      batch: 1,
      onStep,
    });
    // PNDM begins with a pass more.
    expect(done.length).toBe(sampler === 'pndm' ? 12 : 10);
    expect(await draw({ prompts: ['a dog', 'a cat'], seeds: [1, 2], steps: 5, sampler })).toEqual([first, second]);
    expect(heldBytes(device)).toBe(before);
  });

  it('divides latents by the scaling factor, and decodes in parts', async () => {
    const values = Float32Array.from({ length: 5 * 4 * 9 }, (_, i) => Math.sin(i));
    const latents = tensor(device, values, [5, 4, 3, 3]);
    const pictures = await decodeLatents(model, latents);
    const whole = noGrad(device, () => scope(device, () => model.vae.decode(affine(latents, 1 / 0.18215))));
    const expected = (await whole.read()).map((value) => Math.min(1, Math.max(-1, value)));
    expect(Float32Array.from(pictures.flatMap(({ data }) => [...data]))).toEqual(expected);
    release(latents, whole);
  });

  it('refuses what cannot be drawn, before any work', async () => {
    const dispatches = device.stream.dispatches;
    await expect(draw({ seeds: [1] })).rejects.toThrow('[generate] each picture has a prompt, a seed and a negative');
    await expect(draw({ negative: ['a'] })).rejects.toThrow('got 3, 3 and 1');
    await expect(draw({ emphasis: { plain: ['a'], strength: 1 } })).rejects.toThrow(
      'for emphasis, a plain one: got 3 and 1',
    );
    await expect(draw({ emphasis: { plain: ['a', 'b', 'c'], strength: NaN } })).rejects.toThrow('the emphasis is NaN');
    await expect(draw({ scale: NaN })).rejects.toThrow('[generate] scale is NaN');
    await expect(draw({ batch: 0 })).rejects.toThrow('[generate] batch is 0');
    await expect(draw({ steps: 0 })).rejects.toThrow('[sampler] steps is 0');
    await expect(draw({ size: [16, 15] })).rejects.toThrow('the size 16×15 must be in multiples of 2 pixels');
    await expect(draw({ prompts: ['a', 'b', 'dog '.repeat(80)] })).rejects.toThrow('the limit is 77: shorten it');
    expect(device.stream.dispatches).toBe(dispatches);
  });
});

describe('model folders', () => {
  const copy = async (name: string): Promise<string> => {
    const folder = path.join(temporary, name);
    await cp(source, folder, { recursive: true });
    return folder;
  };
  const edit = async (file: string, change: (json: Record<string, unknown>) => void) => {
    const json = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
    change(json);
    await writeFile(file, JSON.stringify(json));
  };

  it('save and load with the same bits', async () => {
    const folder = path.join(temporary, 'saved');
    await saveStableDiffusion(model, folder);
    const again = await loadStableDiffusion(device, folder);
    for (const part of ['unet', 'vae', 'textEncoder'] as const) {
      for (const [name, parameter] of model[part].namedParameters())
        expect(await again[part].namedParameters().get(name)!.read(), name).toEqual(await parameter.read());
      again[part].release();
    }
    for (const file of [
      'model_index.json',
      'unet/config.json',
      'tokenizer/vocab.json',
      'scheduler/scheduler_config.json',
    ])
      expect(await readFile(path.join(folder, file), 'utf8')).toBe(await readFile(path.join(source, file), 'utf8'));
  });

  it('save without the folders inside scheduler/ and tokenizer/', async () => {
    const folder = await copy('nested');
    for (const name of ['scheduler', 'tokenizer']) await mkdir(path.join(folder, name, '.cache'));
    const target = path.join(temporary, 'of', 'nested');
    await saveStableDiffusion({ ...model, folder }, target);
    for (const name of ['scheduler', 'tokenizer'])
      expect(await readdir(path.join(target, name))).toEqual(await readdir(path.join(source, name)));
  });

  it('save as f16', async () => {
    const folder = path.join(temporary, 'half');
    await saveStableDiffusion(model, folder, { dtype: 'F16' });
    const file = await openSafetensors(path.join(folder, 'unet', 'diffusion_pytorch_model.safetensors'));
    expect(file.info('conv_in.weight').dtype).toBe('F16');
    expect(file.metadata).toEqual({ format: 'pt' });
    await file.close();
    const unet = await loadUNet(device, path.join(folder, 'unet'));
    const original = await model.unet.conv_in.weight.read();
    // f16 keeps 11 bits.
    (await unet.conv_in.weight.read()).forEach((value, i) =>
      expect(Math.abs(value - original[i]!)).toBeLessThanOrEqual(2 ** -11 * Math.abs(original[i]!) + 2 ** -25),
    );
    unet.release();
  });

  it('are refused where something is missing, damaged or of another kind', async () => {
    const refuses = async (message: string, change: (folder: string) => Promise<unknown>) => {
      const folder = await copy('damaged');
      await change(folder);
      const before = heldBytes(device);
      await expect(loadStableDiffusion(device, folder)).rejects.toThrow(message);
      expect(heldBytes(device)).toBe(before);
      await rm(folder, { recursive: true, force: true });
    };
    await refuses('damaged does not exist', (folder) => rm(folder, { recursive: true }));
    await refuses('model_index.json is missing', (folder) => rm(path.join(folder, 'model_index.json')));
    await refuses('model_index.json is not JSON', (folder) => writeFile(path.join(folder, 'model_index.json'), '{'));
    for (const [part, key, value, most] of [
      ['text_encoder', 'num_hidden_layers', 20_000_000, 1000],
      ['text_encoder', 'vocab_size', 2 ** 40, 10_000_000],
      ['unet', 'layers_per_block', 1e9, 1000],
      ['unet', 'cross_attention_dim', 2 ** 31, 65_536],
      ['vae', 'layers_per_block', 1e9, 1000],
      ['vae', 'latent_channels', 2 ** 31, 65_536],
    ] as const)
      await refuses(`config.json: ${key}: Too big: expected number to be <=${most}`, (folder) =>
        edit(path.join(folder, part, 'config.json'), (json) => (json[key] = value)),
      );
    await refuses('the part unet is UNet2DModel; supported is UNet2DConditionModel', (folder) =>
      edit(path.join(folder, 'model_index.json'), (json) => (json.unet = ['diffusers', 'UNet2DModel'])),
    );
    await refuses('the part text_encoder_2 is CLIPTextModelWithProjection; supported are unet, vae', (folder) =>
      edit(path.join(folder, 'model_index.json'), (json) => {
        json.text_encoder_2 = ['transformers', 'CLIPTextModelWithProjection'];
      }),
    );
    await refuses('scheduler_config.json is missing', (folder) =>
      rm(path.join(folder, 'scheduler'), { recursive: true }),
    );
    await refuses('config.json is missing', (folder) => rm(path.join(folder, 'vae', 'config.json')));
    await refuses(
      'has no diffusion_pytorch_model.safetensors; old.bin is in a form that is not read',
      async (folder) => {
        await rm(path.join(folder, 'unet', 'diffusion_pytorch_model.safetensors'));
        await writeFile(path.join(folder, 'unet', 'old.bin'), '');
      },
    );
    await refuses('truncated', async (folder) => {
      const file = path.join(folder, 'unet', 'diffusion_pytorch_model.safetensors');
      await writeFile(file, (await readFile(file)).subarray(0, 100_000));
    });
    await refuses('conv_in.weight is (8, 4, 3, 3), the model', (folder) =>
      edit(path.join(folder, 'unet', 'config.json'), (json) => (json.block_out_channels = [16, 32])),
    );
    await refuses('the text encoder is 32 wide, the UNet reads 24', async (folder) => {
      await cp(path.join(source, '..', 'unet_sd2'), path.join(folder, 'unet'), { recursive: true });
    });
    await refuses('the tokenizer has 5001 ids, the text encoder 1000', (folder) =>
      edit(path.join(folder, 'tokenizer', 'vocab.json'), (json) => (json.unheard = 5000)),
    );
  });
});
