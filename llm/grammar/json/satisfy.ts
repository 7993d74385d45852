import { Unsupported } from '../refusal.ts';
import type { Wanted } from '../text/combine.ts';
import type { Language } from '../text/language.ts';
import type { Algebra } from './algebra.ts';
import type { Derivatives, KeyAlphabet, KeyClass } from './derive.ts';
import type { Assertion, Formula, Type } from './formula.ts';
import { numbers, type NumberTest } from './number.ts';
import { strings } from './string.ts';

export const TYPES: readonly Type[] = ['null', 'boolean', 'number', 'string', 'array', 'object'];

/** Steps of one search before a schema is refused as too large. */
const STEPS = 100_000;
/** So many texts are known to be used up where no two elements may be the same. */
export const FEW_TEXTS = 1024;
/** So many searches go on within one another before one that would be deeper is made first. */
const DEEPEST = 200;
const NONE_TAKEN: ReadonlySet<string> = new Set();

/**
 * Whether a value exists that satisfies a formula. A search that follows the derivatives: members in whatever order decides
 * best, since their order means nothing, elements one after the other. Recursion is the least fixpoint: a value that would
 * have to contain itself does not exist.
 */
export class Satisfiability {
  readonly derivatives: Derivatives;
  private readonly known = new Map<string, boolean>();
  /** Searches under way: one that meets itself finds no value there. */
  private readonly open = new Set<string>();
  /** How often that happened, since when a "no" holds only under that assumption. */
  private assumed = 0;
  private steps = 0;
  private readonly classes = new Map<KeyAlphabet, readonly KeyClass[]>();
  private readonly namedClasses = new Map<KeyAlphabet, Map<string, KeyClass>>();
  private readonly boundedOf = new Map<Formula, Formula>();
  private readonly plains = new Map<Formula, PlainObject>();

  constructor(derivatives: Derivatives) {
    this.derivatives = derivatives;
  }

  value(formula: Formula): boolean {
    if (formula === this.derivatives.algebra.no) return false;
    const key = keyOf(formula);
    if (this.open.size >= DEEPEST && !this.known.has(key) && !this.open.has(key)) throw new Deeper(formula);
    return this.search(key, () => this.anyValue(formula));
  }

  private anyValue(formula: Formula): boolean {
    return formula.kind === 'or' ? formula.of.some((part) => this.value(part)) : this.anyType(formula);
  }

  private anyType(formula: Formula): boolean {
    return TYPES.some((type) => this.typed(formula, type));
  }

  typed(formula: Formula, type: Type): boolean {
    const { algebra } = this.derivatives;
    const restricted = this.derivatives.restrict(formula, type);
    if (restricted === algebra.yes || restricted === algebra.no) return restricted === algebra.yes;
    if (type === 'array') return this.array(this.bounded(restricted));
    if (type === 'object') return this.object(restricted, NONE_TAKEN);
    return this.scalar(restricted, type);
  }

  private scalar(restricted: Formula, type: Type): boolean {
    if (restricted.kind === 'or') return restricted.of.some((part) => this.scalar(part, type));
    return this.search(`${type} ${restricted.id}`, () => {
      const assertions = assertionsOf([restricted]);
      const places = new Map(assertions.map((assertion, i) => [assertion, i]));
      const holds = (truths: readonly boolean[]): boolean =>
        evaluate(restricted, (assertion) => truths[places.get(assertion)!]!);
      if (type === 'boolean') return holds([true]) || holds([false]);
      if (type === 'number') return numbers(testsOf(assertions), (truths) => (holds(truths) ? 0 : null)) !== null;
      if (type === 'string') {
        const wanted = (labels: readonly number[]): 0 | null => (holds(labels.map((label) => label >= 0)) ? 0 : null);
        return strings(languagesOf(assertions), wanted, { wanted: wantedOf(restricted, assertions) }) !== null;
      }
      return holds([]);
    });
  }

