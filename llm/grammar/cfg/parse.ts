/**
 * Context-free grammars as text, in the notation of llama.cpp (GBNF):
 *
 *   # from here to the end of the line is a comment
 *   root   ::= "begin" (item | number)* "end"    a rule; the language is that of `root`
 *   item   ::= a b | c                           one after the other; alternatives
 *   "text\n"                                     these characters
 *   [a-z_\u00e9-\u00ff]  [^"\\]                  one character of these; one that is none of them
 *   .                                            any one character, line ends too
 *   x?  x*  x+  x{3}  x{3,}  x{3,5}              repeated
 *   word   ::= [a-z]+ - ("if" | "else")          all texts of the left side that are not texts of the right
 *
 * Escapes, in texts and classes: \n \r \t \\ \" \[ \] \- \^ \xHH \uHHHH \UHHHHHHHH (a code point each). Names of rules are
 * letters, digits, - and _, and begin with a letter. Line ends mean nothing: a rule reaches to the next `name ::=`.
 * `-` binds tighter than `|` and looser than sequences; both its sides must be regular (no rule that leads back to itself).
 * It is not llama.cpp's, it is that of the W3C's EBNF; names without reserved words need it. llama.cpp's tokens (`<[7]>`)
 * are refused: a grammar is about text.
 *
 * Characters are code points; a text's UTF-8 is what is generated. Left recursion, ambiguity and rules that derive the
 * empty text are fine. A rule that nobody uses is, too.
 */
export interface Grammar {
  readonly rules: readonly Rule[];
  /** The place of `root` among the rules. */
  readonly root: number;
}

export interface Rule {
  readonly name: string;
  /** The line that it begins on, from 1 on. */
  readonly line: number;
  readonly body: Expression;
}

export type Expression =
  | { readonly kind: 'class'; readonly ranges: readonly CodePoints[] }
  | { readonly kind: 'sequence' | 'choice'; readonly of: readonly Expression[] }
  | { readonly kind: 'repeat'; readonly of: Expression; readonly least: number; readonly most: number }
  | { readonly kind: 'difference'; readonly of: Expression; readonly without: Expression }
  /** A rule, by its place. */
  | { readonly kind: 'call'; readonly rule: number };

/** Code points from one to another, both included. */
export interface CodePoints {
  readonly from: number;
  readonly to: number;
}

export const LAST = 0x10ffff;
/** Groups in groups; recursion would overflow the stack somewhere behind it. */
const DEEPEST = 500;
const MOST_REPEATS = 10_000;
/** Rules that call each other in a chain are followed by recursion, too. */
const MOST_RULES = 10_000;

/** Reads a grammar. Errors say where: line and column count from 1, columns in code points. */
export function parse(text: string): Grammar {
  const grammar = new Parser(text).grammar();
  refuseEmpty(grammar.rules);
  return grammar;
}

/** The same grammar, followed by `end`. */
export function followedBy(grammar: Grammar, end: string): Grammar {
  const body: Expression = { kind: 'sequence', of: [{ kind: 'call', rule: grammar.root }, literal(codePoints(end))] };
  const { line } = grammar.rules[grammar.root]!;
  return { rules: [...grammar.rules, { name: `root ${JSON.stringify(end)}`, line, body }], root: grammar.rules.length };
}

function codePoints(text: string): number[] {
  return Array.from(text, (character) => character.codePointAt(0)!);
}

function literal(codePoints: readonly number[]): Expression {
  return { kind: 'sequence', of: codePoints.map((from) => ({ kind: 'class', ranges: [{ from, to: from }] })) };
}

class Parser {
  private readonly characters: readonly string[];
  private at = 0;
  private depth = 0;
  /** The line behind so many characters. */
  private line = 1;
  private counted = 0;
  /** Rules by name: their places, given where they are met first, and where that was. */
  private readonly places = new Map<string, { readonly place: number; readonly met: number }>();
  private readonly rules: (Rule | undefined)[] = [];

