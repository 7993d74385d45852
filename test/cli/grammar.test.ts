import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { check, checkLine as checkBytes, linesOf, statistics, type Line } from '../../cli/grammar/check.ts';
import { explain } from '../../cli/grammar/explain.ts';
import { jsonText } from '../../cli/grammar/json.ts';
import { metaschemas, remotesOf } from '../../cli/grammar/remotes.ts';
import { samples } from '../../cli/grammar/sample.ts';
import { formatTable, PARTS, total, writeTables } from '../../cli/grammar/table.ts';
import { loadTokens, type Tokens } from '../../cli/grammar/tokens.ts';
import { contextFree, jsonSchema } from '../../llm/grammar/index.ts';

const person = {
  type: 'object',
  properties: { name: { type: 'string', maxLength: 5 }, age: { type: 'integer', minimum: 0 } },
  required: ['name'],
  additionalProperties: false,
};

let tokens: Tokens;
const checkLine = (text: string, number: number): Line =>
  checkBytes(new TextEncoder().encode(text), number, tokens, {})!;
beforeAll(async () => void (tokens = await loadTokens('cl100k')));

it('a text that reads like a special token is text, whatever the tokenizer', async () => {
  for (const name of ['cl100k', 'assets/lm/tokenizer.json']) {
    const { vocabulary, encode } = await loadTokens(name, name === 'cl100k' ? undefined : '<|endoftext|>');
    const ids = encode('"<|endoftext|>"');
    expect(ids.filter((id) => vocabulary.end.includes(id))).toEqual([]);
    expect(Buffer.concat(ids.map((id) => vocabulary.bytes(id))).toString()).toBe('"<|endoftext|>"');
  }
});

