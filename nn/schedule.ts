/** Learning rates over a training run. */

/** The learning rate of step 0, 1, …. */
export type Schedule = (step: number) => number;

export interface ScheduleOptions {
  kind: 'constant' | 'linear' | 'cosine';
  /** The highest rate. */
  rate: number;
  /** Steps of a linear rise to it; the first one already has rate / warmup. */
  warmup?: number;
  /** Steps of the run, to whose end `linear` and `cosine` fall. */
  steps: number;
  /** The rate at the end, as a share of the highest. */
  floor?: number;
}

/** A rise over `warmup` steps, then constant, or falling as a line or as half a cosine (Loshchilov & Hutter, 2017). */
export function schedule({ kind, rate, warmup = 0, steps, floor = 0 }: ScheduleOptions): Schedule {
  if (!(rate > 0)) throw new Error(`[schedule] the rate must be positive, not ${rate}`);
  if (!(floor >= 0 && floor <= 1)) throw new Error(`[schedule] floor is a share from 0 to 1, not ${floor}`);
  if (!(warmup >= 0 && warmup <= steps))
    throw new Error(`[schedule] warmup must be from 0 to the run's ${steps} steps, not ${warmup}`);
  return (step) => {
    if (step < warmup) return (rate * (step + 1)) / warmup;
    if (kind === 'constant') return rate;
    const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
    const share = kind === 'linear' ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress));
    return rate * (floor + (1 - floor) * share);
  };
}
