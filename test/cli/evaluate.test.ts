/** The evaluation on the recorded tiny pipeline and a world of 16×16 pictures. */
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { evaluateBase } from '../../cli/evaluate/base.ts';
import { parseEvaluation } from '../../cli/evaluate/config.ts';
import { evaluateDreamBooth, planRuns } from '../../cli/evaluate/dreambooth.ts';
import { originOf } from '../../cli/evaluate/origin.ts';
import { floorsOf } from '../../cli/evaluate/summary.ts';
import type { Sample } from '../../cli/evaluate/summary.ts';
import type { EmojiSet } from '../../diffusion/emoji.ts';
import { loadStableDiffusion } from '../../diffusion/folder.ts';
import { captionOf, makeWorld } from '../../diffusion/world.ts';
import type { World } from '../../diffusion/world.ts';
import { HostRandom, randomKey } from '../../engine/index.ts';
import { Trainer } from '../../nn/trainer.ts';
import { plainDevice } from '../device.ts';

const MODEL = path.resolve('test/goldens/pipeline');
const SIDE = 16;
const SHOWN = ['cat with tears of joy', 'crying cat', 'grinning cat', 'smiling cat with heart eyes'];
const FACES = [
  ...SHOWN,
  'cat face',
  'cat with wry smile',
  'grinning cat with smiling eyes',
  'kissing cat',
  'pouting cat',
  'weary cat',
];

/** Every set draws every name: pictures of noise, no two alike. */
function tinyWorld(): World {
  const sets: EmojiSet[] = ['noto', 'twemoji', 'emojione', 'noto-v1', 'streamline-emojis'];
  const names = [...FACES, 'cat', 'dog', 'fox', 'owl'];
  const icons = sets.flatMap((set) => names.map((name) => ({ set, name, caption: name, category: null })));
  const random = new HostRandom(randomKey(0, 'pictures'));
  const pixels = Uint8Array.from({ length: icons.length * 3 * SIDE * SIDE }, () => random.below(200));
  return makeWorld({ icons, pixels, size: SIDE }, 'all', 2);
}

let work: string;
let world: World;
beforeAll(async () => {
  work = await mkdtemp(path.join(tmpdir(), 'dawngrad-evaluate-'));
  world = tinyWorld();
  await writeFile(
    path.join(work, 'dreambooth.yaml'),
    `
task: dreambooth
name: tiny
model: nowhere
data: { folder: nowhere, token: x, class: cat face, prompt: 'a {token} {name}' }
prior: { pictures: 2, prompts: ['a {class}'], steps: 1, scale: 2 }
steps: 1
batch: { subject: 2, prior: 1 }
optimizer: { lr: 1.0e-3 }
sample: { prompts: [a dog] }
`,
  );
  vi.spyOn(console, 'log').mockImplementation(() => {});
  vi.spyOn(process.stdout, 'write').mockImplementation(() => true);
});
afterAll(async () => {
  vi.restoreAllMocks();
  await rm(work, { recursive: true });
});

const evaluation = (...overrides: string[]) =>
  parseEvaluation(
    `
model: ${MODEL}
world: all
base:
  steps: 1
  scale: 2
  pairs: 2
  sheets:
    all:
      shown: ['${captionOf(world.training[0]!, true)}']
      heldOut: ['${captionOf(world.heldOut[0]!, true)}']
      composed: [crying dog]
dreambooth:
  config: ${work}/dreambooth.yaml
  subjects: [emojione]
  seeds: [1]
  shown: [${SHOWN.join(', ')}]
  steps: 1
  scale: 2
  drawings: 2
  variants:
    full: {}
    no-prior: { overrides: { prior.weight: 0 } }
    textual-inversion: { overrides: { train.unet: false, train.token: true, prior.weight: 0 }, seeds: [1] }
  rows: [no-prior, full]
`,
    'evaluation.yaml',
    overrides,
  );

