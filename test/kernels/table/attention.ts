import fc from 'fast-check';
import type { Shape } from '../../../engine/index.ts';
import { nd } from '../row.ts';
import type { InputSpec, NdArray, Rows, Sample } from '../row.ts';
import type { AttentionOptions, BlockPattern } from '../../../kernels/index.ts';

export type Attributes = Omit<AttentionOptions, 'mask' | 'queryLengths' | 'keyLengths'>;

interface Shapes {
  B?: number;
  H?: number;
  KV?: number;
  Tq: number;
  Tk?: number;
  D: number;
  /** Heads of an additive mask, (B, mask, Tq, Tk). */
  mask?: number;
  /** How many queries and keys of each sequence count. */
  queryLengths?: readonly number[];
  keyLengths?: readonly number[];
  /** Key blocks that are selected on the device: (B or 1, KV or 1, query blocks, n), nested. */
  selected?: readonly (readonly (readonly (readonly number[])[])[])[];
}

/** The key blocks that each query block of a sample and key head sees. */
function visibleBlocks(blocks: BlockPattern, selected: NdArray | null | undefined, b: number, head: number) {
  if (!selected) return blocks.visible as readonly (readonly number[])[];
  const [batches, heads, rows, n] = selected.shape as [number, number, number, number];
  const first = (b % batches) * heads + (head % heads);
  return Array.from({ length: rows }, (_, i) => [
    ...selected.data.subarray((first * rows + i) * n, (first * rows + i + 1) * n),
  ]);
}

/** Attention and its log-sum-exp written out: every score, then the softmax over the keys that a query sees. */
export function attentionReference(
  [q, k, v, mask, queryLengths, keyLengths, selected]: (NdArray | null | undefined)[],
  { causal = false, window, windowBlock = 1, sinks = 0, blocks, layout = 'bhtd', ...options }: Attributes,
): { out: NdArray; logSumExp: NdArray } {
  const [head, position] = layout === 'bhtd' ? [1, 2] : [2, 1];
  const [B, D] = [q!.shape[0]!, q!.shape[3]!];
  const [H, Tq, KV, Tk] = [q!.shape[head]!, q!.shape[position]!, k!.shape[head]!, k!.shape[position]!];
  const scale = options.scale ?? 1 / Math.sqrt(D);
  const row = (b: number, h: number, t: number, heads: number, length: number) =>
    D * (layout === 'bhtd' ? (b * heads + h) * length + t : (b * length + t) * heads + h);
  const out = nd(q!.shape);
  const logSumExp = nd([B, H, Tq]);
  for (let b = 0; b < B; b++)
    for (let h = 0; h < H; h++)
      for (let i = 0; i < Tq; i++) {
        const kvHead = Math.floor(h / (H / KV));
        const visible = blocks && visibleBlocks(blocks, selected, b, kvHead);
        const queries = Math.min(Tq, queryLengths?.data[b] ?? Tq);
        const keys = Math.min(Tk, keyLengths?.data[b] ?? Tk);
        const qRow = row(b, h, i, H, Tq);
        const kRow = (j: number) => row(b, kvHead, j, KV, Tk);
        const scores = Array.from({ length: Tk }, (_, j) => {
          if (i >= queries || j >= keys) return -Infinity;
          if (causal && j > i + keys - queries) return -Infinity;
          const first = Math.max(0, i + keys - queries - (window ?? Infinity) + 1);
          if (j < windowBlock * Math.floor(first / windowBlock) && j >= sinks) return -Infinity;
          if (visible && !visible[Math.floor(i / blocks.size)]!.includes(Math.floor(j / blocks.size))) return -Infinity;
          let score = 0;
          for (let d = 0; d < D; d++) score += q!.data[qRow + d]! * k!.data[kRow(j) + d]!;
          const maskHeads = mask?.shape[1] ?? 1;
          return score * scale + (mask ? mask.data[((b * maskHeads + (h % maskHeads)) * Tq + i) * Tk + j]! : 0);
        });
        const top = Math.max(...scores);
        const total = scores.reduce((sum, score) => sum + Math.exp(score - top), 0);
        const seen = top > -Infinity;
        logSumExp.data[(b * H + h) * Tq + i] = seen ? top + Math.log(total) : -1e30;
        if (seen)
          scores.forEach((score, j) => {
            const p = Math.exp(score - top) / total;
            for (let d = 0; d < D; d++) out.data[qRow + d]! += p * v!.data[kRow(j) + d]!;
          });
      }
  return { out, logSumExp };
}

