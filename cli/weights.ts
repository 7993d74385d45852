import path from 'node:path';
import { Command, Option } from 'commander';
import { openNodeDevice } from '../engine/node.ts';
import { loadTransformer, openGguf, saveGguf } from '../llm/folder.ts';
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

const command = new Command('node cli/weights.js')
  .description('What rounding a decoder’s weights to a format costs, tensor by tensor; or writes it as a GGUF file.')
  .argument('<model>', MODEL)
  .addOption(new Option('--weights <format>', 'the format').choices(WEIGHT_FORMATS).default('q8'))
  .option('--gguf <file>', 'write the model here instead, with its tokenizer and chat template')
  .addOption(new Option('--type <type>', 'of the matrices in it').choices(['F32', 'F16', 'Q8_0']).default('F16'))
  .option('--tokenizer <place>', 'of --gguf, if it is not with the model')
  .option('--no-tokenizer', 'none in it: programs that open it can use token ids alone')
  .addHelpText(
    'after',
    `
relative  ‖w − ŵ‖ / ‖w‖ of a tensor w that is kept as ŵ; of f16 and bf16 up to 0.0005 and 0.004, of q8 about 0.005, of q4 0.08
largest   the largest |w − ŵ|

Examples:
  node cli/weights.js models/SmolLM2-135M --weights q4
  node cli/weights.js models/SmolLM2-135M --gguf smollm2.gguf --type Q8_0
`,
  );

await main(async () => {
  command.parse();
  const model = resolvePath(command.args[0]!);
  const {
    weights,
    gguf,
    type,
    tokenizer: place,
  } = command.opts<{
    weights: WeightFormat;
    gguf?: string;
    type: 'F32' | 'F16' | 'Q8_0';
    tokenizer?: string | boolean;
  }>();
  if (gguf !== undefined) {
    const name = path.basename(path.resolve(model)).replace(/\.(gguf|bin)$/, '');
    if (place === false) return saveGguf(await loadTransformer(await openNodeDevice(), model), gguf, { type, name });
    const given = typeof place === 'string' ? place : undefined;
    const { model: loaded, ...tokenizer } = await loadLanguage(model, { weights: 'f32', tokenizer: given });
    return saveGguf(loaded, gguf, { type, name, tokenizer });
  }
  const { file, source } = await openWeights(model);
  try {
    for await (const { name, shape, relative, largest } of weightErrors(source, weights))
      console.log(`${relative.toExponential(2)}  ${largest.toExponential(2)}  ${name} (${shape.join(', ')})`);
  } finally {
    await file.close();
  }
});

/** A model's weights, and the file to close. */
async function openWeights(model: string): Promise<{ file: { close(): Promise<void> }; source: Weights }> {
  if (model.endsWith('.gguf')) {
    const file = await openGguf(model);
    return { file, source: (await ggufModel(file)).weights };
  }
  if (model.endsWith('.bin')) {
    const file = await openSource(model);
    return { file, source: (await readLlama2c(file)).weights };
  }
  const file = await folderFiles(model).weights('', 'model');
  return { file, source: file };
}
