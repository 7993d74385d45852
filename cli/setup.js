#!/usr/bin/env node
// Makes a fresh clone ready to run: locked npm packages, a build in dist/, a WebGPU adapter that answers.
// Node's built-ins alone, since nothing is installed yet. Every step looks first and does nothing when there is
// nothing to do. (`util.parseArgs` is not imported by name: an old Node must get as far as the version check.)
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import util from 'node:util';

const HELP = `Usage: node cli/setup.js [options]

Sets up this clone; takes a few seconds when there is nothing to do.
  1. checks the version of Node
  2. installs the npm packages that package-lock.json names (npm ci)
  3. builds the sources to dist/
  4. makes sure that a WebGPU adapter answers; on Debian and Ubuntu, as root or with
     passwordless sudo, it installs a software Vulkan driver where none does

Options:
  --only build      build only
  --with chromium   also install Debian's chromium, for npm run test:adapters and test:browser:
                    the browser, and SwiftShader, the software adapter that comes with it.
                    One that is elsewhere is named by its folder in DAWNGRAD_CHROMIUM
  --skip            do nothing (an offline machine where all is in place); so does
                    DAWNGRAD_SKIP_SETUP=1 in the environment, also for npm start and npm test
  --help            show this text
`;

const NODE_NEEDED = [20, 19];
// Of the tests, what runs without vitest is built too: the operations' table, its runs on other adapters, in a browser
// and on random cases.
const SOURCE_FOLDERS = [
  ...['engine', 'kernels', 'nn', 'diffusion', 'llm', 'cli'],
  ...['test/kernels', 'test/adapters', 'test/browser', 'test/fuzz'],
];
const BACKPORTS_FILE = '/etc/apt/sources.list.d/dawngrad-backports.sources';
const DRIVER = 'mesa-vulkan-drivers';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** A failure with a message for the user; anything else that is thrown is a bug and keeps its stack. */
class SetupError extends Error {}

function say(message) {
  console.log(`[setup] ${message}`);
}

// ---------------------------------------------------------------------------------------------------- Node

/** Throws unless `version` ('20.19.1') is at least NODE_NEEDED. */
export function checkNode(version) {
  const [major, minor] = version.split('.').map(Number);
  if (major > NODE_NEEDED[0] || (major === NODE_NEEDED[0] && minor >= NODE_NEEDED[1])) return;
  throw new SetupError(
    `Node ${version} is too old: dawngrad needs ${NODE_NEEDED.join('.')} or newer. Install it from https://nodejs.org and run again.`,
  );
}

// ------------------------------------------------------------------------------------------------ packages

/**
 * The first difference between package-lock.json (`lock`) and npm's own record of what is installed
 * (`installed`, node_modules/.package-lock.json), as a phrase; null when they agree. Packages for other platforms
 * are optional and may be missing; `exists(path)` tells whether a package's folder is there.
 */
export function packagesDiffer(lock, installed, exists) {
  if (!installed) return 'node_modules is missing or incomplete';
  for (const [name, wanted] of Object.entries(lock.packages)) {
    if (name === '') continue;
    const found = installed.packages[name];
    if (!found && wanted.optional) continue;
    if (!found || !exists(name)) return `${name} is missing`;
    if (found.version !== wanted.version || found.integrity !== wanted.integrity) {
      return `${name} is ${found.version}, the lock says ${wanted.version}`;
    }
  }
  const extra = Object.keys(installed.packages).find((name) => !(name in lock.packages));
  return extra ? `${extra} is not in the lock` : null;
}

function readJson(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT' || error instanceof SyntaxError) return null;
    throw error;
  }
}

function installPackages() {
  const lock = readJson(path.join(root, 'package-lock.json'));
  if (!lock)
    throw new SetupError('package-lock.json is missing or damaged: restore it (git checkout package-lock.json).');
  const installed = readJson(path.join(root, 'node_modules/.package-lock.json'));
  const difference = packagesDiffer(lock, installed, (name) => fs.existsSync(path.join(root, name)));
  if (!difference) {
    say(`packages: ${Object.keys(installed.packages).length} installed, as locked`);
    return;
  }
  say(`packages: ${difference}; running npm ci (a minute or so) …`);
  // Nothing here needs install scripts; `--include=dev` because the compiler is one, whatever NODE_ENV says.
  const result = npm(['ci', '--ignore-scripts', '--include=dev', '--no-audit', '--no-fund']);
  if (result.error?.code === 'ENOENT') throw new SetupError('npm was not found: install Node together with npm.');
  if (result.status !== 0) {
    throw new SetupError(
      'npm ci failed (its own words are above). If it could not reach the registry, check the network, its proxy ' +
        'and `npm config get registry`, and run again. On an offline machine where all is in place, ' +
        'set DAWNGRAD_SKIP_SETUP=1.',
    );
  }
  say('packages: installed');
}

