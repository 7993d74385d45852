import { Unsupported } from '../refusal.ts';
import type { CodePoints, Expression, Grammar, Rule } from './parse.ts';
import { bits, utf8, type Bits, type Bytes } from './utf8.ts';

/**
 * A grammar as a recursive transition network (Woods 1970, "Transition network grammars for natural language analysis"): one
 * automaton over bytes a rule, whose edges read a byte or call a rule.
 */
export interface Network {
  /** By state. */
  readonly states: readonly State[];
  /** By rule: the state where it begins. */
  readonly starts: readonly number[];
  /** By rule: whether it derives the empty text. */
  readonly nullable: readonly boolean[];
  /**
   * By state: whether its rule ends from there on only by reading a last byte, as what stands between quotes or brackets
   * does, and never at a place where it may also go on.
   */
  readonly delimited: readonly boolean[];
  /** By state: the fewest bytes from there to its rule's end. */
  readonly fewest: readonly number[];
  /** By state: the rule that it is of. */
  readonly owners: readonly number[];
  readonly rules: readonly Rule[];
  readonly root: number;
}

export interface State {
  readonly reads: readonly Read[];
  /** The bytes of `reads`. */
  readonly first: Bits;
  readonly calls: readonly Call[];
  /** The rule may end here. */
  readonly final: boolean;
}

/** Bytes, and the state that each of them leads to. */
export interface Read {
  readonly bytes: Bytes;
  readonly to: number;
}

/** A rule, and the state behind it. */
export interface Call {
  readonly rule: number;
  readonly to: number;
}

/** The state in which every rule ends: nothing follows. */
export const END = 0;

const MOST_STATES = 300_000;
const MOST_PAIRS = 5_000;

/** A state as it is built: `jumps` lead on without reading anything. */
interface Draft {
  readonly reads: Read[];
  readonly calls: Call[];
  readonly jumps: number[];
}

/** Sets of states in which the two sides of a difference may be after the same text. */
interface Pair {
  readonly states: readonly number[];
  readonly others: readonly number[];
  /** Leading to pairs. */
  readonly reads: Read[];
  readonly accepts: boolean;
}

export function network(grammar: Grammar): Network {
  const builder = new Builder(grammar);
  const starts = grammar.rules.map((_, rule) => builder.rule(rule));
  const states = builder.states();
  return {
    states,
    starts,
    nullable: nullable(states, starts),
    delimited: delimited(states, starts),
    fewest: fewest(states, starts),
    owners: builder.owners,
    rules: grammar.rules,
    root: grammar.root,
  };
}

/** Thompson's construction (1968), from the end to the beginning: an expression is built towards the state that follows it. */
class Builder {
  /** By state; END is of none. */
  readonly owners: number[] = [-1];
  private readonly drafts: Draft[] = [{ reads: [], calls: [], jumps: [] }];
  private readonly grammar: Grammar;
  private building = 0;
  /** The rules whose bodies are being built in the place of calls. */
  private readonly inlined = new Set<number>();

  constructor(grammar: Grammar) {
    this.grammar = grammar;
  }

  rule(rule: number): number {
    this.building = rule;
    return this.build(this.grammar.rules[rule]!.body, END, (called, to) => {
      const state = this.state();
      this.drafts[state]!.calls.push({ rule: called, to });
      return state;
    });
  }

  /** All states, jumps resolved. */
  states(): State[] {
    return this.drafts.map((_, state) => {
      const all = this.reachable([state]).map((reached) => this.drafts[reached]!);
      const reads = all.flatMap((draft) => draft.reads);
      return {
        reads,
        first: bits(reads.map(({ bytes }) => bytes)),
        calls: all.flatMap(({ calls }) => calls),
        final: all.includes(this.drafts[END]!),
      };
    });
  }

  private state(): number {
    if (this.drafts.length >= MOST_STATES) {
      throw new Error(`[grammar] ${this.where()} takes more than ${MOST_STATES} states; repeat less`);
    }
    this.owners.push(this.building);
    return this.drafts.push({ reads: [], calls: [], jumps: [] }) - 1;
  }

  private where(): string {
    return `rule "${this.grammar.rules[this.building]!.name}"`;
  }

