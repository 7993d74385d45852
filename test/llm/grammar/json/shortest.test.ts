import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { Shortest, type Ways } from '../../../../llm/grammar/json/shortest.ts';

const way = fc.record({ bytes: fc.integer({ min: 1, max: 9 }), values: fc.array(fc.nat(7), { maxLength: 3 }) });
const ways = fc.record({
  ways: fc.array(way, { maxLength: 3 }),
  others: fc.oneof(fc.constant(Infinity), fc.integer({ min: 1, max: 30 })),
});

/** By trying all ways again until nothing changes; `others`: what those take that are not known. */
function fixpoint(graph: readonly Ways<number>[], others: (ways: Ways<number>) => number): number[] {
  const bytes = graph.map(() => Infinity);
  for (let changed = true; changed;) {
    changed = false;
    graph.forEach((all, value) => {
      const sums = all.ways.map((way) => way.values.reduce((sum, each) => sum + bytes[each]!, way.bytes));
      const least = Math.min(others(all), ...sums);
      if (least < bytes[value]!) [bytes[value], changed] = [least, true];
    });
  }
  return bytes;
}

describe('the fewest bytes of values that hold others', () => {
  it('are those of all ways, where those that are not known cannot be shorter', () => {
    fc.assert(
      fc.property(fc.array(ways, { minLength: 8, maxLength: 8 }), fc.nat(7), (graph, root) => {
        const least = fixpoint(graph, ({ others }) => others);
        const most = fixpoint(graph, () => Infinity);
        const shortest = new Shortest<number>((value) => graph[value]!);
        const found = shortest.value(root);
        if (found !== null) expect([least[root], most[root]]).toEqual([found, found]);
        else expect(least[root] === most[root] && most[root]! < Infinity).toBe(false);
        const inside = shortest.of({ ways: [{ bytes: 2, values: [root, root] }], others: Infinity });
        expect(inside).toBe(found === null ? null : 2 + 2 * found);
      }),
      { numRuns: 2000, seed: 5 },
    );
  });

  it('are found however deep the values lie', () => {
    const shortest = new Shortest<number>((depth) => ({
      ways: [{ bytes: 3, values: depth === 0 ? [] : [depth - 1] }],
      others: Infinity,
    }));
    expect(shortest.value(15_000)).toBe(3 * 15_001);
  });
});
