import type { Language } from '../text/language.ts';
import type { NumberTest } from './number.ts';

/**
 * What a JSON value must be, as a Boolean formula over assertions. The keywords of JSON Schema become these one by one,
 * `not`, `oneOf` and `if` included, and formulas are interned: equal ones are the same object. Reading a value one member at
 * a time turns its formula into that of what is left, as derivatives do for regular expressions (Brzozowski 1964,
 * "Derivatives of Regular Expressions"), so that negation costs nothing and no alternatives have to be followed side by side.
 */
export type Formula = Constant | Not | Several | Later | Assertion;

export type Type = 'null' | 'boolean' | 'number' | 'string' | 'array' | 'object';

export interface Constant {
  readonly id: number;
  readonly kind: 'true' | 'false';
}

export interface Not {
  readonly id: number;
  readonly kind: 'not';
  readonly of: Formula;
}

/** All of them, any of them, exactly one of them. */
export interface Several {
  readonly id: number;
  readonly kind: 'and' | 'or' | 'one';
  readonly of: readonly Formula[];
}

/** A formula that is made when a value meets it: references, which may lead back to where they stand. */
export interface Later {
  readonly id: number;
  readonly kind: 'later';
  readonly name: string;
  readonly formula: () => Formula;
}

/** An assertion on values of one type; values of other types satisfy it, but for `type`. */
export interface Assertion {
  readonly id: number;
  readonly kind: 'assertion';
  readonly assert: Assert;
}

export type Assert =
  | { readonly kind: 'type'; readonly type: Type }
  /** A Boolean that is true. */
  | { readonly kind: 'truth' }
  | { readonly kind: 'number'; readonly test: NumberTest }
  | { readonly kind: 'text'; readonly language: Language }
  /** Element i satisfies prefix[i], those behind it `rest`. */
  | { readonly kind: 'items'; readonly prefix: readonly Formula[]; readonly rest: Formula }
  /** At least so many elements satisfy `item`; `count` 1 or more. `maxContains` is the negation of one more. */
  | { readonly kind: 'contains'; readonly item: Formula; readonly count: number }
  /** An array has at least so many elements. `maxItems` is the negation of one more. */
  | { readonly kind: 'length'; readonly count: number }
  /** No two elements are equal to the same one of `values`, none to one of `taken`, which were met before. */
  | { readonly kind: 'distinct'; readonly values: readonly Formula[]; readonly taken: readonly Formula[] }
  /**
   * No two elements are the same text. Their texts are kept beside the formula, so that it must be among what is asked of an
   * array alone: in no alternative, not negated. `place`: of the schema that says so.
   */
  | { readonly kind: 'differentTexts'; readonly place: string }
  /** Elements that no source covers satisfy `item`. */
  | { readonly kind: 'unevaluatedItems'; readonly item: Formula; readonly sources: readonly ItemSource[] }
  /** A member named so satisfies `names`, one whose key is in a pattern's language that pattern, all others `rest`. */
  | {
      readonly kind: 'members';
      readonly names: ReadonlyMap<string, Formula>;
      readonly patterns: readonly { readonly language: Language; readonly value: Formula }[];
      readonly rest: Formula;
    }
  | { readonly kind: 'required'; readonly name: string }
  /** An object has at least so many members. */
  | { readonly kind: 'size'; readonly count: number }
  /** All keys are in the language. */
  | { readonly kind: 'keys'; readonly language: Language }
  /** Members that no source covers satisfy `value`. */
  | { readonly kind: 'unevaluatedMembers'; readonly value: Formula; readonly sources: readonly MemberSource[] }
  /** Of the member or element that is being read: it satisfies `value`. Only derivatives have these. */
  | { readonly kind: 'child'; readonly value: Formula };

/** Where `when` holds for the whole array, elements before `prefix` are evaluated, and those that satisfy `contains`. */
export interface ItemSource {
  readonly when: Formula;
  /** Infinity: all. */
  readonly prefix: number;
  readonly contains: Formula | null;
}

/** Where `when` holds for the whole object, members with such keys are evaluated. */
export interface MemberSource {
  readonly when: Formula;
  readonly all: boolean;
  readonly names: ReadonlySet<string>;
  readonly patterns: readonly Language[];
}
