import { Frame, type Outcome, type Shortest, type Stack } from './automaton.ts';
import { Spelling } from './spelling.ts';
import { advance, advanceAll, complete } from './stack.ts';
import type { Taken } from './taken.ts';

/** Below frames that are looked at apart from those that are below them. */
class Floor extends Frame {
  override get shortest(): Shortest {
    return NOTHING_LEFT;
  }

  protected step(): null {
    return null;
  }

  protected override after(outcome: Outcome): Frame {
    return new Ended(outcome);
  }
}

/** What was above has ended so. */
export class Ended extends Frame {
  readonly outcome: Outcome;

  constructor(outcome: Outcome) {
    super();
    this.outcome = outcome;
  }

  override get shortest(): Shortest {
    return NOTHING_LEFT;
  }

  override end(): Outcome {
    return 0;
  }

  protected step(): null {
    return null;
  }
}

const NOTHING_LEFT: Shortest = { outcome: 0, bytes: 0 };

export const FLOOR: Stack = { frame: new Floor(), below: null, written: null, taken: null };

/** What closes documents. */
export interface Closes {
  /** How many bytes it takes. */
  cost(stack: Stack): number;
  /** Of a text that has to differ from others: where whatever is written of it closes alike, that. */
  alike(stack: Stack): Alike | null;
}

/** What plain text comes to behind a stack, whatever it is. */
export interface Alike {
  /** Behind some of it. */
  readonly stack: Stack;
  /** So many bytes close the document there. */
  readonly cost: number;
  /** But for these texts, and those of which they are beginnings that stop within a character. */
  readonly but: ReadonlySet<string>;
}

/** Whether plain text leaves the frame what it is. */
export function steady(frame: Frame): boolean {
  return frame.counted && frame.plain === Infinity && frame.move(LETTER) === frame;
}

/** Bytes written one after another: those before, then a byte, those of a child or the shortest of a frame. */
interface Written {
  readonly before: Written | null;
  readonly last: number | Frame | Written | null;
}

/** A way in which a context ends. */
interface Exit {
  readonly outcome: Outcome;
  /** A byte that has been written, which the frame below takes; END: the text ends here; otherwise NONE. */
  readonly pending: number;
  /** The key that it is. */
  readonly key: string | null;
  readonly bytes: number;
  readonly written: Written | null;
}

const NONE = -1;
const END = 256;

/** A frame reached in a context, and what has been written since it was opened. */
interface Item {
  readonly frame: Frame;
  /** A byte that has been written, which the frame has yet to take; otherwise NONE. */
  readonly pending: number;
  readonly bytes: number;
  readonly written: Written | null;
  /** Keys written in it. */
  readonly keys: readonly string[];
}

/** Who opened a context and goes on when it has ended. */
interface Caller {
  readonly context: Context;
  readonly item: Item;
}

/** What can become of a frame until it ends, whatever is below it; or of a frame of the stack that is to be closed. */
class Context {
  callers: Caller[] = [];
  readonly exits = new Map<string, Exit>();
  /** What it has opened. */
  readonly opened = new Set<Context>();
  /** By the number of bytes when it ends, by guess. */
  readonly queue: Item[][] = [];
  readonly reached = new Map<string, number>();
  /** Of a key, whose text has to be new: what of it was there before. */
  readonly key: Spelling | null;
  /** Bytes that frames below take, by guess. */
  readonly below: number;
  cheapest = Infinity;
  first = 0;

  constructor(key: Spelling | null, below: number) {
    this.key = key;
    this.below = below;
  }
}

/**
 * What ends in a way that takes so many bytes more than its shortest is not looked at, for the outcome that it has; keys
 * may need more, to differ from others.
 */
const SLACK = 8;
const SLACK_OF_KEYS = 16;

/** So many ways in which a frame ends are enough, as long as a way is found by them. */
const EXITS = 64;

/** A way to complete a document: its next byte and what follows. */
interface Way {
  readonly cost: number;
  readonly byte: number;
  readonly rest: Way | null;
}

function bytesOf(way: Way): number[] {
  const bytes: number[] = [];
  for (let at = way; at.rest !== null; at = at.rest) bytes.push(at.byte);
  return bytes;
}

/** A way ends where the document does, or where it is known how much is left. */
const end = (cost: number): Way => ({ cost, byte: NONE, rest: null });