  /** The state from which `one`, then what follows from `to`, is read. */
  private build(one: Expression, to: number, call: (rule: number, to: number) => number): number {
    switch (one.kind) {
      case 'class':
        return this.class(one.ranges, to);
      case 'sequence':
        return one.of.reduceRight((next, part) => this.build(part, next, call), to);
      case 'choice': {
        const state = this.state();
        for (const part of one.of) this.drafts[state]!.jumps.push(this.build(part, to, call));
        return state;
      }
      case 'repeat': {
        let next = to;
        let least = one.least;
        if (one.most === Infinity) {
          const loop = this.state();
          const again = this.build(one.of, loop, call);
          this.drafts[loop]!.jumps.push(again, to);
          next = least === 0 ? loop : again;
          least = Math.max(0, least - 1);
        } else {
          for (let i = least; i < one.most; i++) {
            const state = this.state();
            this.drafts[state]!.jumps.push(this.build(one.of, next, call), to);
            next = state;
          }
        }
        for (let i = 0; i < least; i++) next = this.build(one.of, next, call);
        return next;
      }
      case 'difference':
        return this.difference(one.of, one.without, to);
      case 'call':
        return call(one.rule, to);
    }
  }

  private class(ranges: readonly CodePoints[], to: number): number {
    const entry = this.state();
    const shared = new Map<string, number>();
    for (const bytes of ranges.flatMap(utf8)) {
      let next = to;
      for (let i = bytes.length - 1; i > 0; i--) {
        const key = `${bytes[i]!.from} ${bytes[i]!.to} ${next}`;
        let state = shared.get(key);
        if (state === undefined) {
          shared.set(key, (state = this.state()));
          this.drafts[state]!.reads.push({ bytes: bytes[i]!, to: next });
        }
        next = state;
      }
      this.drafts[entry]!.reads.push({ bytes: bytes[0]!, to: next });
    }
    return entry;
  }

  /** The texts of `of` that are none of `without`: the product of their deterministic automata (Rabin and Scott 1959). */
  private difference(of: Expression, without: Expression, to: number): number {
    const end = this.state();
    const otherEnd = this.state();
    const pairs: Pair[] = [];
    const places = new Map<string, number>();
    const place = (states: readonly number[], others: readonly number[]): number => {
      const key = `${states.join(' ')} - ${others.join(' ')}`;
      let known = places.get(key);
      if (known === undefined) {
        if (pairs.length >= MOST_PAIRS) {
          throw new Error(
            `[grammar] ${this.where()}: a difference takes more than ${MOST_PAIRS} states; make it smaller`,
          );
        }
        places.set(key, (known = pairs.length));
        pairs.push({ states, others, reads: [], accepts: states.includes(end) && !others.includes(otherEnd) });
      }
      return known;
    };
    place(this.reachable([this.regular(of, end)]), this.reachable([this.regular(without, otherEnd)]));
    for (const { states, others, reads } of pairs) {
      const edges = states.flatMap((state) => this.drafts[state]!.reads);
      const otherEdges = others.flatMap((state) => this.drafts[state]!.reads);
      const cuts = new Set([...edges, ...otherEdges].flatMap(({ bytes }) => [bytes.from, bytes.to + 1]));
      const sorted = [...cuts].sort((a, b) => a - b);
      sorted.slice(0, -1).forEach((from, i) => {
        const over = (read: Read): boolean => read.bytes.from <= from && from <= read.bytes.to;
        const next = edges.filter(over).map((read) => read.to);
        if (next.length === 0) return;
        const nextOthers = otherEdges.filter(over).map((read) => read.to);
        reads.push({
          bytes: { from, to: sorted[i + 1]! - 1 },
          to: place(this.reachable(next), this.reachable(nextOthers)),
        });
      });
    }
    return this.emit(pairs, to);
  }

