import { Frame, Interned, type ByteSet, type Move, type Outcome, type Pop } from '../automaton.ts';
import { END, network, type Network } from './network.ts';
import { followedBy, parse } from './parse.ts';
import { bits, hasBit, type Bits } from './utf8.ts';
import { BASE, Draft, Nodes, type Node, type Return } from './returns.ts';

/**
 * The texts of a context-free grammar (its notation: parse.ts), followed by `closing`. A grammar that closes itself so can
 * stand between the texts of a trigger (triggers.ts), which alone it could not: where it ends, it has to know what follows.
 *
 * A frame is all that the grammar may be doing after the same bytes, as in generalised LL parsing (Scott and Johnstone 2010):
 * a set of items, each a state of the network and the node that its rule returns to. Every rule derives some text, so
 * every item can be completed, and a byte is allowed exactly where an item reads it (the valid-prefix property).
 *
 * Where all items are in the same call, the call is opened as a frame of its own and what it returns to waits below. So
 * frames, and with them masks, are the same at every depth and in every place; all that is known of the place are
 * the bytes that may follow. Where such a byte could also continue the call, both must be followed: the frame ends, its
 * outcome says which items it had, and the frame below continues them together with its own.
 */
export function contextFree(text: string, closing = ''): Frame {
  const grammar = parse(text);
  return new Automaton(network(closing === '' ? grammar : followedBy(grammar, closing)), closing !== '').start();
}

/** The outcome of a frame whose call has ended. Others are the ids of frames, to be continued below. */
const ENDED: Outcome = 0;
const CONSUMED: Pop = { kind: 'pop', outcome: ENDED, consumed: true };
const LEFT: Pop = { kind: 'pop', outcome: ENDED, consumed: false };

/** The bytes that may come behind a call. */
interface Follow {
  readonly id: number;
  readonly bytes: Bits;
}

/** What items lead to without reading a byte. */
interface Closure {
  /** Those that read. */
  readonly items: readonly Return[];
  /** All may end here. */
  readonly complete: boolean;
}

/** Makes the frames of one grammar. */
class Automaton {
  readonly nodes = new Nodes();
  readonly closed: boolean;
  readonly network: Network;
  private readonly sentences: Sentence[] = [];
  private readonly known = new Interned<Sentence>();
  private readonly waiting = new Interned<Waiting>();
  private readonly follows = new Interned<Follow>();
  /** By node: the fewest bytes behind its call to the base. */
  private readonly behind = new Map<Node, number>([[BASE, 0]]);
  /** Follows what ends by itself: the same there in every place. */
  readonly anything = this.follow(bits([{ from: 0, to: 255 }]));

  constructor(network: Network, closed: boolean) {
    this.network = network;
    this.closed = closed;
  }

  start(): Sentence {
    const state = this.network.starts[this.network.root]!;
    return this.sentence([{ state, node: BASE }], this.follow(bits([])), true);
  }

  sentence(items: readonly Return[], follow: Follow, bottom: boolean): Sentence {
    const unique = new Map<string, Return>();
    for (const item of ended(items)) unique.set(`${item.state} ${item.node.id}`, item);
    const key = `${[...unique.keys()].sort().join(', ')}; ${follow.id} ${bottom}`;
    return this.known.get(key, () => {
      const sentence = new Sentence(this, this.sentences.length + 1, [...unique.values()], follow, bottom);
      this.sentences.push(sentence);
      return sentence;
    });
  }

  sentenceOf(outcome: Outcome): Sentence {
    return this.sentences[outcome - 1]!;
  }

  wait(node: Node, follow: Follow, bottom: boolean): Waiting {
    return this.waiting.get(`${node.id}; ${follow.id} ${bottom}`, () => new Waiting(this, node, follow, bottom));
  }

  follow(bytes: Bits): Follow {
    return this.follows.get(bytes.join(' '), () => ({ id: this.follows.size, bytes }));
  }

  /** The fewest bytes from `items` to the base: those of the cheapest, as each may go on whatever the others do. */
  fewest(items: readonly Return[]): number {
    const { behind } = this;
    const { fewest } = this.network;
    const least = (list: readonly Return[]): number =>
      list.reduce(
        (bytes, { state, node }) => Math.min(bytes, fewest[state]! + (behind.get(node) ?? Infinity)),
        Infinity,
      );
    const fresh = new Set(items.flatMap(({ node }) => (behind.has(node) ? [] : [node])));
    for (const { returns } of fresh) for (const { node } of returns) if (!behind.has(node)) fresh.add(node);
    // Nodes return to each other where rules are left recursive.
    const nodes = [...fresh].reverse();
    for (let changed = true; changed;) {
      changed = false;
      for (const node of nodes) {
        const bytes = least(node.returns);
        if (bytes >= (behind.get(node) ?? Infinity)) continue;
        behind.set(node, bytes);
        changed = true;
      }
    }
    return least(items);
  }

