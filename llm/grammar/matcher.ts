import type { Frame, Stack } from './automaton.ts';
import { Masks } from './mask.ts';
import { advance, advanceAll, complete, start } from './stack.ts';
import type { Mask, Vocabulary } from './vocabulary.ts';

/** A document being written token by token under a grammar. */
export class Matcher {
  readonly vocabulary: Vocabulary;
  private readonly masks: Masks;
  private readonly own: Mask;
  /** Before the first token, and after each. */
  private readonly stacks: Stack[];
  private readonly accepted: number[];

  /** From the grammar's first frame. */
  constructor(vocabulary: Vocabulary, grammar: Frame) {
    this.vocabulary = vocabulary;
    this.masks = masksOf(vocabulary);
    this.own = new Uint32Array(vocabulary.words);
    this.stacks = [start(grammar)];
    this.accepted = [];
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

  /** The tokens that may come next, written into `into`, or into an array that is good until the next call. */
  mask(into: Mask = this.own): Mask {
    if (into.length !== this.vocabulary.words) {
      throw new Error(`[grammar] a mask of ${into.length} words; the vocabulary's have ${this.vocabulary.words}`);
    }
    this.masks.fill(into, this.stack);
    if (into.every((word) => word === 0)) {
      throw new Error(
        '[grammar] no token of the vocabulary can come next: it lacks tokens of single bytes that the grammar needs',
      );
    }
    return into;
  }

  /** Takes a token as the next one; false, with nothing changed, where it may not come. Ends of text are not taken. */
  accept(token: number): boolean {
    const bytes = this.vocabulary.bytes(token);
    if (bytes.length === 0 || this.vocabulary.isSpecial(token)) return false;
    const next = advanceAll(this.stack, bytes);
    if (next === null) return false;
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
    const fork = new Matcher(this.vocabulary, this.stacks[0]!.frame);
    fork.stacks.splice(0, 1, ...this.stacks);
    fork.accepted.push(...this.accepted);
    return fork;
  }

  /** The bytes that have to come next, `most` at most: as long as there is one way to go on, and the document may not end. */
  forced(most = 1024): Uint8Array {
    const bytes: number[] = [];
    for (let stack = this.stack; bytes.length < most && !complete(stack);) {
      const only = onlyByte(stack);
      if (only === null) break;
      bytes.push(only.byte);
      stack = only.stack;
    }
    return Uint8Array.from(bytes);
  }
}

/** The one byte that can come next, and what it leads to; null where there are several. */
function onlyByte(stack: Stack): { readonly byte: number; readonly stack: Stack } | null {
  let only: { readonly byte: number; readonly stack: Stack } | null = null;
  for (let byte = 0; byte < 256; byte += 1) {
    const next = advance(stack, byte);
    if (next === null) continue;
    if (only !== null) return null;
    only = { byte, stack: next };
  }
  return only;
}

const MASKS = new WeakMap<Vocabulary, Masks>();

/** Those of a vocabulary are shared by all grammars. */
function masksOf(vocabulary: Vocabulary): Masks {
  let masks = MASKS.get(vocabulary);
  if (masks === undefined) MASKS.set(vocabulary, (masks = new Masks(vocabulary)));
  return masks;
}
