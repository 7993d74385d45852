/**
 * The samplers, on the host in float64. A sampler walks t downwards, from noise to a picture. For every sampler here a step is
 * *linear* in the samples and the model's outputs so far, with coefficients known before sampling begins; so a sampler is a
 * function from the number of steps to a list of `Step`s, and one kernel (or `hostStep`) performs them all. Methods that are
 * written for x/√ᾱ, whose noise is σ = √((1−ᾱ)/ᾱ), are carried out on x itself: it is what the model takes.
 */
import type { StepCoefficients } from '../kernels/index.ts';
import { linspace } from './schedule.ts';
import type { ConfigOf, NoiseSchedule, SchedulerConfig } from './schedule.ts';

/**
 * One step of a sampler, from a sample x and the model's output m at `timestep` to the next sample:
 *
 *     next = sample·x + output·m + noise·ε + clean·clamp(cleanSample·x + cleanOutput·m, −clip, clip)
 *            + before·x₋₁ + Σ past[k]·m₋₁₋ₖ
 *
 * ε is fresh unit-normal noise, needed where `noise` is not 0. The term with `clean` is there (it is not 0) only where the
 * configuration clips the prediction of x₀; otherwise that prediction is folded into the first two coefficients. Multistep
 * methods also take the sample x₋₁ of the step before, and the outputs m₋₁, m₋₂, … of up to four steps, last first; `past` is
 * empty where neither is needed.
 */
export interface Step extends StepCoefficients {
  /** What the model is told; with Karras' spacing not always an integer. */
  readonly timestep: number;
  /** ᾱ of the sample before the step and after it. */
  readonly from: number;
  readonly to: number;
}

export interface SamplingOptions {
  /** Number of steps. Each is one evaluation of the model; PNDM takes one more, to begin. */
  readonly steps: number;
  /** DDIM's share of fresh noise: 0 is deterministic, 1 has DDPM's variance. */
  readonly eta?: number;
}

/** The steps of the configured sampler, first to last. */
export function samplingSteps(schedule: NoiseSchedule, { steps, eta = 0 }: SamplingOptions): Step[] {
  const { config } = schedule;
  checkSteps(schedule, steps);
  if (!(eta >= 0 && eta <= 1)) throw new Error(`[sampler] eta is ${eta}, it must be from 0 to 1`);
  if (eta > 0 && config._class_name !== 'DDIMScheduler') {
    const has = config._class_name === 'DDPMScheduler' ? 'has its own variance' : 'adds no noise';
    throw new Error(`[sampler] eta is DDIM's; ${config._class_name} ${has}`);
  }
  if (config._class_name === 'EulerDiscreteScheduler') return eulerSteps(config, sigmaWalk(schedule, config, steps));
  if (config._class_name === 'DPMSolverMultistepScheduler')
    return multistepSteps(config, sigmaWalk(schedule, config, steps));
  const stride = Math.floor(schedule.length / steps);
  const times = timesteps(config, schedule.length, steps);
  if (config._class_name === 'PNDMScheduler') return pndmSteps(schedule, config, times, stride);
  return times.map((t) => {
    const from = schedule.alphasCumprod[t];
    // The step before in time, by the stride of the training steps for every spacing, as diffusers has it.
    const to = alphaBarBefore(schedule, t - stride);
    const rule = config._class_name === 'DDIMScheduler' ? ddim(from, to, eta) : ddpm(config, t, from, to);
    return makeStep(config, t, from, to, rule);
  });
}

/**
 * What unit noise is multiplied by for a plan to begin with. Euler's begins, spaced so that the first timestep is the last of
 * training, with x/√ᾱ = σ·ε, as diffusers has it: without the little that x₀ has in x there.
 */
export function initialScale({ config }: NoiseSchedule, [first]: readonly Step[]): number {
  const whole = config._class_name === 'EulerDiscreteScheduler' && config.timestep_spacing !== 'leading';
  return whole && first ? Math.sqrt(1 - first.from) : 1;
}

