/**
 * The noise schedule and the samplers, on the host in float64.
 *
 * Forward process (DDPM, Ho et al. 2020): x_t = √ᾱ_t·x₀ + √(1−ᾱ_t)·ε. A sampler walks t downwards. For every sampler here a
 * step is *linear* in the sample and the model's output, with coefficients known before sampling begins; so a sampler is a
 * function from the number of steps to a list of `Step`s, and one kernel (or `hostStep`) performs them all. Multistep methods
 * would add coefficients for remembered outputs, Euler a scale of the model's input; neither needs another loop.
 *
 * Names and defaults of options are those of diffusers' `scheduler_config.json`.
 */
import { z } from 'zod';

const option = {
  num_train_timesteps: z.int().min(1).default(1000),
  beta_start: z.number().gt(0).lt(1).default(0.0001),
  beta_end: z.number().gt(0).lt(1).default(0.02),
  beta_schedule: z.enum(['linear', 'scaled_linear']).default('linear'),
  trained_betas: z.array(z.number().gt(0).lt(1)).min(1).nullable().default(null),
  rescale_betas_zero_snr: z.boolean().default(false),
  prediction_type: z.enum(['epsilon', 'v_prediction']).default('epsilon'),
  timestep_spacing: z.enum(['leading', 'trailing', 'linspace']).default('leading'),
  steps_offset: z.int().min(0).default(0),
  clip_sample: z.boolean().default(true),
  clip_sample_range: z.number().gt(0).default(1),
  // Imagen's dynamic thresholding is not linear in the sample; its two numbers stand in configurations that have it off.
  thresholding: z.literal(false).default(false),
  dynamic_thresholding_ratio: z.number().default(0.995),
  sample_max_value: z.number().default(1),
};

const OPTIONS = {
  DDIMScheduler: { ...option, set_alpha_to_one: z.boolean().default(true) },
  DDPMScheduler: { ...option, variance_type: z.enum(['fixed_small', 'fixed_large']).default('fixed_small') },
};
type ClassName = keyof typeof OPTIONS;

const config = z.discriminatedUnion('_class_name', [
  z.object({ _class_name: z.literal('DDIMScheduler'), ...OPTIONS.DDIMScheduler }),
  z.object({ _class_name: z.literal('DDPMScheduler'), ...OPTIONS.DDPMScheduler }),
]);
export type SchedulerConfig = z.infer<typeof config>;

/** Samplers by their short names. */
export const SAMPLERS = { ddim: 'DDIMScheduler', ddpm: 'DDPMScheduler' } as const satisfies Record<string, ClassName>;
export type SamplerName = keyof typeof SAMPLERS;

/**
 * Reads a `scheduler_config.json`. With `sampler`, that one is used in place of the file's own, and options that only the
 * file's own has are left aside; without it, a class or option that is not known here is an error.
 */
export function parseSchedulerConfig(text: string, file: string, sampler?: SamplerName): SchedulerConfig {
  const fail = (what: string): never => {
    throw new Error(`[scheduler] ${file}: ${what}`);
  };
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(withoutInfinities(text)) as Record<string, unknown>;
  } catch (error) {
    return fail(`it is not JSON: ${(error as Error).message}`);
  }
  if (typeof json !== 'object' || json === null) return fail('it must be a JSON object');
  if (sampler !== undefined) json = { ...json, _class_name: SAMPLERS[sampler] };
  const name = json._class_name;
  if (typeof name !== 'string' || !Object.hasOwn(OPTIONS, name)) {
    const known = Object.keys(OPTIONS).join(', ');
    return fail(`_class_name ${JSON.stringify(name)} is not supported; ${known} are, and can be chosen in its place`);
  }
  const known = OPTIONS[name as ClassName];
  const unknown = Object.keys(json).find((key) => !key.startsWith('_') && !Object.hasOwn(known, key));
  if (unknown !== undefined && sampler === undefined) {
    fail(`option "${unknown}" of ${name} is not known; known are ${Object.keys(known).join(', ')}`);
  }
  const result = config.safeParse(json);
  if (!result.success) {
    const [{ path, message }] = result.error.issues;
    return fail(`${path.join('.')}: ${message}`);
  }
  return result.data;
}

/** Python writes -Infinity where JSON has no such number; a literal beyond the range of float64 reads as one. */
function withoutInfinities(text: string): string {
  return text.replace(/"(?:[^"\\]|\\.)*"|Infinity|NaN/g, (token) =>
    token === 'Infinity' ? '1e999' : token === 'NaN' ? 'null' : token,
  );
}

/** β and ᾱ by timestep, and what follows from them alone. */
export class NoiseSchedule {
  readonly config: SchedulerConfig;
  readonly betas: Float64Array;
  readonly alphasCumprod: Float64Array; // ᾱ_t = Π (1 − β_i), i ≤ t

