import { Unsupported } from '../refusal.ts';
import type { Language } from '../text/language.ts';
import { words } from '../text/words.ts';
import type { Derivatives, KeyAlphabet, KeyClass } from './derive.ts';
import type { Assertion, Formula, Type } from './formula.ts';
import { numbers, type NumberTest } from './number.ts';
import { strings } from './string.ts';

export const TYPES: readonly Type[] = ['null', 'boolean', 'number', 'string', 'array', 'object'];

/** Steps of one search before a schema is refused as too large. */
const STEPS = 100_000;
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

  constructor(derivatives: Derivatives) {
    this.derivatives = derivatives;
  }

  value(formula: Formula): boolean {
    if (formula === this.derivatives.algebra.no) return false;
    return this.search(`value ${formula.id}`, () => TYPES.some((type) => this.typed(formula, type)));
  }

  typed(formula: Formula, type: Type): boolean {
    const { algebra } = this.derivatives;
    const restricted = this.derivatives.restrict(formula, type);
    if (restricted === algebra.yes || restricted === algebra.no) return restricted === algebra.yes;
    if (type === 'array') return this.array(restricted);
    if (type === 'object') return this.object(restricted, NONE_TAKEN);
    return this.search(`${type} ${restricted.id}`, () => {
      const assertions = assertionsOf([restricted]);
      const holds = (truths: readonly boolean[]): boolean =>
        evaluate(restricted, (assertion) => truths[assertions.indexOf(assertion)]!);
      if (type === 'boolean') return holds([true]) || holds([false]);
      if (type === 'number') return numbers(testsOf(assertions), (truths) => (holds(truths) ? 0 : null)) !== null;
      if (type === 'string') {
        const wanted = (labels: readonly number[]): 0 | null => (holds(labels.map((label) => label >= 0)) ? 0 : null);
        return strings(languagesOf(assertions), wanted) !== null;
      }
      return holds([]);
    });
  }

  /** An array whose elements from here on are asked this. */
  array(formula: Formula): boolean {
    return this.search(`array ${formula.id}`, () => {
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

  /** The same with arrays' lengths asked for `by` less. */
  private shift(formula: Formula, by: number): Formula {
    if (formula.kind !== 'assertion') return this.derivatives.algebra.over(formula, (part) => this.shift(part, by));
    return formula.assert.kind === 'length' ? this.derivatives.algebra.length(formula.assert.count - by) : formula;
  }

  /** An object whose further members are asked this; members named `taken` don't come any more. */
  object(formula: Formula, taken: ReadonlySet<string>): boolean {
    const { derivatives } = this;
    if (derivatives.close(formula)) return true;
    if (formula === derivatives.algebra.no) return false;
    if (formula.kind === 'or') return formula.of.some((part) => this.object(part, taken));
    const alphabet = derivatives.alphabet([formula]);
    const gone = alphabet.names.filter((name) => taken.has(name));
    return this.search(`object ${formula.id} ${JSON.stringify(gone)}`, () => {
      const present = (name: string): boolean => {
        const after = derivatives.member(formula, this.named(name, alphabet));
        return this.outcomes(after, derivatives.algebra.yes, (left) => this.object(left, new Set([...gone, name])));
      };
      const demanded = requiredOf(formula);
      if (demanded !== null) return !taken.has(demanded) && present(demanded);
      const name = alphabet.names.find((other) => !taken.has(other));
      if (name !== undefined) {
        return this.object(derivatives.without(formula, name), new Set([...gone, name])) || present(name);
      }
      return this.others(formula, alphabet);
    });
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
    if (formula === algebra.no) return false;
    this.step();
    const [child] = this.derivatives.children(formula);
    if (!child) return this.value(so) && use(formula);
    return [true, false].some((truth) =>
      this.outcomes(
        this.derivatives.decide(formula, child, truth),
        algebra.and(so, truth ? child : algebra.not(child)),
        use,
      ),
    );
  }

  /** A key that is one of the names. */
  named(name: string, { languages }: KeyAlphabet): KeyClass {
    return keyClass(
      name,
      languages.filter((language) => holds(language, name)),
    );
  }

  /** The classes of keys that are none of the names: by the languages in which they are. */
  unnamed(alphabet: KeyAlphabet): readonly KeyClass[] {
    let classes = this.classes.get(alphabet);
    if (!classes) {
      const { names, languages } = alphabet;
      if (languages.length === 0) classes = [keyClass(null, [])];
      else {
        const found = new Map<string, KeyClass>();
        strings([words(names), ...languages], ([name, ...labels]) => {
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
    if (this.open.size === 0) this.steps = 0;
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

/** A name without which an object cannot satisfy the formula, where that is plain to see. */
function requiredOf(formula: Formula): string | null {
  const parts = formula.kind === 'and' ? formula.of : [formula];
  for (const part of parts) if (part.kind === 'assertion' && part.assert.kind === 'required') return part.assert.name;
  return null;
}

function lengthsOf(formula: Formula): number[] {
  return assertionsOf([formula]).flatMap(({ assert }) => (assert.kind === 'length' ? [assert.count] : []));
}
