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
}

function check(sample: Tensor, output: Tensor, noise: Tensor | null, scale: number, step: StepCoefficients): void {
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
  alike('guidedStep', sample, output, ...(noise ? [noise] : []));
  refuseGradient('guidedStep', sample, output);
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
 *
 * @param sample x, (N, …)
 * @param output of the model: (2N, …), first u, without the prompt, then c, with it; or (N, …) where scale is 1
 * @param noise ε, (N, …); may be null where the step adds none
 */
export function guidedStep(
  sample: Tensor,
  output: Tensor,
  noise: Tensor | null,
  { scale, step }: { scale: number; step: StepCoefficients },
): Tensor {
  check(sample, output, noise, scale, step);
  const device = sample.device;
  const next = empty(device, sample.shape, sample.dtype);
  const fresh = step.noise !== 0;
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
  };
  device.run(
    device.kernel(guidedStepSource, { ...typed(sample), GUIDED: scale !== 1, NOISE: fresh }),
    fresh ? [sample, output, next, noise!] : [sample, output, next],
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
  { scale, step }: { scale: number; step: StepCoefficients },
): Tensor {
  check(sample, output, noise, scale, step);
  let m = output;
  if (scale !== 1) {
    const halves = reshape(output, [2, sample.size]);
    const weights = tensor(sample.device, [1 - scale, scale], [2, 1]);
    m = reshape(sum(mul(halves, weights), [0]), sample.shape);
  }
  const clean = clamp(add(affine(sample, step.cleanSample), affine(m, step.cleanOutput)), -step.clip, step.clip);
  const next = add(add(affine(sample, step.sample), affine(m, step.output)), affine(clean, step.clean));
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
