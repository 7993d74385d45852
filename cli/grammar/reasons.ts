import type { Stack } from '../../llm/grammar/automaton.ts';
import { document } from '../../llm/grammar/json/value.ts';
import { Unsupported } from '../../llm/grammar/refusal.ts';
import { compile, type SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { SchemaError } from '../../llm/grammar/schema/errors.ts';
import { advanceAll, start } from '../../llm/grammar/stack.ts';
import { clausesOf, type Clause } from './clauses.ts';
import { jsonText } from './json.ts';

/** Whether something may be written, by the stack behind what has been; null: not even that may. */
export type Question = (stack: Stack | null) => boolean;

/** Clauses that together forbid something, none of which could be left out. */
export interface Reason {
  readonly clauses: readonly Clause[];
  /** These, and what the schemas of those ask that are `oneOf`. */
  readonly kept: readonly Clause[];
}

/** Of so many clauses at most it is told which are to blame: the schema is compiled for each that is, and again. */
const MOST = 1000;
/** Of what is left of a schema and cannot be followed: it forbids nothing. */
const UNKNOWN = Symbol('unknown');

/** Why documents that begin with `prefix` go on as they do: which clauses of their schema have it so. */
export class Reasons {
  private readonly schema: unknown;
  private readonly options: SchemaOptions;
  private readonly prefix: Uint8Array;
  private readonly clauses: readonly Clause[];
  private readonly stacks = new Map<string, Stack | null | typeof UNKNOWN>();

  constructor(schema: unknown, options: SchemaOptions, prefix: string) {
    // A copy that is changed; structuredClone has no room for deep ones.
    this.schema = JSON.parse(jsonText(schema));
    this.options = options;
    this.prefix = new TextEncoder().encode(prefix);
    this.clauses =
      typeof this.schema !== 'boolean' ? clausesOf(this.schema as Readonly<Record<string, unknown>>, options) : [];
  }

  /**
   * A least set of clauses that forbids what `may` asks for: without the others it is still forbidden, without any of them it
   * is not. Found by halving (Junker 2004, "QuickXplain"). Null where no clauses are to blame, or they cannot be told,
   * being too many.
   */
  why(may: Question): Reason | null {
    const forbidden = (kept: readonly Clause[]): boolean => this.forbids(kept, may);
    if (this.clauses.length > MOST || !forbidden(this.clauses)) return null;
    // First whether several schemas of a `oneOf` are in each other's way: what these ask is then left as it is.
    let ones = this.clauses.filter(({ over }) => over !== null);
    const others = this.clauses.filter(({ over }) => over === null);
    for (const one of ones) {
      const fewer = ones.filter((other) => other !== one);
      if (forbidden([...others, ...fewer])) ones = fewer;
    }
    const under = new Set(ones.flatMap(({ over }) => [...over!()]));
    const fixed = [...ones, ...others.filter(({ place }) => under.has(place))];
    const open = others.filter((clause) => !fixed.includes(clause));
    if (ones.length === 0 && forbidden([])) return null;
    const least = (background: readonly Clause[], added: boolean, all: readonly Clause[]): readonly Clause[] => {
      if (added && forbidden(background)) return [];
      if (all.length <= 1) return all;
      const half = all.length >> 1;
      const [first, second] = [all.slice(0, half), all.slice(half)];
      const inSecond = least([...background, ...first], true, second);
      const inFirst = least([...background, ...inSecond], inSecond.length > 0, first);
      return [...inFirst, ...inSecond];
    };
    let clauses = least(fixed, fixed.length > 0, open);
    // Where to ask less is to ask more, halves may mislead.
    if (!forbidden([...fixed, ...clauses])) clauses = open;
    for (let i = 0; i < clauses.length;) {
      const fewer = clauses.filter((_, other) => other !== i);
      if (forbidden([...fixed, ...fewer])) [clauses, i] = [fewer, 0];
      else i += 1;
    }
    return { clauses: [...ones, ...clauses], kept: [...fixed, ...clauses] };
  }

  /** Whether a reason is also one for this. */
  explains({ clauses, kept }: Reason, may: Question): boolean {
    const without = (clause: Clause): readonly Clause[] => kept.filter((other) => other !== clause);
    return this.forbids(kept, may) && clauses.every((clause) => !this.forbids(without(clause), may));
  }

  private forbids(kept: readonly Clause[], may: Question): boolean {
    const stack = this.stack(kept);
    return stack !== UNKNOWN && !may(stack);
  }

  /** The stack behind the prefix where only these clauses are kept. */
  private stack(kept: readonly Clause[]): Stack | null | typeof UNKNOWN {
    const key = kept
      .map(({ place }) => place)
      .sort()
      .join('\n');
    let stack = this.stacks.get(key);
    if (stack === undefined) {
      const undo = this.clauses.filter((clause) => !kept.includes(clause)).map((clause) => clause.remove());
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
export function reasonInWords({ clauses }: Reason): string {
  return clauses.map(({ place, says }) => `${place}: ${says}`).join(', ');
}
