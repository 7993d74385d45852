import type { Spelling } from './spelling.ts';
import type { Taken } from './taken.ts';

/**
 * What every grammar becomes: a deterministic pushdown automaton over bytes, built as it is walked. Its stack is made of
 * frames; a frame is one state of one construct that is open (a string, a number, an object, a sentence of a grammar),
 * and decides alone what a byte does until it ends. Frames are interned by whoever makes them: equal states are the same
 * object, so that moves and masks are computed once a state.
 */

/** Which of the ways in which a construct can end has come: small integers that the frame below understands. */
export type Outcome = number;

/** The byte leads to `frame`, and `child` is opened on it. */
export interface Push {
  readonly kind: 'push';
  readonly frame: Frame;
  readonly child: Frame;
}

/** The frame ends; where the byte is not its own (a comma behind a number), the frame below has to take it. */
export interface Pop {
  readonly kind: 'pop';
  readonly outcome: Outcome;
  readonly consumed: boolean;
}

/** What a byte does to the frame on top: a frame takes its place, one is opened, it ends, or nothing may begin so. */
export type Move = Frame | Push | Pop | null;

/** Bytes: those with a 1 in 256. */
export type ByteSet = Uint8Array;

export function bytesIn(characters: string): ByteSet {
  const set = new Uint8Array(256);
  for (const character of characters) set[character.charCodeAt(0)] = 1;
  return set;
}

/**
 * What the next code points of a string do, up to `room` of them, whichever came before: by their first byte those of plain
 * content keep it open (1) or are refused (0), or that hangs on more (2).
 */
export interface Uniform {
  /** Says what `first` does. */
  readonly key: string;
  readonly first: Uint8Array;
  readonly room: number;
}

/**
 * A frame that any text keeps open as long as no byte ends it: so does one that is like it. Such a one, and those behind
 * it until they are `frame` themselves, end otherwise than `frame` only behind bytes of their `bytes`, if at all.
 */
export interface Like {
  readonly frame: Frame;
  readonly bytes: ByteSet;
}

/** How a text goes on behind its last whole character; `cut`: so many bytes of another one have been written. */
export interface Few {
  readonly texts: readonly string[];
  readonly cut: number;
}

/** Bytes that end a key as one that has to come, and how many all of it has, from quote to quote. */
export interface Toward {
  readonly bytes: readonly number[];
  readonly whole: number;
}

/** The one way in which a frame ends, and the fewest bytes to there. */
export interface Shortest {
  readonly outcome: Outcome;
  readonly bytes: number;
}

/**
 * One state. The rule that makes masks right: a frame exists only where some sequence of bytes completes it and all that
 * is below it. `step` and `resume` return null rather than a state from which nothing can be completed.
 */
export abstract class Frame {
  readonly kind = 'frame';
  /** A frame of its signature, where one is known. */
  twin: Frame | null = null;
  /** By the byte's upper four bits, then by the others: most frames meet few bytes, and there are many frames. */
  private moves: ((Move | undefined)[] | undefined)[] | null = null;
  private resumed: Map<Outcome, Frame | null> | null = null;

  /** What `byte` (0 to 255) does. */
  move(byte: number): Move {
    const moves = ((this.moves ??= new Array(16))[byte >>> 4] ??= new Array(16));
    let move = moves[byte & 15];
    if (move === undefined) moves[byte & 15] = move = this.step(byte);
    return move;
  }

  /** The frame after the child opened on it has ended so; null where it may not. */
  resume(outcome: Outcome): Frame | null {
    this.resumed ??= new Map();
    let frame = this.resumed.get(outcome);
    if (frame === undefined) this.resumed.set(outcome, (frame = this.after(outcome)));
    return frame;
  }

  /** Where it is plain to see that only few bytes do anything, those: others are not asked for. */
  get alive(): ByteSet | null {
    return null;
  }

  /** How it ends where no byte follows, or null where it may not end here: numbers and the document itself may. */
  end(): Outcome | null {
    return null;
  }

  /**
   * That any text of up to so many code points of plain string content (no quote, backslash or control character) keeps
   * a string open: 0 where nothing is known. Masks take such tokens in whole. A string is JSON's: control characters and
   * what is no UTF-8 are refused in it.
   */
  get plain(): number {
    return 0;
  }

  /** That text of some characters keeps a string open, and of others does not. */
  get uniform(): Uniform | null {
    return null;
  }

  /**
   * That the number of code points alone says what plain text does: of up to `plain` it brings the string's end no farther
   * away, of more it is refused.
   */
  get counted(): boolean {
    return false;
  }

  /** Frames of the same signature do the same with every sequence of bytes until they end, in whatever grammar. */
  get signature(): string | null {
    return null;
  }

  /**
   * What stands for all frames that do the same with every sequence of up to so many bytes until they end, and are as far
   * from their ends behind each but for what they are now (`shortest`): counts that are farther off do not tell them apart.
   */
  near(_bytes: number): string | Frame {
    return this.signature ?? this;
  }

  /** Another frame that does nearly the same, and is met more often. */
  get like(): Like | null {
    return null;
  }

  /**
   * The fewest bytes to its end, where they are known whatever is below; of a frame on which one is open, behind that
   * one's end. A shorter way to complete what is below must not hang on how it ends.
   */
  get fewest(): number | null {
    return null;
  }

  /**
   * The same, and how it ends, where it ends in one way alone; found when it is asked for, so that who makes masks does not
   * wait for it.
   */
  get shortest(): Shortest | null {
    return null;
  }

  /** About how many bytes it takes to its end at least: whoever looks for a short way is led by it. */
  get least(): number {
    return this.fewest ?? 0;
  }

  /** Of a key: how it becomes one of those that have to come, in the order in which they are to be tried. */
  get toward(): readonly Toward[] {
    return [];
  }

  /** One that goes on in some of its ways alone, the shortest among them: many frames have the same. */
  get bare(): Frame | null {
    return null;
  }

  /** Bytes behind which nothing comes that would not come with fewer bytes behind others, or behind none. */
  get detours(): ByteSet | null {
    return null;
  }

  /** A text that its object or array must not hold twice is being written: all of it, to its end, is compared. */
  get unique(): boolean {
    return false;
  }

  /** Of a frame that is `unique`: that many texts complete what is being written, and will, whatever comes. */
  get endless(): boolean {
    return false;
  }

  /** Of a frame that is `unique`, where few texts complete what is being written: those. */
  get few(): Few | null {
    return null;
  }

  protected abstract step(byte: number): Move;

  protected after(_outcome: Outcome): Frame | null {
    throw new Error('[grammar] a frame that opens nothing was resumed');
  }
}

/** Frames by a text that says all that distinguishes them. */
export class Interned<T> {
  private readonly known = new Map<string, T>();

  get(key: string, make: () => T): T {
    let value = this.known.get(key);
    if (value === undefined) this.known.set(key, (value = make()));
    return value;
  }

  get size(): number {
    return this.known.size;
  }
}

/** A stack of frames, never changed: its top, and what is below. */
export interface Stack {
  readonly frame: Frame;
  readonly below: Stack | null;
  /** Of a frame that is `unique`: what is written of it, its closing quote not among it. */
  readonly written: Spelling | null;
  /** Of the frame under one: the texts that its unique children have had, decoded. */
  readonly taken: Taken | null;
}
