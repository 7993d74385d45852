/** Bundles the page, serves it to a headless Chromium and holds what it reports against the same in Node. */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadStableDiffusion } from '../../diffusion/folder.ts';
import { encodePng } from '../../diffusion/pictures.ts';
import type { Picture } from '../../diffusion/pictures.ts';
import { openNodeDevice } from '../../engine/node.ts';
import { printTable, Tally } from '../adapters/tally.ts';
import { bundle } from './bundle.ts';
import type { PageMessage } from './page.ts';
import { drawPicture, trainOneStep } from './program.ts';

/** The sources: this runs from dist/test/browser. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const RESULTS = path.join(ROOT, 'runs', 'browser');
/** The page reports every check; one that says nothing for so long hangs. */
const SILENCE = 10 * 60_000; // milliseconds
/**
 * Of values in [−1, 1]. Two adapters add in other orders and round exp, sin and division otherwise: measured 7e-6 apart,
 * with guidance and the first step's 1/√ᾱ multiplying what the UNet's outputs are apart. A wrong kernel is off by 0.1.
 */
const PICTURE_TOLERANCE = 1e-3;
/** Of a loss and a norm, relative: sums over thousands of such values. */
const TRAINING_TOLERANCE = 1e-4;

type Training = Awaited<ReturnType<typeof trainOneStep>>;

/** Tests everything in the browser whose program is `browser`; the exit code. */
export async function testBrowser(browser: string): Promise<number> {
  console.log('the reference, in Node');
  const expected = await reference();
  const folder = await mkdtemp(path.join(tmpdir(), 'dawngrad-browser-'));
  try {
    await bundle(ROOT, 'test/browser/page.ts', path.join(folder, 'site'));
    console.log('headless Chromium');
    const tally = new Tally();
    await runPage(browser, folder, (message) => receive(tally, message, expected));
    tally.stop();
    if (!tally.finished) tally.expect('the page comes to its end', 'the browser ended before');
    printTable([
      ['adapter', 'passed', 'failed', 'seconds'],
      [`Chromium: ${tally.adapter}`, tally.passed, tally.failed, Math.round(tally.seconds)],
    ]);
    return tally.failed === 0 ? 0 : 1;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function reference(): Promise<{ picture: Picture; training: Training }> {
  const device = await openNodeDevice();
  const model = await loadStableDiffusion(device, path.join(ROOT, 'assets', 'base'));
  const picture = await drawPicture(model);
  await mkdir(RESULTS, { recursive: true });
  await writeFile(path.join(RESULTS, 'node.png'), await encodePng(picture));
  const training = await trainOneStep(model);
  device.destroy();
  return { picture, training };
}

async function receive(
  tally: Tally,
  message: PageMessage,
  expected: Awaited<ReturnType<typeof reference>>,
): Promise<void> {
  if (message.kind === 'picture') {
    const { width, height } = message;
    const data = Float32Array.from(message.data);
    const difference = data.reduce((most, value, i) => Math.max(most, Math.abs(value - expected.picture.data[i]!)), 0);
    const same = width === expected.picture.width && height === expected.picture.height;
    const fault = !same
      ? `it is ${width}×${height}, in Node ${expected.picture.width}×${expected.picture.height}`
      : !data.every(Number.isFinite)
        ? 'it has values that are not finite'
        : difference <= PICTURE_TOLERANCE
          ? null
          : `it differs from Node's by ${difference}, more than ${PICTURE_TOLERANCE}`;
    tally.expect('draws a picture', fault);
    const file = path.join(RESULTS, 'chromium.png');
    await writeFile(file, await encodePng({ width, height, data }));
    tally.say(`a picture of ${width}×${height}, ${difference.toExponential(1)} from Node's: ${file}`);
  } else if (message.kind === 'training') {
    for (const name of ['loss', 'norm', 'after'] as const) {
      const [got, wanted] = [message[name], expected.training[name]];
      const error = Math.abs(got - wanted) / Math.abs(wanted);
      tally.expect(`trains: ${name}`, error <= TRAINING_TOLERANCE ? null : `it is ${got}, in Node ${wanted}`);
    }
    const { loss, norm, after } = message;
    tally.expect('trains: the loss falls', after < loss ? null : `from ${loss} to ${after}`);
    tally.say(`a training step: loss ${loss.toFixed(6)} → ${after.toFixed(6)}, gradients' norm ${norm.toFixed(6)}`);
  } else if (message.kind === 'failed') tally.expect('the page runs', message.error);
  else if (message.kind !== 'end') tally.receive(message);
}

/** Opens the page in `folder`/site and hands over what it reports, until its end. */
async function runPage(
  browser: string,
  folder: string,
  receive: (message: PageMessage) => Promise<void>,
): Promise<void> {
  let finish: () => void = () => {};
  const finished = new Promise<void>((resolve) => (finish = resolve));
  const silence = setTimeout(() => finish(), SILENCE);
  const server = await serve(path.join(folder, 'site'), async (message) => {
    silence.refresh();
    await receive(message);
    if (message.kind === 'end') finish();
  });
  const flags = [
    '--headless=new',
    '--enable-unsafe-webgpu',
    '--enable-features=Vulkan',
    '--use-webgpu-adapter=swiftshader',
    '--disable-gpu-watchdog', // a software adapter may be busy for longer than the browser waits
    '--disable-dev-shm-usage', // containers have little shared memory
    '--no-first-run',
    `--user-data-dir=${path.join(folder, 'profile')}`,
    ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), // as root the sandbox refuses to start
    `http://localhost:${(server.address() as AddressInfo).port}/`,
  ];
  const chromium = spawn(browser, flags, { stdio: 'ignore' });
  const closed = new Promise<void>((resolve) => {
    chromium.on('error', () => resolve());
    chromium.on('exit', () => resolve());
  });
  await Promise.race([finished, closed]);
  clearTimeout(silence);
  chromium.kill();
  await closed;
  server.closeAllConnections();
  server.close();
}

const TYPES: Record<string, string> = { '.js': 'text/javascript', '.json': 'application/json' };
const PAGE = '<!doctype html><title>dawngrad</title><script type="module" src="/page.js"></script>';

/** A server on this machine alone: the page, the files under `site`, the shipped model under /assets; POSTs are reports. */
async function serve(site: string, report: (message: PageMessage) => Promise<void>): Promise<Server> {
  const server = createServer((request, response) => {
    const answer = async (): Promise<void> => {
      const { pathname } = new URL(request.url!, 'http://localhost');
      if (request.method === 'POST') {
        const parts: Buffer[] = [];
        for await (const part of request) parts.push(part as Buffer);
        await report(JSON.parse(Buffer.concat(parts).toString()) as PageMessage);
        response.end();
      } else if (pathname === '/') response.setHeader('content-type', 'text/html').end(PAGE);
      else {
        const file = path.join(pathname.startsWith('/assets/') ? ROOT : site, path.normalize(decodeURI(pathname)));
        const bytes = await readFile(file).catch(() => null);
        if (bytes) response.setHeader('content-type', TYPES[path.extname(file)] ?? 'application/octet-stream');
        response.writeHead(bytes ? 200 : 404).end(bytes ?? undefined);
      }
    };
    answer().catch((error: unknown) => {
      console.error(error);
      response.writeHead(500).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}