  /** What `items` lead to (Earley's predictor and completer, 1970). */
  closure(items: readonly Return[]): Closure {
    const drafts = new Map<number, Draft>();
    const seen = new Map<Node | Draft, Set<number>>();
    const all: { readonly state: number; readonly node: Node | Draft }[] = [];
    const add = (state: number, node: Node | Draft): void => {
      let states = seen.get(node);
      if (!states) seen.set(node, (states = new Set()));
      if (states.has(state)) return;
      states.add(state);
      all.push({ state, node });
    };
    let complete = false;
    for (const { state, node } of items) add(state, node);
    for (const { state, node } of all) {
      const { calls, final } = this.network.states[state]!;
      if (final && node === BASE) complete = true;
      // A rule that has only just been called derives the empty text: who called it has gone on already, below.
      else if (final && !(node instanceof Draft)) for (const back of node.returns) add(back.state, back.node);
      for (const call of calls) {
        let draft = drafts.get(call.rule);
        if (!draft) drafts.set(call.rule, (draft = new Draft(call.rule)));
        draft.add(call.to, node);
        add(this.network.starts[call.rule]!, draft);
        if (this.network.nullable[call.rule]) add(call.to, node);
      }
    }
    this.nodes.intern(drafts.values());
    const reading = all.filter(({ state }) => this.network.states[state]!.reads.length > 0);
    return {
      items: reading.map(({ state, node }) => ({ state, node: node instanceof Draft ? node.node! : node })),
      complete,
    };
  }
}

/** Items whose rules have ended, which their returns take the place of. */
function ended(items: readonly Return[]): Return[] {
  return items.flatMap((item) => (item.state === END && item.node !== BASE ? item.node.returns : [item]));
}

/** A set of items. The frame at the bottom is the whole text's: it never ends by itself. */
export class Sentence extends Frame {
  readonly id: number;
  readonly items: readonly Return[];
  private readonly automaton: Automaton;
  private readonly follow: Follow;
  private readonly bottom: boolean;
  private closure: Closure | null = null;
  private living: ByteSet | null = null;
  private bytes: number | null = null;

  constructor(automaton: Automaton, id: number, items: readonly Return[], follow: Follow, bottom: boolean) {
    super();
    this.automaton = automaton;
    this.id = id;
    this.items = items;
    this.follow = follow;
    this.bottom = bottom;
  }

  /** Whether the grammar ends with a text of its own, of contextFree's `closing`. */
  get closed(): boolean {
    return this.automaton.closed;
  }

  /** What `items` are states of. */
  get network(): Network {
    return this.automaton.network;
  }

  private get open(): Closure {
    return (this.closure ??= this.automaton.closure(this.items));
  }

  override end(): Outcome | null {
    return this.open.complete ? ENDED : null;
  }

  protected override step(byte: number): Move {
    const items = ended(this.read(byte));
    const first = items[0];
    // Nothing follows the frame at the bottom: its `follow` is empty.
    const leaves = this.open.complete && hasBit(this.follow.bytes, byte);
    if (!first) return leaves ? LEFT : null;
    if (leaves) return { kind: 'pop', outcome: this.id, consumed: false };
    if (items.some(({ node }) => node !== first.node)) return this.automaton.sentence(items, this.follow, this.bottom);
    if (first.node !== BASE) {
      const frame = this.automaton.wait(first.node, this.follow, this.bottom);
      const inside = items.map(({ state }) => ({ state, node: BASE }));
      const delimited = inside.every(({ state }) => this.automaton.network.delimited[state]);
      const follow = delimited ? this.automaton.anything : frame.returned.first;
      return { kind: 'push', frame, child: this.automaton.sentence(inside, follow, false) };
    }
    if (!this.bottom && items.every(({ state }) => state === END)) return CONSUMED;
    return this.automaton.sentence(items, this.follow, this.bottom);
  }

  override get fewest(): number {
    return (this.bytes ??= this.automaton.fewest(this.items));
  }

  override get alive(): ByteSet {
    if (this.living === null) {
      const { bytes } = this.first;
      this.living = Uint8Array.from({ length: 256 }, (_, byte) => (hasBit(bytes, byte) ? 1 : 0));
    }
    return this.living;
  }

  private read(byte: number): Return[] {
    const { states } = this.automaton.network;
    const items: Return[] = [];
    for (const { state, node } of this.open.items) {
      const { first, reads } = states[state]!;
      if (!hasBit(first, byte)) continue;
      for (const { bytes, to } of reads) if (bytes.from <= byte && byte <= bytes.to) items.push({ state: to, node });
    }
    return items;
  }

  /** The bytes that are allowed here, those among them that end the frame. */
  get first(): Follow {
    const { items, complete } = this.open;
    const all = complete ? this.follow.bytes.slice() : bits([]);
    for (const { state } of items) this.automaton.network.states[state]!.first.forEach((word, i) => (all[i]! |= word));
    return this.automaton.follow(all);
  }
}

/** A call is open: its frame is above. */
export class Waiting extends Frame {
  readonly node: Node;
  private readonly automaton: Automaton;
  private readonly follow: Follow;
  private readonly bottom: boolean;
  private bytes: number | null = null;

  constructor(automaton: Automaton, node: Node, follow: Follow, bottom: boolean) {
    super();
    this.automaton = automaton;
    this.node = node;
    this.follow = follow;
    this.bottom = bottom;
  }

  /** The frame after the call. */
  get returned(): Sentence {
    return this.automaton.sentence(this.node.returns, this.follow, this.bottom);
  }

  override get fewest(): number {
    return (this.bytes ??= this.automaton.fewest(this.node.returns));
  }

  protected override after(outcome: Outcome): Frame {
    if (outcome === ENDED) return this.returned;
    const items = this.automaton
      .sentenceOf(outcome)
      .items.map(({ state, node }) => ({ state, node: this.automaton.nodes.move(node, this.node) }));
    return this.automaton.sentence(items, this.follow, this.bottom);
  }

  protected override step(): Move {
    throw new Error('[grammar] a frame below an open call was asked for a byte');
  }
}
