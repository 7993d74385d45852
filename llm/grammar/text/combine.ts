import { all } from './lengths.ts';
import {
  CODE_POINTS,
  DEAD,
  LETTERS,
  NONE,
  isShort,
  none,
  spans,
  type Language,
  type Made,
  type Range,
  type Span,
} from './language.ts';
import { near } from './near.ts';
import { Reach } from './reach.ts';
import { ANY_SIZE, NO_SIZE, both, either, fewest, others, sizesOf, some, type Sizes } from './sizes.ts';
import { words } from './words.ts';

/** Where the texts in some language are wanted, or those that are in (true) and out of (false) each. */
export type Wanted = 'some' | readonly boolean[];

/**
 * All languages walked side by side: `label` makes of their labels that of the text, NONE where it is not wanted. It is
 * asked of labels alone that some text has. States are lists of the languages' states, DEAD among them. Saying which texts
 * are `wanted`, where they are so, spares searches.
 */
export function combine(
  key: string,
  languages: readonly Language[],
  label: (labels: readonly number[]) => number,
  wanted?: Wanted,
): Language {
  const lists = languages.filter((language) => language.texts);
  if (lists.length > 1) return combineLists(key, languages, label, wanted);
  const [language] = languages;
  const combined =
    languages.length === 1
      ? new Relabelled(key, language!, label, wanted)
      : new Combined(key, languages, label, wanted);
  return combined.empty ? none : combined;
}

/** Lists of texts are walked as one list, however many they are. */
function combineLists(
  key: string,
  languages: readonly Language[],
  label: (labels: readonly number[]) => number,
  wanted?: Wanted,
): Language {
  const signs = typeof wanted === 'object' ? wanted : undefined;
  const inside = languages.filter((language, i) => language.texts && signs?.[i]);
  const all = new Set(languages.flatMap((language) => [...(language.texts?.keys() ?? [])]));
  const texts = [...all].filter((text) => inside.every((language) => language.texts!.has(text)));
  const others = languages.filter((language) => !language.texts);
  return combine(
    key,
    [words(texts), ...others],
    ([place, ...labels]) => {
      const text = texts[place!];
      let other = 0;
      return label(
        languages.map((language) => {
          if (!language.texts) return labels[other++]!;
          return (text === undefined ? undefined : language.texts.get(text)) ?? NONE;
        }),
      );
    },
    signs ? [inside.length > 0, ...signs.filter((_, i) => !languages[i]!.texts)] : wanted,
  );
}

/** One language under other labels, texts outside it included. */
class Relabelled implements Language {
  readonly key: string;
  readonly start: number;
  private readonly language: Language;
  private readonly relabelled: (labels: readonly number[]) => number;
  private readonly labels = new Map<number, number>();
  private readonly rangesOf: (readonly Range[] | undefined)[] = [];
  private readonly spansOf: (readonly Span[] | null | undefined)[] = [];
  readonly letters: readonly number[];
  /** The language's texts, and no others, are wanted. */
  private readonly same: boolean;
  /** All others are. */
  private readonly other: boolean;
  private readonly reach: Reach;

  constructor(
    key: string,
    language: Language,
    relabelled: (labels: readonly number[]) => number,
    wanted: Wanted | undefined,
  ) {
    this.same = wanted === 'some' || wanted?.[0] === true;
    this.other = wanted?.[0] === false;
    this.letters = language.letters;
    this.key = key;
    this.language = language;
    this.relabelled = relabelled;
    this.start = outward(language.start);
    this.reach = new Reach({
      name: () => `a text that is ${shortened(language.key)}, or is not`,
      sizes: (state) => this.sizes(state, 'any'),
      accepts: (state) =>
        this.letters.some((letter) => some(this.sizes(state, letter))) ||
        (this.spans(state) ?? [{ label: this.label(state) }]).some(({ label }) => label !== NONE),
      next: (state) => (this.spans(state) ? [] : this.edges(state).map((range) => range.state)),
    });
  }

  get empty(): boolean {
    return !this.alive(this.start);
  }

  step(state: number, codePoint: number): number {
    const next = state === OUTSIDE ? OUTSIDE : outward(this.language.step(state - 1, codePoint));
    return this.alive(next) ? next : DEAD;
  }

  ranges(state: number): readonly Range[] {
    return (this.rangesOf[state] ??= this.edges(state).filter((range) => this.alive(range.state)));
  }

  private alive(state: number): boolean {
    return this.same ? state !== OUTSIDE : this.reach.from(state);
  }

  sizes(state: number, made: Made): Sizes {
    const spans = this.spans(state);
    if (spans) return sizesOf(spans);
    const known = this.same || (this.other && typeof made === 'number');
    if (!known) return ANY_SIZE;
    const found = this.language.sizes(state - 1, made);
    return this.same ? found : others(found);
  }

  label(state: number): number {
    return this.relabel(state === OUTSIDE ? NONE : this.language.label(state - 1));
  }

