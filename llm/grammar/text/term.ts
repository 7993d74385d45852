import { Interned } from '../automaton.ts';
import { Unsupported } from '../refusal.ts';
import type { Made } from './language.ts';
import { behind, either, NO_SIZE, sized, times, type Sizes } from './sizes.ts';

/** What a text must be, by classes of code points (small integers). Equal terms are the same object. */
export type Term = Leaf | SetTerm | Sequence | Choice | Repeat;

interface Common {
  readonly id: number;
  /** The empty text is in it, whatever stands before and behind it. */
  readonly nullable: boolean;
  /** Anchors or word boundaries are in it: what it matches depends on what stands before and behind it. */
  readonly contextual: boolean;
}

interface Leaf extends Common {
  readonly kind: 'never' | 'empty' | Anchor;
}

interface SetTerm extends Common {
  readonly kind: 'set';
  readonly classes: readonly number[];
}

/** `head` is no sequence itself. */
interface Sequence extends Common {
  readonly kind: 'sequence';
  readonly head: Term;
  readonly tail: Term;
}

interface Choice extends Common {
  readonly kind: 'choice';
  readonly of: readonly Term[];
}

interface Repeat extends Common {
  readonly kind: 'repeat';
  readonly of: Term;
  readonly min: number;
  readonly max: number;
}

export type Anchor = 'start' | 'end' | 'boundary' | 'inside';

/** What stands before or behind a place in a text: its edge, a character of \w, another one. */
export type Neighbour = 0 | 1 | 2;
export const EDGE = 0;
export const WORDLIKE = 1;
export const OTHER = 2;

/** So many ways to read what has come may be open at once, beyond those that a long pattern has of its own. */
const WAYS = 2000;

/** So far into sequences it is looked for others that hold them. */
const NEAR = 8;

/**
 * Makes terms and derives them. What is made is simplified by the laws of Kleene algebra, which keeps the derivatives of
 * counted repeats few: x{2,5}y | x{4,9}y is x{2,9}y.
 */
export class Terms {
  readonly never: Term = { id: 0, kind: 'never', nullable: false, contextual: false };
  readonly empty: Term = { id: 1, kind: 'empty', nullable: true, contextual: false };
  /** Every text. */
  readonly anything: Term;
  private readonly every: Term;
  private readonly terms = new Interned<Term>();
  private readonly words: ReadonlySet<number>;
  private readonly short: ReadonlySet<number>;
  private readonly pattern: string;
  private readonly shapes = new Map<Term, string>();
  private readonly withoutStart = new Map<Term, Term>();
  /** By what texts are made of. */
  private readonly known = new Map<Made, Map<Term, Sizes>>();
  private ids = 2;

  /** Of so many classes, of which `words` are \w's, and `short` have code points that are `SHORT`. */
  constructor(classes: number, words: readonly number[], short: readonly number[], pattern: string) {
    this.words = new Set(words);
    this.short = new Set(short);
    this.pattern = pattern;
    this.every = this.set(Array.from({ length: classes }, (_, kind) => kind));
    this.anything = this.repeat(this.every, 0, Infinity);
  }

  isWord(kind: number): boolean {
    return this.words.has(kind);
  }

  set(classes: readonly number[]): Term {
    if (classes.length === 0) return this.never;
    return this.make(`set ${classes.join(' ')}`, { kind: 'set', classes, nullable: false, contextual: false });
  }

  anchor(kind: Anchor): Term {
    return this.make(kind, { kind, nullable: false, contextual: true });
  }

