/** What DreamBooth's runs say together: means, intervals, differences, and whether the floors hold. */
import path from 'node:path';
import { FEATURES, FLOORS, interval, mean } from '../../diffusion/measures.ts';
import type { Feature, Interval } from '../../diffusion/measures.ts';
import { intervalChart } from '../../nn/chart.ts';
import type { Estimate } from '../../nn/chart.ts';
import { writeFileAtomic } from '../../nn/files.ts';
import { writeText } from '../run.ts';
import type { Evaluation } from './config.ts';
import { writeJson } from './folder.ts';
import { FEATURE_NAMES, figure, table } from './report.ts';

/** Measures by name, for each feature. */
export type Scores = Readonly<Record<Feature, Readonly<Record<string, number>>>>;

/** The scores of one variant or baseline for one subject; without a seed where there is no chance in it. */
export interface Sample {
  readonly variant: string;
  readonly subject: string;
  readonly seed: number | null;
  readonly scores: Scores;
}

/** Measures in the order of the tables' columns, with their headings. */
const COLUMNS: Readonly<Record<string, string>> = {
  fidelity: 'right',
  'fidelity shown': 'right, shown',
  'fidelity unseen': 'right, not shown',
  identity: 'identity',
  prompt: 'expression',
  drift: 'class drift',
  neighbours: 'neighbours’ drift',
  pres: 'PRES',
  div: 'DIV',
  'class div': 'class diversity',
};

const NAMES: Readonly<Record<string, string>> = {
  base: 'the untuned base',
  memoriser: 'a memoriser',
  autoencoder: 'the true pictures through the autoencoder',
};

export interface Floor {
  readonly measure: string;
  readonly value: number;
  readonly wanted: string;
  readonly holds: boolean;
}

/** What is demanded of the variant "full", as far as there are runs to tell. */
export function floorsOf(samples: readonly Sample[]): Floor[] {
  return FEATURES.flatMap((feature): Floor[] => {
    const full = valuesOf(samples, 'full', feature, 'fidelity');
    const pairs = paired(samples, 'no-prior', feature, 'drift');
    const name = FEATURE_NAMES[feature];
    const share = mean(pairs.map(([, full]) => full)) / mean(pairs.map(([own]) => own));
    return [
      ...(full.length > 0
        ? [
            {
              measure: `share of expressions right (${name})`,
              value: mean(full),
              wanted: `at least ${FLOORS.fidelity}`,
              holds: mean(full) >= FLOORS.fidelity,
            },
          ]
        : []),
      ...(pairs.length > 0
        ? [
            {
              measure: `class drift, as a share of that without prior (${name})`,
              value: share,
              wanted: `at most ${FLOORS.drift}`,
              holds: share <= FLOORS.drift,
            },
          ]
        : []),
    ];
  });
}

function valuesOf(samples: readonly Sample[], variant: string, feature: Feature, measure: string): number[] {
  return samples.filter((one) => one.variant === variant).flatMap(({ scores }) => scores[feature][measure] ?? []);
}

/** A measure of a variant beside that of "full" for the same subject and seed. */
function paired(
  samples: readonly Sample[],
  variant: string,
  feature: Feature,
  measure: string,
): [own: number, full: number][] {
  return samples
    .filter((one) => one.variant === variant)
    .flatMap(({ subject, seed, scores }): [number, number][] => {
      const full = samples.find((one) => one.variant === 'full' && one.subject === subject && one.seed === seed);
      const [own, other] = [scores[feature][measure], full?.scores[feature][measure]];
      return own === undefined || other === undefined ? [] : [[own, other]];
    });
}

