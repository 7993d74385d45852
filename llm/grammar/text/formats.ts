import { Unsupported } from '../refusal.ts';
import { complement, intersect } from './combine.ts';
import { IDNA_GAPS, idnHostname } from './idna.ts';
import type { Language } from './language.ts';
import { leapSeconds } from './leap.ts';
import { atMost } from './lengths.ts';
import { regex } from './regex.ts';

/**
 * The texts of a format of JSON Schema 2020-12 (chapter 7.3 of its validation part), as the document says that defines it:
 * no text that the format does not allow is in the language, and GAPS names those that it allows and the language leaves
 * out. Null where the name is unknown, which is then an annotation alone. Throws for `regex`: which texts are regular
 * expressions no automaton can tell, as parentheses nest.
 */
export function format(name: string): Language | null {
  const make = Object.hasOwn(FORMATS, name) ? FORMATS[name] : undefined;
  if (!make) return null;
  let language = made.get(name);
  if (!language) made.set(name, (language = make()));
  return language;
}

const made = new Map<string, Language>();

/** What a format allows and its language does not hold. */
export const GAPS: Readonly<Record<string, string>> = {
  hostname: 'labels that begin with xn--: that they are Punycode of a valid label, no small automaton can tell',
  'idn-hostname': IDNA_GAPS,
};

/** Of a whole text. */
function exactly(pattern: string): Language {
  return regex(`^(?:${pattern})$`);
}

// RFC 3339, 5.6 and appendix A.
const LEAP_YEAR = '(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)';
const DATE =
  `(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))` +
  `|${LEAP_YEAR}-02-29)`;
const HOUR = '(?:[01]\\d|2[0-3])';
const FRACTION = '(?:\\.\\d+)?';

/** Behind `before`, which is empty or a date and a letter. A second 60 ends a day of UTC, whatever the offset. */
function time(before: string): Language {
  const second = '(?:[0-5]\\d|60)';
  const whole = `${HOUR}:[0-5]\\d:${second}${FRACTION}(?:[Zz]|[+-]${HOUR}:[0-5]\\d)`;
  return intersect(exactly(before + whole), leapSeconds(before === '' ? 0 : 'yyyy-mm-ddT'.length));
}

function duration(): string {
  const minutes = '\\d+M(?:\\d+S)?';
  const time = `T(?:\\d+H(?:${minutes})?|${minutes}|\\d+S)`;
  const months = '\\d+M(?:\\d+D)?';
  return `P(?:(?:\\d+Y(?:${months})?|${months}|\\d+D)(?:${time})?|${time}|\\d+W)`;
}

// RFC 2673, 3.2, and RFC 3986, 3.2.2 (which says what RFC 4291 says, in a grammar).
const OCTET = '(?:\\d|[1-9]\\d|1\\d\\d|2[0-4]\\d|25[0-5])';
const IPV4 = `(?:${OCTET}(?:\\.${OCTET}){3})`;
const IPV6 = ipv6();

function ipv6(): string {
  const group = '[\\dA-Fa-f]{1,4}';
  const last = `(?:${group}:${group}|${IPV4})`;
  const whole = `(?:${group}:){6}${last}`;
  // "::" stands for one group or more; before it there are so many, and behind it as many as may be left at most.
  const shortened = Array.from({ length: 8 }, (_, before) => {
    const left = before === 0 ? '' : before === 1 ? `(?:${group})?` : `(?:(?:${group}:){0,${before - 1}}${group})?`;
    const behind = 7 - before;
    if (behind === 0) return `${left}::`;
    return behind === 1 ? `${left}::${group}` : `${left}::(?:${group}:){${behind - 2}}${last}`;
  });
  return `(?:${[whole, ...shortened].join('|')})`;
}

// RFC 1123, 2.1, and RFC 5321, 4.1.2.
const LABEL = '[\\dA-Za-z](?:[\\dA-Za-z-]{0,61}[\\dA-Za-z])?';
const HOST = `${LABEL}(?:\\.${LABEL})*`;

function hostname(): Language {
  return intersect(exactly(HOST), atMost(253), complement(regex('(?:^|\\.)[Xx][Nn]--')));
}

function email(letters: string): string {
  const atom = `[\\dA-Za-z!#$%&'*+\\/=?^_\`{|}~${letters}-]+`;
  const quoted = `"(?:[ !#-[\\]-~${letters}]|\\\\[ -~])*"`;
  const label = `[\\dA-Za-z${letters}](?:[\\dA-Za-z${letters}-]{0,61}[\\dA-Za-z${letters}])?`;
  return `(?:${atom}(?:\\.${atom})*|${quoted})@(?:${label}(?:\\.${label})*|\\[(?:${IPV4}|IPv6:${IPV6})\\])`;
}

