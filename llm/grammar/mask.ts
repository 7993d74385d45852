import type { Frame, Outcome, Stack } from './automaton.ts';
import { decode } from './json/string.ts';
import { PLAIN_LIMIT } from './plain.ts';
import { advance, advanceAll, complete } from './stack.ts';
import type { Mask, Vocabulary } from './vocabulary.ts';

/**
 * Which tokens may come next, as bits.
 *
 * Most tokens are decided by the frame on top alone, whatever is below it, so they are found once a frame, by a walk of the
 * token trie that leaves dead branches; those behind whose first bytes the frame has ended are kept as `exits` and decided
 * by the frames below when they are met, which is remembered as well (the split into context-independent and
 * context-dependent tokens of XGrammar, Dong et al. 2024). Tokens of plain string content come in whole, as ready slices
 * (llguidance, Moskal et al. 2025). Keys that an object has already are taken out of the mask in the end.
 */
export class Masks {
  private readonly vocabulary: Vocabulary;
  private readonly walk: Walk;
  private young = new Map<Frame | string, Part>();
  private old = new Map<Frame | string, Part>();
  private held = 0;
  private readonly limit: number;

  /** `limit`: about how many bytes of tokens and masks are remembered, all grammars together. */
  constructor(vocabulary: Vocabulary, limit = 64 * 2 ** 20) {
    this.vocabulary = vocabulary;
    this.walk = new Walk(vocabulary);
    this.limit = limit;
  }

  /**
   * The mask at `stack`: the tokens all of whose bytes can be stepped, and the vocabulary's ends of text where the document
   * may end. All of `mask` is written.
   */
  fill(mask: Mask, stack: Stack): void {
    let part = this.decided(stack.frame);
    if (part.base === null) mask.fill(0);
    else mask.set(part.base);
    const { exits } = part;
    let uncertain = part.uncertain;
    for (let below = stack.below; ; below = below.below) {
      for (const id of part.ids) mask[id >>> 5]! |= 1 << (id & 31);
      if (part.exits === null || below === null) break;
      part = this.resolved(part.exits, below.frame);
      if (part.base !== null) for (let i = 0; i < mask.length; i += 1) mask[i]! |= part.base[i]!;
      if (part.uncertain.length > 0) uncertain = [...uncertain, ...part.uncertain];
    }
    if (exits !== null && stack.written !== null && stack.below?.taken) {
      this.clear(mask, exits, stack.written, stack.below.taken);
    }
    for (const node of uncertain) this.run(mask, stack, node);
    if (complete(stack)) for (const id of this.vocabulary.end) mask[id >>> 5]! |= 1 << (id & 31);
  }

