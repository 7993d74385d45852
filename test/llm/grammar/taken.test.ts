import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Taken } from '../../../llm/grammar/taken.ts';

const texts = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '\0', '\u{1f600}', '\uffff'), maxLength: 4 }), {
  minLength: 1,
  maxLength: 40,
});

it('holds what has come, each version what had come then', () => {
  fc.assert(
    fc.property(texts, texts, (list, others) => {
      const versions: Taken[] = [];
      for (const text of list) versions.push(Taken.with(versions.at(-1) ?? null, text));
      for (const [i, taken] of versions.entries()) {
        const known = new Set(list.slice(0, i + 1));
        // As JavaScript sorts: by UTF-16 units.
        const sorted = [...known].sort();
        expect([...taken]).toEqual(sorted);
        expect(taken.last).toBe(list[i]);
        for (const text of others) {
          expect(taken.has(text)).toBe(known.has(text));
          expect(taken.from(text)).toBe(sorted.find((other) => other >= text) ?? null);
          expect([...taken.beginning(text)]).toEqual(sorted.filter((other) => other.startsWith(text)));
        }
      }
    }),
    { seed: 3, numRuns: 60 },
  );
});

it('shares nearly all with the version before, whatever the order', () => {
  const nodes = new Set<unknown>();
  const see = (node: { left: unknown; right: unknown } | null): void => {
    if (node === null || nodes.has(node)) return;
    nodes.add(node);
    see(node.left as typeof node);
    see(node.right as typeof node);
  };
  let taken: Taken | null = null;
  for (let i = 0; i < 2000; i += 1) {
    taken = Taken.with(taken, `key${i}`);
    see((taken as unknown as { root: Parameters<typeof see>[0] }).root);
  }
  // A treap's nodes lie ln n deep on average, twice that together with those turned: 2,000 copies of all would be 2,000,000.
  expect(nodes.size).toBeLessThan(2000 * 4 * Math.log(2000));
});
