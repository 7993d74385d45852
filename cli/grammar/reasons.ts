import type { Stack } from '../../llm/grammar/automaton.ts';
import { document } from '../../llm/grammar/json/value.ts';
import { Unsupported } from '../../llm/grammar/refusal.ts';
import { compile, type SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { SchemaError } from '../../llm/grammar/schema/errors.ts';
import { advanceAll, start } from '../../llm/grammar/stack.ts';
import { clausesOf, type Clause } from './clauses.ts';
import { jsonText } from './json.ts';
import { placeOf } from './place.ts';

/** Whether something may be written, by the stack behind what has been; null: not even that may. */
export type Question = (stack: Stack | null) => boolean;

/** Clauses that together forbid something, none of which could be left out. */
export interface Reason {
  readonly clauses: readonly Clause[];
  /** These, and what the schemas of those ask that are `oneOf`. */
  readonly kept: readonly Clause[];
}

/** The schemas of so many steps up from a place are to blame for it most often: they are asked first. */
const NEAR = [1, 8, 64];
/** A schema is compiled again and again, without some of its clauses: for so many clauses in all, at most. */
const MOST = 500_000;
/** What is thrown where these are too few. */
const TOO_MANY = Symbol('too many');
/** Of what is left of a schema and cannot be followed: it forbids nothing. */
const UNKNOWN = Symbol('unknown');

/** Why documents that begin with `prefix` go on as they do: which clauses of their schema have it so. */
export class Reasons {
  private readonly schema: unknown;
  private readonly options: SchemaOptions;
  private readonly prefix: Uint8Array;
  private readonly clauses: readonly Clause[];
  private readonly numbers: ReadonlyMap<Clause, number>;
  private readonly stacks = new Map<string, Stack | null | typeof UNKNOWN>();
  private compiled = 0;

  constructor(schema: unknown, options: SchemaOptions, prefix: string) {
    // A copy that is changed; structuredClone has no room for deep ones.
    this.schema = JSON.parse(jsonText(schema));
    this.options = options;
    this.prefix = new TextEncoder().encode(prefix);
    this.clauses =
      typeof this.schema !== 'boolean'
        ? clausesOf(this.schema as Readonly<Record<string, unknown>>, options, placeOf(prefix).path)
        : [];
    this.numbers = new Map(this.clauses.map((clause, number) => [clause, number]));
  }

  /**
   * A least set of clauses that forbids what `may` asks for: without the others it is still forbidden, without any of them it
   * is not. Null where no clauses are to blame, or they cannot be told, being too many.
   */
  why(may: Question): Reason | null {
    try {
      if (!this.forbids(this.clauses, may)) return null;
      for (const steps of NEAR) {
        // Without those that are `oneOf`, to which less is more.
        const near = this.clauses.filter(({ distance, over }) => distance <= steps && over === null);
        if (near.length < this.clauses.length && this.forbids(near, may)) return this.least(near, may);
      }
      return this.least(this.clauses, may);
    } catch (error) {
      if (error !== TOO_MANY) throw error;
      return null;
    }
  }

  /** The same of some clauses that forbid it together. Found by halving (Junker 2004, "QuickXplain"). */
  private least(clauses: readonly Clause[], may: Question): Reason | null {
    const forbidden = (kept: readonly Clause[]): boolean => this.forbids(kept, may);
    // First whether several schemas of a `oneOf` are in each other's way: what these ask is then left as it is.
    let ones = clauses.filter(({ over }) => over !== null);
    const others = clauses.filter(({ over }) => over === null);
    for (const one of ones) {
      const fewer = ones.filter((other) => other !== one);
      if (forbidden([...others, ...fewer])) ones = fewer;
    }
    const under = new Set(ones.flatMap(({ over }) => [...over!()]));
    const fixed = [...ones, ...others.filter((clause) => under.has(clause))];
    const open = others.filter((clause) => !under.has(clause));
    if (ones.length === 0 && forbidden([])) return null;
    const halve = (background: readonly Clause[], added: boolean, all: readonly Clause[]): readonly Clause[] => {
      if (added && forbidden(background)) return [];
      if (all.length <= 1) return all;
      const half = all.length >> 1;
      const [first, second] = [all.slice(0, half), all.slice(half)];
      const inSecond = halve([...background, ...first], true, second);
      const inFirst = halve([...background, ...inSecond], inSecond.length > 0, first);
      return [...inFirst, ...inSecond];
    };
    let found = halve(fixed, fixed.length > 0, open);
    // Where to ask less is to ask more, halves may mislead.
    if (!forbidden([...fixed, ...found])) found = open;
    for (let i = 0; i < found.length;) {
      const fewer = found.filter((_, other) => other !== i);
      if (forbidden([...fixed, ...fewer])) [found, i] = [fewer, 0];
      else i += 1;
    }
    return { clauses: [...ones, ...found], kept: [...fixed, ...found] };
  }

  /** Whether a reason is also one for this. */
  explains({ clauses, kept }: Reason, may: Question): boolean {
    const without = (clause: Clause): readonly Clause[] => kept.filter((other) => other !== clause);
    try {
      return this.forbids(kept, may) && clauses.every((clause) => !this.forbids(without(clause), may));
    } catch (error) {
      if (error !== TOO_MANY) throw error;
      return false;
    }
  }

  private forbids(kept: readonly Clause[], may: Question): boolean {
    const stack = this.stack(kept);
    return stack !== UNKNOWN && !may(stack);
  }

  /** The stack behind the prefix where only these clauses are kept. */
  private stack(kept: readonly Clause[]): Stack | null | typeof UNKNOWN {
    const key = kept
      .map((clause) => this.numbers.get(clause)!)
      .sort((a, b) => a - b)
      .join(' ');
    let stack = this.stacks.get(key);
    if (stack === undefined) {
      this.compiled += this.clauses.length;
      if (this.compiled > MOST) throw TOO_MANY;
      const all = new Set(kept);
      const undo = this.clauses.filter((clause) => !all.has(clause)).map((clause) => clause.remove());
      try {
        const { algebra, formula } = compile(this.schema, this.options);
        const grammar = document(algebra, formula, { whitespace: Infinity });
        stack = grammar && advanceAll(start(grammar), this.prefix);
      } catch (error) {
        // What a reference leads to may be gone.
        if (!(error instanceof Unsupported || error instanceof SchemaError)) throw error;
        stack = UNKNOWN;
      } finally {
        undo.reverse().forEach((undo) => undo());
      }
      this.stacks.set(key, stack);
    }
    return stack;
  }
}

/** `#/properties/name/maxLength: 5`, one beside the other. */
export function inReason(reason: Reason | null): string {
  if (reason === null) return 'what the schema says in all, no part of which can be named';
  return reason.clauses.map(({ place, says }) => `${place}: ${says}`).join(', ');
}