  sequence(head: Term, tail: Term): Term {
    if (head === this.never || tail === this.never) return this.never;
    if (head === this.empty) return tail;
    if (tail === this.empty) return head;
    if (head.kind === 'sequence') {
      const heads: Term[] = [];
      let last: Term = head;
      for (; last.kind === 'sequence'; last = last.tail) heads.push(last.head);
      return heads.reduceRight((behind, each) => this.sequence(each, behind), this.sequence(last, tail));
    }
    const [first, rest] = tail.kind === 'sequence' ? [tail.head, tail.tail] : [tail, this.empty];
    // ^ before anything but the start never holds, nor $ behind anything but the end.
    if (head === this.anything && first.kind === 'start') return tail;
    if (head.kind === 'end' && !tail.contextual) return tail.nullable ? head : this.never;
    if (tail === this.anything) {
      if (head.nullable) return tail;
      if (head.kind === 'repeat' && head.max > head.min) {
        return this.sequence(this.repeat(head.of, head.min, head.min), tail);
      }
    }
    // x{a,b} x{c,d} is x{a+c,b+d}.
    const [one, other] = [asRepeat(head), asRepeat(first)];
    if (one.of === other.of && (head.kind === 'repeat' || first.kind === 'repeat')) {
      return this.sequence(this.repeat(one.of, one.min + other.min, one.max + other.max), rest);
    }
    return this.make(`sequence ${head.id} ${tail.id}`, {
      kind: 'sequence',
      head,
      tail,
      nullable: head.nullable && tail.nullable,
      contextual: head.contextual || tail.contextual,
    });
  }

  choice(terms: Iterable<Term>): Term {
    const open = new Set<Term>();
    const classes = new Set<number>();
    const add = (term: Term): void => {
      if (term.kind === 'choice') term.of.forEach(add);
      else if (term.kind === 'set') term.classes.forEach((kind) => classes.add(kind));
      else if (term !== this.never) open.add(term);
    };
    for (const term of terms) add(term);
    if (open.has(this.anything)) return this.anything;
    if (classes.size > 0) open.add(this.set([...classes].sort((a, b) => a - b)));
    const merged = this.merged(open);
    if (merged.has(this.empty) && [...merged].some((term) => term !== this.empty && term.nullable)) {
      merged.delete(this.empty);
    }
    if (merged.size === 0) return this.never;
    const of = this.undominated([...merged]).sort((a, b) => a.id - b.id);
    if (of.length === 1) return of[0]!;
    if (of.length > WAYS + this.pattern.length) {
      throw new Unsupported(
        `[grammar] pattern ${JSON.stringify(this.pattern)}: ${of.length} ways to read a text are open at once: ` +
          'smaller counts, or fewer counted repeats in one another',
      );
    }
    return this.make(`choice ${of.map((term) => term.id).join(' ')}`, {
      kind: 'choice',
      of,
      nullable: of.some((term) => term.nullable),
      contextual: of.some((term) => term.contextual),
    });
  }

  /** x{a,b}y | x{c,d}y as one, where no count between is left out; y itself is x{0}y. */
  private merged(terms: ReadonlySet<Term>): Set<Term> {
    const merged = new Set(terms);
    const groups = new Map<string, { readonly of: Term; readonly tail: Term; readonly members: Counted[] }>();
    for (const term of terms) {
      const [head, tail] = term.kind === 'sequence' ? [term.head, term.tail] : [term, this.empty];
      if (head === this.empty) continue;
      const { of, min, max } = asRepeat(head);
      const key = `${of.id} ${tail.id}`;
      const group = groups.get(key);
      if (group) group.members.push({ term, min, max });
      else groups.set(key, { of, tail, members: [{ term, min, max }] });
    }
    for (const { of, tail, members } of groups.values()) {
      if (merged.has(tail)) members.push({ term: tail, min: 0, max: 0 });
      if (members.length === 1) continue;
      members.sort((a, b) => a.min - b.min);
      let { min, max } = members[0]!;
      let since = 0;
      const join = (until: number): void => {
        if (until - since > 1) {
          for (const { term } of members.slice(since, until)) merged.delete(term);
          merged.add(this.sequence(this.repeat(of, min, max), tail));
        }
      };
      members.forEach((member, i) => {
        // Before anything at all more repeats are no other texts than fewer.
        if (member.min <= max + 1 || tail === this.anything) {
          max = Math.max(max, member.max);
          return;
        }
        join(i);
        ({ min, max } = member);
        since = i;
      });
      join(members.length);
    }
    return merged;
  }

  /** Without those that another one holds: x{1,3}y{0,4} is in x{0,3}y{0,7}. */
  private undominated(terms: readonly Term[]): Term[] {
    const groups = new Map<string, Term[]>();
    for (const term of terms) {
      const shape = this.shape(term);
      const group = groups.get(shape);
      if (!group) groups.set(shape, [term]);
      else if (!group.some((other) => holds(other, term))) {
        groups.set(shape, [...group.filter((other) => !holds(term, other)), term]);
      }
    }
    return [...groups.values()].flat();
  }

