import type { Frame, Stack } from './automaton.ts';
import { advance, advanceAll } from './stack.ts';
import { PLAIN_LIMIT } from './plain.ts';
import { CUT, OTHER_KEY } from './reserve.ts';
import type { Mask, Vocabulary } from './vocabulary.ts';

const LETTER = 0x61;
/** U+10FFFF. */
const OTHER = [0xf4, 0x8f, 0xbf, 0xbf];

/** Keeps of the mask at `stack` the tokens behind which no more than `most` bytes close the document. */
export function keepWithin(
  mask: Mask,
  { longestPlain, trie }: Vocabulary,
  stack: Stack,
  most: number,
  closing: (stack: Stack) => number,
): void {
  const { byte, depth, end, first, ids, longest, size } = trie;
  const room = new Room(most, longestPlain, closing);
  const stacks = [stack];
  for (let node = 0; node < size;) {
    const above = stacks[depth[node]! - 1]!;
    // What follows is plain text, and so much of it closes in time.
    const whole = longest[node]! < PLAIN_LIMIT && longest[node]! <= room.of(above);
    const next = whole ? null : advance(above, byte[node]!);
    if (next === null) {
      node = end[node]!;
      continue;
    }
    stacks[depth[node]!] = next;
    if (first[node + 1]! > first[node]! && closing(next) > most) {
      for (let i = first[node]!; i < first[node + 1]!; i += 1) mask[ids[i]! >>> 5]! &= ~(1 << (ids[i]! & 31));
    }
    node += 1;
  }
}

/** How much plain text closes in time: where its number of code points alone says what it does, any text tells of all. */
class Room {
  private readonly known = new Map<Stack | null, Map<Frame, number>>();
  private readonly most: number;
  private readonly longest: number;
  private readonly closing: (stack: Stack) => number;

  constructor(most: number, longest: number, closing: (stack: Stack) => number) {
    this.most = most;
    this.longest = longest;
    this.closing = closing;
  }

  /** Up to so many code points. */
  of(stack: Stack): number {
    const { frame, below } = stack;
    const key = frame.unique && frame.plain === Infinity;
    // Another text as long closes likewise; of those that have to differ from others, where any text is one.
    if (frame.unique ? !key : !frame.counted) return 0;
    let rooms = this.known.get(below);
    if (rooms === undefined) this.known.set(below, (rooms = new Map<Frame, number>()));
    let room = rooms.get(frame);
    if (room === undefined) rooms.set(frame, (room = key && !frame.counted ? this.other(stack) : this.count(stack)));
    return room;
  }

  /** Of a key: whatever is written of it, it can be made one of which nothing is asked by its name. */
  private other(stack: Stack): number {
    const other = advanceAll(stack, OTHER);
    return other !== null && this.closing(other) <= this.most - CUT - OTHER_KEY ? Infinity : 0;
  }

  private count(stack: Stack): number {
    const left = this.most - CUT - (stack.frame.unique ? OTHER_KEY : 0);
    let at = stack;
    for (let count = 0; count < this.longest; count += 1) {
      const next = advance(at, LETTER);
      // Longer text is refused, whatever is left.
      if (next === null) break;
      if (this.closing(next) > left) return count;
      // More of it changes nothing.
      if (next.frame === at.frame) break;
      at = next;
    }
    return Infinity;
  }
}
