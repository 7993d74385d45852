import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Frame } from '../../../llm/grammar/automaton.ts';
import { contextFree } from '../../../llm/grammar/cfg/pushdown.ts';
import { texts } from '../../../llm/grammar/cfg/regular.ts';
import { regular } from '../../../llm/grammar/cfg/regular.ts';
import { words } from '../../../llm/grammar/text/words.ts';
import { triggered, type TriggerOptions } from '../../../llm/grammar/triggers.ts';
import { verdict } from './cfg/helpers.ts';

/** A trigger as the naive search has it: `words` null is any text. */
interface Naive {
  readonly begin: string;
  readonly words: readonly string[] | null;
  readonly end: string;
}

type Bounds = Pick<TriggerOptions, 'least' | 'most' | 'then'>;

/** What `text` is, by searching its strings: every character in turn, every trigger, every word. */
function searched(triggers: readonly Naive[], bounds: Bounds, text: string): 'accepted' | 'open' | 'refused' {
  const { least = 0, most = Infinity, then = 'text' } = bounds;
  let calls = 0;
  for (let at = 0; ;) {
    if (calls >= most && then === 'end') return at === text.length ? 'accepted' : 'refused';
    let found: Naive | null = null;
    let next = at;
    while (found === null && next < text.length) {
      next += 1;
      for (const trigger of triggers) {
        if (!text.slice(at, next).endsWith(trigger.begin)) continue;
        if (found === null || trigger.begin.length > found.begin.length) found = trigger;
      }
    }
    if (found === null) return calls >= least ? 'accepted' : 'open';
    if (found.words !== null && calls >= most) return 'refused';
    const rest = text.slice(next);
    const { end } = found;
    const inside = found.words;
    // The first place where the end is complete behind a word.
    let closed = -1;
    for (let length = 0; closed < 0 && length + end.length <= rest.length; length++) {
      const word = rest.slice(0, length);
      if ((inside === null || inside.includes(word)) && rest.startsWith(end, length)) closed = length + end.length;
    }
    if (closed < 0) return inside === null || inside.some((word) => (word + end).startsWith(rest)) ? 'open' : 'refused';
    if (inside !== null) calls += 1;
    at = next + closed;
  }
}

const some = (characters: string, minLength: number, maxLength: number): fc.Arbitrary<string> =>
  fc.array(fc.constantFrom(...characters), { minLength, maxLength }).map((list) => list.join(''));

