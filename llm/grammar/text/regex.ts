import { Interned } from '../automaton.ts';
import {
  CODE_POINTS,
  DEAD,
  LETTERS,
  NONE,
  SHORT,
  none,
  type Language,
  type Made,
  type Range,
  type Span,
} from './language.ts';
import { WORD, parse, type Pattern } from './pattern.ts';
import type { Points } from './points.ts';
import { Reach } from './reach.ts';
import { NO_SIZE, type Sizes } from './sizes.ts';
import { EDGE, OTHER, WORDLIKE, Terms, type Neighbour, type Term } from './term.ts';

/**
 * The texts in which the pattern matches somewhere, as in ECMA-262 under the flag `u` and as `pattern` of JSON Schema
 * wants it; parse (pattern.ts) says what is refused. A deterministic automaton made as it is walked: a state is what of the
 * expression is left, by derivatives (Brzozowski 1964, "Derivatives of Regular Expressions"; Antimirov 1996, "Partial
 * Derivatives of Regular Expressions"; Owens, Reppy and Turon 2009, "Regular-expression derivatives re-examined", who
 * take code points by classes as is done here).
 */
export function regex(pattern: string): Language {
  const language = new Regex(pattern, parse(pattern));
  return language.start === DEAD ? none : language;
}

/** What is left of the expression, and of which kind the code point before is, where that matters. */
interface State {
  readonly term: Term;
  readonly before: Neighbour;
  /** By class: the state behind; undefined: not yet asked. */
  readonly next: (number | undefined)[];
  ranges?: readonly Range[];
}

class Regex implements Language {
  readonly key: string;
  readonly start: number;
  readonly letters: readonly number[];
  private readonly alphabet: Alphabet;
  private readonly terms: Terms;
  private readonly states: State[] = [];
  private readonly ids = new Interned<number>();
  private readonly reach: Reach;

  constructor(text: string, pattern: Pattern) {
    this.key = `pattern ${text}`;
    const sets = new Set<Points>();
    collect(pattern, sets);
    this.alphabet = new Alphabet([...sets]);
    this.terms = new Terms(
      this.alphabet.size,
      this.alphabet.classes(WORD),
      [...this.alphabet.within(SHORT).keys()],
      text,
    );
    this.letters = [...this.alphabet.within(SHORT).values()].slice(0, LETTERS);
    this.reach = new Reach({
      name: () => this.key,
      sizes: (id) => this.sizes(id, 'any'),
      accepts: (id) => (this.contextual(id) ? this.label(id) !== NONE : this.alive(id)),
      next: (id) => Array.from({ length: this.alphabet.size }, (_, kind) => this.after(id, kind)),
    });
    const { terms } = this;
    const whole = terms.sequence(terms.anything, terms.sequence(this.term(pattern), terms.anything));
    const start = this.state(terms.atStart(terms.atEnd(whole)), EDGE);
    this.start = this.alive(start) ? start : DEAD;
  }

  step(state: number, codePoint: number): number {
    const kind = this.alphabet.classOf(codePoint);
    if (kind === undefined) return DEAD;
    const next = this.after(state, kind);
    return this.alive(next) ? next : DEAD;
  }

  ranges(state: number): readonly Range[] {
    return (this.states[state]!.ranges ??= this.alphabet.ranges((kind) => {
      const next = this.after(state, kind);
      return this.alive(next) ? next : DEAD;
    }));
  }

  label(state: number): number {
    const { term, before } = this.states[state]!;
    return this.terms.nullable(term, before, EDGE) ? 0 : NONE;
  }

  spans(state: number): readonly Span[] | null {
    const counts = this.terms.counts(this.states[state]!.term);
    if (!counts) return null;
    const [min, max] = counts;
    return [
      ...(min > 0 ? [{ below: min, label: NONE }] : []),
      ...(max < Infinity ? [{ below: max + 1, label: 0 }] : []),
      { below: Infinity, label: max < Infinity ? NONE : 0 },
    ];
  }

  sizes(state: number, made: Made): Sizes {
    const kind = typeof made === 'number' ? this.alphabet.classOf(made) : made;
    return kind === undefined || kind === DEAD ? NO_SIZE : this.terms.sizes(this.states[state]!.term, kind);
  }

  /** Only anchors and word boundaries make terms that seem to match something and don't. */
  private alive(id: number): boolean {
    return this.contextual(id) ? this.reach.from(id) : this.states[id]!.term !== this.terms.never;
  }

  private contextual(id: number): boolean {
    return this.states[id]!.term.contextual;
  }

  private after(id: number, kind: number): number {
    const { next, term, before } = this.states[id]!;
    return (next[kind] ??= this.state(
      this.terms.derivative(term, before, kind),
      this.terms.isWord(kind) ? WORDLIKE : OTHER,
    ));
  }

