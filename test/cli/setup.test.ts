import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  backportsSource,
  checkNode,
  chromiumPlan,
  driverPlan,
  filesUnder,
  findChromium,
  outputsOf,
  packagesDiffer,
  parseDeb822,
  parseOneLine,
  parseOsRelease,
  stampOf,
} from '../../cli/setup.js';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

const DEB822 = `# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
# a comment inside
Components: main contrib
Signed-By: ${KEYRING}

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: ${KEYRING}
`;

const BACKPORTS = `Types: deb
URIs: http://mirror.example/debian
Suites: bookworm-backports
Components: main
Signed-By: ${KEYRING}
`;

describe('the backports source', () => {
  it('is derived from deb822 sources', () => {
    expect(backportsSource('bookworm', parseDeb822(DEB822))).toBe(BACKPORTS);
  });

  it('is derived from one-line sources, with their options', () => {
    const text = `
      # deb http://commented.example/debian bookworm main
      deb-src http://sources.example/debian bookworm main
      deb [arch=amd64,arm64 signed-by=${KEYRING}] http://mirror.example/debian/ bookworm main contrib # all
      deb http://mirror.example/debian/ bookworm-updates main
      deb http://mirror.example/debian-security bookworm-security main`;
    expect(backportsSource('bookworm', parseOneLine(text))).toBe(
      `Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm-backports\nComponents: main\n` +
        `Architectures: amd64 arm64\nSigned-By: ${KEYRING}\n`,
    );
  });

  it('is not derived from third parties that name their suite after the release', () => {
    const thirdParties = parseOneLine(`
      deb [signed-by=/usr/share/keyrings/vendor.gpg] https://packages.vendor.example/debian/12/prod bookworm main
      deb https://download.tool.example/linux/debian bookworm stable`);
    expect(backportsSource('bookworm', thirdParties)).toBeNull();
    expect(backportsSource('bookworm', [...thirdParties, ...parseDeb822(DEB822)])).toBe(BACKPORTS);
  });

  it('prefers the mirror that has the updates too over a look-alike', () => {
    const sources = parseOneLine(`
      deb http://lookalike.example/debian bookworm main
      deb http://mirror.example/archive bookworm main
      deb http://mirror.example/archive bookworm-updates main`);
    expect(backportsSource('bookworm', sources)).toContain('URIs: http://mirror.example/archive\n');
  });

  it('is not derived from disabled, other or source-only entries', () => {
    expect(backportsSource('bookworm', parseDeb822(`Enabled: no\n${DEB822.split('\n\n')[0]}`))).toBeNull();
    expect(backportsSource('bookworm', parseDeb822(DEB822.replace('deb deb-src', 'deb-src')))).toBeNull();
    expect(backportsSource('trixie', parseDeb822(DEB822))).toBeNull();
    expect(backportsSource('bookworm', [])).toBeNull();
  });

  it('carries an embedded key and the mirror list of a cloud image', () => {
    const key =
      'Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBGPL0BUB\n -----END PGP PUBLIC KEY BLOCK-----';
    const text = `Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: bookworm bookworm-updates\nComponents: main\n${key}\n`;
    expect(backportsSource('bookworm', parseDeb822(text))).toBe(
      `Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: bookworm-backports\nComponents: main\n${key}\n`,
    );
  });
});

describe('the plan for a driver', () => {
  const debian12 = parseOsRelease('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n');

  it('adds backports on Debian 12 and installs from there', () => {
    const plan = driverPlan(debian12, parseDeb822(DEB822));
    const packages = ['-t', 'bookworm-backports', 'mesa-vulkan-drivers'];
    expect(plan).toMatchObject({ automatic: true, packages, sourcesText: BACKPORTS });
    expect(plan.byHand).toContain('sudo tee /etc/apt/sources.list.d/dawngrad-backports.sources');
  });

  it('does not add backports where they are', () => {
    const plan = driverPlan(debian12, parseDeb822(`${DEB822}\n${BACKPORTS}`));
    const packages = ['-t', 'bookworm-backports', 'mesa-vulkan-drivers'];
    expect(plan).toMatchObject({ automatic: true, packages, sourcesText: undefined });
  });

  it('leaves Debian 12 without a known mirror to the user', () => {
    expect(driverPlan(debian12, [])).toMatchObject({ automatic: false });
  });

  it.each(['ID=debian\nVERSION_ID="13"', 'ID=debian', 'ID=ubuntu\nVERSION_ID="24.04"'])(
    'takes the default package on %j',
    (release) => {
      expect(driverPlan(parseOsRelease(release), [])).toMatchObject({
        automatic: true,
        packages: ['mesa-vulkan-drivers'],
        byHand: 'sudo apt-get update\nsudo apt-get install -y mesa-vulkan-drivers',
      });
    },
  );

  it.each([
    ['ID=debian\nVERSION_ID="11"', 'upgrade to Debian 12'],
    ['ID=fedora', 'sudo dnf install'],
    ['ID=arch', 'sudo pacman -S'],
    ['ID=unheard-of', 'package manager'],
  ])('says what to do by hand on %j', (release, words) => {
    const plan = driverPlan(parseOsRelease(release), []);
    expect(plan.automatic).toBe(false);
    expect(plan.byHand).toContain(words);
  });
});