describe('--check', () => {
  it('accepts an instance whose tokens are all in their masks, and times them', () => {
    const verdict = check(person, { age: 30, name: 'Jo' }, tokens, {});
    expect(verdict).toMatchObject({ verdict: 'accepted' });
    expect(verdict.compileMs).toBeGreaterThan(0);
    expect(verdict.maskUs!.max).toBeGreaterThanOrEqual(verdict.maskUs!.p50);
  });

  it('rejects one with the place and what was allowed there', () => {
    expect(check(person, { name: 'Johann' }, tokens, {})).toMatchObject({
      verdict: 'rejected',
      reason: expect.stringMatching(/^at character 14, behind `\{"name":"Johan`: `n` may not come, but `"`/) as string,
    });
    expect(check(person, {}, tokens, {})).toMatchObject({
      verdict: 'rejected',
      reason: 'at character 1, behind `{`: `}` may not come, but `"`, white space',
    });
    expect(check({ minimum: 10 }, 1, tokens, {}).reason).toMatch(/^at the end: .* may come, not the end$/);
    expect(check(false, 1, tokens, {})).toMatchObject({
      verdict: 'rejected',
      reason: 'no JSON value satisfies the schema',
    });
  });

  it('says what is not supported, and what is no schema', () => {
    for (const [schema, reason] of [
      [{ items: { pattern: '(?=a)' } }, '[grammar] schema #/items: pattern'],
      [{ type: 'strin' }, '[grammar] schema #: type must be one of'],
      [{ $ref: 'https://example.com/schema' }, 'is not given; remotes: none'],
    ] as const) {
      expect(check(schema, 'a', tokens, {})).toMatchObject({
        verdict: 'unsupported',
        reason: expect.stringContaining(reason) as string,
      });
    }
  });

  it('takes what reads like a special token for text', () => {
    expect(check({ type: 'string' }, '<|endoftext|>', tokens, {}).verdict).toBe('accepted');
  });

  it('writes instances as JSON.stringify does, however deep', () => {
    const value = { a: [1, [], {}, 'é"\n', null, [true, { b: -1.5e30, '': 0 }]], c: '' };
    expect(jsonText(value)).toBe(JSON.stringify(value));
    const deep = `${'[{"a":'.repeat(10_000)}1${'}]'.repeat(10_000)}`;
    expect(jsonText(JSON.parse(deep)) === deep).toBe(true);
    const long = JSON.stringify(Array.from({ length: 200_000 }, (_, i) => i));
    expect(jsonText(JSON.parse(long)) === long).toBe(true);
  });

  it.each([
    ['{"id":', 'line 7: '],
    ['[1]', 'line 7: no object with "schema" and "instance"'],
    ['{"schema":{}}', 'line 7: no object with "schema" and "instance"'],
    ['{"schema":{},"instance":[1e400]}', 'line 7: [grammar] a number is beyond the range of doubles'],
    ['{"schema":{},"instance":1,"schema":true}', 'line 7: the key "schema" comes twice'],
    [
      '{"schema":{"items":[{"type":"null","type":"string"}]},"instance":1}',
      'line 7: the key "type" comes twice in the schema',
    ],
  ])('says what is wrong with the line %s', (text, reason) => {
    expect(checkLine(text, 7)).toMatchObject({
      id: 7,
      verdict: 'error',
      reason: expect.stringContaining(reason) as string,
    });
  });

  it('names the keywords that reject an instance', () => {
    const reason = (schema: unknown, instance: unknown): string => {
      const line = checkLine(JSON.stringify({ schema, instance }), 1);
      return 'reason' in line ? line.reason! : line.verdict;
    };
    expect(reason(person, { age: 3 })).toMatch(/white space, because of #\/required\/0: "name" is required$/);
    expect(reason({ minimum: 10 }, 1)).toMatch(/not the end, because of #\/minimum: 10$/);
    expect(reason({ pattern: '^\\p{Lu}' }, 'é')).toMatch(
      /^at character 1, behind `"`: `é` may not come, but .*pattern/,
    );
    expect(reason({ type: 'null' }, 1)).toMatch(/^at the beginning: `1` may not come, but .*type: "null"$/);
    expect(reason(true, '\ud800')).toMatch(/, because half a surrogate is no character$/);
    expect(reason(false, 1)).toBe('no JSON value satisfies the schema, because of #: false');
  });

  it('rejects an instance that has a key twice in one object, as no mask lets it come', () => {
    const verdict = (instance: string): Line =>
      checkLine(`{ "instance" : ${instance}, "schema":{"maxProperties":2}}`, 1);
    const twice = {
      verdict: 'rejected',
      reason: expect.stringMatching(/, because the key "a" is there already$/) as string,
    };
    expect(verdict('{"a":1,"a":1}')).toMatchObject(twice);
    expect(verdict('[{"a": [{"a":"\\\\"}], "\\u0061":3}]')).toMatchObject(twice);
    expect(verdict('{"a":{"a":["\\",\\"a\\":"]},"b":[{"a":1},{"a":2}]}').verdict).toBe('accepted');
  });

  it('tells keys apart by a byte order mark', () => {
    expect(checkLine('{"schema":{},"instance":{"\ufeffa":1,"a":1}}', 1).verdict).toBe('accepted');
  });

  it('names them in schemas that nest deep', () => {
    const nested = `${'{"items":'.repeat(3000)}{"type":"null"}${'}'.repeat(3000)}`;
    const text = `{"schema":${nested},"instance":${'['.repeat(3000)}1${']'.repeat(3000)}}`;
    expect(checkLine(text, 1)).toMatchObject({
      verdict: 'rejected',
      reason: expect.stringMatching(/because of #(\/items)+.*type: "null"$/) as string,
    });
  });

  it('takes a byte order mark for none, and lines by their id', () => {
    const text = '\uFEFF{"id":"a","schema":{"minimum":1e15,"multipleOf":2},"instance":1e16}';
    expect(checkLine(text, 1)).toMatchObject({ id: 'a', verdict: 'accepted' });
    expect(checkLine('{"id":"b","schema":{}}', 1)).toMatchObject({ id: 'b', verdict: 'error' });
  });

  it('goes on behind lines that are none, and reads them as they are', async () => {
    const file = path.join(await mkdtemp(path.join(tmpdir(), 'dawngrad-check-')), 'lines.jsonl');
    const line = (instance: string): string => `{"schema":{"maxLength":1},"instance":"${instance}"}`;
    // A line separator in a text, half a character, a blank line, Windows' line ends.
    const texts = [line('\u2028'), 'broken', line('\xff'), '', `${line('ab')}\r`, line('a')];
    const bytes = texts.map((text) => Buffer.from(text, text.includes('\xff') ? 'latin1' : 'utf8'));
    await writeFile(file, Buffer.concat(bytes.flatMap((one) => [one, Buffer.from('\n')])));
    const verdicts: string[] = [];
    let number = 0;
    for await (const bytes of linesOf(file)) {
      const line = checkBytes(bytes, ++number, tokens, {});
      verdicts.push(line === null ? 'blank' : line.verdict === 'error' ? line.reason : line.verdict);
    }
    expect(verdicts).toEqual([
      'accepted',
      expect.stringContaining('line 2: Unexpected token'),
      'line 3: it is not UTF-8: byte 38 (0xff) is wrong',
      'blank',
      'rejected',
      'accepted',
    ]);
    await expect(linesOf(tmpdir())[Symbol.asyncIterator]().next()).rejects.toThrow('it is a folder, not a file');
  });

  it('quantiles are of the values themselves', () => {
    expect(statistics([4, 1, 3, 2])).toEqual({ mean: 2.5, p50: 2, p99: 4, max: 4 });
  });
});

it('--remotes are the documents of a folder, under a URL', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'dawngrad-remotes-'));
  await writeFile(path.join(folder, 'a.json'), '{"type": "null"}');
  const remotes = remotesOf(folder, 'https://example.com/schemas/');
  expect([...remotes]).toEqual([['https://example.com/schemas/a.json', { type: 'null' }]]);
  expect(check({ $ref: 'https://example.com/schemas/a.json' }, null, tokens, { remotes }).verdict).toBe('accepted');
});

