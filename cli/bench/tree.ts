/** Tree attention over lengths: time, what is touched, and what a beam finds. `node cli/bench.js tree`. */
import { backward, HostRandom, noGrad, randomKey, release, scope, tensor } from '../../engine/index.ts';
import type { Device, Shape, Tensor } from '../../engine/index.ts';
import { attention, bestLeaf, selectLeaves, treeAttention, treeSummaries } from '../../kernels/index.ts';

export interface TreeBenchOptions {
  readonly lengths: readonly number[];
  /** Lengths up to which dense attention takes its turn as well. */
  readonly dense: number;
}

/** Elements of q at a time: 131,072 queries of many heads are more than a binding. */
const MOST = 2 ** 24;
/** Shorter sequences are run several times, up to so many tokens. */
const REPEATED = 32_768;
const [DIM, WINDOW, BEAM] = [64, 512, 8];
const SHAPES = [
  { heads: 1, kvHeads: 1 },
  { heads: 8, kvHeads: 2 },
] as const;

const u32 = (device: Device, value: number) => tensor(device, Uint32Array.of(value));

function random(device: Device, name: string, shape: Shape): Tensor {
  const size = shape.reduce((product, extent) => product * extent, 1);
  return tensor(device, new HostRandom(randomKey(0, name)).normal(size), shape);
}

/** Seconds: on a software adapter the processor's, which other work on the machine changes less than the clock's. */
async function seconds(device: Device, record: () => void): Promise<number> {
  const now = () => {
    const { user, system } = process.cpuUsage();
    return device.profile.software ? (user + system) / 1e6 : performance.now() / 1e3;
  };
  const began = now();
  scope(device, record);
  await device.drain();
  return now() - began;
}

/** The exponent of a power law through points, by least squares of the logarithms. */
function exponent(points: readonly (readonly [n: number, time: number])[]): number {
  const logs = points.map(([n, time]) => [Math.log(n), Math.log(time)] as const);
  const mean = (i: 0 | 1) => logs.reduce((sum, log) => sum + log[i], 0) / logs.length;
  const [x, y] = [mean(0), mean(1)];
  return logs.reduce((sum, [a, b]) => sum + (a - x) * (b - y), 0) / logs.reduce((sum, [a]) => sum + (a - x) ** 2, 0);
}

export async function benchTree(
  device: Device,
  options: TreeBenchOptions,
  print: (line: string) => void,
): Promise<void> {
  for (const shape of SHAPES) await benchLengths(device, shape, options, print);
  await benchRecall(device, print);
}