  constructor(config: SchedulerConfig) {
    this.config = config;
    this.betas = config.rescale_betas_zero_snr ? zeroTerminalSnr(makeBetas(config)) : makeBetas(config);
    this.alphasCumprod = cumprodOfAlphas(this.betas);
  }

  /** Number of training timesteps; t runs from 0 to this − 1. */
  get length(): number {
    return this.betas.length;
  }

  /** x_t = signal·x₀ + noise·ε. */
  noising(t: number): { signal: number; noise: number } {
    if (!Number.isInteger(t) || t < 0 || t >= this.length) {
      throw new Error(`[noise schedule] timestep ${t} is not an integer from 0 to ${this.length - 1}`);
    }
    return { signal: Math.sqrt(this.alphasCumprod[t]), noise: Math.sqrt(1 - this.alphasCumprod[t]) };
  }

  /** What the model is trained to give, as target = signal·x₀ + noise·ε: ε itself, or v (Salimans and Ho 2022). */
  target(t: number): { signal: number; noise: number } {
    if (this.config.prediction_type === 'epsilon') return { signal: 0, noise: 1 };
    return this.velocity(t);
  }

  /** v = √ᾱ·ε − √(1−ᾱ)·x₀, as signal·x₀ + noise·ε. */
  velocity(t: number): { signal: number; noise: number } {
    const { signal, noise } = this.noising(t);
    return { signal: -noise, noise: signal };
  }
}

function linspace(start: number, end: number, count: number): Float64Array {
  const step = count > 1 ? (end - start) / (count - 1) : 0;
  return Float64Array.from({ length: count }, (_, i) => start + i * step);
}

function makeBetas(config: SchedulerConfig): Float64Array {
  const { num_train_timesteps: count, beta_start, beta_end } = config;
  if (config.trained_betas) return Float64Array.from(config.trained_betas);
  if (config.beta_schedule === 'linear') return linspace(beta_start, beta_end, count);
  return linspace(Math.sqrt(beta_start), Math.sqrt(beta_end), count).map((root) => root * root);
}

function cumprodOfAlphas(betas: Float64Array): Float64Array {
  let product = 1;
  return betas.map((beta) => (product *= 1 - beta));
}

/** Shifts and scales √ᾱ so that the last step is pure noise and the first is unchanged (Lin et al. 2024, algorithm 1). */
function zeroTerminalSnr(betas: Float64Array): Float64Array {
  const roots = cumprodOfAlphas(betas).map(Math.sqrt);
  const first = roots[0];
  const last = roots[roots.length - 1];
  const bars = roots.map((root) => (((root - last) * first) / (first - last)) ** 2);
  return bars.map((bar, t) => 1 - (t === 0 ? bar : bar / bars[t - 1]));
}

/**
 * One step of a sampler, from a sample x and the model's output m at `timestep` to the next sample:
 *
 *     next = sample·x + output·m + noise·ε + clean·clamp(cleanSample·x + cleanOutput·m, −clip, clip)
 *
 * ε is fresh unit-normal noise, needed where `noise` is not 0. The last term is there (`clean` is not 0) only where the
 * configuration clips the prediction of x₀; otherwise that prediction is folded into the first two coefficients.
 */
export interface Step {
  readonly timestep: number;
  readonly sample: number;
  readonly output: number;
  readonly noise: number;
  readonly clean: number;
  readonly cleanSample: number;
  readonly cleanOutput: number;
  readonly clip: number;
}

export interface SamplingOptions {
  /** Number of steps, each one evaluation of the model. */
  readonly steps: number;
  /** DDIM's share of fresh noise: 0 is deterministic, 1 has DDPM's variance. */
  readonly eta?: number;
}

/** The steps of the configured sampler, first to last. */
export function samplingSteps(schedule: NoiseSchedule, { steps, eta = 0 }: SamplingOptions): Step[] {
  const { config } = schedule;
  if (!(eta >= 0 && eta <= 1)) throw new Error(`[sampler] eta is ${eta}, it must be from 0 to 1`);
  if (eta > 0 && config._class_name !== 'DDIMScheduler') {
    throw new Error(`[sampler] eta is DDIM's; ${config._class_name} has its own variance`);
  }
  const stride = Math.floor(schedule.length / steps);
  return timesteps(config, schedule.length, steps).map((t) => {
    const alphaBar = schedule.alphasCumprod[t];
    // The step before in time, by the stride of the training steps for every spacing, as diffusers has it.
    const previous = t - stride;
    return config._class_name === 'DDIMScheduler'
      ? makeStep(config, t, alphaBar, ddim(alphaBar, alphaBarBefore(schedule, previous), eta))
      : makeStep(config, t, alphaBar, ddpm(config, t, alphaBar, alphaBarBefore(schedule, previous)));
  });
}

