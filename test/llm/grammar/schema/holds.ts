import type { Assert, Formula, ItemSource, MemberSource } from '../../../../llm/grammar/json/formula.ts';
import type { Json } from '../../../../llm/grammar/json/algebra.ts';
import type { Decimal } from '../../../../llm/grammar/json/decimal.ts';
import { decimal } from '../../../../llm/grammar/json/decimal.ts';
import { DEAD, NONE, type Language } from '../../../../llm/grammar/text/language.ts';

/** Whether a value satisfies a formula, straight from the meaning of each: no derivatives, no memory. */
export function holds(formula: Formula, value: Json): boolean {
  switch (formula.kind) {
    case 'true':
    case 'false':
      return formula.kind === 'true';
    case 'not':
      return !holds(formula.of, value);
    case 'and':
      return formula.of.every((part) => holds(part, value));
    case 'or':
      return formula.of.some((part) => holds(part, value));
    case 'one':
      return formula.of.filter((part) => holds(part, value)).length === 1;
    case 'later':
      return holds(formula.formula(), value);
    case 'assertion':
      return asserted(formula.assert, value);
  }
}

function asserted(assert: Assert, value: Json): boolean {
  if (assert.kind === 'type') return typeOf(value) === assert.type;
  if (typeof value === 'boolean') return assert.kind !== 'truth' || value;
  if (typeof value === 'number') return assert.kind !== 'number' || number(assert.test, decimal(value));
  if (typeof value === 'string') return assert.kind !== 'text' || within(assert.language, value);
  if (Array.isArray(value)) return array(assert, value as readonly Json[]);
  return value === null || object(assert, value as Readonly<Record<string, Json>>);
}

export function typeOf(value: Json): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}

function number(test: Extract<Assert, { kind: 'number' }>['test'], value: Decimal): boolean {
  switch (test.kind) {
    case 'below': {
      const [a, b] = aligned(value, test.bound);
      return a < b || (test.inclusive && a === b);
    }
    case 'multiple': {
      const [a, b] = aligned(value, test.of);
      return a % b === 0n;
    }
    case 'among':
      return test.values.some(({ digits, exponent }) => digits === value.digits && exponent === value.exponent);
  }
}

/** Both as multiples of the same power of ten. */
function aligned(a: Decimal, b: Decimal): [bigint, bigint] {
  const least = Math.min(a.exponent, b.exponent);
  return [a.digits * 10n ** BigInt(a.exponent - least), b.digits * 10n ** BigInt(b.exponent - least)];
}

export function within(language: Language, text: string): boolean {
  let state = language.start;
  for (const character of text) {
    if (state === DEAD) return false;
    state = language.step(state, character.codePointAt(0)!);
  }
  return state !== DEAD && language.label(state) !== NONE;
}

function array(assert: Assert, value: readonly Json[]): boolean {
  switch (assert.kind) {
    case 'items':
      return value.every((item, index) => holds(assert.prefix[index] ?? assert.rest, item));
    case 'contains':
      return value.filter((item) => holds(assert.item, item)).length >= assert.count;
    case 'length':
      return value.length >= assert.count;
    case 'distinct':
      return assert.values.every((formula) => value.filter((item) => holds(formula, item)).length <= 1);
    case 'differentTexts': {
      const texts = value.filter((item) => typeof item === 'string');
      return new Set(texts).size === texts.length;
    }
    case 'unevaluatedItems':
      return value.every(
        (item, index) =>
          assert.sources.some(
            ({ when, prefix, contains }: ItemSource) =>
              holds(when, value) && (index < prefix || (contains !== null && holds(contains, item))),
          ) || holds(assert.item, item),
      );
    default:
      return true;
  }
}

function object(assert: Assert, value: Readonly<Record<string, Json>>): boolean {
  const entries = Object.entries(value);
  switch (assert.kind) {
    case 'members':
      return entries.every(([key, member]) => {
        const named = assert.names.get(key);
        const matching = assert.patterns.filter(({ language }) => within(language, key));
        if (!named && matching.length === 0) return holds(assert.rest, member);
        return (!named || holds(named, member)) && matching.every((pattern) => holds(pattern.value, member));
      });
    case 'required':
      return Object.hasOwn(value, assert.name);
    case 'size':
      return entries.length >= assert.count;
    case 'keys':
      return entries.every(([key]) => within(assert.language, key));
    case 'unevaluatedMembers':
      return entries.every(
        ([key, member]) =>
          assert.sources.some(
            ({ when, all, names, patterns }: MemberSource) =>
              (all || names.has(key) || patterns.some((language) => within(language, key))) && holds(when, value),
          ) || holds(assert.value, member),
      );
    default:
      return true;
  }
}
