/** The comparison with other WebGPU engines: all of them and us in turn, on the same adapter, in one run. */
import { Progress } from '../../nn/progress.ts';
import type { Case } from './cases.ts';
import { installApart } from './install.ts';
import type { Pass } from './peers/engine.ts';
import { PeerProcess } from './peers/process.ts';

export const PEERS = ['ort', 'tfjs', 'jax'] as const;
export type Peer = (typeof PEERS)[number];
export const PASSES = ['forward', 'copies', 'gradient'] as const satisfies readonly Pass[];

/** Which passes are compared with whom: copies with the one whose users mostly pay for them, gradients with those that have them. */
const COMPARED: Readonly<Record<Pass, readonly Peer[]>> = {
  forward: ['ort', 'tfjs', 'jax'],
  copies: ['ort'],
  gradient: ['tfjs', 'jax'],
};

/** How much faster than the best peer each row is meant to be on a software adapter. */
const TARGETS: Readonly<Record<Case['op'], number>> = {
  matmul: 2,
  conv2d: 2,
  attention: 1.2,
  layernorm: 1.5,
  softmax: 1.5,
};
const GRADIENT_TARGET = 2;

/** One line of the comparison. */
export interface Row {
  readonly name: string;
  readonly pass: Pass;
  /** Milliseconds of a run, the median, by engine; or why there are none. Absent: the engine has no such pass. */
  readonly ms: Readonly<Partial<Record<'ours' | Peer, number | { readonly error: string }>>>;
  /** Those of its fastest run. */
  readonly least: Readonly<Partial<Record<'ours' | Peer, number>>>;
  /** Best peer's milliseconds through ours; null where either is missing. */
  readonly ratio: number | null;
  /** The same of the fastest runs: what is left of it when the machine's other work is in the way of many. */
  readonly leastRatio: number | null;
  readonly target: number;
  /** By how much Σ y² differs from ours, for engines where it is more than 0.1 %. */
  readonly differs: Readonly<Partial<Record<Peer, number>>>;
}

/** What is compared by default: sizes that engines are often measured on, a model's own, and some that fit no tile. */
export const PEER_CASES: readonly Case[] = [
  { name: 'matmul-256', op: 'matmul', m: 256, k: 256, n: 256 },
  { name: 'matmul-512', op: 'matmul', m: 512, k: 512, n: 512 },
  { name: 'matmul-77x768x320', op: 'matmul', m: 77, k: 768, n: 320 },
  { name: 'conv3x3-64c-32px', op: 'conv2d', batch: 1, cin: 64, cout: 64, h: 32, w: 32, kernel: 3, stride: 1 },
  { name: 'conv3x3-128c-16px-b4', op: 'conv2d', batch: 4, cin: 128, cout: 128, h: 16, w: 16, kernel: 3, stride: 1 },
  { name: 'attention-8h-1024-40d', op: 'attention', batch: 1, heads: 8, length: 1024, dim: 40 },
  { name: 'attention-cross-8h-1024x77-40d', op: 'attention', batch: 1, heads: 8, length: 1024, keys: 77, dim: 40 },
  { name: 'layernorm-1024x320', op: 'layernorm', rows: 1024, cols: 320 },
  { name: 'softmax-1024x1024', op: 'softmax', rows: 1024, cols: 1024 },
  { name: 'matmul-96x384x200', op: 'matmul', m: 96, k: 384, n: 200 },
  { name: 'matmul-1024x384x384', op: 'matmul', m: 1024, k: 384, n: 384 },
  { name: 'matmul-100', op: 'matmul', m: 100, k: 100, n: 100 },
  { name: 'matmul-257x129x511', op: 'matmul', m: 257, k: 129, n: 511 },
  { name: 'conv3x3-48c-16px-b8', op: 'conv2d', batch: 8, cin: 48, cout: 48, h: 16, w: 16, kernel: 3, stride: 1 },
  { name: 'conv3x3-100c-12px', op: 'conv2d', batch: 1, cin: 100, cout: 60, h: 12, w: 12, kernel: 3, stride: 1 },
  { name: 'conv3x3-64c-32px-s2', op: 'conv2d', batch: 2, cin: 64, cout: 96, h: 32, w: 32, kernel: 3, stride: 2 },
  { name: 'conv1x1-192c-16px-b4', op: 'conv2d', batch: 4, cin: 192, cout: 96, h: 16, w: 16, kernel: 1, stride: 1 },
  { name: 'attention-8h-256-32d', op: 'attention', batch: 1, heads: 8, length: 256, dim: 32 },
  { name: 'attention-4h-300-48d-b2', op: 'attention', batch: 2, heads: 4, length: 300, dim: 48 },
  { name: 'attention-8h-512-64d', op: 'attention', batch: 1, heads: 8, length: 512, dim: 64 },
  { name: 'attention-cross-8h-256x100-80d', op: 'attention', batch: 1, heads: 8, length: 256, keys: 100, dim: 80 },
  { name: 'layernorm-2048x48', op: 'layernorm', rows: 2048, cols: 48 },
  { name: 'layernorm-77x768', op: 'layernorm', rows: 77, cols: 768 },
  { name: 'softmax-512x77', op: 'softmax', rows: 512, cols: 77 },
  { name: 'softmax-2000x300', op: 'softmax', rows: 2000, cols: 300 },
];

