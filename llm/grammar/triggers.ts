import { Frame, Interned, type Move, type Outcome, type Pop } from './automaton.ts';
import { Closing } from './budget.ts';
import { Sentence } from './cfg/pushdown.ts';
import { begun, continued, type Begun } from './cfg/utf8.ts';
import { checkOptions, shown } from './options.ts';
import { start } from './stack.ts';

/**
 * Free text with triggers: anything may be written until the text of a trigger comes (`<tool_call>`), then what its grammar
 * allows, then its end (`</tool_call>`), then anything again.
 */
export interface Trigger {
  /** Found anywhere in free text. */
  readonly begin: string;
  /**
   * What stands inside, as a document's first frame; null: any text without `end`. A context-free grammar closes itself:
   * `contextFree(text, end)`, with no `end` here.
   */
  readonly grammar: Frame | null;
  /**
   * What closes it: where the grammar may end, its first occurrence does. Empty: the grammar ends where it can't go on.
   */
  readonly end: string;
}

export interface TriggerOptions {
  readonly triggers: readonly Trigger[];
  /** At least and at most so many calls: of triggers with a grammar. 0 and Infinity where not said. */
  readonly least?: number;
  readonly most?: number;
  /** After `most` calls: nothing (`end`), or text without a further trigger (`text`, where not said). */
  readonly then?: 'text' | 'end';
}

/**
 * The document's first frame. What OpenAI's `tool_choice` says: none is `most: 0`, auto neither bound, required `least: 1`, one
 * function its trigger alone and `least: 1`. Reasoning first is a trigger whose grammar is null (`<think>` … `</think>`): no
 * trigger is looked for in it, and it is no call. Text is valid UTF-8.
 *
 * The frames of text know nothing of what triggers lead to: they end at the trigger's last byte and say which it was.
 * So their masks are the same in all grammars with these triggers. A mask of text takes nearly all tokens and a walk of
 * nearly the whole trie, once for each state: the beginnings of triggers and of characters.
 */
export function triggered(options: TriggerOptions): Frame {
  checkOptions('triggered(options)', options, ['triggers', 'least', 'most', 'then']);
  const { triggers, least = 0, most = Infinity, then = 'text' } = options;
  checkShapes(triggers, { least, most, then });
  if (least > most) throw new Error(`[grammar] at least ${least} calls and at most ${most} can't be`);
  if (least > 0 && triggers.every(({ grammar }) => grammar === null)) {
    throw new Error(`[grammar] at least ${least} calls, but no trigger has a grammar`);
  }
  for (const { begin, grammar, end } of triggers) {
    const where = `[grammar] trigger ${JSON.stringify(begin)}`;
    if (begin === '') throw new Error(`${where}: its text is empty and would be found everywhere`);
    if (/\p{Surrogate}/u.test(begin + end)) throw new Error(`${where} is no text: a surrogate stands alone`);
    if (grammar === null && end === '') throw new Error(`${where}: any text needs an end`);
    if (grammar instanceof Sentence && (end !== '' || !grammar.closed)) {
      throw new Error(
        `${where}: a context-free grammar closes itself: contextFree(text, ${JSON.stringify(end)}), end: ''`,
      );
    }
    for (const other of triggers) {
      if (other.begin !== begin && begin.slice(0, -1).includes(other.begin)) {
        throw new Error(`${where}: ${JSON.stringify(other.begin)} is complete before it; rename one`);
      }
    }
    if (triggers.filter((other) => other.begin === begin).length > 1) throw new Error(`${where} is there twice`);
  }
  return new Document({ triggers, least, most, then }).start();
}

function checkShapes(triggers: unknown, { least, most, then }: Omit<Required<TriggerOptions>, 'triggers'>): void {
  const where = '[grammar] triggered(options):';
  if (!Array.isArray(triggers)) {
    throw new Error(`${where} triggers is ${shown(triggers)}; it must be a list of { begin, grammar, end }`);
  }
  for (const [place, trigger] of triggers.entries()) {
    checkOptions(`triggered(options): triggers[${place}]`, trigger, ['begin', 'grammar', 'end']);
    const { begin, grammar, end } = trigger as Record<string, unknown>;
    for (const [key, text] of Object.entries({ begin, end })) {
      if (typeof text !== 'string')
        throw new Error(`${where} triggers[${place}].${key} is ${shown(text)}; it must be a text`);
    }
    if (grammar === null || grammar instanceof Frame) continue;
    throw new Error(
      `${where} triggers[${place}].grammar is ${shown(grammar)}; it must be null, or what jsonSchema, regular or contextFree give`,
    );
  }
  for (const [key, count] of Object.entries({ least, most })) {
    const whole = Number.isInteger(count) || (key === 'most' && count === Infinity);
    if (!whole || count < 0) throw new Error(`${where} ${key} is ${shown(count)}; it must be an integer from 0 up`);
  }
  if (then !== 'text' && then !== 'end') throw new Error(`${where} then is ${shown(then)}; it must be "text" or "end"`);
}

