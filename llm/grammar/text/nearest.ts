import { Heap } from '../heap.ts';
import { NONE, type Language } from './language.ts';

/** So many states are looked at to answer one question. */
const LIMIT = 2000;

/**
 * How near the states of a language are to the end of a text, by what its characters take: Dijkstra's algorithm from the state
 * that is asked about. What is found of the states on the way is kept.
 */
export class Nearest {
  private readonly known: (number | null | undefined)[] = [];
  private readonly language: Language;
  private readonly least: (from: number, to: number) => number;

  /** `least`: the fewest bytes of a code point from … to; 1 of most. */
  constructor(language: Language, least: (from: number, to: number) => number) {
    this.language = language;
    this.least = least;
  }

  /** The fewest bytes from `state` to the end of a text; null where that is far to see. */
  from(state: number): number | null {
    let found = this.known[state];
    if (found === undefined) this.known[state] = found = this.counted(state) ?? this.search(state);
    return found;
  }

  /** Where the number of characters alone decides. */
  private counted(state: number): number | null {
    const spans = this.language.spans(state);
    if (spans === null) return null;
    const first = spans.findIndex(({ label }) => label !== NONE);
    return first === 0 ? 0 : spans[first - 1]!.below;
  }

  private search(start: number): number | null {
    const { language } = this;
    const reached = new Map([[start, { bytes: 0, before: -1 }]]);
    const heap = new Heap<number>();
    heap.push(0, start);
    let best = { bytes: Infinity, state: start };
    const done = new Set<number>();
    for (let next = heap.pop(); next !== null && next.cost < best.bytes; next = heap.pop()) {
      const { cost, item: state } = next;
      if (done.has(state)) continue;
      if (done.size === LIMIT) return null;
      done.add(state);
      const left = language.label(state) === NONE ? this.known[state] : 0;
      if (left !== undefined && left !== null && cost + left < best.bytes) best = { bytes: cost + left, state };
      for (const { from, to, state: other } of language.ranges(state)) {
        const bytes = cost + this.least(from, to);
        if (bytes >= (reached.get(other)?.bytes ?? Infinity)) continue;
        reached.set(other, { bytes, before: state });
        heap.push(bytes, other);
      }
    }
    if (best.bytes === Infinity) return null;
    for (let { state } = best; state !== -1; state = reached.get(state)!.before) {
      this.known[state] = best.bytes - reached.get(state)!.bytes;
    }
    return best.bytes;
  }
}
