import { f16ToF32, f32ToF16, HostRandom, randomKey } from '../../../engine/index.ts';
import { cast, sampledTokens, samplingParameters } from '../../../kernels/index.ts';
import type { SamplingSettings } from '../../../kernels/index.ts';
import { nd } from '../row.ts';
import type { InputSpec, NdArray, Rows, Sample } from '../row.ts';

/** A sequence as the sampling kernel sees it; absent parts change nothing. */
export interface Sequence {
  readonly logits: ArrayLike<number>;
  readonly counts?: ArrayLike<number> | undefined;
  readonly bias?: ArrayLike<number> | undefined;
  readonly allowed?: ((id: number) => boolean) | undefined;
}

/** What sampling comes to in float64. */
export interface Expected {
  /** −1 where every token is excluded. */
  readonly token: number;
  readonly logProbability: number;
  /** Tokens by falling probability, lower ids first, under the unmodified logits. */
  readonly top: readonly { readonly token: number; readonly logProbability: number }[];
  /** Tokens that may be drawn. */
  readonly kept: ReadonlySet<number>;
  /** Whether a choice hangs on less than what f32 may round: the result may differ then. */
  readonly close: boolean;
}

const excluded = (value: number) => value <= -3.4028234663852886e38;

/** The definitions, one after another, with a sort. */
export function expectedSample({ logits, counts, bias, allowed }: Sequence, settings: SamplingSettings): Expected {
  const { temperature = 1, topK = 0, topP = 1, minP = 0, seed = 0, sample = 0, step = 0 } = settings;
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = settings;
  const ids = Array.from(logits, (_, id) => id);
  const ordered = (values: ArrayLike<number>) =>
    ids.filter((id) => !excluded(values[id]!)).sort((a, b) => values[b]! - values[a]! || a - b);

  const raw = ordered(logits);
  const highest = logits[raw[0]!]!;
  const logSum = highest + Math.log(raw.reduce((sum, id) => sum + Math.exp(logits[id]! - highest), 0));
  const top = raw.map((token) => ({ token, logProbability: logits[token]! - logSum }));

  const z = ids.map((id) => {
    let value = logits[id]!;
    const word = counts?.[id] ?? 0;
    const drawn = word % 2 ** 31;
    if (excluded(value) || allowed?.(id) === false) return -Infinity;
    if (word > 0) value = value > 0 ? value / repetitionPenalty : value * repetitionPenalty;
    value -= frequencyPenalty * drawn + (drawn > 0 ? presencePenalty : 0);
    return value + (bias?.[id] ?? 0);
  });
  let kept = ordered(z);
  const best = kept[0];
  if (best === undefined) return { token: -1, logProbability: NaN, top, kept: new Set(), close: false };
  const size = kept.reduce((most, id) => Math.max(most, Math.abs(z[id]!), Math.abs(logits[id]!)), 0);
  // Each step of the change rounds by 2⁻²⁴ of what is there; then exp and log err by a few units.
  const slack = 4e-6 + (size * 2 ** -21) / (temperature || 1);
  let close = false;
  /** Whether a rounding could let `b` come before `a`. */
  const near = (a: number, b: number | undefined) => b !== undefined && z[a] !== z[b] && (z[a]! - z[b]!) / (temperature || 1) < slack; // prettier-ignore
  if (temperature === 0) {
    close = kept.some((id) => near(best, id));
    return { token: best, logProbability: logits[best]! - logSum, top, kept: new Set([best]), close };
  }
  const weight = (id: number) => Math.exp((z[id]! - z[best]!) / temperature);
  const cut = (count: number) => {
    if (count < kept.length) close ||= near(kept[count - 1]!, kept[count]);
    kept = kept.slice(0, count);
  };
  if (topK > 0) cut(Math.min(topK, kept.length));
  if (topP < 1) {
    const goal = Math.fround(topP) * kept.reduce((sum, id) => sum + weight(id), 0);
    let mass = 0;
    let count = 0;
    while (count === 0 || (mass < goal && count < kept.length)) {
      mass += weight(kept[count++]!);
      close ||= Math.abs(mass - goal) < slack * goal;
    }
    cut(count);
  }
  close ||= kept.some((id) => minP > 0 && id !== best && Math.abs(weight(id) / minP - 1) < slack);
  kept = kept.filter((id) => weight(id) >= minP || z[id] === z[best]);

  const random = new HostRandom(randomKey(seed, 'tokens'), sample, step);
  const words = ids.map(() => random.word());
  const score = (id: number) => (z[id]! - z[best]!) / temperature - Math.log(-Math.log((words[id]! + 0.5) / 2 ** 32));
  const scores = kept.map(score);
  const first = scores.indexOf(scores.reduce((most, value) => Math.max(most, value), -Infinity));
  close ||= scores.some((value, i) => i !== first && scores[first]! - value < slack);
  const token = kept[first]!;
  return { token, logProbability: logits[token]! - logSum, top, kept: new Set(kept), close };
}

