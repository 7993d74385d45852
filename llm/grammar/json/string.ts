import {
  bytesIn,
  Frame,
  Interned,
  type ByteSet,
  type Few,
  type Like,
  type Move,
  type Outcome,
  type Shortest,
  type Toward,
  type Uniform,
} from '../automaton.ts';
import { combine, type Wanted } from '../text/combine.ts';
import { finite } from '../text/finite.ts';
import { Nearest } from '../text/nearest.ts';
import { words } from '../text/words.ts';
import { CODE_POINTS, DEAD, NONE, firstFrom, meets, type Language, type Range, type Span } from '../text/language.ts';

/** The strings of a JSON text whose content some languages decide, read behind the opening quote. */
export interface Strings {
  readonly open: Frame;
}

export interface StringOptions {
  /**
   * No two of one object or array may be equal: the keys of one object, elements that have to differ. Of beginnings with so
   * many texts it is known when these are used up; 0: they may be equal.
   */
  readonly unique?: number;
  /** Where they are `unique` and few, each leads to states of its own. */
  readonly apart?: boolean;
  /** Whatever is written can become a string that is wanted, by plain text alone. */
  readonly open?: boolean;
  /** Texts of which one has to come: whoever looks for a short way tries these first, in this order. */
  readonly sooner?: ReadonlyMap<string, number>;
  /** Which texts are, where that is so: less has to be searched for then. */
  readonly wanted?: Wanted | undefined;
  /** All end so. */
  readonly sole?: Outcome | undefined;
}

/**
 * Strings by what they are in each of the languages: `outcome` makes of the labels how the string ends, null where it must
 * not be. Null where no string is left. Throws where it takes too many states to know.
 */
export function strings(
  languages: readonly Language[],
  outcome: (labels: readonly number[]) => Outcome | null,
  { unique = 0, apart = false, open = false, sooner, wanted, sole }: StringOptions = {},
): Strings | null {
  const language = combine('', languages, (labels) => outcome(labels) ?? NONE, wanted);
  if (language.start === DEAD) return null;
  const few = apart && !languages.every(({ texts }) => texts) ? toldApart(language, unique) : null;
  return { open: new StringFrames(few ?? language, { unique, open, sooner, sole }).content((few ?? language).start) };
}

/** The same as a list of texts, if there are at most so many: whoever looks for another one sees what differs. */
function toldApart(language: Language, most: number): Language | null {
  const texts = finite(language, language.start, most);
  const label = (text: string): number => {
    let state = language.start;
    for (const character of text) state = language.step(state, character.codePointAt(0)!);
    return language.label(state);
  };
  return texts && combine('', [words(texts)], ([place]) => (place === NONE ? NONE : label(texts[place!]!)));
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const SPACE = 0x20;

/** What follows a backslash, and the code point that it stands for. */
const ESCAPES: ReadonlyMap<string, number> = new Map([
  ['"', QUOTE],
  ['\\', BACKSLASH],
  ['/', 0x2f],
  ['b', 0x08],
  ['f', 0x0c],
  ['n', 0x0a],
  ['r', 0x0d],
  ['t', 0x09],
]);
const ESCAPES_BEGIN = bytesIn('\\');
const LAST_CODE_POINT = 0x10ffff;

/** UTF-8 by the first byte: how many follow, which of its bits are the code point's, the least code point of that length. */
const LEADS = [
  { from: 0xc2, to: 0xdf, follow: 1, bits: 0x1f, least: 0x80 },
  { from: 0xe0, to: 0xef, follow: 2, bits: 0x0f, least: 0x800 },
  { from: 0xf0, to: 0xf4, follow: 3, bits: 0x07, least: 0x10000 },
];

/** The code points of plain string content. */
const PLAIN: readonly (readonly [from: number, to: number])[] = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0xd7ff],
  [0xe000, 0x10ffff],
];

/** The others, which are always escaped. */
const ESCAPED: readonly (readonly [from: number, to: number])[] = [
  [0, SPACE - 1],
  [QUOTE, QUOTE],
  [BACKSLASH, BACKSLASH],
];

/** Some of the plain ones, which most patterns refuse: asked first, as all take longer. */
const PROBES = [0x7f, 0x20, 0x10ffff];

/** So many states are looked at to see how much plain text keeps a string open. */
const NEAR = 32;

/** So many bytes are more than what tells keys apart takes, and so many of the keys that have to come are told apart. */
const LATER = 32;
const RANKS = 16;