type Bytes = readonly number[];

/** Bytes that end a construct of JSON. */
const CLOSERS: readonly Bytes[] = [...'"]}'].map((text) => [text.charCodeAt(0)]);

/** So many ways in which a frame has ended are remembered. */
const ENDINGS = 16;

/** So many bytes are looked ahead to an end, and of each frame so many bytes tried. */
const AHEAD = 4;
const TRIED = 2;

/** How a key ends, whatever is written of it, but for those that its object has then. */
interface KeyEnding {
  readonly way: Way;
  /** To the closing quote. */
  readonly bytes: Bytes;
  readonly taken: ReadonlySet<string>;
  /** Within the key for which that was found. */
  readonly stack: Stack;
  /** How often a way was looked for nevertheless. */
  met: number;
}

/** A text that is none of those there are and of which names are told apart by nothing: U+10FFFF and letters. */
const ANOTHER = [0xf4, 0x8f, 0xbf, 0xbf];
const LETTER = 0x61;

function endingOf(stack: Stack, way: Way): KeyEnding {
  const bytes: number[] = [];
  let at: Stack = stack;
  let rest: Way | null = way;
  for (; rest !== null && rest.rest !== null && at.written !== null; rest = rest.rest) {
    bytes.push(rest.byte);
    at = advance(at, rest.byte)!;
  }
  const key = at.taken!.last;
  let { taken } = at;
  const depth = depthOf(at);
  for (; rest !== null && depthOf(at) >= depth; rest = rest.rest) {
    if (depthOf(at) === depth && at.taken !== null) taken = at.taken;
    if (rest.rest === null) break;
    at = advance(at, rest.byte)!;
  }
  return {
    way,
    bytes: bytes.slice(0, -1),
    taken: new Set([...taken!].filter((other) => other !== key)),
    stack,
    met: 0,
  };
}

function depthOf(stack: Stack): number {
  let depth = 0;
  for (let at: Stack | null = stack; at !== null; at = at.below) depth += 1;
  return depth;
}

interface Node {
  readonly above: Map<Frame, Map<string, Node>>;
  readonly depth: number;
  /** Of keys written above it, by the frame on top. */
  keys: Map<Frame, KeyEnding> | null;
  way: Way | null;
}

/**
 * Few bytes that complete documents: Knuth's generalisation of Dijkstra's algorithm (1977, "A Generalization of Dijkstra's
 * Algorithm"). What can become of a frame until it ends is found once, whatever is below it, in the order of the bytes that
 * it takes by guess (Felzenszwalb and McAllester 2007, "The Generalized A* Architecture"), on demand.
 *
 * Where no guess is too high, no way is shorter but where a construct has to end in one that is longer than its shortest by
 * more than SLACK, or otherwise than in the first EXITS ways that are found, or new keys are needed that nothing tells apart
 * (bytes that do the same count as one). The way from each stack on a way is the rest of it: who writes its bytes sees the cost
 * fall by one a byte.
 */
export class Closing implements Closes {
  private readonly limit: number;
  private readonly bytesOf = new WeakMap<Frame, readonly number[]>();
  private readonly contexts = new WeakMap<Frame, Context>();
  private readonly endings = new WeakMap<Frame, Bytes[]>();
  private readonly sums = new WeakMap<Stack, number | null>();
  private readonly nodes = new WeakMap<Stack, Node>();
  /** Stacks within keys that have been asked about. */
  private readonly met = new WeakSet<Stack>();
  private readonly texts = new WeakMap<Taken, string>();
  private readonly bottom: Node = { above: new Map(), depth: 0, keys: null, way: null };

  /**
   * `limit`: how many frames are looked at before a search is given up. It is led by what frames take `least`; as far as that is
   * too high, ways may be longer than the shortest.
   */
  constructor(limit = 20_000) {
    this.limit = limit;
  }

  /** How many bytes complete the document; Infinity where the search was given up. */
  cost(stack: Stack): number {
    return this.sum(stack) ?? this.way(stack)?.cost ?? Infinity;
  }

  /** The bytes that complete the document. Throws where the search was given up. */
  bytes(stack: Stack): Uint8Array {
    const bytes = this.descent(stack);
    if (bytes === null) {
      throw new Error(`[grammar] no way to complete the document was found within ${this.limit} states`);
    }
    return Uint8Array.from(bytes);
  }

