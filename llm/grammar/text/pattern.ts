import { Unsupported } from '../refusal.ts';
import { complement, points, property, union, type Points } from './points.ts';

/** A regular expression's syntax tree. Groups are gone, and so is greed: neither changes which texts match. */
export type Pattern =
  | { readonly kind: 'set'; readonly points: Points }
  | { readonly kind: 'sequence' | 'choice'; readonly of: readonly Pattern[] }
  /** `max` may be Infinity. */
  | { readonly kind: 'repeat'; readonly of: Pattern; readonly min: number; readonly max: number }
  /** `^`, `$`, `\b`, `\B`. */
  | { readonly kind: 'start' | 'end' | 'boundary' | 'inside' };

const DIGIT: Points = [[0x30, 0x39]];
export const WORD: Points = union(DIGIT, [[0x41, 0x5a]], [[0x5f, 0x5f]], [[0x61, 0x7a]]);
const LINE_END = points('\n\r\u2028\u2029');
const SPACE = union(points('\t\v\f \u00a0\u1680\u202f\u205f\u3000\ufeff'), [[0x2000, 0x200a]], LINE_END);
const CLASSES: Readonly<Record<string, Points>> = {
  d: DIGIT,
  D: complement(DIGIT),
  w: WORD,
  W: complement(WORD),
  s: SPACE,
  S: complement(SPACE),
};
const CONTROLS: Readonly<Record<string, number>> = { 0: 0, t: 0x09, n: 0x0a, v: 0x0b, f: 0x0c, r: 0x0d };

/** How deep groups may stand in groups. */
const DEPTH = 250;
/** The largest count in `{m,n}`. */
const COUNT = 2 ** 31 - 1;

/**
 * The pattern's tree, with the meaning that ECMA-262 gives it under the flag `u`. Patterns that are none under `u`, as
 * many in schemas are (`\-`, `\_`, `[\w-.]`, a lone `]`), are read as without it where no other reading is likely:
 * punctuation stands for itself. Throws where the text is no pattern, and what is not supported is refused by name.
 */
export function parse(text: string): Pattern {
  return new Parser(text).parse();
}

class Parser {
  private readonly text: string;
  private readonly strict: boolean;
  private readonly ones = new Map<number, Points>();
  private place = 0;
  private depth = 0;

  constructor(text: string) {
    this.text = text;
    this.strict = problem(text, 'u') === null;
  }

  parse(): Pattern {
    const why = this.strict ? null : problem(this.text, '');
    if (why !== null) throw new Error(`[grammar] pattern ${JSON.stringify(this.text)} is none: ${why}`);
    return this.choice();
  }

  private get next(): string | undefined {
    return this.text[this.place];
  }

  /** Passes the text where it stands here. */
  private take(text: string): boolean {
    const here = this.text.startsWith(text, this.place);
    if (here) this.place += text.length;
    return here;
  }

  /** Passes what a sticky regular expression finds here. */
  private match(expression: RegExp): RegExpExecArray | null {
    expression.lastIndex = this.place;
    const match = expression.exec(this.text);
    if (match) this.place = expression.lastIndex;
    return match;
  }

  private character(): number {
    const codePoint = this.text.codePointAt(this.place)!;
    this.place += codePoint > 0xffff ? 2 : 1;
    return codePoint;
  }

  /** The same object for the same code point, as long literals have many. */
  private one(codePoint: number): Points {
    let set = this.ones.get(codePoint);
    if (!set) this.ones.set(codePoint, (set = [[codePoint, codePoint]]));
    return set;
  }

  private refusal(problem: string): Unsupported {
    const shown = this.text.length > 80 ? `${this.text.slice(0, 80)}…` : this.text;
    return new Unsupported(`[grammar] pattern ${JSON.stringify(shown)}: ${problem}`);
  }

  private choice(): Pattern {
    const of = [this.sequence()];
    while (this.take('|')) of.push(this.sequence());
    return of.length === 1 ? of[0]! : { kind: 'choice', of };
  }

  private sequence(): Pattern {
    const of: Pattern[] = [];
    while (this.next !== undefined && this.next !== '|' && this.next !== ')') {
      of.push(this.quantified(this.atom()));
    }
    return of.length === 1 ? of[0]! : { kind: 'sequence', of };
  }

  private quantified(of: Pattern): Pattern {
    const counts = this.counts();
    if (!counts) return of;
    const [min, max] = counts;
    if (min > COUNT || (max > COUNT && max < Infinity)) {
      throw this.refusal(`a count over ${COUNT} is not supported; without an upper bound it is written {m,}`);
    }
    this.take('?'); // lazy: the same texts
    return { kind: 'repeat', of, min, max };
  }