function alphaBarBefore(schedule: NoiseSchedule, previous: number): number {
  if (previous >= 0) return schedule.alphasCumprod[previous];
  const { config } = schedule;
  return config._class_name === 'DDIMScheduler' && !config.set_alpha_to_one ? schedule.alphasCumprod[0] : 1;
}

/** Rounds as NumPy does: halves to the even neighbour. */
function roundHalfEven(x: number): number {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** The timesteps to visit, falling (spacings: Lin et al. 2024, table 2). */
function timesteps(config: SchedulerConfig, count: number, steps: number): number[] {
  if (!Number.isInteger(steps) || steps < 1 || steps > count) {
    throw new Error(`[sampler] steps is ${steps}, it must be an integer from 1 to the ${count} training timesteps`);
  }
  const indices = Array.from({ length: steps }, (_, i) => i);
  switch (config.timestep_spacing) {
    case 'leading': {
      const stride = Math.floor(count / steps);
      const first = (steps - 1) * stride + config.steps_offset;
      if (first >= count) {
        throw new Error(
          `[sampler] ${steps} steps with steps_offset ${config.steps_offset} begin at timestep ${first}, past the last, ${count - 1}: take fewer steps`,
        );
      }
      return indices.map((i) => first - i * stride);
    }
    case 'trailing':
      return indices.map((i) => roundHalfEven(count - (i * count) / steps) - 1);
    case 'linspace':
      return Array.from(linspace(0, count - 1, steps).reverse(), roundHalfEven);
  }
}

/** A sampler's rule: next = x0·x̂₀ + sample·x + epsilon·ε̂ + noise·ε, with the model's predictions x̂₀ (clipped) and ε̂. */
interface Rule {
  readonly x0: number;
  readonly sample: number;
  readonly epsilon: number;
  readonly noise: number;
}

/** DDIM (Song et al. 2021, equation 12). */
function ddim(alphaBar: number, before: number, eta: number): Rule {
  const noise = eta * Math.sqrt(((1 - before) / (1 - alphaBar)) * (1 - alphaBar / before));
  return { x0: Math.sqrt(before), sample: 0, epsilon: Math.sqrt(Math.max(0, 1 - before - noise * noise)), noise };
}

/** DDPM's ancestral step (Ho et al. 2020, equations 6 and 7); the last one adds no noise. */
function ddpm(
  config: { variance_type: 'fixed_small' | 'fixed_large' },
  t: number,
  alphaBar: number,
  before: number,
): Rule {
  const alpha = alphaBar / before;
  const posterior = ((1 - before) / (1 - alphaBar)) * (1 - alpha);
  const variance = config.variance_type === 'fixed_small' ? Math.max(posterior, 1e-20) : 1 - alpha;
  return {
    x0: (Math.sqrt(before) * (1 - alpha)) / (1 - alphaBar),
    sample: (Math.sqrt(alpha) * (1 - before)) / (1 - alphaBar),
    epsilon: 0,
    noise: t > 0 ? Math.sqrt(variance) : 0,
  };
}

/** Puts the model's predictions, which are linear in sample and output, into a sampler's rule. */
function makeStep(config: SchedulerConfig, timestep: number, alphaBar: number, rule: Rule): Step {
  const signal = Math.sqrt(alphaBar);
  const sigma = Math.sqrt(1 - alphaBar);
  if (config.prediction_type === 'epsilon' && signal === 0) {
    throw new Error(
      `[sampler] timestep ${timestep} is pure noise, from which epsilon cannot tell x₀: v_prediction can`,
    );
  }
  const [x0, epsilon] =
    config.prediction_type === 'epsilon'
      ? [
          { sample: 1 / signal, output: -sigma / signal },
          { sample: 0, output: 1 },
        ]
      : [
          { sample: signal, output: -sigma },
          { sample: sigma, output: signal },
        ];
  const folded = config.clip_sample ? 0 : rule.x0;
  return {
    timestep,
    sample: rule.sample + rule.epsilon * epsilon.sample + folded * x0.sample,
    output: rule.epsilon * epsilon.output + folded * x0.output,
    noise: rule.noise,
    clean: rule.x0 - folded,
    cleanSample: x0.sample,
    cleanOutput: x0.output,
    clip: config.clip_sample_range,
  };
}

/** A step in float64 on the host: the reference of the kernel. */
export function hostStep(
  step: Step,
  sample: ArrayLike<number>,
  output: ArrayLike<number>,
  noise?: ArrayLike<number>,
): Float64Array {
  return Float64Array.from(sample, (x, i) => {
    const clean = step.cleanSample * x + step.cleanOutput * output[i];
    return (
      step.sample * x +
      step.output * output[i] +
      (step.noise === 0 ? 0 : step.noise * noise![i]) +
      step.clean * Math.min(Math.max(clean, -step.clip), step.clip)
    );
  });
}
