import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parse } from '../../../../llm/grammar/cfg/parse.ts';
import { contextFree } from '../../../../llm/grammar/cfg/pushdown.ts';
import { changed, deriver, random } from './derive.ts';
import { accepts } from './helpers.ts';

function shipped(name: string) {
  const text = readFileSync(new URL(`../../../../assets/grammars/${name}.gbnf`, import.meta.url), 'utf8');
  return { frame: contextFree(text), derive: deriver(parse(text)) };
}

/** Whether it runs without an error. */
function passes(run: () => unknown): boolean {
  try {
    run();
    return true;
  } catch {
    return false;
  }
}

describe('assets/grammars/json.gbnf', () => {
  const { frame, derive } = shipped('json');
  const longBlank = /[ \t\n\r]{21}/;

  it('takes what JSON.stringify writes', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(undefined, 1, '\t'), (value, space) => {
        const text = JSON.stringify(value, null, space);
        if (!longBlank.test(text)) expect(accepts(frame, text), text).toBe(true);
      }),
      { seed: 5, numRuns: 1000 },
    );
  });

  it('takes exactly what JSON.parse does, of its texts and of such as differ a little', () => {
    const draw = random(7);
    const counts = { valid: 0, invalid: 0 };
    for (let i = 0; i < 2000; i++) {
      const text = derive(draw, 6);
      expect(accepts(frame, text), text).toBe(true);
      JSON.parse(text);
      const other = changed(text, '{}[]",:0-+.eE\\ntf u1', draw);
      const valid = passes(() => JSON.parse(other) as unknown) && !longBlank.test(other);
      expect(accepts(frame, other), other).toBe(valid);
      counts[valid ? 'valid' : 'invalid'] += 1;
    }
    expect(Math.min(counts.valid, counts.invalid)).toBeGreaterThan(300);
  });
});

describe('assets/grammars/arithmetic.gbnf', () => {
  const { frame, derive } = shipped('arithmetic');

  it('takes exactly what JavaScript can reckon, once powers and functions are written its way', () => {
    const draw = random(11);
    const counts = { valid: 0, invalid: 0 };
    for (let i = 0; i < 2000; i++) {
      const text = derive(draw, 8);
      expect(accepts(frame, text), text).toBe(true);
      expect(reckon(text), text).not.toBeNull();
      const other = changed(text, '0123.e+-*/%^() sin', draw);
      if (/ {9}/.test(other)) continue;
      const valid = reckon(other) !== null;
      expect(accepts(frame, other), other).toBe(valid);
      counts[valid ? 'valid' : 'invalid'] += 1;
    }
    expect(Math.min(counts.valid, counts.invalid)).toBeGreaterThan(300);
  });

  it('is reckoned as mathematics has it', () => {
    expect(reckon('-2^2')).toBe(-4);
    expect(reckon('2^3^2')).toBe(512);
    expect(reckon('2^-1 + 10 - 3 - 2*3/4')).toBe(6);
  });
});