  /** Keeps of the mask at `stack` the tokens after which no more than `most` bytes close the document. */
  keep(mask: Mask, stack: Stack, most: number, closing: (stack: Stack) => number): void {
    const { byte, depth, end, first, ids, plain, size } = this.vocabulary.trie;
    // Plain text brings a counted string's end no farther away.
    const whole = stack.frame.counted && closing(stack) <= most ? this.vocabulary.longestPlain : 0;
    const stacks = [stack];
    for (let node = 0; node < size;) {
      const next = plain[node]! <= whole ? null : advance(stacks[depth[node]! - 1]!, byte[node]!);
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

  /** What the frame alone decides. */
  private decided(frame: Frame): Part {
    const key = frame.signature ?? frame;
    let part = this.young.get(key);
    if (part !== undefined) return part;
    part = this.old.get(key);
    if (part === undefined) {
      const slice = Math.min(frame.plain, this.vocabulary.longestPlain);
      part = this.walk.of(slice, frame.counted, () => {
        this.walk.within(0, this.vocabulary.trie.size, { frame, below: null });
      });
    } else {
      // What it has gathered over the frames below goes with its generation.
      part.exits?.resolved.clear();
      part.exits?.endings.clear();
    }
    this.hold(part);
    this.young.set(key, part);
    return part;
  }

  /** What `frame` decides of the tokens that have ended the frame on top of it. */
  private resolved(exits: Exits, frame: Frame): Part {
    let part = exits.resolved.get(frame);
    if (part === undefined) {
      part = this.walk.of(0, false, () => {
        exits.nodes.forEach((node, i) => {
          const resumed = frame.resume(exits.outcomes[i]!);
          if (resumed === null) return;
          if (exits.consumed[i]) this.walk.after(node, { frame: resumed, below: null });
          else this.walk.within(node, this.vocabulary.trie.end[node]!, { frame: resumed, below: null });
        });
      });
      exits.resolved.set(frame, part);
      this.hold(part);
    }
    return part;
  }

  /** Counts what is remembered; where it is too much, what was not met in the last generation is forgotten. */
  private hold(part: Part): void {
    this.held += part.size;
    if (this.held <= this.limit / 2) return;
    this.old = this.young;
    this.young = new Map();
    this.held = 0;
  }

  /** Takes out the tokens that would end the key being written as one of those that its object has. */
  private clear(mask: Mask, exits: Exits, written: readonly number[], taken: ReadonlySet<string>): void {
    const { first, end, ids } = this.vocabulary.trie;
    const settled = settledLength(written);
    const begun = decode(written.slice(0, settled));
    const endings = this.endings(exits, written.slice(settled));
    for (const key of taken) {
      if (!key.startsWith(begun)) continue;
      for (const node of endings.get(key.slice(begun.length)) ?? []) {
        for (let i = first[node]!; i < first[end[node]!]!; i += 1) mask[ids[i]! >>> 5]! &= ~(1 << (ids[i]! & 31));
      }
    }
  }

  /** The exits of a key by the text that it ends with, `pending` being the first bytes of that text's first character. */
  private endings(exits: Exits, pending: readonly number[]): ReadonlyMap<string, readonly number[]> {
    const name = String(pending);
    let endings = exits.endings.get(name);
    if (endings === undefined) {
      endings = new Map<string, number[]>();
      for (const node of exits.nodes) {
        const path = this.path(node);
        const text = decode([...pending, ...path.subarray(0, -1)]);
        const nodes = endings.get(text);
        if (nodes === undefined) endings.set(text, [node]);
        else nodes.push(node);
      }
      exits.endings.set(name, endings);
    }
    return endings;
  }

  /** Decides the tokens of a subtree byte by byte on the whole stack. */
  private run(mask: Mask, stack: Stack, root: number): void {
    const { byte, depth, end, first, ids } = this.vocabulary.trie;
    const stacks: Stack[] = [];
    const above = depth[root]! - 1;
    const begun = advanceAll(stack, this.path(root).subarray(0, -1));
    if (begun === null) return;
    stacks[above] = begun;
    for (let node = root; node < end[root]!;) {
      const next = advance(stacks[depth[node]! - 1]!, byte[node]!);
      if (next === null) {
        node = end[node]!;
        continue;
      }
      stacks[depth[node]!] = next;
      for (let i = first[node]!; i < first[node + 1]!; i += 1) mask[ids[i]! >>> 5]! |= 1 << (ids[i]! & 31);
      node += 1;
    }
  }

  /** The bytes from the trie's root to a node. */
  private path(node: number): Uint8Array {
    const { depth, first, ids } = this.vocabulary.trie;
    return this.vocabulary.bytes(ids[first[node]!]!).subarray(0, depth[node]);
  }
}

/** Tokens that are decided: those of `base` and those listed; and those that are not. */
interface Part {
  readonly base: Mask | null;
  readonly ids: Int32Array;
  readonly exits: Exits | null;
  /** Subtrees whose tokens are run byte by byte each time: another key ends in them, whose object may have had it. */
  readonly uncertain: readonly number[];
  /** About so many bytes. */
  readonly size: number;
}

/** Where, by nodes of the trie, a frame ended: each decides its subtree with the frames below, and itself too. */
interface Exits {
  readonly nodes: Int32Array;
  readonly outcomes: Int32Array;
  /** 1: the node's byte was the frame's own; 0: the frame below has yet to take it. */
  readonly consumed: Uint8Array;
  /** By the frame below. */
  readonly resolved: Map<Frame, Part>;
  /** Of a key: see `endings`. */
  readonly endings: Map<string, Map<string, number[]>>;
}

/** Frames pushed within a token, on the frame (`below` null) that the walk began with. */
interface Cell {
  readonly frame: Frame;
  readonly below: Cell | null;
}

/** Walks of the token trie, one at a time: what they find is gathered in arrays that are kept. */
class Walk {
  private readonly vocabulary: Vocabulary;
  private readonly ids: Int32Array;
  private count = 0;
  /** Subtrees of plain tokens of so many code points at most are left out. */
  private sliced = 0;
  private nodes: number[] = [];
  private outcomes: number[] = [];
  private consumed: number[] = [];
  private uncertain: number[] = [];
  /** By depth: where the node on the path at that depth has led. */
  private readonly cells: Cell[] = [];
  private readonly plains: number[] = [];

  constructor(vocabulary: Vocabulary) {
    this.vocabulary = vocabulary;
    this.ids = new Int32Array(vocabulary.trie.ids.length);
  }

  /**
   * What `walks` find, with the tokens of at most `slice` code points of plain string content, which they leave out; where
   * plain text is `counted` they leave out the longer ones as well.
   */
  of(slice: number, counted: boolean, walks: () => void): Part {
    this.count = 0;
    this.sliced = counted ? this.vocabulary.longestPlain : slice;
    this.nodes = [];
    this.outcomes = [];
    this.consumed = [];
    this.uncertain = [];
    walks();
    const shared = slice === 0 ? null : this.vocabulary.plain(slice);
    const { words } = this.vocabulary;
    // A copy of a mask takes as long as listing about that many.
    const list = this.count <= words / 4;
    const base = list ? shared : (shared?.slice() ?? new Uint32Array(words));
    if (!list) for (const id of this.ids.subarray(0, this.count)) base![id >>> 5]! |= 1 << (id & 31);
    const exits =
      this.nodes.length === 0
        ? null
        : {
            nodes: Int32Array.from(this.nodes),
            outcomes: Int32Array.from(this.outcomes),
            consumed: Uint8Array.from(this.consumed),
            resolved: new Map<Frame, Part>(),
            endings: new Map<string, Map<string, number[]>>(),
          };
    const size = 256 + (list ? 4 * this.count : 4 * words) + 9 * this.nodes.length + 8 * this.uncertain.length;
    return {
      base,
      ids: list ? this.ids.slice(0, this.count) : new Int32Array(0),
      exits,
      uncertain: this.uncertain,
      size,
    };
  }

  /** The tokens that end at `node`, and what follows it from `cell` on. */
  after(node: number, cell: Cell): void {
    const { depth, end } = this.vocabulary.trie;
    this.take(node, node + 1);
    this.enter(depth[node]!, cell);
    this.descend(node + 1, end[node]!);
  }

  /** The subtrees from node `from` up to node `to`, siblings, from `cell` on. */
  within(from: number, to: number, cell: Cell): void {
    this.enter(this.vocabulary.trie.depth[from]! - 1, cell);
    this.descend(from, to);
  }

  private descend(from: number, to: number): void {
    const { byte, depth, end, longest, plain } = this.vocabulary.trie;
    const { cells, plains, sliced } = this;
    for (let node = from; node < to;) {
      const above = depth[node]! - 1;
      if (plain[node]! <= sliced) {
        node = end[node]!;
      } else if (longest[node]! <= plains[above]!) {
        this.take(node, end[node]!);
        node = end[node]!;
      } else {
        const cell = this.step(cells[above]!, byte[node]!, node);
        if (cell === null) {
          node = end[node]!;
        } else {
          this.take(node, node + 1);
          if (end[node]! > node + 1) this.enter(above + 1, cell);
          node += 1;
        }
      }
    }
  }

  private enter(depth: number, cell: Cell): void {
    this.cells[depth] = cell;
    this.plains[depth] = Math.min(cell.frame.plain, PLAIN_LIMIT - 1);
  }

  /** Takes the tokens that end at nodes `from` up to `to`. */
  private take(from: number, to: number): void {
    const { first, ids } = this.vocabulary.trie;
    for (let i = first[from]!; i < first[to]!; i += 1) this.ids[this.count++] = ids[i]!;
  }

  /** The cell after the byte of `node`; null where the frames refuse it, and where others have to decide. */
  private step(cell: Cell, byte: number, node: number): Cell | null {
    for (let top = cell; ;) {
      const move = top.frame.move(byte);
      if (move === null) return null;
      if (move.kind === 'frame') return move === top.frame ? top : { frame: move, below: top.below };
      if (move.kind === 'push') return { frame: move.child, below: { frame: move.frame, below: top.below } };
      if (top.below === null) {
        this.exit(node, move.outcome, move.consumed);
        return null;
      }
      if (top.frame.unique) {
        this.uncertain.push(node);
        return null;
      }
      const frame = top.below.frame.resume(move.outcome);
      if (frame === null) return null;
      top = { frame, below: top.below.below };
      if (move.consumed) return top;
    }
  }

  private exit(node: number, outcome: Outcome, consumed: boolean): void {
    this.nodes.push(node);
    this.outcomes.push(outcome);
    this.consumed.push(consumed ? 1 : 0);
  }
}

/**
 * How much of what is written of a JSON string stands for whole UTF-16 units, whatever follows: all but the beginning of an
 * escape or of a character's bytes.
 */
function settledLength(written: readonly number[]): number {
  for (let settled = 0; ;) {
    const lead = written[settled];
    if (lead === undefined) return settled;
    const escape = written[settled + 1] === 0x75 ? 6 : 2;
    const length = lead === 0x5c ? escape : lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (settled + length > written.length) return settled;
    settled += length;
  }
}
