import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Device } from '../../engine/index.ts';
import { parseConfig } from '../../cli/config.ts';
import type { Config } from '../../cli/config.ts';
import { ROOT } from '../../cli/run.ts';
import { trainLm } from '../../cli/tasks/lm.ts';
import { trainTokenizer } from '../../llm/bpe.ts';
import { CORPORA, divide, tokenize } from '../../llm/corpus.ts';
import { loadTransformer } from '../../llm/folder.ts';
import { readTokenizer } from '../../llm/tokenizer.ts';
import { folderFiles } from '../../nn/folder.ts';
import { Packing } from '../../llm/packing.ts';
import { heldOutLoss } from '../../llm/training.ts';
import { plainDevice } from '../device.ts';

const VOCABULARY = 280;
const STEPS = 12;
const MODEL = {
  model_type: 'dawngrad',
  vocab_size: VOCABULARY,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 64,
  layer_types: ['sliding_attention', 'full_attention'],
  sliding_window: 16,
  tie_word_embeddings: true,
  eos_token_id: VOCABULARY - 1,
};

let device: Device;
let root: string;
beforeAll(async () => {
  device = await plainDevice();
  root = await mkdtemp(path.join(tmpdir(), 'lm-'));
  const animals = ['cat', 'dog', 'cow', 'hen', 'fox', 'owl'];
  const line = (i: number) => `The ${animals[i % 6]!} sees the ${animals[(i * 5 + 1) % 6]!}, and the ${animals[(i * 7 + 2) % 6]!} sleeps.\n`; // prettier-ignore
  const texts = Array.from({ length: 40 }, (_, i) => Array.from({ length: 1 + (i % 7) }, (_, j) => line(3 * i + j)).join('') + `${i}\n`); // prettier-ignore
  await mkdir(path.join(root, 'texts'));
  for (const [i, text] of texts.entries()) await writeFile(path.join(root, 'texts', `${i}.txt`), text);
  await mkdir(path.join(root, 'model'));
  const files = {
    'config.json': MODEL,
    'tokenizer.json': trainTokenizer(texts, VOCABULARY),
    'tokenizer_config.json': { eos_token: '<|endoftext|>' },
  };
  for (const [file, json] of Object.entries(files))
    await writeFile(path.join(root, 'model', file), JSON.stringify(json));
});
afterAll(() => rm(root, { recursive: true }));

const configure = (...overrides: string[]) =>
  parseConfig(
    `
task: lm
name: test
model: ${path.join(root, 'model')}
data: { files: [${path.join(root, 'texts')}], heldOut: 0.2 }
length: 64
batch: 2
accumulate: 2
steps: ${STEPS}
ema: 0.8
checkpoint: { every: 5, keep: 9 }
validation: { every: 4, sequences: 2 }
optimizer: { lr: 1.0e-2, betas: [0.9, 0.95], warmup: 2, schedule: cosine }
sample: { every: 6, prompts: ['', The cat], tokens: 8 }
`,
    'lm.yaml',
    overrides,
  ) as Config<'lm'>;

async function run(folder: string, resume: boolean, ...overrides: string[]): Promise<void> {
  const prepare = () => Promise.resolve({ device, folder, resume, resumeCommand: 'again' });
  await trainLm(configure(...overrides), device, prepare);
}

/** What a run leaves that does not depend on the clock. */
const LEFT = ['metrics.csv', 'validation.csv', 'samples-000006.txt', 'samples-000012.txt', 'model/model.safetensors'];