  /** The first of these bytes, up to where it is known how many are left; null where the search was given up. */
  first(stack: Stack): Bytes | null {
    if (this.sum(stack) !== null) return [];
    const way = this.way(stack);
    return way && bytesOf(way);
  }

  /** Puts down that these bytes complete the document: from then on it costs no more. */
  learn(stack: Stack, bytes: Bytes): void {
    this.remember(stack, bytes);
  }

  /** Of frames that know how many bytes they take, whatever is below: all together; null where one does not. */
  sum(stack: Stack): number | null {
    const known = this.sums.get(stack);
    if (known !== undefined) return known;
    // From below, as stacks may be deep.
    const path: Stack[] = [];
    let at: Stack | null = stack;
    for (; at !== null && !this.sums.has(at); at = at.below) path.push(at);
    let sum: number | null = at === null ? 0 : this.sums.get(at)!;
    for (const part of path.reverse()) {
      const bytes: number | null = sum === null ? null : (part.frame.fewest ?? part.frame.shortest?.bytes ?? null);
      sum = sum === null || bytes === null ? null : sum + bytes;
      this.sums.set(part, sum);
    }
    return sum;
  }

  /** Bytes each of which lowers the cost; null where none does. */
  private descent(stack: Stack): number[] | null {
    const bytes: number[] = [];
    for (let at: Stack = stack; ;) {
      const known: number | null = this.sum(at);
      if (known === 0 || (known === null && complete(at))) return bytes;
      const next: Bytes | null = known === null ? this.first(at) : this.lowering(at, known);
      if (next === null) return null;
      for (const byte of next) {
        bytes.push(byte);
        at = advance(at, byte)!;
      }
    }
  }

  /** A byte behind which fewer than `cost` are left, where that many are known to be. */
  private lowering(stack: Stack, cost: number): Bytes | null {
    const unknown: number[] = [];
    for (let byte = 0; byte < 256; byte += 1) {
      const next = stack.frame.alive?.[byte] === 0 ? null : advance(stack, byte);
      if (next === null) continue;
      const left = this.sum(next);
      if (left === null) unknown.push(byte);
      else if (left < cost) return [byte];
    }
    const found = unknown.find((byte) => this.cost(advance(stack, byte)!) < cost);
    return found === undefined ? null : [found];
  }

  /** The shortest bytes of a frame that knows how many they are. */
  private spell(frame: Frame): readonly number[] {
    const bytes = this.descent({ frame, below: FLOOR, written: null, taken: null });
    if (bytes === null) throw new Error('[grammar] a frame takes more bytes than it knows');
    return bytes;
  }

  /** See `Closes`. */
  alike(stack: Stack): Alike | null {
    const ending = stack.below && this.another(stack, this.node(stack.below));
    return ending && { stack: ending.stack, cost: ending.way.cost, but: ending.taken };
  }

  /** How a key ends that is another one than all there are, where any plain text is the beginning of such. */
  private another(stack: Stack, under: Node): KeyEnding | null {
    if (!steady(stack.frame)) return null;
    const known = under.keys?.get(stack.frame);
    if (known?.bytes.length === 0) return known;
    let text = advanceAll(stack, ANOTHER);
    while (text !== null && stack.below!.taken?.has(text.written!.text)) text = advance(text, LETTER);
    if (text?.frame !== stack.frame) return null;
    const way = this.find(text);
    if (way === null) return null;
    const ending = endingOf(text, way);
    if (ending.bytes.length > 0) return null;
    under.keys ??= new Map();
    under.keys.set(stack.frame, ending);
    return ending;
  }

