/** `node cli/generate.js` and `node cli/chat.js` on a folder of random weights and a tokenizer of its own. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { trainTokenizer } from '../../llm/bpe.ts';
import { rehearsal } from '../../engine/index.ts';
import { parseTransformerConfig } from '../../llm/config.ts';
import { saveTransformer } from '../../llm/folder.ts';
import { describePlan, planTransformer } from '../../llm/plan.ts';
import { makeFolder } from '../../nn/files.ts';
import { plainDevice } from '../device.ts';
import { MIXED, randomModel } from '../llm/tiny.ts';

const root = path.join(import.meta.dirname, '../..');
const CHATML = `{% for m in messages %}<|endoftext|>{{ m.role }}: {{ m.content }}{% endfor %}{% if add_generation_prompt %}<|endoftext|>assistant: {% endif %}`;
const SCHEMA = { properties: { pet: { enum: ['cat', 'dog'] } }, required: ['pet'], additionalProperties: false, type: 'object' }; // prettier-ignore

let folder: string;
beforeAll(async () => {
  execFileSync(process.execPath, ['cli/setup.js', '--only', 'build'], { cwd: root, stdio: 'pipe' });
  folder = await mkdtemp(path.join(tmpdir(), 'dawngrad-generate-'));
  const device = await plainDevice();
  for (const [name, vocab_size] of [
    ['model', 270],
    ['small', 250],
  ] as const) {
    const source = path.join(folder, `${name}.files`);
    await makeFolder(source);
    const files = {
      'config.json': { ...MIXED, vocab_size, eos_token_id: 269 },
      'tokenizer.json': trainTokenizer(['the cat and the dog and the fox '.repeat(9)], 270),
      'tokenizer_config.json': { eos_token: '<|endoftext|>', chat_template: CHATML },
    };
    for (const [file, json] of Object.entries(files)) await writeFile(path.join(source, file), JSON.stringify(json));
    const { model } = randomModel(device, { ...MIXED, vocab_size });
    await saveTransformer(model, source, path.join(folder, name));
    model.release();
  }
  await writeFile(path.join(folder, 'pet.json'), JSON.stringify(SCHEMA));
  await writeFile(path.join(folder, 'digits.gbnf'), 'root ::= [0-9] "-" [0-9]');
}, 300_000);
afterAll(() => rm(folder, { recursive: true }));

function run(name: 'generate' | 'chat', args: readonly string[], input = '') {
  const command = [path.join(root, 'cli', `${name}.js`), ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: folder, encoding: 'utf8', input, timeout: 120_000 }); // prettier-ignore
  return { status, stdout, stderr: stderr.replace(/^Warning: .*\n( {4}at .*\.cpp:\d+\)\n)*\n?/gm, '') };
}

describe('node cli/generate.js', { timeout: 300_000 }, () => {
  it('continues a prompt, from standard input too, with the same text for the same seed', () => {
    const args = ['--max-tokens', '6', '--seed', '3', '--stop', '\\n'];
    const first = run('generate', ['model', 'the cat', ...args]);
    expect(first.stderr).toMatch(/^\[\d tokens read, [1-6] written \(.*\).*\]\n$/);
    expect(first.status).toBe(0);
    const second = run('generate', ['model', '-', ...args], 'the cat');
    expect(second.stdout).toBe(first.stdout);
  });

  it('follows a regular expression, a grammar and a schema; gives lines of JSON', () => {
    const text = (...args: string[]) => run('generate', ['model', 'the cat', ...args]).stdout;
    expect(text('--regex', 'yes|no')).toMatch(/^(yes|no)\n$/);
    expect(text('--grammar', 'digits.gbnf')).toMatch(/^\d-\d\n$/);
    expect(['cat', 'dog']).toContain((JSON.parse(text('--schema', 'pet.json')) as { pet: string }).pet);
    const lines = text('--logprobs', '2', '--max-tokens', '2', '--temperature', '0').trim().split('\n');
    for (const line of lines) expect(JSON.parse(line)).toMatchObject({ sample: 0, top: { length: 2 } });
  });

  it('says what a text takes of memory, by formula', async () => {
    const { stdout } = run('generate', ['model', '--plan', '60', '--chunk', '99']);
    const [title, ...lines] = stdout.trim().split('\n');
    expect(title).toBe('model, a sequence of 60 tokens with room for 64, of a context of 64:');
    const config = parseTransformerConfig({ ...MIXED, vocab_size: 270 });
    const size = { batch: 1, capacity: 64, dtype: 'f32' } as const;
    const plan = planTransformer(rehearsal(await plainDevice()), config, { weights: 'f32', cache: size, chunk: 63 });
    expect(lines).toEqual(describePlan(plan).split('\n'));
    expect(lines).toContain('cache of 2 layers (window 8 + 2 sinks): 0.0 MiB = 2 · 2 · 1 · 10 · 2 · 8 · 4 bytes');
    expect(lines).toContain('cache of 1 layers (full): 0.0 MiB = 1 · 2 · 1 · 64 · 2 · 8 · 4 bytes');
  });

  it('says what is wrong', () => {
    const error = (...args: string[]) => run('generate', args).stderr;
    expect(error('model', 'the cat'.repeat(40))).toMatch(/^error: \[generate\] the prompt has \d+ tokens; the model's context is 64/); // prettier-ignore
    expect(error('small', 'x')).toMatch(/^error: \[tokenizer\] the tokenizer has 270 tokens, the model in .*small 250/);
    expect(error('model', 'x', '--regex', 'a', '--schema', 'pet.json')).toMatch(/--schema and --regex: give one of them/); // prettier-ignore
  });
});

it('node cli/chat.js: answers, commands, what is saved', { timeout: 300_000 }, async () => {
  const lines = ['the cat', '/sav x', '/system short', '/schema pet.json', 'fox?', '/save talk.json', '/schema nowhere.json', '/reset', '/load talk.json', '/load pet.json', '/quit', 'unheard']; // prettier-ignore
  const { status, stdout, stderr } = run('chat', ['model', '--max-tokens', '16'], lines.join('\n'));
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).toMatch(/\[\d+ tokens read, \d+ written/);
  expect(stdout).toContain('[chat] there is no command /sav; did you mean /save? /help shows all');
  expect(stdout).toContain('3 messages in talk.json\n');
  expect(stdout).toContain('nowhere.json cannot be read');
  expect(stdout).toContain('3 messages of talk.json\n');
  expect(stdout).toContain('pet.json: the file must be a list');
  const saved = JSON.parse(await readFile(path.join(folder, 'talk.json'), 'utf8')) as { role: string; content: string }[]; // prettier-ignore
  expect(saved.map(({ role }) => role)).toEqual(['system', 'user', 'assistant']);
  expect(['cat', 'dog']).toContain((JSON.parse(saved[2]!.content) as { pet: string }).pet);
});
