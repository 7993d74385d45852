import path from 'node:path';
import { HostRandom, randomKey } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { add, affine } from '../../kernels/index.ts';
import type { LayerConfig, TreeConfig } from '../../llm/config.ts';
import type { Transformer } from '../../llm/model.ts';
import type { RecallText } from '../../llm/recall.ts';
import { recallAccuracy, recallLosses, recallModel, recallText, recoveredMass, seeingWith, withTree } from '../../llm/recall.ts'; // prettier-ignore
import { schedule } from '../../nn/schedule.ts';
import { Trainer } from '../../nn/trainer.ts';
import type { Losses } from '../../nn/trainer.ts';

/** Tokens of a pass. */
const PASS = 2048;
/** Tokens for each pair of a text of training, and of the shortest one that is measured. */
const SPARSITY = 16;
const RATE = 4e-3;
const DEPTHS = 5;

export interface RecallOptions {
  readonly steps: number;
  readonly folder: string;
  readonly seed: number;
  /** Tokens of the longest texts of training, one of `RECALL_LENGTHS`. */
  readonly length: number;
  /** Texts of each length that models are measured with. */
  readonly samples: number;
}

/** Tokens of texts that a pass takes in turn: short ones are learned first. */
const lengthsOf = (length: number) => [length / 4, length / 2, length];
/** From where a quarter of it has leaves to choose from, to where there are as many pairs as keys. */
export const RECALL_LENGTHS: readonly number[] = [128, 256, 512];

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
  await printAccuracy(trained, layers, options);
  await printMass(trained, layers.tree.at(-1)!, options);
  for (const { model } of trained) model.release();
}

async function train(
  device: Device,
  { name, folder: own, second, selection: weight, dense }: Run,
  { steps, folder, seed, length: longest, samples }: RecallOptions,
): Promise<Transformer | null> {
  const model = await recallModel(device, second, 8 * longest, seed);
  const lengths = lengthsOf(longest);
  const trainer = new Trainer({
    modules: { '': model },
    forward: ({ step, pass }): Losses => {
      const length = lengths[pass % lengths.length]!;
      const count = PASS / length;
      const texts = Array.from({ length: count }, (_, b) =>
        recallText(length, { pairs: length / SPARSITY, seed, sample: (PASS / lengths[0]!) * pass + b }),
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
    identity: { seed, steps, length: longest },
    resumeCommand: `node cli/eval.js --recall --steps ${steps} --length ${longest} --samples ${samples} --folder ${folder} --seed ${seed}`,
  });
  console.log(`Trained with ${name}:`);
  const { interrupted } = await trainer.run();
  trainer.release();
  return interrupted ? null : model;
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

type Measured = Pick<RecallOptions, 'length' | 'samples' | 'seed'>;

/** Texts of some times the length of training that no training run sees. */
const textsOf = (times: number, { length, samples, seed }: Measured) =>
  Array.from({ length: samples }, (_, sample) => recallText(times * length, { pairs: length / SPARSITY, seed: seed + 1, sample })); // prettier-ignore

type Sights = Readonly<Record<'tree' | 'full', readonly LayerConfig[]>>;

async function printAccuracy(trained: readonly Trained[], { tree, full }: Sights, measured: Measured): Promise<void> {
  const own = tree.at(-1)!;
  const { length, samples } = measured;
  const times = [1, 2, 4, 8];
  console.log(`\nRight answers to ${(samples * length) / SPARSITY} questions; trained at up to ${length} tokens:\n`);
  console.log(`| trained with | sees | ${times.map((n) => n * length).join(' | ')} |\n|---|---|${times.map(() => '---|').join('')}`); // prettier-ignore
  for (const { name, model } of trained)
    for (const [sight, layers] of [
      ['all', full],
      ...[4, 8, 16].map((beam) => [`beam ${beam}`, withTree(tree, { ...own.tree!, beam }, own.window)] as const),
    ] as const) {
      const seeing = await seeingWith(model, layers);
      const cells: string[] = [];
      for (const n of times) cells.push(percent(await recallAccuracy(seeing, textsOf(n, measured))));
      console.log(`| ${name} | ${sight} | ${cells.join(' | ')} |`);
      seeing.release();
    }
}

async function printMass(
  trained: readonly Trained[],
  { tree, window }: LayerConfig,
  measured: Measured,
): Promise<void> {
  const depths = Array.from({ length: DEPTHS }, (_, i) => `${(50 * i) / DEPTHS}–${(50 * (i + 1)) / DEPTHS} %`);
  console.log('\nShare of full attention’s mass that window and selected leaves hold, by the depth of the key that is asked for'); // prettier-ignore
  console.log(
    '/ what the leaves with the most would / how often all heads see the value itself; –: no question there:\n',
  );
  console.log(`| trained with | tokens | ${depths.join(' | ')} |\n|---|---|${depths.map(() => '---|').join('')}`);
  for (const { name, model } of trained)
    for (const times of [1, 8]) {
      const cells = await masses(model, textsOf(times, measured), tree!, window!);
      console.log(`| ${name} | ${times * measured.length} | ${cells.join(' | ')} |`);
    }
}

async function masses(model: Transformer, texts: readonly RecallText[], tree: TreeConfig, window: number) {
  const byDepth = Array.from({ length: DEPTHS }, () => ({ share: 0, best: 0, seen: 0, count: 0 }));
  for (const text of texts)
    for (const { question, share, best, selected } of await recoveredMass(model, text, tree, window)) {
      const cell = byDepth[Math.floor((2 * DEPTHS * question.told) / text.ids.length)]!;
      cell.share += share;
      cell.best += best;
      cell.seen += Number(selected);
      cell.count++;
    }
  return byDepth.map(({ share, best, seen, count }) =>
    count === 0 ? '–' : [share, best, seen].map((sum) => percent(sum / count)).join(' / '),
  );
}
