import type { ByteSet, Frame, Stack, Uniform } from './automaton.ts';
import { decode } from './json/string.ts';
import { PLAIN_LIMIT } from './plain.ts';
import type { Spelling } from './spelling.ts';
import { advance, advanceAll, complete } from './stack.ts';
import type { Taken } from './taken.ts';
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
  private ends: Endings | null = null;
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
    const part = this.decided(stack.frame);
    const whole = part.like === null ? part : this.decided(part.like);
    const uncertain: number[] = [];
    if (whole.base === null) mask.fill(0);
    else mask.set(whole.base);
    this.add(mask, stack, whole, uncertain);
    if (part !== whole) {
      for (const node of part.but) this.clear(mask, node);
      this.add(mask, stack, part, uncertain);
    }
    const { exits } = whole;
    if (exits !== null && stack.written !== null && stack.below?.taken) {
      this.clearKeys(mask, exits, stack.written, stack.below.taken);
    }
    if (stack.written !== null && stack.below?.taken) this.clearUsedUp(mask, stack, stack.written, stack.below.taken);
    for (const node of uncertain) this.run(mask, stack, node);
    if (complete(stack)) for (const id of this.vocabulary.end) mask[id >>> 5]! |= 1 << (id & 31);
  }

  /** Adds to the mask what `part` of the frame on top lists, and what the frames below decide of its exits. */
  private add(mask: Mask, stack: Stack, part: Part, uncertain: number[]): void {
    for (let cell = stack; ;) {
      for (const id of part.ids) mask[id >>> 5]! |= 1 << (id & 31);
      for (const { node, key } of part.keys) if (cell.taken?.has(key)) this.clear(mask, node);
      uncertain.push(...part.uncertain);
      if (part.exits === null || cell.below === null) break;
      cell = cell.below;
      part = this.resolved(part.exits, cell.frame);
      if (part.base !== null) for (let i = 0; i < mask.length; i += 1) mask[i]! |= part.base[i]!;
    }
  }

  /** To what the tokens of the mask at `stack` lead, and on which of its cells. */
  *leads(stack: Stack): Iterable<{ readonly cell: Stack; readonly leads: Leads }> {
    let part = this.decided(stack.frame);
    if (part.like !== null) {
      yield { cell: stack, leads: part.leads };
      part = this.decided(part.like);
    }
    for (let cell = stack; ;) {
      yield { cell, leads: part.leads };
      if (part.exits === null || cell.below === null) return;
      cell = cell.below;
      part = this.resolved(part.exits, cell.frame);
    }
  }

  /** What the frame alone decides. */
  private decided(frame: Frame): Part {
    const key = frame.near(this.vocabulary.longest);
    let part = this.young.get(key);
    if (part !== undefined) return part;
    part = this.old.get(key);
    if (part === undefined) {
      part = this.walk.from(frame);
    } else {
      // What it has gathered over the frames below goes with its generation.
      part.exits?.resolved.clear();
    }
    this.hold(part);
    this.young.set(key, part);
    return part;
  }

  /** What `frame` decides of the tokens that have ended the frame on top of it. */
  private resolved(exits: Exits, frame: Frame): Part {
    const key = frame.near(this.vocabulary.longest);
    let part = exits.resolved.get(key);
    if (part === undefined) {
      part = this.walk.behind(exits, frame);
      exits.resolved.set(key, part);
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
  private clearKeys(mask: Mask, exits: Exits, written: Spelling, taken: Taken): void {
    const { text: begun, pending } = written;
    const endings = pending.length === 0 ? this.endings() : this.endingsOf(exits.nodes, pending);
    // Both are sorted: of each, what lies before the other's next is passed over.
    for (let i = 0; i < endings.length;) {
      const key = taken.from(begun + endings[i]!.text);
      if (!key?.startsWith(begun)) return;
      const text = key.slice(begun.length);
      i = firstFrom(endings, text, i);
      if (endings[i]?.text !== text) continue;
      for (const node of endings[i]!.nodes) this.clear(mask, node);
      i += 1;
    }
  }

  /** Takes out the tokens that come to a beginning of which all texts are taken. */
  private clearUsedUp(mask: Mask, stack: Stack, written: Spelling, taken: Taken): void {
    if (stack.frame.plain === Infinity || stack.frame.endless) return;
    const { end, size } = this.vocabulary.trie;
    const begun = written.pending.length === 0 ? written.text : null;
    const again = new Set<number>();
    if (begun === null) {
      // Within a character, all are decided byte by byte.
      for (let node = 0; node < size; node = end[node]!) again.add(node);
    } else {
      for (const text of taken.beginning(begun)) this.clearAlong(mask, stack, text.slice(begun.length), again);
    }
    for (const node of again) this.clear(mask, node);
    for (const node of again) this.run(mask, stack, node);
  }

  /** Likewise those that come to a beginning of a text that is taken; `again`: subtrees that may by escapes. */
  private clearAlong(mask: Mask, stack: Stack, text: string, again: Set<number>): void {
    const bytes = bytesOf(text);
    if (advanceAll(stack, bytes) !== null) return;
    const { byte, end, size } = this.vocabulary.trie;
    let [from, to] = [0, size];
    let at: Stack | null = stack;
    for (const wanted of bytes) {
      let node: number | null = null;
      for (let child = from; child < to; child = end[child]!) {
        if (byte[child] === BACKSLASH) again.add(child);
        if (byte[child] === wanted) node = child;
      }
      if (node === null || wanted === BACKSLASH) return;
      at = advance(at, wanted);
      if (at === null) {
        this.clear(mask, node);
        return;
      }
      from = node + 1;
      to = end[node]!;
    }
  }

  /** Takes out the tokens of a subtree. */
  private clear(mask: Mask, node: number): void {
    const { first, end, ids } = this.vocabulary.trie;
    for (let i = first[node]!; i < first[end[node]!]!; i += 1) mask[ids[i]! >>> 5]! &= ~(1 << (ids[i]! & 31));
  }

  /** The nodes at which a string may end, by the text that it ends with. */
  private endings(): Endings {
    if (this.ends === null) {
      const { byte, marked, size } = this.vocabulary.trie;
      const quotes: number[] = [];
      for (let node = 0; node < size; node += 1) if (byte[node] === QUOTE && marked[node]! > 0) quotes.push(node);
      this.ends = this.endingsOf(quotes, []);
    }
    return this.ends;
  }

  /** Likewise, of some nodes, `pending` being the first bytes of the text's first character. */
  private endingsOf(nodes: Iterable<number>, pending: readonly number[]): Endings {
    const endings = new Map<string, number[]>();
    for (const node of nodes) {
      const text = textOf([...pending, ...path(this.vocabulary, node).subarray(0, -1)]);
      if (text === null) continue;
      const others = endings.get(text);
      if (others === undefined) endings.set(text, [node]);
      else others.push(node);
    }
    return [...endings].map(([text, nodes]) => ({ text, nodes })).sort((a, b) => (a.text < b.text ? -1 : 1));
  }

  /** Decides the tokens of a subtree byte by byte on the whole stack. */
  private run(mask: Mask, stack: Stack, root: number): void {
    const { byte, depth, end, first, ids } = this.vocabulary.trie;
    const stacks: Stack[] = [];
    const above = depth[root]! - 1;
    const begun = advanceAll(stack, path(this.vocabulary, root).subarray(0, -1));
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
}

/** The bytes from the trie's root to a node. */
function path(vocabulary: Vocabulary, node: number): Uint8Array {
  const { depth, first, ids } = vocabulary.trie;
  return vocabulary.bytes(ids[first[node]!]!).subarray(0, depth[node]);
}

/** A text as the content of a JSON string. */
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(JSON.stringify(text).slice(1, -1));

/** What is written of a JSON string in a token; null where that is none. */
function textOf(bytes: readonly number[]): string | null {
  try {
    return decode(bytes);
  } catch {
    return null;
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const NO_IDS = new Int32Array(0);
const NO_BYTES = new Uint8Array(0);

/** Tokens that are decided: those of `base` and those listed; and those that are not. */
interface Part {
  readonly base: Mask | null;
  readonly ids: Int32Array;
  readonly exits: Exits | null;
  /** Subtrees whose tokens have ended a key of the object whose frame the walk began on: not where it has been there. */
  readonly keys: readonly { readonly node: number; readonly key: string }[];
  /** Subtrees whose tokens are run byte by byte each time: in them a second key ends, or one begins of which few are left. */
  readonly uncertain: readonly number[];
  /** Of a frame that is like another one: that, and the subtrees in which it ends otherwise, or may. */
  readonly like: Frame | null;
  readonly but: readonly number[];
  readonly leads: Leads;
  /** About so many bytes. */
  readonly size: number;
}

/** Texts that a string may end with, in the order of `Taken`, and the nodes at which it does. */
type Endings = readonly { readonly text: string; readonly nodes: readonly number[] }[];

/** The place of the first ending that is not before `text`, from `low` on. */
function firstFrom(endings: Endings, text: string, low: number): number {
  let high = endings.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (endings[middle]!.text < text) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Where, by nodes of the trie, a frame ended: each decides its subtree with the frames below, and itself too. */
interface Exits {
  readonly nodes: Int32Array;
  readonly outcomes: Int32Array;
  /** 1: the node's byte was the frame's own; 0: the frame below has yet to take it. */
  readonly consumed: Uint8Array;
  /** 1: a key has ended in the token. */
  readonly keyed: Uint8Array;
  /** By the frame below, as `near` it is. */
  readonly resolved: Map<string | Frame, Part>;
}

/** To what the tokens lead that do not end the frame the walk began on. */
export interface Leads {
  /** Of those whose frames know their `fewest`: the most bytes to the end of the frame and of those opened on it; null: none are. */
  readonly most: number | null;
  /**
   * Of the others: the frames that they come to, each once. Plain text behind these takes the end no farther away but for a
   * character that is cut short, or for a key's being another one.
   */
  readonly leaves: readonly Leaf[];
  /** That there are none but these. */
  readonly known: boolean;
  /** That with which they were found: another one may be as `near`. */
  readonly from: Frame;
}

/** Frames that the tokens' first bytes lead to. */
export interface Leaf {
  readonly cell: Cell;
  /** What is written of the frame on top, since it was opened or since the walk began. */
  readonly written: Uint8Array;
}

/** Frames pushed within a token, on the frame (`below` null) that the walk began with. */
export interface Cell {
  readonly frame: Frame;
  readonly below: Cell | null;
  /** The number of the token's bytes up to where the frame was pushed. */
  readonly begun: number;
  /** Whether a key has ended in the token. */
  readonly keyed: boolean;
}

/** Whether both have the same frames. */
function same(a: Cell, b: Cell): boolean {
  let at: Cell | null = a;
  let other: Cell | null = b;
  for (; at !== other && at !== null && other !== null; at = at.below, other = other.below) {
    if (at.frame !== other.frame) return false;
  }
  return at === other;
}

/** So many frames are kept for others of their signatures, and their grammars with them. */
const TWINS = 1000;

const signed = new Map<string, Frame>();

/** The frame of the same signature that was met first: what it does is known by now, in whatever grammar. */
function twin(frame: Frame): Frame {
  return (frame.twin ??= firstOf(frame));
}

function firstOf(frame: Frame): Frame {
  const { signature } = frame;
  if (signature === null) return frame;
  let first = signed.get(signature);
  if (first === undefined) {
    if (signed.size >= TWINS) signed.clear();
    signed.set(signature, (first = frame));
  }
  return first;
}

/** So many different frames that tokens lead to are kept. */
const LEAVES = 2000;

/** Subtrees of so many nodes are worth asking how much plain text is taken; smaller ones are walked as soon. */
const LARGE = 64;

/** Uniform text of so many code points decides enough tokens to be asked about. */
const ROOMY = 8;

/** Walks of the token trie, one at a time: what they find is gathered in arrays that are kept. */
class Walk {
  private readonly vocabulary: Vocabulary;
  private readonly ids: Int32Array;
  private count = 0;
  private nodes: number[] = [];
  private outcomes: number[] = [];
  private consumed: number[] = [];
  private keyed: number[] = [];
  private keys: { node: number; key: string }[] = [];
  private uncertain: number[] = [];
  /** The frame that the one is like which the walk began on: what it decides is left to it. */
  private like: Frame | null = null;
  private but: number[] = [];
  private most: number | null = null;
  private leaves: Leaf[] = [];
  private readonly leavesOf = new Map<Frame, Cell[]>();
  private allKnown = true;
  private lastLeaf: Cell | null = null;
  /** Of which a node's subtree is left out where it is `known` at most. */
  private deciding: Uint8Array;
  /** Subtrees of plain tokens of so many code points at most are left out: others know about them. */
  private known = 0;
  /** Whether subtrees without quotes and backslashes are left out: what else they hold is no string. */
  private marked = false;
  /** By depth: where the node on the path at that depth has led, how much plain text is taken there (−1: not asked), and which bytes. */
  private readonly cells: Cell[] = [];
  private readonly plains: number[] = [];
  private readonly alives: (ByteSet | null)[] = [];

  constructor(vocabulary: Vocabulary) {
    this.vocabulary = vocabulary;
    this.ids = new Int32Array(vocabulary.trie.ids.length);
    this.deciding = vocabulary.trie.plain;
  }

  /** What a frame decides. */
  from(frame: Frame): Part {
    const { longestPlain, trie } = this.vocabulary;
    const like = frame.like?.frame ?? null;
    if (like !== null) {
      this.like = twin(like);
      const root = { frame, below: null, begun: 0, keyed: false };
      if (trie.size > 0) this.within(0, trie.size, root);
      this.like = null;
      this.lead(root, 0, 0);
      // The other frame decides about them.
      this.count = 0;
      return this.gathered(frame, null, like);
    }
    const uniform = frame.plain < longestPlain && !frame.counted ? frame.uniform : null;
    if (uniform !== null && uniform.room >= ROOMY) return this.uniformly(frame, uniform);
    const slice = Math.min(frame.plain, longestPlain);
    this.known = frame.counted ? longestPlain : slice;
    this.marked = this.known === longestPlain && (slice > 0 || frame.counted);
    const root = { frame: twin(frame), below: null, begun: 0, keyed: false };
    if (trie.size > 0) this.within(0, trie.size, root);
    if (this.known > 0) this.plainly(root, 0, 0);
    this.known = 0;
    this.marked = false;
    return this.gathered(frame, slice === 0 ? null : this.vocabulary.plain(slice));
  }

  /** Likewise, where text is uniform for a while. */
  private uniformly(frame: Frame, uniform: Uniform): Part {
    const { trie } = this.vocabulary;
    const tokens = this.vocabulary.uniform(uniform);
    this.known = Math.min(uniform.room, PLAIN_LIMIT - 1);
    this.allKnown = false;
    this.deciding = tokens.deciding;
    if (trie.size > 0) this.within(0, trie.size, { frame: twin(frame), below: null, begun: 0, keyed: false });
    this.known = 0;
    this.deciding = trie.plain;
    return this.gathered(frame, tokens.slice(uniform.room));
  }

  /** What `frame` decides of the tokens that have ended the one on top of it. */
  behind(exits: Exits, frame: Frame): Part {
    const { end } = this.vocabulary.trie;
    exits.nodes.forEach((node, i) => {
      const resumed = frame.resume(exits.outcomes[i]!);
      if (resumed === null) return;
      const cell = { frame: resumed, below: null, begun: 0, keyed: exits.keyed[i] === 1 };
      if (exits.consumed[i] === 0) return this.within(node, end[node]!, cell);
      this.take(node, node + 1);
      this.close(node, cell);
      if (end[node]! > node + 1) this.within(node + 1, end[node]!, cell);
    });
    return this.gathered(frame, null);
  }

  /** What has been found of `from`, and the tokens of `slice`. */
  private gathered(from: Frame, slice: Mask | null, like: Frame | null = null): Part {
    const { words } = this.vocabulary;
    // A copy of a mask takes as long as listing about that many.
    const list = this.count <= words / 4;
    const found = this.ids.subarray(0, this.count);
    const base = list ? slice : (slice?.slice() ?? new Uint32Array(words));
    if (!list) for (let i = 0; i < this.count; i += 1) base![found[i]! >>> 5]! |= 1 << (found[i]! & 31);
    const part = {
      base,
      ids: list && found.length > 0 ? found.slice() : NO_IDS,
      exits: this.nodes.length === 0 ? null : this.exits(),
      keys: this.keys,
      uncertain: this.uncertain,
      like,
      but: this.but,
      leads: { most: this.most, leaves: this.leaves, known: this.allKnown, from },
      size:
        512 +
        (list ? 4 * this.count : 4 * words) +
        10 * this.nodes.length +
        64 * this.keys.length +
        200 * this.leaves.length,
    };
    this.count = 0;
    this.nodes = [];
    this.outcomes = [];
    this.consumed = [];
    this.keyed = [];
    this.keys = [];
    this.uncertain = [];
    this.but = [];
    this.most = null;
    this.leaves = [];
    this.leavesOf.clear();
    this.allKnown = true;
    this.lastLeaf = null;
    return part;
  }

  private exits(): Exits {
    return {
      nodes: new Int32Array(this.nodes),
      outcomes: new Int32Array(this.outcomes),
      consumed: new Uint8Array(this.consumed),
      keyed: new Uint8Array(this.keyed),
      resolved: new Map(),
    };
  }

  /** The subtrees from node `from` up to node `to`, siblings, from `cell` on. */
  private within(from: number, to: number, cell: Cell): void {
    const { byte, depth, end, longest, marked, plain, quoted } = this.vocabulary.trie;
    const { alives, cells, deciding, like, plains } = this;
    this.enter(depth[from]! - 1, cell);
    for (let node = from; node < to;) {
      const above = depth[node]! - 1;
      if (
        deciding[node]! <= this.known ||
        (this.marked && marked[node] === 0) ||
        (like !== null && quoted[node] === 0)
      ) {
        node = end[node]!;
      } else if (
        deciding === plain &&
        longest[node]! < PLAIN_LIMIT &&
        end[node]! - node >= LARGE &&
        longest[node]! <= (plains[above]! < 0 ? this.room(above) : plains[above]!)
      ) {
        this.take(node, end[node]!);
        this.plainly(cells[above]!, node, above);
        node = end[node]!;
      } else {
        const alive = alives[above]!;
        const dead = alive !== null && alive[byte[node]!] === 0;
        const next = dead ? null : this.step(cells[above]!, byte[node]!, node);
        if (next === null) {
          if (like !== null && !dead) this.but.push(node);
          node = end[node]!;
        } else if (next.frame === like) {
          node = end[node]!;
        } else {
          this.take(node, node + 1);
          this.close(node, next);
          if (end[node]! > node + 1) this.enter(above + 1, next);
          node += 1;
        }
      }
    }
  }

  private enter(depth: number, cell: Cell): void {
    this.cells[depth] = cell;
    this.alives[depth] = this.like === null ? cell.frame.alive : (cell.frame.like?.bytes ?? null);
    this.plains[depth] = -1;
  }

  private room(depth: number): number {
    return (this.plains[depth] = this.cells[depth]!.frame.plain);
  }

  /** Takes the tokens that end at nodes `from` up to `to`. */
  private take(from: number, to: number): void {
    const { first, ids } = this.vocabulary.trie;
    for (let i = first[from]!; i < first[to]!; i += 1) this.ids[this.count++] = ids[i]!;
  }

  /** Counts what closes the frames of `cell`, to which the node's tokens lead, or puts them down. */
  private close(node: number, cell: Cell): void {
    const { depth, first } = this.vocabulary.trie;
    if (first[node] === first[node + 1] || cell === this.lastLeaf) return;
    let bytes = 0;
    for (let at: Cell | null = cell; at !== null; at = at.below) {
      const { fewest } = at.frame;
      if (fewest === null) return this.lead(cell, node, depth[node]!);
      bytes += fewest;
    }
    this.most = Math.max(this.most ?? 0, bytes);
  }

  /** Likewise, where plain text follows from the frame on top on. */
  private plainly(cell: Cell, node: number, depth: number): void {
    const { frame } = cell;
    if (frame.counted || (frame.unique && frame.plain === Infinity)) this.lead(cell, node, depth);
    else this.allKnown = false;
  }

  /** Puts down frames that the first `depth` bytes of the node's tokens lead to. */
  private lead(cell: Cell, node: number, depth: number): void {
    this.lastLeaf = cell;
    let others = this.leavesOf.get(cell.frame);
    if (others === undefined) this.leavesOf.set(cell.frame, (others = []));
    if (others.some((other) => same(other, cell))) return;
    if (this.leaves.length >= LEAVES) {
      this.allKnown = false;
      return;
    }
    others.push(cell);
    const written = depth === 0 ? NO_BYTES : path(this.vocabulary, node).subarray(cell.begun, depth);
    this.leaves.push({ cell, written });
  }

  private unsure(node: number): void {
    this.uncertain.push(node);
    this.allKnown = false;
  }

  /** The cell after the byte of `node`; null where the frames refuse it, and where others have to decide. */
  private step(cell: Cell, byte: number, node: number): Cell | null {
    for (let top = cell; ;) {
      const { below, begun, keyed } = top;
      const move = top.frame.move(byte);
      if (move === null) return null;
      const key = move.kind === 'frame' ? (below === null ? null : move) : move.kind === 'push' ? move.child : null;
      if (key?.unique && key.few !== null) {
        // Of a key that begins in the token few texts are left, which its object may have.
        this.unsure(node);
        return null;
      }
      if (move.kind === 'frame') return move === top.frame ? top : { frame: twin(move), below, begun, keyed };
      if (move.kind === 'push') {
        const { frame, child } = move;
        return {
          frame: twin(child),
          below: { frame, below, begun, keyed },
          begun: this.vocabulary.trie.depth[node]!,
          keyed,
        };
      }
      const { consumed, outcome } = move;
      const isKey = top.frame.unique;
      if (below === null) {
        this.nodes.push(node);
        this.outcomes.push(outcome);
        this.consumed.push(consumed ? 1 : 0);
        this.keyed.push(keyed || isKey ? 1 : 0);
        return null;
      }
      const frame = below.frame.resume(outcome);
      if (frame === null) return null;
      if (isKey && keyed) {
        this.unsure(node);
        return null;
      }
      if (isKey && below.below === null) {
        const key = decode([...path(this.vocabulary, node).subarray(begun, -1)]);
        this.keys.push({ node, key });
      }
      top = { frame, below: below.below, begun: below.begun, keyed: keyed || isKey };
      if (consumed) return top;
    }
  }
}
