/** Checks of whole models: outputs, activations inside, gradients of every parameter. */
import { add, affine, exp, mean, mse, mul } from '../../kernels/index.ts';
import { backward, clearGradient, keep, noGrad, release, scope, tensor, Tensor } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { loadClipText, loadUNet, loadVae } from '../../diffusion/folder.ts';
import type { Module } from '../../nn/module.ts';
import type { Safetensors } from '../../nn/safetensors.ts';
import type { Subject } from './recordings.ts';
import { largest, norm } from './report.ts';
import type { Report } from './report.ts';

/** A recorded tensor on the device. */
export async function upload(device: Device, file: Safetensors, name: string): Promise<Tensor> {
  return tensor(device, await file.read(name), file.info(name).shape);
}

/** Compares a result with a recording of it; `first`: of its first elements, where only those were recorded. */
export async function compareTensor(
  report: Report,
  quantity: string,
  actual: Tensor,
  expected: ArrayLike<number>,
  kind: string,
  { spread = 0, first = false } = {},
): Promise<void> {
  const values = await actual.read();
  report.compare(quantity, first ? values.subarray(0, expected.length) : values, expected, report.limit(kind), spread);
}

export async function verifyUNet({ device, folder, inputs, outputs }: Subject, report: Report): Promise<void> {
  const model = await loadUNet(device, folder);
  const sample = await upload(device, inputs, 'sample');
  const context = await upload(device, inputs, 'encoder_hidden_states');
  const target = await upload(device, inputs, 'target');
  const timesteps = Array.from(await inputs.read('timestep'));
  const paths = [...outputs.tensors.keys()].filter((name) => name.startsWith('act.')).map((name) => name.slice(4));
  const activations = captureResults(model, paths);
  const [output, loss] = scope(device, () => {
    const output = model.forward(sample, timesteps, context);
    const loss = mse(output, target);
    backward(loss);
    return [output, loss] as const;
  });
  const spread = report.spread('sample_maxabs');
  const expected = await outputs.floats('sample');
  await compareTensor(report, 'sample', output, expected, 'output', { spread });
  await compareTensor(report, 'loss', loss, await outputs.floats('loss'), 'loss', {
    spread: report.spread('loss_abs'),
  });
  for (const path of paths) {
    const result = activations.get(path);
    if (!result) {
      report.fail(`act.${path}`, 'the model has no such module');
      continue;
    }
    // PyTorch's deviation is recorded for the result alone. Inside the model values are several times larger, and so is
    // the rounding: it is taken in proportion to the largest value.
    const recorded = await outputs.floats(`act.${path}`);
    const inside = (spread * largest(recorded)) / largest(expected);
    await compareTensor(report, `act.${path}`, result, recorded, 'output', { spread: inside, first: true });
    release(result);
  }
  await compareGradients(report, model, outputs);
  skipOthers(report, outputs, /^(sample|loss|act\..*|grad\..*|gradnorm\..*)$/);
  release(sample, context, target, output, loss);
  model.release();
}

export async function verifyVae({ device, folder, inputs, outputs }: Subject, report: Report): Promise<void> {
  const model = await loadVae(device, folder);
  const image = await upload(device, inputs, 'image');
  const noise = await upload(device, inputs, 'noise');
  const latents = await upload(device, inputs, 'latents');
  const results = noGrad(device, () =>
    scope(device, () => {
      const { mean: mode, logvar } = model.encode(image);
      const std = exp(affine(logvar, 0.5));
      const posterior_sample = model.sample({ mean: mode, logvar }, noise);
      const scaled_latents = affine(posterior_sample, model.config.scaling_factor);
      const decoded = model.decode(latents);
      return { mean: mode, mode, logvar, std, posterior_sample, scaled_latents, decoded };
    }),
  );
  for (const [name, result] of Object.entries(results))
    if (outputs.tensors.has(name)) {
      const expected = await outputs.floats(name);
      await compareTensor(report, name, result, expected, 'output', { spread: report.spread(name) });
    }
  skipOthers(report, outputs, new RegExp(`^(${Object.keys(results).join('|')})$`));
  release(image, noise, latents, ...new Set(Object.values(results)));
  model.release();
}