  private counts(): readonly [min: number, max: number] | null {
    if (this.take('*')) return [0, Infinity];
    if (this.take('+')) return [1, Infinity];
    if (this.take('?')) return [0, 1];
    const match = this.match(/\{(\d+)(?:(,)(\d*))?\}/y);
    if (!match) {
      if (this.match(/\{,\d*\}/y)) throw this.refusal('a count without its lower bound stands for itself; write {0,n}');
      return null;
    }
    const [, min, comma, max] = match;
    return [Number(min), max ? Number(max) : comma ? Infinity : Number(min)];
  }

  private atom(): Pattern {
    if (this.take('^')) return { kind: 'start' };
    if (this.take('$')) return { kind: 'end' };
    if (this.take('\\b')) return { kind: 'boundary' };
    if (this.take('\\B')) return { kind: 'inside' };
    if (this.take('(')) return this.group();
    return { kind: 'set', points: this.set() };
  }

  private group(): Pattern {
    if (this.take('?=') || this.take('?!')) throw this.refusal('look-ahead, (?= and (?!, is not supported');
    if (this.take('?<=') || this.take('?<!')) throw this.refusal('look-behind, (?<= and (?<!, is not supported');
    if (!this.take('?:') && this.take('?') && !this.match(/<[^>]*>/y)) {
      throw this.refusal('flags inside the pattern, (?i:, are not supported; name both cases, [Aa]');
    }
    this.depth += 1;
    if (this.depth > DEPTH) throw this.refusal(`groups in groups are more than ${DEPTH} deep`);
    const pattern = this.choice();
    this.depth -= 1;
    this.take(')');
    return pattern;
  }

  private set(): Points {
    if (this.take('.')) return complement(LINE_END);
    if (this.take('[')) return this.characterClass();
    if (this.next === '\\') return this.escape(false);
    return this.one(this.character());
  }

  private characterClass(): Points {
    const negated = this.take('^');
    if (!this.strict && this.match(/[^\]]*\[:\^?\w+:\]/y))
      throw this.refusal('classes such as [:alpha:] are not supported; write [a-zA-Z]');
    const parts: Points[] = [];
    while (!this.take(']')) {
      const first = this.classAtom();
      if (this.match(/-(?!\])/y)) {
        const last = this.classAtom();
        const from = single(first);
        const to = single(last);
        // Where one end is a class such as \w, the dash stands for itself.
        parts.push(...(from === null || to === null ? [first, points('-'), last] : [[[from, to]] as Points]));
      } else parts.push(first);
    }
    const set = union(...parts);
    return negated ? complement(set) : set;
  }

  private classAtom(): Points {
    return this.next === '\\' ? this.escape(true) : this.one(this.character());
  }

  private escape(inClass: boolean): Points {
    this.place += 1;
    const set = this.match(/[dDwWsS]/y);
    if (set) return CLASSES[set[0]]!;
    const named = this.match(/([pP])\{([^}]*)\}/y);
    if (named) {
      const found = property(named[2]!);
      if (!found) throw this.refusal(`there is no Unicode property \\p{${named[2]}}`);
      return named[1] === 'P' ? complement(found) : found;
    }
    const codePoint = this.codePoint(inClass);
    return this.one(codePoint);
  }

  private codePoint(inClass: boolean): number {
    const hexadecimal =
      this.match(/u\{([\da-fA-F]+)\}/y) ?? this.match(/u([\da-fA-F]{4})/y) ?? this.match(/x([\da-fA-F]{2})/y);
    if (hexadecimal) {
      const unit = parseInt(hexadecimal[1]!, 16);
      if (unit > 0x10ffff) throw this.refusal(`\\${hexadecimal[0]} is no code point`);
      const high = hexadecimal[0].length === 5 && unit >= 0xd800 && unit <= 0xdbff;
      const low = high ? this.match(/\\u(d[c-f][\da-f]{2})/iy) : null;
      return low ? 0x10000 + (unit - 0xd800) * 0x400 + (parseInt(low[1]!, 16) - 0xdc00) : unit;
    }
    const control = this.match(/c([a-zA-Z])/y);
    if (control) return control[1]!.codePointAt(0)! % 32;
    if (inClass && this.take('b')) return 0x08;
    const digits = this.match(/(?:[1-9]\d*|0\d+)/y);
    if (digits) throw this.refusal(`\\${digits[0]}: back-references and octal escapes are not supported`);
    const letter = this.match(/[\dA-Za-z]/y)?.[0];
    if (letter === 'k') throw this.refusal('back-references, \\k, are not supported');
    const character = letter === undefined ? this.character() : CONTROLS[letter];
    if (character === undefined) throw this.refusal(`ECMA-262 has no escape \\${letter}`);
    return character;
  }
}

/** The one code point of a set, null where there are others. */
function single(set: Points): number | null {
  return set.length === 1 && set[0]![0] === set[0]![1] ? set[0]![0] : null;
}

/** Why the platform does not take the text for a pattern; null where it does. */
function problem(text: string, flags: string): string | null {
  try {
    new RegExp(text, flags);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
