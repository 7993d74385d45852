import { bytesIn, Frame, Interned, type ByteSet, type Move, type Outcome, type Shortest } from '../automaton.ts';
import type { Algebra } from './algebra.ts';
import { Derivatives, type KeyAlphabet, type KeyClass, type Truths } from './derive.ts';
import type { Formula, Type } from './formula.ts';
import { missing, missingNames } from './missing.ts';
import { limits, numbers, shortestNumber, type Numbers } from './number.ts';
import {
  assertionsOf,
  differs,
  evaluate,
  FEW_TEXTS,
  keyClass,
  languagesOf,
  Satisfiability,
  testsOf,
  wantedOf,
} from './satisfy.ts';
import { Shortest as ShortestValues, type Way, type Ways } from './shortest.ts';
import { strings, type Strings } from './string.ts';

export interface DocumentOptions {
  /** White space between tokens of JSON: at most so many characters in a run. */
  readonly whitespace: number;
  /** Whether members come in any order, or in that in which the schema names them, others behind. */
  readonly order: 'free' | 'schema';
}

export const DEFAULTS: DocumentOptions = { whitespace: 8, order: 'free' };

/** The outcome of what has nothing tracked. */
const NOTHING_TRACKED = 0;

/** So many elements that have to come are looked at to know how many bytes they take. */
const ELEMENTS = 10_000;

const UTF8 = new TextEncoder();

/** So many keys and so many texts are known to be used up: keys that are few are told apart by their objects. */
const FEW_KEYS = 64;

const SPACES = bytesIn(' \t\n\r');
const [SPACE, QUOTE, COMMA, COLON, MINUS] = [0x20, 0x22, 0x2c, 0x3a, 0x2d];
const [OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];
const ALIVE = {
  value: bytesIn(' \t\n\r"-0123456789tfn[{'),
  array: {
    open: bytesIn(' \t\n\r]"-0123456789tfn[{'),
    comma: bytesIn(' \t\n\r"-0123456789tfn[{'),
    next: bytesIn(' \t\n\r,]'),
  },
  object: { open: bytesIn(' \t\n\r"}'), comma: bytesIn(' \t\n\r"'), next: bytesIn(' \t\n\r,}') },
  colon: bytesIn(' \t\n\r:'),
  end: bytesIn(' \t\n\r'),
};
const LITERALS: ReadonlyMap<number, { text: string; type: Type; truth: boolean }> = new Map([
  [0x6e, { text: 'null', type: 'null', truth: false }],
  [0x74, { text: 'true', type: 'boolean', truth: true }],
  [0x66, { text: 'false', type: 'boolean', truth: false }],
]);

/** What is asked of a value: `goal` holds at its end, and which of `tracked` do then is its outcome. */
interface Task {
  readonly key: number;
  readonly tracked: readonly Formula[];
  readonly goal: Formula;
  /** An element that, where it is a text, is to be none that its array has. */
  readonly unique: boolean;
}

/** An array or object between two of its members: what is asked of it from here on. */
interface Core extends Omit<Task, 'unique'> {
  /** Of an object. */
  readonly alphabet: KeyAlphabet | null;
  readonly taken: ReadonlySet<string>;
}

/** How one more child goes on: what is asked of it, and the core behind each of its outcomes. */
interface Plan {
  /** The core it is a child of, and its key's class. */
  readonly of: Core;
  readonly by: KeyClass | null;
  readonly key: number;
  readonly task: Task;
  /** About so many bytes are missing behind it. */
  readonly least: number;
  /** Whether nothing is tracked of the child. */
  readonly certain: boolean;
  readonly after: (outcome: Outcome) => Core;
}

/** The documents whose value satisfies `formula`, or null where there are none. */
export function document(algebra: Algebra, formula: Formula, options: Partial<DocumentOptions> = {}): Frame | null {
  const { whitespace, order } = { ...DEFAULTS, ...options };
  if (!(whitespace === Infinity || (Number.isInteger(whitespace) && whitespace >= 0))) {
    throw new Error(`[grammar] whitespace is ${whitespace}; it must be an integer from 0 up, or Infinity`);
  }
  if (order !== 'free' && order !== 'schema') {
    throw new Error(`[grammar] order is ${JSON.stringify(order)}; it must be "free" or "schema"`);
  }
  const values = new Values(algebra, { whitespace, order });
  return values.satisfiable.value(formula) ? new DocumentFrame(values, values.task([], formula)) : null;
}

