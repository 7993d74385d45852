/** A conversation in a terminal: lines that are said, lines that are commands, answers as they come. */
import { closest } from 'fastest-levenshtein';
import { z } from 'zod';
import { RoomError } from '../../llm/chat.ts';
import type { Chat, Message } from '../../llm/chat.ts';
import type { Matcher } from '../../llm/grammar/index.ts';
import type { GenerateOptions } from '../../llm/generate.ts';
import { complaint } from '../complaint.ts';
import { matcherOf } from '../generate/grammar.ts';
import { Speed } from '../generate/speed.ts';
import { readJson } from '../grammar/tokens.ts';
import { writeText } from '../run.ts';

const HELP = `
/system TEXT   what the model is told before the conversation; begins it anew. Without TEXT: nothing
/schema FILE   answers are JSON that satisfies the JSON schema in FILE. Without FILE: free again
/save FILE     saves the conversation
/load FILE     goes on with a saved conversation
/reset         forgets the conversation; what the model is told stays
/help          shows this
/quit          leaves, as Ctrl-D does; Ctrl-C stops an answer
Everything else is said to the model; // at the beginning says a line that begins with /.`.trim();

const conversation = z.array(z.strictObject({ role: z.enum(['system', 'user', 'assistant']), content: z.string() }));

/** Messages of a file, as `/save` writes them. Throws, naming file and place. */
export async function readMessages(file: string): Promise<Message[]> {
  const json: unknown = await readJson(file);
  const result = conversation.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const place = issue.path.length > 0 ? issue.path.join('.') : 'the file';
  throw new Error(`[chat] ${file}: ${place} ${complaint(issue, json)}; a list of {"role": "user", "content": "…"} is needed`); // prettier-ignore
}

export class ChatSession {
  readonly #chat: Chat;
  readonly #options: GenerateOptions;
  readonly #write: (text: string) => void;
  readonly #commands: Record<string, (argument: string) => Promise<void> | void>;
  #grammar: Matcher | null = null;
  #stopping: AbortController | null = null;
  /** Whether `/quit` was said. */
  done = false;

  constructor(chat: Chat, options: GenerateOptions, write: (text: string) => void) {
    this.#chat = chat;
    this.#options = options;
    this.#write = write;
    this.#commands = {
      system: (text) => this.system(text),
      schema: (file) => this.schema(file),
      save: async (file) => {
        await writeText(named(file, 'save'), `${JSON.stringify(chat.messages, null, 2)}\n`);
        this.#say(`${chat.messages.length} messages in ${file}`);
      },
      load: async (file) => {
        chat.messages = await readMessages(named(file, 'load'));
        this.#say(`${chat.messages.length} messages of ${file}`);
      },
      reset: () => {
        chat.messages = chat.messages.filter(({ role }, i) => i === 0 && role === 'system');
        this.#say('the conversation is forgotten');
      },
      help: () => this.#say(HELP),
      quit: () => void (this.done = true),
    };
  }

  /** Takes a line. What is wrong with it is said. */
  async line(line: string): Promise<void> {
    try {
      if (line.trim() === '') return;
      if (!line.startsWith('/') || line.startsWith('//')) return await this.#answer(line.replace(/^\/\//, '/'));
      const [, name, argument] = /^\/(\S*)\s*([^]*)$/.exec(line)!;
      const command = Object.hasOwn(this.#commands, name!) ? this.#commands[name!] : undefined;
      if (!command)
        throw new Error(`[chat] there is no command /${name}; did you mean /${closest(name!, Object.keys(this.#commands))}? /help shows all`); // prettier-ignore
      await command(argument!.trim());
    } catch (error) {
      // Of what was said, and not of the program: it goes on.
      if (!(error instanceof Error) || !/^\[[\w ]+\]/.test(error.message)) throw error;
      const more = error instanceof RoomError ? '; /reset does so, --context gives more' : '';
      this.#say(`${error.message}${more}`);
    }
  }

  /** Stops the answer; false where none is being given. */
  stop(): boolean {
    this.#stopping?.abort();
    return this.#stopping !== null;
  }

  system(text: string): void {
    this.#chat.messages = text === '' ? [] : [{ role: 'system', content: text }];
    this.#say(text === '' ? 'the model is told nothing' : 'the model is told so; the conversation begins anew');
  }

  async schema(file: string): Promise<void> {
    const { vocabulary } = this.#chat.tokenizer;
    const { maxTokens = 256 } = this.#options;
    this.#grammar = file === '' ? null : await matcherOf({ schema: file }, vocabulary, maxTokens); // as before where it throws
    this.#say(file === '' ? 'answers are free' : `answers satisfy ${file}`);
  }

  async #answer(text: string): Promise<void> {
    const speed = new Speed();
    this.#stopping = new AbortController();
    const options = {
      ...this.#options,
      signal: this.#stopping.signal,
      onPrefill: (done: number, total: number) => speed.prefill(done, total),
      ...(this.#grammar && { grammar: this.#grammar }),
    };
    let answer = '';
    try {
      for await (const event of this.#chat.ask(text, options)) {
        speed.event(event);
        const piece = answer === '' ? event.text.trimStart() : event.text;
        answer += piece;
        this.#write(piece);
      }
      this.#say(`\n${speed.summary()}`);
    } finally {
      this.#stopping = null;
    }
  }

  #say(text: string): void {
    this.#write(`${text}\n`);
  }
}

function named(file: string, command: string): string {
  if (file === '') throw new Error(`[chat] /${command} needs the name of a file`);
  return file;
}
