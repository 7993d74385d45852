import { access, constants } from 'node:fs/promises';
import path from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { encodePng, grid } from '../diffusion/pictures.ts';
import { loadStableDiffusion } from '../diffusion/folder.ts';
import { DRAWN_AT_ONCE, drawingSteps, encode, generate } from '../diffusion/pipeline.ts';
import { SAMPLERS } from '../diffusion/schedule.ts';
import type { SamplerName } from '../diffusion/schedule.ts';
import { openNodeDevice } from '../engine/node.ts';
import { makeFolder, reason, writeFileAtomic } from '../nn/files.ts';
import { Progress } from '../nn/progress.ts';
import { pictureName } from './drawing.ts';
import { main } from './errors.ts';
import { rehearse } from './rehearse.ts';
import { resolvePath } from './run.ts';

const whole = (least: number, most: number) => (text: string) => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least || value > most)
    throw new InvalidArgumentError(`a whole number from ${least} to ${most} is needed.`);
  return value;
};
const atLeast = (least: number) => (text: string) => {
  const value = Number(text);
  if (!(text.trim() !== '' && Number.isFinite(value) && value >= least))
    throw new InvalidArgumentError(`a number from ${least} up is needed.`);
  return value;
};

const command = new Command('node cli/sample.js')
  .description('Draws pictures of prompts with a model folder (diffusers’ layout), such as a run’s model/.')
  .argument('<prompt...>', 'what to draw; each prompt gets --count pictures')
  .option('--model <folder>', 'the model', 'assets/base')
  .option('--negative <prompt>', 'what to move away from', '')
  .option('--plain <prompt>', 'the prompt without what is to come out more strongly (with --emphasis)')
  .option('--emphasis <x>', 'how much further to go where the prompt leads beyond the plain one', atLeast(0), 0)
  .option('--count <n>', 'pictures of each prompt, with the seeds seed, seed + 1, …', whole(1, 1000), 4)
  .option('--seed <n>', 'the same seed gives the same picture', whole(0, Number.MAX_SAFE_INTEGER - 1000), 0)
  .option('--steps <n>', 'steps of the sampler, each a pass of the UNet', whole(1, 1000), 8)
  .option(
    '--scale <x>',
    'how closely to follow the prompt (classifier-free guidance); 1: not enforced, in half the time',
    atLeast(1),
    4,
  )
  .addOption(
    new Option('--sampler <name>', 'how to walk from noise to a picture; docs/sampling.md compares them')
      .choices(Object.keys(SAMPLERS))
      .default('dpmpp2m-trailing'),
  )
  .option('--out <folder>', 'where the pictures go', 'runs/samples')
  .addHelpText(
    'after',
    `
Examples:
  node cli/sample.js "cat face" "red heart"
  node cli/sample.js --model runs/grey-cat/model --count 8 "a crying cat, sks style"
  node cli/sample.js --model runs/grey-cat/model "a weary cat, sks style" --plain "a weary cat" --emphasis 0.5
`,
  )
  .showHelpAfterError('for example: node cli/sample.js "cat face" "red heart"; all options: node cli/sample.js --help');

await main(async () => {
  command.parse();
  const prompts = command.args;
  const options = command.opts<{
    model: string;
    negative: string;
    plain?: string;
    emphasis: number;
    count: number;
    seed: number;
    steps: number;
    scale: number;
    sampler: SamplerName;
    out: string;
  }>();
  const { count, seed, steps, scale, sampler, negative, plain, emphasis } = options;
  if ((plain === undefined) !== (emphasis === 0))
    command.error('error: --plain and --emphasis work together: give both, such as --plain "a cat" --emphasis 0.5');
  const device = await openNodeDevice();
  const model = await loadStableDiffusion(device, resolvePath(options.model));
  const shots = prompts.flatMap((prompt) => Array.from({ length: count }, (_, i) => ({ prompt, seed: seed + i })));
  const emphasised = (pictures: number) =>
    plain === undefined ? {} : { emphasis: { plain: Array<string>(pictures).fill(plain), strength: emphasis } };
  const total = drawingSteps(model, shots.length, { steps, sampler });
  for (const prompt of [...prompts, negative, plain ?? '']) encode(model, prompt); // one that is too long is said now
  // Before the drawing, which may take minutes.
  await writableFolder(options.out);
  const pass = Math.min(DRAWN_AT_ONCE, shots.length);
  await rehearse(model, async (copy) => {
    for (const part of new Set([pass, shots.length % DRAWN_AT_ONCE || pass])) {
      const [prompts, seeds] = [Array<string>(part).fill(''), Array<number>(part).fill(0)];
      await generate(copy(), { prompts, seeds, ...emphasised(part), steps: Math.min(steps, 3), scale, sampler });
    }
  });
  console.log(`Drawing ${shots.length} pictures`);
  const progress = new Progress(total, 0, { unit: 'drawing step' });
  const pictures = await generate(model, {
    prompts: shots.map((shot) => shot.prompt),
    negative,
    ...emphasised(shots.length),
    seeds: shots.map((shot) => shot.seed),
    steps,
    scale,
    sampler,
    onStep: (done) => progress.update(done, {}, device.memory.peak),
  }).finally(() => progress.stop());
  for (const [i, picture] of pictures.entries()) {
    const { prompt, seed: own } = shots[i]!;
    await writeFileAtomic(path.join(options.out, pictureName(i, prompt, own)), [await encodePng(picture)]);
  }
  const sheet = path.join(options.out, 'grid.png');
  const rowLabels = prompts.length > 1 || count > 1 ? prompts : [];
  await writeFileAtomic(sheet, [
    await grid(pictures, {
      columns: count,
      rowLabels,
      columnLabels: Array.from({ length: count }, (_, i) => `seed ${seed + i}`),
    }),
  ]);
  console.log(`${pictures.length} pictures in ${options.out}; all of them: ${sheet}`);
});

/** Makes a folder where there is none; throws where no file can be put into it. */
async function writableFolder(folder: string): Promise<void> {
  try {
    await makeFolder(folder);
    // The dot: a file is not a folder.
    await access(`${folder}/.`, constants.W_OK);
  } catch (error) {
    throw new Error(`[sample] cannot make the folder ${folder}: ${reason(error)}`, { cause: error });
  }
}
