/** `node cli/generate.js`: continues a text. */
import { buffer } from 'node:stream/consumers';
import { Command } from 'commander';
import { generate } from '../llm/generate.ts';
import type { GenerationEvent } from '../llm/generate.ts';
import { decodeUtf8 } from '../nn/utf8.ts';
import { main } from './errors.ts';
import { matcherOf } from './generate/grammar.ts';
import type { GrammarSource } from './generate/grammar.ts';
import { loadLanguage, MODEL } from './generate/load.ts';
import { generateOptions, whole, withTextOptions } from './generate/options.ts';
import type { TextOptions } from './generate/options.ts';
import { printPlan } from './generate/plan.ts';
import { Speed } from './generate/speed.ts';

interface Options extends TextOptions, GrammarSource {
  readonly samples: number;
  readonly logprobs?: number;
  readonly json?: boolean;
  readonly plan?: number;
}

const command = withTextOptions(
  new Command('node cli/generate.js')
    .description('Continues a prompt, as it comes.')
    .argument('<model>', MODEL)
    .argument('[prompt]', 'the text to go on from; - reads it from standard input')
    .option('--schema <file>', 'writes JSON that satisfies a JSON schema, whatever the model')
    .option('--grammar <file>', 'writes what a context-free grammar (.gbnf) derives')
    .option('--regex <expression>', 'writes what a regular expression matches')
    .option('--samples <n>', 'continuations, each of noise of its own', whole(1, 1024), 1),
)
  .option('--logprobs <n>', 'a line of JSON a token, with the n most probable ones in its place', whole(0, 20))
  .option('--json', 'a line of JSON a token instead of the text')
  .option(
    '--plan <tokens>',
    'prints what so many tokens, prompt and all, take of memory, and why; no prompt then',
    whole(2),
  )
  .addHelpText(
    'after',
    `
The text goes to standard output, everything else to standard error. How to sample is first what you say, then what the
model's generation_config.json says, else plain sampling at temperature 1. Ctrl-C ends the text.

Examples:
  node cli/generate.js assets/lm "The capital of France"
  node cli/generate.js assets/lm "Once upon a time" --temperature 0.8 --top-p 0.95 --samples 3
  node cli/generate.js stories15M.bin "One day" --tokenizer llama2/tokenizer.bin
  node cli/generate.js assets/lm "Yes or no? " --regex "yes|no" --temperature 0
  node cli/generate.js assets/lm "A pet as JSON: " --schema pet.json
  node cli/generate.js models/Llama-3.2-1B --plan 131072 --weights q8 --cache f16
  node cli/generate.js assets/lm - --stop "\\n\\n" --lookup 8 < article.txt
`,
  )
  .showHelpAfterError('for example: node cli/generate.js assets/lm "The capital of France"; all options: --help');

await main(async () => {
  command.parse();
  const [place, given] = command.processedArgs as [string, string | undefined];
  const options = command.opts<Options>();
  if (options.plan !== undefined && given !== undefined) throw new Error('[generate] --plan takes no prompt: it says what so many tokens take, and writes none'); // prettier-ignore
  if (options.plan !== undefined) return printPlan(place, options.plan, options);
  if (given === undefined) return command.error("error: missing required argument 'prompt'");
  const { samples, logprobs, maxTokens } = options;
  const prompt = given === '-' ? await standardInput() : given;
  const language = await loadLanguage(place, options);
  const { model, tokenizer } = language;
  const grammar = await matcherOf(options, tokenizer.vocabulary, maxTokens);
  const stopping = new AbortController();
  process.once('SIGINT', () => stopping.abort());
  const speed = new Speed();
  const events = generate(model, [prompt], {
    ...generateOptions(options, language),
    samples,
    signal: stopping.signal,
    ...(grammar && { grammar }),
    ...(logprobs !== undefined && { top: logprobs }),
    onPrefill: (done, total) => speed.prefill(done, total),
  });
  const json = options.json || logprobs !== undefined;
  const show = json ? jsonLines : samples > 1 ? oneByOne() : stream;
  for await (const event of events) {
    speed.event(event);
    show(event);
  }
  if (!json) console.error(speed.summary());
});

async function standardInput(): Promise<string> {
  return decodeUtf8(await buffer(process.stdin), (what) => {
    throw new Error(`[generate] standard input ${what}`);
  });
}

type Show = (event: GenerationEvent) => void;

function stream({ text, finish }: GenerationEvent): void {
  process.stdout.write(finish ? `${text}\n` : text);
}

/** Texts whole, as each is done. */
function oneByOne(): Show {
  const texts = new Map<number, string>();
  return ({ sample, text, finish }) => {
    texts.set(sample, (texts.get(sample) ?? '') + text);
    if (finish) console.log(`--- ${sample + 1} (${finish})\n${texts.get(sample)}`);
  };
}

function jsonLines({ sample, token, text, logProbability, top, finish }: GenerationEvent): void {
  console.log(JSON.stringify({ sample, token, text, ...(token !== null && { logProbability, top }), finish }));
}