  spans(state: number): readonly Span[] | null {
    let found = this.spansOf[state];
    if (found === undefined) {
      const own = state === OUTSIDE ? none.spans(DEAD) : this.language.spans(state - 1);
      found = own && spans(own.map(({ below, label }) => ({ below, label: this.relabel(label) })));
      this.spansOf[state] = found;
    }
    return found;
  }

  private edges(state: number): readonly Range[] {
    const own = state === OUTSIDE ? [] : this.language.ranges(state - 1);
    // Where nothing outside is wanted, it need not be looked at.
    if (this.relabel(NONE) === NONE) return own.map(({ from, to, state }) => ({ from, to, state: outward(state) }));
    return overlay([own], ([next]) => outward(next!));
  }

  private relabel(label: number): number {
    let other = this.labels.get(label);
    if (other === undefined) this.labels.set(label, (other = this.relabelled([label])));
    return other;
  }
}

/** A state of another language as one of `Relabelled`: all that is outside it is one state. */
const OUTSIDE = 0;
const outward = (state: number): number => (state === DEAD ? OUTSIDE : state + 1);

export function complement(language: Language): Language {
  if (language === none) return all;
  return combine(`not (${language.key})`, [language], ([label]) => (label === NONE ? 0 : NONE), [false]);
}

export function intersect(...languages: readonly Language[]): Language {
  const of = languages.filter((language) => language !== all);
  if (of.length === 0) return all;
  if (of.length === 1) return of[0]!;
  if (of.includes(none)) return none;
  return combine(
    `(${of.map(({ key }) => key).join(') and (')})`,
    of,
    (labels) => (labels.includes(NONE) ? NONE : 0),
    of.map(() => true),
  );
}

export function union(...languages: readonly Language[]): Language {
  const of = languages.filter((language) => language !== none);
  if (of.length === 0) return none;
  if (of.length === 1) return of[0]!;
  return combine(
    `(${of.map(({ key }) => key).join(') or (')})`,
    of,
    (labels) => (labels.every((label) => label === NONE) ? NONE : 0),
    'some',
  );
}

class Combined implements Language {
  readonly key: string;
  readonly start: number;
  private readonly wanted: Wanted | undefined;
  private readonly languages: readonly Language[];
  private readonly labelled: (labels: readonly number[]) => number;
  private readonly known = new Map<string, number>();
  private readonly ids = new Map<string, number>();
  /** By state. */
  private readonly parts: (readonly number[])[] = [];
  private readonly labelsOf: (number | undefined)[] = [];
  private readonly spansOf: (readonly Span[] | null | undefined)[] = [];
  private readonly edgesOf: (readonly Range[] | undefined)[] = [];
  private readonly rangesOf: (readonly Range[] | undefined)[] = [];
  readonly letters: readonly number[];
  private readonly sizesOf = new Map<Made, (Sizes | undefined)[]>();
  private readonly reach: Reach;

  constructor(
    key: string,
    languages: readonly Language[],
    labelled: (labels: readonly number[]) => number,
    wanted: Wanted | undefined,
  ) {
    this.wanted = wanted;
    this.key = key;
    this.languages = languages;
    this.letters = [...new Set(languages.flatMap((language) => language.letters))].slice(0, LETTERS);
    this.labelled = labelled;
    this.reach = new Reach({
      name: () => `a text that is ${languages.map((language) => shortened(language.key)).join(', ')}`,
      sizes: (state) => this.sizes(state, 'any'),
      accepts: (state) => this.accepts(state),
      next: (state) => (this.spans(state) ? [] : this.edges(state).map((edge) => edge.state)),
    });
    this.start = this.state(languages.map((language) => language.start));
  }

  get empty(): boolean {
    return !this.alive(this.start);
  }

  step(state: number, codePoint: number): number {
    const next = this.state(
      this.parts[state]!.map((part, i) => (part === DEAD ? DEAD : this.languages[i]!.step(part, codePoint))),
    );
    return this.alive(next) ? next : DEAD;
  }

  ranges(state: number): readonly Range[] {
    return (this.rangesOf[state] ??= this.edges(state).filter((edge) => this.alive(edge.state)));
  }

  label(state: number): number {
    return (this.labelsOf[state] ??= this.join(
      this.parts[state]!.map((part, i) => (part === DEAD ? NONE : this.languages[i]!.label(part))),
    ));
  }

  spans(state: number): readonly Span[] | null {
    let found = this.spansOf[state];
    if (found === undefined) {
      const parts = this.parts[state]!.map((part, i) => this.partSpans(part, i));
      found = parts.every((part) => part !== null) ? spans(this.joined(parts)) : null;
      this.spansOf[state] = found;
    }
    return found;
  }

  near(state: number, most: number): string | null {
    if (typeof this.wanted !== 'object' || this.wanted.includes(false)) return null;
    return near(
      this.parts[state]!.map((part, i) => ({ language: this.languages[i]!, state: part })),
      most,
    );
  }

  sizes(state: number, made: Made): Sizes {
    let known = this.sizesOf.get(made);
    if (known === undefined) this.sizesOf.set(made, (known = []));
    return (known[state] ??= this.foundSizes(state, made));
  }