/** The outcome of text that the document ends with; the others are the triggers' places. */
const ENDED: Outcome = -1;

/** Makes the frames of one document. */
class Document {
  readonly triggers: readonly Trigger[];
  readonly ends: readonly Uint8Array[];
  readonly finder: Finder;
  private readonly least: number;
  private readonly most: number;
  private readonly then: 'text' | 'end';
  private cheapestCall: number | null = null;
  private closing: Closing | null = null;
  /** The triggers' texts, and which of them are calls. */
  readonly texts: string;
  private readonly known = new Interned<Text>();
  private readonly between = new Interned<Between>();
  private readonly calls = new Map<Frame, Interned<Call>>();

  constructor({ triggers, least, most, then }: Required<TriggerOptions>) {
    this.triggers = triggers;
    this.ends = triggers.map(({ end }) => utf8(end));
    this.texts = JSON.stringify(triggers.map(({ begin, grammar }) => [begin, grammar !== null]));
    this.finder = new Finder(triggers.map(({ begin }) => utf8(begin)));
    this.least = least;
    this.most = most;
    this.then = then;
  }

  start(): Frame {
    return this.outside(0) ?? NOTHING;
  }

  /** The frame below text, after so many calls; null where nothing may follow. */
  outside(count: number): Between | null {
    if (count >= this.most && this.then === 'end') return null;
    return this.between.get(String(count), () => new Between(this, count));
  }

  /** The beginning of a text after so many calls. */
  textAfter(count: number): Text {
    return this.text(0, null, !this.mayEnd(count) ? 'required' : count < this.most ? 'allowed' : 'refused');
  }

  /** Text after which the finder is at `node`. Where calls are refused, their triggers may not be completed. */
  text(node: number, character: Begun | null, calls: Calls): Text {
    const key = `${node} ${character?.from} ${character?.to} ${calls}`;
    return this.known.get(key, () => new Text(this, key, node, character, calls));
  }

  /** In trigger `place`, which comes after `count` calls. */
  call(place: number, count: number, inside: Frame, closing: readonly number[]): Call {
    let calls = this.calls.get(inside);
    if (!calls) this.calls.set(inside, (calls = new Interned()));
    return calls.get(`${place} ${count} ${closing}`, () => new Call(this, place, count, inside, closing));
  }

  /** The number of calls after trigger `place`, no further than it matters. */
  counted(place: number, count: number): number {
    if (this.triggers[place]!.grammar === null) return count;
    return Math.min(count + 1, this.most === Infinity ? this.least : this.most);
  }

  mayEnd(count: number): boolean {
    return count >= this.least;
  }

  /** The fewest bytes of the calls that are required after `count`, no text before them; null where that was not found. */
  fewest(count: number): number | null {
    if (this.mayEnd(count)) return 0;
    return this.cheapest === Infinity ? null : (this.least - count) * this.cheapest;
  }

  /** The fewest bytes of a call, its trigger among them; Infinity where that was not found. */
  get cheapest(): number {
    this.cheapestCall ??= this.triggers.reduce(
      (least, { begin, grammar }, place) =>
        grammar === null ? least : Math.min(least, utf8(begin).length + this.inside(place)),
      Infinity,
    );
    return this.cheapestCall;
  }

  /** The fewest bytes behind a trigger's beginning to its end. */
  inside(place: number): number {
    const { grammar } = this.triggers[place]!;
    const inside = grammar === null ? 0 : (grammar.fewest ?? (this.closing ??= new Closing()).cost(start(grammar)));
    return inside + this.ends[place]!.length;
  }
}

/** What becomes of calls in a text: the document may not end before one, may, or there may be none. */
type Calls = 'required' | 'allowed' | 'refused';

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Below text: takes the trigger that the text has ended with. Where nothing is above it, the text begins. */
class Between extends Frame {
  private readonly document: Document;
  private readonly count: number;

  constructor(document: Document, count: number) {
    super();
    this.document = document;
    this.count = count;
  }

  override end(): Outcome | null {
    return this.document.mayEnd(this.count) ? 0 : null;
  }

  override get fewest(): number | null {
    return this.document.fewest(this.count);
  }

  protected override step(byte: number): Move {
    const move = this.document.textAfter(this.count).move(byte);
    if (move === null) return null;
    if (move.kind === 'frame') return { kind: 'push', frame: this, child: move };
    return move.kind === 'pop' ? this.resume(move.outcome) : move;
  }

