import type { Frame, Outcome, Stack } from './automaton.ts';
import { Ended, FLOOR, type Closing } from './budget.ts';
import type { Cell, Leads, Leaf, Masks } from './mask.ts';
import { Spelling } from './spelling.ts';
import { advance, advanceAll } from './stack.ts';

/** A character cut short lacks up to so many bytes. */
export const CUT = 3;

/**
 * A key that would be one of those that its object has can be made another by so many bytes, where any text is one: what has
 * begun of a character ends within 8 (`ud8` of an escape: `00\udc00`), U+10FFFF behind it, 4 bytes, leads away from
 * the names that are told apart, and of the texts of 3 letters, with capitals and digits 238,328 different ones, one makes
 * a key that is not there; the quote, the 16th, ends it.
 */
export const OTHER_KEY = 16;

/** A way in which a frame ends, whatever is below. */
interface Ending {
  readonly outcome: Outcome;
  readonly bytes: number;
  /** How many keys are written on it that may have to be others. */
  readonly keys: number;
}

/**
 * How much of a budget is enough behind every token of a mask: an upper bound that is found once for what a frame alone decides
 * and costs little from then on. A frame and those opened on it can be ended first, and then the frames below are closed: each
 * of the two is known apart.
 */
export class Reserve {
  private readonly closing: Closing;
  private readonly masks: Masks;
  private readonly ends = new WeakMap<Leads, ReadonlyMap<Outcome, number> | null>();

  constructor(closing: Closing, masks: Masks) {
    this.closing = closing;
    this.masks = masks;
  }

  /** No more than so many bytes close the document behind any token of the mask at `stack`; Infinity where that is not known. */
  most(stack: Stack): number {
    let most = 0;
    for (const { cell, leads } of this.masks.leads(stack)) {
      if (!leads.known) return Infinity;
      if (leads.most !== null) {
        most = Math.max(most, leads.most + (cell.below === null ? 0 : this.closing.cost(cell.below)));
      }
      if (leads.leaves.length === 0) continue;
      let ends = this.ends.get(leads);
      if (ends === undefined) this.ends.set(leads, (ends = this.endsOf(leads.leaves, cell)));
      if (ends === null) return Infinity;
      const more = farther(cell.frame, leads.from);
      for (const [outcome, bytes] of ends) {
        const below = cell.below && resumed(cell.below, outcome);
        if (below === null && cell.below !== null) return Infinity;
        most = Math.max(most, bytes + more + (below === null ? 0 : this.closing.cost(below)));
        if (most === Infinity) return most;
      }
    }
    return most;
  }

  /** Puts the way down by which `most` says that `next` closes, one of the stacks that a token behind `stack` leads to. */
  settle(stack: Stack, next: Stack): void {
    const before = new Set<Stack>();
    for (let at: Stack | null = stack; at !== null; at = at.below) before.add(at);
    const chain: Stack[] = [];
    let below: Stack | null = next;
    for (; below !== null && !before.has(below); below = below.below) chain.push(below);
    const apart = chain.reduceRight<Stack>((under, part) => ({ ...part, below: under }), FLOOR);
    const ending = this.ending(apart);
    if (ending === null) return;
    const rest = below && resumed(below, ending.outcome);
    const way = rest === null ? [] : this.closing.first(rest)!;
    this.closing.learn(next, [...this.closing.bytes(apart), ...way]);
  }

  /** By the outcome with which they end, how many bytes the frames take at most; null where it is not known. */
  private endsOf(leaves: readonly Leaf[], cell: Stack): ReadonlyMap<Outcome, number> | null {
    const ends = new Map<Outcome, number>();
    for (const leaf of leaves) {
      const stack = stackOf(leaf.cell, leaf, cell);
      const ending = this.ending(stack);
      if (ending === null || !open(stack)) return null;
      const { outcome, bytes, keys } = ending;
      ends.set(outcome, Math.max(ends.get(outcome) ?? 0, bytes + CUT + keys * OTHER_KEY));
    }
    return ends;
  }

  private ending(stack: Stack): Ending | null {
    const first = this.closing.first(stack);
    if (first === null) return null;
    let keys = stack.frame.unique ? 1 : 0;
    let at = stack;
    for (const byte of first) {
      const next = advance(at, byte)!;
      if (next.frame.unique && !at.frame.unique) {
        keys += 1;
        if (!open(next)) return null;
      }
      at = next;
    }
    // Keys behind these have to come: no other member has them.
    const left = this.closing.sum(at) ?? 0;
    return { outcome: this.outcome(at), bytes: first.length + left, keys };
  }

  /** How the frame above the floor ends, of which it is known how many bytes are left. */
  private outcome(stack: Stack): Outcome {
    let at = stack;
    while (at.below !== null && at.below !== FLOOR) at = at.below;
    const { shortest } = at.frame;
    if (at.below !== null && shortest !== null) return shortest.outcome;
    const ended = advanceAll(stack, this.closing.bytes(stack))!;
    return ended.below === null ? (ended.frame as Ended).outcome : ended.frame.end()!;
  }
}

/** By how many bytes more one of two frames that are as `near` is from its end, now as behind any token. */
function farther(frame: Frame, other: Frame): number {
  if (frame === other) return 0;
  const [here, there] = [frame.shortest, other.shortest];
  return here === null || there === null ? 0 : here.bytes - there.bytes;
}

/** The leaf's frames as a stack; `root`: that on which the walk began. */
function stackOf(cell: Cell, { written }: Leaf, root: Stack, top = true): Stack {
  const { frame } = cell;
  const begun = cell.below === null && root.frame.unique ? root.written! : Spelling.nothing;
  return {
    frame,
    below: cell.below === null ? FLOOR : stackOf(cell.below, { cell: cell.below, written }, root, false),
    written: top && frame.unique ? begun.withAll(written) : null,
    taken: null,
  };
}

/** What may follow within a character. */
const REST = [...Array.from({ length: 64 }, (_, i) => 0xbf - i), ...[...'n0\\udc'].map((text) => text.charCodeAt(0))];

/** Behind it no name is told apart, and texts of letters end as they are. */
const OTHER = [0xf4, 0x8f, 0xbf, 0xbf, ...[...'aaa'].map((text) => text.charCodeAt(0))];
const QUOTE = 0x22;

/** Whether on top is no text that has to differ from others, or one of which any beginning can become many. */
function open(stack: Stack): boolean {
  let frame: Frame = stack.frame;
  if (!frame.unique) return true;
  for (let bytes = 0; bytes < OTHER_KEY && frame.plain !== Infinity; bytes += 1) {
    const from: Frame = frame;
    const next = REST.map((byte) => from.move(byte)).find((move) => move?.kind === 'frame');
    if (next?.kind !== 'frame') return false;
    frame = next;
  }
  if (frame.plain !== Infinity) return false;
  for (const byte of OTHER) {
    const next = frame.move(byte);
    if (next?.kind !== 'frame') return false;
    frame = next;
  }
  return frame.move(QUOTE)?.kind === 'pop';
}

function resumed(below: Stack, outcome: Outcome): Stack | null {
  const frame = below.frame.resume(outcome);
  return frame && { frame, below: below.below, written: null, taken: below.taken };
}
