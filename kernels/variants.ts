/**
 * Which of several kernels a family runs: one table of measured rules by profile. `npm run tune` measures the candidates on
 * the adapter at hand and writes what it found into a file, whose word then counts instead (`Profile.tuning`).
 */
import type { Device, Profile } from '../engine/index.ts';
import { matrixConfig } from './matmul/matrix.ts';

/** One way to compute what a family computes. */
interface Variant {
  /** Whether it can run on such an adapter; on all of them when absent. */
  readonly runs?: (profile: Profile) => boolean;
  /** Whether it is the rule's choice there: measured to be the fastest, or expected to be where the header says so. */
  readonly best?: (profile: Profile) => boolean;
}

const software = (profile: Profile) => profile.software;
const subgroups = (profile: Profile) => profile.subgroupSize > 0;

/**
 * Family → its variants, in the order in which the rule tries them: the first one that runs and is best wins. The last
 * runs and is best everywhere. A family is what is tuned as one: where small and large problems want different variants,
 * they are two families. What a variant is, and its figures, stand in the header of its `.wgsl`.
 */
export const VARIANTS = {
  /** Matrix products. */
  matmul: { subgroup: { runs: subgroups, best: software }, tiled: {} },
  /** Those in f16, of at least 32 rows and columns that are whole vec4s. `matrix`: subgroup matrices, unmeasured. */
  'matmul f16': {
    matrix: { runs: (profile) => matrixConfig(profile) !== null },
    subgroup: { runs: subgroups, best: software },
    tiled: {},
  },
  /** Products of one row of A with (n, k), and of two to four: by four columns a subgroup or workgroup, or by tiles. */
  'one row': { subgroup: { runs: subgroups }, workgroup: {} },
  'few rows': { tiles: { best: software }, subgroup: { runs: subgroups }, workgroup: {} },
  /** Convolutions with a window: forward and by inputs. */
  conv2d: { subgroup: { runs: subgroups, best: software }, tiled: {} },
  /** 3×3 convolutions with many channels, all passes: with fewer multiplications, or by the two families around here. */
  'conv2d 3×3': { winograd: { best: software }, direct: {} },
  /** Gradients of a convolution by its weight. */
  'conv2d weight': { subgroup: { runs: subgroups, best: software }, tiled: {} },
  /** How blocks of keys are handed around: by shuffles, or by workgroup memory. */
  attention: { subgroup: { runs: subgroups, best: software }, staged: {} },
  /** Rows that one lane or a workgroup walks: norms, softmax, losses, sums. */
  rows: { lane: { best: software }, workgroup: {} },
} as const satisfies Record<string, Readonly<Record<string, Variant>>>;

export type Family = keyof typeof VARIANTS;
export type VariantOf<F extends Family> = Extract<keyof (typeof VARIANTS)[F], string>;

/** The variants of a family that run on such an adapter, the rule's choice first. */
export function candidates<F extends Family>(profile: Profile, family: F): VariantOf<F>[] {
  const all = Object.entries<Variant>(VARIANTS[family]).filter(([, { runs }]) => runs?.(profile) ?? true);
  const best = all.findIndex(([, variant]) => variant.best?.(profile) ?? true);
  return [...all.splice(best, 1), ...all].map(([name]) => name as VariantOf<F>);
}

const chosen = new WeakMap<Profile, Map<Family, string>>();

/**
 * The variant that `family` runs on this device: the tuning file's, else the rule's. A tuned name that is no longer in the
 * table, or needs what this device was opened without, counts for nothing.
 */
export function variant<F extends Family>({ profile }: Device, family: F): VariantOf<F> {
  let choices = chosen.get(profile);
  if (!choices) chosen.set(profile, (choices = new Map<Family, string>()));
  let choice = choices.get(family);
  if (choice === undefined) {
    const [rule, ...others] = candidates(profile, family);
    const tuned = profile.tuning[family];
    choice = others.find((name) => name === tuned) ?? rule!;
    choices.set(family, choice);
  }
  return choice as VariantOf<F>;
}
