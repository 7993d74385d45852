import type { Algebra } from '../json/algebra.ts';
import { Derivatives } from '../json/derive.ts';
import type { Assert, Formula } from '../json/formula.ts';
import { Satisfiability } from '../json/satisfy.ts';
import { unsupported } from './errors.ts';

/**
 * Refuses `uniqueItems` over texts that is not asked of an array in any case: the texts that an array has are kept beside its
 * formula, so that none of its elements may be a text twice, and it cannot be seen at its end whether one is.
 */
export function refuseUncertain(algebra: Algebra, formula: Formula): void {
  const satisfiable = new Satisfiability(new Derivatives(algebra));
  const { derivatives } = satisfiable;
  const seen = { sure: new Set<Formula>(), unsure: new Set<Formula>() };
  const waiting: { readonly formula: Formula; readonly sure: boolean }[] = [];
  const add = (formula: Formula, sure: boolean): void => {
    const before = seen[sure ? 'sure' : 'unsure'];
    if (before.has(formula)) return;
    before.add(formula);
    waiting.push({ formula, sure });
  };
  const look = (part: Formula, sure: boolean): void => {
    if (part.kind === 'assertion') asserted(part.assert, sure);
    else if (part.kind === 'not') look(part.of, false);
    else if ('of' in part) for (const inner of part.of) look(inner, sure && part.kind === 'and');
  };
  const asserted = (assert: Assert, sure: boolean): void => {
    switch (assert.kind) {
      case 'differentTexts':
        if (!sure)
          throw unsupported(assert.place, 'uniqueItems', 'over texts is not followed in alternatives or negated');
        break;
      case 'items':
        for (const item of [...assert.prefix, assert.rest]) add(item, sure);
        break;
      case 'contains':
        add(assert.item, false);
        break;
      case 'members': {
        const { names, patterns, rest } = assert;
        for (const value of [...names.values(), ...patterns.map((pattern) => pattern.value), rest]) add(value, sure);
        break;
      }
      case 'unevaluatedItems':
        add(assert.item, false);
        for (const { when, contains } of assert.sources) {
          look(when, false);
          if (contains) add(contains, false);
        }
        break;
      case 'unevaluatedMembers':
        add(assert.value, false);
        for (const { when } of assert.sources) look(when, false);
        break;
      default:
    }
  };
  add(formula, true);
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const array = derivatives.restrict(next.formula, 'array');
    look(array, next.sure);
    // What cannot be followed of an array that is asked just this.
    if (next.sure) satisfiable.bounded(array);
    look(derivatives.restrict(next.formula, 'object'), next.sure);
  }
}