  private way(stack: Stack): Way | null {
    const under = stack.written && stack.below && this.node(stack.below);
    if (!under) return this.find(stack);
    // What is written of a key matters only where it becomes one that its object has, or gets on the way.
    const known = under.above.get(stack.frame)?.get(stack.written!.key)?.way;
    const ending = this.another(stack, under) ?? under.keys?.get(stack.frame);
    if (known && !(ending && known.cost > ending.way.cost)) return known;
    // The first may have to be longer than others, since what it is without that has been there.
    const settled = ending !== undefined && (ending.bytes.length === 0 || ending.met >= 2);
    if (settled && !ending.taken.has(stack.written!.withAll(ending.bytes).text)) {
      if (!this.met.has(stack)) {
        this.met.add(stack);
        return ending.way;
      }
      // Asked about again, it has come: the stacks on its way are not to cost more than there.
      return this.remember(stack, bytesOf(ending.way));
    }
    const way = this.find(stack);
    if (ending) ending.met += 1;
    if (way !== null && (!ending || way.cost < ending.way.cost)) {
      under.keys ??= new Map();
      under.keys.set(stack.frame, endingOf(stack, way));
    }
    return way;
  }

  private find(stack: Stack): Way | null {
    const known = this.node(stack);
    if (known.way !== null) return known.way;
    if (complete(stack)) return (known.way = end(0));
    const quick = this.quick(stack, AHEAD);
    if (quick !== null) return quick;
    const { contexts, limit } = this;
    const parts = new Search(
      stack,
      contexts,
      (frame) => this.bytesFrom(frame),
      (at) => this.sum(at),
      limit,
    ).run();
    if (parts === null) return null;
    const bytes: number[] = [];
    let at = stack;
    for (const part of parts) {
      if (this.sum(at) !== null) break;
      for (const byte of typeof part === 'number' ? [part] : this.spell(part)) {
        bytes.push(byte);
        at = advance(at, byte)!;
      }
    }
    return this.remember(stack, bytes, true);
  }

  /** A way by a key that has to come, where none is shorter. */
  private toward(stack: Stack): Way | null {
    const { frame, below } = stack;
    const least = below && this.sum(below);
    if (least === null) return null;
    for (const { bytes, whole } of frame.toward) {
      const after = advanceAll(stack, bytes);
      const left = after && this.sum(after);
      if (left !== null && whole + left <= least) return this.remember(stack, bytes);
    }
    return null;
  }

  /**
   * A way by what is known: how the frame on top has ended elsewhere, or a byte that ends it at once, and the way from there;
   * `ahead`: so many bytes may stand before that. It may be longer than the shortest, where another outcome leaves less to be
   * done below.
   */
  private quick(stack: Stack, ahead: number): Way | null {
    const { frame } = stack;
    const endings = this.endings.get(frame) ?? [];
    const toward = this.toward(stack);
    if (toward !== null) return toward;
    // A key that has begun may be one that has to come.
    if (frame.unique && endings.length === 0) return null;
    const { depth } = this.node(stack);
    let best: { readonly bytes: Bytes; readonly cost: number } | null = null;
    for (const bytes of [...CLOSERS, ...endings]) {
      if (bytes.length === 1 && frame.move(bytes[0]!)?.kind !== 'pop') continue;
      const after = advanceAll(stack, bytes);
      if (after === null || this.node(after).depth >= depth) continue;
      const cost = bytes.length + this.cost(after);
      if (cost < (best?.cost ?? Infinity)) best = { bytes, cost };
    }
    if (best !== null) return this.remember(stack, best.bytes);
    if (ahead === 0 || frame.unique) return null;
    let tried = 0;
    for (let i = 0; i < 256 && tried < TRIED; i += 1) {
      const byte = (i + 0x20) % 256;
      if (frame.move(byte)?.kind !== 'frame') continue;
      tried += 1;
      const after = advance(stack, byte);
      if (after === null) continue;
      if ((this.sum(after) ?? this.node(after).way ?? this.quick(after, ahead - 1)) !== null) {
        return this.remember(stack, [byte]);
      }
    }
    return null;
  }

