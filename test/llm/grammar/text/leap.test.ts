/** Leap seconds against all minutes of the day and all offsets. */
import { expect, it } from 'vitest';
import { DEAD, NONE } from '../../../../llm/grammar/text/language.ts';
import { leapSeconds } from '../../../../llm/grammar/text/leap.ts';

const two = (number: number): string => String(number).padStart(2, '0');
const MINUTES = Array.from({ length: 24 * 60 }, (_, i) => i);
const CHARACTERS = [...'+-0123456789:Zz'];

/** For each clock with second 60 the offsets with which it is the last minute of 2016 in UTC. */
const offsets = new Map<string, Set<string>>();
for (const sign of ['+', '-']) {
  for (const minutes of MINUTES) {
    const local = new Date(Date.UTC(2016, 11, 31, 23, 59) + (sign === '+' ? 1 : -1) * minutes * 60_000);
    const clock = `${two(local.getUTCHours())}:${two(local.getUTCMinutes())}:60`;
    const texts = offsets.get(clock) ?? new Set<string>();
    offsets.set(clock, texts.add(`${sign}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`));
  }
}
for (const zulu of ['Z', 'z']) offsets.get('23:59:60')!.add(zulu);

it.each([
  ['', ''],
  ['2016-12-31T', ''],
  ['😀a', '.25'],
])('behind %j and before %j', (before, fraction) => {
  const language = leapSeconds([...before].length);
  const walk = (text: string, from = language.start): number => {
    let state = from;
    for (const character of text) if (state !== DEAD) state = language.step(state, character.codePointAt(0)!);
    return state;
  };
  for (const minute of MINUTES) {
    const clock = `${two(Math.floor(minute / 60))}:${two(minute % 60)}:`;
    // All texts from here on that are no fraction.
    const found = new Set<string>();
    const collect = (state: number, text: string): void => {
      if (language.label(state) !== NONE) found.add(text);
      for (const character of CHARACTERS) {
        if (text === '' && /\d/.test(character)) continue;
        const next = walk(character, state);
        if (next !== DEAD) collect(next, text + character);
      }
    };
    collect(walk(`${before}${clock}60${fraction}`), '');
    expect([...found].sort(), clock).toEqual([...offsets.get(`${clock}60`)!].sort());
    // Other seconds go with every offset.
    expect(language.label(walk(`${before}${clock}59-07:11`))).not.toBe(NONE);
    expect(walk(`${before}${clock}61`)).toBe(DEAD);
  }
});
