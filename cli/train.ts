import path from 'node:path';
import { Command } from 'commander';
import { openNodeDevice } from '../engine/node.ts';
import { profile } from './bench/profile.ts';
import { reportProfiles } from './bench/report.ts';
import { checkTrace } from './bench/trace.ts';
import { ConfigError, describeKeys, loadConfig } from './config.ts';
import { main } from './errors.ts';
import { createRun, ROOT, runConfigFile } from './run.ts';
import type { TaskContext } from './run.ts';

const command = new Command('node cli/train.js')
  .description(
    'Trains by a configuration. Without arguments: teaches the small model in assets/base a grey tabby from four pictures,\n' +
      'and draws it before and after, in two to four minutes without a GPU.',
  )
  .argument(
    '[config or key=value...]',
    'a YAML file (default: assets/configs/dreambooth.yaml), then overrides of its keys',
  )
  .option('--data <folder>', 'your own 3 to 5 pictures (JPEG, PNG, WebP) to learn the subject of')
  .option('--class <name>', 'what the subject is one of, such as "stuffed animal" (with --data)')
  .option('--resume <folder>', 'go on with an interrupted run, such as runs/grey-cat')
  .option('--profile <trace>', "show the device's time by kernel, and write a trace for https://ui.perfetto.dev")
  .addHelpText(
    'after',
    `
Examples:
  node cli/train.js                                            the default run
  node cli/train.js --data photos/rex --class dog              your own subject; its name is then "sks dog"
  node cli/train.js steps=300 optimizer.lr=1e-4 name=slower    the default run, changed
  node cli/train.js assets/configs/vae.yaml                    pre-training (see also: npm run pretrain)
  node cli/train.js assets/configs/lm.yaml                     a small language model, in about ten minutes without a GPU
  node cli/train.js assets/configs/lm.yaml data.corpora=[] 'data.files=[notes.txt, books]'     the same on your own texts
  node cli/train.js steps=3 optimizer.warmup=0 --profile trace.json     where the time goes (each kernel is timed alone: slower)
  node cli/train.js --resume runs/grey-cat                     after Ctrl-C, or a crash: the same bits as never having stopped

Keys of a dreambooth configuration, with their defaults:
${describeKeys('dreambooth')}

Keys of a language model's configuration:
${describeKeys('lm')}
`,
  );

await main(async () => {
  command.parse();
  const options = command.opts<{ data?: string; class?: string; resume?: string; profile?: string }>();
  const [first, ...rest] = command.args;
  const isFile = first !== undefined && !first.includes('=');
  const overrides = isFile ? rest : command.args;
  if (options.resume !== undefined && (command.args.length > 0 || options.data !== undefined))
    throw new ConfigError('--resume goes on with the run as it was configured; leave out everything else');
  if ((options.data === undefined) !== (options.class === undefined))
    throw new ConfigError('--data and --class belong together: --data photos/rex --class dog');
  const resume = options.resume !== undefined;
  const file = resume
    ? runConfigFile(options.resume!)
    : isFile
      ? first
      : path.join(ROOT, 'assets/configs', options.data === undefined ? 'dreambooth.yaml' : 'photos.yaml');
  const quoted = (value: string) => JSON.stringify(value);
  if (options.data !== undefined && options.class !== undefined)
    overrides.unshift(
      `name=${path.basename(path.resolve(options.data)).replace(/[^\w.-]/g, '-')}`,
      `data.folder=${quoted(path.resolve(options.data))}`,
      `data.class=${quoted(options.class)}`,
    );
  const config = await loadConfig(file, overrides);
  if (options.profile !== undefined) await checkTrace(options.profile);
  const budget = config.memory.budget === 0 ? {} : { budget: config.memory.budget * 2 ** 20 };
  // Tasks bring their operations along, whose kernels are read when the device opens.
  const tasks = await import('./tasks/index.ts');
  const device = await openNodeDevice(budget);
  console.log(`Adapter: ${device.profile.description}`);
  const prepare = async (): Promise<TaskContext> => {
    const folder = resume ? path.resolve(options.resume!) : await createRun(config);
    const shown = path.relative('.', folder) || '.';
    console.log(`Run folder: ${shown}`);
    return { device, folder, resume, resumeCommand: `node cli/train.js --resume ${shown}` };
  };
  const work = () => tasks.run(config, device, prepare);
  if (options.profile === undefined) await work();
  else await reportProfiles(device, { [config.name]: await profile(device, work) }, options.profile, console.log);
});
