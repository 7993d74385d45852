/** One continuation of a prompt as the host sees it: its tokens, its grammar, its text, and when it ends. */
import type { Sampled } from '../kernels/index.ts';
import type { Matcher } from './grammar/index.ts';
import { lookUp } from './lookup.ts';
import { Pieces } from './pieces.ts';
import type { Tokenizer } from './tokenizer.ts';

/**
 * Why a sequence has ended: a token that ends texts was drawn; a stop string came; as many tokens as were asked for, or as
 * the context holds; the time is over; the signal; the grammar's document is complete, and nothing can be added to it.
 */
export type FinishReason = 'end' | 'stop' | 'length' | 'time' | 'aborted' | 'grammar';

export interface GenerationEvent {
  /** Which prompt, and which of its continuations. */
  readonly prompt: number;
  readonly sample: number;
  /** Null where a sequence ends without a further token. */
  readonly token: number | null;
  /** Text that is certain by now, in whole characters: none while it may be part of a stop string. */
  readonly text: string;
  /** Natural logarithm of the token's probability, as the model has it; 0 without a token. */
  readonly logProbability: number;
  /** The most probable tokens in its place, as many as asked for. */
  readonly top: Sampled['top'];
  /** Set in a sequence's last event. */
  readonly finish: FinishReason | null;
}

/** Tokens to be fed ahead: the grammar's, which nothing else can take the place of, or looked up. */
export interface Draft {
  readonly tokens: readonly number[];
  /** Of each token, and of the one behind them; null without a grammar. */
  readonly masks: readonly Uint32Array[] | null;
}

export interface SequenceOptions {
  readonly prompt: number;
  readonly sample: number;
  readonly ids: readonly number[];
  readonly seed: number;
  readonly matcher: Matcher | null;
  readonly tokenizer: Tokenizer | null;
  readonly stop: readonly string[];
  readonly ends: ReadonlySet<number>;
  /** Tokens that may be drawn. */
  readonly most: number;
}

export class Sequence {
  readonly prompt: number;
  readonly sample: number;
  readonly seed: number;
  /** The prompt's, and those drawn. All but the last are in the cache, or will be by the next pass. */
  readonly tokens: number[];
  readonly most: number;
  drawn = 0;
  finish: FinishReason | null = null;
  readonly #matcher: Matcher | null;
  readonly #tokenizer: Tokenizer | null;
  readonly #pieces: Pieces;
  readonly #ends: ReadonlySet<number>;
  #mask: Uint32Array | null;

  constructor({ prompt, sample, ids, seed, matcher, tokenizer, stop, ends, most }: SequenceOptions) {
    this.prompt = prompt;
    this.sample = sample;
    this.seed = seed;
    this.tokens = [...ids];
    this.most = most;
    this.#matcher = matcher;
    this.#tokenizer = tokenizer;
    this.#pieces = new Pieces(stop);
    this.#ends = ends;
    this.#mask = matcher && matcher.mask().slice();
  }

  /** What may come next; null without a grammar. */
  get mask(): Uint32Array | null {
    return this.#mask;
  }

  /** Takes the token that was drawn next. */
  take({ token, logProbability, top, error }: Sampled): GenerationEvent {
    const where = `[generate] prompt ${this.prompt}, sample ${this.sample}, token ${this.drawn}`;
    if (error === 'not finite')
      throw new Error(`${where}: a logit is not finite: are the weights damaged, or f16 too narrow for them?`);
    if (error) throw new Error(`${where}: no token is left to draw: logit biases exclude all that the grammar allows`);
    this.tokens.push(token);
    this.drawn++;
    const event = { prompt: this.prompt, sample: this.sample, token, logProbability, top };
    if (this.#ends.has(token)) return { ...event, text: this.#pieces.end(), finish: (this.finish = 'end') };
    if (this.#matcher && !this.#matcher.accept(token))
      throw new Error(`${where}: token ${token} was drawn and the grammar does not take it`);
    const vocabulary = this.#tokenizer?.vocabulary;
    const shown = vocabulary && !vocabulary.isSpecial(token);
    const { text, stopped } = shown ? this.#pieces.push(vocabulary.bytes(token)) : { text: '', stopped: false };
    if (stopped) this.finish = 'stop';
    else if (this.#matcher && this.#closed(this.#matcher)) this.finish = 'grammar';
    else if (this.drawn >= this.most) this.finish = 'length';
    return { ...event, text: this.finish ? text + this.#pieces.end() : text, finish: this.finish };
  }

  /** Ends it from outside. */
  stop(reason: 'time' | 'aborted'): GenerationEvent {
    const { prompt, sample } = this;
    const text = this.#pieces.end();
    return { prompt, sample, token: null, text, logProbability: 0, top: [], finish: (this.finish = reason) };
  }

  /** What the next pass may be fed behind the last token, at most so many tokens. */
  draft(lookup: number, room: number): Draft {
    const most = Math.min(room, this.most - this.drawn - 1);
    const matcher = this.#matcher;
    const forced =
      matcher && this.#tokenizer && most > 0 ? matcher.forcedTokens(this.#tokenizer.encode).slice(0, most) : [];
    let tokens = forced.length > 0 ? [...forced] : lookUp(this.tokens, Math.min(lookup, most));
    if (!matcher) return { tokens, masks: null };
    const masks = [this.#mask!];
    let taken = 0;
    for (const token of tokens) {
      if (!matcher.accept(token)) break;
      taken++;
      if (forced.length > 0) masks[masks.length - 1] = only(token, masks[0]!.length);
      masks.push(matcher.mask().slice());
    }
    matcher.rollback(taken);
    tokens = tokens.slice(0, taken);
    return { tokens, masks };
  }

  /** Whether nothing but ends of text can follow; notes what can. */
  #closed(matcher: Matcher): boolean {
    const mask = matcher.mask(this.#mask!);
    if (!matcher.complete()) return false;
    const ends = new Uint32Array(mask.length);
    for (const id of matcher.vocabulary.end) ends[id >>> 5]! |= 1 << (id & 31);
    return mask.every((word, i) => (word & ~ends[i]!) === 0);
  }
}

function only(token: number, words: number): Uint32Array {
  const mask = new Uint32Array(words);
  mask[token >>> 5] = 1 << (token & 31);
  return mask;
}