  /** An array whose elements from here on are asked this. */
  array(formula: Formula): boolean {
    if (this.derivatives.close(formula)) return true;
    if (formula.kind === 'or') return formula.of.some((part) => this.array(part));
    return this.search(`array ${formula.id}`, () => {
      const plain = plainArray(formula, this.derivatives.algebra);
      if (plain) return this.plainArray(plain);
      const { algebra } = this.derivatives;
      const seen = new Set<Formula>([formula]);
      const waiting = [formula];
      for (let next = waiting.pop(); next; next = waiting.pop()) {
        if (this.derivatives.close(next)) return true;
        this.step();
        const counts = lengthsOf(next);
        const shorter = this.shift(next, 1);
        this.outcomes(this.derivatives.element(next), algebra.yes, (left) => {
          // An element that only counts is followed by as many like it as anything counts.
          const far = left === shorter && counts.length > 0 ? this.shift(next, Math.min(...counts)) : left;
          if (far !== algebra.no && !seen.has(far)) {
            seen.add(far);
            waiting.push(far);
          }
          return false;
        });
      }
      return false;
    });
  }

  /**
   * Of an array before its first element. Where texts have to differ, it has no more elements than differ: so whoever counts
   * knows when they are used up. Throws where that is not known.
   */
  bounded(formula: Formula): Formula {
    if (!differs(formula)) return formula;
    let bounded = this.boundedOf.get(formula);
    if (!bounded) {
      const { algebra } = this.derivatives;
      const most = this.differentElements(formula);
      bounded = most === Infinity ? formula : algebra.and(formula, algebra.not(algebra.length(most + 1)));
      this.boundedOf.set(formula, bounded);
    }
    return bounded;
  }

  /**
   * How many elements an array may have of which no two are the same text, as far as these are few. Where it has others,
   * there is one more for whatever it is asked at any time: where elements are asked what hangs on their places, or on one
   * another, that is made sure of or refused.
   */
  private differentElements(formula: Formula): number {
    const { algebra } = this.derivatives;
    const items: Items[] = [];
    const values: Formula[] = [];
    const refused = (reason: string): Unsupported => {
      const [place] = assertionsOf([formula]).flatMap(({ assert }) =>
        assert.kind === 'differentTexts' ? [assert.place] : [],
      );
      return new Unsupported(`[grammar] schema ${place}: uniqueItems: over texts is ${reason}`);
    };
    for (const part of partsOf(formula)) {
      const assert = part.kind === 'assertion' ? part.assert : null;
      if (assert?.kind === 'differentTexts') continue;
      if (assert?.kind === 'items') items.push(assert);
      else if (assert?.kind === 'distinct') values.push(...assert.values);
      else if (assert?.kind === 'contains' && assert.count === 1) continue;
      else if (assertionsOf([part]).some(({ assert }) => assert.kind !== 'length')) {
        throw refused('followed beside items, contains, minItems and maxItems alone');
      }
    }
    const at = (i: number): Formula => algebra.and(...items.map(({ prefix, rest }) => prefix[i] ?? rest));
    const told = Math.max(0, ...items.map(({ prefix }) => prefix.length));
    const counts = Array.from({ length: told + 1 }, (_, i) => this.texts(at(i)));
    if (counts.some((count, i) => count > 0 && (i < told ? count <= i : i > 0 && count < Infinity))) {
      throw refused(`not followed where there are few (at most ${FEW_TEXTS}) and elements hang on their places`);
    }
    if (told > 0 || counts[0] === Infinity) return Infinity;
    const others = new Set(values.filter((value) => this.value(algebra.and(at(0), value))));
    return counts[0]! + others.size;
  }

  /** How many texts satisfy a formula; Infinity where they are not few. */
  private texts(formula: Formula): number {
    const restricted = this.derivatives.restrict(formula, 'string');
    if (!this.typed(formula, 'string')) return 0;
    const assertions = assertionsOf([restricted]);
    const places = new Map(assertions.map((assertion, i) => [assertion, i]));
    const wanted = (labels: readonly number[]): 0 | null =>
      evaluate(restricted, (assertion) => labels[places.get(assertion)!]! >= 0) ? 0 : null;
    const found = strings(languagesOf(assertions), wanted, {
      unique: FEW_TEXTS,
      wanted: wantedOf(restricted, assertions),
    });
    return found?.open.few?.texts.length ?? Infinity;
  }

