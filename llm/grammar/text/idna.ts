import { complement, intersect, union } from './combine.ts';
import type { Language } from './language.ts';
import { atMost } from './lengths.ts';
import { complement as others, points, property, union as joined, type Points } from './points.ts';
import { regex } from './regex.ts';

/**
 * Internationalised host names: labels of ASCII, and U-labels of IDNA 2008 (RFC 5890 to 5893), between any of the four
 * dots of RFC 3490. The classes of characters are computed from the Unicode that the platform has. Where a rule cannot be
 * told by a small automaton, a stricter one stands for it, so that no invalid name is in the language; IDNA_GAPS says which.
 */
export function idnHostname(label: string): Language {
  const valid = permitted();
  const labels = `(?:${label}|[${written(valid)}]{1,${LONGEST}})`;
  const forbidden = [
    `${BEGIN}\\p{M}`,
    `${BEGIN}-`,
    `-${END}`,
    // Labels of ASCII that are not what they seem, xn-- among them.
    `${BEGIN}[^${DOTS}]{2}--`,
    ...contextual(),
    ...denormal(valid),
  ];
  return intersect(
    regex(`^${labels}(?:[${DOTS}]${labels})*$`),
    complement(regex(forbidden.join('|'))),
    bidirectional(valid),
    // At most four labels of at most 63 octets, or ASCII.
    union(regex(`^(?:[^${DOTS}]*[${DOTS}]){0,3}[^${DOTS}]*$`), regex(`^[\\0-\\x7f${DOTS}]*$`)),
    atMost(253),
  );
}

export const IDNA_GAPS =
  'labels that begin with xn-- (that they are Punycode of a valid label, no small automaton can tell); labels beyond ' +
  'ASCII of more than 11 code points (their ASCII form may be too long) and names of more than four labels with such; ' +
  'marks that compose with what stands before them or that follow one another (they may be out of normal form); ' +
  'the non-joiner between Arabic letters other than the common ones; rare characters in names that are read from right to left';

const DOTS = '.\u3002\uff0e\uff61';
const BEGIN = `(?:^|[${DOTS}])`;
const END = `(?:$|[${DOTS}])`;

/** So many code points beyond ASCII never make more than 63 octets of ASCII: up to 6 the first, up to 5 each other one, and xn--. */
const LONGEST = 11;

/** RFC 5892: PVALID by its rules and its exceptions, CONTEXTO and CONTEXTJ. */
function permitted(): Points {
  const letters = named('Ll', 'Lu', 'Lo', 'Nd', 'Lm', 'Mn', 'Mc');
  const unstable = named('Changes_When_NFKC_Casefolded', 'Default_Ignorable_Code_Point', 'White_Space');
  const blocks: Points = [
    [0x1100, 0x11ff],
    [0x20d0, 0x20ff],
    [0xa960, 0xa97f],
    [0xd7b0, 0xd7ff],
    [0x1d100, 0x1d24f],
  ];
  const allowed = points('-\u00df\u03c2\u06fd\u06fe\u0f0b\u3007\u00b7\u0375\u05f3\u05f4\u30fb\u200c\u200d');
  const disallowed = points('\u0640\u07fa\u302e\u302f\u3031\u3032\u3033\u3034\u3035\u303b');
  return without(joined(without(letters, joined(unstable, blocks)), allowed), disallowed);
}

/** RFC 5892, appendix A: characters where they must not stand. */
function contextual(): readonly string[] {
  const viramas = written(marks().filter(([mark]) => isVirama(mark)));
  // Of the joining types of Unicode, letters that join on both sides, and those that join at all.
  const dual = '\u0626\u0628\u062a-\u062e\u0633-\u063a\u0641-\u0647\u0649\u064a\u067e\u0686\u06a9\u06af\u06cc';
  const joining = `${dual}\u0622-\u0625\u0627\u0629\u062f-\u0632\u0648\u0698`;
  const asian = '\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Han}';
  const [arabic, extended] = ['\u0660-\u0669', '\u06f0-\u06f9'];
  return [
    `(?:^|[^${viramas}])\u200d`,
    `(?:^|[^${viramas}${dual}])\u200c`,
    `[${dual}]\u200c(?:$|[^${joining}])`,
    `(?:^|[^l])\u00b7`,
    `\u00b7(?:$|[^l])`,
    `\u0375(?:$|\\P{Script=Greek})`,
    `(?:^|\\P{Script=Hebrew})[\u05f3\u05f4]`,
    `${BEGIN}[^${asian}${DOTS}]*\u30fb[^${asian}${DOTS}]*${END}`,
    `[${arabic}][^${DOTS}]*[${extended}]|[${extended}][^${DOTS}]*[${arabic}]`,
  ];
}

