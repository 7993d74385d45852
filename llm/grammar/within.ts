import type { Frame, Stack } from './automaton.ts';
import { steady, type Alike, type Closes } from './budget.ts';
import { PLAIN_LIMIT } from './plain.ts';
import { CUT, OTHER_KEY } from './reserve.ts';
import { advance, advanceAll } from './stack.ts';
import { find, type Trie } from './trie.ts';
import type { Mask, Vocabulary } from './vocabulary.ts';

const [SPACE, QUOTE, BACKSLASH, LETTER] = [0x20, 0x22, 0x5c, 0x61];
const NO_TEXTS: ReadonlySet<string> = new Set();

/** Keeps of the mask at `stack` the tokens behind which no more than `most` bytes close the document. */
export function keepWithin(mask: Mask, vocabulary: Vocabulary, stack: Stack, most: number, closes: Closes): void {
  new Within(mask, vocabulary, stack, most, closes).run();
}

/** Plain text that has begun at a node of the trie, whatever follows of it. */
interface Text {
  readonly alike: Alike;
  /** Nodes at which it is one of the texts that do not close alike. */
  readonly but: ReadonlySet<number>;
}

/** Of a node on the walk's path. */
interface Place {
  readonly node: number;
  /** Null in text: it is made where it is asked for. */
  stack: Stack | null;
  /** The stack's keys are not those that were written, but others that close alike. */
  readonly other: boolean;
  readonly text: Text | null;
  /** So many bytes of a character of it are to come. */
  readonly cut: number;
}

/** One walk of the trie. */
class Within {
  private readonly mask: Mask;
  private readonly trie: Trie;
  private readonly most: number;
  private readonly closes: Closes;
  private readonly room: Room;
  private readonly root: Stack;
  /** By depth. */
  private readonly places: Place[] = [];
  private readonly bytes: number[] = [];
  private readonly alikes = new Map<Stack | null, Map<Frame, Alike | null>>();
  private readonly others = new Map<Stack, Map<number, Stack | null>>();

  constructor(mask: Mask, { longestPlain, trie }: Vocabulary, stack: Stack, most: number, closes: Closes) {
    this.mask = mask;
    this.trie = trie;
    this.most = most;
    this.closes = closes;
    this.room = new Room(most, longestPlain, closes);
    this.root = stack;
    this.places[0] = { node: -1, stack, other: false, text: this.textAt(-1, stack), cut: 0 };
  }

  run(): void {
    const { byte, depth, end, first, size } = this.trie;
    for (let node = 0; node < size;) {
      const above = this.places[depth[node]! - 1]!;
      this.bytes[depth[node]! - 1] = byte[node]!;
      const skipped = this.whole(node, above);
      const place = skipped ? null : this.place(node, above);
      if (place === null) {
        node = end[node]!;
        continue;
      }
      this.places[depth[node]!] = place;
      if (first[node + 1]! > first[node]! && this.costOf(place) > this.most) this.clear(node, node + 1);
      node += 1;
    }
  }

  /** Decides a subtree of plain text, where that can be. */
  private whole(node: number, { stack, text }: Place): boolean {
    const { depth, end, longest } = this.trie;
    if (longest[node] === PLAIN_LIMIT) return false;
    if (text === null) return longest[node]! <= this.room.of(stack!);
    const { alike, but } = text;
    const apart = alike.cost <= this.most && alike.cost + CUT > this.most;
    // A byte may be the next of the way that is known: it is asked about itself.
    if (apart || depth[node] === 1) return false;
    for (const other of but) if (other >= node && other < end[node]!) return false;
    if (alike.cost > this.most) this.clear(node, end[node]!);
    return true;
  }

  /** Null where no document goes on so. */
  private place(node: number, above: Place): Place | null {
    const value = this.trie.byte[node]!;
    const { text } = above;
    if (text !== null && value >= SPACE && value !== QUOTE && value !== BACKSLASH) {
      const cut = above.cut > 0 ? above.cut - 1 : value < 0x80 ? 0 : value < 0xe0 ? 1 : value < 0xf0 ? 2 : 3;
      return { node, stack: null, other: above.other, text, cut };
    }
    if (text !== null && value === QUOTE && !text.but.has(above.node)) {
      return this.behind(node, this.otherwise(text.alike.stack, value), true);
    }
    const stack = this.stackAt(above);
    const next = stack && (above.other ? this.otherwise(stack, value) : advance(stack, value));
    return this.behind(node, next, above.other);
  }