/** Rows of a batch as sequences. */
export function sequencesOf(
  logits: NdArray,
  counts: NdArray | null,
  bias: NdArray | null,
  mask: NdArray | null,
): Sequence[] {
  const [batch, vocabulary] = logits.shape as [number, number];
  const row = (array: NdArray | null, b: number) => {
    if (!array) return undefined;
    const [rows, width] = array.shape as [number, number];
    return array.data.subarray((b % rows) * width, ((b % rows) + 1) * width);
  };
  return Array.from({ length: batch }, (_, b) => {
    const words = row(mask, b);
    return {
      logits: logits.data.subarray(b * vocabulary, (b + 1) * vocabulary),
      counts: row(counts, b),
      bias: row(bias, b),
      allowed: words && ((id: number) => ((words[id >>> 5]! >>> (id & 31)) & 1) === 1),
    };
  });
}

/** Whole halves, as f16 has them: rounding plays no part in their order, and many tie. */
const halves = (shape: readonly number[]): InputSpec => ({
  shape,
  value: (random) => Math.round(6 * random.normal(1)[0]!) / 2,
});
const counted = (shape: readonly number[]): InputSpec => ({
  shape,
  dtype: 'u32',
  value: (random) => (random.uniform() < 0.7 ? 0 : random.below(4) + (random.uniform() < 0.5 ? 2 ** 31 : 0)),
});
const masked = (batch: number, vocabulary: number): InputSpec => ({
  shape: [batch, Math.ceil(vocabulary / 32)],
  dtype: 'u32',
  value: (random) => random.word(),
});

interface SampleAttributes {
  readonly settings: readonly SamplingSettings[];
}

const penalties = { repetitionPenalty: 2, presencePenalty: 0.5, frequencyPenalty: 0.25 };

const sampling = (
  shape: readonly [number, number],
  settings: readonly SamplingSettings[],
  [counts, bias, mask]: readonly [boolean, boolean, boolean] = [false, false, false],
): Sample<SampleAttributes> => ({
  inputs: [
    halves(shape),
    counts ? counted(shape) : null,
    bias ? halves([1, shape[1]]) : null,
    mask ? masked(...shape) : null,
  ],
  attributes: { settings },
});

const times = (count: number, f: (i: number) => SamplingSettings) => Array.from({ length: count }, (_, i) => f(i));

