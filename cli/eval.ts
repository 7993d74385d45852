/** `node cli/eval.js`: what models make of long contexts. */
import { Command, InvalidArgumentError } from 'commander';
import { distance } from 'fastest-levenshtein';
import { RULER_TASKS } from '../llm/ruler/tasks.ts';
import type { RulerTask } from '../llm/ruler/tasks.ts';
import type { WeightFormat } from '../nn/module.ts';
import { WEIGHT_FORMATS } from '../nn/module.ts';
import { main } from './errors.ts';
import { evalNeedle } from './eval/needle.ts';
import { evalRecall, RECALL_LENGTHS } from './eval/recall.ts';
import { evalRuler } from './eval/ruler.ts';
import { MODEL } from './generate/load.ts';
import { whole } from './generate/options.ts';

/** A list, each of it once. */
const some =
  <T>(one: (text: string) => T) =>
  (text: string): T[] => [...new Set(text.split(',').map((part) => one(part.trim())))];

function taskOf(text: string): RulerTask {
  const found = RULER_TASKS.find((task) => task === text);
  if (found) return found;
  const nearest = RULER_TASKS.toSorted((a, b) => distance(a, text) - distance(b, text))[0]!;
  throw new InvalidArgumentError(`there is no task "${text}": did you mean ${nearest}?`);
}

function formatOf(text: string): WeightFormat {
  const found = WEIGHT_FORMATS.find((format) => format === text);
  if (!found) throw new InvalidArgumentError(`formats are ${WEIGHT_FORMATS.join(', ')}.`);
  return found;
}

interface Options {
  readonly needle?: boolean;
  readonly ruler?: boolean;
  readonly recall?: boolean;
  readonly length?: number;
  readonly model?: string;
  readonly tokenizer?: string;
  readonly lengths: readonly number[];
  readonly tasks?: readonly RulerTask[];
  readonly samples?: number;
  readonly weights: WeightFormat;
  readonly steps: number;
  readonly folder: string;
  readonly seed: number;
  readonly json?: boolean;
}

const command = new Command('node cli/eval.js')
  .description(
    `What models make of long contexts, in one of three ways:
--needle   an induction head with written weights looks for tokens at 20 depths,
           through a tree layer and through windows alone
--ruler    the 13 tasks of RULER with a model
--recall   trains small models on associative recall, with full attention and with a
           tree layer that is taught to select or not, and compares them at 1 to 8 times the length`,
  )
  .option('--needle', 'needs no model')
  .option(
    '--length <n>',
    `with --needle: tokens (default: 131072); with --recall: of the longest texts of training: ${RECALL_LENGTHS.join(', ')} (default: 256)`,
    whole(64, 131_072),
  )
  .option('--ruler', 'needs --model')
  .option('--model <place>', MODEL)
  .option('--tokenizer <place>', 'of --model, if it is not with it')
  .option('--lengths <list>', 'with --ruler: tokens, the answer’s included', some(whole(64)), [4096])
  .option('--tasks <list>', `with --ruler, all by default: ${RULER_TASKS.join(', ')}`, some(taskOf))
  .option(
    '--samples <n>',
    'with --ruler: texts of each task and length (default: 10); with --recall: texts of each length (default: 16)',
    whole(1),
  )
  .option('--weights <format>', `with --ruler: what weights are kept in: ${WEIGHT_FORMATS.join(', ')}`, formatOf, 'f32')
  .option('--json', 'with --ruler: a line of JSON a text, in place of the table')
  .option('--recall', 'needs no model')
  .option('--steps <n>', 'with --recall: of training each of the five models', whole(1), 600)
  .option(
    '--folder <folder>',
    'with --recall: where the models are kept; called again, it goes on there',
    'runs/recall',
  )
  .option('--seed <n>', 'the same seed gives the same texts', whole(0), 0)
  .addHelpText(
    'after',
    `
Examples:
  node cli/eval.js --needle --length 16384
  node cli/eval.js --ruler --model assets/lm --lengths 256,512 --tasks niah_single_1,vt --samples 5
  node cli/eval.js --recall                                          a quarter of an hour on two processor cores
  node cli/eval.js --recall --length 128 --samples 2 --steps 20 --folder runs/look   a first look, in under a minute
`,
  )
  .showHelpAfterError('for example: node cli/eval.js --needle; all options: --help');

/** Options that one of the ways has and others don't. */
const OWN = {
  needle: ['length', 'seed'],
  ruler: ['model', 'tokenizer', 'lengths', 'tasks', 'samples', 'weights', 'json', 'seed'],
  recall: ['steps', 'length', 'samples', 'folder', 'seed'],
} as const;

await main(async () => {
  command.parse();
  const options = command.opts<Options>();
  const { model, tasks = RULER_TASKS, seed } = options;
  const ways = Object.keys(OWN) as (keyof typeof OWN)[];
  const [way, another] = ways.filter((name) => options[name]);
  if (!way || another) throw new Error('[eval] say one of --needle, --ruler and --recall; --help shows what they do');
  const stray = ways.flatMap((name) => [...OWN[name]]).find((name) => command.getOptionValueSource(name) === 'cli' && !OWN[way].some((own) => own === name)); // prettier-ignore
  if (stray) throw new Error(`[eval] --${stray} is of --${ways.find((name) => OWN[name].some((own) => own === stray))}; --${way} has ${OWN[way].map((own) => `--${own}`).join(', ')}`); // prettier-ignore
  if (way === 'needle') return evalNeedle({ length: options.length ?? 131_072, seed });
  if (way === 'recall') {
    const { length = 256, samples = 16, steps, folder } = options;
    if (!RECALL_LENGTHS.includes(length)) throw new Error(`[eval] --length ${length}: with --recall it is one of ${RECALL_LENGTHS.join(', ')}`); // prettier-ignore
    return evalRecall({ steps, folder, seed, length, samples });
  }
  if (model === undefined) throw new Error('[eval] --ruler needs --model, such as assets/lm with --lengths 256,512');
  return evalRuler({ ...options, samples: options.samples ?? 10, model, tasks, seed });
});