interface FrameOptions {
  readonly unique: number;
  readonly open: boolean;
  readonly sooner: ReadonlyMap<string, number> | undefined;
  readonly sole: Outcome | undefined;
}

/** Which of the keys that have to come a state leads to first, and how to each. */
interface Lead {
  readonly rank: number;
  readonly toward: readonly Toward[];
}

let lastId = 0;

/** The frames of one language's strings. */
class StringFrames {
  readonly language: Language;
  readonly unique: number;
  readonly open: boolean;
  private readonly contents: (ContentFrame | undefined)[] = [];
  private readonly parts = new Interned<Frame>();
  private readonly firsts: string[] = [];
  private readonly fewOf: (readonly string[] | null | undefined)[] = [];
  private readonly sooner: ReadonlyMap<string, number> | undefined;
  private readonly sole: Outcome | undefined;
  private readonly nearest: Nearest;
  private leads: Map<number, Lead> | null = null;
  private without: boolean | undefined;
  private readonly id = (lastId += 1);

  constructor(language: Language, { unique, open, sooner, sole }: FrameOptions) {
    this.language = language;
    this.unique = unique;
    this.open = open;
    this.sooner = sooner;
    this.sole = sole;
    this.nearest = new Nearest(language, leastBytes);
  }

  /** `more` bytes before one of these states. */
  shortest(states: readonly number[], more: number): Shortest | null {
    if (this.sole === undefined || this.unique > 0) return null;
    let bytes = Infinity;
    for (const state of states) {
      const left = this.nearest.from(state);
      if (left === null) return null;
      bytes = Math.min(bytes, more + left + 1);
    }
    return { outcome: this.sole, bytes };
  }

  /** The states to which code points from … to lead. */
  between(state: number, from: number, to: number): number[] {
    const states = new Set<number>();
    const ranges = this.language.ranges(state);
    for (let i = firstFrom(ranges, from); i < ranges.length && ranges[i]!.from <= to; i += 1)
      states.add(ranges[i]!.state);
    return [...states];
  }

  /** How much later than at others it is to be looked at what `state` leads to. */
  later(state: number): number {
    return this.sooner === undefined || this.sooner.size === 0 ? 0 : LATER * (this.lead(state)?.rank ?? RANKS);
  }

  /** The states that lead to one of these texts. */
  private leadsTo(texts: ReadonlyMap<string, number>): Map<number, Lead> {
    const leads = new Map<number, Lead>();
    for (const [text, rank] of texts) {
      if (rank >= RANKS) continue;
      let state = this.language.start;
      for (let at = 0; ;) {
        const lead = leads.get(state);
        const rest = text.slice(at);
        const toward = { bytes: [...quoted(rest).subarray(1)], whole: quoted(text).length };
        leads.set(state, { rank: Math.min(lead?.rank ?? RANKS, rank), toward: [...(lead?.toward ?? []), toward] });
        if (rest === '') break;
        const codePoint = rest.codePointAt(0)!;
        state = this.language.step(state, codePoint);
        if (state === DEAD) break;
        at += String.fromCodePoint(codePoint).length;
      }
    }
    return leads;
  }

  /** To which of the texts that have to come `state` leads, if to any. */
  lead(state: number): Lead | undefined {
    if (this.sooner === undefined || this.sooner.size === 0) return undefined;
    return (this.leads ??= this.leadsTo(this.sooner)).get(state);
  }

  /** Between two characters. */
  content(state: number): ContentFrame {
    return (this.contents[state] ??= new ContentFrame(this, state));
  }

  /** Whether many texts lead on from every state, as far as these are few. */
  get endless(): boolean {
    if (this.without === undefined) {
      const states = new Set([this.language.start]);
      this.without = true;
      for (const state of states) {
        this.without = states.size <= NEAR && this.few(state) === null;
        if (!this.without) break;
        for (const { state: next } of this.language.ranges(state)) states.add(next);
      }
    }
    return this.without;
  }

  /** The texts that lead on from `state`, where they are compared and few. */
  few(state: number): readonly string[] | null {
    if (this.unique === 0 || this.open) return null;
    if (this.fewOf[state] === undefined) this.fewOf[state] = finite(this.language, state, this.unique);
    return this.fewOf[state];
  }