describe('the evaluation of DreamBooth', () => {
  let folder: string;
  const run = async (...overrides: string[]) =>
    evaluateDreamBooth(await plainDevice(), world, evaluation(...overrides), folder, 'nobody knows', 'again');
  const results = async () =>
    JSON.parse(await readFile(path.join(folder, 'dreambooth.json'), 'utf8')) as {
      done: number;
      means: Record<string, { n: number; latents: Record<string, { mean: number }> }>;
      samples: Sample[];
    };
  const trained = vi.spyOn(Trainer.prototype, 'run');
  beforeAll(() => {
    folder = path.join(work, 'results');
  });

  it('runs every variant, beside baselines, and keeps scores and pictures', async () => {
    trained.mockClear();
    expect(await run()).toBe(true);
    expect(trained).toHaveBeenCalledTimes(3);
    const { done, means, samples } = await results();
    expect(done).toBe(3);
    expect(Object.keys(means)).toEqual(['base', 'memoriser', 'autoencoder', 'full', 'no-prior', 'textual-inversion']);
    expect(means['base']!.latents['drift']!.mean).toBe(0);
    expect(means['textual-inversion']!.latents['drift']!.mean).toBe(0); // no class prompt has the word
    expect(means['no-prior']!.latents['drift']!.mean).toBeGreaterThan(0);
    expect(Object.keys(means['full']!.latents)).toEqual(expect.arrayContaining(['pres', 'div', 'class div']));
    for (const { scores } of samples)
      for (const values of Object.values(scores))
        for (const value of Object.values(values)) expect(Number.isFinite(value)).toBe(true);
    const names = await readdir(folder);
    expect(await readFile(path.join(folder, 'dreambooth.md'), 'utf8')).toContain('trained on: nobody knows');
    for (const name of ['dreambooth.md', 'dreambooth.png', 'dreambooth-emojione.png']) expect(names).toContain(name);
    const made = await readdir(path.join(folder, 'dreambooth/full-emojione-1'));
    expect(made).toEqual(expect.arrayContaining(['after', 'metrics.csv', 'run.json', 'scores.json']));
    expect(made).not.toContain('checkpoints');
  });

  it('gives the memoriser four expressions of ten, whatever the features', async () => {
    const { samples } = await results();
    const { scores } = samples.find(({ variant }) => variant === 'memoriser')!;
    for (const values of Object.values(scores))
      expect(values).toEqual({ fidelity: 0.4, identity: 1, prompt: 0.4, 'fidelity shown': 1, 'fidelity unseen': 0 });
  });

  it('reads what is finished, and goes on with what is not, to the same bits', async () => {
    const before = await readFile(path.join(folder, 'dreambooth.json'), 'utf8');
    trained.mockClear();
    const { memory } = await plainDevice();
    const { live } = memory;
    await run();
    expect(memory.live).toBe(live);
    expect(trained).not.toHaveBeenCalled();
    expect(await readFile(path.join(folder, 'dreambooth.json'), 'utf8')).toBe(before);
    for (const name of ['scores.json', 'after', 'metrics.csv'])
      await rm(path.join(folder, 'dreambooth/no-prior-emojione-1', name), { recursive: true });
    await run();
    expect(trained).toHaveBeenCalledTimes(1);
    expect(await readFile(path.join(folder, 'dreambooth.json'), 'utf8')).toBe(before);
  });

  it('refuses results of other settings', async () => {
    await expect(run('dreambooth.steps=2')).rejects.toThrow(
      /base-1 holds results with sample = .*"steps":1.* now it is .*"steps":2.*--folder/,
    );
    await expect(run('dreambooth.variants.full={overrides: {steps: 2}}')).rejects.toThrow(
      /full-emojione-1 holds results with config = /,
    );
  });

  it('says what is wrong before anything runs', async () => {
    folder = path.join(work, 'wrong');
    const overrides = (text: string) => run(`dreambooth.variants.no-prior={overrides: {${text}}}`);
    const place = 'dreambooth.variants.no-prior.overrides: ';
    await expect(overrides('prior.wieght: 0')).rejects.toThrow(
      `${place}"prior.wieght=0": prior.wieght is not a known key; did you mean prior.weight?`,
    );
    await expect(overrides('sample.steps: 3')).rejects.toThrow(`${place}all are judged alike: leave name, model, seed`);
    await expect(run('dreambooth.shown=[crying dog]')).rejects.toThrow(
      'dreambooth.shown: emojione has no "crying dog"; it has cat with tears of joy, ',
    );
    await expect(run('dreambooth.rows=[fulll]')).rejects.toThrow(
      'dreambooth.rows: "fulll" is none of the variants full',
    );
    expect(() => evaluation('dreambooth.variants.full.overides={}')).toThrow(
      '"dreambooth.variants.full.overides={}": dreambooth.variants.full.overides is not a known key; did you mean dreambooth.variants.full.overrides?',
    );
    expect(() => evaluation('dreambooth.subjects=[noto]')).toThrow(/dreambooth\.subjects\.0 must be one of emojione/);
    expect(() => evaluation('dreambooth.variants={short: {}}')).toThrow('there must be one called full');
    expect(await readdir(work)).not.toContain('wrong');
  });
});

