import path from 'node:path';
import { HostRandom, randomKey } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { add, affine } from '../../kernels/index.ts';
import type { LayerConfig, TreeConfig } from '../../llm/config.ts';
import type { Transformer } from '../../llm/model.ts';
import { recallAccuracy, recallLosses, recallModel, recallText, recoveredMass, seeingWith, withTree } from '../../llm/recall.ts'; // prettier-ignore
import { schedule } from '../../nn/schedule.ts';
import { Trainer } from '../../nn/trainer.ts';
import type { Losses } from '../../nn/trainer.ts';

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

/** The models that are compared. */
interface Run {
  readonly name: string;
  readonly folder: string;
  readonly second: 'tree' | 'full';
  /** Weight of the loss that teaches to select. */
  readonly selection: number;
  /** Share of the steps, at the beginning, in which the tree's layer sees all. */
  readonly dense: number;
}
const RUNS: readonly Run[] = [
  { name: 'full attention', folder: 'full', second: 'full', selection: 0, dense: 0 },
  { name: 'the tree, untaught', folder: 'tree', second: 'tree', selection: 0, dense: 0 },
  { name: 'the tree, taught', folder: 'taught', second: 'tree', selection: 1, dense: 0 },
  { name: 'the tree, taught, first third dense', folder: 'third', second: 'tree', selection: 1, dense: 1 / 3 },
  { name: 'the tree, taught, all dense', folder: 'all', second: 'tree', selection: 1, dense: 1 },
];

type Trained = Run & { readonly model: Transformer };

/** Trains models with a tree layer and one with full attention, and prints how they do. */
export async function evalRecall(options: RecallOptions): Promise<void> {
  const device = await openNodeDevice();
  console.log(`Adapter: ${device.profile.description}`);
  const trained: Trained[] = [];
  for (const run of RUNS) {
    const model = await train(device, run, options);
    if (!model) return; // the trainer has said how to go on
    trained.push({ ...run, model });
  }
  const layers = {
    full: trained.find(({ second }) => second === 'full')!.model.config.layers,
    tree: trained.find(({ second }) => second === 'tree')!.model.config.layers,
  };
  await printAccuracy(trained, layers, options.seed);
  await printMass(trained, layers.tree.at(-1)!, options.seed);
  for (const { model } of trained) model.release();
}

async function train(
  device: Device,
  { name, folder: own, second, selection: weight, dense }: Run,
  { steps, folder, seed }: RecallOptions,
): Promise<Transformer | null> {
  const model = await recallModel(device, second, CONTEXT, seed);
  const trainer = new Trainer({
    modules: { '': model },
    forward: ({ step, pass }): Losses => {
      const length = LENGTHS[pass % LENGTHS.length]!;
      const count = PASS / length;
      const texts = Array.from({ length: count }, (_, b) =>
        recallText(length, { pairs: length / 16, seed, sample: (PASS / LENGTHS[0]!) * pass + b }),
      );
      const random = weight > 0 ? new HostRandom(randomKey(seed, 'selection'), pass) : null;
      const { answers, selection } = recallLosses(model, texts, { random, dense: step < dense * steps });
      return selection ? { loss: add(answers, affine(selection, weight)), answers, selection } : { loss: answers };
    },
    steps,
    schedule: schedule({ kind: 'cosine', rate: RATE, warmup: Math.min(100, steps), steps, floor: 0.05 }),
    optimizer: { betas: [0.9, 0.98] },
    folder: path.join(folder, own),
    checkpointEvery: 500,
    resume: true,
    identity: { seed, steps },
    resumeCommand: `node cli/eval.js --recall --steps ${steps} --folder ${folder} --seed ${seed}`,
  });
  console.log(`Trained with ${name}:`);
  const { interrupted } = await trainer.run();
  trainer.release();
  return interrupted ? null : model;
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

/** Texts that no training run sees. */
const textsOf = (length: number, seed: number) =>
  Array.from({ length: TEXTS }, (_, sample) => recallText(length, { pairs: PAIRS, seed: seed + 1, sample }));

type Sights = Readonly<Record<'tree' | 'full', readonly LayerConfig[]>>;

async function printAccuracy(trained: readonly Trained[], { tree, full }: Sights, seed: number): Promise<void> {
  const own = tree.at(-1)!;
  const lengths = [1, 2, 4, 8].map((times) => times * TRAINED);
  console.log(`\nRight answers to ${TEXTS * PAIRS} questions; trained at up to ${TRAINED} tokens:\n`);
  console.log(`| trained with | sees | ${lengths.join(' | ')} |\n|---|---|${lengths.map(() => '---|').join('')}`);
  for (const { name, model } of trained)
    for (const [sight, layers] of [
      ['all', full],
      ...[4, 8, 16].map((beam) => [`beam ${beam}`, withTree(tree, { ...own.tree!, beam }, own.window)] as const),
    ] as const) {
      const seeing = await seeingWith(model, layers);
      const cells: string[] = [];
      for (const length of lengths) cells.push(percent(await recallAccuracy(seeing, textsOf(length, seed))));
      console.log(`| ${name} | ${sight} | ${cells.join(' | ')} |`);
      seeing.release();
    }
}

async function printMass(trained: readonly Trained[], { tree, window }: LayerConfig, seed: number): Promise<void> {
  const depths = Array.from({ length: DEPTHS }, (_, i) => `${(50 * i) / DEPTHS}–${(50 * (i + 1)) / DEPTHS} %`);
  console.log('\nShare of full attention’s mass that window and selected leaves hold, by the depth of the key that is asked for'); // prettier-ignore
  console.log('/ what the leaves with the most would / how often all heads see the value itself:\n');
  console.log(`| trained with | tokens | ${depths.join(' | ')} |\n|---|---|${depths.map(() => '---|').join('')}`);
  for (const { name, model } of trained)
    for (const length of [TRAINED, 8 * TRAINED]) {
      const cells = await masses(model, length, tree!, window!, seed);
      console.log(`| ${name} | ${length} | ${cells.join(' | ')} |`);
    }
}

async function masses(model: Transformer, length: number, tree: TreeConfig, window: number, seed: number) {
  const byDepth = Array.from({ length: DEPTHS }, () => ({ share: 0, best: 0, seen: 0, count: 0 }));
  for (const text of textsOf(length, seed))
    for (const { question, share, best, selected } of await recoveredMass(model, text, tree, window)) {
      const cell = byDepth[Math.floor((2 * DEPTHS * question.told) / length)]!;
      cell.share += share;
      cell.best += best;
      cell.seen += Number(selected);
      cell.count++;
    }
  return byDepth.map(({ share, best, seen, count }) =>
    [share, best, seen].map((sum) => percent(sum / count)).join(' / '),
  );
}