  /** Behind a character; null where that must not come. */
  behind(state: number, codePoint: number): ContentFrame | null {
    const next = this.language.step(state, codePoint);
    return next === DEAD ? null : this.content(next);
  }

  /** Within the bytes of a character that is one of from … to. */
  bytes(state: number, follow: number, from: number, to: number): Frame | null {
    const ranges = this.language.ranges(state);
    const range = ranges[firstFrom(ranges, from)];
    if (!range || range.from > to) return null;
    // Where all of them lead to one state, it does not matter which is written, nor where they come from.
    const alike = range.from <= from && range.to >= to && to - from + 1 === 64 ** follow;
    if (alike && this.few(state) === null) return this.tail(range.state, follow);
    return this.parts.get(`${state} ${follow} ${from}`, () => new BytesFrame(this, state, follow, from, to));
  }

  /** So many bytes before `state`. */
  tail(state: number, follow: number): Frame {
    return follow === 0
      ? this.content(state)
      : this.parts.get(`to ${state} ${follow}`, () => new TailFrame(this, state, follow));
  }

  /** Within an escape, of which so much is written. */
  escape(state: number, written: string): Frame | null {
    const ranges = this.language.ranges(state);
    if (!escaped(written).some(([from, to]) => meets(ranges, from, to))) return null;
    return this.parts.get(`${state} \\${written}`, () => new EscapeFrame(this, state, written));
  }

  /** As far as the same characters lead on from all states that come. */
  uniform(state: number): Uniform | null {
    const { language } = this;
    const key = this.firstBytes(state);
    const first = Uint8Array.from(key, Number);
    const seen = new Set([state]);
    let level = [state];
    let room = 0;
    while (level.every((each) => this.firstBytes(each) === key)) {
      room += 1;
      const next: number[] = [];
      for (const each of level) {
        for (const { from, to, state: other } of language.ranges(each)) {
          if (seen.has(other) || !first.subarray(firstByte(from), firstByte(to) + 1).includes(1)) continue;
          next.push(other);
          seen.add(other);
        }
      }
      if (next.length === 0) return { key, first, room: Infinity };
      if (seen.size > NEAR) break;
      level = next;
    }
    return room === 0 ? null : { key, first, room };
  }

  /** What the first bytes of characters do, as digits (see `Uniform`). */
  private firstBytes(state: number): string {
    return (this.firsts[state] ??= firstBytes(this.language.ranges(state)));
  }

  /** Where whatever is written can become a string: what is done behind a text that is none of those that are told apart. */
  like(state: number): Like | null {
    if (!this.open) return null;
    const { language } = this;
    const other = language.step(state, LAST_CODE_POINT);
    if (other === state || language.spans(other)?.length !== 1) return null;
    const bytes = new Uint8Array(256);
    bytes[QUOTE] = bytes[BACKSLASH] = 1;
    for (const { from, to, state: next } of language.ranges(state)) {
      if (next === other) continue;
      bytes.fill(1, from, Math.min(to, 0x7f) + 1);
      if (to >= 0x80) bytes.fill(1, 0x80);
    }
    return { frame: this.content(other), bytes };
  }

  /** What all frames behind `state` do, where the number of code points to come decides it. */
  signature(state: number): string | null {
    const spans = this.language.spans(state);
    return spans && this.signed(spans);
  }

  private signed(spans: readonly Span[]): string {
    return [this.unique > 0 ? 'unique' : 'string', ...spans.map(({ below, label }) => `${label}<${below}`)].join(' ');
  }

  /** See `Frame.near`: a byte is no more than one code point. */
  near(state: number, bytes: number): string | null {
    const spans = this.language.spans(state);
    if (this.unique > 0) return spans && this.signed(spans);
    if (spans === null) {
      const near = this.language.near?.(state, bytes) ?? null;
      return near && `${this.id} ${near}`;
    }
    const far = spans.findIndex(({ below }) => below > bytes);
    const { below, label } = spans[far]!;
    // Where it may end, it is as if it always might.
    if (below === Infinity || label !== NONE) return this.signed([...spans.slice(0, far), { below: Infinity, label }]);
    // It has to be known how far it is now to where it may end: so it is known how far it is then.
    const known = far > 0 || this.sole !== undefined;
    return `${this.signed(spans.slice(0, far + (known ? 0 : 1)))} …`;
  }
}

/** What all frames of strings are: a state of the language, and what is written of the character behind it. */
abstract class StringFrame extends Frame {
  protected readonly frames: StringFrames;
  protected readonly state: number;
  private left: Few | null | undefined;

