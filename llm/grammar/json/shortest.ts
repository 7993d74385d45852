import { Heap } from '../heap.ts';

/** A way to write something: so many bytes, and these values. */
export interface Way<T> {
  readonly bytes: number;
  readonly values: readonly T[];
}

/** Ways to write something; those that are not known take `others` bytes at least, Infinity where there are none. */
export interface Ways<T> {
  readonly ways: readonly Way<T>[];
  readonly others: number;
}

interface Bounds {
  readonly least: number;
  readonly most: number;
}

/** So many values are looked at to answer one question: of others nothing is known. */
const LIMIT = 20_000;

const UNKNOWN: Bounds = { least: 1, most: Infinity };

/**
 * The fewest bytes of values that hold others, found for all that one holds together: Knuth's generalisation of Dijkstra's
 * algorithm (1977, "A Generalization of Dijkstra's Algorithm"), without recursion, however deep they lie. Once with the ways
 * that are not known as if there were none, and once as short as they can be: where both find the same, that is known.
 */
export class Shortest<T> {
  private readonly known = new Map<T, Bounds>();
  private readonly waysOf: (value: T) => Ways<T>;

  constructor(waysOf: (value: T) => Ways<T>) {
    this.waysOf = waysOf;
  }

  /** Of a value; null where it is not known. */
  value(value: T): number | null {
    if (!this.known.has(value)) this.learn([value]);
    return exact(this.known.get(value)!);
  }

  /** Of what is written in one of these ways; null where it is not known. */
  of(all: Ways<T>): number | null {
    const { ways, others } = shorter(all);
    this.learn(ways.flatMap(({ values }) => values).filter((value) => !this.known.has(value)));
    const sum = (bound: keyof Bounds): number =>
      Math.min(
        ...ways.map(({ bytes, values }) => values.reduce((all, each) => all + this.known.get(each)![bound], bytes)),
      );
    return exact({ least: Math.min(sum('least'), others), most: sum('most') });
  }

  private learn(values: readonly T[]): void {
    if (values.length === 0) return;
    const found = this.gather(values);
    const least = this.solve(found, 'least');
    const most = this.solve(found, 'most');
    for (const value of [...found.keys(), ...values]) {
      this.known.set(value, {
        least: least.get(value) ?? (found.has(value) ? Infinity : UNKNOWN.least),
        most: most.get(value) ?? Infinity,
      });
    }
  }

  /** The values and those that they may hold, but for those known. */
  private gather(values: readonly T[]): Map<T, Ways<T>> {
    const found = new Map<T, Ways<T>>();
    const open = [...values];
    for (let value = open.pop(); value !== undefined && found.size < LIMIT; value = open.pop()) {
      if (found.has(value) || this.known.has(value)) continue;
      const all = shorter(this.waysOf(value));
      found.set(value, all);
      for (const way of all.ways) open.push(...way.values);
    }
    return found;
  }

  /** The values in the order of their bytes: each is as short as its shortest way, whose values come before. */
  private solve(found: ReadonlyMap<T, Ways<T>>, bound: keyof Bounds): Map<T, number> {
    const bytes = new Map<T, number>();
    const heap = new Heap<T>();
    const waiting = new Map<T, { readonly value: T; bytes: number; left: number }[]>();
    for (const [value, { ways, others }] of found) {
      if (bound === 'least' && others < Infinity) heap.push(others, value);
      for (const way of ways) {
        const parent = { value, bytes: way.bytes, left: 0 };
        for (const child of way.values) {
          if (!found.has(child)) {
            parent.bytes += (this.known.get(child) ?? UNKNOWN)[bound];
            continue;
          }
          parent.left += 1;
          const parents = waiting.get(child);
          if (parents === undefined) waiting.set(child, [parent]);
          else parents.push(parent);
        }
        if (parent.left === 0 && parent.bytes < Infinity) heap.push(parent.bytes, value);
      }
    }
    for (let next = heap.pop(); next !== null; next = heap.pop()) {
      const { cost, item } = next;
      if (bytes.has(item)) continue;
      bytes.set(item, cost);
      for (const parent of waiting.get(item) ?? []) {
        parent.bytes += cost;
        parent.left -= 1;
        if (parent.left === 0 && parent.bytes < Infinity) heap.push(parent.bytes, parent.value);
      }
    }
    return bytes;
  }
}

/** Without the ways that are longer than one that holds nothing, whatever they hold. */
function shorter<T>({ ways, others }: Ways<T>): Ways<T> {
  const most = Math.min(...ways.map(({ bytes, values }) => (values.length === 0 ? bytes : Infinity)));
  return {
    ways: ways.filter(({ bytes, values }) => values.length === 0 || bytes + values.length < most),
    others: others >= most ? Infinity : others,
  };
}

const exact = ({ least, most }: Bounds): number | null => (least === most && most < Infinity ? most : null);