  /** As many elements as must be have to exist, each as it is asked. */
  private plainArray({ least, most, items, contained, refused, distinct }: PlainArray): boolean {
    const { algebra } = this.derivatives;
    const at = (i: number): Formula => algebra.and(...items.map(({ prefix, rest }) => prefix[i] ?? rest), ...refused);
    const told = Math.max(0, ...items.map(({ prefix }) => prefix.length));
    if (least > most) return false;
    if (distinct) return this.differing(distinct, at(0), least);
    return (
      contained.every((item) => this.value(algebra.and(at(0), item))) &&
      Array.from({ length: Math.min(least, told + 1) }).every((_, i) => this.value(at(i)))
    );
  }

  /** Whether there are so many elements like this of which no two are the same of the values. */
  private differing({ values, taken }: Distinct, element: Formula, count: number): boolean {
    const { algebra } = this.derivatives;
    if (count === 0 || this.value(algebra.and(element, ...values.map((value) => algebra.not(value))))) return true;
    let left = count;
    return values.some((value) => {
      if (!taken.includes(value) && this.value(algebra.and(element, value))) left -= 1;
      return left === 0;
    });
  }

  /**
   * The same, as far as it is told by up to `more` children: where a bound of an array's or object's children is farther off
   * than that, and each of them is asked what it is asked by itself, it is as good as a nearer one.
   */
  nearer(formula: Formula, more: number): Formula {
    const { algebra } = this.derivatives;
    const counts = assertionsOf([formula]).map(({ assert }) => assert.kind);
    const lengths = counts.includes('length') ? plainArray(formula, algebra) : null;
    const sizes = counts.includes('size') ? this.plain(formula) : null;
    if (lengths !== null && lengths.most < Infinity && lengths.distinct === null && !differs(formula)) {
      return this.closer(formula, 'length', Math.max(lengths.least, more) + 1);
    }
    if (sizes !== null && sizes.most < Infinity && sizes.others.length === 0) {
      return this.closer(formula, 'size', Math.max(sizes.least, sizes.required.length + more) + 1);
    }
    return formula;
  }

  /** A conjunction with its upper bounds of so many children at most, where they are higher. */
  private closer(formula: Formula, kind: 'length' | 'size', most: number): Formula {
    const { algebra } = this.derivatives;
    const parts = partsOf(formula).map((part) => {
      const bound = part.kind === 'not' && part.of.kind === 'assertion' ? part.of.assert : null;
      return bound?.kind === kind && bound.count > most + 1 ? algebra.not(algebra[kind](most + 1)) : part;
    });
    return algebra.and(...parts);
  }

  /** The same with arrays' lengths asked for `by` less. */
  private shift(formula: Formula, by: number): Formula {
    if (formula.kind !== 'assertion') return this.derivatives.algebra.over(formula, (part) => this.shift(part, by));
    return formula.assert.kind === 'length' ? this.derivatives.algebra.length(formula.assert.count - by) : formula;
  }

  /** An object whose further members are asked this; members named `taken` don't come any more. */
  object(formula: Formula, taken: ReadonlySet<string>): boolean {
    const { derivatives } = this;
    if (derivatives.close(formula)) return true;
    const settled = derivatives.settle(formula, taken);
    if (settled !== formula) return this.object(settled, taken);
    if (formula === derivatives.algebra.no) return false;
    if (formula.kind === 'or') return formula.of.some((part) => this.object(part, taken));
    const alphabet = derivatives.alphabet([formula]);
    const gone = alphabet.names.filter((name) => taken.has(name));
    return this.search(`object ${formula.id} ${JSON.stringify(gone)}`, () => {
      const plain = this.plain(formula);
      if (plain.others.length === 0) return this.plainObject(plain, alphabet, taken);
      if (formula.kind === 'and' && !plain.others.every((part) => this.object(part, taken))) return false;
      const reduced = this.withoutPure(formula, plain, alphabet, taken);
      if (reduced !== formula) return this.object(reduced, taken);
      const [only] = plain.others;
      if (plain.others.length === 1 && only!.kind === 'or') {
        const rest = derivatives.algebra.and(...partsOf(formula).filter((part) => part !== only));
        return only!.of.some((part) => this.object(derivatives.algebra.and(rest, part), taken));
      }
      const present = (name: string): boolean => {
        const after = derivatives.member(formula, this.named(name, alphabet));
        return this.outcomes(after, derivatives.algebra.yes, (left) => this.object(left, new Set([...gone, name])));
      };
      const [demanded] = plain.required;
      if (demanded !== undefined) return !taken.has(demanded) && present(demanded);
      const name = alphabet.names.find((other) => !taken.has(other));
      if (name !== undefined) {
        const absent = derivatives.given(formula, new Map([[name, false]]));
        return this.object(absent, new Set([...gone, name])) || present(name);
      }
      return this.others(formula, alphabet);
    });
  }