function sample(
  { B = 1, H = 1, KV = H, Tq, Tk = Tq, D, mask, queryLengths, keyLengths, selected }: Shapes,
  attributes: Attributes = {},
): Sample<Attributes> {
  const words = (shape: readonly number[], values: readonly number[]) => ({
    shape,
    dtype: 'u32' as const,
    value: (_: unknown, i: number) => values[i]!,
  });
  const shape = (heads: number, length: number) =>
    attributes.layout === 'bthd' ? [B, length, heads, D] : [B, heads, length, D];
  // Normal whatever values are tried: where scores are larger than 1 / rounding, rounding decides which key takes all, and
  // there is nothing to compare.
  const normal = (shape: Shape): InputSpec => ({ shape, value: (random) => random.normal(1)[0]! });
  const ids = selected && [selected.length, selected[0]!.length, selected[0]![0]!.length, selected[0]![0]![0]!.length];
  const inputs = [
    normal(shape(H, Tq)),
    normal(shape(KV, Tk)),
    shape(KV, Tk),
    mask ? [B, mask, Tq, Tk] : null,
    queryLengths ? words([B], queryLengths) : null,
    keyLengths ? words([B], keyLengths) : null,
    ids ? words(ids, selected.flat(3)) : null,
  ];
  const extents = Object.entries({ B, H, KV, Tq, Tk, D, mask, queryLengths, keyLengths }).filter(([, value]) => value);
  const name = extents.map(([key, value]) => `${key}=${String(value)}`).join(' ');
  return { name: `${name} ${JSON.stringify(attributes)}`, inputs, attributes };
}

/** Which blocks are seen is an input then. */
const SELECTED: Attributes = { blocks: { size: 32, visible: [] } };