  private state(term: Term, before: Neighbour): number {
    const kept = term.contextual ? before : OTHER;
    return this.ids.get(`${term.id} ${kept}`, () => this.states.push({ term, before: kept, next: [] }) - 1);
  }

  private term(pattern: Pattern): Term {
    const { terms } = this;
    switch (pattern.kind) {
      case 'set':
        return terms.set(this.alphabet.classes(pattern.points));
      case 'sequence':
        return pattern.of.reduceRight<Term>((tail, head) => terms.sequence(this.term(head), tail), terms.empty);
      case 'choice':
        return terms.choice(pattern.of.map((of) => this.term(of)));
      case 'repeat':
        return terms.repeat(this.term(pattern.of), pattern.min, pattern.max);
      default:
        return terms.anchor(pattern.kind);
    }
  }
}

function collect(pattern: Pattern, sets: Set<Points>): void {
  if (pattern.kind === 'boundary' || pattern.kind === 'inside') sets.add(WORD);
  if (pattern.kind === 'set') sets.add(pattern.points);
  else if (pattern.kind === 'repeat') collect(pattern.of, sets);
  else if ('of' in pattern) for (const of of pattern.of) collect(of, sets);
}

/** Code points by classes: those of one class are in the same sets of a pattern, so that any of them stands for all. */
class Alphabet {
  /** The number of classes. */
  readonly size: number;
  /** Where a class begins, sorted, and which one. */
  private readonly from: readonly number[];
  private readonly kinds: readonly number[];
  private readonly classesOf: ReadonlyMap<Points, readonly number[]>;
  private readonly ascii: readonly number[];

  constructor(sets: readonly Points[]) {
    const events = new Map<number, number[]>();
    const event = (place: number, set: number): void => {
      const here = events.get(place);
      if (here) here.push(set);
      else events.set(place, [set]);
    };
    for (const [from, to] of CODE_POINTS) {
      event(from, -1);
      event(to + 1, -1);
    }
    sets.forEach((set, i) => {
      for (const [from, to] of set) {
        event(from, i);
        event(to + 1, i);
      }
    });
    const inside = new Set<number>();
    const known = new Interned<number>();
    const members = sets.map((): number[] => []);
    const from: number[] = [];
    const kinds: number[] = [];
    for (const [place, changed] of [...events].sort((a, b) => a[0] - b[0])) {
      for (const set of changed) if (!inside.delete(set)) inside.add(set);
      const within = [...inside].sort((a, b) => a - b);
      const codePoint = within[0] === -1;
      const kind = !codePoint
        ? DEAD
        : known.get(within.join(' '), () => {
            for (const set of within) members[set]?.push(known.size);
            return known.size;
          });
      if (kind === kinds.at(-1)) continue;
      from.push(place);
      kinds.push(kind);
    }
    this.size = known.size;
    this.from = from;
    this.kinds = kinds;
    this.classesOf = new Map(sets.map((set, i) => [set, members[i]!]));
    this.ascii = Array.from({ length: 0x80 }, (_, codePoint) => this.find(codePoint));
  }

  /** The classes that have some of the code points, with the first of these. */
  within(points: Points): ReadonlyMap<number, number> {
    const found = new Map<number, number>();
    for (const [from, to] of points) {
      for (let i = this.placeOf(from); i < this.from.length && this.from[i]! <= to; i += 1) {
        const kind = this.kinds[i]!;
        if (kind !== DEAD && !found.has(kind)) found.set(kind, Math.max(from, this.from[i]!));
      }
    }
    return found;
  }

  /** Of one of the sets; of others nothing is known. */
  classes(set: Points): readonly number[] {
    return this.classesOf.get(set) ?? [];
  }

  classOf(codePoint: number): number | undefined {
    return this.ascii[codePoint] ?? this.find(codePoint);
  }

  /** What `to` says of the classes, as ranges. */
  ranges(to: (kind: number) => number): readonly Range[] {
    const ranges: Range[] = [];
    const states = Array.from({ length: this.size }, (_, kind) => to(kind));
    this.kinds.forEach((kind, i) => {
      const state = kind === DEAD ? DEAD : states[kind]!;
      if (state === DEAD) return;
      const before = ranges.at(-1);
      const [from, last] = [this.from[i]!, this.from[i + 1]! - 1];
      if (before?.state === state && before.to === from - 1) ranges[ranges.length - 1] = { ...before, to: last };
      else ranges.push({ from, to: last, state });
    });
    return ranges;
  }

  private find(codePoint: number): number {
    return this.kinds[this.placeOf(codePoint)]!;
  }

  private placeOf(codePoint: number): number {
    let low = 0;
    let high = this.from.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.from[middle]! <= codePoint) low = middle;
      else high = middle;
    }
    return low;
  }
}
