import { Interned } from '../automaton.ts';
import { finite } from '../text/finite.ts';
import type { Language } from '../text/language.ts';
import { words } from '../text/words.ts';
import type { Algebra } from './algebra.ts';
import type { Assert, Assertion, Formula, Several, Type } from './formula.ts';
import { Overlaps } from './overlap.ts';

/** A language of so few keys stands for them. */
const FEW = 1024;

/** So many names are left out of what is asked of members as these come. */
const MANY = 64;

/** To which type the assertions of a kind speak. */
const TYPES: Readonly<Record<Assert['kind'], Type | null>> = {
  type: null,
  truth: 'boolean',
  number: 'number',
  text: 'string',
  items: 'array',
  contains: 'array',
  length: 'array',
  distinct: 'array',
  differentTexts: 'array',
  unevaluatedItems: 'array',
  members: 'object',
  required: 'object',
  size: 'object',
  keys: 'object',
  unevaluatedMembers: 'object',
  child: null,
};

/** Assertions that an array or object has not met where it ends with them open. */
const UNMET: ReadonlySet<Assert['kind']> = new Set(['contains', 'length', 'required', 'size']);

/** All that a formula can tell of a key: whether it is one of the names that it mentions, and in which languages it is. */
export interface KeyClass {
  /** Equal keys, equal classes, among the classes of one set of names and languages. */
  readonly key: string;
  readonly name: string | null;
  /** By `Language.key`. */
  readonly within: ReadonlySet<string>;
}

/** Names and languages that tell keys apart. */
export interface KeyAlphabet {
  readonly id: number;
  readonly names: readonly string[];
  /** The names as a language, each labelled by its place. */
  readonly named: Language;
  readonly languages: readonly Language[];
}

/** Of formulas that the child being read may satisfy: whether it does. */
export type Truths = ReadonlyMap<Formula, boolean>;

const NOTHING: Truths = new Map();

/** Formulas of a value → formulas of what is left of it after its type, an element, a member, its end. */
export class Derivatives {
  readonly algebra: Algebra;
  private readonly restricted = new Map<number, Map<Type, Formula>>();
  private readonly elements = new Map<number, Formula>();
  private readonly byMember = new Map<string, Map<number, Formula>>();
  private readonly closed = new Map<number, boolean>();
  private readonly found = new Map<number, readonly Formula[]>();
  private readonly alphabets = new Interned<KeyAlphabet>();
  private readonly overlaps = new Overlaps();

  constructor(algebra: Algebra) {
    this.algebra = algebra;
  }

  /** Of a value of this type: what other types are asked for is gone, and references are followed. */
  restrict(formula: Formula, type: Type): Formula {
    const { yes, no } = this.algebra;
    let byType = this.restricted.get(formula.id);
    if (!byType) this.restricted.set(formula.id, (byType = new Map()));
    let result = byType.get(type);
    if (!result) {
      if (formula.kind === 'later') result = this.restrict(formula.formula(), type);
      else if (formula.kind === 'one') result = this.one(formula, type);
      else if (formula.kind !== 'assertion') result = this.algebra.over(formula, (part) => this.restrict(part, type));
      else if (formula.assert.kind === 'type') result = formula.assert.type === type ? yes : no;
      else if (TYPES[formula.assert.kind] !== type) result = yes;
      else result = this.whens(formula, (when) => this.restrict(when, type));
      byType.set(type, result);
    }
    return result;
  }

  /** Of formulas that no value satisfies together exactly one holds where any does. */
  private one({ of }: Several, type: Type): Formula {
    const { algebra } = this;
    const groups = this.overlaps.groups(
      of.map((part) => this.restrict(part, type)),
      type,
    );
    return algebra.or(...groups.map((group) => algebra.one(...group)));
  }

  /** Of an array, after one more element, of which `child` assertions speak. */
  element(formula: Formula): Formula {
    let result = this.elements.get(formula.id);
    if (!result) {
      result =
        formula.kind === 'assertion'
          ? this.elementOf(formula)
          : this.algebra.over(formula, (part) => this.element(part));
      this.elements.set(formula.id, result);
    }
    return result;
  }

