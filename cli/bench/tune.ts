/** `npm run tune`: measures the variants of every family of kernels on the adapter at hand. */
import { backward, clearGradient, HostRandom, randomKey, release, scope, sizeOf, tensor } from '../../engine/index.ts';
import type { Device, DType, Shape, Tensor } from '../../engine/index.ts';
import { openNodeDevice } from '../../engine/node.ts';
import * as operations from '../../kernels/index.ts';
import { candidates } from '../../kernels/variants.ts';
import type { Family } from '../../kernels/variants.ts';
import { time } from './measure.ts';

/** What a family is measured on. */
interface Problem {
  readonly shapes: readonly Shape[];
  readonly call: (...inputs: Tensor[]) => Tensor;
  readonly dtype?: DType;
  /** Forward alone: by default gradients of all inputs are part of it. */
  readonly forward?: boolean;
}

const { matmul, linear, conv2d, attention, layerNorm, softmax, sum } = operations;
const product = (m: number, k: number, n: number): Problem => ({ shapes: [[m, k], [k, n]], call: (a, b) => matmul(a!, b!) }); // prettier-ignore
/** Rows of one sample: a linear layer takes (N, in) for N samples. */
const fewRows = (rows: number, width: number): Problem => ({
  shapes: [[1, rows, width], [width, width]], // prettier-ignore
  call: (x, weight) => linear(x!, weight!),
  forward: true,
});
const convolution = (
  batch: number,
  cin: number,
  cout: number,
  side: number,
  stride: number,
  forward: boolean,
): Problem => ({
  shapes: [[batch, cin, side, side], [cout, cin, 3, 3]], // prettier-ignore
  call: (x, weight) => conv2d(x!, weight!, null, { stride, padding: 1 }),
  forward,
});
const attending = (heads: number, queries: number, keys: number, dim: number): Problem => ({
  shapes: [queries, keys, keys].map((positions) => [1, heads, positions, dim]),
  call: (q, k, v) => attention(q!, k!, v!),
});

/** By family, in an order in which each comes after those that it runs on. Sizes of models, and some that fit no tile. */
export const PROBLEMS: { readonly [F in Family]: readonly Problem[] } = {
  matmul: [product(256, 256, 256), product(1024, 384, 384), product(77, 768, 320), product(100, 100, 100)],
  'matmul f16': [product(256, 256, 256), product(1024, 384, 384)].map((one) => ({ ...one, dtype: 'f16' })),
  'one row': [fewRows(1, 768), fewRows(1, 2048)],
  'few rows': [fewRows(2, 768), fewRows(4, 768)],
  conv2d: [convolution(4, 64, 64, 32, 2, true), convolution(8, 12, 24, 16, 1, true)],
  'conv2d weight': [convolution(4, 64, 64, 32, 2, false), convolution(8, 12, 24, 16, 1, false)],
  'conv2d 3×3': [convolution(4, 128, 128, 16, 1, false), convolution(1, 64, 64, 32, 1, false)],
  attention: [attending(8, 256, 256, 32), attending(8, 512, 512, 64), attending(8, 256, 77, 40)],
  rows: [
    { shapes: [[1024, 320], [320], [320]], call: (x, weight, bias) => layerNorm(x!, weight!, bias!) }, // prettier-ignore
    { shapes: [[512, 512]], call: (x) => softmax(x!) },
    { shapes: [[64, 4096]], call: (x) => sum(x!, [1]) },
  ],
};

export const FAMILIES = Object.keys(PROBLEMS) as Family[];

/** How the variants of a family did. */
export interface FamilyTuning {
  readonly family: Family;
  /** Time of each variant through that of the rule's, the mean over the problems; or why it did not run. */
  readonly times: Readonly<Record<string, number | string>>;
  readonly rule: string;
  readonly chosen: string;
}

/** A variant must be so much faster than the rule's to take its place: less may be noise. */
const MARGIN = 0.03;
const ROUNDS = 3;

/**
 * Measures the variants of some families in turn, each on a device of its own. `tuning` holds what is chosen for the others,
 * which is left as it is; where a family's rule is confirmed nothing is written. Returns the new tuning.
 */