  /** A formula of objects by its parts. */
  plain(formula: Formula): PlainObject {
    let plain = this.plains.get(formula);
    if (!plain) this.plains.set(formula, (plain = plainObject(formula)));
    return plain;
  }

  /** Whether a value can be what such a key's is asked, by what the object asks of all its members. */
  possible(plain: PlainObject, key: KeyClass): boolean {
    if (plain.keys.some((language) => !key.within.has(language.key))) return false;
    return this.value(this.asked(plain, key));
  }

  /** What the object asks of the value of such a key, by what it asks of all its members. */
  asked({ members }: PlainObject, key: KeyClass): Formula {
    return this.derivatives.algebra.and(...members.map((assertion) => this.memberValue(assertion, key)));
  }

  /** What a `members` assertion asks of the value of such a key. */
  private memberValue(assertion: Assertion, key: KeyClass): Formula {
    const { algebra } = this.derivatives;
    const after = this.derivatives.member(assertion, key);
    if (after === algebra.no) return algebra.no;
    return this.derivatives.children(after)[0] ?? algebra.yes;
  }

  /** Bounds of the number of members, and what each of them is asked: those that must be have to exist, and enough of them. */
  private plainObject(plain: PlainObject, alphabet: KeyAlphabet, taken: ReadonlySet<string>): boolean {
    const { required, least, most } = plain;
    const possible = (key: KeyClass): boolean => this.possible(plain, key);
    if (required.length > most) return false;
    if (required.some((name) => taken.has(name) || !possible(this.named(name, alphabet)))) return false;
    if (required.length >= least || this.unnamed(alphabet).some(possible))
      return required.length <= most && least <= most;
    const optional = alphabet.names.filter((name) => !taken.has(name) && !required.includes(name));
    const free = optional.filter((name) => possible(this.named(name, alphabet)));
    return required.length + free.length >= least && least <= most;
  }

  /**
   * Without the names of which nothing is asked, but by what holds for all members, than that they come, or than that they
   * don't: so they do ("pure literals", Davis and Putnam 1960, "A computing procedure for quantification theory"). The
   * formula itself where there are none.
   */
  private withoutPure(
    formula: Formula,
    plain: PlainObject,
    alphabet: KeyAlphabet,
    taken: ReadonlySet<string>,
  ): Formula {
    if (plain.least > 0 || plain.most < Infinity) return formula;
    if (this.derivatives.alphabet(plain.others).languages.length > 0 || countsMembers(plain.others)) return formula;
    // What holds of other keys holds of these, where `others` do not name them.
    const other = keyClass(null, []);
    for (const part of plain.others) if (this.derivatives.member(part, other) !== part) return formula;
    const asked = namesAsked(plain.others);
    for (const name of plain.required)
      asked.set(name, asked.get(name) === undefined || asked.get(name) === 'comes' ? 'comes' : 'both');
    const coming = new Map<string, boolean>();
    for (const [name, how] of asked) {
      if (how === 'both') continue;
      coming.set(name, how === 'comes' && !taken.has(name) && this.possible(plain, this.named(name, alphabet)));
    }
    return coming.size === 0 ? formula : this.derivatives.given(formula, coming);
  }

