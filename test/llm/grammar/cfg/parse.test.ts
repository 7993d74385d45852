import { describe, expect, it } from 'vitest';
import { contextFree } from '../../../../llm/grammar/cfg/pushdown.ts';
import { accepts } from './helpers.ts';

describe('the notation', () => {
  const takes = (grammar: string, texts: readonly string[], others: readonly string[]): void => {
    const frame = contextFree(grammar);
    for (const text of texts) expect(accepts(frame, text), text).toBe(true);
    for (const text of others) expect(accepts(frame, text), text).toBe(false);
  };

  it('has texts with escapes', () => {
    takes('root ::= "a\\n\\t\\r\\\\\\"\\x41\\u00e9\\U0001f600[]"', ['a\n\t\r\\"Aé😀[]'], ['a', 'a\\n']);
  });

  it('has classes of code points', () => {
    takes('root ::= [a-c_\\-é-ü\\]^]', ['a', 'c', '_', '-', 'é', 'ü', ']', '^'], ['d', '', 'è', 'ý', '\\']);
    takes('root ::= [^a-c\\x00-\\x1f]', ['d', 'é', '😀', '\u{10ffff}', '"'], ['a', '\n', '', 'dd']);
    takes('root ::= [a-]', ['a', '-'], ['b']);
    takes('root ::= .', ['a', '\n', '😀'], ['', 'ab']);
  });

  it('has repetitions', () => {
    takes('root ::= "a"{2}', ['aa'], ['a', 'aaa']);
    takes('root ::= "a"{2,}', ['aa', 'aaaaa'], ['a']);
    takes('root ::= "a" { 1 , 3 }', ['a', 'aa', 'aaa'], ['', 'aaaa']);
    takes('root ::= "a"{0}', [''], ['a']);
    takes('root ::= ("a" | "b"?)* "c"+', ['c', 'abbacc'], ['', 'ab']);
    takes('root ::= "ab"? "c"??', ['', 'ab', 'c', 'abc'], ['cc', 'a']);
  });

  it('has comments, rules over several lines and in any order', () => {
    takes(
      '# first\nitem ::= "a" # a\n | "b"\r\n\n|\n"c"\nroot\n::=\nitem (item # inside\n)+unused-1 unused-1 ::= ""',
      ['ab', 'ccc'],
      ['a'],
    );
  });

  it('has empty alternatives', () => {
    takes('root ::= "a" | ', ['', 'a'], ['b']);
    takes('root ::= () "a" ( | "b")', ['a', 'ab'], ['', 'b']);
    takes('root ::=', [''], ['a']);
  });

  it('has differences, looser than sequences and tighter than alternatives', () => {
    takes('root ::= [a-z]+ - "if" - "else" | "12"', ['iff', 'i', 'els', '12'], ['if', 'else', '1']);
    takes(
      'root ::= "(" (word - key)+ ")"\nword ::= [a-z] [a-z]\nkey ::= "if" | "é"',
      ['(abcd)'],
      ['(if)', '(abif)', '()'],
    );
    takes('root ::= [à-ý] - [é-ü]', ['à', 'ý'], ['é', 'ö', 'ü']);
    takes('root ::= "a"* - ""', ['a', 'aa'], ['']);
  });

  it('takes left, right and hidden recursion', () => {
    takes('root ::= root "a" | "b"', ['b', 'baaa'], ['', 'a', 'ab']);
    takes('root ::= empty root "a" | "b"\nempty ::= "x"?', ['b', 'xbaa', 'xxbaa'], ['x', 'xxb']);
    takes('root ::= root | "a"', ['a'], ['', 'aa']);
    takes('root ::= a\na ::= b | "x"\nb ::= a "y" | a', ['x', 'xyy'], ['y']);
    takes('root ::= "(" root ")" root | ""', ['', '()(())'], ['(', ')(']);
    takes('root ::= "a" root "a" | "b" root "b" | ""', ['', 'abba', 'aaaa'], ['ab', 'aba']);
  });

  it('does not blow up where it is ambiguous, and knows what recurs', () => {
    const text = '1+'.repeat(20_000) + '1';
    for (const grammar of [
      'root ::= root "+" root | "1"',
      'root ::= one ("+" root)?\none ::= "1"',
      'root ::= root "+" "1" | "1"',
    ]) {
      expect(accepts(contextFree(grammar), text)).toBe(true);
    }
    expect(accepts(contextFree('root ::= "(" root ")" | root root | ""'), '(()'.repeat(3000) + ')'.repeat(3000))).toBe(
      true,
    );
  });

  it.each([
    ['', 'line 1, column 1: there is no rule named root, with which every text begins'],
    ['a ::= "x"', 'line 1, column 1: there is no rule named root'],
    ['root ::= "a"\n  b', 'line 2, column 3: no rule is named "b"; write b ::= …'],
    ['root ::= "a"\nroot ::= "b"', 'line 2, column 1: rule "root" is there already'],
    ['root := "a"', 'line 1, column 6: ::= was expected behind "root", not ":"'],
    ['root ::= "a', 'line 1, column 10: a text is not closed'],
    ['root ::= "a\n"', 'line 1, column 10: a text is not closed'],
    ['root ::= [a', 'line 1, column 10: a class is not closed'],
    ['root ::= []', 'line 1, column 10: a class without a character matches nothing'],
    ['root ::= [^\\x00-\\U0010ffff]', 'line 1, column 10: a class without a character matches nothing'],
    ['root ::= [z-a]', 'line 1, column 11: a range runs from the lower character to the higher'],
    ['root ::= ("a"', 'line 1, column 10: a group is not closed: ) was expected, not the end'],
    ['root ::= "a")', 'line 1, column 13: a rule or what it is made of was expected, not ")"'],
    ['root ::= * "a"', 'line 1, column 10: * has nothing before it to repeat'],
    ['root ::= "a"{2', 'line 1, column 15: a repetition is {3}, {3,} or {3,5}'],
    ['root ::= "a"{,2}', 'line 1, column 14: a repetition is {3}, {3,} or {3,5}: a number was expected, not ","'],
    ['root ::= "a"{3,2}', 'line 1, column 13: {3,2} repeats at least 3 and at most 2 times'],
    ['root ::= "a"{99999}', 'line 1, column 14: 99999 repetitions: at most 10000 are supported'],
    ['root ::= "\\q"', 'line 1, column 11: the escape \\q is not known'],
    ['root ::= "\\u12"', 'line 1, column 11: \\u is followed by 4 hexadecimal digits, not by "12"'],
    ['root ::= "\\ud800"', 'line 1, column 11: U+d800 is no character'],
    ['root ::= "é😀" %', 'line 1, column 15: a rule or what it is made of was expected, not "%"'],
    ['root ::= <[7]>', 'tokens (<[7]>, <name>) are not supported'],
    ['root ::= root', 'rule "root" derives only itself; give "root" an alternative that ends'],
    ['root ::= "a" | b\nb ::= b', 'rule "b" derives only itself'],
    ['root ::= a\na ::= "x" root', 'rules "root", "a" derive only each other and no text'],
    ['root ::= [ab] - .', 'rule "root": a difference leaves no text'],
    [
      'root ::= "b" | root "a" - "b"',
      'rule "root": a difference of rules that lead back to themselves ("root") is not supported',
    ],
    ['root ::= (("a"{9999}){9999}){9999}', 'rule "root" takes more than 300000 states; repeat less'],
  ])('says what is wrong with %j', (grammar, message) => {
    expect(() => contextFree(grammar)).toThrow(message);
    expect(() => contextFree(grammar)).toThrow(/^\[grammar\] /);
  });

  it('bears what is deep, long or many', () => {
    expect(() => contextFree(`root ::= ${'('.repeat(100_000)}`)).toThrow(/more than 500 groups/);
    expect(() => contextFree(`root ::= ${'('.repeat(400)}"a"${')+'.repeat(400)}`)).not.toThrow();
    const long = 'a'.repeat(20_000);
    expect(accepts(contextFree(`root ::= "${long}"`), long)).toBe(true);
    const chain = (length: number): string =>
      `root ::= r0\n${Array.from({ length }, (_, i) => `r${i} ::= r${i + 1} "x"?\n`).join('')}r${length} ::= "a"`;
    expect(accepts(contextFree(chain(2000)), 'axxx')).toBe(true);
    expect(() => contextFree(chain(10_000))).toThrow(/line 10000, column \d+: at most 10000 rules are supported/);
    expect(() => contextFree('root ::= ([ab]* "a" [ab]{30}) - "b"')).toThrow(
      /a difference takes more than 5000 states/,
    );
  });
});
