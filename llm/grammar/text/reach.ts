import { Unsupported } from '../refusal.ts';

/** So many states may be looked at to decide one question. */
const LIMIT = 100_000;

/**
 * Which states of a graph lead to an accepting one, decided when asked by a search in breadth. What it finds is kept:
 * that a state is accepting is told to all that are known to lead there, and where a search ends without one, none of the
 * states that it saw leads to one.
 */
export class Reach {
  private readonly leads: (boolean | undefined)[] = [];
  private readonly next: (readonly number[] | undefined)[] = [];
  private readonly before: (number[] | undefined)[] = [];
  private readonly graph: {
    next(state: number): Iterable<number>;
    accepts(state: number): boolean;
    /** For the error of a search that is cut. */
    readonly name: string;
  };

  constructor(graph: Reach['graph']) {
    this.graph = graph;
  }

  /** Throws where that takes too many states. */
  from(start: number): boolean {
    if (this.leads[start] !== undefined) return this.leads[start];
    const seen = new Set([start]);
    let looked = 0;
    for (const state of seen) {
      let next = this.next[state];
      if (!next) {
        looked += 1;
        if (looked > LIMIT) {
          throw new Unsupported(
            `[grammar] ${this.graph.name}: it takes more than ${LIMIT} states to decide whether a text is left that ` +
              'satisfies all that is asked: smaller counts, or fewer patterns for one string',
          );
        }
        this.next[state] = next = [...new Set(this.graph.next(state))];
        for (const other of next) (this.before[other] ??= []).push(state);
        if (this.graph.accepts(state) || next.some((other) => this.leads[other])) this.mark(state);
        if (this.leads[start]) return true;
      }
      for (const other of next) if (this.leads[other] === undefined) seen.add(other);
    }
    for (const state of seen) this.leads[state] ??= false;
    return false;
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
