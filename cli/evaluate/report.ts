/** Figures and tables of the evaluation's reports. */
import type { Feature, Interval } from '../../diffusion/measures.ts';

export const FEATURE_NAMES: Readonly<Record<Feature, string>> = { latents: 'latents', rgb: 'RGB at 16×16' };

/** "0.62 ± 0.05". */
export const figure = ({ mean, half }: Interval, digits: number): string =>
  mean.toFixed(digits) + (half === null ? '' : ` ± ${half.toFixed(digits)}`);

/** A table in Markdown. */
export const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
