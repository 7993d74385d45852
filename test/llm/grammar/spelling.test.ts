import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Spelling } from '../../../llm/grammar/spelling.ts';

/** Characters as they may be written in a JSON string, each as a whole. */
const UNITS = ['a', 'é', '漢', '😀', '\ufeff', '\\n', '\\"', '\\\\', '\\u0061', '\\u00E9', '\\ud83d', '\\uDE00'];

it('says what its bytes say, but for those of what is not yet whole', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...UNITS), { maxLength: 8 }), (units) => {
      let spelling = Spelling.nothing;
      let said = '';
      let count = 0;
      for (const unit of units) {
        const bytes = [...Buffer.from(unit)];
        for (const [i, byte] of bytes.entries()) {
          spelling = spelling.with(byte);
          count += 1;
          const whole = i === bytes.length - 1;
          if (whole) said += JSON.parse(`"${unit}"`) as string;
          expect(spelling.text).toBe(said);
          expect(spelling.pending).toEqual(whole ? [] : bytes.slice(0, i + 1));
        }
      }
      expect(spelling.without(count)).toBe(Spelling.nothing);
      const all = Buffer.from(units.join(''));
      expect(Spelling.nothing.withAll(all).key).toBe(spelling.key);
      expect(spelling.without(count >> 1).key).toBe(
        Spelling.nothing.withAll(all.subarray(0, count - (count >> 1))).key,
      );
    }),
    { seed: 5, numRuns: 60 },
  );
});
