import { Interned } from '../automaton.ts';
import type { Language } from '../text/language.ts';
import { words } from '../text/words.ts';
import { decimal } from './decimal.ts';
import type {
  Assert,
  Assertion,
  Constant,
  Formula,
  ItemSource,
  Later,
  MemberSource,
  Not,
  Several,
  Type,
} from './formula.ts';
import type { NumberTest } from './number.ts';

/** A JSON value as JavaScript has it. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Makes formulas: equal ones are the same object, and what constants decide is decided at once. */
export class Algebra {
  readonly yes: Constant = { id: 0, kind: 'true' };
  readonly no: Constant = { id: 1, kind: 'false' };
  private readonly formulas = new Interned<Formula>();
  private readonly negations = new Map<number, Formula>();
  private ids = 2;

  private intern<T extends Formula>(key: string, make: (id: number) => T): T {
    return this.formulas.get(key, () => make(this.ids++)) as T;
  }

  /** Of conjunctions and disjunctions those of their parts (De Morgan's laws), so that it is seen what is asked in common. */
  not(formula: Formula): Formula {
    if (formula.kind === 'true') return this.no;
    if (formula.kind === 'false') return this.yes;
    if (formula.kind === 'not') return formula.of;
    let negation = this.negations.get(formula.id);
    if (!negation) {
      if (formula.kind === 'and') negation = this.or(...formula.of.map((part) => this.not(part)));
      else if (formula.kind === 'or') negation = this.and(...formula.of.map((part) => this.not(part)));
      else negation = this.intern<Not>(`! ${formula.id}`, (id) => ({ id, kind: 'not', of: formula }));
      this.negations.set(formula.id, negation);
      this.negations.set(negation.id, formula);
    }
    return negation;
  }

  and(...formulas: readonly Formula[]): Formula {
    return this.join('and', formulas, this.yes, this.no);
  }

  or(...formulas: readonly Formula[]): Formula {
    return this.join('or', formulas, this.no, this.yes);
  }

  /** `neutral` changes nothing, `absorbing` decides; a formula beside its negation decides as well. */
  private join(kind: 'and' | 'or', formulas: readonly Formula[], neutral: Constant, absorbing: Constant): Formula {
    const parts = new Map<number, Formula>();
    const add = (formula: Formula): void => {
      if (formula.kind === kind) formula.of.forEach(add);
      else if (formula !== neutral) parts.set(formula.id, formula);
    };
    formulas.forEach(add);
    if (parts.has(absorbing.id)) return absorbing;
    for (const { id } of parts.values()) if (parts.has(this.negations.get(id)?.id ?? -1)) return absorbing;
    if (parts.size === 0) return neutral;
    const of = [...parts.values()].sort((a, b) => a.id - b.id);
    if (of.length === 1) return of[0]!;
    return this.intern<Several>(`${kind} ${of.map((part) => part.id).join(' ')}`, (id) => ({ id, kind, of }));
  }

  /** Exactly one of them (the same one twice counts twice). */
  one(...formulas: readonly Formula[]): Formula {
    const of = formulas.filter((formula) => formula.kind !== 'false').sort((a, b) => a.id - b.id);
    const sure = of.filter((formula) => formula.kind === 'true').length;
    const open = of.filter((formula) => formula.kind !== 'true');
    if (sure > 1) return this.no;
    if (sure === 1) return this.and(...open.map((formula) => this.not(formula)));
    if (open.length === 0) return this.no;
    if (open.length === 1) return open[0]!;
    if (open.length === 2 && open[0] === open[1]) return this.no;
    return this.intern<Several>(`one ${open.map((part) => part.id).join(' ')}`, (id) => ({
      id,
      kind: 'one',
      of: open,
    }));
  }

  /** A formula made on demand; `name` says which, so that it may be asked for again and again. */
  later(name: string, formula: () => Formula): Formula {
    return this.intern<Later>(`later ${name}`, (id) => ({ id, kind: 'later', name, formula }));
  }

  private assert(key: string, assert: Assert): Formula {
    return this.intern<Assertion>(`${assert.kind} ${key}`, (id) => ({ id, kind: 'assertion', assert }));
  }

  type(type: Type): Formula {
    return this.assert(type, { kind: 'type', type });
  }

  truth(): Formula {
    return this.assert('', { kind: 'truth' });
  }