  constructor(frames: StringFrames, state: number) {
    super();
    this.frames = frames;
    this.state = state;
  }

  /** What distinguishes frames of the same state. */
  protected abstract readonly part: string;

  override get signature(): string | null {
    const signature = this.frames.signature(this.state);
    return signature && signature + this.part;
  }

  override near(bytes: number): string | Frame {
    const near = this.frames.near(this.state, bytes);
    return near === null ? this : near + this.part;
  }

  override get least(): number {
    return this.frames.later(this.state);
  }

  override get unique(): boolean {
    return this.frames.unique > 0;
  }

  override get endless(): boolean {
    return this.frames.endless;
  }

  override get few(): Few | null {
    if (this.left === undefined) {
      const texts = this.frames.few(this.state);
      this.left = texts && { texts: texts.filter((text) => this.goesOn(text)), cut: this.cut };
    }
    return this.left;
  }

  /** So many bytes are written of a character. */
  protected abstract readonly cut: number;

  /** Whether a text from `state` on begins with what is written of a character. */
  protected abstract goesOn(text: string): boolean;
}

/** Between two characters. */
class ContentFrame extends StringFrame {
  protected readonly part = '';
  protected readonly cut = 0;
  private room: number | undefined;
  private drawn: Uniform | null | undefined;
  private alike: Like | null | undefined;

  override get shortest(): Shortest | null {
    return this.frames.shortest([this.state], 0);
  }

  override get toward(): readonly Toward[] {
    return this.frames.lead(this.state)?.toward ?? [];
  }

  override get plain(): number {
    return (this.room ??= this.frames.open ? Infinity : plainRoom(this.frames.language, this.state));
  }

  override get uniform(): Uniform | null {
    if (this.drawn === undefined) this.drawn = this.frames.uniform(this.state);
    return this.drawn;
  }

  override get like(): Like | null {
    if (this.alike === undefined) this.alike = this.frames.like(this.state);
    return this.alike;
  }

  /** Escapes, where all that may come has a shorter form. */
  override get detours(): ByteSet | null {
    const ranges = this.frames.language.ranges(this.state);
    return ESCAPED.some(([from, to]) => meets(ranges, from, to)) ? null : ESCAPES_BEGIN;
  }

  protected goesOn(): boolean {
    return true;
  }

  override get counted(): boolean {
    const spans = this.frames.language.spans(this.state);
    if (!spans) return false;
    const first = spans.findIndex(({ label }) => label !== NONE);
    const last = spans.findLastIndex(({ label }) => label !== NONE);
    return spans.slice(first, last).every(({ label }) => label !== NONE);
  }

  protected override step(byte: number): Move {
    const { frames, state } = this;
    if (byte === QUOTE) {
      const label = frames.language.label(state);
      return label === NONE ? null : { kind: 'pop', outcome: label, consumed: true };
    }
    if (byte === BACKSLASH) return frames.escape(state, '');
    if (byte < SPACE) return null;
    if (byte < 0x80) return frames.behind(state, byte);
    const lead = LEADS.find(({ from, to }) => byte >= from && byte <= to);
    if (!lead) return null;
    const { follow, bits, least } = lead;
    const from = (byte & bits) * 64 ** follow;
    return frames.bytes(state, follow, Math.max(from, least), Math.min(from + 64 ** follow - 1, LAST_CODE_POINT));
  }
}

/** Within the bytes of a character: `follow` more, which make one of from … to. */
class BytesFrame extends StringFrame {
  protected readonly part: string;
  protected readonly cut: number;
  private readonly follow: number;
  private readonly from: number;
  private readonly to: number;

  constructor(frames: StringFrames, state: number, follow: number, from: number, to: number) {
    super(frames, state);
    this.follow = follow;
    this.from = from;
    this.to = to;
    this.part = ` ${follow} bytes of ${from}`;
    this.cut = (from < 0x800 ? 2 : from < 0x10000 ? 3 : 4) - follow;
  }

  override get shortest(): Shortest | null {
    return this.frames.shortest(this.frames.between(this.state, this.from, this.to), this.follow);
  }

  protected goesOn(text: string): boolean {
    const codePoint = text.codePointAt(0) ?? -1;
    return codePoint >= this.from && codePoint <= this.to;
  }