  private elementOf(assertion: Assertion): Formula {
    const { algebra } = this;
    const { assert } = assertion;
    switch (assert.kind) {
      case 'items':
        return algebra.and(
          algebra.child(assert.prefix[0] ?? assert.rest),
          algebra.items(assert.prefix.slice(1), assert.rest),
        );
      case 'contains': {
        const counted = algebra.and(algebra.child(assert.item), algebra.contains(assert.item, assert.count - 1));
        return algebra.or(counted, assertion);
      }
      case 'length':
        return algebra.length(assert.count - 1);
      case 'distinct': {
        const others = assert.values.map((value) => algebra.not(algebra.child(value)));
        const free = assert.values.filter((value) => !assert.taken.includes(value));
        return algebra.or(
          ...free.map((value) =>
            algebra.and(algebra.child(value), algebra.distinct(assert.values, [...assert.taken, value])),
          ),
          algebra.and(...others, assertion),
        );
      }
      case 'differentTexts':
        return assertion;
      case 'unevaluatedItems': {
        const covered = assert.sources.map(({ when, prefix, contains }) => {
          const here = prefix > 0 ? algebra.yes : contains ? algebra.child(contains) : algebra.no;
          return here === algebra.no ? here : algebra.and(this.element(when), here);
        });
        const sources = assert.sources.map((source) => ({
          ...source,
          when: this.element(source.when),
          prefix: Math.max(0, source.prefix - 1),
        }));
        return algebra.and(
          algebra.or(algebra.child(assert.item), ...covered),
          algebra.unevaluatedItems(assert.item, sources),
        );
      }
      default:
        throw new Error(`[grammar] an array was asked for ${assert.kind}`);
    }
  }

  /** Of an object, after one more member with such a key; of its value `child` assertions speak. */
  member(formula: Formula, key: KeyClass): Formula {
    let memo = this.byMember.get(key.key);
    if (!memo) this.byMember.set(key.key, (memo = new Map()));
    let result = memo.get(formula.id);
    if (!result) {
      result =
        formula.kind === 'assertion'
          ? this.memberOf(formula, key)
          : this.algebra.over(formula, (part) => this.member(part, key));
      memo.set(formula.id, result);
    }
    return result;
  }

  private memberOf(assertion: Assertion, key: KeyClass): Formula {
    const { algebra } = this;
    const { assert } = assertion;
    switch (assert.kind) {
      case 'members': {
        const named = key.name === null ? undefined : assert.names.get(key.name);
        const matched = assert.patterns.filter(({ language }) => key.within.has(language.key));
        const values = [...(named ? [named] : []), ...matched.map(({ value }) => value)];
        const value = values.length > 0 ? algebra.and(...values) : assert.rest;
        return algebra.and(algebra.child(value), assertion);
      }
      case 'required':
        return key.name === assert.name ? algebra.yes : assertion;
      case 'size':
        return algebra.size(assert.count - 1);
      case 'keys':
        return key.within.has(assert.language.key) ? assertion : algebra.no;
      case 'unevaluatedMembers': {
        const sources = assert.sources.map((source) => ({ ...source, when: this.member(source.when, key) }));
        const covered = sources.filter(
          ({ all, names, patterns }) =>
            all ||
            (key.name !== null && names.has(key.name)) ||
            patterns.some((language) => key.within.has(language.key)),
        );
        return algebra.and(
          algebra.or(algebra.child(assert.value), ...covered.map(({ when }) => when)),
          algebra.unevaluatedMembers(assert.value, sources),
        );
      }
      default:
        throw new Error(`[grammar] an object was asked for ${assert.kind}`);
    }
  }

  /** Of an object of which it is known whether members with these names will come. */
  given(formula: Formula, names: ReadonlyMap<string, boolean>): Formula {
    if (formula.kind !== 'assertion') return this.algebra.over(formula, (part) => this.given(part, names));
    const coming = formula.assert.kind === 'required' ? names.get(formula.assert.name) : undefined;
    if (coming !== undefined) return coming ? this.algebra.yes : this.algebra.no;
    return this.whens(formula, (when) => this.given(when, names));
  }