  /** What terms have to have in common for one to hold another as `holds` says. */
  private shape(term: Term): string {
    let shape = this.shapes.get(term);
    if (shape === undefined) {
      shape = heads(term)
        .map((head) => (head.kind === 'repeat' ? `${head.of.id}*` : head.id))
        .join(' ');
      this.shapes.set(term, shape);
    }
    return shape;
  }

  repeat(of: Term, min: number, max: number): Term {
    if (max === 0 || of === this.empty) return this.empty;
    if (of === this.never) return min === 0 ? this.empty : of;
    if (min === 1 && max === 1) return of;
    if (of.nullable && min > 0) return this.repeat(of, 0, max);
    if (of.kind === 'repeat') {
      // (x{a,b}){c,d} is x{ac,bd} where the counts for c, c + 1, … touch one another.
      const touch = min === max || (min === 0 ? of.min <= 1 : min * of.max + 1 >= (min + 1) * of.min);
      if (touch) return this.repeat(of.of, of.min * min, of.max * max);
    }
    return this.make(`repeat ${of.id} ${min} ${max}`, {
      kind: 'repeat',
      of,
      min,
      max,
      nullable: min === 0,
      contextual: of.contextual,
    });
  }

  /** Whether the empty text is in it at a place between such neighbours. */
  nullable(term: Term, before: Neighbour, behind: Neighbour): boolean {
    while (term.contextual && term.kind === 'sequence') {
      if (!this.nullable(term.head, before, behind)) return false;
      term = term.tail;
    }
    if (!term.contextual) return term.nullable;
    switch (term.kind) {
      case 'choice':
        return term.of.some((of) => this.nullable(of, before, behind));
      case 'repeat':
        return term.min === 0 || this.nullable(term.of, before, behind);
      case 'start':
        return before === EDGE;
      case 'end':
        return behind === EDGE;
      case 'boundary':
        return (before === WORDLIKE) !== (behind === WORDLIKE);
      case 'inside':
        return (before === WORDLIKE) === (behind === WORDLIKE);
      default:
        throw new Error(`[grammar] ${term.kind} has no context`);
    }
  }

  /** What is left of a term behind a code point of the class, with nothing behind it but the text's end. */
  derivative(term: Term, before: Neighbour, kind: number): Term {
    const found = new Set<Term>();
    this.derive(term, this.empty, before, kind, found);
    const left = this.choice(found);
    return left.contextual ? this.atEnd(this.inside(left)) : left;
  }

  /** Adds the partial derivatives of `term` followed by `rest`. */
  private derive(term: Term, rest: Term, before: Neighbour, kind: number, found: Set<Term>): void {
    const behind = this.isWord(kind) ? WORDLIKE : OTHER;
    for (; term.kind === 'sequence'; term = term.tail) {
      this.derive(term.head, this.sequence(term.tail, rest), before, kind, found);
      if (!this.nullable(term.head, before, behind)) return;
    }
    if (term.kind === 'set') {
      if (term.classes.includes(kind)) found.add(rest);
    } else if (term.kind === 'choice') {
      for (const of of term.of) this.derive(of, rest, before, kind, found);
    } else if (term.kind === 'repeat') {
      // Repeats that match nothing here may come first, so that fewer than `min` are left to do.
      const min = this.nullable(term.of, before, behind) ? 0 : Math.max(0, term.min - 1);
      this.derive(term.of, this.sequence(this.repeat(term.of, min, term.max - 1), rest), before, kind, found);
    }
  }

  /** The term at the end of everything: `$` holds there where it is last. */
  atEnd(term: Term): Term {
    if (!term.contextual) return term;
    if (term.kind === 'end') return this.empty;
    if (term.kind === 'choice') return this.choice(term.of.map((of) => this.atEnd(of)));
    if (term.kind !== 'sequence') return term;
    return this.withLast(term, (last) => this.atEnd(last));
  }

