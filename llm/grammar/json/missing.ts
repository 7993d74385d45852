import type { Formula } from './formula.ts';

/** A guess at the bytes of a member besides its key: were it less, many members would be tried in every order. */
const MEMBER = 16;

/** About how many bytes the members take that an object must have yet to satisfy the formula. */
export function missing(formula: Formula): number {
  if (formula.kind === 'and') return formula.of.reduce((sum, part) => sum + missing(part), 0);
  if (formula.kind === 'or') return Math.min(...formula.of.map(missing));
  if (formula.kind !== 'assertion' || formula.assert.kind !== 'required') return 0;
  return JSON.stringify(formula.assert.name).length + MEMBER;
}
