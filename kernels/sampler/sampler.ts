import { empty, formatShape, reshape, sameShape, tensor, typed, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { add, affine, clamp, mul } from '../elementwise/elementwise.ts';
import { sum } from '../reduce/reduce.ts';

const guidedStepSource = wgsl(import.meta.url, './guided_step.wgsl');
const mixSource = wgsl(import.meta.url, './mix.wgsl');

/** The coefficients of one step of a sampler, from the sample x and the model's output m; see `guidedStep`. */
export interface StepCoefficients {
  readonly sample: number;
  readonly output: number;
  /** Of fresh noise; with 0 the step needs none. */
  readonly noise: number;
  /** Of the clipped prediction of the clean sample. */
  readonly clean: number;
  readonly cleanSample: number;
  readonly cleanOutput: number;
  readonly clip: number;
  /** Of the last sample. */
  readonly before: number;
  /** Of the last outputs, last first, at most four. Where this is empty, the step needs nothing of those before. */
  readonly past: readonly number[];
}

/** What a multistep method takes of the steps before. */
export interface StepHistory {
  /** x₋₁, (N, …) */
  readonly sample: Tensor;
  /** The model's outputs, last first, each as `output` was then. */
  readonly outputs: readonly Tensor[];
}

const MOST_PAST = 4;

interface GuidedStepOptions {
  scale: number;
  step: StepCoefficients;
  history?: StepHistory | undefined;
}

function check(
  sample: Tensor,
  output: Tensor,
  noise: Tensor | null,
  { scale, step, history }: GuidedStepOptions,
): void {
  const [n = 0, ...rest] = sample.shape;
  const expected = [scale === 1 ? n : 2 * n, ...rest];
  if (!sameShape(output.shape, expected))
    throw new Error(
      `[guidedStep] with scale ${scale} the model's output for a sample ${formatShape(sample.shape)} is ${formatShape(expected)}, not ${formatShape(output.shape)}`,
    );
  if (noise ? !sameShape(noise.shape, sample.shape) : step.noise !== 0)
    throw new Error(
      `[guidedStep] this step adds noise, which must be ${formatShape(sample.shape)}, not ${noise ? formatShape(noise.shape) : 'missing'}`,
    );
  if (step.past.length > MOST_PAST)
    throw new Error(`[guidedStep] a step reaches back ${MOST_PAST} outputs at most, not ${step.past.length}`);
  const reached = step.past.length > 0 ? (history?.outputs ?? []) : [];
  if (reached.length < step.past.length)
    throw new Error(`[guidedStep] this step takes the last ${step.past.length} outputs: got ${reached.length}`);
  if (step.past.length === 0 && step.before !== 0)
    throw new Error('[guidedStep] a step that takes the last sample takes an output of before as well: past is empty');
  const last = reached.length > 0 ? [history!.sample] : [];
  for (const [what, tensors, shape] of [
    ['sample', last, sample.shape],
    ['outputs', reached, expected],
  ] as const)
    for (const tensor of tensors)
      if (!sameShape(tensor.shape, shape))
        throw new Error(
          `[guidedStep] the last ${what} must be ${formatShape(shape)}, not ${formatShape(tensor.shape)}`,
        );
  const others = [output, ...(noise ? [noise] : []), ...last, ...reached];
  alike('guidedStep', sample, ...others);
  refuseGradient('guidedStep', sample, ...others);
}

function alike(name: string, sample: Tensor, ...others: Tensor[]): void {
  for (const { dtype } of others)
    if (dtype !== sample.dtype || !['f32', 'f16'].includes(dtype))
      throw new Error(`[${name}] all inputs are f32 or all f16, not ${sample.dtype} and ${dtype}`);
}

function refuseGradient(name: string, ...inputs: Tensor[]): void {
  if (inputs.some((input) => input.device.recording && input.tracked))
    throw new Error(`[${name}] has no gradient; call it within noGrad, or on tensors that need none`);
}

/**
 * Classifier-free guidance (Ho & Salimans, 2022) and a sampler's step in one kernel:
 *
 *     m = u + scale · (c − u)
 *     next = sample·x + output·m + noise·ε + clean·clamp(cleanSample·x + cleanOutput·m, −clip, clip)
 *            + before·x₋₁ + Σ past[k]·m₋₁₋ₖ
 *
 * @param sample x, (N, …)
 * @param output of the model: (2N, …), first u, without the prompt, then c, with it; or (N, …) where scale is 1
 * @param noise ε, (N, …); may be null where the step adds none
 * @param options `history` is needed where the step's `past` is not empty
 */
export function guidedStep(sample: Tensor, output: Tensor, noise: Tensor | null, options: GuidedStepOptions): Tensor {
  check(sample, output, noise, options);
  const { scale, step, history } = options;
  const device = sample.device;
  const next = empty(device, sample.shape, sample.dtype);
  const fresh = step.noise !== 0;
  const { past } = step;
  const reaches = past.length > 0;
  // One kernel for every number of outputs: where there are fewer, the oldest is there again, with the coefficient 0.
  const outputs = Array.from(
    { length: reaches ? MOST_PAST : 0 },
    (_, k) => history!.outputs[Math.min(k, past.length - 1)]!,
  );
  const last = reaches ? [history!.sample, ...outputs] : [];
  const params = {
    size: sample.size,
    scale,
    sample: step.sample,
    output: step.output,
    noise: step.noise,
    clean: step.clean,
    clean_sample: step.cleanSample,
    clean_output: step.cleanOutput,
    clip: step.clip,
    before: step.before,
    past1: past[0] ?? 0,
    past2: past[1] ?? 0,
    past3: past[2] ?? 0,
    past4: past[3] ?? 0,
  };
  device.run(
    device.kernel(guidedStepSource, {
      ...typed(sample),
      GUIDED: scale !== 1,
      PAST: reaches,
      NOISE: fresh,
      FRESH: 3 + last.length,
    }),
    [sample, output, next, ...last, ...(fresh ? [noise!] : [])],
    params,
    Math.ceil(sample.size / 64),
  );
  return next;
}

/** `guidedStep` made of plain operations: its oracle. */
export function composedGuidedStep(
  sample: Tensor,
  output: Tensor,
  noise: Tensor | null,
  options: GuidedStepOptions,
): Tensor {
  check(sample, output, noise, options);
  const { scale, step, history } = options;
  const guided = (output: Tensor): Tensor => {
    if (scale === 1) return output;
    const halves = reshape(output, [2, sample.size]);
    const weights = tensor(sample.device, [1 - scale, scale], [2, 1]);
    return reshape(sum(mul(halves, weights), [0]), sample.shape);
  };
  const m = guided(output);
  const clean = clamp(add(affine(sample, step.cleanSample), affine(m, step.cleanOutput)), -step.clip, step.clip);
  let next = add(add(affine(sample, step.sample), affine(m, step.output)), affine(clean, step.clean));
  if (step.past.length > 0) next = add(next, affine(history!.sample, step.before));
  step.past.forEach((weight, k) => (next = add(next, affine(guided(history!.outputs[k]!), weight))));
  return step.noise === 0 ? next : add(next, affine(noise!, step.noise));
}

/**
 * The forward process x_t = a·x₀ + b·ε (Ho et al., 2020) with each sample's own a and b, or a training target that is such
 * a mix.
 *
 * @param x0 (N, …)
 * @param noise ε, (N, …)
 * @param a, b (N,)
 */
export function addNoise(x0: Tensor, noise: Tensor, a: Tensor, b: Tensor): Tensor {
  const [n = 0] = x0.shape;
  if (!sameShape(noise.shape, x0.shape))
    throw new Error(`[addNoise] the noise is ${formatShape(noise.shape)}, the samples ${formatShape(x0.shape)}`);
  for (const coefficient of [a, b])
    if (!sameShape(coefficient.shape, [n]))
      throw new Error(
        `[addNoise] for samples ${formatShape(x0.shape)} the coefficients are ${formatShape([n])}, not ${formatShape(coefficient.shape)}`,
      );
  alike('addNoise', x0, noise, a, b);
  refuseGradient('addNoise', x0, noise);
  const device = x0.device;
  const out = empty(device, x0.shape, x0.dtype);
  const params = { size: x0.size, inner: x0.size / Math.max(n, 1) };
  device.run(device.kernel(mixSource, typed(x0)), [x0, noise, a, b, out], params, Math.ceil(x0.size / 64));
  return out;
}
