import { DEAD, NONE, none, type Language, type Range } from './language.ts';
import { ANY_SIZE, sized } from './sizes.ts';

/**
 * These texts and no others; `label` is a text's place in the list (of the first, where one stands twice). Texts with lone
 * surrogates are no texts of Unicode and are left out. A trie that is read off the sorted list
 * as it is walked: a state is the part of the list that begins with what was read.
 */
export function words(texts: readonly string[]): Language {
  const places = new Map<string, number>();
  texts.forEach((text, place) => {
    if (!places.has(text) && !/\p{Surrogate}/u.test(text)) places.set(text, place);
  });
  if (places.size === 0) return none;
  const sorted = [...places.keys()].sort();

  interface Node {
    /** sorted[from] … sorted[to − 1] begin alike, for `depth` UTF-16 units. */
    readonly from: number;
    readonly to: number;
    readonly depth: number;
    ranges?: readonly Range[];
    next?: ReadonlyMap<number, number>;
  }
  const nodes: Node[] = [{ from: 0, to: sorted.length, depth: 0 }];

  /** Where texts that go on as `text` does, for `length` units behind what is common, end in the node's part. */
  const groupEnd = (node: Node, from: number, length: number): number => {
    const { depth } = node;
    const prefix = sorted[from]!.slice(depth, depth + length);
    let low = from + 1;
    let high = node.to;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle]!.startsWith(prefix, depth)) low = middle + 1;
      else high = middle;
    }
    return low;
  };

  const ranges = (state: number): readonly Range[] => {
    const node = nodes[state]!;
    if (node.ranges) return node.ranges;
    const found: Range[] = [];
    let from = node.from;
    if (sorted[from]!.length === node.depth) from += 1;
    while (from < node.to) {
      const codePoint = sorted[from]!.codePointAt(node.depth)!;
      const length = codePoint > 0xffff ? 2 : 1;
      const to = groupEnd(node, from, length);
      found.push({ from: codePoint, to: codePoint, state: nodes.length });
      nodes.push({ from, to, depth: node.depth + length });
      from = to;
    }
    node.next = new Map(found.map((range) => [range.from, range.state]));
    // UTF-16 sorts code points from U+10000 before U+E000.
    return (node.ranges = found.sort((a, b) => a.from - b.from));
  };

  const label = (state: number): number => {
    const { from, depth } = nodes[state]!;
    return sorted[from]!.length === depth ? places.get(sorted[from]!)! : NONE;
  };

  let key: string | undefined;
  return {
    get key() {
      return (key ??= `words ${digest(texts)}`);
    },
    start: 0,
    texts: places,
    step: (state, codePoint) => {
      ranges(state);
      return nodes[state]!.next!.get(codePoint) ?? DEAD;
    },
    ranges,
    label,
    letters: [],
    // As many as texts may be left: they are not gone through for it.
    sizes: (state) => (ranges(state).length > 0 ? ANY_SIZE : sized(0, 0)),
    spans: (state) =>
      ranges(state).length > 0
        ? null
        : [
            { below: 1, label: label(state) },
            { below: Infinity, label: NONE },
          ],
  };
}

/** The list itself as a text, or where that is long 106 bits of a hash of it and its length. */
function digest(texts: readonly string[]): string {
  const text = JSON.stringify(texts);
  return text.length <= 1000 ? text : `${text.length} ${hash(text, 1).toString(36)} ${hash(text, 2).toString(36)}`;
}

/** 53 bits: two multiplicative hashes of 32 bits over the UTF-16 units, mixed at the end as MurmurHash3 mixes. */
function hash(text: string, seed: number): number {
  let a = 0xdeadbeef ^ seed;
  let b = 0x41c6ce57 ^ seed;
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i);
    a = Math.imul(a ^ unit, 0x9e3779b1);
    b = Math.imul(b ^ unit, 0x5f356495);
  }
  a = Math.imul(a ^ (a >>> 16), 0x85ebca6b) ^ Math.imul(b ^ (b >>> 13), 0xc2b2ae35);
  b = Math.imul(b ^ (b >>> 16), 0x85ebca6b) ^ Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
  return (b >>> 11) * 0x100000000 + (a >>> 0);
}