export async function verifyClipText({ device, folder, inputs, outputs }: Subject, report: Report): Promise<void> {
  const model = await loadClipText(device, folder);
  const [rows, length] = inputs.info('input_ids').shape as [number, number];
  const flat = await inputs.integers('input_ids');
  const ids = Array.from({ length: rows }, (_, n) => flat.subarray(n * length, (n + 1) * length));
  const [hiddenWeights, pooledWeights] = [
    await upload(device, inputs, 'r_hidden'),
    await upload(device, inputs, 'r_pooled'),
  ];
  const results = scope(device, () => {
    const { lastHidden, pooled, hiddenStates } = model.forward(ids);
    const loss = add(mean(mul(lastHidden, hiddenWeights)), mean(mul(pooled, pooledWeights)));
    backward(loss);
    return { last_hidden_state: lastHidden, pooler_output: pooled, penultimate: hiddenStates.at(-2)!, loss };
  });
  for (const [name, result] of Object.entries(results)) {
    const kind = name === 'loss' ? 'loss' : 'output';
    const options = { spread: report.spread(name), first: name === 'penultimate' };
    if (outputs.tensors.has(name)) await compareTensor(report, name, result, await outputs.floats(name), kind, options);
  }
  await compareGradients(report, model, outputs);
  skipOthers(report, outputs, /^(last_hidden_state|pooler_output|penultimate|loss|grad\..*|gradnorm\..*)$/);
  release(hiddenWeights, pooledWeights, ...Object.values(results));
  model.release();
}

/** Makes the modules at `paths` leave their results (the last, where there are several) in a map, which keeps them. */
function captureResults(model: Module, paths: readonly string[]): Map<string, Tensor> {
  const results = new Map<string, Tensor>();
  for (const path of paths) {
    let module: unknown = model;
    for (const key of path.split('.')) module = (module as Record<string, unknown> | undefined)?.[key];
    const traced = module as { forward?: (...inputs: unknown[]) => Tensor | Tensor[] } | undefined;
    const forward = traced?.forward?.bind(traced);
    if (!traced || !forward) continue;
    traced.forward = (...inputs) => {
      const result = forward(...inputs);
      results.set(path, keep(result instanceof Tensor ? result : result.at(-1)!));
      return result;
    };
  }
  return results;
}

/** Compares `grad.<parameter>` one by one and all `gradnorm.<parameter>` in one row, and lets go of the gradients. */
export async function compareGradients(report: Report, model: Module, outputs: Safetensors): Promise<void> {
  const parameters = model.namedParameters();
  const gradient = async (name: string): Promise<ArrayLike<number> | null> => {
    const parameter = parameters.get(name);
    if (!parameter) return null;
    return parameter.grad ? parameter.grad.read() : new Float32Array(parameter.size);
  };
  const spread = report.spread('grad_worst_rel_l2');
  const norms = { names: [] as string[], actual: [] as number[], expected: [] as number[] };
  for (const name of outputs.tensors.keys()) {
    const [, kind, parameter] = /^(grad|gradnorm)\.(.*)$/.exec(name) ?? [];
    if (!kind || !parameter) continue;
    const actual = await gradient(parameter);
    if (!actual) {
      report.fail(name, 'the model has no such parameter');
      continue;
    }
    const expected = await outputs.floats(name);
    if (kind === 'grad') report.compare(name, actual, expected, report.limit('grad'), spread);
    else {
      norms.names.push(parameter);
      norms.actual.push(norm(actual));
      norms.expected.push(expected[0]!);
    }
  }
  if (norms.names.length > 0)
    report.compare(
      (worst) => `${norms.names.length} gradnorms, worst ${norms.names[worst]}`,
      norms.actual,
      norms.expected,
      report.limit('gradnorm'),
    );
  for (const parameter of parameters.values()) clearGradient(parameter);
}

/** Lists recorded quantities that no check knows. */
export function skipOthers(report: Report, outputs: Safetensors, known: RegExp): void {
  for (const name of outputs.tensors.keys()) if (!known.test(name)) report.skip(name, 'the quantity is not known');
}