  /** Of an object of which no further member will have one of these names: assertions on them alone are decided. */
  settle(formula: Formula, taken: ReadonlySet<string>): Formula {
    const { algebra } = this;
    if (taken.size === 0) return formula;
    if (formula.kind !== 'assertion') return algebra.over(formula, (part) => this.settle(part, taken));
    const { assert } = formula;
    if (assert.kind === 'required') return taken.has(assert.name) ? algebra.no : formula;
    if (assert.kind !== 'members') return this.whens(formula, (when) => this.settle(when, taken));
    // Of many names, leaving one out after the other takes longer than it spares.
    if (assert.names.size > MANY) return formula;
    const names = [...assert.names].filter(([name]) => !taken.has(name));
    return names.length === assert.names.size ? formula : algebra.members(new Map(names), assert.patterns, assert.rest);
  }

  /** Of an array or object that ends here. */
  close(formula: Formula): boolean {
    if (formula === this.algebra.yes || formula === this.algebra.no) return formula === this.algebra.yes;
    let result = this.closed.get(formula.id);
    if (result === undefined) {
      if (formula.kind === 'assertion') result = !UNMET.has(formula.assert.kind);
      else if (formula.kind === 'not') result = !this.close(formula.of);
      else if (!('of' in formula)) throw new Error('[grammar] a reference was closed');
      else {
        const holding = formula.of.filter((part) => this.close(part)).length;
        const needed = { and: holding === formula.of.length, or: holding > 0, one: holding === 1 };
        result = needed[formula.kind];
      }
      this.closed.set(formula.id, result);
    }
    return result;
  }

  /** What is asked of the child that is being read, each once, in the order in which it stands there. */
  children(formula: Formula): readonly Formula[] {
    let result = this.found.get(formula.id);
    if (!result) {
      const values = new Set<Formula>();
      const see = (part: Formula): void => this.children(part).forEach((value) => values.add(value));
      if (formula.kind === 'not') see(formula.of);
      else if ('of' in formula) formula.of.forEach(see);
      else if (formula.kind === 'assertion') {
        const { assert } = formula;
        if (assert.kind === 'child') values.add(assert.value);
        // What is still to be decided of the whole may hang on this child as well.
        if (assert.kind === 'unevaluatedMembers' || assert.kind === 'unevaluatedItems') {
          for (const { when } of assert.sources) see(when);
        }
      }
      result = [...values];
      this.found.set(formula.id, result);
    }
    return result;
  }

  /** After the child has been read, and its value satisfies some formulas and others not. */
  decide(formula: Formula, truths: Truths): Formula {
    if (!this.children(formula).some((value) => truths.has(value))) return formula;
    if (formula.kind !== 'assertion') return this.algebra.over(formula, (part) => this.decide(part, truths));
    if (formula.assert.kind === 'child') return truths.get(formula.assert.value) ? this.algebra.yes : this.algebra.no;
    return this.whens(formula, (when) => this.decide(when, truths));
  }

  /** What a formula that holds says of the child: whatever else is true, these are so. */
  demands(formula: Formula): Truths {
    const inner = formula.kind === 'not' ? formula.of : formula;
    if (inner.kind === 'assertion' && inner.assert.kind === 'child') {
      return new Map([[inner.assert.value, inner === formula]]);
    }
    if (formula.kind === 'and') return new Map(formula.of.flatMap((part) => [...this.demands(part)]));
    if (formula.kind !== 'or') return NOTHING;
    let common = [...this.demands(formula.of[0]!)];
    for (const part of formula.of.slice(1)) {
      if (common.length === 0) break;
      const others = this.demands(part);
      common = common.filter(([value, truth]) => others.get(value) === truth);
    }
    return new Map(common);
  }

