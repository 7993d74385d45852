import fc from 'fast-check';
import type { HostRandom } from '../../../engine/index.ts';
import { treeSummaries } from '../../../kernels/index.ts';
import type { TreeAttentionOptions, TreeShape } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { InputSpec, NdArray, Rows, Sample } from '../row.ts';

/** What selections are filled up with. */
const NONE = 2 ** 32 - 1;

/**
 * Halves up to ±2: sums, products and means over powers of two of them are exact in f32 and f16, so that the host finds the
 * very scores that the device compares. Many are alike, too.
 */
export const halves = (shape: readonly number[]): InputSpec => ({
  shape,
  value: (random: HostRandom) => (random.below(9) - 4) / 2,
});

/** Normal whatever values are tried: where scores are larger than 1 / rounding, there is nothing to compare. */
const normal = (shape: readonly number[]): InputSpec => ({ shape, value: (random) => random.normal(1)[0]! });

const words = (values: readonly number[]): InputSpec => ({
  shape: [values.length],
  dtype: 'u32',
  value: (_, i) => values[i]!,
});

/** Summaries by their definition: each node from all of its keys. Levels as [node][part · D + d], `from` the first. */
function levelsOf(k: NdArray, b: number, head: number, { block, fanout, kind }: TreeShape, keys: number): number[][][] {
  const [, Tk, KV, D] = k.shape as [number, number, number, number];
  const levels: number[][][] = [];
  for (let span = block; span <= Tk; span *= fanout)
    levels.push(
      Array.from({ length: Math.floor(Tk / span) }, (_, node) => {
        if ((node + 1) * span > keys) return Array<number>(kind === 'boxes' ? 2 * D : D).fill(0);
        const column = (d: number) =>
          Array.from({ length: span }, (__, i) => k.data[((b * Tk + node * span + i) * KV + head) * D + d]!);
        const columns = Array.from({ length: D }, (__, d) => column(d));
        if (kind === 'pooled') return columns.map((values) => values.reduce((sum, value) => sum + value, 0) / span);
        return [...columns.map((values) => Math.min(...values)), ...columns.map((values) => Math.max(...values))];
      }),
    );
  return levels;
}

function summariesReference(k: NdArray, keyLengths: NdArray | null | undefined, shape: TreeShape): NdArray {
  const [B, Tk, KV, D] = k.shape as [number, number, number, number];
  const values: number[] = [];
  for (let b = 0; b < B; b++)
    for (let head = 0; head < KV; head++)
      values.push(...levelsOf(k, b, head, shape, Math.min(Tk, keyLengths?.data[b] ?? Tk)).flat(2));
  const row = shape.kind === 'boxes' ? [2, D] : [D];
  const nodes = values.length / (B * KV * row.reduce((a, n) => a * n, 1) || 1);
  return { shape: [B, KV, nodes, ...row], data: Float64Array.from(values) };
}

export interface SelectionAttributes extends TreeShape {
  window: number;
  beam: number;
  sinks?: number;
}

