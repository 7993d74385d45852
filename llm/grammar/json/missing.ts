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

/** The names of these members, each with how many may come before it: in any order, and those of one alternative or of another. */
export function missingNames(formula: Formula): ReadonlyMap<string, number> {
  const names = new Map<string, number>();
  const see = (part: Formula, before: number): number => {
    if (missing(part) === 0) return before;
    if (part.kind === 'and') return part.of.reduce((count, each) => see(each, count), before);
    if (part.kind === 'or') return Math.max(...part.of.map((each) => see(each, before)));
    if (part.kind === 'assertion' && part.assert.kind === 'required' && !names.has(part.assert.name)) {
      names.set(part.assert.name, before);
    }
    return before + 1;
  };
  see(formula, 0);
  return names;
}
