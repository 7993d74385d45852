import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { regular } from '../../../../llm/grammar/cfg/regular.ts';
import { accepts, verdict } from './helpers.ts';

describe('regular expressions', () => {
  it.each(['a|bc', '[^a]{2,3}', '(ab?)*c+', '^a?$', '.*é', '\\d{2}-\\d', '[\\u{1f600}-\\u{1f64f}]x?', '(?:a|b)*abb'])(
    '%s takes what JavaScript matches as a whole',
    (pattern) => {
      const frame = regular(pattern);
      const expected = new RegExp(`^(?:${pattern})$`, 'u');
      const characters = fc.constantFrom(...'abcé1-😀x\n');
      fc.assert(
        fc.property(fc.array(characters, { maxLength: 6 }), (list) => {
          const text = list.join('');
          expect(accepts(frame, text), JSON.stringify(text)).toBe(expected.test(text));
        }),
        { seed: 5, numRuns: 2000 },
      );
    },
  );

  it('allows valid UTF-8 alone, of characters that lead on', () => {
    const any = regular('[^]');
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 4 });
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    const decodes = (list: Uint8Array): boolean => {
      try {
        return Array.from(decoder.decode(list)).length === 1;
      } catch {
        return false;
      }
    };
    fc.assert(
      fc.property(bytes, (list) => {
        expect(accepts(any, list)).toBe(decodes(list));
      }),
      { seed: 5, numRuns: 5000 },
    );
    // All characters there are, and no beginning of another.
    for (let codePoint = 0; codePoint <= 0x10ffff; codePoint += codePoint < 0x3000 ? 1 : 61) {
      if (codePoint >= 0xd800 && codePoint <= 0xdfff) continue;
      if (!accepts(any, String.fromCodePoint(codePoint))) expect(codePoint).toBeNull();
    }
    expect(verdict(any, Uint8Array.of(0xe0, 0x80))).toBe('refused');
    expect(verdict(any, Uint8Array.of(0xed, 0xa0))).toBe('refused');
    expect(verdict(any, Uint8Array.of(0xf4, 0x90))).toBe('refused');
    expect(verdict(regular('é|ü'), Uint8Array.of(0xc3))).toBe('open');
    expect(verdict(regular('é|ü'), Uint8Array.of(0xc4))).toBe('refused');
  });

  it('refuses what it does not do, by name, and what matches nothing', () => {
    expect(() => regular('(?=a)b')).toThrow(/\(\?=a\)b.*look/);
    expect(() => regular('a)(b')).toThrow('[grammar]');
    expect(() => regular('a^b')).toThrow(/matches no text/);
  });
});