export async function tune(
  families: readonly Family[],
  tuning: Readonly<Record<string, string>>,
  seconds: number,
  onResult: (result: FamilyTuning) => void,
): Promise<Record<string, string>> {
  const chosen = { ...tuning };
  for (const family of FAMILIES.filter((one) => families.includes(one))) {
    delete chosen[family];
    const result = await tuneFamily(family, chosen, seconds);
    if (!result) continue;
    if (result.chosen !== result.rule) chosen[family] = result.chosen;
    onResult(result);
  }
  return chosen;
}

/** Null where nothing is to be chosen. */
async function tuneFamily(
  family: Family,
  tuning: Readonly<Record<string, string>>,
  seconds: number,
): Promise<FamilyTuning | null> {
  const open = (name?: string) =>
    openNodeDevice({ tuning: name === undefined ? tuning : { ...tuning, [family]: name } });
  const plain = await open();
  const names = candidates(plain.profile, family);
  const problems = PROBLEMS[family].filter(({ dtype }) => dtype !== 'f16' || plain.profile.f16);
  plain.destroy();
  if (names.length < 2 || problems.length === 0) return null;
  const contestants = await Promise.all(names.map(async (name) => ({ name, device: await open(name) })));
  /** Least milliseconds by variant and problem. */
  const least = new Map<string, number[]>(names.map((name) => [name, []]));
  const times: Record<string, number | string> = {};
  for (const problem of problems) {
    const runs = new Map<string, () => Promise<void>>();
    for (const { name, device } of contestants)
      if (!(name in times))
        try {
          const run = prepare(device, problem);
          await run(); // compiles
          runs.set(name, run);
        } catch (error) {
          times[name] = (error as Error).message.split('\n')[0]!;
        }
    const best = new Map<string, number>();
    for (let round = 0; round < ROUNDS; round++)
      for (const [name, run] of runs)
        best.set(name, Math.min(best.get(name) ?? Infinity, (await time(run, seconds)).min));
    for (const [name, ms] of best) least.get(name)!.push(ms);
  }
  for (const { device } of contestants) device.destroy();
  const rule = names[0]!;
  for (const name of names) {
    if (name in times) continue;
    const logarithms = least.get(name)!.map((ms, i) => Math.log(ms / least.get(rule)![i]!));
    times[name] = Math.exp(logarithms.reduce((a, b) => a + b, 0) / logarithms.length);
  }
  const measured = names.filter((name) => typeof times[name] === 'number');
  const fastest = measured.reduce((a, b) => (times[b]! < times[a]! ? b : a));
  const better = typeof times[rule] !== 'number' || (times[fastest] as number) < 1 - MARGIN;
  return { family, times, rule, chosen: better ? fastest : rule };
}

/** One run of a problem, until the device is done. Its inputs go with the device. */
export function prepare(
  device: Device,
  { shapes, call, dtype = 'f32', forward = false }: Problem,
): () => Promise<void> {
  const make = (what: string, shape: Shape) =>
    tensor(device, new HostRandom(randomKey(0, what)).normal(sizeOf(shape)), shape, { dtype });
  const inputs = shapes.map((shape, i) => make(`input ${i}`, shape));
  const result = scope(device, () => call(...inputs));
  const upstream = make('upstream', result.shape);
  release(result);
  for (const input of inputs) input.requiresGrad = !forward;
  return async () => {
    scope(device, () => {
      const out = call(...inputs);
      if (forward) out.window();
      else backward(out, upstream);
      inputs.forEach(clearGradient);
    });
    await device.drain();
  };
}

/** The results as lines: families, and their variants by time. */
export function formatTuning({ family, times, rule, chosen }: FamilyTuning): string {
  const parts = Object.entries(times).map(([name, value]) => `${name} ${typeof value === 'number' ? value.toFixed(2) : `fails (${value})`}`); // prettier-ignore
  return `${family.padEnd(16)} ${chosen === rule ? `${rule}, as by rule` : `${chosen} instead of ${rule}`}: ${parts.join(', ')}`;
}