  /**
   * Puts a way down for each stack on it; `bytes` lead to the document's end, or to a stack of which a way is known, or how
   * long it is. `learn`: how
   * the frames on top of these stacks have ended, too.
   */
  private remember(stack: Stack, bytes: Bytes, learn = false): Way | null {
    const nodes = [this.node(stack)];
    const frames = [stack.frame];
    let at = stack;
    for (const byte of bytes) {
      const next = advance(at, byte);
      if (next === null) return null;
      at = next;
      nodes.push(this.node(at));
      frames.push(at.frame);
    }
    const last = nodes.at(-1)!;
    const left = this.sum(at);
    if (last.way === null && left === null && !complete(at)) return null;
    let way = left === null ? (last.way ??= end(0)) : end(left);
    for (let i = bytes.length - 1; i >= 0; i--) {
      way = { cost: way.cost + 1, byte: bytes[i]!, rest: way };
      if (way.cost < (nodes[i]!.way?.cost ?? Infinity)) nodes[i]!.way = way;
      else way = nodes[i]!.way!;
    }
    for (let i = 0; learn && i < bytes.length; i++) {
      const end = nodes.findIndex(({ depth }, j) => j > i && depth < nodes[i]!.depth);
      if (end < 0) continue;
      let endings = this.endings.get(frames[i]!);
      if (endings === undefined) this.endings.set(frames[i]!, (endings = []));
      const ending = bytes.slice(i, end);
      if (endings.length < ENDINGS && !endings.some((other) => String(other) === String(ending))) endings.push(ending);
    }
    return nodes[0]!.way;
  }

  /** Stacks with one future are one node. */
  private node(stack: Stack): Node {
    let found = this.nodes.get(stack);
    if (found !== undefined) return found;
    // From below, as stacks may be deep.
    const path: Stack[] = [];
    let at: Stack | null = stack;
    for (; at !== null && !this.nodes.has(at); at = at.below) path.push(at);
    found = at === null ? this.bottom : this.nodes.get(at)!;
    for (const part of path.reverse()) this.nodes.set(part, (found = this.above(found, part)));
    return found;
  }

  private above(under: Node, { frame: top, written, taken }: Stack): Node {
    const frame = top.bare ?? top;
    let same = under.above.get(frame);
    if (same === undefined) under.above.set(frame, (same = new Map<string, Node>()));
    // A key must not be one of those that its object has.
    const key = (written?.key ?? '') + (taken === null ? '' : this.textOf(taken));
    let found = same.get(key);
    if (found === undefined)
      same.set(key, (found = { above: new Map(), depth: under.depth + 1, keys: null, way: null }));
    return found;
  }

  private textOf(taken: Taken): string {
    let text = this.texts.get(taken);
    if (text === undefined) this.texts.set(taken, (text = JSON.stringify([...taken])));
    return text;
  }

  private bytesFrom(frame: Frame): readonly number[] {
    let bytes = this.bytesOf.get(frame);
    if (bytes === undefined) this.bytesOf.set(frame, (bytes = different(frame)));
    return bytes;
  }
}

/** One search; what it finds out of frames that are opened stays in `contexts`. */
class Search {
  private readonly contexts: WeakMap<Frame, Context>;
  private readonly bytesFrom: (frame: Frame) => readonly number[];
  private readonly active = new Set<Context>();
  /** Of the stack's frames. */
  private readonly stack = new Set<Context>();
  private readonly bottom: Context;
  /** There are frames below it. */
  private readonly above: boolean;
  private left: number;

  /** `sum`: how many bytes complete a stack, where that is known. */
  constructor(
    stack: Stack,
    contexts: WeakMap<Frame, Context>,
    bytesFrom: (frame: Frame) => readonly number[],
    sum: (stack: Stack) => number | null,
    limit: number,
  ) {
    this.contexts = contexts;
    this.bytesFrom = bytesFrom;
    this.left = limit;
    // From the bottom up: each frame of the stack is a context, whose end the one below awaits. What is below one that ends
    // in one way is closed alike, whatever is done above.
    const frames: Stack[] = [];
    for (let at: Stack | null = stack; at !== null; at = at.below) {
      frames.push(at);
      if (at !== stack && sum(at) !== null && at.frame.shortest !== null) break;
    }
    this.above = frames.at(-1)!.below !== null;
    let context: Context | null = null;
    let below = 0;
    this.bottom = new Context(null, 0);
    for (const { frame, written, taken } of frames.reverse()) {
      const item = { frame, pending: NONE, bytes: 0, written: null, keys: taken === null ? [] : [...taken] };
      const next: Context = context === null ? this.bottom : new Context(written, below);
      if (context !== null) next.callers.push({ context, item: this.held! });
      this.held = item;
      this.active.add(next);
      this.stack.add(next);
      below += frame.least;
      context = next;
    }
    this.put(context!, this.held!);
  }

  /** The item of the frame on top so far. */
  private held: Item | null = null;

