import fs from 'node:fs';
import { domainToASCII } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { format, GAPS } from '../../../../llm/grammar/text/formats.ts';
import { DEAD, NONE, type Language } from '../../../../llm/grammar/text/language.ts';
import { accepts } from './languages.ts';

const SEED = 23;

const NAMES = [
  ...['date-time', 'date', 'time', 'duration', 'email', 'idn-email', 'hostname', 'idn-hostname', 'ipv4', 'ipv6', 'uri'],
  ...['uri-reference', 'iri', 'iri-reference', 'uuid', 'uri-template', 'json-pointer', 'relative-json-pointer'],
];

const FOLDER = new URL(
  '../../../../../shared/data/json-schema-test-suite/draft2020-12/optional/format/',
  import.meta.url,
);
if (!fs.existsSync(FOLDER))
  console.log(`formats against the official suite: skipped, as there is no ${FOLDER.pathname}`);

/** What the suite calls valid and GAPS leaves out. */
const isGap = (name: string, text: string): boolean =>
  (name.endsWith('hostname') && /^xn--/i.test(text)) ||
  (name === 'idn-hostname' && text.startsWith('παράδειγμαπαράδειγμα'));

interface Group {
  readonly tests: readonly { readonly description: string; readonly data: unknown; readonly valid: boolean }[];
}

describe.skipIf(!fs.existsSync(FOLDER))('the official suite', () => {
  test.each(NAMES)('%s', (name) => {
    const groups = JSON.parse(fs.readFileSync(new URL(`${name}.json`, FOLDER), 'utf8')) as Group[];
    const language = format(name)!;
    const wrong = groups
      .flatMap((group) => group.tests)
      .filter(
        ({ data, valid }) => typeof data === 'string' && accepts(language, data) !== (valid && !isGap(name, data)),
      );
    expect(wrong).toEqual([]);
  });
});

test('unknown formats are none, and "regex" is refused by name', () => {
  expect(format('colour')).toBe(null);
  expect(format('constructor')).toBe(null);
  expect(() => format('regex')).toThrow('format "regex" cannot be asserted');
  for (const name of Object.keys(GAPS)) expect(NAMES).toContain(name);
});

test('dates are the days that the calendar has', () => {
  const language = format('date')!;
  const two = (part: number): string => String(part).padStart(2, '0');
  for (const year of [0, 4, 100, 400, 1900, 1970, 2000, 2023, 2024, 2100, 9996, 9999]) {
    for (let month = 0; month <= 13; month += 1) {
      for (let day = 0; day <= 32; day += 1) {
        const date = new Date(0);
        date.setUTCFullYear(year, month - 1, day);
        const exists = date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
        const text = `${String(year).padStart(4, '0')}-${two(month)}-${two(day)}`;
        expect(accepts(language, text), text).toBe(exists);
      }
    }
  }
});

test('a leap second ends a day of UTC, in every offset', () => {
  const language = format('time')!;
  const part = fc.nat(60).map((n) => String(n).padStart(2, '0'));
  const two = (minutes: number): string => String(minutes).padStart(2, '0');
  fc.assert(
    fc.property(
      part,
      part,
      fc.constantFrom('+', '-'),
      part,
      part,
      fc.boolean(),
      (hour, minute, sign, hours, minutes, meant) => {
        const offset = (Number(hours) * 60 + Number(minutes)) * (sign === '+' ? 1 : -1);
        const local = (((24 * 60 - 1 + offset) % 1440) + 1440) % 1440;
        const clock = meant ? `${two(Math.floor(local / 60))}:${two(local % 60)}` : `${hour}:${minute}`;
        const inRange = Number(hours) < 24 && Number(minutes) < 60;
        const expected = inRange && clock === `${two(Math.floor(local / 60))}:${two(local % 60)}`;
        expect(accepts(language, `${clock}:60${sign}${hours}:${minutes}`)).toBe(expected);
      },
    ),
    { seed: SEED, numRuns: 5000 },
  );
});

/** Texts of the language, by a walk that takes any range and any code point of it. */
function sample(language: Language, choose: (count: number) => number, longest: number): string | null {
  let state = language.start;
  let text = '';
  for (let length = 0; length < longest; length += 1) {
    if (language.label(state) !== NONE && choose(6) === 0) return text;
    const ranges = language.ranges(state);
    if (ranges.length === 0) break;
    const { from, to, state: next } = ranges[choose(ranges.length)]!;
    text += String.fromCodePoint(from + choose(to - from + 1));
    state = next;
  }
  return state !== DEAD && language.label(state) !== NONE ? text : null;
}

test('what is sampled from a format, other readers take for one', () => {
  let names = 0;
  const readers: readonly (readonly [string, (text: string) => boolean])[] = [
    ['date-time', (text) => !Number.isNaN(Date.parse(text.toUpperCase().replace(/:60/, ':59')))],
    ['uri', (text) => /^(https?|ftp|wss?|file):/i.test(text) || URL.canParse(text)],
    ['ipv6', (text) => URL.canParse(`http://[${text}]/`)],
    ['ipv4', (text) => new URL(`http://${text}/`).hostname === text],
    ['hostname', (text) => text.length <= 253 && text.split('.').every((label) => label.length <= 63)],
    [
      'idn-hostname',
      (text) => {
        // Characters newer than that reader's Unicode say nothing; nor do numbers, which it takes for addresses.
        const known = (label: string): boolean => {
          const before = /[\u0590-\u08ff\ufb1d-\ufdff\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u.test(label) ? 'א' : 'a';
          return [...label].every((character) => domainToASCII(before + character) !== '');
        };
        if (!text.split(/[.\u3002\uff0e\uff61]/).every(known)) return true;
        if (/(?:^|[.\u3002\uff0e\uff61])(?:\d+|0x[\da-f]*)$/.test(text)) return true;
        names += 1;
        const ascii = domainToASCII(text);
        const dotted = text.replace(/[\u3002\uff0e\uff61]/g, '.');
        const short = ascii.length <= 253 && ascii.split('.').every((label) => label.length <= 63);
        return ascii !== '' && short && dotted.normalize('NFC') === dotted;
      },
    ],
  ];
  for (const [name, reads] of readers) {
    let seed = SEED;
    const choose = (count: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * count);
    };
    const texts = Array.from({ length: 400 }, () => sample(format(name)!, choose, 60)).filter((text) => text !== null);
    expect(texts.length, name).toBeGreaterThan(100);
    expect(
      texts.filter((text) => !reads(text)),
      name,
    ).toEqual([]);
  }
  expect(names).toBeGreaterThan(100);
});