  constructor(text: string) {
    this.characters = Array.from(text);
  }

  grammar(): Grammar {
    this.space();
    while (this.at < this.characters.length) this.rule();
    const rules = [...this.places].map(([name, { place, met }]) => {
      const rule = this.rules[place];
      if (!rule) throw this.error(`no rule is named "${name}"; write ${name} ::= …`, met);
      return rule;
    });
    const root = this.places.get('root');
    if (!root) throw this.error('there is no rule named root, with which every text begins', 0);
    return { rules, root: root.place };
  }

  private rule(): void {
    const met = this.at;
    const name = this.name();
    if (name === null) throw this.error(`a rule was expected (name ::= …), not ${this.here()}`);
    this.space();
    if (!this.take('::=')) throw this.error(`::= was expected behind "${name}", not ${this.here()}`);
    this.space();
    const place = this.place(name, met);
    if (this.rules[place]) throw this.error(`rule "${name}" is there already; join them with |`, met);
    for (; this.counted < met; this.counted++) if (this.characters[this.counted] === '\n') this.line += 1;
    this.rules[place] = { name, line: this.line, body: this.choice() };
    if (this.at < this.characters.length && !this.atRule()) {
      throw this.error(`a rule or what it is made of was expected, not ${this.here()}`);
    }
  }

  private choice(): Expression {
    const of = [this.difference()];
    while (this.take('|')) {
      this.space();
      of.push(this.difference());
    }
    return of.length === 1 ? of[0]! : { kind: 'choice', of };
  }

  private difference(): Expression {
    let left = this.sequence();
    while (this.take('-')) {
      this.space();
      left = { kind: 'difference', of: left, without: this.sequence() };
    }
    return left;
  }

  private sequence(): Expression {
    const of: Expression[] = [];
    for (let one = this.repeated(); one !== null; one = this.repeated()) of.push(one);
    return of.length === 1 ? of[0]! : { kind: 'sequence', of };
  }

  private repeated(): Expression | null {
    let expression = this.single();
    if (expression === null) return null;
    for (;;) {
      this.space();
      const start = this.at;
      if (this.take('?')) expression = { kind: 'repeat', of: expression, least: 0, most: 1 };
      else if (this.take('*')) expression = { kind: 'repeat', of: expression, least: 0, most: Infinity };
      else if (this.take('+')) expression = { kind: 'repeat', of: expression, least: 1, most: Infinity };
      else if (this.take('{')) expression = { kind: 'repeat', of: expression, ...this.counts(start) };
      else return expression;
    }
  }

  /** Behind {: 3} or 3,} or 3,5} */
  private counts(start: number): { least: number; most: number } {
    this.space();
    const least = this.number();
    this.space();
    let most = least;
    if (this.take(',')) {
      this.space();
      most = this.peek() === '}' ? Infinity : this.number();
      this.space();
    }
    if (!this.take('}')) throw this.error(`a repetition is {3}, {3,} or {3,5}: } was expected, not ${this.here()}`);
    if (least > most) throw this.error(`{${least},${most}} repeats at least ${least} and at most ${most} times`, start);
    return { least, most };
  }

  private number(): number {
    const start = this.at;
    while (/^[0-9]$/.test(this.peek())) this.at += 1;
    if (this.at === start)
      throw this.error(`a repetition is {3}, {3,} or {3,5}: a number was expected, not ${this.here()}`);
    const value = Number(this.characters.slice(start, this.at).join(''));
    if (value > MOST_REPEATS) throw this.error(`${value} repetitions: at most ${MOST_REPEATS} are supported`, start);
    return value;
  }