  /** An object whose further members have none of the names. */
  private others(formula: Formula, alphabet: KeyAlphabet): boolean {
    const { derivatives } = this;
    const seen = new Set<Formula>([formula]);
    const waiting = [formula];
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      if (derivatives.close(next)) return true;
      for (const key of this.unnamed(alphabet)) {
        this.outcomes(derivatives.member(next, key), derivatives.algebra.yes, (left) => {
          if (!seen.has(left)) {
            seen.add(left);
            waiting.push(left);
          }
          return false;
        });
      }
    }
    return false;
  }

  /**
   * Calls `use` with what is left of an array or object for each way in which the child being read can turn out, until it
   * returns true; `so` is what is known of the child.
   */
  outcomes(formula: Formula, so: Formula, use: (left: Formula) => boolean): boolean {
    const { algebra } = this.derivatives;
    if (formula === algebra.no || !this.value(so)) return false;
    this.step();
    const demands = this.derivatives.demands(formula);
    if (demands.size > 0) {
      const literals = [...demands].map(([value, truth]) => (truth ? value : algebra.not(value)));
      return this.outcomes(this.derivatives.decide(formula, demands), algebra.and(so, ...literals), use);
    }
    const alternatives = this.derivatives.alternatives(formula);
    if (alternatives.length > 1) return alternatives.some((part) => this.outcomes(part, so, use));
    const [child] = this.derivatives.children(formula);
    if (!child) return use(formula);
    return [true, false].some((truth) =>
      this.outcomes(
        this.derivatives.decide(formula, new Map([[child, truth]])),
        algebra.and(so, truth ? child : algebra.not(child)),
        use,
      ),
    );
  }

  /** A key that is one of the names. */
  named(name: string, alphabet: KeyAlphabet): KeyClass {
    let classes = this.namedClasses.get(alphabet);
    if (!classes) this.namedClasses.set(alphabet, (classes = new Map()));
    let key = classes.get(name);
    if (!key) {
      key = keyClass(
        name,
        alphabet.languages.filter((language) => holds(language, name)),
      );
      classes.set(name, key);
    }
    return key;
  }

  /** The classes of keys that are none of the names: by the languages in which they are. */
  unnamed(alphabet: KeyAlphabet): readonly KeyClass[] {
    let classes = this.classes.get(alphabet);
    if (!classes) {
      const { named, languages } = alphabet;
      if (languages.length === 0) classes = [keyClass(null, [])];
      else {
        const found = new Map<string, KeyClass>();
        strings([named, ...languages], ([name, ...labels]) => {
          if (name! < 0) {
            const key = keyClass(
              null,
              languages.filter((_, i) => labels[i]! >= 0),
            );
            found.set(key.key, key);
          }
          return null; // nothing is wanted, so that all are seen
        });
        classes = [...found.values()];
      }
      this.classes.set(alphabet, classes);
    }
    return classes;
  }

  /** Counts one step of a search, of which there may be so many. */
  step(): void {
    this.steps += 1;
    if (this.steps > STEPS) {
      throw new Unsupported(
        `[grammar] it takes more than ${STEPS} steps to decide whether the schema has a value: ` +
          'too many alternatives (oneOf, not, if, dependent…) meet in one place',
      );
    }
  }

  private search(key: string, find: () => boolean): boolean {
    const known = this.known.get(key);
    if (known !== undefined) return known;
    if (this.open.has(key)) {
      this.assumed += 1;
      return false;
    }
    return this.open.size === 0 ? this.first(key, find) : this.within(key, find);
  }

  /** A search within no other: what lies too deep for the call stack is searched for by itself, before it goes on. */
  private first(key: string, find: () => boolean): boolean {
    this.steps = 0;
    const before: Formula[] = [];
    for (;;) {
      const last = before.at(-1);
      try {
        const found = last ? this.within(keyOf(last), () => this.anyValue(last)) : this.within(key, find);
        if (!last) return found;
        before.pop();
      } catch (error) {
        if (!(error instanceof Deeper)) throw error;
        if (before.includes(error.formula)) {
          throw new Unsupported(`[grammar] values that contain themselves nest deeper than ${DEEPEST} levels`);
        }
        before.push(error.formula);
      }
    }
  }

  private within(key: string, find: () => boolean): boolean {
    this.open.add(key);
    const before = this.assumed;
    try {
      const found = find();
      if (found || this.assumed === before || this.open.size === 1) this.known.set(key, found);
      return found;
    } finally {
      this.open.delete(key);
      if (this.open.size === 0) this.assumed = 0;
    }
  }
}