  /** The term before everything: `^` holds there where it is first. */
  atStart(term: Term): Term {
    if (!term.contextual) return term;
    if (term.kind === 'start') return this.empty;
    if (term.kind === 'choice') return this.choice(term.of.map((of) => this.atStart(of)));
    return term.kind === 'sequence' && term.head.kind === 'start' ? this.atStart(term.tail) : term;
  }

  /** The term behind the start: `^` never holds there. */
  private inside(term: Term): Term {
    if (!term.contextual) return term;
    if (term.kind === 'start') return this.never;
    let known = this.withoutStart.get(term);
    if (known) return known;
    if (term.kind === 'choice') known = this.choice(term.of.map((of) => this.inside(of)));
    else if (term.kind === 'repeat') known = this.repeat(this.inside(term.of), term.min, term.max);
    else if (term.kind === 'sequence') {
      const heads: Term[] = [];
      let last: Term = term;
      for (; last.kind === 'sequence'; last = last.tail) heads.push(this.inside(last.head));
      known = heads.reduceRight((tail, head) => this.sequence(head, tail), this.inside(last));
    } else known = term;
    this.withoutStart.set(term, known);
    return known;
  }

  private withLast(term: Sequence, change: (last: Term) => Term): Term {
    const heads: Term[] = [];
    let last: Term = term;
    for (; last.kind === 'sequence'; last = last.tail) heads.push(last.head);
    const changed = change(last);
    return changed === last ? term : heads.reduceRight((tail, head) => this.sequence(head, tail), changed);
  }

  /** How many code points a text of the term has, where all texts of so many are in it. */
  counts(term: Term): readonly [min: number, max: number] | null {
    if (term === this.empty) return [0, 0];
    const { of, min, max } = asRepeat(term);
    return of === this.every ? [min, max] : null;
  }

  /** How many code points the texts of a term have; where `made` is a number, it is a class. */
  sizes(term: Term, made: Made): Sizes {
    let known = this.known.get(made);
    if (known === undefined) this.known.set(made, (known = new Map()));
    const found = known.get(term);
    if (found !== undefined) return found;
    const heads: Sequence[] = [];
    let tail = term;
    for (; tail.kind === 'sequence' && !known.has(tail); tail = tail.tail) heads.push(tail);
    let sizes = known.get(tail) ?? this.partSizes(tail, made);
    known.set(tail, sizes);
    for (const sequence of heads.reverse()) {
      sizes = behind(this.sizes(sequence.head, made), sizes);
      known.set(sequence, sizes);
    }
    return sizes;
  }

  private partSizes(term: Term, made: Made): Sizes {
    switch (term.kind) {
      case 'never':
        return NO_SIZE;
      case 'empty':
        return sized(0, 0);
      case 'set':
        return made === 'any' || term.classes.some((kind) => (made === 'short' ? this.short.has(kind) : kind === made))
          ? sized(1, 1)
          : NO_SIZE;
      case 'choice':
        return either(...term.of.map((of) => this.sizes(of, made)));
      case 'repeat':
        return times(this.sizes(term.of, made), term.min, term.max);
      default:
        // Whether it holds where it stands is not known.
        return { ...sized(0, 0), sure: 0 };
    }
  }

  private make(key: string, term: New<Term>): Term {
    return this.terms.get(key, () => ({ ...term, id: this.ids++ }));
  }
}

type New<T> = T extends Term ? Omit<T, 'id'> : never;

interface Counted {
  readonly term: Term;
  readonly min: number;
  readonly max: number;
}

/** Any term as a repeat. */
function asRepeat(term: Term): { readonly of: Term; readonly min: number; readonly max: number } {
  return term.kind === 'repeat' ? term : { of: term, min: 1, max: 1 };
}

/** The first parts of a sequence, and the rest of it. */
function heads(term: Term): readonly Term[] {
  const found: Term[] = [];
  for (; term.kind === 'sequence' && found.length < NEAR; term = term.tail) found.push(term.head);
  return [...found, term];
}

/** Whether of two terms of one shape the first holds the other: it leaves at least the same counts open. */
function holds(one: Term, other: Term): boolean {
  const others = heads(other);
  return heads(one).every((head, i) => {
    const counted = others[i]!;
    if (head.kind !== 'repeat' || counted.kind !== 'repeat') return head === counted;
    return head.min <= counted.min && counted.max <= head.max;
  });
}
