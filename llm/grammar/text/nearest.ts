import { Heap } from '../heap.ts';
import { NONE, type Language } from './language.ts';
import { fewest } from './sizes.ts';

/** So many states are looked at to answer one question: no closing within a budget of thousands of tokens needs more. */
const LIMIT = 2000;

/** More than there are states behind those that are looked at. */
const MANY = 2 ** 22;

/**
 * How near the states of a language are to the end of a text, by what its characters take: where the number of code points
 * tells, by that, else by A* (Hart, Nilsson and Raphael 1968, "A Formal Basis for the Heuristic Determination of Minimum Cost
 * Paths") from the state that is asked about, a code point being a byte at least. What is found of the states on the way is
 * kept.
 */
export class Nearest {
  private readonly known: (number | null | undefined)[] = [];
  private readonly language: Language;
  private readonly least: (from: number, to: number) => number;

  /** `least`: the fewest bytes of a code point from … to; 1 where some of them are `SHORT`. */
  constructor(language: Language, least: (from: number, to: number) => number) {
    this.language = language;
    this.least = least;
  }

  /** The fewest bytes from `state` to the end of a text; null where that is far to see. */
  from(state: number): number | null {
    let found = this.known[state];
    if (found === undefined) this.known[state] = found = this.told(state) ?? this.search(state);
    return found;
  }

  /** Where it is told by numbers of code points, or was found. */
  private told(state: number): number | null {
    const known = this.known[state];
    if (known !== undefined) return known;
    if (this.language.label(state) !== NONE) return 0;
    const short = this.language.sizes(state, 'short');
    const bytes = fewest(short);
    return bytes < short.sure && bytes <= fewest(this.language.sizes(state, 'any')) ? bytes : null;
  }

  private search(start: number): number | null {
    const { language } = this;
    const reached = new Map([[start, { bytes: 0, before: -1 }]]);
    const heap = new Heap<number>();
    heap.push(0, start);
    const done = new Set<number>();
    let best = { bytes: Infinity, state: start };
    for (let next = heap.pop(); next !== null && Math.ceil(next.cost) < best.bytes; next = heap.pop()) {
      const { item: state } = next;
      if (done.has(state)) continue;
      if (done.size === LIMIT) return null;
      done.add(state);
      const { bytes: here } = reached.get(state)!;
      for (const { from, to, state: other } of language.ranges(state)) {
        const bytes = here + this.least(from, to);
        if (bytes >= (reached.get(other)?.bytes ?? Infinity)) continue;
        reached.set(other, { bytes, before: state });
        done.delete(other);
        const left = this.told(other);
        // Of those that seem as near the one that was met last comes first: it is the farthest on its way.
        if (left === null) heap.push(bytes + fewest(language.sizes(other, 'any')) - reached.size / MANY, other);
        else if (bytes + left < best.bytes) best = { bytes: bytes + left, state: other };
      }
    }
    if (best.bytes === Infinity) return null;
    for (let { state } = best; state !== -1; state = reached.get(state)!.before) {
      this.known[state] = best.bytes - reached.get(state)!.bytes;
    }
    return best.bytes;
  }
}