/** Makes the frames of JSON values, each state once. */
class Values {
  readonly options: DocumentOptions;
  readonly algebra: Algebra;
  readonly derivatives: Derivatives;
  readonly satisfiable: Satisfiability;
  private readonly frames = new Interned<Frame>();
  private readonly tasks = new Interned<Task>();
  private readonly cores = new Interned<Core>();
  private readonly stringsOf = new Interned<Strings | null>();
  private readonly numbersOf = new Interned<Numbers | null>();
  private readonly plans = new Interned<Plan | null>();
  private readonly keysOf = new Map<Core, Strings | null>();
  private readonly nearer = new Map<Core, Map<number, Core>>();
  private readonly lengths = new ShortestValues<Task>((task) => this.waysOf(task));
  /** Outcome NOTHING_TRACKED is the same in every grammar, so that frames with one signature agree. */
  private readonly outcomes = new Table<readonly boolean[]>('', []);
  /** Class 0 is that of keys of which nothing is known, likewise. */
  private readonly classes = new Table(keyClass(null, []).key, keyClass(null, []));

  constructor(algebra: Algebra, options: DocumentOptions) {
    this.algebra = algebra;
    this.options = options;
    this.derivatives = new Derivatives(algebra);
    this.satisfiable = new Satisfiability(this.derivatives);
  }

  task(tracked: readonly Formula[], goal: Formula, unique = false): Task {
    const key = `${unique} ${[...tracked, goal].map(({ id }) => id).join(' ')}`;
    return this.tasks.get(key, () => ({ key: this.tasks.size, tracked, goal, unique }));
  }

  outcome(truths: readonly boolean[]): Outcome {
    return this.outcomes.place(truths.map(Number).join(''), truths);
  }

  value(task: Task): Frame {
    return this.frames.get(`value ${task.key}`, () => new ValueFrame(this, task, 0));
  }

  /** The first byte of a value that is no white space. */
  begin(task: Task, byte: number): Frame | null {
    const literal = LITERALS.get(byte);
    if (literal) return this.literal(task, literal);
    if (byte === QUOTE) return this.string(task)?.open ?? null;
    if (byte === MINUS || (byte >= 0x30 && byte <= 0x39)) return this.number(task)?.open(byte) ?? null;
    if (byte === OPEN_ARRAY) {
      const core = this.array(task);
      return core && this.arrayAt('open', core);
    }
    const core = byte === OPEN_OBJECT ? this.object(task) : null;
    return core && this.objectAt('open', core);
  }

  /** What is asked of a value of this type; null where it may be none. */
  private restrict({ tracked, goal, unique }: Task, type: Type): Task | null {
    const { algebra, derivatives } = this;
    const restricted = derivatives.restrict(goal, type);
    if (restricted === algebra.no) return null;
    return this.task(
      tracked.map((formula) => derivatives.restrict(formula, type)),
      restricted,
      unique,
    );
  }

  private literal(task: Task, { text, type, truth }: { text: string; type: Type; truth: boolean }): Frame | null {
    const restricted = this.restrict(task, type);
    if (!restricted || !evaluate(restricted.goal, () => truth)) return null;
    const { tracked } = restricted;
    return this.rest(text.slice(1), this.outcome(tracked.map((formula) => evaluate(formula, () => truth))));
  }

  /** The rest of a literal. */
  rest(text: string, outcome: Outcome): Frame {
    return this.frames.get(`literal ${text} ${outcome}`, () => new LiteralFrame(this, text, outcome));
  }

  private string(task: Task): Strings | null {
    const restricted = this.restrict(task, 'string');
    if (!restricted) return null;
    const { key, tracked, goal, unique } = restricted;
    return this.stringsOf.get(String(key), () => {
      const assertions = assertionsOf([...tracked, goal]);
      const outcome = (labels: readonly number[]): Outcome | null => {
        const truths = new Map(assertions.map((assertion, i) => [assertion, labels[i]! >= 0]));
        const holds = (formula: Formula): boolean => evaluate(formula, (assertion) => truths.get(assertion)!);
        return holds(goal) ? this.outcome(tracked.map(holds)) : null;
      };
      const certain = tracked.length === 0;
      return strings(languagesOf(assertions), outcome, {
        unique: unique ? FEW_TEXTS : 0,
        apart: unique,
        wanted: certain ? wantedOf(goal, assertions) : undefined,
        sole: certain ? NOTHING_TRACKED : undefined,
      });
    });
  }

