import path from 'node:path';
import type { Device } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import type { TreeConfig } from '../../llm/config.ts';
import type { Transformer } from '../../llm/model.ts';
import { recallAccuracy, recallLoss, recallModel, recallText, recoveredMass, seeingWith, withTree } from '../../llm/recall.ts'; // prettier-ignore
import { schedule } from '../../nn/schedule.ts';
import { Trainer } from '../../nn/trainer.ts';

/** Tokens of the longest texts of training, and of those that a pass takes in turn: short ones are learned first. */
const TRAINED = 256;
const LENGTHS = [64, 128, TRAINED];
/** Tokens of a pass. */
const PASS = 2048;
const PAIRS = 16;
const RATE = 4e-3;

const CONTEXT = 8 * TRAINED;
/** Texts of each length that both are measured with. */
const TEXTS = 16;
const DEPTHS = 5;

export interface RecallOptions {
  readonly steps: number;
  readonly folder: string;
  readonly seed: number;
}

/** Trains a model with a tree layer and one with full attention, and prints how they do. */
export async function evalRecall(options: RecallOptions): Promise<void> {
  const device = await openNodeDevice();
  console.log(`Adapter: ${device.profile.description}`);
  const tree = await train(device, 'tree', options);
  const full = tree && (await train(device, 'full', options));
  if (!tree || !full) return; // the trainer has said how to go on
  await printAccuracy(tree, full, options.seed);
  await printMass(tree, full, options.seed);
  tree.release();
  full.release();
}

async function train(
  device: Device,
  second: 'tree' | 'full',
  { steps, folder, seed }: RecallOptions,
): Promise<Transformer | null> {
  const model = await recallModel(device, second, CONTEXT, seed);
  const trainer = new Trainer({
    modules: { '': model },
    forward: ({ pass }) => {
      const length = LENGTHS[pass % LENGTHS.length]!;
      const count = PASS / length;
      const texts = Array.from({ length: count }, (_, b) =>
        recallText(length, { pairs: length / 16, seed, sample: (PASS / LENGTHS[0]!) * pass + b }),
      );
      return { loss: recallLoss(model, texts) };
    },
    steps,
    schedule: schedule({ kind: 'cosine', rate: RATE, warmup: Math.min(100, steps), steps, floor: 0.05 }),
    optimizer: { betas: [0.9, 0.98] },
    folder: path.join(folder, second),
    checkpointEvery: 500,
    resume: true,
    identity: { seed, steps },
    resumeCommand: `node cli/eval.js --recall --steps ${steps} --folder ${folder} --seed ${seed}`,
  });
  console.log(second === 'tree' ? 'With a tree layer:' : 'With full attention:');
  const { interrupted } = await trainer.run();
  trainer.release();
  return interrupted ? null : model;
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

/** Texts that no training run sees. */
const textsOf = (length: number, seed: number) =>
  Array.from({ length: TEXTS }, (_, sample) => recallText(length, { pairs: PAIRS, seed: seed + 1, sample }));

async function printAccuracy(tree: Transformer, full: Transformer, seed: number): Promise<void> {
  const own = tree.config.layers.at(-1)!;
  const beam = (beam: number) => withTree(tree.config.layers, { ...own.tree!, beam }, own.window);
  const models: [string, Transformer][] = [
    ['trained with full attention', full],
    ['… tree with beam 4', await seeingWith(full, beam(4))],
    ['… tree with beam 8', await seeingWith(full, beam(8))],
    ['… tree with beam 16', await seeingWith(full, beam(16))],
    ['trained with the tree, beam 4', tree],
    ['… beam 8', await seeingWith(tree, beam(8))],
    ['… beam 16', await seeingWith(tree, beam(16))],
    ['… full attention', await seeingWith(tree, full.config.layers)],
  ];
  const lengths = [1, 2, 4, 8].map((times) => times * TRAINED);
  console.log(`\nRight answers to ${TEXTS * PAIRS} questions; trained at up to ${TRAINED} tokens:\n`);
  console.log(`| | ${lengths.join(' | ')} |\n|---|${lengths.map(() => '---|').join('')}`);
  for (const [name, model] of models) {
    const cells: string[] = [];
    for (const length of lengths) cells.push(percent(await recallAccuracy(model, textsOf(length, seed))));
    console.log(`| ${name} | ${cells.join(' | ')} |`);
    if (model !== tree && model !== full) model.release();
  }
}

async function printMass(tree: Transformer, full: Transformer, seed: number): Promise<void> {
  const { tree: shape, window } = tree.config.layers.at(-1)!;
  const depths = Array.from({ length: DEPTHS }, (_, i) => `${(50 * i) / DEPTHS}–${(50 * (i + 1)) / DEPTHS} %`);
  console.log('\nShare of full attention’s mass that window and selected leaves hold, by the depth of the key that is asked for'); // prettier-ignore
  console.log('(in brackets: how often the value itself is seen):\n');
  console.log(`| | tokens | ${depths.join(' | ')} |\n|---|---|${depths.map(() => '---|').join('')}`);
  for (const [name, model] of [
    ['trained with the tree', tree],
    ['trained with full attention', full],
  ] as const)
    for (const length of [TRAINED, 8 * TRAINED]) {
      const cells = await masses(model, length, shape!, window!, seed);
      console.log(`| ${name} | ${length} | ${cells.join(' | ')} |`);
    }
}

async function masses(model: Transformer, length: number, tree: TreeConfig, window: number, seed: number) {
  const byDepth = Array.from({ length: DEPTHS }, () => ({ share: 0, seen: 0, count: 0 }));
  for (const text of textsOf(length, seed))
    for (const { question, share, selected } of await recoveredMass(model, text, tree, window)) {
      const cell = byDepth[Math.floor((2 * DEPTHS * question.told) / length)]!;
      cell.share += share;
      cell.seen += Number(selected);
      cell.count++;
    }
  return byDepth.map(({ share, seen, count }) => `${percent(share / count)} (${percent(seen / count)})`);
}
