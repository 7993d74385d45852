import { Heap } from '../heap.ts';
import { Unsupported } from '../refusal.ts';
import { fewest, some, type Sizes } from './sizes.ts';

/** So many states may be looked at to decide one question. */
const LIMIT = 20_000;

/** Of states that are as near to an end, those that were met later come first, and so it goes in depth. */
const FIRST = 2 ** 20;

/**
 * Which states of a graph lead to an accepting one, decided when asked: where the numbers of code points tell, by these,
 * else by a search that goes in breadth and toward the nearest end that there may be by turns: what is near is found, and so
 * is what lies at the end of every path. What it finds is kept: that a state leads to
 * an accepting one is told to all that are known to lead to it, and where a search ends without one, none of the states
 * that it saw leads to one.
 */
export class Reach {
  private readonly leads: (boolean | undefined)[] = [];
  private readonly next: (readonly number[] | undefined)[] = [];
  private readonly before: (number[] | undefined)[] = [];
  private readonly graph: {
    next(state: number): Iterable<number>;
    accepts(state: number): boolean;
    /** How many code points lead from a state to an end. */
    sizes(state: number): Sizes;
    /** For the error of a search that is cut. */
    readonly name: () => string;
  };

  constructor(graph: Reach['graph']) {
    this.graph = graph;
  }

  /** Throws where that takes too many states. */
  from(start: number): boolean {
    if (this.leads[start] !== undefined) return this.leads[start];
    const known = some(this.graph.sizes(start));
    if (known !== null) return (this.leads[start] = known);
    const seen = new Set([start]);
    const visited = new Set<number>();
    const queue = [start];
    const near = new Heap<number>();
    for (let first = 0; first < queue.length;) {
      const next = visited.size % 2 === 1 ? near.pop() : null;
      const state = next?.item ?? queue[first++]!;
      if (visited.has(state)) continue;
      visited.add(state);
      if (!this.next[state]) this.look(state);
      if (this.leads[start]) return true;
      for (const other of this.next[state] ?? []) {
        if (this.leads[other] !== undefined || seen.has(other)) continue;
        seen.add(other);
        near.push(fewest(this.graph.sizes(other)) * FIRST - queue.push(other), other);
      }
      if (visited.size > LIMIT) {
        throw new Unsupported(
          `[grammar] ${this.graph.name()}: it takes more than ${LIMIT} states to decide whether a text is left that ` +
            'satisfies all that is asked: smaller counts, or fewer patterns for one string',
        );
      }
    }
    for (const state of seen) this.leads[state] ??= false;
    return false;
  }

  private look(state: number): void {
    const known = some(this.graph.sizes(state));
    if (known ?? this.graph.accepts(state)) return this.mark(state);
    if (known === false) this.leads[state] = false;
    if (known === false) return;
    const next = (this.next[state] = [...new Set(this.graph.next(state))]);
    for (const other of next) (this.before[other] ??= []).push(state);
    if (next.some((other) => this.leads[other])) this.mark(state);
  }

  private mark(accepting: number): void {
    const open = [accepting];
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      if (this.leads[state]) continue;
      this.leads[state] = true;
      for (const before of this.before[state] ?? []) open.push(before);
      this.before[state] = undefined;
    }
  }
}