  private number(task: Task): Numbers | null {
    const restricted = this.restrict(task, 'number');
    if (!restricted) return null;
    const { key, tracked, goal } = restricted;
    return this.numbersOf.get(String(key), () => {
      const assertions = assertionsOf([...tracked, goal]);
      const outcome = (values: readonly boolean[]): Outcome | null => {
        const truths = new Map(assertions.map((assertion, i) => [assertion, values[i]!]));
        const holds = (formula: Formula): boolean => evaluate(formula, (assertion) => truths.get(assertion)!);
        return holds(goal) ? this.outcome(tracked.map(holds)) : null;
      };
      return numbers(testsOf(assertions), outcome, limits, tracked.length === 0 ? NOTHING_TRACKED : null);
    });
  }

  private array(task: Task): Core | null {
    const restricted = this.restrict(task, 'array');
    if (!restricted) return null;
    const { tracked } = restricted;
    const goal = this.satisfiable.bounded(restricted.goal);
    return this.satisfiable.array(goal) ? this.core(tracked, goal, null, new Set()) : null;
  }

  private object(task: Task): Core | null {
    const restricted = this.restrict(task, 'object');
    if (!restricted) return null;
    const { tracked, goal } = restricted;
    const taken = new Set<string>();
    if (!this.satisfiable.object(goal, taken)) return null;
    return this.core(tracked, goal, this.derivatives.alphabet([...tracked, goal]), taken);
  }

  private core(
    tracked: readonly Formula[],
    goal: Formula,
    alphabet: KeyAlphabet | null,
    taken: ReadonlySet<string>,
  ): Core {
    tracked = tracked.map((formula) => this.derivatives.settle(formula, taken));
    goal = this.derivatives.settle(goal, taken);
    const gone = alphabet ? alphabet.names.flatMap((name, i) => (taken.has(name) ? [i] : [])) : [];
    const key = `${[...tracked, goal].map(({ id }) => id).join(' ')} ; ${gone.join(' ')} ; ${alphabet?.id}`;
    return this.cores.get(key, () => ({ key: this.cores.size, tracked, goal, alphabet, taken }));
  }

  /** The same, as far as it is told by so many more children. */
  near(core: Core, more: number): Core {
    if (core.tracked.length > 0) return core;
    let known = this.nearer.get(core);
    if (known === undefined) this.nearer.set(core, (known = new Map<number, Core>()));
    let near = known.get(more);
    if (near === undefined) {
      const goal = this.satisfiable.nearer(core.goal, more);
      near = goal === core.goal ? core : this.core([], goal, core.alphabet, core.taken);
      known.set(more, near);
    }
    return near;
  }

  /** The plan of the same child of the core that is `near`. */
  nearPlan(plan: Plan, more: number): Plan {
    const core = this.near(plan.of, more);
    if (core === plan.of) return plan;
    return (plan.by === null ? this.element(core) : this.member(core, plan.by))!;
  }

  arrayAt(place: ArrayPlace, core: Core): Frame {
    return this.frames.get(`array ${place} ${core.key}`, () => new ArrayFrame(this, place, core, 0));
  }

  objectAt(place: ObjectPlace, core: Core): Frame {
    return this.frames.get(`object ${place} ${core.key}`, () => new ObjectFrame(this, place, core, 0));
  }

  colon(plan: Plan): Frame {
    return this.frames.get(`colon ${plan.key}`, () => new ColonFrame(this, plan, 0));
  }

  waiting(plan: Plan, object: boolean): Frame {
    return this.frames.get(`waiting ${object} ${plan.key}`, () => new WaitingFrame(this, plan, object));
  }

  /** The outcome of an array or object that ends here, or null where it may not. */
  closed({ tracked, goal }: Core): Outcome | null {
    const { derivatives } = this;
    return derivatives.close(goal) ? this.outcome(tracked.map((formula) => derivatives.close(formula))) : null;
  }

  /** The fewest bytes of a value; null where they are not known. */
  shortest(task: Task): number | null {
    return task.tracked.length > 0 || task.unique ? null : this.lengths.value(task);
  }

  /** From `place` to the end of an array or object; null where it is not known, or hangs on what it holds. */
  shortestRest(core: Core, place: Place): Shortest | null {
    if (core.tracked.length > 0) return null;
    const bytes = this.lengths.of(core.alphabet === null ? this.arrayWays(core, place) : this.objectWays(core, place));
    return bytes === null ? null : { outcome: NOTHING_TRACKED, bytes };
  }

  /** The same behind a child. */
  shortestBehind({ certain, after }: Plan): Shortest | null {
    return certain ? this.shortestRest(after(NOTHING_TRACKED), 'next') : null;
  }

