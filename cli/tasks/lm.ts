/** The language model task: a decoder learns to predict the next token of packed documents. */
import { cp, readdir } from 'node:fs/promises';
import path from 'node:path';
import type { Device } from '../../engine/index.ts';
import { CORPORA, divide, hashTexts, readTexts, tokenize } from '../../llm/corpus.ts';
import type { Text } from '../../llm/corpus.ts';
import { loadTransformer, saveTransformer } from '../../llm/folder.ts';
import { generate } from '../../llm/generate.ts';
import { Transformer } from '../../llm/model.ts';
import { Packing } from '../../llm/packing.ts';
import { countingLosses, heldOutLoss, NextTokenTask } from '../../llm/training.ts';
import { cl100k, readTokenizer } from '../../llm/tokenizer.ts';
import type { Tokenizer } from '../../llm/tokenizer.ts';
import { folderFiles } from '../../nn/folder.ts';
import { readJson } from '../../nn/model_files.ts';
import { reporter } from '../../nn/progress.ts';
import { Trainer } from '../../nn/trainer.ts';
import { ConfigError } from '../config.ts';
import type { Config } from '../config.ts';
import { recordRun, resolvePath, writeText } from '../run.ts';
import type { TaskContext } from '../run.ts';
import { appendValidation, drawLosses, RunRecord, trainerOptions, withAverages } from './pretraining.ts';

/** The longest n-grams that are counted, to compare with. */
const LONGEST = 3;
/** Tokens of training in which they are counted: they take the host's memory. */
const COUNTED = 4_000_000;

export async function trainLm(
  config: Config<'lm'>,
  device: Device,
  prepare: () => Promise<TaskContext>,
): Promise<void> {
  if (config.length % 32 !== 0)
    throw new ConfigError(`length is ${config.length}; it must be a multiple of 32, at which documents begin`);
  const tokenizer =
    config.tokenizer === 'cl100k' ? await cl100k() : await readTokenizer(folderFiles(tokenizerFolder(config)));
  const model = await makeModel(config, device);
  check(config, model, tokenizer);
  const texts = await loadTexts(config);
  const data = prepareData(texts, config, model, tokenizer);
  await train(model, tokenizer, data, config, await prepare());
  model.release();
}

/** Where its two files are. */
const tokenizerFolder = ({ model, tokenizer }: Config<'lm'>): string => resolvePath(tokenizer ?? model);

/** What a text begins with: where the tokenizer names nothing, the token that ended the one before. */
function beginOf(tokenizer: Tokenizer): readonly number[] {
  const begin = tokenizer.encode('', { begin: true });
  return begin.length > 0 ? begin : tokenizer.ends.slice(0, 1);
}

async function makeModel({ model: folder, start, seed, memory }: Config<'lm'>, device: Device): Promise<Transformer> {
  const source = resolvePath(folder);
  const json = await readJson(folderFiles(source), 'config.json');
  let model = Transformer.fromConfig(device, json, path.join(source, 'config.json'));
  if (start === null) model.initialize(seed);
  else {
    const started = await loadTransformer(device, resolvePath(start));
    if (JSON.stringify(started.config) !== JSON.stringify(model.config))
      throw new ConfigError(`start: ${start} and ${folder} (model) hold models of different configurations`);
    model.release();
    model = started;
  }
  model.setCheckpointing(memory.checkpointing);
  return model;
}

/** Throws where configuration, model and tokenizer don't fit. */
function check({ length, model: folder, data, sample }: Config<'lm'>, model: Transformer, tokenizer: Tokenizer): void {
  const { context, vocabulary } = model.config;
  if (length > context)
    throw new ConfigError(
      `length is ${length}, and the model in ${folder} is for ${context} tokens (max_position_embeddings)`,
    );
  if (tokenizer.size > vocabulary)
    throw new ConfigError(
      `the tokenizer has ${tokenizer.size} tokens, the model in ${folder} ${vocabulary} (vocab_size): they don't belong together`,
    );
  if (data.corpora.length + data.files.length === 0)
    throw new ConfigError(
      `there is nothing to train on: give data.corpora (${Object.keys(CORPORA).join(', ')}) or data.files`,
    );
  for (const prompt of sample.prompts) {
    const count = tokenizer.encode(prompt).length + 1;
    if (count + sample.tokens > context)
      throw new ConfigError(
        `sample.prompts: "${prompt.slice(0, 40)}" has ${count} tokens; with ${sample.tokens} more (sample.tokens) that is over the model's context of ${context}`,
      );
  }
}