  private single(): Expression | null {
    const start = this.at;
    if (this.take('"')) return this.literal(start);
    if (this.take('[')) return this.class(start);
    if (this.take('.')) return { kind: 'class', ranges: [{ from: 0, to: LAST }] };
    if (this.take('(')) {
      if (++this.depth > DEEPEST)
        throw this.error(`more than ${DEEPEST} groups in each other; name some as rules`, start);
      this.space();
      const inside = this.choice();
      if (!this.take(')')) throw this.error(`a group is not closed: ) was expected, not ${this.here()}`, start);
      this.depth -= 1;
      return inside;
    }
    const mark = this.peek();
    if (mark === '<' || mark === '!') {
      throw this.error(`${mark}: tokens (<[7]>, <name>) are not supported; a grammar is about text, in quotes`);
    }
    if (mark === '?' || mark === '*' || mark === '+' || mark === '{') {
      throw this.error(`${mark} has nothing before it to repeat; as a character it stands in quotes`);
    }
    if (this.atRule()) return null;
    const name = this.name();
    return name === null ? null : { kind: 'call', rule: this.place(name, start) };
  }

  private literal(start: number): Expression {
    const characters: number[] = [];
    while (!this.take('"')) {
      if (this.ended()) throw this.error('a text is not closed: " was expected before the line ends', start);
      characters.push(this.character());
    }
    return literal(characters);
  }

  private class(start: number): Expression {
    const negated = this.take('^');
    const ranges: CodePoints[] = [];
    while (!this.take(']')) {
      if (this.ended()) throw this.error('a class is not closed: ] was expected before the line ends', start);
      const place = this.at;
      const from = this.character();
      let to = from;
      if (this.peek() === '-' && this.characters[this.at + 1] !== ']') {
        this.at += 1;
        if (this.ended()) throw this.error('a class is not closed: ] was expected before the line ends', start);
        to = this.character();
      }
      if (to < from) throw this.error('a range runs from the lower character to the higher', place);
      ranges.push({ from, to });
    }
    const sorted = joined(ranges);
    const left = negated ? complement(sorted) : sorted;
    if (left.length === 0) throw this.error('a class without a character matches nothing', start);
    return { kind: 'class', ranges: left };
  }

  /** One character of a text or a class. */
  private character(): number {
    const start = this.at;
    const character = this.peek();
    this.at += 1;
    if (character !== '\\') return this.scalar(character.codePointAt(0)!, start);
    const escape = this.peek();
    this.at += 1;
    const simple = ESCAPES.get(escape);
    if (simple !== undefined) return simple;
    const digits = HEX_DIGITS.get(escape);
    if (digits === undefined) {
      throw this.error(
        `the escape \\${escape} is not known; \\n \\r \\t \\\\ \\" \\[ \\] \\- \\^ \\xHH \\uHHHH \\UHHHHHHHH are`,
        start,
      );
    }
    const hex = this.characters.slice(this.at, this.at + digits).join('');
    if (!/^[0-9a-fA-F]+$/.test(hex) || hex.length !== digits) {
      throw this.error(`\\${escape} is followed by ${digits} hexadecimal digits, not by "${hex}"`, start);
    }
    this.at += digits;
    return this.scalar(parseInt(hex, 16), start);
  }

  private scalar(codePoint: number, start: number): number {
    if (codePoint <= LAST && (codePoint < 0xd800 || codePoint > 0xdfff)) return codePoint;
    throw this.error(
      `U+${codePoint.toString(16)} is no character: surrogates and what is above U+10FFFF are not`,
      start,
    );
  }

  private place(name: string, met: number): number {
    let known = this.places.get(name);
    if (!known) {
      if (this.places.size >= MOST_RULES) throw this.error(`at most ${MOST_RULES} rules are supported`, met);
      this.places.set(name, (known = { place: this.places.size, met }));
    }
    return known.place;
  }

  private name(): string | null {
    if (!/^[A-Za-z]$/.test(this.peek())) return null;
    const start = this.at;
    while (/^[A-Za-z0-9_-]$/.test(this.peek())) this.at += 1;
    return this.characters.slice(start, this.at).join('');
  }