  /** How a value may be written, of which nothing is tracked. */
  private waysOf(task: Task): Ways<Task> {
    const ways: Way<Task>[] = [];
    let others = Infinity;
    const see = (bytes: number | null, least: number): void => {
      if (bytes === null) others = Math.min(others, least);
      else ways.push({ bytes, values: [] });
    };
    const numbers = this.number(task);
    if (numbers !== null) see(shortestNumber(numbers), 2);
    for (const literal of LITERALS.values()) if (this.literal(task, literal)) see(literal.text.length, 4);
    const strings = this.string(task);
    const content = strings?.open.shortest;
    if (strings !== null) see(content ? 1 + content.bytes : null, 3);
    if (ways.some(({ bytes }) => bytes <= 2)) return { ways, others };
    for (const core of [this.array(task), this.object(task)]) {
      if (core === null) continue;
      const inside = core.alphabet === null ? this.arrayWays(core, 'open') : this.objectWays(core, 'open');
      ways.push(...inside.ways.map(({ bytes, values }) => ({ bytes: 1 + bytes, values })));
      others = Math.min(others, 1 + inside.others);
    }
    return { ways, others };
  }

  /** How the rest of an array may be written: elements that nothing hangs on, as many as there have to be. */
  private arrayWays(core: Core, place: Place): Ways<Task> {
    const values: Task[] = [];
    for (let at = core; ;) {
      if (this.closed(at) !== null && (place !== 'comma' || values.length > 0)) {
        return { ways: [{ bytes: separators(values.length, place) + 1, values }], others: Infinity };
      }
      const plan = this.element(at);
      if (plan === null || !plan.certain || plan.task.unique || values.length === ELEMENTS) {
        return { ways: [], others: separators(values.length + 1, place) + values.length + 2 };
      }
      values.push(plan.task);
      at = plan.after(NOTHING_TRACKED);
    }
  }

  /** Likewise of an object: the members that it must have, where no more is asked of them than each by itself. */
  private objectWays(core: Core, place: Place): Ways<Task> {
    const { goal, taken, alphabet } = core;
    if (this.closed(core) !== null && place !== 'comma') return { ways: [{ bytes: 1, values: [] }], others: Infinity };
    const ways: Way<Task>[] = [];
    let others = Infinity;
    for (const part of this.derivatives.alternatives(goal)) {
      if (!this.satisfiable.object(part, taken)) continue;
      const plain = this.satisfiable.plain(part);
      const { required } = plain;
      const keys = required.reduce((sum, name) => sum + UTF8.encode(JSON.stringify(name)).length + 1, 0);
      const count = Math.max(required.length, plain.least, place === 'comma' ? 1 : 0);
      if (plain.others.length > 0 || count > required.length) {
        // A member takes four bytes at least: "":0.
        const least = Math.max(keys + required.length, 4);
        others = Math.min(others, separators(Math.max(count, 1), place) + least + 1);
        continue;
      }
      const values = required.map((name) =>
        this.task([], this.satisfiable.asked(plain, this.satisfiable.named(name, alphabet!))),
      );
      ways.push({ bytes: separators(count, place) + keys + 1, values });
    }
    return { ways, others };
  }

  /** One more element, or null where there may be none. */
  element(core: Core): Plan | null {
    return this.plans.get(`element ${core.key}`, () =>
      this.plan(
        core,
        null,
        core.tracked.map((formula) => this.derivatives.element(formula)),
        this.derivatives.element(core.goal),
        (goal) => this.satisfiable.array(goal),
        (tracked, goal) => this.core(tracked, goal, null, core.taken),
      ),
    );
  }

  /** One more member with a key of this class, or null where there may be none. */
  member(core: Core, key: KeyClass): Plan | null {
    const alphabet = core.alphabet!;
    if (key.name !== null && core.taken.has(key.name)) return null;
    return this.plans.get(`member ${key.key} ${core.key}`, () => {
      const taken = this.taken(core, key);
      return this.plan(
        core,
        key,
        core.tracked.map((formula) => this.derivatives.member(formula, key)),
        this.derivatives.member(core.goal, key),
        (goal) => this.satisfiable.object(goal, taken),
        (tracked, goal) => this.core(tracked, goal, alphabet, taken),
      );
    });
  }

  /** The names that cannot come behind a member with such a key. */
  private taken({ alphabet, taken }: Core, { name }: KeyClass): ReadonlySet<string> {
    const { names } = alphabet!;
    if (this.options.order === 'free') return name === null ? taken : new Set([...taken, name]);
    return new Set(name === null ? names : names.slice(0, names.indexOf(name) + 1));
  }