it('the metaschemas are followed, but for unique strings', () => {
  const remotes = metaschemas();
  expect(remotes.size).toBe(9);
  const { reason } = check({ $ref: 'http://json-schema.org/draft-07/schema#' }, {}, tokens, { remotes });
  expect(reason).toContain('uniqueItems');
});

it('a document that is not given is refused with those that are, the metaschemas aside', () => {
  const reason = (given: readonly string[]): string => {
    const remotes = new Map([...metaschemas(), ...given.map((uri) => [uri, true] as const)]);
    return check({ $ref: 'https://example.com/schema' }, null, tokens, { remotes }).reason!;
  };
  expect(reason([])).toMatch(/https:\/\/example.com\/schema is not given; remotes: none$/);
  expect(reason(['https://example.com/other'])).toMatch(/remotes: https:\/\/example.com\/other$/);
});

it('--explain speaks of grammars too', () => {
  const grammar = contextFree('root ::= "a" ("b" | name)\nname ::= "c" [d-f]');
  const said = (prefix: string): string => explain(grammar, prefix, tokens).lines.join('\n');
  expect(said('a')).toContain('  root (line 1): name or "b"');
  expect(said('ac')).toContain('  name (line 2): [d-f]');
  expect(said('ax')).toContain('`x` may not come: no rule that is open goes on with it.');
  expect(explain(grammar, 'ax', tokens).fits).toBe(false);
  expect(explain(grammar, 'ac', tokens).fits).toBe(true);
  expect(said('ab')).not.toContain('Rules');
});

it('--sample writes valid documents, the same by the same seed', () => {
  const draw = (seed: number): string[] => [...samples(jsonSchema(person), 5, seed, tokens)];
  expect(draw(1)).toEqual(draw(1));
  expect(draw(1)).not.toEqual(draw(2));
  for (const text of draw(1)) expect(check(person, JSON.parse(text), tokens, {}).verdict).toBe('accepted');
});

it('a tokenizer.json says by itself which token ends a text, or --end does', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'dawngrad-tokenizer-'));
  const file = path.join(folder, 'tokenizer.json');
  const write = (added: readonly string[]): Promise<void> =>
    writeFile(
      file,
      `\uFEFF${JSON.stringify({
        added_tokens: added.map((content, i) => ({ id: i + 2, content, special: true })),
        normalizer: null,
        post_processor: null,
        pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
        decoder: { type: 'ByteLevel' },
        model: { type: 'BPE', vocab: { a: 0, b: 1 }, merges: [] },
      })}`,
    );
  await write(['<|endoftext|>']);
  expect((await loadTokens(file)).vocabulary.end).toEqual([2]);
  await write(['<x>', '<y>']);
  await expect(loadTokens(file)).rejects.toThrow('does not say which token ends a text; say --end TOKEN');
  expect((await loadTokens(file, '<y>')).vocabulary.end).toEqual([3]);
  await expect(loadTokens('cl100k', '<y>')).rejects.toThrow('--end <y> is for a tokenizer.json');
});

it('--suite writes its tables between their marks', async () => {
  const rows = new Map([
    ['a', { tests: 3, right: 2, refused: 1, wrong: 0 }],
    ['b', { tests: 1, right: 0, refused: 0, wrong: 1 }],
  ]);
  expect(total(rows)).toEqual({ tests: 4, right: 2, refused: 1, wrong: 1 });
  const file = path.join(await mkdtemp(path.join(tmpdir(), 'dawngrad-suite-')), 'grammar.md');
  await writeFile(
    file,
    'before\n\n<!-- made by node cli/grammar.js --suite -->\nold\n<!-- made until here -->\nafter\n',
  );
  await writeTables(file, formatTable(PARTS[0]!, rows));
  const text = await readFile(file, 'utf8');
  expect(text).toMatch(
    /^before\n[^]*\| a \| 3 \| 2 \| 1 \| 0 \|\n[^]*\| \*\*all\*\* \| 4 \| 2 \| 1 \| 1 \|\n[^]*after\n$/,
  );
  expect(text).not.toContain('old');
  await writeFile(file, 'nothing');
  await expect(writeTables(file, '')).rejects.toThrow('has no lines');
});
