import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = path.join(import.meta.dirname, '../..');
const tiny = path.join(root, 'test/goldens/pipeline');

let folder: string;
beforeAll(async () => {
  // Only where sources are newer than the build, which `npm test` has just made.
  execFileSync(process.execPath, ['cli/setup.js', '--only', 'build'], { cwd: root, stdio: 'pipe' });
  folder = await mkdtemp(path.join(tmpdir(), 'dawngrad-commands-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** Runs a command as a user does. Left out of `stderr`: the warnings of Dawn, which depend on the driver. */
function run(name: string, args: readonly string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(root, 'cli', `${name}.js`), ...args], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 60_000,
  });
  const warning = /^Warning: .*\n( {4}at .*\.cpp:\d+\)\n)*\n?/gm;
  return { status, stdout, stderr: stderr.replace(warning, '') };
}

describe('node cli/sample.js', () => {
  const draw = (...args: string[]) => run('sample', ['--model', tiny, '--steps', '1', '--count', '1', ...args]);

  it('draws each prompt into a file of its own, also where they differ in no ASCII letter', async () => {
    const { status, stdout, stderr } = draw('--out', 'some/where', 'кот', 'пёс', 'a/b', 'ab');
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect((await readdir(path.join(folder, 'some/where'))).sort()).toEqual(
      ['00 кот', '01 пёс', '02 ab', '03 ab'].map((name) => `${name}, seed 0.png`).concat('grid.png'),
    );
    expect(stdout).toMatch(/^(kernel .*\n)*Drawing 4 pictures\ndrawing step 1\/1 /);
  });

  it('refuses a folder that cannot be written to before it draws', async () => {
    await writeFile(path.join(folder, 'file'), '');
    const places = ['file', 'file/below', ...(process.platform === 'linux' ? ['/proc/dawngrad/pictures'] : [])];
    for (const place of places) {
      const { status, stdout, stderr } = draw('--out', place, 'a cat');
      expect(stderr).toMatch(new RegExp(`^error: \\[sample\\] cannot make the folder ${place}: .*\n$`));
      expect(stdout).toBe('');
      expect(status).toBe(1);
    }
  });

  it('shows an example where there is no prompt, and names a model folder that is not there', () => {
    const none = run('sample', []);
    expect(none.stderr).toMatch(/missing required argument 'prompt'\n+for example: node cli\/sample\.js "cat face"/);
    expect(none.status).toBe(1);
    expect(draw('--model', 'nowhere', 'a cat').stderr).toMatch(/^error: \[folder\] .*nowhere does not exist\n$/);
  });
});

describe('node cli/train.js', () => {
  it('refuses arguments that do not go together', () => {
    const belong = 'error: --data and --class belong together: --data photos/rex --class dog\n';
    const alone = 'error: --resume goes on with the run as it was configured; leave out everything else\n';
    for (const [args, message] of [
      [['--data', 'photos'], belong],
      [['--class', 'dog'], belong],
      [['--resume', 'runs/x', 'steps=3'], alone],
      [['--resume', 'runs/x', '--data', 'photos', '--class', 'dog'], alone],
      [
        ['--resume', 'nowhere'],
        'error: nowhere: no run to resume there; give the folder of a run, such as runs/grey-cat\n',
      ],
    ] as const)
      expect(run('train', args)).toEqual({ status: 1, stdout: '', stderr: message });
  });
});

describe('node cli/bench.js', () => {
  it('says what is wrong before it measures', async () => {
    await writeFile(path.join(folder, 'cases.json'), '[{ "name": "rows", "op": "softmax", "rows": 4, "cols": 16 }]');
    for (const [args, message] of [
      [['--cases', 'cases.json', 'matmul'], 'error: [bench] nothing is called matmul; there are rows\n'],
      [
        ['softmax', '--trace', 't.json'],
        'error: [bench] --trace says where --profile writes its trace: give --profile as well\n',
      ],
      [
        ['softmax', '--profile', '--trace', '/nowhere/t.json'],
        'error: [trace] cannot write /nowhere/t.json: there is no such file or folder (ENOENT)\n',
      ],
      [
        ['tune', 'nofamily'],
        /^error: command-argument value 'nofamily' is invalid for argument 'family'\. there are matmul, [^\n]*\n$/,
      ],
    ] as const) {
      const { status, stdout, stderr } = run('bench', args);
      if (typeof message === 'string') expect(stderr).toBe(message);
      else expect(stderr).toMatch(message);
      expect(stdout).toBe('');
      expect(status).toBe(1);
    }
  });
});

it('node cli/verify.js shows an example where there is no folder', () => {
  expect(run('verify', []).stderr).toMatch(
    /missing required argument 'folder'\n+for example: node cli\/verify\.js test\/goldens/,
  );
});

describe('node cli/plan.js', () => {
  it('plans without class pictures', () => {
    const { status, stdout, stderr } = run('plan', ['--model', tiny, '--size', '16', '--subject', '1', '--prior', '0']);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/at 16×16, batch 1 \+ 0, in GiB/);
    expect(status).toBe(0);
  });
});

describe('node cli/evaluate.js', () => {
  it('names parts and keys that there are', () => {
    for (const [args, message] of [
      [['bse'], 'error: there is no part "bse"; the parts are base and dreambooth: did you mean base?\n'],
      [['base.stps=3'], 'error: "base.stps=3": base.stps is not a known key; did you mean base.steps?\n'],
    ] as const)
      expect(run('evaluate', args)).toEqual({ status: 1, stdout: '', stderr: message });
    expect(run('evaluate', ['--help']).stdout).toMatch(/dreambooth\.variants .*"full" is what the others are compared/);
  });
});

it('a machine without an adapter is told so in one line', () => {
  const nowhere = { VK_DRIVER_FILES: '/nonexistent', VK_ICD_FILENAMES: '/nonexistent' };
  expect(run('sample', ['--model', tiny, 'a cat'], nowhere)).toEqual({
    status: 1,
    stdout: '',
    stderr:
      'error: [device] no WebGPU adapter answers. Run `npm run setup`, which installs a driver or says which one is missing\n',
  });
});

describe('node cli/weights.js', () => {
  it('ends without a word where nobody reads on', async () => {
    const child = spawn(process.execPath, [path.join(root, 'cli/weights.js'), 'assets/lm'], { cwd: folder });
    child.stdout.destroy();
    let complaints = '';
    child.stderr.on('data', (data: Buffer) => (complaints += data.toString()));
    const [status] = (await once(child, 'close')) as [number];
    expect([status, complaints]).toEqual([141, '']);
  });
});