  private foundSizes(state: number, made: Made): Sizes {
    const { wanted } = this;
    const parts = this.parts[state]!;
    if (this.lost(parts)) return NO_SIZE;
    const spans = this.spans(state);
    if (spans) return sizesOf(spans);
    if (wanted === undefined) return ANY_SIZE;
    const sizes = (part: number, i: number): Sizes => (part === DEAD ? NO_SIZE : this.languages[i]!.sizes(part, made));
    if (wanted === 'some') return either(...parts.map(sizes));
    const counted = parts.map((part, i) => this.partSpans(part, i));
    const one = typeof made === 'number';
    const found = both(
      parts.map((part, i) => {
        if (wanted[i]) return sizes(part, i);
        // Texts of one code point are told by their number. Of others, one in the language may be as long as one that is not.
        return one || counted[i] ? others(sizes(part, i)) : ANY_SIZE;
      }),
    );
    if (one || counted.filter((spans) => spans === null).length <= 1) return found;
    // Of texts in several languages, a number that each has need not be that of a text that is in all.
    const least = fewest(found);
    const real = this.letters.some((letter) => {
      const alone = made === 'short' && !isShort(letter) ? NO_SIZE : this.sizes(state, letter);
      return fewest(alone) === least && least < alone.sure;
    });
    return { ...found, sure: real ? least + 1 : 0 };
  }

  /** Whether a text that leads to these states is none that is wanted, whatever follows. */
  private lost(parts: readonly number[]): boolean {
    const { wanted } = this;
    return typeof wanted === 'object' && parts.some((part, i) => wanted[i] && part === DEAD);
  }

  private alive(state: number): boolean {
    return this.wanted === 'some' ? this.parts[state]!.some((part) => part !== DEAD) : this.reach.from(state);
  }

  private partSpans(part: number, i: number): readonly Span[] | null {
    return part === DEAD ? none.spans(DEAD) : this.languages[i]!.spans(part);
  }

  private state(parts: readonly number[]): number {
    if (this.lost(parts)) parts = parts.map(() => DEAD);
    const key = parts.join(' ');
    let id = this.ids.get(key);
    if (id === undefined) {
      this.ids.set(key, (id = this.parts.length));
      this.parts.push(parts);
    }
    return id;
  }

  private join(labels: readonly number[]): number {
    const key = labels.join(' ');
    let label = this.known.get(key);
    if (label === undefined) this.known.set(key, (label = this.labelled(labels)));
    return label;
  }

  private joined(parts: readonly (readonly Span[])[]): readonly Span[] {
    const bounds = new Set(parts.flatMap((part) => part.map((span) => span.below)).sort((a, b) => a - b));
    bounds.add(Infinity);
    return [...bounds].map((below) => ({
      below,
      label: this.join(parts.map((part) => part.find((span) => span.below >= below)!.label)),
    }));
  }

  /** All that may come next, whether it leads on or not. */
  private edges(state: number): readonly Range[] {
    let edges = this.edgesOf[state];
    if (!edges) {
      const lists = this.parts[state]!.map((part, i) => (part === DEAD ? [] : this.languages[i]!.ranges(part)));
      this.edgesOf[state] = edges = overlay(lists, (parts) => this.state(parts));
    }
    return edges;
  }

  private accepts(state: number): boolean {
    if (this.label(state) !== NONE || this.letters.some((letter) => some(this.sizes(state, letter)))) return true;
    return (this.spans(state) ?? this.staying(state)).some(({ label }) => label !== NONE);
  }

  /**
   * The labels of texts that lead the languages which are not decided by the number of code points back to where they
   * are: so a million of code points need not be counted one by one.
   */
  private staying(state: number): readonly Span[] {
    const parts = this.parts[state]!;
    const counts = parts.map((part, i) => this.partSpans(part, i));
    if (counts.every((count) => count === null)) return [];
    const stays = this.edges(state).some((edge) =>
      this.parts[edge.state]!.every((part, i) => counts[i] !== null || part === parts[i]),
    );
    if (!stays) return [];
    return this.joined(
      counts.map((count, i) => count ?? [{ below: Infinity, label: this.languages[i]!.label(parts[i]!) }]),
    );
  }
}

function shortened(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** The lists of ranges as one, over all code points; `join` makes one state of theirs, DEAD where a list has a gap. */
function overlay(lists: readonly (readonly Range[])[], join: (states: readonly number[]) => number): readonly Range[] {
  const joined: Range[] = [];
  const places = lists.map(() => 0);
  for (const [first, last] of CODE_POINTS) {
    for (let from = first; from <= last;) {
      let to = last;
      const states = lists.map((list, i) => {
        while (places[i]! < list.length && list[places[i]!]!.to < from) places[i]! += 1;
        const range = list[places[i]!];
        if (!range) return DEAD;
        to = Math.min(to, range.from <= from ? range.to : range.from - 1);
        return range.from <= from ? range.state : DEAD;
      });
      const state = join(states);
      const before = joined.at(-1);
      if (before?.state === state && before.to === from - 1) joined[joined.length - 1] = { ...before, to };
      else joined.push({ from, to, state });
      from = to + 1;
    }
  }
  return joined;
}
