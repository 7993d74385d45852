import { Command, Option } from 'commander';
import { openNodeDevice } from '../engine/node.ts';
import { loadTransformer, openGguf, saveGguf } from '../llm/folder.ts';
import { ggufModel } from '../llm/gguf.ts';
import { weightErrors } from '../llm/weights.ts';
import { folderFiles } from '../nn/folder.ts';
import { WEIGHT_FORMATS } from '../nn/module.ts';
import type { WeightFormat, Weights } from '../nn/module.ts';
import { main } from './errors.ts';

const command = new Command('node cli/weights.js')
  .description('What rounding a decoder’s weights to a format costs, tensor by tensor; or writes it as a GGUF file.')
  .argument('<model>', 'a folder in transformers’ layout, or a GGUF file')
  .addOption(new Option('--weights <format>', 'the format').choices(WEIGHT_FORMATS).default('q8'))
  .option('--gguf <file>', 'write the model here instead')
  .addOption(new Option('--type <type>', 'of the matrices in it').choices(['F32', 'F16', 'Q8_0']).default('F16'))
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
  const [model] = command.args as [string];
  const { weights, gguf, type } = command.opts<{
    weights: WeightFormat;
    gguf?: string;
    type: 'F32' | 'F16' | 'Q8_0';
  }>();
  if (gguf !== undefined) {
    const device = await openNodeDevice();
    await saveGguf(await loadTransformer(device, model), gguf, { type });
    return;
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
  const file = await folderFiles(model).weights('', 'model');
  return { file, source: file };
}
