/** The whole DreamBooth task on the recorded tiny pipeline: 16×16 pictures, a few steps. */
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { parseConfig } from '../../cli/config.ts';
import { createRun, runConfigFile } from '../../cli/run.ts';
import { prepareLesson, trainDreamBooth } from '../../cli/tasks/dreambooth.ts';
import { loadStableDiffusion, saveStableDiffusion } from '../../diffusion/folder.ts';
import { openSafetensors } from '../../nn/files.ts';
import { plainDevice } from '../device.ts';

const MODEL = path.resolve('test/goldens/pipeline');
let work: string;

beforeAll(async () => {
  work = await mkdtemp(path.join(tmpdir(), 'dawngrad-dreambooth-'));
  for (const folder of ['shown', 'unseen']) {
    await mkdir(path.join(work, folder));
    for (const [name, background] of [
      ['red', '#c03030'],
      ['grey', '#a0a0a8'],
    ] as const)
      await sharp({ create: { width: 24, height: 16, channels: 3, background } })
        .png()
        .toFile(path.join(work, folder, `${name}.png`));
  }
  vi.spyOn(console, 'log').mockImplementation(() => {});
  vi.spyOn(process.stdout, 'write').mockImplementation(() => true);
});
afterAll(async () => {
  vi.restoreAllMocks();
  await rm(work, { recursive: true, force: true });
});

const config = (...overrides: string[]) => {
  const text = `
task: dreambooth
name: tiny
seed: 3
model: ${MODEL}
data: { folder: ${work}/shown, unseen: ${work}/unseen, class: dog, prompt: 'a {token} {name} {class}', crop: random }
prior: { pictures: 3, prompts: ['a {class}', 'a {name} {class}'], steps: 2, scale: 2 }
steps: 6
batch: { subject: 2, prior: 1 }
optimizer: { lr: 1.0e-3, warmup: 2 }
checkpoint: { every: 2, keep: 9 }
sample: { steps: 2, scale: 2, seeds: [0, 1], prompts: [a beach] }
`;
  const parsed = parseConfig(text, 'tiny.yaml', overrides);
  if (parsed.task !== 'dreambooth') throw new Error('unreachable');
  return parsed;
};

async function run(folder: string | null, resume: boolean, ...overrides: string[]): Promise<string> {
  const device = await plainDevice();
  const chosen = config(...overrides);
  let made = folder;
  await trainDreamBooth(chosen, device, async () => {
    made ??= await createRun(chosen, path.join(work, 'runs'));
    return { device, folder: made, resume, resumeCommand: '' };
  });
  return made!;
}

/** All that a run makes, by name, but for what carries the clock. */
async function contents(folder: string): Promise<Map<string, string>> {
  const files = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const kept = files
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)))
    .filter((name) => !['run.json', 'config.yaml'].includes(name));
  const read = async (name: string) => [name, (await readFile(path.join(folder, name))).toString('base64')] as const;
  return new Map(await Promise.all(kept.sort().map(read)));
}