  number(test: NumberTest): Formula {
    const key = JSON.stringify(test, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value));
    return this.assert(key, { kind: 'number', test });
  }

  text(language: Language): Formula {
    return this.assert(language.key, { kind: 'text', language });
  }

  items(prefix: readonly Formula[], rest: Formula): Formula {
    let length = prefix.length;
    while (length > 0 && prefix[length - 1] === rest) length -= 1;
    if (length === 0 && rest === this.yes) return this.yes;
    const kept = prefix.slice(0, length);
    return this.assert(`${kept.map((item) => item.id).join(' ')} ; ${rest.id}`, { kind: 'items', prefix: kept, rest });
  }

  contains(item: Formula, count: number): Formula {
    if (count <= 0) return this.yes;
    if (item === this.yes) return this.length(count);
    return this.assert(`${item.id} ${count}`, { kind: 'contains', item, count });
  }

  length(count: number): Formula {
    return count <= 0 ? this.yes : this.assert(String(count), { kind: 'length', count });
  }

  /** `uniqueItems` where elements can only be `values` (formulas made by `equal`), of which `taken` were met. */
  distinct(values: readonly Formula[], met: readonly Formula[] = []): Formula {
    const taken = [...met].sort((a, b) => a.id - b.id);
    const key = [values, taken].map((formulas) => formulas.map(({ id }) => id).join(' ')).join(' ; ');
    return this.assert(key, { kind: 'distinct', values, taken });
  }

  /** `uniqueItems` where elements are texts, as far as it says something about these. */
  differentTexts(place: string): Formula {
    return this.assert(place, { kind: 'differentTexts', place });
  }

  unevaluatedItems(item: Formula, sources: readonly ItemSource[]): Formula {
    if (item === this.yes) return this.yes;
    const key = sources.map(({ when, prefix, contains }) => `${when.id} ${prefix} ${contains?.id}`);
    return this.assert([item.id, ...key].join(' ; '), { kind: 'unevaluatedItems', item, sources });
  }

  members(
    names: ReadonlyMap<string, Formula>,
    patterns: readonly { readonly language: Language; readonly value: Formula }[],
    rest: Formula,
  ): Formula {
    const unsaid = patterns.length === 0 && rest === this.yes;
    if (unsaid && [...names.values()].every((formula) => formula === this.yes)) return this.yes;
    const key = [
      ...[...names].map(([name, formula]) => `${JSON.stringify(name)} ${formula.id}`),
      ...patterns.map(({ language, value }) => `/${language.key}/ ${value.id}`),
      rest.id,
    ];
    return this.assert(key.join(' ; '), { kind: 'members', names, patterns, rest });
  }

  required(name: string): Formula {
    return this.assert(JSON.stringify(name), { kind: 'required', name });
  }

  size(count: number): Formula {
    return count <= 0 ? this.yes : this.assert(String(count), { kind: 'size', count });
  }

  keys(language: Language): Formula {
    return this.assert(language.key, { kind: 'keys', language });
  }

  unevaluatedMembers(value: Formula, sources: readonly MemberSource[]): Formula {
    if (value === this.yes) return this.yes;
    const key = sources.map(
      ({ when, all, names, patterns }) =>
        `${when.id} ${all} ${JSON.stringify([...names])} ${patterns.map((language) => language.key).join(' ')}`,
    );
    return this.assert([value.id, ...key].join(' ; '), { kind: 'unevaluatedMembers', value, sources });
  }

  /** That the child now being read satisfies `value`. */
  child(value: Formula): Formula {
    if (value.kind === 'true' || value.kind === 'false') return value;
    return this.assert(String(value.id), { kind: 'child', value });
  }

  /** The formula with its parts replaced, one level deep, as far as that matters; a formula without parts is itself. */
  over(formula: Formula, replace: (part: Formula) => Formula): Formula {
    if (formula.kind === 'not') return this.not(replace(formula.of));
    if (!('of' in formula)) return formula;
    const absorbing = formula.kind === 'and' ? this.no : formula.kind === 'or' ? this.yes : null;
    const parts: Formula[] = [];
    for (const part of formula.of) {
      const other = replace(part);
      if (other === absorbing) return other;
      parts.push(other);
    }
    return this[formula.kind](...parts);
  }

  /** Exactly this value: numbers by what they are worth, objects whatever the order of their members. */
  equal(value: Json): Formula {
    return this.among([value]);
  }

  /** One of these values. */
  among(values: readonly Json[]): Formula {
    const texts = values.filter((value) => typeof value === 'string');
    const numbers = values.filter((value) => typeof value === 'number').map((value) => decimal(value));
    const any = values.flatMap((value): Formula[] => {
      if (value === null) return [this.type('null')];
      if (typeof value === 'boolean') {
        return [this.and(this.type('boolean'), value ? this.truth() : this.not(this.truth()))];
      }
      if (Array.isArray(value)) {
        const items = (value as readonly Json[]).map((item) => this.equal(item));
        return [this.and(this.type('array'), this.items(items, this.no), this.length(items.length))];
      }
      if (typeof value !== 'object') return [];
      const members = Object.entries(value).map(([name, member]): [string, Formula] => [name, this.equal(member)]);
      const required = members.map(([name]) => this.required(name));
      return [this.and(this.type('object'), this.members(new Map(members), [], this.no), ...required)];
    });
    if (texts.length > 0) any.push(this.and(this.type('string'), this.text(words(texts))));
    if (numbers.length > 0) any.push(this.and(this.type('number'), this.number({ kind: 'among', values: numbers })));
    return this.or(...any);
  }
}