  /** Whether a member with such a key may come: as `member`, but without making what follows, where that is plain. */
  private allowed(core: Core, key: KeyClass): boolean {
    if (key.name !== null && core.taken.has(key.name)) return false;
    const plain = this.satisfiable.plain(core.goal);
    const counted = plain.least > 0 || plain.most < Infinity;
    // What holds for all members decides alone, since the others that have to come still can.
    if (plain.others.length === 0 && !counted && this.options.order === 'free')
      return this.satisfiable.possible(plain, key);
    return this.derivatives
      .alternatives(core.goal)
      .some((part) => this.goesOn(this.derivatives.member(part, key), this.taken(core, key)));
  }

  /** Whether a member can be so that an object is left of which this is asked behind it. */
  private goesOn(after: Formula, taken: ReadonlySet<string>): boolean {
    const { algebra, derivatives } = this;
    if (after === algebra.no) return false;
    const demands = derivatives.demands(after);
    const alternatives = demands.size > 0 ? [] : derivatives.alternatives(after);
    if (alternatives.length > 1) return alternatives.some((part) => this.goesOn(part, taken));
    const left = derivatives.decide(after, demands);
    const demanded = this.demanded(demands);
    if (!this.satisfiable.value(demanded)) return false;
    const satisfiable = (goal: Formula): boolean => this.satisfiable.object(goal, taken);
    return this.satisfiable.value(algebra.and(demanded, this.possible(left, demanded, satisfiable)));
  }

  private demanded(demands: Truths): Formula {
    const { algebra } = this;
    return algebra.and(...[...demands].map(([value, truth]) => (truth ? value : algebra.not(value))));
  }

  /** The same without the members that an object need not have; null where they may have a say, or there are none. */
  bare(core: Core): Core | null {
    const { tracked, goal, alphabet, taken } = core;
    if (tracked.length > 0 || this.options.order !== 'free') return null;
    const { required, least, others } = this.satisfiable.plain(goal);
    if (others.length > 0 || least > required.length) return null;
    const optional = alphabet!.names.filter((name) => !taken.has(name) && !required.includes(name));
    return optional.length === 0 ? null : this.core([], goal, alphabet, new Set([...taken, ...optional]));
  }

  /** One member more, after which the object is bare; null where that hangs on the member's value. */
  barePlan({ of, by, task, least, certain, after }: Plan): Plan | null {
    if (!certain) return null;
    const next = after(0);
    const core = this.bare(next) ?? next;
    return this.plans.get(`bare ${task.key} ${core.key}`, () => ({
      of,
      by,
      key: this.plans.size,
      task,
      least,
      certain,
      after: () => core,
    }));
  }

  /** The keys that may come, or null where none may. */
  keys(core: Core): Strings | null {
    core = this.near(core, 1);
    let keys = this.keysOf.get(core);
    if (keys === undefined) this.keysOf.set(core, (keys = this.makeKeys(core)));
    return keys;
  }

  keyClass(outcome: Outcome): KeyClass {
    return this.classes.at(outcome);
  }

  private makeKeys(core: Core): Strings | null {
    const alphabet = core.alphabet!;
    const { names, named, languages } = alphabet;
    const allowed = (key: KeyClass): Outcome | null =>
      this.allowed(core, key) ? this.classes.place(key.key, key) : null;
    const byName = (label: number): Outcome | null => allowed(this.satisfiable.named(names[label]!, alphabet));
    const sooner = missingNames(core.goal);
    if (languages.length === 0 && allowed(keyClass(null, [])) === null) {
      return strings([named], ([label]) => (label! < 0 ? null : byName(label!)), { sooner });
    }
    const name = names.length > 0 ? [named] : [];
    return strings(
      [...name, ...languages],
      (labels) => {
        if (name.length > 0 && labels[0]! >= 0) return byName(labels[0]!);
        return allowed(
          keyClass(
            null,
            languages.filter((_, i) => labels[name.length + i]! >= 0),
          ),
        );
      },
      // Where no pattern tells keys apart, what is none of the names is a key, and all can be made one.
      { unique: FEW_KEYS, open: languages.length === 0, sooner },
    );
  }