function alphaBarBefore(schedule: NoiseSchedule, previous: number): number {
  if (previous >= 0) return schedule.alphasCumprod[previous];
  const { config } = schedule;
  return 'set_alpha_to_one' in config && !config.set_alpha_to_one ? schedule.alphasCumprod[0] : 1;
}

/** Rounds as NumPy does: halves to the even neighbour. */
function roundHalfEven(x: number): number {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** diffusers' DPM-Solver++ spaces one step more than it takes, whose end is the clean sample. */
const spareSteps = (config: SchedulerConfig) => (config._class_name === 'DPMSolverMultistepScheduler' ? 1 : 0);

function checkSteps({ config, length }: NoiseSchedule, steps: number): void {
  const most = length - spareSteps(config);
  if (Number.isInteger(steps) && steps >= 1 && steps <= most) return;
  const what = most === length ? `the ${length}` : `${most}, one less than the`;
  throw new Error(`[sampler] steps is ${steps}, it must be an integer from 1 to ${what} training timesteps`);
}

/** The timesteps to visit, falling (spacings: Lin et al. 2024, table 2). diffusers' Euler leaves fractions. */
function timesteps(config: SchedulerConfig, count: number, steps: number): number[] {
  const spare = spareSteps(config);
  const indices = Array.from({ length: steps }, (_, i) => i);
  switch (config.timestep_spacing) {
    case 'leading': {
      const stride = Math.floor(count / (steps + spare));
      const first = (steps - 1 + spare) * stride + config.steps_offset;
      if (first >= count) {
        throw new Error(
          `[sampler] ${steps} steps with steps_offset ${config.steps_offset} begin at timestep ${first}, past the last, ${count - 1}: take fewer steps`,
        );
      }
      return indices.map((i) => first - i * stride);
    }
    case 'trailing':
      return indices.map((i) => roundHalfEven(count - (i * count) / steps) - 1);
    case 'linspace': {
      const times = Array.from(linspace(0, count - 1, steps + spare).reverse()).slice(0, steps);
      return config._class_name === 'EulerDiscreteScheduler' ? times : times.map(roundHalfEven);
    }
  }
}

/** The least ᾱ where σ is counted on: what is called pure noise has σ = 4096, as in diffusers. */
const PURE_NOISE = 2 ** -24;

/** σ = √((1−ᾱ)/ᾱ), the noise of x/√ᾱ, and back. */
const sigmaOf = (alphaBar: number) => Math.sqrt((1 - alphaBar) / alphaBar);
const alphaBarOf = (sigma: number) => 1 / (1 + sigma * sigma);

interface Point {
  readonly timestep: number;
  readonly alphaBar: number;
}

/** The points that Euler and DPM-Solver++ visit, and the end. */
function sigmaWalk(
  schedule: NoiseSchedule,
  config: ConfigOf<'EulerDiscreteScheduler' | 'DPMSolverMultistepScheduler'>,
  steps: number,
): Point[] {
  const sigmas = schedule.alphasCumprod.map((alphaBar) => sigmaOf(Math.max(alphaBar, PURE_NOISE)));
  const end = { timestep: 0, alphaBar: config.final_sigmas_type === 'zero' ? 1 : schedule.alphasCumprod[0] };
  if (!config.use_karras_sigmas) {
    const at = (t: number) => ({ timestep: t, alphaBar: alphaBarOf(interpolate(sigmas, t)) });
    return [...timesteps(config, schedule.length, steps).map(at), end];
  }
  // diffusers' Euler spaces the range of the timesteps anew, its DPM-Solver++ all of training.
  const euler = config._class_name === 'EulerDiscreteScheduler';
  const times = euler ? timesteps(config, schedule.length, steps) : [schedule.length - 1, 0];
  const [highest, lowest] = [times[0], times[times.length - 1]].map((t) => interpolate(sigmas, t));
  const least = config.sigma_min ?? lowest;
  if (least > highest)
    throw new Error(`[sampler] sigma_min is ${least}, above ${highest.toPrecision(3)}, where sampling begins`);
  const logs = sigmas.map(Math.log);
  const points = Array.from(karras(least, highest, steps), (sigma) => {
    const t = timeOf(logs, Math.log(sigma));
    return { timestep: euler ? t : roundHalfEven(t), alphaBar: alphaBarOf(sigma) };
  });
  return [...points, end];
}

/** σ from the highest to the lowest so that σ^(1/7) falls evenly (Karras et al. 2022, equation 5). */
function karras(lowest: number, highest: number, steps: number): Float64Array {
  return linspace(highest ** (1 / 7), lowest ** (1 / 7), steps).map((root) => root ** 7);
}

/** The value at a fractional index. */
function interpolate(values: Float64Array, at: number): number {
  const low = Math.floor(at);
  return low === at ? values[low] : values[low] + (at - low) * (values[low + 1] - values[low]);
}

/** The fractional index at which rising values have this one. */
function timeOf(values: Float64Array, value: number): number {
  const above = values.findIndex((other) => other > value);
  const low = above === -1 ? values.length - 2 : Math.max(0, above - 1);
  return low + Math.min(1, Math.max(0, (value - values[low]) / (values[low + 1] - values[low])));
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

/** Euler's method for the probability flow in σ (Karras et al. 2022, algorithm 1 without noise), which is DDIM's step. */
function eulerSteps(config: ConfigOf<'EulerDiscreteScheduler'>, walk: readonly Point[]): Step[] {
  return walk.slice(0, -1).map(({ timestep, alphaBar: from }, i) => {
    const to = walk[i + 1].alphaBar;
    return makeStep(config, timestep, from, to, ddim(from, to, 0));
  });
}

/**
 * DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2): exact for the part that is linear in x; x̂₀ is extrapolated as a line in
 * λ = ln(√ᾱ/√(1−ᾱ)) through this step's prediction and the last's. The first step has no other yet; a last step of few is
 * better without, and one to λ = ∞ cannot be otherwise.
 */
function multistepSteps(config: ConfigOf<'DPMSolverMultistepScheduler'>, walk: readonly Point[]): Step[] {
  const steps = walk.length - 1;
  const lambda = walk.map(({ alphaBar }) => -Math.log(sigmaOf(alphaBar)));
  const plain =
    config.euler_at_final || config.final_sigmas_type === 'zero' || (config.lower_order_final && steps < 15);
  return walk.slice(0, -1).map(({ timestep, alphaBar: from }, i) => {
    const to = walk[i + 1].alphaBar;
    const sample = Math.sqrt((1 - to) / (1 - from));
    const x0 = Math.sqrt(to) - Math.sqrt(from) * sample; // √ᾱ'·(1 − e^−h)
    const first = makeStep(config, timestep, from, to, { x0, sample, epsilon: 0, noise: 0 });
    if (i === 0 || (i === steps - 1 && plain)) return first;
    // x̂₀ + (h / 2h₋₁)·(x̂₀ − x̂₀₋₁) in place of x̂₀, with h = λ' − λ
    const slope = (lambda[i + 1] - lambda[i]) / (2 * (lambda[i] - lambda[i - 1]));
    const step = makeStep(config, timestep, from, to, { x0: x0 * (1 + slope), sample, epsilon: 0, noise: 0 });
    const last = predictions(config, walk[i - 1].timestep, walk[i - 1].alphaBar).x0;
    return { ...step, before: -x0 * slope * last.sample, past: [-x0 * slope * last.output] };
  });
}

/** Weights of this output and the ones before, for two, three and four of them: the methods of Adams and Bashforth. */
const ADAMS_BASHFORTH = [
  [3 / 2, -1 / 2],
  [23 / 12, -16 / 12, 5 / 12],
  [55 / 24, -59 / 24, 37 / 24, -9 / 24],
];

/**
 * PNDM without a start by Runge-Kutta, also called PLMS (Liu et al. 2022, equations 9, 11 and 12): DDIM's step with a linear
 * combination of outputs. It begins with an improved Euler step: the first step is taken again from its beginning, with the
 * mean of the outputs at its two ends.
 */
function pndmSteps(
  schedule: NoiseSchedule,
  config: ConfigOf<'PNDMScheduler'>,
  [first, second, ...rest]: readonly number[],
  stride: number,
): Step[] {
  const step = (timestep: number, start: number, [own, ...past]: readonly number[]): Step => {
    const from = schedule.alphasCumprod[start];
    const to = alphaBarBefore(schedule, start - stride);
    const single = makeStep(config, timestep, from, to, ddim(from, to, 0));
    return { ...single, output: single.output * own, past: past.map((weight) => single.output * weight) };
  };
  const begin = step(first, first, [1]);
  if (second === undefined) return [begin];
  const again = step(second, second + stride, [1 / 2, 1 / 2]);
  const following = [second, ...rest].map((t, i) => {
    const weights = ADAMS_BASHFORTH[Math.min(i, 2)];
    // The output that only ended the first step is passed over: it is the last but one of those that are reached back to.
    return step(t, t, i <= 2 ? weights.toSpliced(-1, 0, 0) : weights);
  });
  return [begin, { ...again, from: begin.to, sample: 0, before: again.sample }, ...following];
}

/** The model's predictions of x₀ and ε as sample·x + output·m. */
function predictions(
  config: SchedulerConfig,
  timestep: number,
  alphaBar: number,
): Record<'x0' | 'epsilon', { sample: number; output: number }> {
  const signal = Math.sqrt(alphaBar);
  const sigma = Math.sqrt(1 - alphaBar);
  if (config.prediction_type === 'v_prediction')
    return { x0: { sample: signal, output: -sigma }, epsilon: { sample: sigma, output: signal } };
  if (alphaBar <= PURE_NOISE) {
    throw new Error(
      `[sampler] timestep ${timestep} is pure noise, from which epsilon cannot tell x₀: v_prediction can`,
    );
  }
  return { x0: { sample: 1 / signal, output: -sigma / signal }, epsilon: { sample: 0, output: 1 } };
}

/** Puts the model's predictions, which are linear in sample and output, into a sampler's rule. */
function makeStep(config: SchedulerConfig, timestep: number, from: number, to: number, rule: Rule): Step {
  const { x0, epsilon } = predictions(config, timestep, from);
  const clips = 'clip_sample' in config && config.clip_sample;
  const folded = clips ? 0 : rule.x0;
  return {
    timestep,
    from,
    to,
    sample: rule.sample + rule.epsilon * epsilon.sample + folded * x0.sample,
    output: rule.epsilon * epsilon.output + folded * x0.output,
    noise: rule.noise,
    clean: rule.x0 - folded,
    cleanSample: x0.sample,
    cleanOutput: x0.output,
    clip: 'clip_sample' in config ? config.clip_sample_range : 1,
    before: 0,
    past: [],
  };
}

/** What multistep methods take of the steps before: the last sample, and the outputs, last first. */
export interface History<T> {
  readonly sample: T;
  readonly outputs: readonly T[];
}

/** A step in float64 on the host: the reference of the kernel. */
export function hostStep(
  step: Step,
  sample: ArrayLike<number>,
  output: ArrayLike<number>,
  noise?: ArrayLike<number>,
  history?: History<ArrayLike<number>>,
): Float64Array {
  return Float64Array.from(sample, (x, i) => {
    const clean = step.cleanSample * x + step.cleanOutput * output[i];
    return (
      step.sample * x +
      step.output * output[i] +
      (step.noise === 0 ? 0 : step.noise * noise![i]) +
      step.clean * Math.min(Math.max(clean, -step.clip), step.clip) +
      (step.before === 0 ? 0 : step.before * history!.sample[i]) +
      step.past.reduce((sum, weight, k) => sum + weight * history!.outputs[k][i], 0)
    );
  });
}
