/** `npm run evaluate`: what the base model can do, and what DreamBooth learns on it, in numbers and pictures. */
import path from 'node:path';
import { Command } from 'commander';
import { distance } from 'fastest-levenshtein';
import { loadStableDiffusion } from '../diffusion/folder.ts';
import { pictureSize } from '../diffusion/pipeline.ts';
import { loadWorld } from '../diffusion/world.ts';
import { openNodeDevice } from '../engine/node.ts';
import { makeFolder } from '../nn/files.ts';
import { reporter } from '../nn/progress.ts';
import { ConfigError, describeSchema, readConfig } from './config.ts';
import { main } from './errors.ts';
import { evaluateBase } from './evaluate/base.ts';
import { EVALUATION, parseEvaluation } from './evaluate/config.ts';
import { evaluateDreamBooth } from './evaluate/dreambooth.ts';
import { originOf } from './evaluate/origin.ts';
import { interruptible, resolvePath, ROOT } from './run.ts';

const PARTS = ['base', 'dreambooth'] as const;

const DEFAULT = path.join('assets', 'configs', 'evaluation.yaml');

const command = new Command('node cli/evaluate.js')
  .description(
    `Judges a model, in two parts. base: how well its autoencoder keeps pictures
that it never saw, whether it composes a name and a style that it never saw
together, and a sheet of 48 prompts. dreambooth: three cats that it never saw,
learned from four pictures each with several seeds, against the untuned model,
a memoriser and textual inversion, and with parts of the method left out.

Measures and floors are in diffusion/measures.ts. Pictures, trained runs and
their scores are kept in the folder: called again, after Ctrl-C, a crash or a
kill, it goes on where it was. Without a GPU all of it takes hours.`,
  )
  .argument('[part or key=value...]', 'base or dreambooth (both by default), and changes to the configuration')
  .option('--model <folder>', 'the model (the same as model=<folder>)')
  .option('--config <file>', 'the configuration', DEFAULT)
  .option('--folder <folder>', 'where the results are kept; one for each model', 'runs/evaluate')
  .addHelpText(
    'after',
    `
Examples:
  node cli/evaluate.js                                        everything, on assets/base
  node cli/evaluate.js base --model runs/pretrain/diffusion/model --folder runs/evaluate-mine
  node cli/evaluate.js base base.pairs=20 --folder runs/try   a first look: 20 of the 200 held-out pairs
  node cli/evaluate.js dreambooth "dreambooth.subjects=[emojione]" "dreambooth.seeds=[1]"     one cat, one seed, every variant

What the folder holds:
  base.md, base.json, base-sheet.png
  dreambooth.md, dreambooth.json, dreambooth.png, dreambooth-<subject>.png: of the runs that are done
  base/        what was drawn for it
  dreambooth/  a folder for each run, <variant>-<subject>-<seed>: after/, metrics.csv, scores.json

Keys of the configuration, with their defaults (${DEFAULT} has others):
${describeSchema(EVALUATION)}
`,
  );

await main(async () => {
  command.parse();
  const options = command.opts<{ model?: string; config: string; folder: string }>();
  const parts = command.args.filter((one) => !one.includes('='));
  const stray = parts.find((one) => !PARTS.some((part) => part === one));
  if (stray !== undefined) {
    const nearest = PARTS.toSorted((a, b) => distance(a, stray) - distance(b, stray))[0]!;
    throw new ConfigError(
      `there is no part "${stray}"; the parts are ${PARTS.join(' and ')}: did you mean ${nearest}?`,
    );
  }
  const overrides = command.args.filter((one) => one.includes('='));
  if (options.model !== undefined) overrides.push(`model=${JSON.stringify(options.model)}`);
  const file = options.config === DEFAULT ? path.join(ROOT, DEFAULT) : options.config;
  const config = parseEvaluation(await readConfig(file), file, overrides);
  const { folder } = options;
  const device = await openNodeDevice();
  console.log(`Adapter: ${device.profile.description}`);
  const model = await loadStableDiffusion(device, resolvePath(config.model));
  const quoted = process.argv.slice(2).map((one) => (/^[\w./=-]+$/.test(one) ? one : `'${one}'`));
  const resumeCommand = ['node cli/evaluate.js', ...quoted].join(' ');
  await makeFolder(folder);
  const world = await interruptible({ resumeCommand }, () =>
    loadWorld(config.cache, {
      name: config.world,
      size: pictureSize(model),
      onProgress: reporter('Pictures rendered'),
    }),
  );
  const origin = await originOf(model.folder, world, config.world);
  const chosen = PARTS.filter((part) => parts.length === 0 || parts.includes(part));
  if (chosen.includes('base'))
    await interruptible({ resumeCommand }, () => evaluateBase(model, world, config, folder, origin));
  for (const part of [model.unet, model.vae, model.textEncoder]) part.release();
  if (chosen.includes('dreambooth')) {
    if (!(await evaluateDreamBooth(device, world, config, folder, origin, resumeCommand))) return; // the trainer has said how to go on
    console.log(`\nAll runs are done: ${path.join(folder, 'dreambooth.md')}`);
  }
});