  /**
   * What is asked of a child, given what its parent is asked once the child's part is known. Where the parent cannot do
   * without the child's satisfying a formula, the child is held to it; other formulas are tracked to its end.
   */
  private plan(
    of: Core,
    by: KeyClass | null,
    tracked: readonly Formula[],
    goal: Formula,
    satisfiable: (goal: Formula) => boolean,
    core: (tracked: readonly Formula[], goal: Formula) => Core,
  ): Plan | null {
    const { algebra, derivatives } = this;
    const demands = derivatives.demands(goal);
    const demanded = this.demanded(demands);
    goal = derivatives.decide(goal, demands);
    tracked = tracked.map((formula) => derivatives.decide(formula, demands));
    const unique = by === null && differs(of.goal);
    const children = [...new Set([...tracked, goal].flatMap((formula) => derivatives.children(formula)))];
    const task = this.task(children, algebra.and(demanded, this.possible(goal, demanded, satisfiable)), unique);
    if (!this.satisfiable.value(task.goal)) return null;
    return {
      of,
      by,
      key: this.plans.size,
      task,
      least: missing(goal),
      certain: children.length === 0,
      after: (outcome) => {
        const truths = this.outcomes.at(outcome);
        const decided = new Map(children.map((child, i) => [child, truths[i]!]));
        return core(
          tracked.map((formula) => derivatives.decide(formula, decided)),
          derivatives.decide(goal, decided),
        );
      },
    };
  }

  /**
   * What the child must satisfy so that the parent still can: of alternatives what one of them asks, else Shannon's
   * expansion by the children's truths, of which only those are looked at that a value can have together; `so` is what is
   * known of it.
   */
  private possible(goal: Formula, so: Formula, satisfiable: (goal: Formula) => boolean): Formula {
    const { algebra, derivatives } = this;
    const memo = new Map<string, Formula>();
    const expand = (formula: Formula, known: Formula): Formula => {
      const key = `${formula.id} ${known.id}`;
      let result = memo.get(key);
      if (!result) {
        result = decide(formula, known);
        memo.set(key, result);
      }
      return result;
    };
    const decide = (formula: Formula, known: Formula): Formula => {
      if (formula === algebra.no) return formula;
      const [child] = derivatives.children(formula);
      if (!child) return satisfiable(formula) ? algebra.yes : algebra.no;
      const demands = derivatives.demands(formula);
      if (demands.size > 0) {
        const demanded = this.demanded(demands);
        return algebra.and(demanded, expand(derivatives.decide(formula, demands), algebra.and(known, demanded)));
      }
      if (satisfiable(derivatives.bound(formula, false))) return algebra.yes;
      const alternatives = derivatives.alternatives(formula);
      if (alternatives.length > 1) return algebra.or(...alternatives.map((part) => expand(part, known)));
      if (!satisfiable(derivatives.bound(formula, true))) return algebra.no;
      this.satisfiable.step();
      const [so, otherwise] = [algebra.and(known, child), algebra.and(known, algebra.not(child))];
      const [yes, no] = [true, false].map((truth) => derivatives.decide(formula, new Map([[child, truth]])));
      if (!this.satisfiable.value(so)) return expand(no!, otherwise);
      const high = expand(yes!, so);
      if (!this.satisfiable.value(otherwise)) return high;
      const low = expand(no!, otherwise);
      if (high === low) return high;
      return algebra.or(algebra.and(child, high), algebra.and(algebra.not(child), low));
    };
    return expand(goal, so);
  }
}

/** How many commas stand between so many children, and before them. */
const separators = (count: number, place: Place): number => (place === 'next' ? count : Math.max(count - 1, 0));

/** Things by small numbers and back; number 0 is known beforehand. */
class Table<T> {
  private readonly places = new Map<string, number>();
  private readonly things: T[] = [];

  constructor(key: string, first: T) {
    this.place(key, first);
  }

  place(key: string, thing: T): number {
    let place = this.places.get(key);
    if (place === undefined) {
      place = this.things.push(thing) - 1;
      this.places.set(key, place);
    }
    return place;
  }

  at(place: number): T {
    return this.things[place]!;
  }
}

/** Where white space may come, of which `spaces` characters have: behind one it is the same but for their number. */
abstract class Spaced extends Frame {
  protected readonly values: Values;
  protected readonly spaces: number;
  private spaced: Frame | null | undefined;

  constructor(values: Values, spaces: number) {
    super();
    this.values = values;
    this.spaces = spaces;
  }

  override move(byte: number): Move {
    if (SPACES[byte] === 0) return super.move(byte);
    if (this.spaced === undefined) {
      this.spaced = this.spaces < this.values.options.whitespace ? this.behind(this.spaces + 1) : null;
    }
    return this.spaced;
  }

  override get detours(): ByteSet {
    return SPACES;
  }

  /** The same behind so many characters of white space. */
  protected abstract behind(spaces: number): Frame;

  /** The frame behind as many characters of white space as here, `first` behind none. */
  protected spacedOf(first: Frame): Frame {
    let frame = first;
    for (let i = 0; i < this.spaces; i += 1) frame = frame.move(SPACE) as Frame;
    return frame;
  }
}