/** Runs npm: the one that started this script where there is one, else the one on the path. */
function npm(args) {
  const options = { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] };
  const script = process.env.npm_execpath;
  if (script && path.basename(script) === 'npm-cli.js') return spawnSync(process.execPath, [script, ...args], options);
  return spawnSync('npm', args, { ...options, shell: process.platform === 'win32' });
}

// --------------------------------------------------------------------------------------------------- build

/** Paths of all files under `folder`, relative to it, sorted; [] when it does not exist. */
export function filesUnder(folder) {
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath ?? entry.path, entry.name)))
    .sort();
}

/** What dist/ holds for a source: the compiler's output for .ts, a copy for .wgsl, nothing for tests and others. */
export function outputsOf(source) {
  if (source.endsWith('.d.ts') || source.endsWith('.test.ts')) return [];
  if (source.endsWith('.ts')) return [source.replace(/\.ts$/, '.js'), source.replace(/\.ts$/, '.js.map')];
  return source.endsWith('.wgsl') ? [source] : [];
}

/** A hash over names and contents of `files` under `folder`. */
export function stampOf(folder, files) {
  const hash = createHash('sha256');
  for (const file of files) {
    const content = fs.readFileSync(path.join(folder, file));
    hash.update(`${file}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}

function build() {
  const dist = path.join(root, 'dist');
  const stampFile = path.join(dist, '.stamp');
  const sources = SOURCE_FOLDERS.flatMap((folder) =>
    filesUnder(path.join(root, folder)).map((file) => path.join(folder, file)),
  ).filter((file) => outputsOf(file).length > 0);
  const outputs = new Set(sources.flatMap(outputsOf));
  const stamp = stampOf(root, [...sources, 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json']);
  const complete = [...outputs].every((file) => fs.existsSync(path.join(dist, file)));
  if (complete && fs.existsSync(stampFile) && fs.readFileSync(stampFile, 'utf8') === stamp) {
    say('build: dist/ is up to date');
    return;
  }

  say(`build: compiling ${sources.length} sources to dist/ …`);
  fs.rmSync(stampFile, { force: true });
  const compiler = path.join(root, 'node_modules/typescript/bin/tsc');
  if (!fs.existsSync(compiler))
    throw new SetupError('the compiler is not installed: run node cli/setup.js without --only.');
  const result = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
  if (result.status !== 0) throw new SetupError("the build failed (the compiler's words are above).");
  for (const file of sources.filter((source) => source.endsWith('.wgsl'))) {
    fs.mkdirSync(path.join(dist, path.dirname(file)), { recursive: true });
    fs.copyFileSync(path.join(root, file), path.join(dist, file));
  }
  // An output whose source is gone would still be imported by whoever forgot to follow.
  for (const file of filesUnder(dist)) {
    if (!outputs.has(file)) fs.rmSync(path.join(dist, file));
  }
  fs.writeFileSync(stampFile, stamp);
  say('build: done');
}

// ------------------------------------------------------------------------------------------------- adapter

// In a process of its own: a driver that crashes must not take the set-up with it.
const PROBE = `
import { create } from 'webgpu';
const adapter = await create([]).requestAdapter();
if (!adapter) {
  console.error('no adapter');
  process.exit(1);
}
await adapter.requestDevice();
const { vendor, architecture, device, description } = adapter.info;
console.log([vendor, architecture, device, description].filter(Boolean).join(' '));
process.exit(0);
`;

/** { name } of the adapter that answers, or { problem }: why none does. */
function probeAdapter() {
  const result = spawnSync(process.execPath, ['--input-type=module', '--eval', PROBE], {
    cwd: root,
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? os.tmpdir() },
  });
  if (result.status === 0) return { name: result.stdout.trim() };
  if (result.error?.code === 'ETIMEDOUT') return { problem: 'the driver did not answer within a minute' };
  if (result.signal) return { problem: `the driver crashed (${result.signal})` };
  const words = result.stderr.trim().split('\n').filter(Boolean);
  return { problem: words.find((line) => /error:/i.test(line))?.trim() ?? words.at(-1) ?? 'no adapter' };
}

function ensureAdapter() {
  const first = probeAdapter();
  if (first.name) {
    say(`adapter: ${first.name}`);
    return;
  }
  say(`adapter: none answers (${first.problem})`);
  const chosen = ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES'].filter((name) => process.env[name]);
  if (chosen.length > 0) say(`adapter: ${chosen.join(' and ')} in the environment choose the driver: is that meant?`);
  const plan = driverPlan(readOsRelease(), readAptSources());
  const privilege = plan.automatic ? rootPrefix() : null;
  if (!privilege) {
    const why = plan.why ?? 'This user is neither root nor has passwordless sudo, so install a software one by hand:';
    throw new SetupError(`no WebGPU adapter answers. ${why}\n${plan.byHand}\nThen run this again.`);
  }
  install('driver', plan, privilege);
  const second = probeAdapter();
  if (!second.name) {
    throw new SetupError(
      `${DRIVER} is installed, and still no WebGPU adapter answers (${second.problem}). ` +
        'vulkaninfo (of the package vulkan-tools) shows which drivers the Vulkan loader finds.',
    );
  }
  say(`adapter: ${second.name}`);
}

// -------------------------------------------------------------------------------- the software Vulkan driver

/** The fields of /etc/os-release, as { ID, VERSION_ID, VERSION_CODENAME, … }. */
export function parseOsRelease(text) {
  const fields = {};
  for (const line of text.split('\n')) {
    const match = /^([A-Z_]+)=(["']?)(.*)\2$/.exec(line.trim());
    if (match) fields[match[1]] = match[3];
  }
  return fields;
}

function readOsRelease() {
  const file = '/etc/os-release';
  return process.platform === 'linux' && fs.existsSync(file) ? parseOsRelease(fs.readFileSync(file, 'utf8')) : {};
}

/**
 * How to get a driver on `system` (of parseOsRelease) with the apt sources `sources`:
 * { automatic, packages?: apt-get arguments, sourcesText?: what BACKPORTS_FILE must hold, why?, byHand }.
 */
export function driverPlan(system, sources) {
  if (system.ID === 'debian' && system.VERSION_ID === '12') return backportsPlan(system.VERSION_CODENAME, sources);
  if (system.ID === 'ubuntu' || (system.ID === 'debian' && !(Number(system.VERSION_ID) < 12))) return aptPlan([DRIVER]);
  const commands = {
    debian: '  (upgrade to Debian 12 or newer: this release has no driver that Dawn accepts)',
    fedora: '  sudo dnf install vulkan-loader mesa-vulkan-drivers',
    arch: '  sudo pacman -S vulkan-icd-loader vulkan-swrast',
    'opensuse-tumbleweed': '  sudo zypper install libvulkan1 libvulkan_lavapipe',
  };
  return {
    automatic: false,
    why: "Install one by hand: the GPU's own Vulkan driver, or Mesa's software one (lavapipe, Mesa 23 or newer):",
    byHand: commands[system.ID] ?? "  (by the system's package manager: the Vulkan loader and Mesa's Vulkan drivers)",
  };
}

/** Debian 12's own driver (Mesa 22.3) is refused by Dawn; bookworm-backports carries a newer one. */
function backportsPlan(codename, sources) {
  const suite = `${codename}-backports`;
  const packages = ['-t', suite, DRIVER];
  if (sources.some((source) => source.suites.includes(suite))) return aptPlan(packages);
  const sourcesText = backportsSource(codename, sources);
  if (sourcesText) return aptPlan(packages, sourcesText);
  return {
    automatic: false,
    why: `${suite} is needed, and no Debian mirror was found in apt's configuration. Add ${suite} (main) to it, then:`,
    byHand: aptPlan(packages).byHand,
  };
}

function aptPlan(packages, sourcesText) {
  const commands = ['sudo apt-get update', `sudo apt-get install -y ${packages.join(' ')}`];
  if (sourcesText) commands.unshift(`sudo tee ${BACKPORTS_FILE} <<'END'\n${sourcesText}END`);
  return { automatic: true, packages, sourcesText, byHand: commands.join('\n') };
}

/** The fields of a source that decide how it is reached and trusted, by their names in one-line entries. */
const CARRIED = {
  'signed-by': 'Signed-By',
  trusted: 'Trusted',
  arch: 'Architectures',
  'check-valid-until': 'Check-Valid-Until',
};

/**
 * Enabled `deb` sources of a deb822 file (.sources): { uris, suites, components, options }, options by their deb822
 * names. A value may go on over indented lines, as an embedded key does.
 */
export function parseDeb822(text) {
  const sources = [];
  for (const stanza of text.replace(/^#.*\n?/gm, '').split(/\n\s*\n/)) {
    const fields = {};
    let name = null;
    for (const line of stanza.split('\n')) {
      const match = /^([A-Za-z0-9-]+):\s*(.*)$/.exec(line);
      if (match) fields[(name = match[1].toLowerCase())] = match[2].trimEnd();
      else if (name && /^\s/.test(line)) fields[name] += `\n${line.trimEnd()}`;
    }
    const words = (field) => (fields[field] ?? '').split(/\s+/).filter(Boolean);
    if (!words('types').includes('deb') || /^(no|false|0)$/i.test(fields.enabled ?? 'yes')) continue;
    const options = {};
    for (const option of Object.values(CARRIED)) {
      if (fields[option.toLowerCase()]) options[option] = fields[option.toLowerCase()];
    }
    sources.push({ uris: words('uris'), suites: words('suites'), components: words('components'), options });
  }
  return sources;
}

/** The same of a one-line file (.list): `deb [signed-by=/a.gpg arch=amd64] http://mirror/debian bookworm main`. */
export function parseOneLine(text) {
  const sources = [];
  for (const line of text.split('\n')) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)([^#]*)/.exec(line);
    if (!match) continue;
    const options = {};
    for (const [, name, value] of (match[1] ?? '').matchAll(/([^\s=]+)=(\S+)/g)) {
      if (name in CARRIED) options[CARRIED[name]] = value.replaceAll(',', ' ');
    }
    sources.push({ uris: [match[2]], suites: [match[3]], components: match[4].split(/\s+/).filter(Boolean), options });
  }
  return sources;
}

/**
 * The deb822 text of a backports source on the mirror that `sources` use for Debian `codename`; null when none of
 * them is a Debian mirror. Others may also offer a suite of that name: a mirror is told by the suite `-updates`
 * beside it, by Debian's keyring, or by its path.
 */
export function backportsSource(codename, sources) {
  const updates = new Set(sources.filter((s) => s.suites.includes(`${codename}-updates`)).flatMap((s) => s.uris));
  let best = null;
  for (const { uris, suites, components, options } of sources) {
    if (!suites.includes(codename) || !components.includes('main')) continue;
    for (const uri of uris) {
      const score =
        (updates.has(uri) ? 4 : 0) +
        (/debian-archive/.test(options['Signed-By'] ?? '') ? 2 : 0) +
        (/\/debian\/?$/.test(uri) ? 1 : 0);
      if (score > (best?.score ?? 0)) best = { score, uri, options };
    }
  }
  if (!best) return null;
  const lines = ['Types: deb', `URIs: ${best.uri}`, `Suites: ${codename}-backports`, 'Components: main'];
  for (const [name, value] of Object.entries(best.options))
    lines.push(`${name}:${/^\n/.test(value) ? '' : ' '}${value}`);
  return lines.join('\n') + '\n';
}

function readAptSources() {
  const sources = [];
  const read = (file) => {
    if (file.endsWith('.sources')) sources.push(...parseDeb822(fs.readFileSync(file, 'utf8')));
    else if (file.endsWith('.list')) sources.push(...parseOneLine(fs.readFileSync(file, 'utf8')));
  };
  const main = '/etc/apt/sources.list';
  if (fs.existsSync(main)) read(main);
  const parts = '/etc/apt/sources.list.d';
  for (const file of filesUnder(parts)) read(path.join(parts, file));
  return sources;
}

/** How to run a command as root: [] as root, sudo's words where it asks for no password, else null. */
function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  return spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0 ? ['sudo', '-n'] : null;
}

/** Carries out a plan with apt; `what` is what it brings, for messages. */
function install(what, plan, privilege) {
  const run = (args, input) => {
    const [command, ...rest] = [...privilege, ...args];
    return spawnSync(command, rest, { input: input ?? '', encoding: 'utf8', maxBuffer: 1 << 26 });
  };
  const apt = ['env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-q', '-o', 'DPkg::Lock::Timeout=300'];
  if (plan.sourcesText) {
    say(`${what}: adding ${BACKPORTS_FILE} (${/^URIs: (.*)$/m.exec(plan.sourcesText)[1]})`);
    const written = run(['tee', BACKPORTS_FILE], plan.sourcesText);
    if (written.status !== 0) throw new SetupError(`${BACKPORTS_FILE} cannot be written: ${written.stderr.trim()}`);
  }
  say(`${what}: apt-get update …`);
  const update = run([...apt, 'update']);
  // One unreachable source among others need not matter: whether the package can be had, the next step tells.
  if (/^(W|E|Err): /m.test(update.stderr)) say(`${what}: apt-get update had problems; trying on`);
  say(`${what}: apt-get install ${plan.packages.join(' ')} (up to a few minutes) …`);
  const result = run([...apt, 'install', '-y', '--no-install-recommends', ...plan.packages]);
  if (result.status !== 0) {
    if (plan.sourcesText) run(['rm', '-f', BACKPORTS_FILE]); // a source that doesn't answer must not stay behind
    const words = `${update.stderr}${result.stderr}`.trim().split('\n').slice(-8);
    throw new SetupError(
      `apt-get could not install ${plan.packages.at(-1)}:\n${words.map((line) => `  | ${line}`).join('\n')}\n` +
        `If the mirror could not be reached, check the network and apt's proxy and run again. By hand:\n${plan.byHand}`,
    );
  }
  say(`${what}: installed`);
}

// ------------------------------------------------------------------------------------ Chromium and SwiftShader

const SWIFTSHADER = 'vk_swiftshader_icd.json';
/** Where the browser's own files are, unless the user says so: in distributions' packages. */
const CHROMIUM_FOLDERS = process.env.DAWNGRAD_CHROMIUM
  ? [process.env.DAWNGRAD_CHROMIUM]
  : ['/usr/lib/chromium', '/usr/lib64/chromium-browser', '/opt/google/chrome'];

/** { browser, swiftshader }: Chromium's program and the Vulkan driver file beside it; null where there is none. */
export function findChromium(folders = CHROMIUM_FOLDERS) {
  for (const folder of folders) {
    const programs = ['chromium', 'chromium-browser', 'chrome'].map((name) => path.join(folder, name));
    const browser = programs.find((file) => fs.existsSync(file));
    const swiftshader = path.join(folder, SWIFTSHADER);
    if (browser && fs.existsSync(swiftshader)) return { browser, swiftshader };
  }
  return null;
}

/** As `driverPlan`, for Chromium: Debian's package carries SwiftShader; Ubuntu's is a snap, which hides its files. */
export function chromiumPlan(system) {
  if (system.ID === 'debian' && !(Number(system.VERSION_ID) < 12)) return aptPlan(['chromium']);
  return {
    automatic: false,
    why: `Only Debian's package is installed automatically. Install Chromium or Chrome with its ${SWIFTSHADER}:`,
    byHand: `  (by the system's package manager; then DAWNGRAD_CHROMIUM=/folder/that/holds/both, unless it is ${CHROMIUM_FOLDERS.join(' or ')})`,
  };
}

function ensureChromium() {
  if (!findChromium()) {
    if (process.env.DAWNGRAD_CHROMIUM)
      throw new SetupError(
        `DAWNGRAD_CHROMIUM is ${process.env.DAWNGRAD_CHROMIUM}: there is no chromium or chrome with its ${SWIFTSHADER} in it.`,
      );
    const plan = chromiumPlan(readOsRelease());
    const privilege = plan.automatic ? rootPrefix() : null;
    if (!privilege) {
      const why = plan.why ?? 'This user is neither root nor has passwordless sudo, so install it by hand:';
      throw new SetupError(`Chromium is not installed. ${why}\n${plan.byHand}\nThen run this again.`);
    }
    install('chromium', plan, privilege);
  }
  const found = findChromium();
  if (!found)
    throw new SetupError(`chromium is installed, but ${CHROMIUM_FOLDERS[0]} does not hold its ${SWIFTSHADER}.`);
  say(`chromium: ${found.browser}`);
}

// ---------------------------------------------------------------------------------------------------- main

function main() {
  checkNode(process.versions.node);
  const { values } = util.parseArgs({
    options: {
      only: { type: 'string' },
      with: { type: 'string' },
      skip: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  if (values.only !== undefined && values.only !== 'build') {
    throw new SetupError(`--only ${values.only}: unknown step; the one that can be run alone is build.`);
  }
  if (values.with !== undefined && values.with !== 'chromium') {
    throw new SetupError(`--with ${values.with}: unknown; what can be added is chromium.`);
  }
  if (values.skip || process.env.DAWNGRAD_SKIP_SETUP === '1') {
    say('skipped, as told');
    return;
  }
  if (values.only === 'build') {
    build();
    return;
  }
  installPackages();
  build();
  ensureAdapter();
  if (values.with) ensureChromium();
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    main();
  } catch (error) {
    const expected = error instanceof SetupError || String(error.code).startsWith('ERR_PARSE_ARGS');
    console.error(expected ? `[setup] error: ${error.message}` : error);
    process.exitCode = 1;
  }
}