  protected override step(byte: number): Move {
    if ((byte & 0xc0) !== 0x80) return null;
    const { frames, state, follow } = this;
    const size = 64 ** (follow - 1);
    const first = this.from - (this.from % (64 * size)) + (byte & 0x3f) * size;
    const from = Math.max(first, this.from);
    const to = Math.min(first + size - 1, this.to);
    if (from > to) return null;
    return follow === 1 ? frames.behind(state, from) : frames.bytes(state, follow - 1, from, to);
  }
}

/** Within the bytes of a character: whatever the other `follow` are, they lead to `state`. Many texts go on so. */
class TailFrame extends StringFrame {
  protected readonly part: string;
  protected readonly cut = 0;
  private readonly follow: number;

  constructor(frames: StringFrames, state: number, follow: number) {
    super(frames, state);
    this.follow = follow;
    this.part = ` behind ${follow} bytes`;
  }

  override get shortest(): Shortest | null {
    return this.frames.shortest([this.state], this.follow);
  }

  override get few(): null {
    return null;
  }

  protected goesOn(): boolean {
    return true;
  }

  protected override step(byte: number): Move {
    return (byte & 0xc0) === 0x80 ? this.frames.tail(this.state, this.follow - 1) : null;
  }
}

/** Within an escape; `written` is what stands behind its backslash, digits in lower case: "ud83d\\u" is the longest kind. */
class EscapeFrame extends StringFrame {
  protected readonly part: string;
  protected readonly cut: number;
  private readonly written: string;
  private rest: Shortest | null | undefined;

  constructor(frames: StringFrames, state: number, written: string) {
    super(frames, state);
    this.written = written;
    this.part = ` \\${written}`;
    this.cut = 1 + written.length;
  }

  override get shortest(): Shortest | null {
    if (this.rest === undefined) this.rest = this.toEnd();
    return this.rest;
  }

  private toEnd(): Shortest | null {
    const { frames, state, written } = this;
    const ways = escaped(written).map(([from, to]) => {
      return frames.shortest(frames.between(state, from, to), (to > 0xffff ? 11 : 5) - written.length);
    });
    for (const codePoint of written === '' ? ESCAPES.values() : [])
      ways.push(frames.shortest(frames.between(state, codePoint, codePoint), 1));
    return ways.reduce((best, way) => best && way && (way.bytes < best.bytes ? way : best), ways[0]!);
  }

  protected goesOn(text: string): boolean {
    const codePoint = text.codePointAt(0) ?? -1;
    return escaped(this.written).some(([from, to]) => codePoint >= from && codePoint <= to);
  }

  protected override step(byte: number): Move {
    const { frames, state, written } = this;
    const character = String.fromCharCode(byte);
    const place = written.length;
    if (place === 0 && character !== 'u') {
      const codePoint = ESCAPES.get(character);
      return codePoint === undefined ? null : frames.behind(state, codePoint);
    }
    const fits = place % 6 === 0 ? character === 'u' : place === 5 ? character === '\\' : /[\da-fA-F]/.test(character);
    if (!fits) return null;
    const next = written + character.toLowerCase();
    const high = parseInt(next.slice(1, 5), 16);
    if (next.length === 5 && (high < HIGH[0] || high > LOW[1])) return frames.behind(state, high);
    const low = parseInt(next.slice(7), 16);
    if (next.length === 11) return low < LOW[0] || low > LOW[1] ? null : frames.behind(state, pair(high, low));
    return frames.escape(state, next);
  }
}

/** The halves of pairs: UTF-16's surrogates. */
const HIGH = [0xd800, 0xdbff] as const;
const LOW = [0xdc00, 0xdfff] as const;

function pair(high: number, low: number): number {
  return 0x10000 + (high - HIGH[0]) * 0x400 + (low - LOW[0]);
}

/** The code points, halves of pairs among them, that an escape may come to of which so much stands behind its backslash. */
function escaped(written: string): readonly (readonly [from: number, to: number])[] {
  if (written === '') return CODE_POINTS;
  const [from, to] = units(written.slice(1, 5));
  const single = written.length <= 5 ? ([[from, to]] as const) : [];
  const high = [Math.max(from, HIGH[0]), Math.min(to, HIGH[1])] as const;
  const [lowFrom, lowTo] = units(written.slice(7));
  const low = [Math.max(lowFrom, LOW[0]), Math.min(lowTo, LOW[1])] as const;
  const paired = high[0] <= high[1] && low[0] <= low[1];
  return paired ? [...single, [pair(high[0], low[0]), pair(high[1], low[1])]] : single;
}