export interface PeersOptions {
  readonly peers: readonly Peer[];
  readonly passes: readonly Pass[];
  /** How often each engine has its turn in a case. */
  readonly rounds: number;
  /** Seconds of a turn; at least three runs. */
  readonly seconds: number;
  readonly onRow: (row: Row) => void;
}

/** Compares on every case, in every pass. Engines take turns, so that what else the machine does hits all alike. */
export async function comparePeers(cases: readonly Case[], options: PeersOptions): Promise<Row[]> {
  const folder = await installApart('peers', 'the peers (about 300 MB, once)');
  const processes = ['ours', ...options.peers].map((name) => new PeerProcess(name, folder));
  const rows: Row[] = [];
  const progress = new Progress(cases.length * options.passes.length, 0, { stream: process.stderr, unit: 'row' });
  try {
    for (const c of cases)
      for (const pass of options.passes) {
        const engines = processes.filter(({ name }) => name === 'ours' || COMPARED[pass].includes(name as Peer));
        const row = await compare(c, pass, engines, options);
        rows.push(row);
        progress.update(rows.length, {});
        options.onRow(row);
      }
  } finally {
    progress.stop();
    for (const engine of processes) engine.stop();
  }
  return rows;
}

async function compare(
  c: Case,
  pass: Pass,
  engines: readonly PeerProcess[],
  { rounds, seconds }: PeersOptions,
): Promise<Row> {
  const times = new Map<PeerProcess, number[]>();
  const errors = new Map<PeerProcess, string>();
  const differs: Partial<Record<Peer, number>> = {};
  let ours: number | null = null;
  const attempt = async (engine: PeerProcess, work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      errors.set(engine, (error as Error).message);
      times.delete(engine);
    }
  };
  for (const engine of engines)
    await attempt(engine, async () => {
      const check = await engine.prepare(c, pass);
      if (check === null) return;
      ours ??= check; // ours comes first
      const difference = Math.abs(check / ours - 1);
      if (!(difference <= 1e-3)) differs[engine.name as Peer] = difference;
      times.set(engine, []);
    });
  for (let round = 0; round < rounds; round++)
    for (const [engine, all] of times)
      await attempt(engine, async () => void times.set(engine, all.concat(await engine.time(seconds))));
  for (const engine of engines) await engine.release();
  const ms: Partial<Record<'ours' | Peer, number | { error: string }>> = {};
  const least: Partial<Record<'ours' | Peer, number>> = {};
  for (const engine of engines) {
    const name = engine.name as 'ours' | Peer;
    const runs = times.get(engine)?.toSorted((a, b) => a - b);
    if (runs) [ms[name], least[name]] = [runs[runs.length >> 1]!, runs[0]!];
    else if (errors.has(engine)) ms[name] = { error: errors.get(engine)! };
  }
  const target = pass === 'gradient' ? GRADIENT_TARGET : TARGETS[c.op];
  return { name: c.name, pass, ms, least, ratio: ratioOf(ms), leastRatio: ratioOf(least), target, differs };
}

/** The best peer's value through ours; null where either is missing. */
function ratioOf(values: Readonly<Partial<Record<'ours' | Peer, unknown>>>): number | null {
  const best = Math.min(...PEERS.map((peer) => values[peer]).filter((value) => typeof value === 'number'));
  return typeof values.ours === 'number' && Number.isFinite(best) ? best / values.ours : null;
}

const TITLES: Readonly<Record<Pass, string>> = {
  forward: 'Forward, inputs and results on the device: milliseconds',
  copies: 'Forward, with inputs copied in and the result copied out: milliseconds',
  gradient: 'Forward + backward to all inputs, on the device: milliseconds',
};

const verdict = (ratio: number | null, target: number): string =>
  ratio === null ? '–' : `${ratio.toFixed(2)}${ratio < target ? ' ✗' : ''}`;

/** The comparison as Markdown: a table a pass, with a cross where a target is missed. */
export function formatRows(rows: readonly Row[]): string {
  const cell = (value: Row['ms'][Peer]) => (value === undefined ? '–' : typeof value === 'number' ? value.toPrecision(3) : 'fails'); // prettier-ignore
  const tables = PASSES.filter((pass) => rows.some((row) => row.pass === pass)).map((pass) => {
    const engines = ['ours', ...COMPARED[pass]] as const;
    const lines = rows
      .filter((row) => row.pass === pass)
      .map(({ name, ms, ratio, leastRatio, target }) => {
        const ratios = [ratio, leastRatio].map((value) => verdict(value, target));
        return `| ${[name, ...engines.map((engine) => cell(ms[engine])), ...ratios, String(target)].join(' | ')} |`;
      });
    const head = ['case', ...engines, 'best peer / ours', 'by the fastest runs', 'target'];
    return [`${TITLES[pass]}\n`, `| ${head.join(' | ')} |`, `|${'---|'.repeat(head.length)}`, ...lines].join('\n');
  });
  const notes = rows.flatMap(({ name, pass, ms, differs }) => [
    ...Object.entries(ms).flatMap(([engine, value]) =>
      typeof value === 'object' ? [`${engine} fails on ${name}, ${pass}: ${value.error}`] : [],
    ),
    ...Object.entries(differs).map(
      ([engine, difference]) => `${engine} computes something else on ${name}, ${pass}: Σ y² differs by ${(100 * difference).toFixed(1)} %`, // prettier-ignore
    ),
  ]);
  return [...tables, ...(notes.length > 0 ? [notes.join('\n')] : [])].join('\n\n');
}
