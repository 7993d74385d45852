/** Conversations: turns as tokens by the model's own template, and a chat that reads each turn once. */
import { Template } from '@huggingface/jinja';
import { readSettings } from '../nn/model_files.ts';
import type { ModelFiles } from '../nn/model_files.ts';
import { generate, Prefix } from './generate.ts';
import type { GenerateOptions, GenerationEvent } from './generate.ts';
import type { Transformer } from './model.ts';
import type { Tokenizer } from './tokenizer.ts';

export interface Message {
  /** `system`, `user`, `assistant`; templates may know others. */
  readonly role: string;
  readonly content: string;
}

/** For models without a template whose tokenizer has the tokens of ChatML. */
const CHATML = `{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`;

/** For models that know no turns: a dialogue in plain text, which is ended where the user would speak. */
const PLAIN = `{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}

{% else %}{{ message.role | capitalize }}: {{ message.content }}
{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}`;

export interface ChatTemplateOptions {
  /** Jinja, as `chat_template` of `tokenizer_config.json` has it; null where the model has none. */
  readonly source: string | null;
  /** Texts of the tokens that begin and end a text, which templates write. */
  readonly bos?: string;
  readonly eos?: string;
}

export class ChatTemplate {
  /** Where the template is from: the model's own, or the one that stands in for it. */
  readonly kind: 'own' | 'ChatML' | 'plain';
  /** Tokens and texts that end an answer, besides the tokens that end a text. */
  readonly ends: readonly number[];
  readonly stop: readonly string[];
  readonly #tokenizer: Tokenizer;
  readonly #template: Template;
  readonly #variables: Readonly<Record<string, unknown>>;
  readonly #anyControl: RegExp;

  constructor(tokenizer: Tokenizer, { source, bos = '', eos = '' }: ChatTemplateOptions) {
    this.#tokenizer = tokenizer;
    this.#anyControl = anyOf([...tokenizer.control.keys()]);
    const chatml = ['<|im_start|>', '<|im_end|>'].every((name) => tokenizer.control.has(name));
    this.kind = source !== null ? 'own' : chatml ? 'ChatML' : 'plain';
    try {
      this.#template = new Template(source ?? (chatml ? CHATML : PLAIN));
    } catch (error) {
      throw new Error(`[chat] the model's chat template cannot be read: ${(error as Error).message}`, { cause: error });
    }
    this.#variables = { bos_token: bos, eos_token: eos };
    this.stop = this.kind === 'plain' ? ['\nUser:', '\nSystem:'] : [];
    this.ends = this.kind === 'plain' ? [] : this.#turnEnds();
  }

  /** The template in a model's folder, else one that stands in for it. */
  static async read(files: ModelFiles, tokenizer: Tokenizer): Promise<ChatTemplate> {
    return new ChatTemplate(tokenizer, await readChatTemplate(files));
  }