  /**
   * Formulas of which one holds where this one does. A conjunction with one disjunction among what is asked of the child
   * is taken apart by that: what comes of each can be looked at alone.
   */
  alternatives(formula: Formula): readonly Formula[] {
    if (formula.kind === 'or') return formula.of;
    if (formula.kind !== 'and') return [formula];
    const open = formula.of.filter((part) => this.children(part).length > 0 && !isChild(part));
    const [only] = open;
    if (open.length !== 1 || only!.kind !== 'or') return [formula];
    const rest = this.algebra.and(...formula.of.filter((part) => part !== only));
    return only!.of.map((part) => this.algebra.and(rest, part));
  }

  /**
   * What follows from the formula, or what it follows from (`highest` or not), whatever is true of the child: each of its
   * assertions taken as the one or the other.
   */
  bound(formula: Formula, highest: boolean): Formula {
    const { algebra } = this;
    if (this.children(formula).length === 0) return formula;
    if (formula.kind === 'assertion') {
      if (formula.assert.kind === 'child') return highest ? algebra.yes : algebra.no;
      return this.whens(formula, (when) => this.bound(when, highest));
    }
    if (formula.kind === 'not') return algebra.not(this.bound(formula.of, !highest));
    if (formula.kind !== 'one') return algebra.over(formula, (part) => this.bound(part, highest));
    const known = algebra.one(...formula.of.filter((part) => this.children(part).length === 0));
    const others = formula.of.filter((part) => this.children(part).length > 0).map((part) => this.bound(part, true));
    return highest ? algebra.or(known, ...others) : algebra.and(known, ...others.map((part) => algebra.not(part)));
  }

  /** An assertion whose sources hang on formulas of the whole value, with these replaced; others are themselves. */
  private whens(assertion: Assertion, replace: (when: Formula) => Formula): Formula {
    const { assert } = assertion;
    if (assert.kind === 'unevaluatedMembers') {
      const sources = assert.sources.map((source) => ({ ...source, when: replace(source.when) }));
      return this.algebra.unevaluatedMembers(assert.value, sources);
    }
    if (assert.kind === 'unevaluatedItems') {
      const sources = assert.sources.map((source) => ({ ...source, when: replace(source.when) }));
      return this.algebra.unevaluatedItems(assert.item, sources);
    }
    return assertion;
  }

  /** The names and languages by which these formulas of objects tell keys apart. */
  alphabet(formulas: readonly Formula[]): KeyAlphabet {
    return this.alphabets.get(formulas.map(({ id }) => id).join(' '), () => {
      const names = new Set<string>();
      const languages = new Map<string, Language>();
      const see = (formula: Formula): void =>
        visit(formula, ({ assert }) => {
          if (assert.kind === 'members') {
            for (const name of assert.names.keys()) names.add(name);
            for (const { language } of assert.patterns) languages.set(language.key, language);
          } else if (assert.kind === 'required') names.add(assert.name);
          else if (assert.kind === 'keys') languages.set(assert.language.key, assert.language);
          else if (assert.kind === 'unevaluatedMembers') {
            for (const source of assert.sources) {
              for (const name of source.names) names.add(name);
              for (const language of source.patterns) languages.set(language.key, language);
              see(source.when);
            }
          }
        });
      formulas.forEach(see);
      // Few keys are told apart one by one, so that it is known when they are used up.
      for (const language of languages.values()) {
        for (const name of finite(language, language.start, FEW) ?? []) names.add(name);
      }
      return {
        id: this.alphabets.size,
        names: [...names],
        named: words([...names]),
        languages: [...languages.values()],
      };
    });
  }
}

/** Whether a formula says of the child alone what it satisfies, or does not. */
function isChild(formula: Formula): boolean {
  const inner = formula.kind === 'not' ? formula.of : formula;
  return inner.kind === 'assertion' && inner.assert.kind === 'child';
}

/** Calls `see` for every assertion of a formula without references, once each. */
function visit(formula: Formula, see: (assertion: Assertion) => void, seen = new Set<number>()): void {
  if (seen.has(formula.id)) return;
  seen.add(formula.id);
  if (formula.kind === 'assertion') see(formula);
  else if (formula.kind === 'not') visit(formula.of, see, seen);
  else if ('of' in formula) formula.of.forEach((part) => visit(part, see, seen));
}
