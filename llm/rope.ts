/**
 * Frequencies of rotary position embedding and the ways in which they are stretched to contexts longer than those of
 * training; the turning itself is `rope` (kernels/rope).
 */
import { z } from 'zod';
import { ropeFrequencies } from '../kernels/index.ts';

const factor = z.number().min(1);
const length = z.int().min(1);
const named = <const T extends string>(name: T) => ({ rope_type: z.literal(name) });

/** `rope_scaling` of a `config.json`, with its kind as `rope_type`. */
export const ropeScaling = z.discriminatedUnion('rope_type', [
  z.strictObject({ ...named('default') }),
  z.strictObject({ ...named('linear'), factor }),
  z.strictObject({ ...named('dynamic'), factor, original_max_position_embeddings: length.optional() }),
  z.strictObject({
    ...named('yarn'),
    factor,
    original_max_position_embeddings: length.optional(),
    attention_factor: z.number().gt(0).optional(),
    beta_fast: z.number().gt(0).default(32),
    beta_slow: z.number().gt(0).default(1),
    mscale: z.number().gt(0).optional(),
    mscale_all_dim: z.number().gt(0).optional(),
    truncate: z.boolean().default(true),
  }),
  z
    .strictObject({
      ...named('llama3'),
      factor,
      low_freq_factor: z.number().gt(0),
      high_freq_factor: z.number().gt(0),
      original_max_position_embeddings: length,
    })
    .refine((scaling) => scaling.low_freq_factor < scaling.high_freq_factor, {
      message: 'it must be over low_freq_factor',
      path: ['high_freq_factor'],
    }),
  /** What each pair's frequency is divided by: how GGUF files say llama3's. */
  z.strictObject({ ...named('factors'), factors: z.array(z.number().gt(0)) }),
]);
export type RopeScaling = z.infer<typeof ropeScaling>;

export interface RopeConfig {
  readonly base: number;
  /** Columns of a head that turn: the first ones. */
  readonly columns: number;
  readonly scaling: RopeScaling;
  /** The context of training, where the scaling doesn't say its own. */
  readonly context: number;
}

export interface RopeValues {
  /** Radians a position, for each pair of columns. */
  readonly frequencies: Float64Array;
  /** What turned queries and keys are multiplied by, each. */
  readonly scale: number;
}

/**
 * The frequencies in force for sequences of up to `length` tokens (only *dynamic* scaling depends on it). Sources:
 * Su et al. 2021 (RoFormer); linear: Chen et al. 2023 (position interpolation); dynamic: bloc97 2023 (NTK-aware scaling);
 * YaRN: Peng et al. 2023; llama3: Llama 3.1's model card and code.
 */
export function ropeValues({ base, columns, scaling, context }: RopeConfig, length: number): RopeValues {
  const frequencies = ropeFrequencies(columns, base);
  switch (scaling.rope_type) {
    case 'default':
      return { frequencies, scale: 1 };
    case 'linear':
      return { frequencies: frequencies.map((frequency) => frequency / scaling.factor), scale: 1 };
    case 'factors':
      return { frequencies: frequencies.map((frequency, pair) => frequency / scaling.factors[pair]!), scale: 1 };
    case 'dynamic': {
      const trained = scaling.original_max_position_embeddings ?? context;
      const stretch = (scaling.factor * Math.max(length, trained)) / trained - (scaling.factor - 1);
      return { frequencies: ropeFrequencies(columns, base * stretch ** (columns / (columns - 2))), scale: 1 };
    }
    case 'yarn':
      return yarn(frequencies, base, columns, scaling, context);
    case 'llama3': {
      const { low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: trained } = scaling;
      // Turns that a pair makes within the trained context: few are stretched, many are left, between them a blend.
      const stretched = (frequency: number) => {
        const turns = (trained * frequency) / (2 * Math.PI);
        const kept = clamp((turns - low) / (high - low));
        return (1 - kept) * (frequency / scaling.factor) + kept * frequency;
      };
      return { frequencies: frequencies.map(stretched), scale: 1 };
    }
  }
}

function yarn(
  frequencies: Float64Array,
  base: number,
  columns: number,
  scaling: Extract<RopeScaling, { rope_type: 'yarn' }>,
  context: number,
): RopeValues {
  const trained = scaling.original_max_position_embeddings ?? context;
  const { factor } = scaling;
  // The pair (a real number) that makes so many turns within the trained context.
  const pairOf = (turns: number) => (columns * Math.log(trained / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const whole = (round: (pair: number) => number, pair: number) => (scaling.truncate ? round(pair) : pair);
  const first = Math.max(whole(Math.floor, pairOf(scaling.beta_fast)), 0);
  const last = Math.min(whole(Math.ceil, pairOf(scaling.beta_slow)), columns - 1);
  const blend = (frequency: number, pair: number) => {
    const stretched = clamp((pair - first) / Math.max(last - first, 0.001));
    return (stretched * frequency) / factor + (1 - stretched) * frequency;
  };
  const attention = (weight: number) => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  const { mscale, mscale_all_dim: all } = scaling;
  const scale = scaling.attention_factor ?? (mscale && all ? attention(mscale) / attention(all) : attention(1));
  return { frequencies: frequencies.map(blend), scale };
}

const clamp = (value: number): number => Math.min(Math.max(value, 0), 1);