/** Before a document. */
class DocumentFrame extends Frame {
  private readonly value: Frame;
  private readonly behind: Frame;

  constructor(values: Values, task: Task) {
    super();
    this.value = values.value(task);
    this.behind = new EndFrame(values, 0);
  }

  override get shortest(): Shortest | null {
    return this.value.shortest;
  }

  protected step(byte: number): Move {
    const child = this.value.move(byte);
    return child?.kind === 'frame' ? { kind: 'push', frame: this.behind, child } : null;
  }
}

/** Below a document's value, and behind it. */
class EndFrame extends Spaced {
  override end(): Outcome {
    return NOTHING_TRACKED;
  }

  override get shortest(): Shortest {
    return { outcome: NOTHING_TRACKED, bytes: 0 };
  }

  override get alive(): ByteSet {
    return ALIVE.end;
  }

  override get signature(): string {
    return `end ${this.values.options.whitespace - this.spaces}`;
  }

  protected step(): Move {
    return null;
  }

  protected override after(): Frame {
    return this;
  }

  protected behind(spaces: number): Frame {
    return new EndFrame(this.values, spaces);
  }
}

/** Before a value. */
class ValueFrame extends Spaced {
  private readonly task: Task;

  constructor(values: Values, task: Task, spaces: number) {
    super(values, spaces);
    this.task = task;
  }

  override get alive(): ByteSet {
    return ALIVE.value;
  }

  override get shortest(): Shortest | null {
    const bytes = this.values.shortest(this.task);
    return bytes === null ? null : { outcome: NOTHING_TRACKED, bytes };
  }

  protected step(byte: number): Move {
    return this.values.begin(this.task, byte);
  }

  protected behind(spaces: number): Frame {
    return new ValueFrame(this.values, this.task, spaces);
  }
}

class LiteralFrame extends Frame {
  private readonly values: Values;
  private readonly text: string;
  private readonly outcome: Outcome;

  constructor(values: Values, text: string, outcome: Outcome) {
    super();
    this.values = values;
    this.text = text;
    this.outcome = outcome;
  }

  override get signature(): string {
    return `literal ${this.text} ${this.outcome}`;
  }

  override get shortest(): Shortest {
    return { outcome: this.outcome, bytes: this.text.length };
  }

  protected step(byte: number): Move {
    if (byte !== this.text.charCodeAt(0)) return null;
    if (this.text.length === 1) return { kind: 'pop', outcome: this.outcome, consumed: true };
    return this.values.rest(this.text.slice(1), this.outcome);
  }
}

/**
 * Behind the bracket, behind an element; behind a comma where texts have to differ. Elsewhere the element's frame is on top
 * there, which arrays share.
 */
type ArrayPlace = 'open' | 'next' | 'comma';

class ArrayFrame extends Spaced {
  private readonly place: ArrayPlace;
  private readonly core: Core;
  private rest: Shortest | null | undefined;

  constructor(values: Values, place: ArrayPlace, core: Core, spaces: number) {
    super(values, spaces);
    this.place = place;
    this.core = core;
  }

  override get alive(): ByteSet {
    return ALIVE.array[this.place];
  }

  override get shortest(): Shortest | null {
    if (this.rest === undefined) this.rest = this.values.shortestRest(this.core, this.place);
    return this.rest;
  }

  override near(bytes: number): Frame {
    const core = this.values.near(this.core, bytes);
    return core === this.core ? this : this.spacedOf(this.values.arrayAt(this.place, core));
  }

  protected behind(spaces: number): Frame {
    return new ArrayFrame(this.values, this.place, this.core, spaces);
  }

  protected step(byte: number): Move {
    const { values, place, core } = this;
    if (byte === CLOSE_ARRAY && place !== 'comma') {
      const outcome = values.closed(core);
      return outcome === null ? null : { kind: 'pop', outcome, consumed: true };
    }
    if (place === 'next' && byte !== COMMA) return null;
    const plan = values.element(core);
    if (!plan) return null;
    if (place === 'next' && plan.task.unique) return values.arrayAt('comma', core);
    const child = place === 'next' ? values.value(plan.task) : values.begin(plan.task, byte);
    return child && { kind: 'push', frame: values.waiting(plan, false), child };
  }
}

/** Behind the brace, behind a comma, behind a member. */
type ObjectPlace = 'open' | 'comma' | 'next';

type Place = ArrayPlace | ObjectPlace;