  /** The shortest way, byte by byte and by frames whose shortest way it has; null where none is found. */
  run(): (number | Frame)[] | null {
    const found = this.search();
    // What the stack's frames have opened outlives them.
    for (const context of this.stack) {
      for (const opened of context.opened) {
        opened.callers = opened.callers.filter((caller) => !this.stack.has(caller.context));
      }
    }
    return found;
  }

  private search(): (number | Frame)[] | null {
    for (let exits = EXITS; ;) {
      let best: Context | null = null;
      let held = false;
      let least = this.bottom.cheapest;
      for (const context of this.active) {
        while (context.first < context.queue.length && !context.queue[context.first]?.length) context.first += 1;
        if (context.first >= context.queue.length) continue;
        const slack = context.key ? SLACK_OF_KEYS : SLACK;
        if (context.first >= least || context.first > context.cheapest + slack) continue;
        if (context.exits.size >= exits && context !== this.bottom) held = true;
        else [best, least] = [context, context.first];
      }
      if (best === null) {
        if (!held || this.bottom.exits.size > 0) break;
        exits *= 4;
        continue;
      }
      if (this.left <= 0) return null;
      const item = best.queue[best.first]!.pop()!;
      if (item.bytes > best.reached.get(keyOf(best, item))!) continue;
      this.left -= 1;
      this.expand(best, item);
    }
    const exits = [...this.bottom.exits.values()].sort((a, b) => a.bytes - b.bytes);
    return exits.length === 0 ? null : flat(exits[0]!.written);
  }

  private expand(context: Context, item: Item): void {
    const { pending, written, bytes } = item;
    if (pending !== NONE) {
      this.take(context, item, pending, written, bytes);
      return;
    }
    const outcome = item.frame.end();
    if (outcome !== null) this.exit(context, { outcome, pending: END, key: null, bytes, written });
    const next = this.bytesFrom(item.frame);
    for (const byte of next) {
      // A character's hexadecimal form is the longest of all; where it has others, its tens of thousands are not tried.
      if (byte === 0x75 && written?.last === 0x5c && next.length > 1) continue;
      this.take(context, item, byte, { before: written, last: byte }, bytes + 1);
    }
  }

  /** What `byte` does to the item's frame, `written` and `bytes` counting it. */
  private take(context: Context, item: Item, byte: number, written: Written | null, bytes: number): void {
    const move = item.frame.move(byte);
    if (move === null) return;
    if (move.kind === 'frame') this.put(context, { ...item, frame: move, pending: NONE, written, bytes });
    else if (move.kind === 'pop') {
      // A key's last byte is its quote.
      const key = context.key && context.key.withAll((flat(written) as number[]).slice(0, -1)).text;
      const pending = move.consumed ? NONE : byte;
      if (context !== this.bottom || (this.above && move.consumed))
        this.exit(context, { outcome: move.outcome, pending, key, bytes, written });
    } else {
      const { frame, child } = move;
      const { shortest } = child;
      if (shortest !== null) {
        const exit = { outcome: shortest.outcome, pending: NONE, key: null, bytes: shortest.bytes };
        this.resume(
          { context, item: { ...item, frame, written, bytes } },
          { ...exit, written: { before: null, last: child } },
        );
        return;
      }
      let opened = this.contexts.get(child);
      if (opened === undefined) {
        this.contexts.set(child, (opened = new Context(child.unique ? Spelling.nothing : null, 0)));
        this.put(opened, { frame: child, pending: NONE, bytes: 0, written: null, keys: [] });
      }
      const caller = { context, item: { ...item, frame, written, bytes } };
      opened.callers.push(caller);
      context.opened.add(opened);
      this.activate(opened);
      for (const exit of opened.exits.values()) this.resume(caller, exit);
    }
  }

  private activate(context: Context): void {
    if (this.active.has(context)) return;
    this.active.add(context);
    for (const opened of context.opened) this.activate(opened);
  }

  private put(context: Context, reached: Item): void {
    const { shortest } = reached.frame;
    if (shortest !== null && reached.pending === NONE) {
      const written = { before: reached.written, last: reached.frame };
      const bytes = reached.bytes + shortest.bytes;
      this.exit(context, { outcome: shortest.outcome, pending: NONE, key: null, bytes, written });
      return;
    }
    const item = { ...reached, frame: reached.frame.bare ?? reached.frame };
    const key = keyOf(context, item);
    if (item.bytes >= (context.reached.get(key) ?? Infinity)) return;
    context.reached.set(key, item.bytes);
    const total = item.bytes + item.frame.least + context.below;
    (context.queue[total] ??= []).push(item);
    context.first = Math.min(context.first, total);
  }

