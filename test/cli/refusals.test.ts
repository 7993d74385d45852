/** What the commands of language models refuse: bad folders, files, options and texts on standard input, each in one line. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Command, CommanderError } from 'commander';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withTextOptions } from '../../cli/generate/options.ts';
import { ROOT } from '../../cli/run.ts';
import { makeFolder, saveSafetensors } from '../../nn/files.ts';

const LM = path.join(ROOT, 'assets/lm');
/** Its second line is in Latin-1. */
const INPUT = Buffer.from('/help\nna\xefve\n', 'latin1');

let folder: string;
beforeAll(async () => {
  execFileSync(process.execPath, ['cli/setup.js', '--only', 'build'], { cwd: ROOT, stdio: 'pipe' });
  folder = await mkdtemp(path.join(tmpdir(), 'dawngrad-refusals-'));
  await writeFile(path.join(folder, 'pet.json'), JSON.stringify({ long: 'x'.repeat(1000) }));
  await makeFolder(path.join(folder, 'odd'));
  const weight = { dtype: 'F32', shape: [2, 48], data: new Float32Array(96) } as const;
  await saveSafetensors(path.join(folder, 'odd', 'model.safetensors'), new Map([['w', weight]]));
}, 300_000);
afterAll(() => rm(folder, { recursive: true }));

/** Each is one line on standard error, behind it at most the hint of wrong usage; exit status 1. */
describe('commands', { timeout: 300_000 }, () => {
  it.each([
    ['generate', [LM, '-'], /\[generate\] standard input is not UTF-8: byte 9 \(0x76\) is wrong$/],
    ['generate', [LM, 'x', '--plan', '8'], /\[generate\] --plan takes no prompt/],
    ['generate', [LM, 'x', '--width', '8'], /unknown option '--width'/],
    [
      'generate',
      ['pet.json', 'x'],
      /\[folder\] .*pet.json is a file; a folder is needed, or a file whose name ends in .gguf or .bin$/,
    ],
    ['chat', [LM], /\[chat\] line 2 of standard input is not UTF-8: byte 3 \(0x76\) is wrong$/],
    [
      'chat',
      [LM, '--examples', 'pet.json'],
      /\[chat\] pet.json: the file must be a list, not .{80}…; a list of .* is needed$/,
    ],
    ['eval', [], /\[eval\] say one of --needle, --ruler and --recall; --help shows what they do$/],
    ['eval', ['--recall', '--length', '100'], /\[eval\] --length 100: with --recall it is one of 128, 256, 512$/],
    ['eval', ['--recall', '--lengths', '128'], /\[eval\] --lengths is of --ruler; --recall has --steps, --length,/],
    ['eval', ['--ruler', '--model', 'nowhere'], /\[folder\] the model folder .*nowhere does not exist$/],
    ['eval', ['--ruler', '--tasks', 'vtt'], /there is no task "vtt": did you mean vt\?/],
    ['weights', ['nowhere'], /\[folder\] .*nowhere: there is no such file or folder/],
    [
      'weights',
      ['odd'],
      /\[weights\] .*odd.model.safetensors: w is \(2, 48\), and rows in q8 are multiples of 32; take f16$/,
    ],
    ['weights', [LM, '--gguf', 'model.bin'], /\[weights\] --gguf model.bin: .* let it end in .gguf$/],
    ['verify', ['nowhere'], /\[verify\] nowhere.manifest.json: there is no such file or folder/],
  ] as const)('%s %j', (name, args, message) => {
    const command = [path.join(ROOT, 'cli', `${name}.js`), ...args];
    const { status, stderr } = spawnSync(process.execPath, command, { cwd: folder, encoding: 'utf8', input: INPUT, timeout: 120_000 }); // prettier-ignore
    const own = stderr.replace(/^Warning: .*\n( {4}at .*\.cpp:\d+\)\n)*\n?/gm, '');
    const [line, hint, ...more] = own.trimEnd().split('\n');
    expect(line).toMatch(/^error: /);
    expect(line).toMatch(message);
    if (hint !== undefined) expect(hint).toMatch(/^for example: node cli\//);
    expect(more).toEqual([]);
    expect(status).toBe(1);
  });
});

describe('options of generate and chat', () => {
  const parse = (...args: string[]) =>
    withTextOptions(new Command().exitOverride().configureOutput({ writeErr: () => {} })).parse(args, { from: 'user' }).opts(); // prettier-ignore

  it.each([
    ['--temperature', ['NaN', '-1', '', 'Infinity', 'hot'], 'a number from 0 up is needed'],
    ['--top-p', ['1.1', '-0.1', ' ', 'NaN'], 'a number from 0 to 1 is needed'],
    ['--repetition-penalty', ['0', '-1'], 'a number from 0.000001 up is needed'],
    ['--presence-penalty', ['much', ''], 'a number is needed'],
    ['--top-k', ['1.5', '-1', '4294967296'], 'a whole number from 0 to 4294967295 is needed'],
    ['--seed', ['', ' ', 'one', '-1', '9007199254740992'], 'a whole number from 0 up is needed'],
    ['--max-tokens', ['0', '1e400', '2.5'], 'a whole number from 1 up is needed'],
    ['--bias', ['7', '7=', '-1=2', '7=Infinity'], 'ID=BIAS is needed'],
    ['--cache', ['q4'], 'Allowed choices are f32, f16, q8'],
    ['--weights', ['q5'], 'Allowed choices are f32, f16, bf16, q8, q4'],
  ] as const)('%s: %j', (option, values, message) => {
    for (const value of values) {
      expect(() => parse(`${option}=${value}`)).toThrow(CommanderError);
      expect(() => parse(`${option}=${value}`)).toThrow(`argument '${value}' is invalid. ${message}`);
    }
  });

  it('take what is at their ends', () => {
    expect(parse('--temperature', '0', '--top-p', '0', '--top-k', '0', '--seed', '9007199254740991', '--bias', '3=-inf')).toMatchObject({
      temperature: 0,
      topP: 0,
      topK: 0,
      seed: Number.MAX_SAFE_INTEGER,
      bias: new Map([[3, -Infinity]]),
    }); // prettier-ignore
  });
});
