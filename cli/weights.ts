import { stat } from 'node:fs/promises';
import path from 'node:path';
import { Command, Option } from 'commander';
import { mebibytes } from '../engine/index.ts';
import { openNodeDevice } from '../engine/node.ts';
import { loadTransformer, openGguf, placeKind, saveGguf } from '../llm/folder.ts';
import { ggufModel } from '../llm/gguf.ts';
import { readLlama2c } from '../llm/llama2c.ts';
import { weightErrors } from '../llm/weights.ts';
import { openSource } from '../nn/files.ts';
import { folderFiles } from '../nn/folder.ts';
import { WEIGHT_FORMATS } from '../nn/module.ts';
import type { WeightFormat, Weights } from '../nn/module.ts';
import { main } from './errors.ts';
import { loadLanguage, MODEL } from './generate/load.ts';
import { resolvePath } from './run.ts';

const TYPES = ['F32', 'F16', 'Q8_0'] as const;

const command = new Command('node cli/weights.js')
  .description('What rounding a decoder’s weights to a format costs, tensor by tensor; or writes it as a GGUF file.')
  .argument('<model>', MODEL)
  .addOption(new Option('--weights <format>', 'the format').choices(WEIGHT_FORMATS).default('q8'))
  .option('--gguf <file>', 'write the model here instead (a name that ends in .gguf), with tokenizer and chat template')
  .addOption(new Option('--type <type>', 'with --gguf, of the matrices in it').choices(TYPES).default('F16'))
  .option('--tokenizer <place>', 'with --gguf, if it is not with the model')
  .option('--no-tokenizer', 'with --gguf, none in it: programs that open it can use token ids alone')
  .addHelpText(
    'after',
    `
relative  ‖w − ŵ‖ / ‖w‖ of a tensor w that is kept as ŵ; of f16 and bf16 up to 0.0005 and 0.004, of q8 about 0.005, of q4 0.08
largest   the largest |w − ŵ|

Examples:
  node cli/weights.js models/SmolLM2-135M --weights q4
  node cli/weights.js models/SmolLM2-135M --gguf smollm2.gguf --type Q8_0
`,
  )
  .showHelpAfterError('for example: node cli/weights.js assets/lm --weights q8; all options: --help');

interface Options {
  readonly weights: WeightFormat;
  readonly gguf?: string;
  readonly type: (typeof TYPES)[number];
  /** False for none. */
  readonly tokenizer?: string | boolean;
}

await main(async () => {
  command.parse();
  const model = resolvePath(command.args[0]!);
  const options = command.opts<Options>();
  const given = (name: string) => command.getOptionValueSource(name) === 'cli';
  const stray = (options.gguf === undefined ? ['type', 'tokenizer'] : ['weights']).find(given);
  if (stray === 'weights')
    throw new Error('[weights] --weights is of the table of errors; what a GGUF file keeps weights in says --type');
  if (stray)
    throw new Error(
      `[weights] --${options.tokenizer === false ? 'no-tokenizer' : stray} is of --gguf, which is not given`,
    );
  if (options.gguf !== undefined) return writeGguf(model, { ...options, gguf: options.gguf });
  const { file, source } = await openWeights(model);
  try {
    console.log(`relative largest  tensor, kept in ${options.weights}`);
    for await (const { name, shape, relative, largest } of weightErrors(source, options.weights))
      console.log(`${relative.toExponential(2)}  ${largest.toExponential(2)}  ${name} (${shape.join(', ')})`);
  } finally {
    await file.close();
  }
});

async function writeGguf(model: string, { gguf, type, tokenizer: place }: Options & { gguf: string }): Promise<void> {
  if (!/\.gguf$/i.test(gguf)) throw new Error(`[weights] --gguf ${gguf}: programs know such a file by its name; let it end in .gguf`); // prettier-ignore
  const name = path.basename(path.resolve(model)).replace(/\.(gguf|bin)$/i, '');
  if (place === false) await saveGguf(await loadTransformer(await openNodeDevice(), model), gguf, { type, name });
  else {
    const given = typeof place === 'string' ? place : undefined;
    const { model: loaded, ...tokenizer } = await loadLanguage(model, { weights: 'f32', tokenizer: given });
    await saveGguf(loaded, gguf, { type, name, tokenizer });
  }
  const { size } = await stat(gguf);
  console.log(`${gguf}: ${mebibytes(size)}, matrices in ${type}, ${place === false ? 'no tokenizer' : 'with its tokenizer'}`); // prettier-ignore
}

/** A model's weights, and the file to close. */
async function openWeights(model: string): Promise<{ file: { close(): Promise<void> }; source: Weights }> {
  const kind = await placeKind(model);
  if (kind === 'gguf') {
    const file = await openGguf(model);
    return { file, source: (await ggufModel(file)).weights };
  }
  if (kind === 'llama2c') {
    const file = await openSource(model);
    return { file, source: (await readLlama2c(file)).weights };
  }
  const file = await folderFiles(model).weights('', 'model');
  return { file, source: file };
}