describe('the lm task', () => {
  const whole = () => path.join(root, 'whole');

  it('lowers its loss and leaves model, samples and record', async () => {
    await mkdir(whole());
    await run(whole(), false);
    const rows = (await readFile(path.join(whole(), 'metrics.csv'), 'utf8')).trim().split('\n').slice(1);
    const losses = rows.map((row) => Number(row.split(',')[1]));
    expect(losses.length).toBe(STEPS);
    expect(losses[0]).toBeCloseTo(Math.log(VOCABULARY), 0);
    expect(losses.at(-1)).toBeLessThan(0.8 * losses[0]!);
    const record = JSON.parse(await readFile(path.join(whole(), 'record.json'), 'utf8')) as Record<string, unknown>;
    expect(record).toMatchObject({
      steps: STEPS,
      config: { task: 'lm' },
      adapter: { description: device.profile.description },
      validation: [{ step: 4 }, { step: 8 }, { step: 12 }],
    });
    const { data, counting } = record as { data: Record<string, { documents: number }>; counting: Record<string, { loss: number }> }; // prettier-ignore
    expect(data['training']!.documents + data['heldOut']!.documents).toBe(40);
    expect(counting['3-grams']!.loss).toBeLessThan(counting['1-grams']!.loss);
    expect(await readFile(path.join(whole(), 'samples-000012.txt'), 'utf8')).toMatch(
      /^After 12 steps\n\n.*>>> The cat\nThe cat.+/s,
    );
    const model = await loadTransformer(device, path.join(whole(), 'model'));
    expect(model.config.vocabulary).toBe(VOCABULARY);
    model.release();
  });

  it('resumes where it was killed, to the same bits', async () => {
    // Killed after the checkpoint of step 5 and before that of step 10: rows beyond it were written.
    const killed = path.join(root, 'killed');
    await mkdir(killed);
    for (const file of ['metrics.csv', 'validation.csv', 'samples-000006.txt', 'run.json', 'checkpoints/step-000005'])
      await cp(path.join(whole(), file), path.join(killed, file), { recursive: true });
    await run(killed, true);
    for (const file of LEFT)
      expect((await readFile(path.join(killed, file))).equals(await readFile(path.join(whole(), file))), file).toBe(
        true,
      );
  });

  it('gives the same bits where layers are computed again in the backward pass', async () => {
    const again = path.join(root, 'again');
    await mkdir(again);
    await run(again, false, 'memory.checkpointing=true');
    for (const file of LEFT)
      expect((await readFile(path.join(again, file))).equals(await readFile(path.join(whole(), file))), file).toBe(
        true,
      );
  });

  it('teaches trees to select beside the next token, after a beginning that sees all', async () => {
    const folder = path.join(root, 'trees');
    const model = path.join(root, 'tree-model');
    await mkdir(folder);
    await cp(path.join(root, 'model'), model, { recursive: true });
    const trees = { layer_types: ['sliding_attention', 'tree_attention'], tree: { block: 4, fanout: 2, beam: 2 } };
    await writeFile(path.join(model, 'config.json'), JSON.stringify({ ...MODEL, ...trees }));
    await run(folder, false, `model=${model}`, 'steps=4', 'optimizer.schedule=constant', 'tree.dense=2');
    const [names, ...rows] = (await readFile(path.join(folder, 'metrics.csv'), 'utf8')).trim().split('\n').map((row) => row.split(',')); // prettier-ignore
    expect(names!.slice(1, 4)).toEqual(['loss', 'next_token', 'selection']);
    for (const [, loss, next, selection] of rows.map((row) => row.map(Number))) {
      expect(selection).toBeGreaterThan(0);
      expect(loss).toBeCloseTo(next! + selection!, 4); // weight 1
    }
  });

  it('goes on from the weights of another run', async () => {
    const further = path.join(root, 'further');
    await mkdir(further);
    const { live } = device.memory;
    await run(further, false, `start=${path.join(whole(), 'model')}`, 'steps=2', 'ema=0', 'sample.prompts=[]');
    expect(device.memory.live).toBe(live);
    const [, first] = (await readFile(path.join(further, 'metrics.csv'), 'utf8')).trim().split('\n');
    expect(Number(first!.split(',')[1])).toBeLessThan(0.8 * Math.log(VOCABULARY));
  });
});

describe('bad input', () => {
  const refused = async (message: string | RegExp, ...overrides: string[]) => {
    const prepare = vi.fn();
    await expect(trainLm(configure(...overrides), device, prepare)).rejects.toThrow(message);
    expect(prepare).not.toHaveBeenCalled(); // no run folder is left behind
  };

  it.each([
    [['length=96'], /length is 96, and the model in .* is for 64 tokens/],
    [['length=50'], 'length is 50; it must be a multiple of 32'],
    [['data.files=[]'], 'there is nothing to train on: give data.corpora (factbook, udhr) or data.files'],
    [['data.files=[/nowhere]'], /cannot read \/.*nowhere: there is no such file or folder/],
    [['sample.tokens=63'], /sample.prompts: "The cat" has \d+ tokens; with 63 more/],
    [['tokenizer=cl100k'], /the tokenizer has 100277 tokens, the model in .* 280/],
    [['tokenizer=/nowhere'], '/nowhere/tokenizer.json is missing'],
    [['model=/nowhere'], 'nowhere'],
    [['start=/nowhere'], 'the model folder'],
  ])('%j is refused', (overrides, message) => refused(message, ...overrides));

  it('one document alone cannot be divided', () =>
    refused('one document alone', `data.files=[${path.join(root, 'texts', '0.txt')}]`));

  it('a file that is not UTF-8 is named with the byte', async () => {
    const file = path.join(root, 'wrong.txt');
    await writeFile(file, Uint8Array.of(65, 66, 0xff));
    await refused(`${file} is not UTF-8: byte 2 (0xff)`, `data.files=[${file}]`);
  });
});

it('the model that ships does what its record says', async () => {
  const folder = path.join(ROOT, 'assets/lm');
  const record = JSON.parse(await readFile(path.join(folder, 'record.json'), 'utf8')) as {
    config: Config<'lm'>;
    heldOut: { loss: number };
    counting: Record<string, { loss: number }>;
  };
  expect(record.heldOut.loss).toBeLessThan(0.75 * record.counting['1-grams']!.loss);
  const { data, length } = record.config;
  const tokenizer = await readTokenizer(folderFiles(folder));
  const model = await loadTransformer(device, folder);
  const { heldOut } = divide(await CORPORA.factbook(), data.heldOut);
  const begin = tokenizer.encode('', { begin: true });
  expect(begin).toEqual(tokenizer.ends);
  const packing = new Packing(
    tokenize(heldOut, { encode: tokenizer.encode, begin, ends: tokenizer.ends }, { vocabulary: tokenizer.size }),
    { length },
  );
  // The weights were rounded to f16 since.
  expect(Math.abs((await heldOutLoss(model, packing, 4)) / record.heldOut.loss - 1)).toBeLessThan(1e-3);
  model.release();
});