/** The texts that a configuration names. */
export async function loadTexts({ data: { corpora, files, document } }: Config<'lm'>): Promise<Text[]> {
  const named = await Promise.all(corpora.map((name) => CORPORA[name]()));
  return [...named.flat(), ...(files.length > 0 ? await readTexts(files.map(resolvePath), { size: document }) : [])];
}

interface Data {
  readonly training: Packing;
  readonly heldOut: Packing;
  /** Bytes of the held-out texts. */
  readonly bytes: number;
  /** Nats a token of n-grams from 1 on. */
  readonly counting: readonly number[];
  readonly hash: string;
  /** For the run's record. */
  readonly record: Readonly<Record<string, unknown>>;
}

function prepareData(texts: readonly Text[], config: Config<'lm'>, model: Transformer, tokenizer: Tokenizer): Data {
  const divided = divide(texts, config.data.heldOut);
  const begin = beginOf(tokenizer);
  const tokensOf = (some: readonly Text[], what: string) => {
    const report = reporter(what);
    const onDone = (done: number) => report(done, some.length);
    return tokenize(
      some,
      { encode: tokenizer.encode, ends: tokenizer.ends, begin },
      { vocabulary: model.config.vocabulary, onDone },
    );
  };
  const training = tokensOf(divided.training, 'Documents tokenized');
  const heldOut = tokensOf(divided.heldOut, 'Held-out documents tokenized');
  // What looks at a sequence's beginning, or at a tree over it, would see another document.
  const alone = model.config.layers.some(({ sinks, tree }) => sinks > 0 || tree !== null);
  const packed = [training, heldOut].map((documents) => new Packing(documents, { length: config.length, alone }));
  const describe = (some: readonly Text[], packing: Packing) => ({
    documents: some.length,
    bytes: some.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0),
    tokens: packing.tokens,
    sequences: packing.count,
    filled: Number((packing.tokens / (packing.count * packing.length)).toFixed(4)),
  });
  const record = { training: describe(divided.training, packed[0]!), heldOut: describe(divided.heldOut, packed[1]!) };
  console.log(
    `${record.training.documents} documents of ${record.training.tokens} tokens in ${record.training.sequences} sequences, ` +
      `${(100 * record.training.filled).toFixed(1)} % filled; ${record.heldOut.documents} documents of ${record.heldOut.tokens} tokens held out`,
  );
  return {
    training: packed[0]!,
    heldOut: packed[1]!,
    bytes: record.heldOut.bytes,
    counting: countingLosses(beginning(training), heldOut, { order: LONGEST, vocabulary: model.config.vocabulary }),
    hash: hashTexts(divided),
    record,
  };
}