async function benchLengths(
  device: Device,
  { heads, kvHeads }: (typeof SHAPES)[number],
  { lengths, dense }: TreeBenchOptions,
  print: (line: string) => void,
): Promise<void> {
  print(
    `\n${heads} heads over ${kvHeads}, width ${DIM}, window ${WINDOW}, beam ${BEAM}; seconds of a whole sequence, one query's ms`,
  );
  print('      n     tree  with gradients  window   dense  one query  nodes a query  keys a query (most)');
  const times = { tree: [], 'tree with gradients': [], window: [] } as Record<string, [number, number][]>;
  const one = random(device, 'one', [1, 1, heads, DIM]);
  for (const [i, n] of lengths.entries()) {
    const chunk = Math.min(n, MOST / (heads * DIM));
    const q = random(device, 'q', [1, chunk, heads, DIM]);
    const [k, v] = [random(device, 'k', [1, n, kvHeads, DIM]), random(device, 'v', [1, n, kvHeads, DIM])];
    const upstream = random(device, 'upstream', q.shape);
    for (const leaf of [q, k, v]) leaf.requiresGrad = true;
    const tree = (first: number, queries: Tensor, end: number) => {
      const [starts, keyLengths] = [u32(device, first), u32(device, end)];
      const { selected, touched } = selectLeaves(queries, summaries, { window: WINDOW, beam: BEAM, starts });
      return { out: treeAttention(queries, k, v, { selected, window: WINDOW, keyLengths }), touched };
    };
    const forward = (first: number, queries: Tensor, end: number) =>
      noGrad(device, () => void tree(first, queries, end).out.window());
    const both = (first: number, end: number) => backward(tree(first, q, end).out, upstream);
    const plain = (end: number, window?: { window: number; windowBlock: number }) =>
      noGrad(device, () =>
        attention(q, k, v, { causal: true, layout: 'bthd', keyLengths: u32(device, end), ...window }).window(),
      );
    const ends = Array.from({ length: n / chunk }, (_, c) => (c + 1) * chunk);
    const summaries = treeSummaries(k);
    const windowOnly = { window: WINDOW, windowBlock: 64 };
    if (i === 0)
      await seconds(device, () => {
        forward(0, q, chunk);
        both(0, chunk);
        forward(n - 1, one, n);
        plain(chunk);
        plain(chunk, windowOnly);
      });
    const repeats = Math.ceil(REPEATED / n);
    const sum = async (record: (first: number, end: number) => void) => {
      let total = 0;
      for (let r = 0; r < repeats; r++)
        for (const end of ends) total += await seconds(device, () => record(end - chunk, end));
      return total / repeats;
    };
    const making = await seconds(device, () => void treeSummaries(k));
    const time = making + (await sum((first, end) => forward(first, q, end)));
    const withGradients = making + (await sum(both));
    const sliding = await sum((_, end) => plain(end, windowOnly));
    const whole = n <= dense ? await sum((_, end) => plain(end)) : null;
    let counted: [nodes: number, keys: number, most: number] = [0, 0, 0];
    for (const end of ends) {
      const touched = scope(
        device,
        () => selectLeaves(q, summaries, { window: WINDOW, beam: BEAM, starts: u32(device, end - chunk) }).touched,
      );
      const values = await touched.read();
      release(touched);
      for (let j = 0; j < values.length; j += 2)
        counted = [
          counted[0] + values[j]!,
          counted[1] + values[j + 1]!,
          Math.max(counted[2], values[j]! + values[j + 1]!),
        ];
    }
    [time, withGradients, sliding].forEach((spent, column) => Object.values(times)[column]!.push([n, spent]));
    const single = (await seconds(device, () => { for (let r = 0; r < 20; r++) forward(n - 1, one, n); })) / 20; // prettier-ignore
    const queries = n * kvHeads;
    print(
      [
        String(n).padStart(7),
        time.toFixed(2).padStart(8),
        withGradients.toFixed(2).padStart(15),
        sliding.toFixed(2).padStart(7),
        (whole?.toFixed(2) ?? '').padStart(7),
        (single * 1e3).toFixed(2).padStart(10),
        (counted[0] / queries).toFixed(1).padStart(14),
        `${(counted[1] / queries).toFixed(1)} (${counted[2]} with nodes)`.padStart(24),
      ].join(' '),
    );
    release(q, k, v, upstream, summaries.nodes, ...[q, k, v].map(({ grad }) => grad!));
  }
  if (lengths.length > 1)
    print(
      Object.entries(times)
        .map(([name, points]) => `${name} ∝ n^${exponent(points).toFixed(2)}`)
        .join(', '),
    );
  release(one);
}

/** How often the leaf of a planted key is selected among Gaussian keys, and what best-first opens to find it. */
async function benchRecall(device: Device, print: (line: string) => void): Promise<void> {
  const [n, T, block] = [16_384, 64, 64];
  const keys = new HostRandom(randomKey(0, 'keys')).normal(n * DIM);
  const k = tensor(device, keys, [1, n, 1, DIM]);
  const starts = u32(device, n);
  const needles = Array.from({ length: T }, (_, t) => Math.floor(((t + 0.5) * n) / T));
  print(
    `\n${n} Gaussian keys of width ${DIM}, ${n / block} leaves; ${T} queries, each a key with noise: its leaf is found in`,
  );
  for (const noise of [0, 0.5, 1]) {
    const random = new HostRandom(randomKey(0, 'noise')).normal(T * DIM);
    const values = random.map((x, i) => keys[needles[Math.floor(i / DIM)]! * DIM + (i % DIM)]! + noise * x);
    const q = tensor(device, values, [1, T, 1, DIM]);
    const shares: string[] = [];
    for (const kind of ['pooled', 'boxes'] as const)
      for (const beam of [8, 16, 32]) {
        const selected = scope(
          device,
          () => selectLeaves(q, treeSummaries(k, { kind }), { window: 1, beam, starts }).selected,
        );
        const leaves = await selected.read();
        release(selected);
        const found = needles.filter((j, t) => leaves.slice(t * beam, (t + 1) * beam).includes(Math.floor(j / block)));
        shares.push(`${kind} ${beam}: ${Math.round((100 * found.length) / T)} %`);
      }
    const opened = scope(
      device,
      () => bestLeaf(q, k, treeSummaries(k, { kind: 'boxes' }), { window: 1, starts }).opened,
    );
    const leaves = (await opened.read()).filter((_, i) => i % 2 === 1).map((count) => (100 * count * block) / n);
    release(opened, q);
    const sorted = [...leaves].sort((a, b) => a - b);
    print(
      `noise ${noise}: ${shares.join(', ')}; best-first opens ${sorted[0]!.toFixed(0)} to ${sorted.at(-1)!.toFixed(0)} % of the leaves, ` +
        `half of the queries at most ${sorted[T / 2]!.toFixed(0)} %`,
    );
  }
  release(k, starts);
}
