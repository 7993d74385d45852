/** Which rules of a grammar are open behind the beginning of a text. */
import { expect, it } from 'vitest';
import { rulesAt } from '../../../../llm/grammar/cfg/at.ts';
import { contextFree, regular } from '../../../../llm/grammar/index.ts';
import { advanceAll, start } from '../../../../llm/grammar/stack.ts';

const list = `# a comment
root  ::= "say " list "."
list  ::= item (", " item)*
item  ::= word | "(" list ")" | number
  | "né" [^a-z\\n-]
word  ::= [A-Za-c_] "x"?
number ::= ws [0-9]
ws    ::= " "*
`;

// The beginning of a text, and the rules: name, line, what they go on with.
it.each<[string, string, string[]]>([
  [list, '', ['root 2: "say "']],
  [list, 'sa', ['root 2: "y "']],
  [list, 'say ', ['root 2: list']],
  [list, 'say A', ['word 6: "x" or end', 'list 3: ", " or end', 'root 2: "."']],
  [list, 'say (', ['item 4: list', 'list 3: ", " or end', 'root 2: "."']],
  [list, 'say (A', ['word 6: "x" or end', 'list 3: ", " or end', 'item 4: ")"', 'root 2: "."']],
  [list, 'say  ', ['ws 8: " " or end', 'number 7: [0-9]', 'list 3: ", " or end', 'root 2: "."']],
  [list, 'say n', ['item 4: "é"', 'list 3: ", " or end', 'root 2: "."']],
  [list, 'say né', ['item 4: [^\\n\\-a-z]', 'list 3: ", " or end', 'root 2: "."']],
  [list, 'say A, ', ['list 3: item', 'root 2: "."']],
  [list, 'say A.', []],
  // Left recursion, and two ways to read the same.
  ['root ::= sum\nsum ::= sum "+" one | one\none ::= "1"', '1+', ['sum 2: one', 'sum 2: "+"']],
  ['root ::= a | b\na ::= "x" "y"\nb ::= "x" "z"', 'x', ['a 2: "y"', 'b 3: "z"']],
  ['root ::= [a-z\\U0001f600] "x" | .', '', ['root 1: [a-z\\U0001f600] or any character']],
])('%#: %j %j', (grammar, text, rules) => {
  const stack = advanceAll(start(contextFree(grammar)), new TextEncoder().encode(text))!;
  const open = rulesAt(stack)!;
  const said = open.map(
    ({ name, line, wants, ends }) => `${name} ${line}: ${[...wants, ...(ends ? ['end'] : [])].join(' or ')}`,
  );
  expect(said).toEqual(rules);
});

it('within a character, what it may be is not told', () => {
  const stack = advanceAll(start(contextFree('root ::= [é-ü]')), [0xc3])!;
  expect(rulesAt(stack)).toEqual([{ name: 'root', line: 1, wants: ['the rest of a character'], ends: false }]);
});

it('expressions have no rules', () => {
  expect(rulesAt(start(regular('a')))).toBe(null);
});