  /**
   * The tokens of a conversation, with the beginning of an answer behind it (`answer`). Only what the template itself writes
   * becomes special tokens: in the messages' contents their names are text like any other. So are those of other added
   * tokens, such as `<think>`, but for what the model itself said. Throws where the template refuses the conversation.
   */
  encode(messages: readonly Message[], { answer = true } = {}): number[] {
    // A character that occurs nowhere is put into contents wherever they could take part in the name of a special token.
    const mark = unusedCharacter(messages.map(({ content }) => content).join(''));
    const { control, vocabulary } = this.#tokenizer;
    const names = [...control.keys()];
    const special = names.filter((name) => vocabulary.isSpecial(control.get(name)!));
    const marked = messages.map((message) => {
      const own = message.role === 'assistant' ? special : names;
      return { ...message, content: broken(message.content, own, mark) };
    });
    const text = this.#render(marked, answer);
    const ids: number[] = [];
    let at = 0;
    const plain = (end: number) => ids.push(...this.#tokenizer.encode(text.slice(at, end).replaceAll(mark, ''), { added: false })); // prettier-ignore
    for (const { 0: name, index } of text.matchAll(this.#anyControl)) {
      plain(index);
      ids.push(control.get(name)!);
      at = index + name.length;
    }
    plain(text.length);
    return ids;
  }

  #render(messages: readonly Message[], answer: boolean): string {
    try {
      return this.#template.render({ ...this.#variables, messages, add_generation_prompt: answer });
    } catch (error) {
      const roles = messages.map(({ role }) => role).join(', ');
      throw new Error(`[chat] the model's template refuses a conversation of ${roles}: ${(error as Error).message}`, { cause: error }); // prettier-ignore
    }
  }

  /** The token that the template writes behind an answer. */
  #turnEnds(): number[] {
    const [question, said] = ['a', 'zyx'];
    try {
      const text = this.#render([{ role: 'user', content: question }, { role: 'assistant', content: said }], false); // prettier-ignore
      const behind = text.slice(text.lastIndexOf(said) + said.length);
      const [first] = behind.matchAll(this.#anyControl);
      return first ? [this.#tokenizer.control.get(first[0])!] : [];
    } catch {
      return []; // the ends of texts are left
    }
  }
}

/** The template in a model's folder: `chat_template.jinja`, or in `tokenizer_config.json`. */
export async function readChatTemplate(files: ModelFiles): Promise<ChatTemplateOptions> {
  const config = await readSettings(files, 'tokenizer_config.json');
  const text = (token: unknown): string => {
    const content = (token as { content?: unknown } | null | undefined)?.content ?? token;
    return typeof content === 'string' ? content : '';
  };
  const given = config['chat_template'];
  // Several templates by name: that for plain conversations is called default.
  const list = Array.isArray(given) ? (given as { name?: unknown; template?: unknown }[]) : [{ name: 'default', template: given }]; // prettier-ignore
  const own = list.find(({ name }) => name === 'default')?.template;
  const source = (await files.text('chat_template.jinja')) ?? (typeof own === 'string' ? own : null);
  return { source, bos: text(config['bos_token']), eos: text(config['eos_token']) };
}

/** Matches any of some texts, the longest that is there; nothing where there are none. */
const anyOf = (names: readonly string[]): RegExp =>
  new RegExp(
    [...names].sort((a, b) => b.length - a.length).map((name) => name.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')).join('|') || '(?!)', // prettier-ignore
    'gu',
  );

/** One of Unicode's private characters that a text doesn't have. */
function unusedCharacter(text: string): string {
  for (let code = 0xe000; code < 0xf900; code++) {
    const character = String.fromCharCode(code);
    if (!text.includes(character)) return character;
  }
  throw new Error('[chat] the messages have all private characters of Unicode; leave one out');
}

/**
 * The text with a mark within each of these names that it holds, and at its ends where it could be part of one together with
 * what stands beside it; templates may trim it.
 */
function broken(text: string, names: readonly string[], mark: string): string {
  const inside = text.replace(anyOf(names), (name) => `${[...name][0]}${mark}${[...name].slice(1).join('')}`);
  const [, before, inner, behind] = /^(\s*)([^]*?)(\s*)$/.exec(inside)!;
  const starts = names.some((name) => parts(name).some((part) => inner!.startsWith(part) && name.endsWith(part)));
  const ends = names.some((name) => parts(name).some((part) => inner!.endsWith(part) && name.startsWith(part)));
  const within = inner !== '' && names.some((name) => name.includes(inner!));
  return `${before}${starts || within ? mark : ''}${inner}${ends ? mark : ''}${behind}`;
}

/** All beginnings and ends of a name. */
const parts = (name: string): string[] =>
  Array.from({ length: name.length - 1 }, (_, i) => [name.slice(0, i + 1), name.slice(i + 1)]).flat();

/** Thrown where a conversation has no room for another answer. */
export class RoomError extends Error {}

export interface ChatOptions {
  /** Tokens that the whole conversation can have; 4096, or the model's context. */
  readonly capacity?: number;
}

/** A conversation with a model: what it has read of the turns so far is kept. */
export class Chat {
  readonly model: Transformer;
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  /** The turns; may be changed between answers. */
  messages: readonly Message[] = [];
  readonly #prefix: Prefix;

  constructor(
    model: Transformer,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    { capacity, ...size }: ChatOptions & Pick<GenerateOptions, 'cacheFormat'> = {},
  ) {
    // prettier-ignore
    tokenizer.requireFit(model.config.vocabulary);
    this.model = model;
    this.tokenizer = tokenizer;
    this.template = template;
    const own = Math.min(capacity ?? 4096, model.config.context);
    this.#prefix = new Prefix(model.device, model.config, { capacity: own, dtype: size.cacheFormat ?? 'f32' });
  }

  /**
   * Says something and yields the answer; both become turns, an answer that is stopped as far as it came. Where nothing was
   * answered, because of an error, the conversation stays as it was. Throws a `RoomError` where it would get too long.
   */
  async *ask(content: string, options: GenerateOptions = {}): AsyncGenerator<GenerationEvent, void, undefined> {
    const messages = [...this.messages, { role: 'user', content }];
    const { template, tokenizer, model } = this;
    const { stop = [], ends = [...model.config.ends, ...tokenizer.ends] } = options;
    const own = { ...options, tokenizer, stop: [...stop, ...template.stop], ends: [...ends, ...template.ends], prefix: this.#prefix }; // prettier-ignore
    const ids = template.encode(messages);
    const { capacity } = this.#prefix.cache;
    if (ids.length >= capacity)
      throw new RoomError(`[chat] the conversation would have ${ids.length} tokens before the answer; there is room for ${capacity}, the answer’s included: begin it anew`); // prettier-ignore
    let answer = '';
    let events = 0;
    try {
      for await (const event of generate(model, [ids], own)) {
        answer += event.text;
        events++;
        yield event;
      }
    } finally {
      if (events > 0) this.messages = [...messages, { role: 'assistant', content: answer.trim() }];
    }
  }

  release(): void {
    this.#prefix.release();
  }
}