  protected override after(outcome: Outcome): Frame | null {
    if (outcome === ENDED) return this;
    return this.document.call(outcome, this.count, this.document.triggers[outcome]!.grammar ?? ANYTHING, []);
  }
}

/** Text that triggers are looked for in. It ends with a trigger's last byte, whatever that leads to. */
class Text extends Frame {
  private readonly document: Document;
  private readonly node: number;
  private readonly character: Begun | null;
  private readonly calls: Calls;
  private readonly key: string;
  private bytes: number | null | undefined;

  constructor(document: Document, key: string, node: number, character: Begun | null, calls: Calls) {
    super();
    this.document = document;
    this.node = node;
    this.character = character;
    this.calls = calls;
    this.key = `text ${key} before ${document.texts}`;
  }

  /** How many bytes a required call takes hangs on the grammars behind the triggers. */
  override get signature(): string | null {
    return this.calls === 'required' ? null : this.key;
  }

  override end(): Outcome | null {
    return this.character === null ? ENDED : null;
  }

  /**
   * Where a call is required, the frame below counts the cheapest one whole: here only what it is made longer, or shorter
   * by what is written of it.
   */
  override get fewest(): number | null {
    if (this.bytes === undefined) this.bytes = this.calls === 'required' ? this.toCall() : this.toCharacter();
    return this.bytes;
  }

  private toCharacter(): number | null {
    if (this.character === null) return 0;
    const { left } = this.character;
    return this.continued().some((move) => move.kind === 'frame' && move.fewest === left - 1) ? left : null;
  }

  /** By way of the trigger behind which the least follows, a search in breadth. */
  private toCall(): number | null {
    const { document } = this;
    let least = Infinity;
    let level = new Set<Text>([this]);
    const seen = new Set<Text>(level);
    for (let bytes = 1; level.size > 0; bytes++) {
      const next = new Set<Text>();
      for (const text of level) {
        for (const move of text.continued()) {
          if (move.kind === 'pop') {
            const call = document.triggers[move.outcome]!.grammar === null ? 0 : document.cheapest;
            least = Math.min(least, bytes + document.inside(move.outcome) - call);
          } else if (!seen.has(move)) {
            seen.add(move);
            next.add(move);
          }
        }
      }
      level = next;
    }
    return Number.isFinite(least) ? least : null;
  }

  /** What the bytes lead to that a character goes on with, or a trigger has. */
  private continued(): (Text | Pop)[] {
    const bytes = this.character === null ? this.document.finder.bytes : CONTINUATION;
    return [...bytes].flatMap((byte) => (this.move(byte) as Text | Pop | null) ?? []);
  }

  protected override step(byte: number): Text | Pop | null {
    const character = this.character === null ? begun(byte) : continued(this.character, byte);
    if (character === null) return null;
    const { finder, triggers } = this.document;
    const node = finder.step(this.node, byte);
    const found = finder.found(node);
    if (found !== null) {
      const allowed = this.calls !== 'refused' || triggers[found]!.grammar === null;
      return allowed ? { kind: 'pop', outcome: found, consumed: true } : null;
    }
    const next = this.document.text(node, character.left === 0 ? null : character, this.calls);
    return next.completable ? next : null;
  }

  /** Refused triggers may be all that a character can go on with. */
  private get completable(): boolean {
    if (this.character === null) return true;
    for (let byte = 0x80; byte < 0xc0; byte++) if (this.move(byte) !== null) return true;
    return false;
  }
}

/** Inside a trigger. Wraps the lowest frame of its grammar, which alone sees what comes behind it. */
class Call extends Frame {
  private readonly document: Document;
  private readonly place: number;
  private readonly count: number;
  private readonly inside: Frame;
  /** How many bytes of the trigger's end there are already: more than one number where it overlaps with itself. */
  private readonly closing: readonly number[];
  private readonly ending: Uint8Array;

  constructor(document: Document, place: number, count: number, inside: Frame, closing: readonly number[]) {
    super();
    this.document = document;
    this.place = place;
    this.count = count;
    this.inside = inside;
    this.closing = closing;
    this.ending = document.ends[place]!;
  }

  override end(): Outcome | null {
    if (this.ending.length > 0 || this.inside.end() === null) return null;
    return this.document.mayEnd(this.document.counted(this.place, this.count)) ? 0 : null;
  }

  override get fewest(): number | null {
    return this.inside.fewest === null || this.behind === null ? null : this.closed(this.inside.fewest) + this.behind;
  }

  override get least(): number {
    return this.closed(this.inside.least) + (this.behind ?? 0);
  }

  /** The bytes to the end of the trigger, where its grammar takes so many. */
  private closed(inside: number): number {
    const { ending, closing } = this;
    return Math.min(inside + ending.length, ...closing.map((length) => ending.length - length));
  }