  /** Whether the next rule begins here: `name ::=`. */
  private atRule(): boolean {
    const start = this.at;
    const found = this.name() !== null && (this.space(), this.take('::='));
    this.at = start;
    return found;
  }

  private space(): void {
    for (;;) {
      const character = this.peek();
      if (character === '#') while (this.at < this.characters.length && this.peek() !== '\n') this.at += 1;
      else if (character !== '' && ' \t\r\n'.includes(character)) this.at += 1;
      else return;
    }
  }

  private peek(): string {
    return this.characters[this.at] ?? '';
  }

  private ended(): boolean {
    const character = this.peek();
    return character === '' || character === '\n' || character === '\r';
  }

  private take(text: string): boolean {
    for (let i = 0; i < text.length; i++) if (this.characters[this.at + i] !== text[i]) return false;
    this.at += text.length;
    return true;
  }

  private here(): string {
    return this.at < this.characters.length ? JSON.stringify(this.peek()) : 'the end';
  }

  private error(what: string, at = this.at): Error {
    const before = this.characters.slice(0, at);
    const line = before.filter((character) => character === '\n').length + 1;
    const column = at - before.lastIndexOf('\n');
    return new Error(`[grammar] line ${line}, column ${column}: ${what}`);
  }
}

const ESCAPES = new Map(
  Object.entries({ n: '\n', r: '\r', t: '\t', '\\': '\\', '"': '"', '[': '[', ']': ']', '-': '-', '^': '^' }).map(
    ([escape, character]) => [escape, character.codePointAt(0)!],
  ),
);
const HEX_DIGITS = new Map([
  ['x', 2],
  ['u', 4],
  ['U', 8],
]);

/** The same code points in sorted ranges that neither overlap nor touch. */
export function joined(ranges: readonly CodePoints[]): CodePoints[] {
  const out: CodePoints[] = [];
  for (const { from, to } of [...ranges].sort((a, b) => a.from - b.from)) {
    const last = out.at(-1);
    if (last && from <= last.to + 1) out[out.length - 1] = { from: last.from, to: Math.max(last.to, to) };
    else out.push({ from, to });
  }
  return out;
}

/** All others; `ranges` as `joined` makes them. Surrogates may be among them: UTF-8 leaves them out. */
export function complement(ranges: readonly CodePoints[]): CodePoints[] {
  const out: CodePoints[] = [];
  let from = 0;
  for (const range of ranges) {
    if (from < range.from) out.push({ from, to: range.from - 1 });
    from = range.to + 1;
  }
  if (from <= LAST) out.push({ from, to: LAST });
  return out.filter(({ from, to }) => from < 0xd800 || to > 0xdfff);
}

/**
 * Refuses rules that derive no text at all, since each way through them needs a rule that derives none: nothing that has
 * begun may be impossible to complete. (A difference that leaves nothing is found where it is built.)
 */
function refuseEmpty(rules: readonly Rule[]): void {
  const productive = rules.map(() => false);
  const derives = (one: Expression): boolean => {
    switch (one.kind) {
      case 'class':
        return true;
      case 'sequence':
        return one.of.every(derives);
      case 'choice':
        return one.of.some(derives);
      case 'repeat':
        return one.least === 0 || derives(one.of);
      case 'difference':
        return derives(one.of);
      case 'call':
        return productive[one.rule]!;
    }
  };
  for (let changed = true; changed;) {
    changed = false;
    rules.forEach((rule, place) => {
      if (!productive[place] && derives(rule.body)) productive[place] = changed = true;
    });
  }
  const names = rules.filter((_, place) => !productive[place]).map((rule) => `"${rule.name}"`);
  if (names.length === 0) return;
  const loop =
    names.length === 1
      ? `rule ${names[0]} derives only itself`
      : `rules ${names.join(', ')} derive only each other and no text`;
  throw new Error(`[grammar] ${loop}; give ${names[0]} an alternative that ends`);
}