// RFC 3986, appendix A, and RFC 3987, 2.2, without the formatting characters that its 4.1 forbids.
const UCS =
  '\\u{a0}-\\u{200d}\\u{2010}-\\u{2029}\\u{202f}-\\u{d7ff}\\u{f900}-\\u{fdcf}\\u{fdf0}-\\u{ffef}' +
  Array.from({ length: 14 }, (_, i) => {
    const plane = (i + 1).toString(16);
    return `\\u{${plane}${plane === 'e' ? '1' : '0'}000}-\\u{${plane}fffd}`;
  }).join('');
const PRIVATE = '\\u{e000}-\\u{f8ff}\\u{f0000}-\\u{ffffd}\\u{100000}-\\u{10fffd}';
const PERCENT = '%[\\dA-Fa-f]{2}';

/** `letters` and `inQuery` are what IRIs have beyond ASCII. */
function uri(letters: string, inQuery: string, relative: boolean): string {
  const unreserved = `\\dA-Za-z._~${letters}-`;
  const delimiters = "!$&'()*+,;=";
  const character = (more: string): string => `(?:[${more}${delimiters}${unreserved}]|${PERCENT})`;
  const segment = character(':@');
  const future = `[Vv][\\dA-Fa-f]+\\.[:${delimiters}\\dA-Za-z._~-]+`;
  const host = `(?:\\[(?:${IPV6}|${future})\\]|${character('')}*)`;
  const authority = `(?:${character(':')}*@)?${host}(?::\\d*)?`;
  const rooted = `\\/(?:${segment}+(?:\\/${segment}*)*)?`;
  const tail = `(?:\\?(?:${character(`:@\\/?${inQuery}`)})*)?(?:#(?:${character(':@\\/?')})*)?`;
  const path = (first: string): string =>
    `(?:\\/\\/${authority}(?:\\/${segment}*)*|${rooted}|${first}+(?:\\/${segment}*)*|)`;
  const absolute = `[A-Za-z][\\dA-Za-z+.-]*:${path(segment)}${tail}`;
  return relative ? `(?:${absolute}|${path(character('@'))}${tail})` : absolute;
}

// RFC 6570, 2 (with erratum 6937: an apostrophe is a literal); operators that it reserves are left out.
function uriTemplate(): string {
  const letter = `(?:\\w|${PERCENT})`;
  const variable = `${letter}(?:\\.?${letter})*(?::[1-9]\\d{0,3}|\\*)?`;
  const expression = `\\{[+#.\\/;?&]?${variable}(?:,${variable})*\\}`;
  return `(?:[!#$&-;=?-[\\]_a-z~${UCS}${PRIVATE}]|${PERCENT}|${expression})*`;
}

// RFC 6901, 3.
const POINTER = '(?:\\/(?:[^~\\/]|~[01])*)*';

const BEYOND_ASCII = '\\u{80}-\\u{10ffff}';

const FORMATS: Readonly<Record<string, () => Language>> = {
  'date-time': () => time(`${DATE}[Tt]`),
  date: () => exactly(DATE),
  time: () => time(''),
  duration: () => exactly(duration()),
  email: () => exactly(email('')),
  'idn-email': () => exactly(email(BEYOND_ASCII)),
  hostname,
  'idn-hostname': () => idnHostname(LABEL),
  ipv4: () => exactly(IPV4),
  ipv6: () => exactly(IPV6),
  uri: () => exactly(uri('', '', false)),
  'uri-reference': () => exactly(uri('', '', true)),
  iri: () => exactly(uri(UCS, PRIVATE, false)),
  'iri-reference': () => exactly(uri(UCS, PRIVATE, true)),
  'uri-template': () => exactly(uriTemplate()),
  // RFC 4122, 3.
  uuid: () => exactly('[\\dA-Fa-f]{8}-(?:[\\dA-Fa-f]{4}-){3}[\\dA-Fa-f]{12}'),
  'json-pointer': () => exactly(POINTER),
  'relative-json-pointer': () => exactly(`(?:0|[1-9]\\d*)(?:#|${POINTER})`),
  regex: () => {
    throw new Unsupported(
      '[grammar] format "regex" cannot be asserted: which texts are regular expressions no automaton can tell; ' +
        'let formats annotate, or give a pattern',
    );
  },
};
