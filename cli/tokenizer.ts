import path from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { END, trainTokenizer } from '../llm/bpe.ts';
import { divide } from '../llm/corpus.ts';
import { makeFolder } from '../nn/files.ts';
import { ConfigError, loadConfig } from './config.ts';
import { main } from './errors.ts';
import { writeText } from './run.ts';

const command = new Command('node cli/tokenizer.js')
  .description(
    'Trains a byte-level BPE tokenizer on the texts of a language model’s configuration, without those that it holds out,\n' +
      'and writes tokenizer.json and tokenizer_config.json. The model’s config.json must have as many tokens (vocab_size).',
  )
  .argument('<config>', 'a YAML file with the task lm')
  .argument('[key=value...]', 'overrides of its keys')
  .requiredOption('--out <folder>', 'where the two files go')
  .option('--size <tokens>', 'bytes, merges and the token that ends a text', (text) => {
    const value = Number(text);
    if (!Number.isInteger(value)) throw new InvalidArgumentError('a whole number is needed.');
    return value;
  }, 2048)
  .addHelpText('after', '\nExample:\n  node cli/tokenizer.js assets/configs/lm.yaml --size 2048 --out assets/lm     how assets/lm/tokenizer.json was made\n'); // prettier-ignore

await main(async () => {
  command.parse();
  const { out, size } = command.opts<{ out: string; size: number }>();
  const [file, ...overrides] = command.args;
  const config = await loadConfig(file!, overrides);
  if (config.task !== 'lm') throw new ConfigError(`${file}: task must be lm, not ${config.task}`);
  const { loadTexts } = await import('./tasks/lm.ts');
  const { training } = divide(await loadTexts(config), config.data.heldOut);
  const tokenizer = trainTokenizer(training.map(({ text }) => text), size); // prettier-ignore
  await makeFolder(out);
  const settings = { tokenizer_class: 'PreTrainedTokenizerFast', add_prefix_space: false, clean_up_tokenization_spaces: false, bos_token: END, eos_token: END }; // prettier-ignore
  await writeText(path.join(out, 'tokenizer.json'), `${JSON.stringify(tokenizer)}\n`);
  await writeText(path.join(out, 'tokenizer_config.json'), `${JSON.stringify(settings, null, 2)}\n`);
  console.log(`${size} tokens of ${training.length} texts: ${path.join(out, 'tokenizer.json')}`);
});