describe('the evaluation of the base model', () => {
  const run = async (...overrides: string[]) => {
    const model = await loadStableDiffusion(await plainDevice(), MODEL);
    const results = path.join(work, 'base-results');
    return evaluateBase(model, world, evaluation(...overrides), results, 'nobody knows').finally(() => {
      for (const part of [model.unet, model.vae, model.textEncoder]) part.release();
    });
  };

  it('draws once, and measures', async () => {
    const result = await run();
    const drawn = path.join(work, 'base-results/base/styled');
    const times = async () => Promise.all((await readdir(drawn)).map(async (name) => (await stat(path.join(drawn, name))).mtimeMs)); // prettier-ignore
    const before = await times();
    expect(before).toHaveLength(2);
    expect(await run()).toEqual(result);
    expect(await times()).toEqual(before);
    expect(result.chance).toBe(10 / (world.training.length + 2));
    const { styled, plain, ceiling } = result.composition.latents;
    for (const hits of [styled, plain, ceiling]) {
      expect(hits).toHaveLength(2);
      expect(hits.every((hit) => hit === 0 || hit === 1)).toBe(true);
    }
    expect(result.psnr.pooled).toBeLessThanOrEqual(result.psnr.mean);
    expect(result.error).toBeGreaterThan(0);
    const text = await readFile(path.join(work, 'base-results/base.md'), 'utf8');
    expect(text).toMatch(/\| autoencoder, dB: .* at least 27\.5 \| \*\*no\*\*/);
    expect(text).toContain('Trained on: nobody knows');
    expect(await readdir(path.join(work, 'base-results'))).toContain('base-sheet.png');
  });

  it('refuses a sheet whose prompts are not what they are said to be, and results of other settings', async () => {
    await expect(run('base.sheets.all.composed=[dog]')).rejects.toThrow(
      'base.sheets.all.composed: "dog" is a caption of the world',
    );
    await expect(run('base.sheets.all.heldOut=[dog]')).rejects.toThrow('"dog" is no held-out pair');
    await expect(run('base.scale=3')).rejects.toThrow(/base holds results with scale = 2, and now it is 3\..*--folder/);
  });
});

it('a model’s record says whether it was trained on this world', async () => {
  const record = (...worlds: object[]) =>
    writeFile(
      path.join(work, 'record.json'),
      JSON.stringify(Object.fromEntries(['vae', 'diffusion'].map((stage, i) => [stage, { data: worlds[i] }]))),
    );
  const origin = () => originOf(work, world, 'all');
  const here = { world: 'all', sha256: world.key };
  expect(await origin()).toMatch(/^its record does not say/);
  await record(here, here);
  expect(await origin()).toBe('the world all, without what is held out');
  await record(here, { training: 9867 });
  expect(await origin()).toMatch(/^its record does not say/);
  await record({ world: 'faces-and-animals', sha256: 'other' }, here);
  await expect(origin()).rejects.toThrow(
    'record.json: the model was trained on the world faces-and-animals, where other pictures are held out than in all: set world=faces-and-animals',
  );
  await record(here, { world: 'all', sha256: 'other' });
  await expect(origin()).rejects.toThrow('was trained on other pictures than these of the world all');
});

it('floors compare drifts of the same subjects and seeds', () => {
  const sample = (variant: string, seed: number, fidelity: number, drift: number): Sample => ({
    variant,
    subject: 'emojione',
    seed,
    scores: { latents: { fidelity, drift }, rgb: { fidelity, drift } },
  });
  const samples = [
    sample('full', 0, 0.7, 0.2),
    sample('full', 1, 0.5, 9), // without its like
    sample('no-prior', 0, 0.9, 0.5),
  ];
  const [right, drift] = floorsOf(samples);
  expect(right).toMatchObject({ value: 0.6, holds: true });
  expect(drift!.value).toBeCloseTo(0.4, 12);
  expect(drift!.holds).toBe(true);
  expect(floorsOf([])).toEqual([]);
});

it('the shipped configuration fixes 48 prompts for each world, and its variants can be compared', async () => {
  const file = 'assets/configs/evaluation.yaml';
  const shipped = parseEvaluation(await readFile(file, 'utf8'), file, []);
  const { base, dreambooth } = shipped;
  for (const sheet of Object.values(base.sheets))
    expect([sheet.shown, sheet.heldOut, sheet.composed].map((prompts) => new Set(prompts).size)).toEqual([24, 12, 12]);
  expect(Object.keys(base.sheets)).toEqual(['faces-and-animals', 'all']);
  expect(dreambooth.shown).toEqual(SHOWN);
  const runs = await planRuns(shipped, 'results');
  const count = (variant: string) => runs.filter((run) => run.variant === variant).length;
  expect(['full', 'no-prior', 'textual-inversion', 'text-encoder', 'frozen-text'].map(count)).toEqual([
    12, 12, 12, 6, 3,
  ]);
  expect(runs).toHaveLength(66);
  // Class pictures are drawn from the run's seed on: what is judged is drawn from other noise, each run's its own.
  const drawn = runs.filter(({ variant }) => variant === 'full').map(({ config }) => config.sample.seeds);
  expect(new Set(drawn.flat()).size).toBe(4 * 4);
  for (const { seed, config } of runs)
    expect(Math.min(...config.sample.seeds)).toBeGreaterThanOrEqual(seed + config.prior.pictures);
});
