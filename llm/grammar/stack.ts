import type { Frame, Outcome, Stack } from './automaton.ts';
import { Spelling } from './spelling.ts';
import { Taken } from './taken.ts';

/** The stack at a document's start. */
export function start(frame: Frame): Stack {
  return { frame, below: null, written: frame.unique ? Spelling.nothing : null, taken: null };
}

/** The stack after one more byte; null where no document goes on so. */
export function advance(stack: Stack, byte: number): Stack | null {
  for (let top = stack; ;) {
    const move = top.frame.move(byte);
    if (move === null) return null;
    if (move.kind === 'frame') return replaced(top, move, byte);
    if (move.kind === 'push') {
      const { child, frame } = move;
      const below = replaced(top, frame, byte);
      if (below === null || (child.unique && usedUp(child, Spelling.nothing, below.taken))) return null;
      return { frame: child, below, written: child.unique ? Spelling.nothing : null, taken: null };
    }
    const popped = pop(top, move.outcome);
    if (popped === null || move.consumed) return popped;
    top = popped;
  }
}

/** The stack after these bytes; null where no document goes on so. */
export function advanceAll(stack: Stack, bytes: Iterable<number>): Stack | null {
  let top: Stack | null = stack;
  for (const byte of bytes) {
    top = advance(top, byte);
    if (top === null) return null;
  }
  return top;
}

/** Whether the document may end here. */
export function complete(stack: Stack): boolean {
  for (let top: Stack | null = stack; top !== null;) {
    const outcome = top.frame.end();
    if (outcome === null) return false;
    if (top.below === null) return true;
    top = pop(top, outcome);
  }
  return false;
}

/** The stack with `frame` in the place of its top, behind a byte. Null where every text that it could be has been taken. */
function replaced(top: Stack, frame: Frame, byte: number): Stack | null {
  if (!frame.unique) return frame === top.frame ? top : { frame, below: top.below, written: null, taken: top.taken };
  const written = (top.written ?? Spelling.nothing).with(byte);
  if (usedUp(frame, written, top.below?.taken)) return null;
  return { frame, below: top.below, written, taken: top.taken };
}

/** Whether all texts that begin as written have been taken. */
function usedUp(frame: Frame, written: Spelling, taken: Taken | null | undefined): boolean {
  if (!taken || frame.few === null) return false;
  const { texts, cut } = frame.few;
  const begun = written.without(cut).text;
  return texts.every((text) => taken.has(begun + text));
}

/** The stack without its top, which ended so. Null where the frame below does not allow it, or has had this text. */
function pop(top: Stack, outcome: Outcome): Stack | null {
  const { below } = top;
  const frame = below === null ? null : below.frame.resume(outcome);
  if (below === null || frame === null) return null;
  if (top.written === null) {
    if (frame === below.frame) return below;
    return { frame, below: below.below, written: below.written, taken: below.taken };
  }
  const key = top.written.text;
  if (below.taken?.has(key)) return null;
  return { frame, below: below.below, written: below.written, taken: Taken.with(below.taken, key) };
}
