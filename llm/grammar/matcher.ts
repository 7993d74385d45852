import { Frame, type Stack } from './automaton.ts';
import { Closing, type Closes } from './budget.ts';
import { forcedBytes, forcedTokens, type Encode } from './forced.ts';
import { Masks } from './mask.ts';
import { checkOptions, shown } from './options.ts';
import { Reserve } from './reserve.ts';
import { advanceAll, complete, start } from './stack.ts';
import { Vocabulary, type Mask } from './vocabulary.ts';
import { keepWithin } from './within.ts';

/** How many tokens a document may have, its end of text not among them. */
export interface Budget {
  readonly tokens: number;
  /**
   * The number of bytes of the shortest way to complete the document from a stack; a token a byte is enough for it. Where
   * left out, that of a Closing, one for all matchers of a grammar, and far from the end masks need not be gone through.
   */
  readonly closing?: (stack: Stack) => number;
}

/** A budget, and what closes documents within it. */
interface Closed {
  readonly given: Budget;
  readonly tokens: number;
  readonly closes: Closes;
}

/** A document being written token by token under a grammar. */
export class Matcher {
  readonly vocabulary: Vocabulary;
  private readonly grammar: Frame;
  private readonly budget: Closed | null;
  /** Where the grammar's own Closing closes. */
  private readonly reserve: Reserve | null;
  private readonly masks: Masks;
  private readonly own: Mask;
  /** Before the first token, and after each. */
  private readonly stacks: Stack[];
  private readonly accepted: number[];

  /** From the grammar's first frame. Throws where the budget is too small for any document. */
  constructor(vocabulary: Vocabulary, grammar: Frame, budget: Budget | null = null) {
    const where = 'new Matcher(vocabulary, grammar, budget)';
    if (!(vocabulary instanceof Vocabulary)) {
      throw new Error(`[grammar] ${where}: vocabulary is ${shown(vocabulary)}; it must be a Vocabulary`);
    }
    if (!(grammar instanceof Frame)) {
      throw new Error(
        `[grammar] ${where}: grammar is ${shown(grammar)}; it must be what jsonSchema, regular, contextFree or triggered give`,
      );
    }
    this.vocabulary = vocabulary;
    this.grammar = grammar;
    this.budget = budget === null ? null : wholeBudget(budget, grammar, where);
    this.masks = masksOf(vocabulary);
    this.reserve = budget === null || budget.closing !== undefined ? null : reserveOf(grammar, this.masks);
    this.own = new Uint32Array(vocabulary.words);
    this.stacks = [start(grammar)];
    this.accepted = [];
    if (this.budget === null) return;
    const { tokens } = this.budget;
    const least = this.budget.closes.cost(this.stack);
    if (least === Infinity) {
      const budget = Number.isFinite(tokens) ? `a budget of ${tokens} tokens` : 'documents are to end by themselves';
      throw new Error(
        `[grammar] ${budget}: no short document of this grammar was found, whose end could be kept in reach`,
      );
    }
    if (tokens < least) {
      throw new Error(
        `[grammar] a budget of ${tokens} tokens; the shortest document takes up to ${least}, one for each of its bytes`,
      );
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
    if (this.budget !== null) this.keep(into, this.budget);
    if (into.every((word) => word === 0) && !this.complete()) {
      throw new Error(
        '[grammar] no token can come next: the vocabulary lacks tokens of single bytes, without which its tokens cannot write ' +
          'what the grammar asks for',
      );
    }
    return into;
  }

  /** Takes a token as the next one; false, with nothing changed, where it may not come. Ends of text are not taken. */
  accept(token: number): boolean {
    const bytes = this.vocabulary.bytes(token);
    if (bytes.length === 0 || this.vocabulary.isSpecial(token)) return false;
    const next = advanceAll(this.stack, bytes);
    if (next === null || (this.budget !== null && !this.closes(next, this.budget))) return false;
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
    const fork = new Matcher(this.vocabulary, this.grammar, this.budget?.given);
    fork.stacks.push(...this.stacks.slice(1));
    fork.accepted.push(...this.accepted);
    return fork;
  }

  /**
   * The bytes that have to come next, `most` at most: as long as there is one way to go on (escapes in JSON that say the same
   * aside), and the document may not end.
   */
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

  /** Takes out of the mask the tokens behind which the budget would not close what is open. */
  private keep(mask: Mask, budget: Closed): void {
    if (this.far(budget)) return;
    keepWithin(mask, this.vocabulary, this.stack, this.left(budget) - 1, budget.closes);
  }

  /** Whether the budget closes what `next` has open, to which a token has led. */
  private closes(next: Stack, budget: Closed): boolean {
    return this.far(budget) || budget.closes.cost(next) <= this.left(budget) - 1;
  }

  /** Whether the budget closes what is open behind any token that may come. */
  private far(budget: Closed): boolean {
    if (this.reserve === null) return false;
    if (this.reserve.most(this.stack) < this.left(budget)) return true;
    // The token before may have come because the same was true there.
    const before = this.stacks.at(-2);
    if (before !== undefined && budget.closes.cost(this.stack) > this.left(budget))
      this.reserve.settle(before, this.stack);
    return false;
  }

  private left(budget: Closed): number {
    return budget.tokens - this.accepted.length;
  }
}

/** The budget with what closes documents of the grammar. */
function wholeBudget(budget: Budget, grammar: Frame, where: string): Closed {
  checkOptions(where, budget, ['tokens', 'closing']);
  const { tokens, closing } = budget;
  if (typeof tokens !== 'number' || !(tokens >= 0)) {
    throw new Error(`[grammar] ${where}: budget.tokens is ${shown(tokens)}; it must be a number from 0 up`);
  }
  if (closing !== undefined && typeof closing !== 'function') {
    throw new Error(
      `[grammar] ${where}: budget.closing is ${shown(closing)}; it must be a function, such as (stack) => closing.cost(stack)`,
    );
  }
  return {
    given: budget,
    tokens,
    closes: closing === undefined ? closingOf(grammar) : { cost: closing, alike: () => null },
  };
}

const CLOSINGS = new WeakMap<Frame, Closing>();

/** That of a grammar is shared by all its matchers. */
export function closingOf(grammar: Frame): Closing {
  let closing = CLOSINGS.get(grammar);
  if (closing === undefined) CLOSINGS.set(grammar, (closing = new Closing()));
  return closing;
}

const RESERVES = new WeakMap<Masks, WeakMap<Frame, Reserve>>();

/** That of a grammar over a vocabulary, likewise. */
function reserveOf(grammar: Frame, masks: Masks): Reserve {
  let reserves = RESERVES.get(masks);
  if (reserves === undefined) RESERVES.set(masks, (reserves = new WeakMap<Frame, Reserve>()));
  let reserve = reserves.get(grammar);
  if (reserve === undefined) reserves.set(grammar, (reserve = new Reserve(closingOf(grammar), masks)));
  return reserve;
}

const MASKS = new WeakMap<Vocabulary, Masks>();

/** Those of a vocabulary are shared by all grammars. */
function masksOf(vocabulary: Vocabulary): Masks {
  let masks = MASKS.get(vocabulary);
  if (masks === undefined) MASKS.set(vocabulary, (masks = new Masks(vocabulary)));
  return masks;
}