const samples: Sample<Attributes>[] = [
  sample({ B: 2, H: 2, Tq: 9, D: 8 }),
  sample({ Tq: 1, D: 8 }),
  sample({ Tq: 1, Tk: 1, D: 1 }),
  sample({ H: 2, Tq: 1, Tk: 40, D: 8 }, { causal: true }), // one query against a cache of keys
  sample({ B: 2, H: 2, Tq: 33, Tk: 77, D: 10 }), // past the tiles, and a width that is no multiple of 4
  sample({ B: 2, H: 4, Tq: 64, Tk: 24, D: 24 }, { layout: 'bthd' }),
  sample({ B: 2, H: 4, KV: 2, Tq: 17, Tk: 20, D: 10 }, { layout: 'bthd', causal: true }),
  sample({ H: 2, Tq: 70, D: 8 }, { causal: true }),
  sample({ H: 2, Tq: 70, D: 8 }, { causal: true, window: 9 }),
  sample({ H: 2, Tq: 20, Tk: 70, D: 8 }, { causal: true, window: 33 }),
  sample({ H: 2, Tq: 70, D: 8 }, { causal: true, window: 9, sinks: 5 }),
  sample({ H: 2, Tq: 70, D: 8 }, { causal: true, window: 9, windowBlock: 8 }),
  sample(
    { B: 2, H: 2, KV: 1, Tq: 30, Tk: 50, D: 8, keyLengths: [41, 50] },
    { causal: true, window: 5, windowBlock: 12, sinks: 3 },
  ),
  sample({ H: 2, KV: 1, Tq: 40, Tk: 90, D: 8 }, { causal: true, window: 20, sinks: 37 }),
  // sequences of their own lengths, an empty one among them, and a cache that is not full
  sample({ B: 3, H: 2, Tq: 40, D: 8, queryLengths: [40, 0, 33], keyLengths: [40, 17, 33] }, { causal: true }),
  sample({ B: 2, H: 2, KV: 1, Tq: 5, Tk: 80, D: 8, keyLengths: [7, 64] }, { causal: true, window: 12, sinks: 2 }),
  sample({ B: 2, H: 2, Tq: 35, Tk: 70, D: 10, queryLengths: [35, 3] }, { layout: 'bthd' }),
  sample({ Tq: 20, Tk: 7, D: 8 }, { causal: true }), // the first 13 queries see nothing
  sample({ B: 2, H: 6, KV: 2, Tq: 18, Tk: 23, D: 8 }, { causal: true, scale: 0.5 }),
  sample({ B: 2, H: 2, Tq: 13, Tk: 21, D: 8, mask: 1 }),
  sample({ B: 2, H: 2, KV: 1, Tq: 13, Tk: 21, D: 8, mask: 2 }, { causal: true }),
  sample({ H: 2, Tq: 40, Tk: 70, D: 8, mask: 1, keyLengths: [66] }, { blocks: { size: 32, visible: [[0, 2], [1]] } }),
  sample({ Tq: 100, Tk: 130, D: 8 }, { blocks: { size: 32, visible: [[0, 4], [], [1, 2], [2, 3, 4]] } }),
  sample({ Tq: 128, D: 8 }, { causal: true, blocks: { size: 64, visible: [[0], [0, 1]] } }),
  // selected on the device, in any order, filled up by what is past the end
  sample(
    {
      B: 2,
      H: 4,
      KV: 2,
      Tq: 70,
      D: 8,
      selected: [
        [
          [
            [0, 9],
            [1, 0],
            [2, 0],
          ],
          [
            [0, 0],
            [1, 9],
            [0, 2],
          ],
        ],
      ],
      keyLengths: [70, 50],
    },
    { causal: true, ...SELECTED },
  ),
  // few queries and many keys: by spans of 512
  sample({ H: 2, KV: 1, Tq: 1, Tk: 300, D: 4 }),
  { ...sample({ B: 2, H: 6, KV: 1, Tq: 1, Tk: 1100, D: 12, keyLengths: [1090, 9] }), forwardOnly: true },
  { ...sample({ H: 2, Tq: 2, Tk: 520, D: 10, mask: 1 }, { causal: true, layout: 'bthd' }), forwardOnly: true },
  {
    ...sample({ B: 2, Tq: 3, Tk: 600, D: 8, queryLengths: [3, 1] }, { causal: true, window: 40, sinks: 3 }),
    forwardOnly: true,
  },
  {
    ...sample({ H: 2, KV: 1, Tq: 4, Tk: 300, D: 4 }, { causal: true, window: 30, windowBlock: 16 }),
    forwardOnly: true,
  },
  {
    ...sample({ H: 4, KV: 2, Tq: 1, Tk: 640, D: 8, selected: [[[[19, 3, 3]], [[20, 0, 16]]]] }, SELECTED),
    forwardOnly: true,
  },
  { ...sample({ Tq: 20, Tk: 40, D: 160 }), forwardOnly: true },
  { ...sample({ Tq: 3, Tk: 10, D: 256 }), forwardOnly: true },
  { ...sample({ B: 66000, Tq: 1, Tk: 2, D: 8 }), forwardOnly: true }, // past 65,535 workgroups
  sample({ B: 0, Tq: 4, D: 8 }),
  sample({ Tq: 4, Tk: 0, D: 8 }),
];

/** Widths in whole quads and others: two pipelines of each kernel. */
const arbitrary = fc
  .record({
    B: fc.integer({ min: 1, max: 3 }),
    KV: fc.integer({ min: 1, max: 2 }),
    share: fc.integer({ min: 1, max: 3 }),
    Tq: fc.integer({ min: 1, max: 40 }),
    // from 256 on, keys are split where there are few queries
    Tk: fc.oneof(
      { arbitrary: fc.integer({ min: 1, max: 40 }), weight: 5 },
      { arbitrary: fc.integer({ min: 250, max: 270 }), weight: 1 },
    ),
    D: fc.constantFrom(8, 10),
    causal: fc.boolean(),
    window: fc.option(fc.integer({ min: 1, max: 20 }), { nil: undefined }),
    windowBlock: fc.constantFrom(1, 1, 4, 7),
    sinks: fc.integer({ min: 0, max: 20 }),
    queryLengths: fc.option(fc.array(fc.nat({ max: 45 }), { minLength: 3, maxLength: 3 }), { nil: undefined }),
    keyLengths: fc.option(fc.array(fc.nat({ max: 60 }), { minLength: 3, maxLength: 3 }), { nil: undefined }),
    layout: fc.constantFrom('bhtd' as const, 'bthd' as const),
  })
  .map(({ share, causal, window, windowBlock, sinks, layout, queryLengths, keyLengths, ...shapes }) =>
    sample(
      {
        ...shapes,
        H: shapes.KV * share,
        ...(queryLengths ? { queryLengths: queryLengths.slice(0, shapes.B) } : {}),
        ...(keyLengths ? { keyLengths: keyLengths.slice(0, shapes.B) } : {}),
      },
      { causal, layout, ...(causal && window ? { window, windowBlock, sinks } : {}) },
    ),
  );

