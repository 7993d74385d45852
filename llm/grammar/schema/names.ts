import type { Formula } from '../json/formula.ts';
import { complement, intersect, union } from '../text/combine.ts';
import { none, type Language } from '../text/language.ts';
import { all } from '../text/lengths.ts';

/** The strings that satisfy a formula; `follow` gives the formula of a reference, or throws where there is none yet. */
export function stringsOf(formula: Formula, follow: (name: string) => Formula): Language {
  const of = (part: Formula): Language => stringsOf(part, follow);
  switch (formula.kind) {
    case 'true':
      return all;
    case 'false':
      return none;
    case 'not':
      return complement(of(formula.of));
    case 'and':
      return intersect(...formula.of.map(of));
    case 'or':
      return union(...formula.of.map(of));
    case 'one':
      return exactlyOne(formula.of.map(of));
    case 'later':
      return of(follow(formula.name));
    case 'assertion':
      if (formula.assert.kind === 'type') return formula.assert.type === 'string' ? all : none;
      return formula.assert.kind === 'text' ? formula.assert.language : all;
  }
}

function exactlyOne(languages: readonly Language[]): Language {
  let noneSoFar: Language = all;
  let oneSoFar: Language = none;
  for (const language of languages) {
    const others = complement(language);
    oneSoFar = union(intersect(oneSoFar, others), intersect(noneSoFar, language));
    noneSoFar = intersect(noneSoFar, others);
  }
  return oneSoFar;
}
