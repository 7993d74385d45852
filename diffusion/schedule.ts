/**
 * The noise schedule, on the host in float64, and the configurations of samplers that rest on it.
 *
 * Forward process (DDPM, Ho et al. 2020): x_t = √ᾱ_t·x₀ + √(1−ᾱ_t)·ε. Names and defaults of options are those of diffusers'
 * `scheduler_config.json`.
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
  // Imagen's dynamic thresholding is not linear in the sample; its two numbers stand in configurations that have it off.
  thresholding: z.literal(false).default(false),
  dynamic_thresholding_ratio: z.number().default(0.995),
  sample_max_value: z.number().default(1),
};
const clipping = { clip_sample: z.boolean().default(true), clip_sample_range: z.number().gt(0).default(1) };
const sigmas = {
  timestep_spacing: z.enum(['leading', 'trailing', 'linspace']).default('linspace'),
  use_karras_sigmas: z.boolean().default(false),
  use_exponential_sigmas: z.literal(false).default(false),
  use_beta_sigmas: z.literal(false).default(false),
  final_sigmas_type: z.enum(['zero', 'sigma_min']).default('zero'),
  // Where Karras' spacing ends; null: with the least noise of training.
  sigma_min: z.number().gt(0).nullable().default(null),
  sigma_max: z.null().default(null),
};

const OPTIONS = {
  DDIMScheduler: { ...option, ...clipping, set_alpha_to_one: z.boolean().default(true) },
  DDPMScheduler: {
    ...option,
    ...clipping,
    variance_type: z.enum(['fixed_small', 'fixed_large']).default('fixed_small'),
  },
  // Without a default: what diffusers does where this is missing is a start by Runge-Kutta.
  PNDMScheduler: { ...option, set_alpha_to_one: z.boolean().default(false), skip_prk_steps: z.literal(true) },
  EulerDiscreteScheduler: {
    ...option,
    ...sigmas,
    interpolation_type: z.literal('linear').default('linear'),
    timestep_type: z.literal('discrete').default('discrete'),
  },
  DPMSolverMultistepScheduler: {
    ...option,
    ...sigmas,
    algorithm_type: z.literal('dpmsolver++').default('dpmsolver++'),
    solver_order: z.literal(2).default(2),
    solver_type: z.literal('midpoint').default('midpoint'),
    lower_order_final: z.boolean().default(true),
    euler_at_final: z.boolean().default(false),
    use_lu_lambdas: z.literal(false).default(false),
    lambda_min_clipped: z.literal(-Infinity).default(-Infinity),
    variance_type: z.null().default(null),
  },
};
type ClassName = keyof typeof OPTIONS;

const config = z.discriminatedUnion('_class_name', [
  z.object({ _class_name: z.literal('DDIMScheduler'), ...OPTIONS.DDIMScheduler }),
  z.object({ _class_name: z.literal('DDPMScheduler'), ...OPTIONS.DDPMScheduler }),
  z.object({ _class_name: z.literal('PNDMScheduler'), ...OPTIONS.PNDMScheduler }),
  z.object({ _class_name: z.literal('EulerDiscreteScheduler'), ...OPTIONS.EulerDiscreteScheduler }),
  z.object({ _class_name: z.literal('DPMSolverMultistepScheduler'), ...OPTIONS.DPMSolverMultistepScheduler }),
]);
export type SchedulerConfig = z.infer<typeof config>;
export type ConfigOf<Name extends ClassName> = Extract<SchedulerConfig, { _class_name: Name }>;

/** Samplers by their short names, with the options that make them what they are. */
export const SAMPLERS = {
  ddim: { _class_name: 'DDIMScheduler' },
  ddpm: { _class_name: 'DDPMScheduler' },
  pndm: { _class_name: 'PNDMScheduler', skip_prk_steps: true },
  euler: { _class_name: 'EulerDiscreteScheduler' },
  dpmpp2m: { _class_name: 'DPMSolverMultistepScheduler' },
  // What is best in few steps, and where Karras' spacing ends, was measured: docs/sampling.md.
  'dpmpp2m-trailing': { _class_name: 'DPMSolverMultistepScheduler', timestep_spacing: 'trailing' },
  'dpmpp2m-karras': { _class_name: 'DPMSolverMultistepScheduler', use_karras_sigmas: true, sigma_min: 0.2 },
} as const satisfies Record<string, { _class_name: ClassName; [option: string]: unknown }>;
export type SamplerName = keyof typeof SAMPLERS;

/**
 * Reads a `scheduler_config.json`. With `sampler`, that one is used in place of the file's own, and options that only the
 * file's own has are left aside. Without it, a class or option that is not known here is an error; options of the other
 * classes are left aside (Stable Diffusion 1.5's PNDM has DDIM's `clip_sample: false`).
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
  if (sampler !== undefined) json = replaced(json, sampler);
  const name = json._class_name;
  if (typeof name !== 'string' || !Object.hasOwn(OPTIONS, name)) {
    const known = Object.keys(OPTIONS).join(', ');
    return fail(`_class_name ${JSON.stringify(name)} is not supported; ${known} are, and can be chosen in its place`);
  }
  const unknown = Object.keys(json).find(
    (key) => !key.startsWith('_') && !Object.values(OPTIONS).some((known) => Object.hasOwn(known, key)),
  );
  if (unknown !== undefined && sampler === undefined) {
    const known = Object.keys(OPTIONS[name as ClassName]).join(', ');
    fail(`option "${unknown}" of ${name} is not known; known are ${known}`);
  }
  const result = config.safeParse(json);
  if (!result.success) {
    const [{ path, message }] = result.error.issues;
    return fail(`${path.join('.')}: ${message}`);
  }
  return result.data;
}

/**
 * A configuration with a sampler in place of its own. Where that is of another class, null stands for none: what an option
 * may be differs from class to class. What its own class doesn't clip is not clipped by the other either, whose default is to.
 */
function replaced(json: Record<string, unknown>, sampler: SamplerName): Record<string, unknown> {
  const chosen = SAMPLERS[sampler];
  if (json._class_name === chosen._class_name) return { ...json, ...chosen };
  const own = OPTIONS[json._class_name as ClassName] as object | undefined;
  const unclipped = own && 'clip_sample' in own ? {} : { clip_sample: false };
  const given = Object.fromEntries(Object.entries(json).filter(([, value]) => value !== null));
  return { ...unclipped, ...given, ...chosen };
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

/** `count` numbers at equal distances, both ends among them. */
export function linspace(start: number, end: number, count: number): Float64Array {
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