/** The value of an expression by precedence climbing (Richards 1979); null where it is none. */
function reckon(text: string): number | null {
  const tokens =
    text.match(/\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|(?:sqrt|abs|exp|ln|sin|cos|tan)\(|[-+*/%^()]| +|[^]/g) ?? [];
  const all = tokens.filter((token) => !/^ +$/.test(token));
  const functions: Record<string, (x: number) => number> = {
    ...Object.fromEntries(
      (['sqrt', 'abs', 'exp', 'sin', 'cos', 'tan'] as const).map((name) => [`${name}(`, Math[name]]),
    ),
    'ln(': Math.log,
  };
  const binding: Record<string, number> = { '+': 1, '-': 1, '*': 2, '/': 2, '%': 2, '^': 4 };
  const apply: Record<string, (a: number, b: number) => number> = {
    '+': (a, b) => a + b,
    '-': (a, b) => a - b,
    '*': (a, b) => a * b,
    '/': (a, b) => a / b,
    '%': (a, b) => a % b,
    '^': (a, b) => a ** b,
  };
  let at = 0;
  const fail = (): never => {
    throw new SyntaxError(text);
  };
  const operand = (): number => {
    const token = all[at++];
    if (token === undefined) return fail();
    if (/^\d/.test(token)) return Number(token);
    if (token === '-') return -climb(3);
    if (token === '+') return climb(3);
    const value = token === '(' ? climb(1) : token in functions ? functions[token]!(climb(1)) : fail();
    return all[at++] === ')' ? value : fail();
  };
  const climb = (least: number): number => {
    let value = operand();
    for (let power = binding[all[at]!]; power !== undefined && power >= least; power = binding[all[at]!]) {
      const operator = all[at++]!;
      // To the right of a power a sign may stand, and powers go from right to left.
      value = apply[operator]!(value, climb(operator === '^' ? 3 : power + 1));
    }
    return value;
  };
  try {
    const value = climb(1);
    return at === all.length ? value : null;
  } catch {
    return null;
  }
}

describe('assets/grammars/sql.gbnf', () => {
  const { frame, derive } = shipped('sql');

  it.each([
    'SELECT * FROM users',
    "select name, count(*) as n from users as u where u.name like 'a%' group by name having count(*) > 1 order by n desc limit 10 offset 5;",
    'SELECT DISTINCT u.*, "odd ""name""" FROM users AS u LEFT OUTER JOIN orders AS o ON u.id = o.user_id CROSS JOIN c',
    'SELECT 1 + 2 * -3 - -4, NOT a OR b AND c IS NOT NULL, CAST(x AS decimal(10, 2))',
    "SELECT CASE WHEN a > 1 THEN 'it''s' ELSE NULL END FROM (SELECT 1 AS a UNION ALL SELECT 2) AS t",
    'SELECT a FROM t WHERE a NOT IN (1, 2, 3) AND b BETWEEN 1 AND 2 AND EXISTS (SELECT 1) AND c IN (SELECT d FROM e)',
    "INSERT INTO t (a, b) VALUES (1, 'x'), (2, NULL); INSERT INTO t SELECT * FROM u",
    "UPDATE t SET a = a + 1, b = 'é' WHERE id = 7",
    'DELETE FROM t WHERE a <> 1.5e-3',
    'SELECT selected, fromage, INDEXES FROM ordering',
  ])('takes %s', (text) => {
    expect(accepts(frame, text)).toBe(true);
    // And that was no accident of white space.
    expect(accepts(frame, text.replace(/\s+/g, '\n  '))).toBe(true);
  });

  it.each([
    '',
    'SELECT',
    'SELECT FROM t',
    'SELECT select FROM t',
    'SELECT a FROM order',
    'SELECT a b FROM t',
    'SELECT a, FROM t',
    "SELECT 'it's'",
    'SELECT a--b',
    'SELECT 1 FROM t WHERE',
    'SELECT 1 FROM t JOIN',
    'SELECT a FROM t LIMIT b',
    'SELECT (1',
    'SELECT 1 = 2 = 3',
    'INSERT INTO t VALUES ()',
    'UPDATE t WHERE a = 1',
    'DELETE t',
    'DROP TABLE t',
    'SELECTa FROM t',
  ])('refuses %s', (text) => {
    expect(accepts(frame, text)).toBe(false);
  });

  it('takes what its rules derive', () => {
    const draw = random(13);
    for (let i = 0; i < 500; i++) {
      const text = derive(draw, 12);
      expect(accepts(frame, text), text).toBe(true);
    }
  });
});

describe('assets/grammars/javascript.gbnf', () => {
  const { frame, derive } = shipped('javascript');
  /** What a grammar can't see: names that are declared twice. */
  const early = /has already been declared|Duplicate parameter name|Duplicate __proto__/;

  /** What is wrong with a function's body; null where nothing is. */
  function wrong(text: string): string | null {
    try {
      new Function(text);
      return null;
    } catch (error) {
      return String(error);
    }
  }

  it.each([
    '',
    'return 1;',
    'let a = 1, b; const c = [1, "x", \'y\', { a, b: 2, "c d": 3, [a + b]: this }]; var $ = a ?? b;',
    'function f(a, b = 2) { for (let i = 0; i < 10; i++) { if (a) { continue; } else if (b) { break; } } return f(a)(b).c[0]; }',
    'const g = (x) => x => ({ y: x }); g((y) => { return y ** 2; }, function () {});',
    'try { throw new Error("no"); } catch (e) { console.log(e.message); } finally { done(); }',
    'for (const key in object) { delete_[key] += -1 - -2; } do { a++; } while (a < 3 && !b || c);',
    'x = a ? b : c ? d : e; x.y.z = w = 3; a[0] >>>= 2; x = typeof a === "string" && a instanceof String;',
    'while (i > 0) { i--; }',
    'letter = newer + function_ + inner + iff; $in.of.new.class = 1;',
  ])('takes %s', (text) => {
    expect(wrong(text)).toBeNull();
    expect(accepts(frame, text)).toBe(true);
  });

  it.each([
    'return 1',
    'let = 1;',
    'let if = 1;',
    'const a;',
    'break;',
    'function f() { break; } while (a) { function g() { continue; } }',
    'a = b c;',
    'a = - -b;',
    '{ a: 1, b: 2 }',
    'f() = 1;',
    'x = "a\nb";',
    'x = -a ** 2;',
    'x = a ?? b || c;',
    'if (a) else { }',
    'for (let i of a, b) { }',
    'x = 08;',
    'x = 1.;',
    'return a\n++;',
    'throw\na;',
    'x = () => { a: 1, b: 2 };',
    'x = (a)\n=> a;',
    'a--b;',
  ])('refuses %s', (text) => {
    expect(accepts(frame, text)).toBe(false);
  });

  it('takes what its rules derive, and takes only JavaScript', () => {
    const draw = random(17);
    const counts = { twice: 0, taken: 0, refused: 0 };
    for (let i = 0; i < 1000; i++) {
      const text = derive(draw, 14);
      expect(accepts(frame, text), text).toBe(true);
      const error = wrong(text);
      if (error === null || !early.test(error)) expect(error, text).toBeNull();
      else counts.twice += 1;
      const other = changed(text, '{}[]()+-*/=<>!&|?:;,."\' \nain0', draw);
      const taken = accepts(frame, other);
      counts[taken ? 'taken' : 'refused'] += 1;
      const otherError = wrong(other);
      if (taken && otherError !== null && !early.test(otherError)) expect(otherError, other).toBeNull();
    }
    expect(Math.min(counts.taken, counts.refused)).toBeGreaterThan(300);
    expect(counts.twice).toBeLessThan(150);
  });
});
