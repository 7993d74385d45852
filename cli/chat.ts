/** `node cli/chat.js`: a conversation with a model in the terminal. */
import { createInterface } from 'node:readline';
import { Command } from 'commander';
import { Chat, ChatTemplate } from '../llm/chat.ts';
import { decodeUtf8 } from '../nn/utf8.ts';
import { ChatSession, readMessages } from './chat/session.ts';
import { main } from './errors.ts';
import { loadLanguage, MODEL } from './generate/load.ts';
import { generateOptions, whole, withTextOptions } from './generate/options.ts';
import type { TextOptions } from './generate/options.ts';

interface Options extends TextOptions {
  readonly system?: string;
  readonly examples?: string;
  readonly schema?: string;
  readonly context: number;
}

const command = withTextOptions(
  new Command('node cli/chat.js')
    .description('A conversation with a model in the terminal.')
    .argument('<model>', MODEL)
    .option('--system <text>', 'what the model is told before the conversation')
    .option('--examples <file>', 'turns that come first, as /save writes them: [{"role": "user", "content": "…"}, …]')
    .option('--schema <file>', 'answers are JSON that satisfies this JSON schema')
    .option('--context <n>', 'tokens that the conversation can have, at most the model’s context', whole(2), 4096),
)
  .addHelpText(
    'after',
    `
The model's own chat template says how turns become tokens; without one a plain dialogue stands in. What you write is
always text: <|im_end|> in it ends nothing. In the conversation, /help shows the commands, Ctrl-C stops an answer.

Examples:
  node cli/chat.js assets/lm
  node cli/chat.js assets/lm --system "You answer in one sentence." --temperature 0.7
  node cli/chat.js qwen3-0.6b-q8_0.gguf --weights q8
  node cli/chat.js assets/lm --schema answer.json --max-tokens 500
  echo "What is the capital of France?" | node cli/chat.js assets/lm --temperature 0
`,
  )
  .showHelpAfterError('for example: node cli/chat.js assets/lm; all options: node cli/chat.js --help');

await main(async () => {
  command.parse();
  const [place] = command.processedArgs as [string];
  const options = command.opts<Options>();
  const language = await loadLanguage(place, options);
  const { model, tokenizer } = language;
  const template = new ChatTemplate(tokenizer, language.chat);
  const { context: capacity, cache: cacheFormat } = options;
  const chat = new Chat(model, tokenizer, template, { capacity, cacheFormat });
  const session = new ChatSession(chat, generateOptions(options, language), (text) => process.stdout.write(text));
  const examples = options.examples === undefined ? [] : await readMessages(options.examples);
  if (options.system !== undefined) session.system(options.system);
  chat.messages = [...chat.messages, ...examples];
  if (options.schema !== undefined) await session.schema(options.schema);
  if (template.kind !== 'own')
    console.log(`${place} has no chat template: ${template.kind === 'plain' ? 'a plain dialogue' : template.kind} stands in for it`); // prettier-ignore

  const terminal = process.stdin.isTTY
    ? createInterface({ input: process.stdin, output: process.stdout, prompt: '> ' })
    : null;
  const interrupt = () => {
    if (session.stop()) return;
    if (!terminal) process.exit(130);
    process.stdout.write('\n/quit or Ctrl-D leaves\n');
    terminal.prompt();
  };
  terminal?.on('SIGINT', interrupt);
  process.on('SIGINT', interrupt);
  if (terminal) console.log('/help shows the commands');
  terminal?.prompt();
  for await (const line of terminal ?? linesOf(process.stdin)) {
    await session.line(line);
    if (session.done) break;
    terminal?.prompt();
  }
});

/** Lines as they come. Throws on one that is not UTF-8: readline would make another text of it in silence. */
async function* linesOf(input: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest: Buffer<ArrayBufferLike> = Buffer.alloc(0);
  let count = 0;
  const text = (bytes: Buffer) => {
    count++;
    return decodeUtf8(bytes, (what) => {
      throw new Error(`[chat] line ${count} of standard input ${what}`);
    }).replace(/\r$/, '');
  };
  for await (const chunk of input) {
    rest = Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      const line = text(rest.subarray(0, end));
      rest = rest.subarray(end + 1);
      yield line;
    }
  }
  if (rest.length > 0) yield text(rest);
}