const keyOf = (formula: Formula): string => `value ${formula.id}`;

/** A search that lies too deep within others. */
class Deeper extends Error {
  readonly formula: Formula;

  constructor(formula: Formula) {
    super('[grammar] too deep');
    this.formula = formula;
  }
}

export function keyClass(name: string | null, languages: readonly Language[]): KeyClass {
  const within = new Set(languages.map((language) => language.key));
  return { key: JSON.stringify([name, ...within]), name, within };
}

/** Whether a text is in a language. */
export function holds(language: Language, text: string): boolean {
  let state = language.start;
  for (const character of text) {
    state = language.step(state, character.codePointAt(0)!);
    if (state < 0) return false;
  }
  return language.label(state) >= 0;
}

/** The assertions in formulas that hold no references, each once. */
export function assertionsOf(formulas: readonly Formula[]): readonly Assertion[] {
  const found = new Set<Assertion>();
  const seen = new Set<number>();
  const visit = (formula: Formula): void => {
    if (seen.has(formula.id)) return;
    seen.add(formula.id);
    if (formula.kind === 'assertion') found.add(formula);
    else if (formula.kind === 'not') visit(formula.of);
    else if ('of' in formula) formula.of.forEach(visit);
  };
  formulas.forEach(visit);
  return [...found];
}

export function languagesOf(assertions: readonly Assertion[]): readonly Language[] {
  return assertions.map(({ assert }) => {
    if (assert.kind !== 'text') throw new Error(`[grammar] a string was asked for ${assert.kind}`);
    return assert.language;
  });
}

/** Which texts satisfy a formula of strings by their languages, where each has them or has not, or where any may have. */
export function wantedOf(formula: Formula, assertions: readonly Assertion[]): Wanted | undefined {
  if (formula.kind === 'or' && formula.of.every((part) => part.kind === 'assertion')) return 'some';
  const signs = new Map<Formula, boolean>();
  for (const part of formula.kind === 'and' ? formula.of : [formula]) {
    const assertion = part.kind === 'not' ? part.of : part;
    if (assertion.kind !== 'assertion') return undefined;
    signs.set(assertion, assertion === part);
  }
  return assertions.map((assertion) => signs.get(assertion)!);
}

export function testsOf(assertions: readonly Assertion[]): readonly NumberTest[] {
  return assertions.map(({ assert }) => {
    if (assert.kind !== 'number') throw new Error(`[grammar] a number was asked for ${assert.kind}`);
    return assert.test;
  });
}

/** The formula's truth by that of its assertions. */
export function evaluate(formula: Formula, truth: (assertion: Assertion) => boolean): boolean {
  switch (formula.kind) {
    case 'assertion':
      return truth(formula);
    case 'not':
      return !evaluate(formula.of, truth);
    case 'and':
      return formula.of.every((part) => evaluate(part, truth));
    case 'or':
      return formula.of.some((part) => evaluate(part, truth));
    case 'one':
      return formula.of.filter((part) => evaluate(part, truth)).length === 1;
    case 'later':
      throw new Error('[grammar] a reference was evaluated');
    default:
      return formula.kind === 'true';
  }
}

/** Of a conjunction. */
const partsOf = (formula: Formula): readonly Formula[] => (formula.kind === 'and' ? formula.of : [formula]);

/** Whether no two elements of such an array may be the same text. */
export function differs(formula: Formula): boolean {
  return partsOf(formula).some((part) => part.kind === 'assertion' && part.assert.kind === 'differentTexts');
}

/** A conjunction of what holds for every member, of names that must come, and of bounds; `others` are its other parts. */
export interface PlainObject {
  readonly members: readonly Assertion[];
  readonly keys: readonly Language[];
  readonly required: readonly string[];
  readonly least: number;
  readonly most: number;
  readonly others: readonly Formula[];
}