/** The descent as the documentation has it, over sets of nodes: (B, T, KV, beam). */
export function selectionReference(
  [q, k, starts]: readonly (NdArray | null | undefined)[],
  { window, beam, sinks = 0, ...shape }: SelectionAttributes,
): NdArray {
  const [B, T, H, D] = q!.shape as [number, number, number, number];
  const [KV, share] = [k!.shape[2]!, H / k!.shape[2]!];
  const { block, fanout, kind } = shape;
  const selected = nd([B, T, KV, beam], () => NONE);
  for (let b = 0; b < B; b++)
    for (let head = 0; head < KV; head++) {
      const levels = levelsOf(k!, b, head, shape, Infinity);
      for (let t = 0; t < T; t++) {
        const position = (starts?.data[b] ?? 0) + t;
        const first = Math.floor(Math.max(0, position - window + 1) / block); // leaf of the window
        const score = (level: number, node: number) => {
          const summary = levels[level]![node]!;
          const scores = Array.from({ length: share }, (_, h) => {
            let sum = 0;
            for (let d = 0; d < D; d++) {
              const x = q!.data[((b * T + t) * H + head * share + h) * D + d]!;
              sum += kind === 'boxes' ? Math.max(x * summary[d]!, x * summary[D + d]!) : x * summary[d]!;
            }
            return sum;
          });
          return Math.max(...scores);
        };
        const usable = (level: number, node: number) => (node + 1) * fanout ** level <= first;
        let kept: number[] = [];
        for (let level = levels.length - 1; level >= 0; level--) {
          const nodes = levels[level]!.map((_, node) => node).filter((node) => usable(level, node));
          const candidates = nodes.filter((node) => {
            const parent = Math.floor(node / fanout);
            const hasParent = level + 1 < levels.length && usable(level + 1, parent);
            return !hasParent || kept.includes(parent);
          });
          const always = level > 0 ? [] : nodes.filter((node) => node * block < sinks);
          const others = candidates.filter((node) => !always.includes(node));
          others.sort((a, c) => score(level, c) - score(level, a) || a - c);
          kept = [...always, ...others.slice(0, beam - always.length)];
        }
        kept.sort((a, c) => a - c);
        kept.forEach((leaf, i) => (selected.data[((b * T + t) * KV + head) * beam + i] = leaf));
      }
    }
  return selected;
}

export type TreeAttributes = Pick<TreeAttentionOptions, 'scale'> & { window: number; block: number };

/** Softmax over the keys in the window and in selected leaves, written out. */
export function treeAttentionReference(
  [q, k, v, selected, queryLengths, keyLengths]: readonly (NdArray | null | undefined)[],
  { window, block, ...options }: TreeAttributes,
): NdArray {
  const [B, Tq, H, D] = q!.shape as [number, number, number, number];
  const [, Tk, KV] = k!.shape as [number, number, number];
  const n = selected!.shape[3]!;
  const scale = options.scale ?? 1 / Math.sqrt(D);
  const out = nd(q!.shape);
  for (let b = 0; b < B; b++)
    for (let i = 0; i < Tq; i++)
      for (let h = 0; h < H; h++) {
        const head = Math.floor(h / (H / KV));
        const queries = Math.min(Tq, queryLengths?.data[b] ?? Tq);
        const position = i + Math.min(Tk, keyLengths?.data[b] ?? Tk) - queries;
        if (i >= queries || position < 0) continue;
        const list = selected!.data.subarray(((b * Tq + i) * KV + head) * n, ((b * Tq + i) * KV + head + 1) * n);
        const first = Math.floor(Math.max(0, position - window + 1) / block) * block;
        const seen: number[] = [];
        for (let j = 0; j <= position; j++) if (j >= first || list.includes(Math.floor(j / block))) seen.push(j);
        const qRow = ((b * Tq + i) * H + h) * D;
        const kRow = (j: number) => ((b * Tk + j) * KV + head) * D;
        const scores = seen.map((j) => {
          let score = 0;
          for (let d = 0; d < D; d++) score += q!.data[qRow + d]! * k!.data[kRow(j) + d]!;
          return score * scale;
        });
        const top = Math.max(...scores);
        const total = scores.reduce((sum, score) => sum + Math.exp(score - top), 0);
        seen.forEach((j, e) => {
          const p = Math.exp(scores[e]! - top) / total;
          for (let d = 0; d < D; d++) out.data[qRow + d]! += p * v!.data[kRow(j) + d]!;
        });
      }
  return out;
}

const pooled = (block: number, fanout: number): TreeShape => ({ block, fanout, kind: 'pooled' });
const boxes = (block: number, fanout: number): TreeShape => ({ block, fanout, kind: 'boxes' });

const summing = (k: readonly number[], shape: TreeShape, keyLengths?: readonly number[]): Sample<TreeShape> => ({
  name: `${k.join('×')} ${JSON.stringify(shape)} ${keyLengths?.join() ?? ''}`,
  inputs: [halves(k), keyLengths ? words(keyLengths) : null],
  attributes: shape,
});