class ObjectFrame extends Spaced {
  private readonly place: ObjectPlace;
  private readonly core: Core;
  private rest: Shortest | null | undefined;
  private plainer: Frame | null | undefined;

  constructor(values: Values, place: ObjectPlace, core: Core, spaces: number) {
    super(values, spaces);
    this.place = place;
    this.core = core;
  }

  override get alive(): ByteSet {
    return ALIVE.object[this.place];
  }

  override get shortest(): Shortest | null {
    if (this.rest === undefined) this.rest = this.values.shortestRest(this.core, this.place);
    return this.rest;
  }

  override get least(): number {
    return missing(this.core.goal);
  }

  override get bare(): Frame | null {
    if (this.plainer === undefined) {
      const core = this.values.bare(this.core);
      this.plainer = core && this.values.objectAt(this.place, core);
    }
    return this.plainer;
  }

  override near(bytes: number): Frame {
    const core = this.values.near(this.core, bytes);
    return core === this.core ? this : this.spacedOf(this.values.objectAt(this.place, core));
  }

  protected behind(spaces: number): Frame {
    return new ObjectFrame(this.values, this.place, this.core, spaces);
  }

  protected step(byte: number): Move {
    const { values, place, core } = this;
    if (byte === CLOSE_OBJECT && place !== 'comma') {
      const outcome = values.closed(core);
      return outcome === null ? null : { kind: 'pop', outcome, consumed: true };
    }
    if (place === 'next') return byte === COMMA && values.keys(core) ? values.objectAt('comma', core) : null;
    if (byte !== QUOTE) return null;
    const keys = values.keys(core);
    return keys && { kind: 'push', frame: this, child: keys.open };
  }

  /** Behind a key. */
  protected override after(outcome: Outcome): Frame | null {
    const plan = this.values.member(this.core, this.values.keyClass(outcome));
    return plan && this.values.colon(plan);
  }
}

/** Behind a key, before its colon. */
class ColonFrame extends Spaced {
  private readonly plan: Plan;
  private rest: Shortest | null | undefined;
  private plainer: Frame | null | undefined;

  constructor(values: Values, plan: Plan, spaces: number) {
    super(values, spaces);
    this.plan = plan;
  }

  override get alive(): ByteSet {
    return ALIVE.colon;
  }

  override get shortest(): Shortest | null {
    if (this.rest !== undefined) return this.rest;
    const value = this.values.shortest(this.plan.task);
    const rest = value === null ? null : this.values.shortestBehind(this.plan);
    return (this.rest = rest && { outcome: rest.outcome, bytes: 1 + value! + rest.bytes });
  }

  override get least(): number {
    return this.plan.least;
  }

  override get bare(): Frame | null {
    if (this.plainer === undefined) {
      const plan = this.values.barePlan(this.plan);
      this.plainer = plan && this.values.colon(plan);
    }
    return this.plainer;
  }

  override near(bytes: number): Frame {
    const plan = this.values.nearPlan(this.plan, bytes);
    return plan === this.plan ? this : this.spacedOf(this.values.colon(plan));
  }

  protected step(byte: number): Move {
    const { values, plan } = this;
    if (byte !== COLON) return null;
    return { kind: 'push', frame: values.waiting(plan, true), child: values.value(plan.task) };
  }

  protected behind(spaces: number): Frame {
    return new ColonFrame(this.values, this.plan, spaces);
  }
}

/** Below an element or a member's value. */
class WaitingFrame extends Frame {
  private readonly values: Values;
  private readonly plan: Plan;
  private rest: Shortest | null | undefined;
  private plainer: Frame | null | undefined;
  private readonly object: boolean;

  constructor(values: Values, plan: Plan, object: boolean) {
    super();
    this.values = values;
    this.plan = plan;
    this.object = object;
  }

  override get shortest(): Shortest | null {
    if (this.rest === undefined) this.rest = this.values.shortestBehind(this.plan);
    return this.rest;
  }

  override get least(): number {
    return this.plan.least;
  }

  override get bare(): Frame | null {
    if (this.plainer === undefined) {
      const plan = this.object ? this.values.barePlan(this.plan) : null;
      this.plainer = plan && this.values.waiting(plan, true);
    }
    return this.plainer;
  }

  override near(bytes: number): Frame {
    const plan = this.values.nearPlan(this.plan, bytes);
    return plan === this.plan ? this : this.values.waiting(plan, this.object);
  }

  protected step(): Move {
    return null;
  }

  protected override after(outcome: Outcome): Frame {
    const core = this.plan.after(outcome);
    return this.object ? this.values.objectAt('next', core) : this.values.arrayAt('next', core);
  }
}