  /** The fewest bytes of what has to follow. */
  private get behind(): number | null {
    return this.document.fewest(this.document.counted(this.place, this.count));
  }

  protected override after(outcome: Outcome): Frame | null {
    const inside = this.inside.resume(outcome);
    return inside && this.with(inside, []);
  }

  protected override step(byte: number): Move {
    const move = this.inside.move(byte);
    const ended = this.inside.end() !== null || (move?.kind === 'pop' && !move.consumed);
    const count = this.document.counted(this.place, this.count);
    const behind = this.document.outside(count);
    if (this.ending.length === 0) {
      if (move?.kind === 'frame') return this.with(move, []);
      if (move?.kind === 'push') return { kind: 'push', frame: this.with(move.frame, []), child: move.child };
      if (move?.kind === 'pop' && move.consumed) return behind ?? NOTHING;
      return ended && behind ? behind.move(byte) : null;
    }
    const closing = this.closing.filter((length) => this.ending[length] === byte).map((length) => length + 1);
    if (ended && this.ending[0] === byte) closing.push(1);
    if (closing[0] === this.ending.length) {
      return behind ? { kind: 'push', frame: behind, child: this.document.textAfter(count) } : NOTHING;
    }
    if (move?.kind === 'frame') return this.with(move, closing);
    if (move?.kind === 'pop' && move.consumed) return this.with(NOTHING, closing);
    if (closing.length > 0) return this.with(DEAD, closing);
    return move?.kind === 'push' ? { kind: 'push', frame: this.with(move.frame, []), child: move.child } : null;
  }

  private with(inside: Frame, closing: readonly number[]): Call {
    return this.document.call(this.place, this.count, inside, closing);
  }
}

/** Finds several texts at once (Aho and Corasick 1975, "Efficient string matching"): a trie with links to suffixes. */
class Finder {
  private readonly children: Map<number, number>[] = [new Map()];
  private readonly texts: (number | null)[] = [null];
  /** The longest proper suffix of a node's text that has a node. */
  private readonly suffix: number[] = [0];
  /** Those of the texts. */
  readonly bytes: ReadonlySet<number>;

  constructor(texts: readonly Uint8Array[]) {
    this.bytes = new Set(texts.flatMap((text) => [...text]));
    texts.forEach((text, place) => {
      let node = 0;
      for (const byte of text) {
        let next = this.children[node]!.get(byte);
        if (next === undefined) {
          next = this.children.push(new Map()) - 1;
          this.children[node]!.set(byte, next);
          this.texts.push(null);
          this.suffix.push(0);
        }
        node = next;
      }
      this.texts[node] = place;
    });
    // Shorter texts first: a suffix is known before it is asked for.
    const nodes = [0];
    for (const node of nodes) {
      for (const [byte, child] of this.children[node]!) {
        if (node !== 0) this.suffix[child] = this.step(this.suffix[node]!, byte);
        this.texts[child] ??= this.texts[this.suffix[child]!]!;
        nodes.push(child);
      }
    }
  }

  step(node: number, byte: number): number {
    for (;;) {
      const next = this.children[node]!.get(byte);
      if (next !== undefined || node === 0) return next ?? 0;
      node = this.suffix[node]!;
    }
  }

  /** The longest of the texts that ends at `node`; null where none does. */
  found(node: number): number | null {
    return this.texts[node]!;
  }
}

/** The empty text alone. */
class Nothing extends Frame {
  override end(): Outcome | null {
    return 0;
  }

  override get fewest(): number {
    return 0;
  }

  protected override step(): Move {
    return null;
  }
}

/** No text: a grammar that has gone no further, while what closes it has begun. */
class Dead extends Frame {
  override get fewest(): number {
    return Infinity;
  }

  protected override step(): Move {
    return null;
  }
}

/** Any text. */
class Anything extends Frame {
  private readonly character: Begun | null;

  constructor(character: Begun | null) {
    super();
    this.character = character;
  }

  override end(): Outcome | null {
    return this.character === null ? 0 : null;
  }

  override get fewest(): number {
    return this.character === null ? 0 : this.character.left;
  }

  protected override step(byte: number): Frame | null {
    const character = this.character === null ? begun(byte) : continued(this.character, byte);
    if (character === null) return null;
    if (character.left === 0) return ANYTHING;
    const { from, to, left } = character;
    return CHARACTERS.get(`${from} ${to} ${left}`, () => new Anything(character));
  }
}

const CONTINUATION = Array.from({ length: 64 }, (_, i) => 0x80 + i);

const NOTHING = new Nothing();
const DEAD = new Dead();
const ANYTHING = new Anything(null);
const CHARACTERS = new Interned<Frame>();