/** The UTF-16 units whose four hexadecimal digits begin so. */
function units(digits: string): readonly [from: number, to: number] {
  return [parseInt(digits.padEnd(4, '0'), 16), parseInt(digits.padEnd(4, 'f'), 16)];
}

/** How many code points of plain content keep the string open, whichever they are; less than that where it is far to see. */
function plainRoom(language: Language, state: number): number {
  const spans = language.spans(state);
  if (spans) return spans.findLast(({ label }) => label !== NONE)!.below - 1;
  if (PROBES.some((codePoint) => language.step(state, codePoint) === DEAD)) return 0;
  const seen = new Set([state]);
  let level = [state];
  for (let room = 0; ; room += 1) {
    const next: number[] = [];
    for (const each of level) {
      const ranges = language.ranges(each);
      if (!PLAIN.every(([from, to]) => covers(ranges, from, to))) return room;
      for (const { state: other } of ranges) {
        if (!seen.has(other)) next.push(other);
        seen.add(other);
      }
    }
    if (next.length === 0) return Infinity;
    if (seen.size > NEAR) return room + 1;
    level = next;
  }
}

/** By how many bytes they take: plain ones, those of short escapes, those of more bytes in UTF-8. */
const LENGTHS: readonly (readonly [from: number, to: number, bytes: number])[] = [
  [0x20, 0x21, 1],
  [0x23, 0x5b, 1],
  [0x5d, 0x7f, 1],
  [0x80, 0x7ff, 2],
  [0x08, 0x0a, 2],
  [0x0c, 0x0d, 2],
  [QUOTE, QUOTE, 2],
  [BACKSLASH, BACKSLASH, 2],
  [0x800, 0xffff, 3],
  [0x10000, LAST_CODE_POINT, 4],
  [0, SPACE - 1, 6],
];

/** The fewest bytes in which a JSON string has a code point from … to. */
function leastBytes(from: number, to: number): number {
  return LENGTHS.find(([first, last]) => first <= to && last >= from)![2];
}

/** By the first byte of a character of plain content: whether it leads on (see `Uniform`), a digit each. */
function firstBytes(ranges: readonly Range[]): string {
  const first = new Uint8Array(256);
  for (const { from, to } of ranges) first.fill(1, from, Math.min(to, 0x7f) + 1);
  first.fill(0, 0, SPACE);
  first[QUOTE] = first[BACKSLASH] = 0;
  for (const { from, to, follow, bits, least } of LEADS) {
    for (let lead = from; lead <= to; lead += 1) {
      const low = Math.max((lead & bits) * 64 ** follow, least);
      const high = Math.min(((lead & bits) + 1) * 64 ** follow - 1, LAST_CODE_POINT);
      const beyond = CODE_POINTS.map(([from, to]) => [Math.max(from, low), Math.min(to, high)] as const);
      const some = beyond.filter(([from, to]) => from <= to);
      if (some.every(([from, to]) => covers(ranges, from, to))) first[lead] = 1;
      else if (some.some(([from, to]) => meets(ranges, from, to))) first[lead] = 2;
    }
  }
  return first.join('');
}

/** Of a code point in UTF-8. */
function firstByte(codePoint: number): number {
  if (codePoint < 0x80) return codePoint;
  return codePoint < 0x800
    ? 0xc0 + (codePoint >> 6)
    : codePoint < 0x10000
      ? 0xe0 + (codePoint >> 12)
      : 0xf0 + (codePoint >> 18);
}

/** Whether the ranges leave no gap between from … to. */
function covers(ranges: readonly Range[], from: number, to: number): boolean {
  for (let i = firstFrom(ranges, from); i < ranges.length && ranges[i]!.from <= from; i += 1) {
    if (ranges[i]!.to >= to) return true;
    from = ranges[i]!.to + 1;
  }
  return false;
}

/** What bytes of a string's content, escapes and all, say. */
export function decode(bytes: readonly number[]): string {
  return JSON.parse(`"${UTF8.decode(Uint8Array.from(bytes))}"`) as string;
}

/** U+FEFF at the beginning of a text is one of its characters. */
const UTF8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** A text as JSON. */
const quoted = (text: string): Uint8Array => new TextEncoder().encode(JSON.stringify(text));
