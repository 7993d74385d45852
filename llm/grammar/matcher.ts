import type { Frame, Stack } from './automaton.ts';
import { forcedBytes, forcedTokens, type Encode } from './forced.ts';
import { Masks } from './mask.ts';
import { advanceAll, complete, start } from './stack.ts';
import type { Mask, Vocabulary } from './vocabulary.ts';

/** How many tokens a document may have, its end of text not among them. */
export interface Budget {
  readonly tokens: number;
  /** The number of bytes of the shortest way to complete the document from a stack; a token a byte is enough for it. */
  readonly closing: (stack: Stack) => number;
}

/**
 * Tokens are held against the budget where what is left of it is no more than what closing takes and so much; before that
 * none is taken to open so much at once.
 */
const RESERVE = 256;

/** A document being written token by token under a grammar. */
export class Matcher {
  readonly vocabulary: Vocabulary;
  private readonly grammar: Frame;
  private readonly budget: Budget | null;
  private readonly masks: Masks;
  private readonly own: Mask;
  /** Before the first token, and after each. */
  private readonly stacks: Stack[];
  private readonly accepted: number[];

  /** From the grammar's first frame. Throws where the budget is too small for any document. */
  constructor(vocabulary: Vocabulary, grammar: Frame, budget: Budget | null = null) {
    this.vocabulary = vocabulary;
    this.grammar = grammar;
    this.budget = budget;
    this.masks = masksOf(vocabulary);
    this.own = new Uint32Array(vocabulary.words);
    this.stacks = [start(grammar)];
    this.accepted = [];
    const least = budget === null ? 0 : budget.closing(this.stack);
    if (budget !== null && least === Infinity) {
      throw new Error(
        `[grammar] a budget of ${budget.tokens} tokens; how many the shortest document takes was not found`,
      );
    }
    if (budget !== null && !(budget.tokens >= least)) {
      throw new Error(`[grammar] a budget of ${budget.tokens} tokens; the shortest document takes up to ${least}`);
    }
  }

  get stack(): Stack {
    return this.stacks.at(-1)!;
  }

  /** The tokens of the document so far. */
  get tokens(): readonly number[] {
    return this.accepted;
  }

  /** Whether the document may end here. */
  complete(): boolean {
    return complete(this.stack);
  }

  /**
   * The tokens that may come next, written into `into`, or into an array that is good until the next call. None are left
   * only where the document is complete and the vocabulary has no token to say so.
   */
  mask(into: Mask = this.own): Mask {
    if (into.length !== this.vocabulary.words) {
      throw new Error(`[grammar] a mask of ${into.length} words; the vocabulary's have ${this.vocabulary.words}`);
    }
    this.masks.fill(into, this.stack);
    const { budget } = this;
    if (budget !== null && this.scarce()) this.masks.keep(into, this.stack, this.left() - 1, budget.closing);
    if (into.every((word) => word === 0) && !this.complete()) {
      throw new Error(
        '[grammar] no token can come next: the vocabulary lacks tokens of single bytes, without which its tokens cannot write ' +
          'what the grammar asks for',
      );
    }
    return into;
  }

  /**
   * Takes a token as the next one; false, with nothing changed, where it may not come. Ends of text are not taken. Throws
   * where the token opens more than the budget can close.
   */
  accept(token: number): boolean {
    const bytes = this.vocabulary.bytes(token);
    if (bytes.length === 0 || this.vocabulary.isSpecial(token)) return false;
    const next = advanceAll(this.stack, bytes);
    if (next === null) return false;
    const { budget } = this;
    const scarce = this.scarce();
    const cost = budget === null ? 0 : budget.closing(next);
    // Where no way to close was found, and there is much left, it is looked for again further on.
    const unknown = cost === Infinity && !scarce;
    if (cost > this.left() - 1 && !unknown) {
      if (scarce) return false;
      throw new Error(
        `[grammar] behind token ${token} the document takes ${cost} more tokens to close; of the budget of ` +
          `${budget!.tokens} there are ${this.left() - 1} left`,
      );
    }
    this.stacks.push(next);
    this.accepted.push(token);
    return true;
  }

  /** Takes back the last `count` tokens. */
  rollback(count: number): void {
    if (!Number.isInteger(count) || count < 0 || count > this.accepted.length) {
      throw new Error(`[grammar] ${count} tokens taken back of ${this.accepted.length}`);
    }
    this.stacks.length -= count;
    this.accepted.length -= count;
  }

  /** Another matcher that goes on from here. */
  fork(): Matcher {
    const fork = new Matcher(this.vocabulary, this.grammar, this.budget);
    fork.stacks.push(...this.stacks.slice(1));
    fork.accepted.push(...this.accepted);
    return fork;
  }

  /** The bytes that have to come next, `most` at most: as long as there is one way to go on, and the document may not end. */
  forced(most = 1024): Uint8Array {
    return forcedBytes(this.stack, most);
  }

  /**
   * The tokens of the bytes that have to come next, as the tokenizer makes them behind those accepted; the last ones are
   * left to the model where it could take longer ones instead. None where the tokenizer makes others of it all.
   */
  forcedTokens(encode: Encode, most = 1024): readonly number[] {
    return forcedTokens(this.vocabulary, this.stack, this.forced(most), this.accepted, encode);
  }

  /** What is left of the budget. */
  private left(): number {
    return this.budget === null ? Infinity : this.budget.tokens - this.accepted.length;
  }

  /** Whether tokens are held against the budget. */
  private scarce(): boolean {
    return this.budget !== null && this.left() <= this.budget.closing(this.stack) + RESERVE;
  }
}

const MASKS = new WeakMap<Vocabulary, Masks>();

/** Those of a vocabulary are shared by all grammars. */
function masksOf(vocabulary: Vocabulary): Masks {
  let masks = MASKS.get(vocabulary);
  if (masks === undefined) MASKS.set(vocabulary, (masks = new Masks(vocabulary)));
  return masks;
}