  private behind(node: number, next: Stack | null, other: boolean): Place | null {
    // Texts that have to differ are compared with what was written.
    const stack = other && next?.frame.unique ? this.written(node) : next;
    return stack && { node, stack, other: other && stack === next, text: this.textAt(node, stack), cut: 0 };
  }

  /** Stacks behind texts that close alike are few, and each is looked at once. */
  private otherwise(stack: Stack, byte: number): Stack | null {
    let known = this.others.get(stack);
    if (known === undefined) this.others.set(stack, (known = new Map<number, Stack | null>()));
    let next = known.get(byte);
    if (next === undefined) known.set(byte, (next = advance(stack, byte)));
    return next;
  }

  private written(node: number): Stack | null {
    return advanceAll(this.root, node < 0 ? [] : this.bytes.slice(0, this.trie.depth[node]));
  }

  private stackAt(place: Place): Stack | null {
    return (place.stack ??= this.written(place.node));
  }

  private costOf(place: Place): number {
    const { node, text, cut } = place;
    if (place.stack !== null || text === null || text.but.has(node) || this.trie.depth[node] === 1) {
      const stack = this.stackAt(place);
      return stack === null ? Infinity : this.closes.cost(stack);
    }
    return text.alike.cost + cut;
  }

  /** What plain text does behind the stack to which a node leads; null where it is not known. */
  private textAt(node: number, stack: Stack): Text | null {
    const { frame, below, written } = stack;
    let known = this.alikes.get(below);
    if (known === undefined) this.alikes.set(below, (known = new Map<Frame, Alike | null>()));
    let alike = known.get(frame);
    if (alike === undefined) known.set(frame, (alike = this.alike(stack)));
    if (alike === null) return null;
    const but = new Set<number>();
    const begun = alike.but.size === 0 ? '' : written!.text;
    for (const text of alike.but) {
      const place = text.startsWith(begun) ? this.find(node, text.slice(begun.length)) : null;
      if (place !== null) but.add(place);
    }
    return { alike, but };
  }

  private alike(stack: Stack): Alike | null {
    if (!steady(stack.frame)) return null;
    if (stack.frame.unique) return this.closes.alike(stack);
    return { stack, cost: this.closes.cost(stack), but: NO_TEXTS };
  }

  /** The node that a text leads to from another one. */
  private find(node: number, text: string): number | null {
    if (text === '') return node;
    const bytes = new TextEncoder().encode(text);
    return node < 0 ? find(this.trie, bytes) : find(this.trie, bytes, node + 1, this.trie.end[node]);
  }

  private clear(from: number, to: number): void {
    const { first, ids } = this.trie;
    for (let i = first[from]!; i < first[to]!; i += 1) this.mask[ids[i]! >>> 5]! &= ~(1 << (ids[i]! & 31));
  }
}

/** How much plain text closes in time where its number of code points alone says what it does: any text tells of all. */
class Room {
  private readonly known = new Map<Stack | null, Map<Frame, number>>();
  private readonly most: number;
  private readonly longest: number;
  private readonly closes: Closes;

  constructor(most: number, longest: number, closes: Closes) {
    this.most = most;
    this.longest = longest;
    this.closes = closes;
  }

  /** Up to so many code points. */
  of(stack: Stack): number {
    const { frame, below } = stack;
    // A text that has to differ from others may have to be longer than another one.
    if (!frame.counted || (frame.unique && frame.plain !== Infinity)) return 0;
    let rooms = this.known.get(below);
    if (rooms === undefined) this.known.set(below, (rooms = new Map<Frame, number>()));
    let room = rooms.get(frame);
    if (room === undefined) rooms.set(frame, (room = this.count(stack)));
    return room;
  }

  private count(stack: Stack): number {
    const left = this.most - CUT - (stack.frame.unique ? OTHER_KEY : 0);
    let at = stack;
    for (let count = 0; count < this.longest; count += 1) {
      const next = advance(at, LETTER);
      // Longer text is refused, whatever is left.
      if (next === null) break;
      if (this.closes.cost(next) > left) return count;
      // More of it changes nothing.
      if (next.frame === at.frame) break;
      at = next;
    }
    return Infinity;
  }
}