const selecting = (
  {
    B = 1,
    T,
    Tk = T,
    H = 1,
    KV = H,
    D = 8,
  }: { B?: number; T: number; Tk?: number; H?: number; KV?: number; D?: number },
  attributes: SelectionAttributes,
  starts?: readonly number[],
): Sample<SelectionAttributes> => ({
  name: `B=${B} T=${T} Tk=${Tk} H=${H} KV=${KV} D=${D} ${JSON.stringify(attributes)} ${starts?.join() ?? ''}`,
  inputs: [halves([B, T, H, D]), halves([B, Tk, KV, D]), starts ? words(starts) : null],
  attributes,
});

interface Attending {
  B?: number;
  H?: number;
  KV?: number;
  Tq: number;
  Tk?: number;
  D?: number;
  /** Leaves of each query. */
  n: number;
  queryLengths?: readonly number[];
  keyLengths?: readonly number[];
}

/** A query's leaves are spread over what lies before its window: all of it where they are enough. */
const attending = (
  { B = 1, H = 1, KV = H, Tq, Tk = Tq, D = 8, n, queryLengths, keyLengths }: Attending,
  attributes: TreeAttributes,
): Sample<TreeAttributes> => {
  const { window, block } = attributes;
  const leafOf = (i: number) => {
    const [slot, head] = [i % n, Math.floor(i / n) % KV];
    const [t, b] = [Math.floor(i / (n * KV)) % Tq, Math.floor(i / (n * KV * Tq))];
    const position = t + Math.min(Tk, keyLengths?.[b] ?? Tk) - Math.min(Tq, queryLengths?.[b] ?? Tq);
    const usable = Math.floor(Math.max(0, position - window + 1) / block);
    if (usable <= n) return slot < usable ? slot : 2 ** 31; // past the last leaf
    return Math.floor((slot * usable + ((7 * t + 3 * head) % usable)) / n);
  };
  const extents = Object.entries({ B, H, KV, Tq, Tk, D, n, queryLengths, keyLengths }).filter(([, value]) => value);
  return {
    name: `${extents.map(([key, value]) => `${key}=${String(value)}`).join(' ')} ${JSON.stringify(attributes)}`,
    inputs: [
      normal([B, Tq, H, D]),
      normal([B, Tk, KV, D]),
      normal([B, Tk, KV, D]),
      { shape: [B, Tq, KV, n], dtype: 'u32', value: (_, i) => leafOf(i) },
      queryLengths ? words(queryLengths) : null,
      keyLengths ? words(keyLengths) : null,
    ],
    attributes,
  };
};

/** By brute force: the first leaf of those that hold the greatest product. */
function bestLeafReference(
  [q, k, starts]: readonly (NdArray | null | undefined)[],
  { window, block }: SelectionAttributes,
): NdArray {
  const [B, T, H, D] = q!.shape as [number, number, number, number];
  const [, Tk, KV] = k!.shape as [number, number, number];
  return nd([B, T, KV], (index) => {
    const [head, t, b] = [index % KV, Math.floor(index / KV) % T, Math.floor(index / KV / T)];
    const usable = Math.floor(Math.max(0, (starts?.data[b] ?? 0) + t - window + 1) / block);
    let [best, leaf] = [-Infinity, NONE];
    for (let j = 0; j < usable * block; j++)
      for (let h = head * (H / KV); h < (head + 1) * (H / KV); h++) {
        let product = 0;
        for (let d = 0; d < D; d++)
          product += q!.data[((b * T + t) * H + h) * D + d]! * k!.data[((b * Tk + j) * KV + head) * D + d]!;
        if (product > best) [best, leaf] = [product, Math.floor(j / block)];
      }
    return leaf;
  });
}