/** What may be out of Normalization Form C. */
function denormal(valid: Points): readonly string[] {
  const composing = new Set<number>();
  for (const [from, to] of joined(named('L', 'M'))) {
    for (let codePoint = from; codePoint <= to; codePoint += 1) {
      const [, ...behind] = String.fromCodePoint(codePoint).normalize('NFD');
      for (const character of behind) composing.add(character.codePointAt(0)!);
    }
  }
  const backward = joined([...composing].map((codePoint) => [codePoint, codePoint] as const));
  const ordered = written(joined(marks()));
  return [`[${written(without(backward, others(valid)))}]`, `[${ordered}]{2}`];
}

/** RFC 5893: a name with a character of right to left keeps the Bidi rule in each of its labels. */
function bidirectional(valid: Points): Language {
  const blocks: Points = [
    [0x590, 0x8ff],
    [0xfb1d, 0xfdff],
    [0xfe70, 0xfeff],
    [0x10800, 0x10fff],
    [0x1e800, 0x1efff],
  ];
  const european = '0-9\u06f0-\u06f9';
  const arabic = '\u0660-\u0669';
  const digits: Points = [
    [0x660, 0x669],
    [0x6f0, 0x6f9],
  ];
  const letters = joined(named('L'), points('\u05f3\u05f4\u06fd\u06fe'));
  const rightwards = written(within(valid, within(blocks, letters)));
  const leftwards = written(within(valid, without(joined(named('Ll', 'Lo')), blocks)));
  const numbers = written(within(valid, without(named('Nd'), blocks)));
  // Marks of other scripts are not all without a direction.
  const marks = (set: Points): string => `${written(within(valid, within(named('Mn'), set)))}\u200c\u200d-`;
  const rtl = (digit: string): string =>
    `[${rightwards}][${rightwards}${digit}${marks(joined(blocks, named('Script=Inherited')))}]*`;
  const ltr = `[A-Z${leftwards}](?:[A-Z${leftwards}${numbers}${marks(others(blocks))}])*`;
  // Both end as they should where no label ends with a hyphen or a joiner.
  const label = `(?:${rtl(european)}|${rtl(arabic)}|${ltr})`;
  return union(
    regex(`^[^${written(without(blocks, joined(digits.slice(1))))}]*$`),
    intersect(regex(`^${label}(?:[${DOTS}]${label})*$`), complement(regex(`[\u200c\u200d]${END}`))),
  );
}

/** Marks that normalization puts in order (of a combining class that is not 0), each on its own. */
function marks(): Points {
  return named('M')
    .flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, i) => from + i))
    .filter((mark) => reorders(mark, OVERLAY) || reorders(ABOVE, mark))
    .map((mark) => [mark, mark] as const);
}

/** Marks of the combining classes 1, the least, and 230. */
const OVERLAY = 0x334;
const ABOVE = 0x301;

/** Of the combining class 9, between 8 and 10. */
function isVirama(mark: number): boolean {
  return reorders(mark, 0x3099) && reorders(0x5b0, mark);
}

/** Whether normalization puts the second mark first, as it does where its combining class is less (and not 0). */
function reorders(first: number, second: number): boolean {
  const text = String.fromCodePoint(first, second);
  return `a${text}`.normalize('NFD') === `a${String.fromCodePoint(second, first)}`;
}

function named(...properties: readonly string[]): Points {
  return joined(...properties.map((name) => property(name)!));
}

function within(one: Points, other: Points): Points {
  return others(joined(others(one), others(other)));
}

function without(one: Points, other: Points): Points {
  return within(one, others(other));
}

/** As they stand in a class of a pattern. */
function written(set: Points): string {
  return set.map(([from, to]) => `\\u{${from.toString(16)}}-\\u{${to.toString(16)}}`).join('');
}
