import type { Assert, Formula, Type } from './formula.ts';

const TYPES: readonly Type[] = ['null', 'boolean', 'number', 'string', 'array', 'object'];

/** Scalars, a text for each. */
type Values = ReadonlySet<string>;

const ANY = null;
const NO_VALUE: Values = new Set();
const [TRUE, FALSE]: readonly Values[] = [new Set(['true']), new Set(['false'])];
/** Of types that have few values. */
const EVERY: ReadonlyMap<Type, Values> = new Map([
  ['null', new Set(['null'])],
  ['boolean', new Set(['true', 'false'])],
]);

/** What a formula of objects says of members: those that must come, and what all may be. */
interface Members {
  readonly required: readonly string[];
  readonly asserted: readonly Extract<Assert, { kind: 'members' }>[];
  /** The values that a member may have, as far as they have been asked for. */
  readonly values: Map<string, Values | null>;
}

/**
 * Which formulas no value satisfies together, as far as that is plain to see: scalars by the values that they list, objects
 * by a member that one of them asks for and the other refuses, or admits other values of. So the kinds of a `oneOf` are told
 * apart by their discriminator once, and not at every byte.
 */
export class Overlaps {
  private readonly found = new Map<Formula, Values | null>();

  /** Formulas of values of one type, those together that may hold together: of two groups never. */
  groups(formulas: readonly Formula[], type: Type): readonly (readonly Formula[])[] {
    const sides = formulas.map((formula) => ({ members: membersOf(formula), values: valuesOf(formula, type) }));
    const group = formulas.map((_, i) => i);
    const find = (i: number): number => (group[i] === i ? i : (group[i] = find(group[i]!)));
    for (let i = 0; i < sides.length; i += 1) {
      for (let j = 0; j < i; j += 1) {
        if (find(i) === find(j)) continue;
        const [one, other] = [sides[i]!, sides[j]!];
        const apart =
          disjoint(one.values, other.values) ||
          this.refuses(one.members, other.members) ||
          this.refuses(other.members, one.members);
        if (!apart) group[find(i)] = find(j);
      }
    }
    const groups = new Map<number, Formula[]>();
    formulas.forEach((formula, i) => {
      const together = groups.get(find(i));
      if (together) together.push(formula);
      else groups.set(find(i), [formula]);
    });
    return [...groups.values()];
  }

  /** Whether a member that objects of the second kind must have is in none of the first. */
  private refuses(one: Members, other: Members): boolean {
    return other.required.some((name) => {
      const here = this.member(one, name);
      return here !== ANY && (here.size === 0 || disjoint(here, this.member(other, name)));
    });
  }

  /** The values that a member may have. */
  private member({ asserted, values }: Members, name: string): Values | null {
    let found = values.get(name);
    if (found === undefined) {
      const each = asserted.map(({ names, patterns, rest }) => {
        const value = names.get(name) ?? (patterns.length === 0 ? rest : null);
        return value && this.scalars(value);
      });
      values.set(name, (found = each.reduce<Values | null>(both, ANY)));
    }
    return found;
  }

  /** The values among which all are that satisfy a formula, where it lists them; null where it may be any. */
  private scalars(formula: Formula): Values | null {
    let found = this.found.get(formula);
    if (found === undefined) {
      found = TYPES.map((type) => valuesOf(formula, type)).reduce(either);
      this.found.set(formula, found);
    }
    return found;
  }
}

/** The values of a type among which all are that satisfy a formula, where it lists them. */
function valuesOf(formula: Formula, type: Type): Values | null {
  const of = (part: Formula): Values | null => valuesOf(part, type);
  switch (formula.kind) {
    case 'later':
      return of(formula.formula());
    case 'true':
      return EVERY.get(type) ?? ANY;
    case 'false':
      return NO_VALUE;
    case 'and':
      return formula.of.map(of).reduce(both);
    case 'or':
    case 'one':
      return formula.of.map(of).reduce(either);
    case 'not': {
      const assert = formula.of.kind === 'assertion' ? formula.of.assert : null;
      if (assert?.kind === 'type' && assert.type === type) return NO_VALUE;
      return assert?.kind === 'truth' && type === 'boolean' ? FALSE : (EVERY.get(type) ?? ANY);
    }
    case 'assertion':
      return asserted(formula.assert, type) ?? EVERY.get(type) ?? ANY;
  }
}

function asserted(assert: Assert, type: Type): Values | null {
  if (assert.kind === 'type' && assert.type !== type) return NO_VALUE;
  if (assert.kind === 'truth' && type === 'boolean') return TRUE;
  if (assert.kind === 'text' && type === 'string' && assert.language.texts) {
    return new Set([...assert.language.texts.keys()].map((text) => JSON.stringify(text)));
  }
  if (assert.kind !== 'number' || type !== 'number' || assert.test.kind !== 'among') return ANY;
  return new Set(assert.test.values.map(({ digits, exponent }) => `${digits}e${exponent}`));
}

function both(one: Values | null, other: Values | null): Values | null {
  if (one === ANY || other === ANY) return one ?? other;
  return new Set([...one].filter((value) => other.has(value)));
}

function either(one: Values | null, other: Values | null): Values | null {
  return one === ANY || other === ANY ? ANY : new Set([...one, ...other]);
}

function disjoint(one: Values | null, other: Values | null): boolean {
  if (one === ANY || other === ANY) return false;
  const [few, many] = one.size < other.size ? [one, other] : [other, one];
  for (const value of few) if (many.has(value)) return false;
  return true;
}

function membersOf(formula: Formula): Members {
  const required: string[] = [];
  const asserted: Members['asserted'][number][] = [];
  for (const part of formula.kind === 'and' ? formula.of : [formula]) {
    if (part.kind !== 'assertion') continue;
    if (part.assert.kind === 'required') required.push(part.assert.name);
    else if (part.assert.kind === 'members') asserted.push(part.assert);
  }
  return { required, asserted, values: new Map() };
}