describe('Chromium', () => {
  it.each(['ID=debian\nVERSION_ID="12"', 'ID=debian\nVERSION_ID="13"', 'ID=debian'])(
    'is installed on %j',
    (release) => {
      expect(chromiumPlan(parseOsRelease(release))).toMatchObject({ automatic: true, packages: ['chromium'] });
    },
  );

  it.each(['ID=debian\nVERSION_ID="11"', 'ID=ubuntu\nVERSION_ID="24.04"', 'ID=fedora'])(
    'is left to the user on %j',
    (release) => {
      const plan = chromiumPlan(parseOsRelease(release));
      expect(plan.automatic).toBe(false);
      expect(plan.byHand).toContain('DAWNGRAD_CHROMIUM=');
    },
  );

  it('is a program with the driver of SwiftShader beside it', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'dawngrad-chromium-'));
    try {
      writeFileSync(path.join(folder, 'chrome'), '');
      expect(findChromium(['/nowhere', folder])).toBeNull();
      const swiftshader = path.join(folder, 'vk_swiftshader_icd.json');
      writeFileSync(swiftshader, '{}');
      expect(findChromium(['/nowhere', folder])).toEqual({ browser: path.join(folder, 'chrome'), swiftshader });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('the installed packages', () => {
  const lock = {
    packages: {
      '': { name: 'root' },
      'node_modules/a': { version: '1.0.0', integrity: 'sha512-a' },
      'node_modules/b-win32': { version: '2.0.0', integrity: 'sha512-b', optional: true },
    },
  };
  const a = lock.packages['node_modules/a'];
  const there = () => true;

  it('match the lock, without packages of other platforms', () => {
    expect(packagesDiffer(lock, { packages: { 'node_modules/a': a } }, there)).toBeNull();
  });

  it('differ when one is missing, deleted, of another version or content, or too many', () => {
    expect(packagesDiffer(lock, null, there)).toContain('node_modules is missing');
    expect(packagesDiffer(lock, { packages: {} }, there)).toBe('node_modules/a is missing');
    expect(packagesDiffer(lock, { packages: { 'node_modules/a': a } }, () => false)).toBe('node_modules/a is missing');
    const older = { packages: { 'node_modules/a': { ...a, version: '0.9.0' } } };
    expect(packagesDiffer(lock, older, there)).toBe('node_modules/a is 0.9.0, the lock says 1.0.0');
    const other = { packages: { 'node_modules/a': { ...a, integrity: 'sha512-x' } } };
    expect(packagesDiffer(lock, other, there)).toContain('node_modules/a');
    const more = { packages: { 'node_modules/a': a, 'node_modules/c': a } };
    expect(packagesDiffer(lock, more, there)).toBe('node_modules/c is not in the lock');
  });
});

describe('the build', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'dawngrad-setup-'));
    mkdirSync(path.join(folder, 'inner'));
    writeFileSync(path.join(folder, 'a.ts'), 'one');
    writeFileSync(path.join(folder, 'inner/b.wgsl'), 'two');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('knows the outputs of each source', () => {
    expect(outputsOf('engine/tensor.ts')).toEqual(['engine/tensor.js', 'engine/tensor.js.map']);
    expect(outputsOf('kernels/matmul/matmul.wgsl')).toEqual(['kernels/matmul/matmul.wgsl']);
    expect(outputsOf('cli/train.js')).toEqual([]);
    expect(outputsOf('cli/setup.d.ts')).toEqual([]);
    expect(outputsOf('test/kernels/norm.test.ts')).toEqual([]);
  });

  it('lists files in nested folders, and none of a folder that is not there', () => {
    expect(filesUnder(folder)).toEqual(['a.ts', path.join('inner', 'b.wgsl')]);
    expect(filesUnder(path.join(folder, 'nothing'))).toEqual([]);
  });

  it('has a stamp that changes with contents and names, and with nothing else', () => {
    const stamp = stampOf(folder, filesUnder(folder));
    writeFileSync(path.join(folder, 'a.ts'), 'one');
    expect(stampOf(folder, filesUnder(folder))).toBe(stamp);
    writeFileSync(path.join(folder, 'a.ts'), 'on3');
    expect(stampOf(folder, filesUnder(folder))).not.toBe(stamp);
    writeFileSync(path.join(folder, 'a.ts'), 'one');
    writeFileSync(path.join(folder, 'c.ts'), '');
    expect(stampOf(folder, filesUnder(folder))).not.toBe(stamp);
  });
});

describe('the version of Node', () => {
  it('is checked with a clear error', () => {
    expect(() => checkNode('20.19.0')).not.toThrow();
    expect(() => checkNode('22.0.0')).not.toThrow();
    expect(() => checkNode('20.18.3')).toThrow('Node 20.18.3 is too old: dawngrad needs 20.19 or newer');
    expect(() => checkNode('18.20.0')).toThrow('too old');
  });
});