async function train(
  model: Transformer,
  tokenizer: Tokenizer,
  data: Data,
  config: Config<'lm'>,
  context: TaskContext,
): Promise<void> {
  const { folder } = context;
  const source = resolvePath(config.model);
  const starts = config.start === null ? [] : await readdir(resolvePath(config.start));
  const files = [
    path.join(source, 'config.json'),
    ...(config.tokenizer === 'cl100k' ? [] : [path.join(tokenizerFolder(config), 'tokenizer.json')]),
    ...starts
      .filter((file) => file.endsWith('.safetensors'))
      .sort()
      .map((file) => path.join(resolvePath(config.start!), file)),
  ];
  const inputs = { ...(await recordRun(context, files)), data: data.hash };
  const parameters = model.namedParameters();
  const unit = (loss: number) => ({ loss, bits: (loss * data.heldOut.tokens) / data.bytes / Math.LN2 });
  const counting = Object.fromEntries(data.counting.map((loss, i) => [`${i + 1}-grams`, unit(loss)]));
  const record = await RunRecord.open(folder, {
    config,
    data: data.record,
    parameters: [...parameters.values()].reduce((sum, { size }) => sum + size, 0),
    counting, // nats a token, bits a byte of the held-out texts
  });

  const task = new NextTokenTask(model, data.training, { ...config, ...config.tree });
  const options = trainerOptions(config, context, inputs);
  const perStep = Math.round((data.training.tokens / data.training.count) * config.batch * config.accumulate);
  const some = spread(data.heldOut.count, config.validation.sequences);
  const show = ({ loss, bits }: ReturnType<typeof unit>) =>
    `${loss.toFixed(3)} nats a token (${bits.toFixed(3)} bits a byte)`;
  const { every, prompts } = config.sample;
  const trainer = new Trainer({
    ...options,
    modules: { '': model },
    forward: (pass) => task.loss(pass),
    optimizer: {
      ...options.optimizer,
      // Norms and biases don't decay.
      group: (name) => (parameters.get(name)!.shape.length < 2 ? { decay: 0 } : {}),
    },
    callbacks: [
      {
        every: config.validation.every,
        run: (step, running) =>
          withAverages(running, async () => {
            const losses = unit(await heldOutLoss(model, data.heldOut, config.batch, some));
            await appendValidation(folder, step, { tokens: step * perStep, ...losses });
            await record.write({ steps: step, tokens: step * perStep });
            console.log(`step ${step}, ${step * perStep} tokens: ${show(losses)} on ${some.length} held-out sequences`);
          }),
      },
      ...(every > 0 && prompts.length > 0
        ? [
            {
              every,
              run: (step: number, running: Trainer) =>
                withAverages(running, () => writeSamples(model, tokenizer, config, step, folder)),
            },
          ]
        : []),
    ],
  });
  const { interrupted } = await trainer.run();
  if (!interrupted) {
    trainer.average?.swap();
    const heldOut = unit(await heldOutLoss(model, data.heldOut, config.batch));
    await record.write({ steps: config.steps, tokens: config.steps * perStep, heldOut });
    const target = path.join(folder, 'model');
    await saveTransformer(model, source, target, { dtype: 'F16' });
    await copyTokenizer(config, target);
    await drawLosses(folder, 'language model', ['loss', 'next_token', 'selection']);
    if (prompts.length > 0) await writeSamples(model, tokenizer, config, config.steps, folder);
    console.log(
      [
        `On ${data.heldOut.tokens} tokens of documents held out: ${show(heldOut)}.`,
        ...Object.entries(counting).map(
          ([name, losses]) =>
            `Counting ${name} gives ${show(losses)}${name === '1-grams' ? ': the unigram entropy' : ''}.`,
        ),
        `The model is in ${target}.`,
      ].join('\n'),
    );
  }
  trainer.release();
}

/** The first documents, up to COUNTED tokens. */
function beginning(documents: readonly Int32Array[]): readonly Int32Array[] {
  let tokens = 0;
  const end = documents.findIndex(({ length }) => (tokens += length) > COUNTED);
  return end < 0 ? documents : documents.slice(0, end + 1);
}

/** `count` numbers below `total`, or all, evenly spread. */
function spread(total: number, count: number): number[] {
  const taken = Math.min(total, count);
  return Array.from({ length: taken }, (_, i) => Math.floor((i * total) / taken));
}

/** Continues every prompt; a text begins as in training. */
async function writeSamples(
  model: Transformer,
  tokenizer: Tokenizer,
  { sample, seed }: Config<'lm'>,
  step: number,
  folder: string,
): Promise<void> {
  const begin = beginOf(tokenizer);
  const prompts = sample.prompts.map((prompt) => [...begin, ...tokenizer.encode(prompt)]);
  const options = { maxTokens: sample.tokens, temperature: sample.temperature, seed, ends: tokenizer.ends, tokenizer };
  const texts = [...sample.prompts];
  for await (const { prompt, text } of generate(model, prompts, options)) texts[prompt]! += text;
  const shown = sample.prompts.map((prompt, i) => `>>> ${prompt}\n${texts[i]!}\n`);
  await writeText(
    path.join(folder, `samples-${String(step).padStart(6, '0')}.txt`),
    `After ${step} steps\n\n${shown.join('\n')}`,
  );
}

/** A tokenizer of another folder than the model's configuration. */
async function copyTokenizer(config: Config<'lm'>, target: string): Promise<void> {
  if (config.tokenizer === null || config.tokenizer === 'cl100k') return;
  for (const file of ['tokenizer.json', 'tokenizer_config.json'])
    await cp(path.join(tokenizerFolder(config), file), path.join(target, file));
}