/** Writes dreambooth.json and dreambooth.md of the runs so far. */
export async function writeDreamBoothReport(
  samples: readonly Sample[],
  runs: number,
  { model, world, dreambooth }: Evaluation,
  origin: string,
  folder: string,
): Promise<void> {
  const order = [...Object.keys(NAMES), ...Object.keys(dreambooth.variants)];
  const variants = order.filter((name) => samples.some(({ variant }) => variant === name));
  const counted = (variant: string) => samples.filter((one) => one.variant === variant).length;
  const means = (variant: string, feature: Feature): Record<string, Interval> =>
    Object.fromEntries(
      Object.keys(COLUMNS).flatMap((measure) => {
        const values = valuesOf(samples, variant, feature, measure);
        return values.length > 0 ? [[measure, interval(values)]] : [];
      }),
    );
  const tables = FEATURES.map((feature) => {
    const rows = variants.map((variant) => {
      const found = means(variant, feature);
      const cells = Object.keys(COLUMNS).map((measure) => (found[measure] ? figure(found[measure], 2) : ''));
      return [NAMES[variant] ?? variant, String(counted(variant)), ...cells];
    });
    return `## Judged by ${FEATURE_NAMES[feature]}\n${table(['variant', 'n', ...Object.values(COLUMNS)], rows)}`;
  });
  const others = Object.keys(dreambooth.variants).filter((name) => name !== 'full' && variants.includes(name));
  const compared = ['fidelity', 'identity', 'drift'].flatMap((measure) =>
    FEATURES.map((feature) => ({ measure, feature, head: `${COLUMNS[measure]} (${FEATURE_NAMES[feature]})` })),
  );
  const differences = others.map((variant) => {
    const cells = compared.map(({ measure, feature }) => {
      const values = paired(samples, variant, feature, measure).map(([own, full]) => own - full);
      return values.length > 0 ? figure(interval(values), 2) : '';
    });
    return [variant, String(paired(samples, variant, 'latents', 'fidelity').length), ...cells];
  });
  const floors = floorsOf(samples);
  const rows = floors.map(({ measure, value, wanted, holds }) => [measure, value.toFixed(2), wanted, holds ? 'yes' : '**no**']); // prettier-ignore
  const done = samples.filter(({ variant }) => !(variant in NAMES)).length;
  const overrides = Object.entries(dreambooth.variants).map(([name, { overrides }]) => {
    const changes = Object.entries(overrides).map(([key, value]) => `\`${key}=${JSON.stringify(value)}\``);
    return `- **${name}**: ${changes.join(', ') || 'the configuration as it is'}`;
  });
  const text = `# DreamBooth on ${model}

${done} of ${runs} runs are done. The model was trained on: ${origin}. Subjects: the cats of ${dreambooth.subjects.join(', ')}; each learned from ${dreambooth.shown.length} pictures (${dreambooth.shown.join(', ')}), drawn in all ten expressions, ${dreambooth.drawings} times each (${dreambooth.sampler}, ${dreambooth.steps} steps, guidance ${dreambooth.scale}, emphasis ${dreambooth.emphasis}). Means with 95 % intervals over n subjects and seeds.

${table(['floor', 'value', 'wanted', 'holds'], rows)}

${tables.join('\n\n')}

Right: the nearest of all cats of all styles is the subject's own in the expression asked for; identity: it is the subject's; expression: it has the expression. Class drift: distance of what the class's prompts give before and after; PRES: likeness of the class's drawings to the subject (lower is better); DIV: distance of the subject's drawings for one prompt from each other; class diversity: the same for the class's name. The memoriser gives the training picture whose name has the largest share of words in common with the expression asked for.

## Differences from full, on the same subjects and seeds
${table(['variant', 'n', ...compared.map(({ head }) => head)], differences)}

Configuration: \`${dreambooth.config}\`, world ${world}.
${overrides.join('\n')}
`;
  await writeText(path.join(folder, 'dreambooth.md'), text);
  await writeJson(path.join(folder, 'dreambooth.json'), {
    model,
    origin,
    settings: dreambooth,
    runs,
    done,
    floors,
    means: Object.fromEntries(
      variants.map((variant) => [
        variant,
        { n: counted(variant), ...Object.fromEntries(FEATURES.map((feature) => [feature, means(variant, feature)])) },
      ]),
    ),
    samples,
  });
}

/** Draws dreambooth.png: the chief measures by the latents. */
export async function drawDreamBoothChart(samples: readonly Sample[], folder: string): Promise<void> {
  const variants = [...new Set(samples.map(({ variant }) => variant))];
  const estimates = ['fidelity', 'fidelity unseen', 'identity', 'drift'].flatMap((measure) =>
    variants.flatMap((variant): Estimate[] => {
      const values = valuesOf(samples, variant, 'latents', measure);
      return values.length > 0
        ? [{ name: NAMES[variant] ?? variant, measure: COLUMNS[measure]!, ...interval(values) }]
        : [];
    }),
  );
  const png = await intervalChart('DreamBooth, judged by latents: means and 95 % intervals', estimates);
  await writeFileAtomic(path.join(folder, 'dreambooth.png'), [png]);
}