  /** States for those pairs from which a text can be completed; the first is where it begins. */
  private emit(pairs: readonly Pair[], to: number): number {
    const before = pairs.map((): number[] => []);
    pairs.forEach(({ reads }, place) => reads.forEach((read) => before[read.to]!.push(place)));
    const live = new Set(pairs.flatMap(({ accepts }, place) => (accepts ? [place] : [])));
    for (const place of live) before[place]!.forEach((earlier) => live.add(earlier));
    if (!live.has(0)) throw new Error(`[grammar] ${this.where()}: a difference leaves no text; take less away`);
    const emitted = new Map([...live].map((place) => [place, this.state()]));
    for (const [place, state] of emitted) {
      const draft = this.drafts[state]!;
      for (const { bytes, to: next } of pairs[place]!.reads) {
        const target = emitted.get(next);
        if (target !== undefined) draft.reads.push({ bytes, to: target });
      }
      if (pairs[place]!.accepts) draft.jumps.push(to);
    }
    return emitted.get(0)!;
  }

  /** `one` towards `to` with what it calls in its place. */
  private regular(one: Expression, to: number): number {
    const call = (rule: number, next: number): number => {
      const { name, body } = this.grammar.rules[rule]!;
      if (this.inlined.has(rule)) {
        throw new Unsupported(
          `[grammar] ${this.where()}: a difference of rules that lead back to themselves ("${name}") is not supported; ` +
            'both its sides must be regular',
        );
      }
      this.inlined.add(rule);
      const state = this.build(body, next, call);
      this.inlined.delete(rule);
      return state;
    };
    return this.build(one, to, call);
  }

  /** These states and those that jumps lead to, sorted. */
  private reachable(from: readonly number[]): number[] {
    const seen = new Set(from);
    for (const state of seen) for (const jump of this.drafts[state]!.jumps) seen.add(jump);
    return [...seen].sort((a, b) => a - b);
  }
}

/** Which rules derive the empty text: the least set of those that have a way to their end through such rules alone. */
function nullable(states: readonly State[], starts: readonly number[]): boolean[] {
  const nullable = starts.map(() => false);
  const derives = (start: number): boolean => {
    const seen = new Set([start]);
    for (const state of seen) {
      if (states[state]!.final) return true;
      for (const call of states[state]!.calls) if (nullable[call.rule]) seen.add(call.to);
    }
    return false;
  };
  for (let changed = true; changed;) {
    changed = false;
    for (let rule = starts.length - 1; rule >= 0; rule--) {
      if (!nullable[rule] && derives(starts[rule]!)) nullable[rule] = changed = true;
    }
  }
  return nullable;
}

/** All states but those from which one is reached that is final, in the rule or in one that it ends with. */
function delimited(states: readonly State[], starts: readonly number[]): boolean[] {
  const before = states.map((): number[] => []);
  states.forEach(({ reads, calls }, state) => {
    for (const { to } of reads) before[to]!.push(state);
    for (const { rule, to } of calls) before[to === END ? starts[rule]! : to]!.push(state);
  });
  const open = new Set(states.flatMap(({ final }, state) => (final && state !== END ? [state] : [])));
  for (const state of open) for (const earlier of before[state]!) open.add(earlier);
  return states.map((_, state) => !open.has(state));
}

/**
 * The least solution of a grammar's costs (Knuth 1977, "A Generalization of Dijkstra's Algorithm"), by iteration: a state
 * is looked at again where one that it leads to has become cheaper.
 */
function fewest(states: readonly State[], starts: readonly number[]): number[] {
  const before = states.map((): number[] => []);
  states.forEach(({ reads, calls }, state) => {
    for (const { to } of reads) before[to]!.push(state);
    for (const { rule, to } of calls) {
      before[to]!.push(state);
      before[starts[rule]!]!.push(state);
    }
  });
  const costs = states.map(() => Infinity);
  const changed = new Set(states.keys());
  for (const state of changed) {
    changed.delete(state);
    const { final, reads, calls } = states[state]!;
    let cost = final ? 0 : Infinity;
    for (const { to } of reads) cost = Math.min(cost, 1 + costs[to]!);
    for (const { rule, to } of calls) cost = Math.min(cost, costs[starts[rule]!]! + costs[to]!);
    if (cost >= costs[state]!) continue;
    costs[state] = cost;
    for (const earlier of before[state]!) changed.add(earlier);
  }
  return costs;
}