const cases: readonly (readonly [string, Shapes])[] = [
  ['8 heads 1024 × 40', { H: 8, Tq: 1024, D: 40 }],
  ['8 heads 1024 × 77 × 40', { H: 8, Tq: 1024, Tk: 77, D: 40 }],
  ['8 heads 512 × 64', { H: 8, Tq: 512, D: 64 }],
  ['8 heads over 2, one query of 4096 × 64', { H: 8, KV: 2, Tq: 1, Tk: 4096, D: 64 }],
];

export const attentionRows: Rows<'attention'> = {
  attention: {
    call: (operation, [q, k, v, mask, queryLengths, keyLengths, visible], { blocks, ...attributes }: Attributes) =>
      operation(q!, k!, v!, {
        ...attributes,
        ...(mask ? { mask } : {}),
        ...(queryLengths ? { queryLengths } : {}),
        ...(keyLengths ? { keyLengths } : {}),
        ...(blocks ? { blocks: visible ? { size: blocks.size, visible } : blocks } : {}),
      }),
    reference: (inputs, attributes: Attributes) => attentionReference(inputs, attributes).out,
    samples,
    gradient: [0, 1, 2, 3],
    arbitrary,
    bad: [
      [(f, t) => f(t([2, 3, 4]), t([2, 3, 4]), t([2, 3, 4])), /q is \(2, 3, 4\); with layout 'bhtd' it must be/],
      [(f, t) => f(t([1, 2, 3, 4]), t([1, 2, 3, 4]), t([1, 2, 5, 4])), /k is \(1, 2, 3, 4\) and v is \(1, 2, 5, 4\)/],
      [(f, t) => f(t([1, 2, 3, 4]), t([1, 2, 3, 8]), t([1, 2, 3, 8])), /batch and head width differ/],
      [(f, t) => f(t([1, 3, 3, 4]), t([1, 2, 3, 4]), t([1, 2, 3, 4])), /3 query heads must be a multiple of the 2/],
      [(f, t) => f(t([1, 1, 1, 260]), t([1, 1, 1, 260]), t([1, 1, 1, 260])), /head width 260 must be 1 to 256/],
      [
        (f, t) => f(t([1, 1, 1, 4], 'i32'), t([1, 1, 1, 4]), t([1, 1, 1, 4])),
        /\[attention\] q is i32, k is f32, v is f32; they must be f32 or f16/,
      ],
      [(f, t) => f(t([1, 1, 3, 4]), t([1, 1, 3, 4]), t([1, 1, 3, 4]), { window: 2 }), /needs causal: true/],
      [
        (f, t) => f(t([1, 1, 3, 4]), t([1, 1, 3, 4]), t([1, 1, 3, 4]), { causal: true, window: 0 }),
        /window 0 must be a whole number of keys, at least 1/,
      ],
      [
        (f, t) => f(t([1, 1, 3, 4]), t([1, 1, 3, 4]), t([1, 1, 3, 4]), { causal: true, windowBlock: 8 }),
        /windowBlock says where a window begins, so it needs one/,
      ],
      [
        (f, t) => f(t([1, 2, 3, 4]), t([1, 2, 3, 4]), t([1, 2, 3, 4]), { mask: t([1, 3, 3, 3]) }),
        /mask is \(1, 3, 3, 3\); it must be \(1, 1 or 2, 3, 3\)/,
      ],
      [
        (f, t) => f(t([1, 1, 3, 4]), t([1, 1, 3, 4]), t([1, 1, 3, 4]), { blocks: { size: 48, visible: [[0]] } }),
        /blocks\.size is 48; it must be a multiple of 32/,
      ],
      [
        (f, t) => f(t([1, 1, 3, 4]), t([1, 1, 3, 4]), t([1, 1, 3, 4]), { blocks: { size: 32, visible: [[1]] } }),
        /names key block 1; 3 keys make 0 to 0/,
      ],
    ],
    // What the other engines count: two products, the softmax left out.
    bench: cases.map(([name, shapes]) => {
      const { H = 1, Tq, Tk = Tq, D } = shapes;
      return { ...sample(shapes), name, flops: 4 * H * Tq * Tk * D };
    }),
  },
};
