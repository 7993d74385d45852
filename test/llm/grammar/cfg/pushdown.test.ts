import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { contextFree } from '../../../../llm/grammar/cfg/pushdown.ts';
import { verdict } from './helpers.ts';

/** A grammar as the tests make it; rules are numbered, 0 is root. */
type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'all' | 'any'; readonly of: readonly Node[] }
  | { readonly kind: 'repeat'; readonly of: Node; readonly least: number; readonly most: number }
  | { readonly kind: 'rule'; readonly rule: number };

/** What is longer than this is known by its first characters alone. */
const LENGTH = 5;
const ALPHABET = ['a', 'b', 'é'];

/** Words of at most LENGTH characters, and the beginnings, marked so, of longer ones. */
type Words = ReadonlySet<string>;
const MORE = '…';

function joined(left: Words, right: Words): Words {
  const words = new Set<string>();
  for (const first of left) {
    if (first.endsWith(MORE)) {
      if (right.size > 0) words.add(first);
      continue;
    }
    for (const second of right) {
      const text = first + second;
      const characters = text.replace(MORE, '');
      if (characters.length > LENGTH) words.add(characters.slice(0, LENGTH) + MORE);
      else words.add(text);
    }
  }
  return words;
}

/** The words of each rule, exactly: the least sets that satisfy the rules. */
function language(rules: readonly Node[]): Words[] {
  let words: Words[] = rules.map(() => new Set());
  const of = (node: Node): Words => {
    switch (node.kind) {
      case 'text':
        return joined(new Set(['']), new Set([node.text]));
      case 'all':
        return node.of.map(of).reduce(joined, new Set(['']));
      case 'any':
        return new Set(node.of.flatMap((one) => [...of(one)]));
      case 'repeat': {
        const once = of(node.of);
        let power: Words = new Set(['']);
        const all = new Set<string>();
        // Behind LENGTH + 1 repetitions of what is not empty nothing new comes.
        for (let i = 0; i <= Math.min(node.most, node.least + LENGTH + 1); i++) {
          if (i >= node.least) power.forEach((word) => all.add(word));
          power = joined(power, once);
        }
        return all;
      }
      case 'rule':
        return words[node.rule]!;
    }
  };
  for (;;) {
    const next = rules.map(of);
    if (next.every((set, i) => set.size === words[i]!.size)) return next;
    words = next;
  }
}

const name = (rule: number): string => (rule === 0 ? 'root' : `r${rule}`);

function written(node: Node): string {
  switch (node.kind) {
    case 'text':
      return JSON.stringify(node.text);
    case 'all':
      return `(${node.of.map(written).join(' ')})`;
    case 'any':
      return `(${node.of.map(written).join(' | ')})`;
    case 'repeat':
      return `${written(node.of)}{${node.least},${node.most === Infinity ? '' : node.most}}`;
    case 'rule':
      return name(node.rule);
  }
}

const RULES = 4;
const rules: fc.Arbitrary<readonly Node[]> = fc.array(
  fc.letrec<{ node: Node }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 3, depthSize: 'small' },
      fc.record({ kind: fc.constant('text' as const), text: fc.constantFrom('', 'ab', ...ALPHABET) }),
      fc.record({ kind: fc.constant('rule' as const), rule: fc.nat(RULES - 1) }),
      fc.record({
        kind: fc.constantFrom('all' as const, 'any' as const),
        of: fc.array(tie('node'), { minLength: 1, maxLength: 3 }),
      }),
      fc.record({ kind: fc.constant('any' as const), of: fc.array(tie('node'), { minLength: 2, maxLength: 3 }) }),
      fc
        .tuple(tie('node'), fc.nat(2), fc.constantFrom(0, 1, Infinity))
        .map(([of, least, more]) => ({ kind: 'repeat' as const, of, least, most: least + more })),
    ),
  })).node,
  { minLength: RULES, maxLength: RULES },
);

/** All words over the alphabet of up to LENGTH characters. */
const WORDS = [''];
for (const word of WORDS) if (word.length < LENGTH) WORDS.push(...ALPHABET.map((character) => word + character));

describe('context-free grammars', () => {
  it('allow what begins a text of the language, and accept its texts, as enumeration says', () => {
    let refused = 0;
    const verdicts = { accepted: 0, open: 0, refused: 0 };
    fc.assert(
      fc.property(rules, (nodes) => {
        const words = language(nodes);
        const text = nodes.map((node, rule) => `${name(rule)} ::= ${written(node)}\n`).join('');
        if (words.some((set) => set.size === 0)) {
          refused += 1;
          expect(() => contextFree(text)).toThrow(/derives? only/);
          return;
        }
        const frame = contextFree(text);
        const begun = new Set(
          [...words[0]!].flatMap((word) => {
            const characters = word.replace(MORE, '');
            return Array.from({ length: characters.length + 1 }, (_, length) => characters.slice(0, length));
          }),
        );
        for (const word of WORDS) {
          const expected = words[0]!.has(word) ? 'accepted' : begun.has(word) ? 'open' : 'refused';
          verdicts[expected] += 1;
          if (verdict(frame, word) !== expected) expect(`${text}${word}: ${verdict(frame, word)}`).toBe(expected);
        }
      }),
      { seed: 5, numRuns: 3000 },
    );
    // The samples say something: each verdict is met often.
    expect(Math.min(refused, ...Object.values(verdicts))).toBeGreaterThan(100);
  });
});