  private exit(context: Context, exit: Exit): void {
    const key = JSON.stringify([exit.outcome, exit.pending, exit.key]);
    if (exit.bytes >= (context.exits.get(key)?.bytes ?? Infinity)) return;
    context.exits.set(key, exit);
    context.cheapest = Math.min(context.cheapest, exit.bytes + context.below);
    for (const caller of context.callers) this.resume(caller, exit);
  }

  private resume({ context, item }: Caller, { outcome, pending, key, ...exit }: Exit): void {
    const frame = item.frame.resume(outcome);
    if (frame === null || (key !== null && item.keys.includes(key))) return;
    const bytes = item.bytes + exit.bytes;
    const written = { before: item.written, last: exit.written };
    if (pending !== END) {
      this.put(context, { frame, pending, bytes, written, keys: key === null ? item.keys : [...item.keys, key] });
      return;
    }
    const end = frame.end();
    if (end !== null) this.exit(context, { outcome: end, pending, key: null, bytes, written });
  }
}

/** What is told apart: of keys, also how long they are. */
function keyOf(context: Context, { frame, pending, bytes }: Item): string {
  return `${idOf(frame)} ${pending} ${context.key ? bytes : ''}`;
}

const ids = new WeakMap<Frame, number>();
let lastId = 0;

function idOf(frame: Frame): number {
  let id = ids.get(frame);
  if (id === undefined) ids.set(frame, (id = lastId += 1));
  return id;
}

/** In the order in which they are written. */
function flat(written: Written | null): (number | Frame)[] {
  const parts: (number | Frame)[] = [];
  const open: (number | Frame | Written | null)[] = [written];
  while (open.length > 0) {
    const part = open.pop()!;
    if (part === null) continue;
    if (typeof part === 'number' || part instanceof Frame) parts.push(part);
    else open.push(part.before, part.last);
  }
  return parts.reverse();
}

/** Of the hexadecimal digits of an escape, any of which goes on, so many are tried. */
const HEXADECIMAL = 3;

/** One byte for all that do the same, printable ones first; where the shortest way is known, the first that is on it. */
function different(frame: Frame): number[] {
  const first = frame.fewest === null || frame.fewest === 0 ? null : lowering(frame, frame.fewest);
  if (first !== null) return [first];
  const bytes = tellingApart(frame);
  const text = String.fromCharCode(...bytes);
  return /^[\da-f]*[a-f]$/i.test(text) ? bytes.slice(0, HEXADECIMAL) : bytes;
}

function lowering(frame: Frame, fewest: number): number | null {
  for (let byte = 0; byte < 256; byte++) {
    const move = frame.alive?.[byte] === 0 ? null : frame.move(byte);
    if (move === null || (move.kind === 'pop' && !move.consumed)) continue;
    const left =
      move.kind === 'pop' ? 0 : move.kind === 'push' ? sumOf(move.frame.fewest, move.child.fewest) : move.fewest;
    if (left === fewest - 1) return byte;
  }
  return null;
}

function sumOf(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : a + b;
}

function tellingApart(frame: Frame): number[] {
  const bytes: number[] = [];
  const frames = new Set<Frame>();
  const pushes = new Map<Frame, Set<Frame>>();
  const outcomes = new Set<Outcome>();
  const { detours } = frame;
  for (let i = 0; i < 256; i++) {
    const byte = (i + 0x20) % 256;
    const move = detours?.[byte] === 1 ? null : frame.move(byte);
    if (move === null) continue;
    if (move.kind === 'frame') {
      if (frames.has(move)) continue;
      frames.add(move);
    } else if (move.kind === 'push') {
      let children = pushes.get(move.frame);
      if (children === undefined) pushes.set(move.frame, (children = new Set()));
      if (children.has(move.child)) continue;
      children.add(move.child);
    } else if (move.consumed) {
      if (outcomes.has(move.outcome)) continue;
      outcomes.add(move.outcome);
    }
    bytes.push(byte);
  }
  return bytes;
}