function plainObject(formula: Formula): PlainObject {
  const members: Assertion[] = [];
  const [keys, required, others] = [[] as Language[], [] as string[], [] as Formula[]];
  let [least, most] = [0, Infinity];
  for (const part of partsOf(formula)) {
    const assert = part.kind === 'assertion' ? part.assert : null;
    const bound = part.kind === 'not' && part.of.kind === 'assertion' ? part.of.assert : null;
    if (assert?.kind === 'members') members.push(part as Assertion);
    else if (assert?.kind === 'keys') keys.push(assert.language);
    else if (assert?.kind === 'required') required.push(assert.name);
    else if (assert?.kind === 'size') least = Math.max(least, assert.count);
    else if (bound?.kind === 'size') most = Math.min(most, bound.count - 1);
    else others.push(part);
  }
  return { members, keys, required, least, most, others };
}

/** Of the names that formulas of objects mention: whether it is asked that they come, that they don't, or more. */
function namesAsked(formulas: readonly Formula[]): Map<string, 'comes' | 'is absent' | 'both'> {
  const asked = new Map<string, 'comes' | 'is absent' | 'both'>();
  const see = (formula: Formula, comes: boolean | null): void => {
    if (formula.kind === 'not') return see(formula.of, comes === null ? null : !comes);
    if ('of' in formula) return formula.of.forEach((part) => see(part, formula.kind === 'one' ? null : comes));
    if (formula.kind !== 'assertion') return;
    const { assert } = formula;
    const names = assert.kind === 'required' ? [assert.name] : assert.kind === 'members' ? assert.names.keys() : [];
    const how = assert.kind !== 'required' || comes === null ? 'both' : comes ? 'comes' : 'is absent';
    for (const name of names) asked.set(name, (asked.get(name) ?? how) === how ? how : 'both');
  };
  formulas.forEach((formula) => see(formula, true));
  return asked;
}

/** Whether formulas of objects ask how many members there are. */
const countsMembers = (formulas: readonly Formula[]): boolean =>
  assertionsOf(formulas).some(({ assert }) => assert.kind === 'size' || assert.kind === 'unevaluatedMembers');

type Distinct = Extract<Assertion['assert'], { kind: 'distinct' }>;
type Items = Extract<Assertion['assert'], { kind: 'items' }>;

/** A conjunction of what holds for every element, of bounds, and of what must be among them or must not. */
interface PlainArray {
  readonly items: readonly Items[];
  readonly least: number;
  readonly most: number;
  readonly contained: readonly Formula[];
  readonly refused: readonly Formula[];
  readonly distinct: Distinct | null;
}

/** Null where there is more to it, or its parts have a say in one another. */
function plainArray(formula: Formula, algebra: Algebra): PlainArray | null {
  const items: Items[] = [];
  const [contained, refused, distinct] = [[] as Formula[], [] as Formula[], [] as Distinct[]];
  let [least, most] = [0, Infinity];
  for (const part of partsOf(formula)) {
    const assert = part.kind === 'assertion' ? part.assert : null;
    const bound = part.kind === 'not' && part.of.kind === 'assertion' ? part.of.assert : null;
    if (assert?.kind === 'items') items.push(assert);
    else if (assert?.kind === 'length') least = Math.max(least, assert.count);
    else if (assert?.kind === 'contains') contained.push(assert.item);
    else if (assert?.kind === 'distinct') distinct.push(assert);
    else if (assert?.kind === 'differentTexts') continue;
    else if (bound?.kind === 'length') most = Math.min(most, bound.count - 1);
    else if (bound?.kind === 'contains' && bound.count === 1) refused.push(algebra.not(bound.item));
    else return null;
  }
  const uniform = items.every(({ prefix }) => prefix.length === 0);
  // Without an end, and all elements being asked the same, what must be among them comes one after the other.
  if (contained.length > 0 && (most < Infinity || !uniform || distinct.length > 0)) return null;
  if (distinct.length > 0 && (!uniform || distinct.length > 1)) return null;
  return { items, least, most, contained, refused, distinct: distinct[0] ?? null };
}

function lengthsOf(formula: Formula): number[] {
  return assertionsOf([formula]).flatMap(({ assert }) => (assert.kind === 'length' ? [assert.count] : []));
}