export const treeRows: Rows<'treeSummaries' | 'selectLeaves' | 'bestLeaf' | 'treeAttention'> = {
  treeSummaries: {
    call: (operation, [k, keyLengths], attributes: TreeShape) =>
      operation(k!, { ...attributes, ...(keyLengths ? { keyLengths } : {}) }).nodes,
    reference: ([k, keyLengths], attributes: TreeShape) => summariesReference(k!, keyLengths, attributes),
    samples: [
      summing([2, 40, 2, 8], pooled(4, 2)),
      summing([2, 70, 1, 4], pooled(8, 3)),
      summing([3, 64, 2, 8], pooled(4, 4), [64, 0, 35]),
      summing([1, 50, 2, 8], boxes(4, 2)),
      summing([2, 40, 1, 4], boxes(8, 2), [39, 40]),
      summing([1, 3, 1, 4], pooled(4, 2)), // not one leaf
    ],
    gradient: 'none',
    f16: 0, // results are f32
    arbitrary: fc
      .record({
        k: fc.tuple(
          fc.integer({ min: 1, max: 3 }),
          fc.integer({ min: 1, max: 100 }),
          fc.integer({ min: 1, max: 3 }),
          fc.constantFrom(4, 8),
        ),
        shape: fc.record({
          block: fc.integer({ min: 1, max: 9 }),
          fanout: fc.integer({ min: 2, max: 4 }),
          kind: fc.constantFrom('pooled' as const, 'boxes' as const),
        }),
      })
      .map(({ k, shape }) => summing(k, shape)),
    bad: [
      [(f, t) => f(t([2, 8, 4])).nodes, /\[treeSummaries\] k is \(2, 8, 4\); it must be \(B, T, KV, D\)/],
      [(f, t) => f(t([1, 8, 1, 6])).nodes, /head width of k \(1, 8, 1, 6\) must be a multiple of 4/],
      [(f, t) => f(t([1, 8, 1, 4]), { block: 0 }).nodes, /block is 0; it must be a whole number/],
      [
        (f, t) => f(t([1, 8, 1, 4]), { fanout: 1 }).nodes,
        /fanout is 1; it must be a whole number of nodes, at least 2/,
      ],
    ],
  },
  selectLeaves: {
    call: (operation, [q, k, starts], { window, beam, sinks = 0, ...shape }: SelectionAttributes) =>
      operation(q!, treeSummaries(k!, shape), { window, beam, sinks, ...(starts ? { starts } : {}) }).selected,
    reference: (inputs, attributes: SelectionAttributes) => selectionReference(inputs, attributes),
    samples: [
      selecting({ B: 2, T: 128, H: 2, D: 8 }, { ...pooled(4, 2), window: 6, beam: 3 }),
      selecting({ T: 200, H: 4, KV: 2, D: 12 }, { ...pooled(4, 4), window: 1, beam: 2 }),
      selecting({ B: 2, T: 90, H: 3, KV: 1, D: 4 }, { ...pooled(8, 2), window: 20, beam: 4, sinks: 9 }),
      selecting({ T: 130, H: 2 }, { ...boxes(4, 2), window: 5, beam: 3 }),
      selecting({ T: 150, H: 4, KV: 2 }, { ...boxes(4, 3), window: 9, beam: 2, sinks: 1 }),
      selecting({ B: 3, T: 7, Tk: 120, H: 2, KV: 1 }, { ...pooled(4, 2), window: 8, beam: 5 }, [0, 50, 113]),
      selecting({ T: 80 }, { ...pooled(4, 2), window: 4, beam: 20 }), // of no more than 19 leaves
      selecting({ T: 100 }, { ...pooled(1, 16), window: 1, beam: 10 }), // more candidates than the smaller kernel's
    ],
    gradient: 'none',
    f16: 0, // results are whole numbers
    tolerance: 0,
    arbitrary: fc
      .record({
        B: fc.integer({ min: 1, max: 2 }),
        T: fc.integer({ min: 1, max: 120 }),
        KV: fc.integer({ min: 1, max: 2 }),
        share: fc.integer({ min: 1, max: 5 }),
        shape: fc.oneof(
          fc.record({
            block: fc.constantFrom(1, 2, 4, 8),
            fanout: fc.constantFrom(2, 4, 8),
            kind: fc.constant('pooled' as const),
          }),
          fc.record({
            block: fc.integer({ min: 1, max: 9 }),
            fanout: fc.integer({ min: 2, max: 5 }),
            kind: fc.constant('boxes' as const),
          }),
        ),
        window: fc.integer({ min: 1, max: 30 }),
        beam: fc.integer({ min: 1, max: 9 }),
      })
      .map(({ B, T, KV, share, shape, window, beam }) =>
        selecting({ B, T, H: KV * share, KV, D: 4 }, { ...shape, window, beam }),
      ),
    bad: [
      [
        (f, t) => f(t([1, 8, 1, 4]), treeSummaries(t([1, 8, 1, 8]), { block: 4 }), { window: 4 }).selected,
        /\[selectLeaves\] batch and head width differ: q is \(1, 8, 1, 4\), the summaries are \(1, 1, 2, 8\)/,
      ],
      [
        (f, t) => f(t([1, 8, 3, 4]), treeSummaries(t([1, 8, 2, 4]), { block: 4 }), { window: 4 }).selected,
        /the 3 query heads must be a multiple of the 2 key heads/,
      ],
      [
        (f, t) => f(t([1, 8, 1, 4]), treeSummaries(t([1, 8, 1, 4]), { block: 4 }), { window: 0 }).selected,
        /the window 0 must be a whole number of keys, at least 1/,
      ],
      [
        (f, t) => f(t([1, 8, 1, 4]), treeSummaries(t([1, 8, 1, 4]), { block: 4 }), { window: 4, beam: 200 }).selected,
        /a beam of 200 nodes with 8 children each has too many candidates; 1024 fit/,
      ],
      [
        (f, t) =>
          f(t([1, 8, 1, 4]), treeSummaries(t([1, 8, 1, 4]), { block: 2 }), { window: 4, beam: 2, sinks: 5 }).selected,
        /5 sinks lie in 3 leaves of 2 keys, more than the 2 selected/,
      ],
    ],
  },
  bestLeaf: {
    call: (operation, [q, k, starts], { window, block, fanout }: SelectionAttributes) => {
      const summaries = treeSummaries(k!, { block, fanout, kind: 'boxes' });
      return operation(q!, k!, summaries, { window, ...(starts ? { starts } : {}) }).leaf;
    },
    reference: (inputs, attributes: SelectionAttributes) => bestLeafReference(inputs, attributes),
    samples: [
      selecting({ B: 2, T: 90, H: 2, D: 8 }, { ...boxes(4, 2), window: 6, beam: 1 }),
      selecting({ B: 2, T: 5, Tk: 150, H: 6, KV: 2, D: 4 }, { ...boxes(3, 4), window: 1, beam: 1 }, [0, 140]),
    ],
    gradient: 'none',
    f16: 0, // results are whole numbers
    tolerance: 0,
    arbitrary: fc
      .record({
        B: fc.integer({ min: 1, max: 2 }),
        T: fc.integer({ min: 1, max: 120 }),
        KV: fc.integer({ min: 1, max: 2 }),
        share: fc.integer({ min: 1, max: 3 }),
        block: fc.integer({ min: 1, max: 9 }),
        fanout: fc.integer({ min: 2, max: 5 }),
        window: fc.integer({ min: 1, max: 30 }),
      })
      .map(({ B, T, KV, share, block, fanout, window }) =>
        selecting({ B, T, H: KV * share, KV, D: 4 }, { ...boxes(block, fanout), window, beam: 1 }),
      ),
    bad: [
      [
        (f, t) => f(t([1, 8, 1, 4]), t([1, 8, 1, 4]), treeSummaries(t([1, 8, 1, 4]), { block: 4 }), { window: 4 }).leaf,
        /\[bestLeaf\] summaries of kind pooled bound no score; boxes are needed/,
      ],
    ],
  },
  treeAttention: {
    call: (operation, [q, k, v, selected, queryLengths, keyLengths], attributes: TreeAttributes) =>
      operation(q!, k!, v!, {
        ...attributes,
        selected: selected!,
        ...(queryLengths ? { queryLengths } : {}),
        ...(keyLengths ? { keyLengths } : {}),
      }),
    reference: (inputs, attributes: TreeAttributes) => treeAttentionReference(inputs, attributes),
    samples: [
      attending({ B: 2, H: 2, Tq: 60, D: 8, n: 3 }, { window: 6, block: 4 }),
      attending({ B: 2, H: 4, KV: 2, Tq: 40, D: 12, n: 2 }, { window: 10, block: 8, scale: 0.5 }),
      attending({ H: 6, KV: 1, Tq: 20, Tk: 90, D: 8, n: 4 }, { window: 5, block: 4 }), // heads that fill no tile of four
      attending(
        { B: 3, H: 2, Tq: 40, Tk: 60, n: 2, queryLengths: [40, 0, 33], keyLengths: [60, 17, 33] },
        { window: 4, block: 4 },
      ),
      attending({ Tq: 70, n: 1, D: 4 }, { window: 1, block: 1 }),
      attending({ Tq: 24, n: 3 }, { window: 30, block: 4 }), // the window sees all
      // few queries: the window's keys are walked by the same kernel
      attending({ B: 2, H: 4, KV: 2, Tq: 1, Tk: 50, D: 8, n: 3, keyLengths: [50, 21] }, { window: 6, block: 4 }),
      attending({ B: 2, H: 2, Tq: 3, Tk: 40, n: 2, queryLengths: [3, 1] }, { window: 6, block: 4 }),
      { ...attending({ H: 2, Tq: 18, Tk: 900, D: 8, n: 5 }, { window: 9, block: 128 }), forwardOnly: true }, // several pieces
      { ...attending({ Tq: 20, Tk: 64, D: 160, n: 2 }, { window: 8, block: 8 }), forwardOnly: true },
    ],
    gradient: [0, 1, 2],
    f16: 6, // the window's results and gradients are rounded before the leaves' are added
    arbitrary: fc
      .record({
        B: fc.integer({ min: 1, max: 2 }),
        KV: fc.integer({ min: 1, max: 2 }),
        share: fc.integer({ min: 1, max: 5 }),
        Tq: fc.integer({ min: 1, max: 40 }),
        before: fc.integer({ min: 0, max: 40 }),
        D: fc.constantFrom(4, 8),
        n: fc.integer({ min: 1, max: 5 }),
        window: fc.integer({ min: 1, max: 20 }),
        block: fc.integer({ min: 1, max: 9 }),
      })
      .map(({ share, before, window, block, ...shapes }) =>
        attending({ ...shapes, H: shapes.KV * share, Tk: shapes.Tq + before }, { window, block }),
      ),
    bad: [
      [
        (f, t) => f(t([1, 8, 2, 4]), t([1, 8, 1, 4]), t([1, 8, 1, 4]), { selected: t([1, 8, 2, 3], 'u32'), window: 4 }),
        /\[treeAttention\] selected is u32 \(1, 8, 2, 3\); it must be u32 \(1, 8, 1, n\)/,
      ],
      [
        (f, t) => f(t([1, 8, 2, 6]), t([1, 8, 1, 6]), t([1, 8, 1, 6]), { selected: t([1, 8, 1, 3], 'u32'), window: 4 }),
        /the head width of q \(1, 8, 2, 6\) must be a multiple of 4/,
      ],
      [
        (f, t) => f(t([1, 8, 3, 4]), t([1, 8, 2, 4]), t([1, 8, 2, 4]), { selected: t([1, 8, 2, 3], 'u32'), window: 4 }),
        /\[treeAttention\] the 3 query heads must be a multiple of the 2 key heads/,
      ],
      [
        (f, t) => f(t([1, 8, 1, 4]), t([1, 8, 1, 4]), t([1, 8, 1, 4]), { selected: t([1, 8, 1, 3], 'u32'), window: 0 }),
        /the window 0 must be a whole number of keys, at least 1/,
      ],
    ],
  },
};
