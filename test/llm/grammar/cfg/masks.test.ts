import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Stack } from '../../../../llm/grammar/automaton.ts';
import { parse } from '../../../../llm/grammar/cfg/parse.ts';
import { contextFree } from '../../../../llm/grammar/cfg/pushdown.ts';
import { Masks } from '../../../../llm/grammar/mask.ts';
import { advance, advanceAll, complete, start } from '../../../../llm/grammar/stack.ts';
import { triggered } from '../../../../llm/grammar/triggers.ts';
import { Vocabulary } from '../../../../llm/grammar/vocabulary.ts';
import { deriver, random } from './derive.ts';

const NAMES = ['json', 'arithmetic', 'sql', 'javascript'] as const;
const texts = NAMES.map((name) =>
  readFileSync(new URL(`../../../../assets/grammars/${name}.gbnf`, import.meta.url), 'utf8'),
);

describe('masks of context-free grammars', () => {
  it.each(NAMES)('%s: they are what each token says, byte by byte, alone and behind a trigger', (name) => {
    const text = texts[NAMES.indexOf(name)]!;
    const draw = random(23);
    const derive = deriver(parse(text));
    const documents = Array.from({ length: 12 }, () => new TextEncoder().encode(derive(draw, 8).slice(0, 200)));
    // Pieces of the documents, across whatever boundary, and all bytes.
    const tokens = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
    for (let i = 0; i < 200; i++) {
      const document = documents[draw(documents.length)]!;
      const from = draw(document.length + 1);
      const token = document.subarray(from, from + 2 + draw(6));
      if (token.length > 0) tokens.push(token);
    }
    tokens.push(...['<c>', '</c>', 'x<c', '"</', ')</c>a<c>'].map((token) => new TextEncoder().encode(token)));
    const end = tokens.push(new TextEncoder().encode('<end>')) - 1;
    const vocabulary = Vocabulary.of(tokens, { end: [end] });
    const masks = new Masks(vocabulary);
    const mask = new Uint32Array(vocabulary.words);
    const allowed = (id: number): boolean => ((mask[id >>> 5]! >>> (id & 31)) & 1) === 1;
    const free = triggered({ triggers: [{ begin: '<c>', grammar: contextFree(text, '</c>'), end: '' }], least: 1 });
    const opened = advanceAll(start(free), new TextEncoder().encode('so <c>'))!;
    let positions = 0;
    for (const from of [start(contextFree(text)), opened]) {
      for (const document of documents) {
        let stack: Stack | null = from;
        for (let at = 0; stack !== null; at++) {
          if (draw(4) === 0) {
            positions += 1;
            masks.fill(mask, stack);
            for (const [id, token] of tokens.entries()) {
              const expected = id === end ? complete(stack) : advanceAll(stack, token) !== null;
              if (allowed(id) !== expected) expect(`${at} of ${String(document)}: ${String(token)}`).toBe(expected);
            }
          }
          stack = at < document.length ? advance(stack, document[at]!) : null;
        }
      }
    }
    expect(positions).toBeGreaterThan(50);
  });
});