export const samplingRows: Rows<'sampleTokens' | 'countTokens'> = {
  sampleTokens: {
    call: (operation, [logits, counts, bias, mask], { settings }) =>
      sampledTokens(
        operation(logits!, {
          parameters: samplingParameters(logits!.device, settings),
          counts: counts ?? null,
          bias: bias ? cast(bias, 'f32') : null,
          mask: mask ?? null,
        }),
      ),
    reference: ([logits, counts, bias, mask], { settings }) => {
      const sequences = sequencesOf(logits!, counts ?? null, bias ?? null, mask ?? null);
      return nd([sequences.length], (b) => expectedSample(sequences[b]!, settings[b]!).token);
    },
    samples: [
      sampling([7, 331], times(7, (seed) => ({ seed, topK: 40, topP: 0.9, minP: 0.01, temperature: 2, ...penalties })), [true, true, true]),
      sampling([3, 64], times(3, (seed) => ({ seed }))),
      sampling([2, 130], times(2, () => ({ temperature: 0 })), [true, false, true]),
      sampling([1, 1], [{ topP: 0 }]),
      sampling([2, 3000], times(2, (seed) => ({ seed, topP: 0.7, temperature: 4 }))),
    ],
    gradient: 'none',
    tolerance: 0,
    f16: 0, // ids; halves are halves in f16
    bad: [
      [
        (operation, t) => operation(t([2, 3, 4]), { parameters: t([2, 11], 'u32') }),
        /\[sampleTokens\] logits must be f32 or f16 \(B, V\), not f32 \(2, 3, 4\)/,
      ],
      [(operation, t) => operation(t([2, 3]), { parameters: t([3, 11], 'u32') }), /parameters must be u32 \(2, 11\)/],
      [
        (operation, t) => operation(t([2, 40]), { parameters: t([2, 11], 'u32'), mask: t([2, 1], 'u32') }),
        /mask must be u32 \(2, 2\) or \(1, 2\) for logits \(2, 40\), not u32 \(2, 1\)/,
      ],
      [
        (operation, t) => operation(t([2, 3]), { parameters: t([2, 11], 'u32'), counts: t([2, 3]) }),
        /counts must be u32 \(2, 3\) for logits \(2, 3\), not f32/,
      ],
      [
        (operation, t) => operation(t([2, 3]), { parameters: t([2, 11], 'u32'), top: 21 }),
        /top is a whole number from 0 to 20, not 21/,
      ],
      [
        (operation, t) => operation(t([1, 2 ** 18 + 1]), { parameters: t([1, 11], 'u32') }),
        /a vocabulary has 262144 tokens at most/,
      ],
    ],
  }, // prettier-ignore
  countTokens: {
    call: (operation, [counts, tokens], options) => {
      operation(counts!, tokens!, options);
      return counts!;
    },
    reference: ([counts, tokens], { prompt = false, times = 1 }) => {
      const [batch, vocabulary] = counts!.shape as [number, number];
      const words = Uint32Array.from(counts!.data);
      tokens!.data.forEach((token, i) => {
        const at = Math.floor(i / (tokens!.data.length / batch)) * vocabulary + token;
        if (token < 0 || token >= vocabulary) return;
        words[at] = prompt ? (words[at]! | (2 ** 31)) >>> 0 : words[at]! + (times as number);
      });
      return nd(counts!.shape, (i) => words[i]!);
    },
    samples: [{}, { prompt: true }, { times: -1 }].map((attributes) => ({
      name: JSON.stringify(attributes),
      inputs: [
        { shape: [3, 20], dtype: 'u32', value: (random) => 100 + random.below(9) },
        { shape: [3, 70], dtype: 'i32', value: (random) => random.below(24) - 2 },
      ],
      attributes,
    })),
    gradient: 'none',
    tolerance: 0,
    bad: [
      [(operation, t) => operation(t([2, 3]), t([2], 'i32')), /counts must be u32 \(B, V\), not f32 \(2, 3\)/],
      [
        (operation, t) => operation(t([2, 3], 'u32'), t([3], 'i32')),
        /tokens must be i32 \(2\) or \(2, T\) .* not i32 \(3,\)/,
      ],
    ],
  },
};

/** A row's values as the device has them in f16. */
export const halved = (values: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> => f16ToF32(f32ToF16(values));