describe('text with triggers', () => {
  it('agrees with a naive search', () => {
    const counts = { accepted: 0, open: 0, refused: 0, impossible: 0 };
    const trigger = fc.record({
      begin: some('<ab', 1, 3),
      words: fc.option(fc.uniqueArray(some('<aé', 0, 3), { minLength: 1, maxLength: 4 }), { freq: 4 }),
      end: some('<a>', 1, 3),
    });
    const bounds = fc.constantFrom<Bounds>(
      {},
      { most: 0 },
      { least: 1 },
      { least: 1, most: 1 },
      { most: 1, then: 'end' },
      { least: 2, most: 2, then: 'end' },
    );
    const sample = fc.array(some('<ab>é', 0, 9), { minLength: 30, maxLength: 30 });
    fc.assert(
      fc.property(fc.array(trigger, { minLength: 1, maxLength: 3 }), bounds, sample, (triggers, limits, samples) => {
        const hides = triggers.some(({ begin }, i) =>
          triggers.some((other, j) => i !== j && (other.begin === begin || begin.slice(0, -1).includes(other.begin))),
        );
        const make = () =>
          triggered({
            ...limits,
            triggers: triggers.map(({ begin, words: inside, end }) => ({
              begin,
              grammar: inside && texts(words(inside)),
              end,
            })),
          });
        if (hides || ((limits.least ?? 0) > 0 && triggers.every(({ words: inside }) => inside === null))) {
          counts.impossible += 1;
          expect(make).toThrow('[grammar]');
          return;
        }
        const frame = make();
        // Texts as they come, and such as begin with calls.
        const calls = triggers.map(({ begin, words: inside, end }) => begin + (inside?.at(-1) ?? 'b') + end);
        for (const [i, text] of samples.entries()) {
          const begun = [0, 1, 2].slice(0, i % 3).map((j) => calls[(i + j) % calls.length]!);
          const whole = begun.join('') + text;
          const expected = searched(triggers, limits, whole);
          counts[expected] += 1;
          const made = verdict(frame, whole);
          if (made !== expected) expect(JSON.stringify([triggers, limits, whole, made])).toBe(expected);
        }
      }),
      { seed: 5, numRuns: 1500 },
    );
    expect(Math.min(...Object.values(counts))).toBeGreaterThan(100);
  });

  const of = (frame: Frame) => (text: string | Uint8Array) => verdict(frame, text);
  const think = { begin: '<think>', grammar: null, end: '</think>' };

  it('stands around grammars whose calls are frames of their own', () => {
    const json = `root ::= value
      value ::= "[" (value ("," value)*)? "]" | [0-9]+ | "\\"" [^"\\n]* "\\""`;
    const tools = of(
      triggered({
        triggers: [
          { begin: '<call>', grammar: contextFree(json, '</call>'), end: '' },
          { begin: '<n>', grammar: regular('[0-9<]+'), end: '</n>' },
        ],
      }),
    );
    expect(tools('so <call>[1,["</call>",23]]</call> and <n>1<</n> then <call>12</call>')).toBe('accepted');
    expect(tools('<call>12</call')).toBe('open');
    expect(tools('<call>"</call>')).toBe('open');
    expect(tools('<call>[12</')).toBe('refused');
    expect(tools('<n>1<<</n>')).toBe('accepted');
    expect(tools('<n></n>')).toBe('refused');
    expect(tools('<n>1</m')).toBe('refused');
    expect(tools('<call')).toBe('accepted');
    expect(tools('</call><call>1x')).toBe('refused');
  });

  it('lets a grammar without an end go as far as it can', () => {
    const tools = of(triggered({ triggers: [{ begin: '#', grammar: regular('[0-9]+'), end: '' }], least: 1 }));
    expect(tools('a #12 and #3#')).toBe('open');
    expect(tools('a #12 and #3')).toBe('accepted');
    expect(tools('a #b')).toBe('refused');
    expect(tools('a')).toBe('open');
  });

  it('says what tool_choice does, reasoning first or not', () => {
    const call = { begin: '<f>', grammar: regular('x+'), end: '</f>' };
    const triggers = [think, call];
    const texts: Record<string, readonly string[]> = {
      none: ['accepted', 'refused', 'refused', 'accepted'],
      auto: ['accepted', 'accepted', 'accepted', 'accepted'],
      required: ['open', 'accepted', 'accepted', 'open'],
      once: ['open', 'accepted', 'refused', 'open'],
    };
    const bounds: Record<string, Bounds> = {
      none: { most: 0 },
      auto: {},
      required: { least: 1 },
      once: { least: 1, most: 1, then: 'end' },
    };
    for (const [choice, expected] of Object.entries(texts)) {
      const tools = of(triggered({ triggers, ...bounds[choice] }));
      const made = ['é', 'a<f>xx</f>', '<f>x</f><f>x</f>', '<think><f>x</f></think>b<'].map(tools);
      expect(made, choice).toEqual(expected);
      expect(tools('<think>a</think')).toBe('open');
    }
  });

  it('writes valid UTF-8 alone, and begins no character that refused triggers leave nothing of', () => {
    const tools = of(triggered({ triggers: [{ ...think, begin: 'é' }] }));
    expect(tools(Uint8Array.of(0xc3))).toBe('open');
    expect(tools(Uint8Array.of(0xc3, 0xa9))).toBe('open');
    expect(tools(Uint8Array.of(0xc3, 0x41))).toBe('refused');
    expect(tools(Uint8Array.of(0xff))).toBe('refused');
    const block = Array.from({ length: 64 }, (_, i) => String.fromCodePoint(0xc0 + i));
    const grammar = regular('x');
    const without = of(triggered({ triggers: block.map((begin) => ({ begin, grammar, end: '.' })), most: 0 }));
    expect(without(Uint8Array.of(0xc3))).toBe('refused');
    expect(without(Uint8Array.of(0xc4))).toBe('open');
  });

  it('shares the states of text between grammars with the same triggers', () => {
    const signature = (grammar: Frame): string | null => {
      const move = triggered({ triggers: [{ begin: '<f>', grammar, end: '</f>' }] }).move(0x61);
      return move?.kind === 'push' ? move.child.signature : null;
    };
    expect(signature(regular('x'))).not.toBeNull();
    expect(signature(regular('x'))).toBe(signature(regular('y')));
  });

  it.each<[string, TriggerOptions]>([
    ['at least 2 calls and at most 1', { triggers: [], least: 2, most: 1 }],
    ['at least 1 calls, but no trigger has a grammar', { triggers: [think], least: 1 }],
    ['trigger "": its text is empty', { triggers: [{ ...think, begin: '' }] }],
    ['trigger "<think>": any text needs an end', { triggers: [{ ...think, end: '' }] }],
    ['trigger "<think>" is there twice', { triggers: [think, think] }],
    ['trigger "<think>": "<th" is complete before it; rename one', { triggers: [think, { ...think, begin: '<th' }] }],
    [
      'trigger "a": a context-free grammar closes itself: contextFree(text, "b"), end: \'\'',
      { triggers: [{ begin: 'a', grammar: contextFree('root ::= "x"'), end: 'b' }] },
    ],
    ['trigger "\\ud800" is no text: a surrogate stands alone', { triggers: [{ ...think, begin: '\ud800' }] }],
  ])('refuses: %s', (message, options) => {
    expect(() => triggered(options)).toThrow(`[grammar] ${message}`);
  });

  it('says what is wrong in options of another shape', () => {
    const make = (options: unknown): Frame => triggered(options as TriggerOptions);
    const trigger = { begin: 'a', grammar: regular('x'), end: 'b' };
    for (const [options, message] of [
      [{}, 'triggered(options): triggers is undefined; it must be a list'],
      [undefined, 'triggered(options): options are undefined; they must be { triggers, least, most, then }'],
      [{ triggers: [], lest: 1 }, 'triggered(options): option lest is not known; did you mean least?'],
      [
        { triggers: [{ ...trigger, end: undefined }] },
        'triggered(options): triggers[0].end is undefined; it must be a text',
      ],
      [
        { triggers: [{ ...trigger, grammar: {} }] },
        'triggered(options): triggers[0].grammar is an object {  }; it must be',
      ],
      [{ triggers: [trigger], least: 0.5 }, 'triggered(options): least is 0.5; it must be an integer'],
      [{ triggers: [trigger], then: 'stop' }, 'triggered(options): then is "stop"; it must be'],
    ] as const) {
      expect(() => make(options)).toThrow(`[grammar] ${message}`);
    }
  });
});