describe('the DreamBooth task', () => {
  let first: string;
  beforeAll(async () => {
    first = await run(null, false);
  });

  it('leaves what a run folder should hold', async () => {
    const names = await readdir(first);
    for (const name of [
      'config.yaml',
      'run.json',
      'metrics.csv',
      'loss.png',
      'samples.png',
      'evidence.md',
      'evidence.json',
      'model',
      'checkpoints',
      'before',
      'after',
    ])
      expect(names).toContain(name);
    const rows = (await readFile(path.join(first, 'metrics.csv'), 'utf8')).trim().split('\n');
    expect(rows[0]).toMatch(/^step,loss,subject,prior,/);
    expect(rows).toHaveLength(7);
    const [, loss, subject, prior] = rows[1]!.split(',').map(Number);
    expect(loss).toBeCloseTo(subject! + prior!, 5);
    const record = JSON.parse(await readFile(path.join(first, 'run.json'), 'utf8')) as { sha256: object };
    expect(Object.keys(record.sha256)).toHaveLength(3 + 4);
    expect(await readdir(path.join(first, 'model'))).toContain('model_index.json');
    expect(await readdir(path.join(first, 'before'))).toHaveLength((2 + 2 + 2) * 2 + 2);
  });

  it('gives the same bits from the same seed', async () => {
    const again = await run(null, false);
    expect(path.basename(again)).toBe('tiny-2');
    const [a, b] = [await contents(first), await contents(again)];
    expect([...b.keys()]).toEqual([...a.keys()]);
    // Pictures of the run's name differ; all numbers, weights and moments must not.
    for (const [name, bytes] of a)
      if (name !== 'samples.png' && name !== 'loss.png') expect(b.get(name) === bytes, name).toBe(true);
    const other = await run(null, false, 'seed=4', 'name=other');
    expect((await contents(other)).get('metrics.csv')).not.toBe(a.get('metrics.csv'));
  });

  it('resumes as if it had never stopped', async () => {
    const stopped = path.join(work, 'runs', 'stopped');
    await cp(first, stopped, { recursive: true });
    for (const step of ['step-000004', 'step-000006'])
      await rm(path.join(stopped, 'checkpoints', step), { recursive: true });
    for (const name of ['after', 'model', 'evidence.json']) await rm(path.join(stopped, name), { recursive: true });
    await run(stopped, true);
    const [a, b] = [await contents(first), await contents(stopped)];
    for (const [name, bytes] of a) expect(b.get(name) === bytes, name).toBe(true);
  });

  it('trains without prior preservation, and parts alone', async () => {
    const folder = await run(null, false, 'name=parts', 'prior.weight=0', 'train.text=false', 'steps=2');
    expect((await readFile(path.join(folder, 'metrics.csv'), 'utf8')).split('\n')[0]).not.toContain('prior');
    const [trained, learned] = [await contents(folder), await contents(first)];
    // What the base model's weights are when they are saved as the run's are.
    const base = await loadStableDiffusion(await plainDevice(), MODEL);
    await saveStableDiffusion(base, path.join(work, 'base'), { dtype: 'F16' });
    const saved = await contents(path.join(work, 'base'));
    const text = 'text_encoder/model.safetensors';
    const weights = 'unet/diffusion_pytorch_model.safetensors';
    expect(trained.get(`model/${text}`)).toBe(saved.get(text));
    expect(learned.get(`model/${text}`)).not.toBe(saved.get(text));
    expect(trained.get(`model/${weights}`)).not.toBe(saved.get(weights));
  });

  it('inverts a text: all that changes is the embedding of one word', async () => {
    const folder = await run(null, false, 'name=word', 'train={unet: false, token: true}', 'data.token=x', 'steps=2');
    const base = await loadStableDiffusion(await plainDevice(), MODEL);
    await saveStableDiffusion(base, path.join(work, 'untouched'), { dtype: 'F16' });
    const [trained, saved] = [await contents(folder), await contents(path.join(work, 'untouched'))];
    const weights = 'unet/diffusion_pytorch_model.safetensors';
    expect(trained.get(`model/${weights}`)).toBe(saved.get(weights));
    const table = base.textEncoder.text_model.embeddings.token_embedding.weight;
    const name = 'text_model.embeddings.token_embedding.weight';
    const before = (await table.read()) as Float32Array;
    const row = base.tokenizer.tokenize('x')[0]!;
    for (const part of [base.unet, base.vae, base.textEncoder]) part.release();
    const checkpoint = await openSafetensors(path.join(folder, 'checkpoints/step-000002/weights.safetensors'));
    expect([...checkpoint.tensors.keys()]).toEqual([`text_encoder.${name}`]);
    const after = await checkpoint.floats(`text_encoder.${name}`);
    await checkpoint.close();
    const width = table.shape[1]!;
    const changed = [
      ...new Set([...after].flatMap((value, i) => (value === before[i] ? [] : [Math.floor(i / width)]))),
    ];
    expect(changed).toEqual([row]);
    const [old, now] = await Promise.all(
      [path.join(work, 'untouched'), path.join(folder, 'model')].map(async (model) => {
        const file = await openSafetensors(path.join(model, 'text_encoder/model.safetensors'));
        const values = await Promise.all(
          [...file.tensors.keys()].filter((key) => key !== name).map((key) => file.floats(key)),
        );
        await file.close();
        return values;
      }),
    );
    expect(now).toEqual(old);
  });

  it('goes on only with what it began with, and not when it is finished', async () => {
    expect(() => runConfigFile(first)).toThrow(/this run is finished/);
    const changed = path.join(work, 'runs', 'changed');
    await cp(first, changed, { recursive: true });
    await rm(path.join(changed, 'evidence.json'));
    await expect(run(changed, true, 'optimizer.lr=1e-2')).rejects.toThrow(
      /was made with optimizer = .*0\.001.* this run has .*0\.01/,
    );
    await rename(path.join(work, 'shown', 'red.png'), path.join(work, 'shown', 'rot.png'));
    try {
      await expect(run(changed, true)).rejects.toThrow(/was made with files = /);
    } finally {
      await rename(path.join(work, 'shown', 'rot.png'), path.join(work, 'shown', 'red.png'));
    }
  });

  it('says before anything is drawn that a plan does not fit, and what to lower', async () => {
    const device = await plainDevice();
    const { budget } = device.memory;
    device.memory.trim();
    device.memory.budget = device.memory.reserved + 8 * 2 ** 20; // the model fits, training does not
    const message =
      /memory\.budget is \d+ MiB, and a step needs \d+ MiB: .*activations .*for 100 \+ 1 pictures\. .*memory\.checkpointing=true/;
    try {
      await expect(run(null, false, 'name=large', 'batch.subject=100')).rejects.toThrow(message);
    } finally {
      device.memory.budget = budget;
    }
    expect(await readdir(path.join(work, 'runs'))).not.toContain('large');
  });

  it('says what the model alone takes where the budget does not hold even that', async () => {
    const device = await plainDevice();
    const { budget } = device.memory;
    device.memory.trim();
    device.memory.budget = device.memory.reserved + 1000;
    try {
      await expect(run(null, false)).rejects.toThrow(
        /^memory\.budget is \d+ MiB, and the parameters of .*pipeline alone take \d+ MiB: raise memory\.budget, or/,
      );
    } finally {
      device.memory.budget = budget;
    }
  });

  it('learns from the pictures of a folder whatever else lies in it', async () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => {});
    const folder = path.join(work, 'mixed');
    await cp(path.join(work, 'shown'), folder, { recursive: true });
    await mkdir(path.join(folder, 'originals'));
    await writeFile(path.join(folder, 'notes.txt'), 'grey');
    const made = await run(null, false, 'name=mixed', `data.folder=${folder}`, 'steps=2', 'prior.weight=0');
    const { sha256 } = JSON.parse(await readFile(path.join(made, 'run.json'), 'utf8')) as { sha256: object };
    expect(Object.keys(sha256).filter((file) => file.includes('mixed')).map((file) => path.basename(file))).toEqual(['grey.png', 'red.png']); // prettier-ignore
    expect(warn.mock.calls.map(([line]) => /(\S+) is skipped/.exec(line as string)![1]).sort()).toEqual(
      ['notes.txt', 'originals'].map((name) => path.join(folder, name)),
    );
    warn.mockRestore();
  });

  it('draws while it trains, where asked to', async () => {
    const folder = await run(null, false, 'name=midway', 'steps=2', 'sample.every=1', 'prior.weight=0');
    expect((await readdir(folder)).filter((name) => /^samples-\d+\.png$/.test(name))).toEqual([
      'samples-000001.png',
      'samples-000002.png',
    ]);
  });

  it('asks for class pictures of the subject’s names, and of others of the class', async () => {
    const model = await loadStableDiffusion(await plainDevice(), MODEL);
    const { classPrompts, shots } = await prepareLesson(model, config('prior.names=[wet]'));
    expect(classPrompts).toEqual(['a dog', 'a grey dog', 'a red dog', 'a wet dog']);
    expect(shots.filter(({ kind }) => kind === 'class').map(({ prompt }) => prompt)).toEqual(['a dog', 'a grey dog']);
  });

  it('says what is wrong before it makes a run folder', async () => {
    const bad = (...overrides: string[]) => run(null, false, 'name=bad', ...overrides);
    await expect(bad(`data.folder=${work}/nowhere`)).rejects.toThrow(/cannot read the folder .*nowhere/);
    await expect(bad('data.prompt="a {tokn} {class}"')).rejects.toThrow(
      /names \{tokn\}; known are \{token\}, \{class\}, \{name\}/,
    );
    await expect(bad(`data.prompt="${'very '.repeat(80)}"`)).rejects.toThrow(/the limit is 77: shorten it/);
    await expect(bad('optimizer.warmup=7')).rejects.toThrow(/optimizer\.warmup is 7, and the run has 6 steps/);
    await expect(bad('model=/nowhere')).rejects.toThrow(/the model folder \/nowhere does not exist/);
    await expect(bad('train.token=true', 'train.text=false')).rejects.toThrow(
      /train\.token is true and train\.text false/,
    );
    await expect(bad('train.begin=dog')).rejects.toThrow(/train\.begin is what a token begins with that trains/);
    await expect(bad('train.token=true', 'train.begin=" "')).rejects.toThrow(/train\.begin must be a word at least/);
    await expect(bad('train.token=true')).rejects.toThrow(/trains one embedding, and "sks" is 2 tokens/);
    expect(await readdir(path.join(work, 'runs'))).not.toContain('bad');
  });
});
