/** DreamBooth's training steps (Ruiz et al. 2023) on recorded latents: loss with prior preservation, clipping, AdamW. */
import path from 'node:path';
import { z } from 'zod';
import { backward, noGrad, release, scope, tensor } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { addNoise, mse, slice } from '../../kernels/index.ts';
import { loadUNet } from '../../diffusion/folder.ts';
import { AdamW } from '../../nn/adamw.ts';
import { Arena } from '../../nn/arena.ts';
import { skipOthers } from './models.ts';
import type { Subject } from './recordings.ts';
import { norm } from './report.ts';
import type { Limit, Report } from './report.ts';
import { readSchedule } from './sampling.ts';

const fields = z.looseObject({
  weights: z.string(),
  hyper: z.looseObject({
    lr: z.number(),
    beta1: z.number(),
    beta2: z.number(),
    weight_decay: z.number(),
    eps: z.number(),
    max_grad_norm: z.number(),
    prior_loss_weight: z.number(),
    steps: z.int().min(1),
  }),
  param_order_for_all_param_norms: z.array(z.string()).default([]),
});

/*
 * The update's limit is wide, since Adam divides by √v: where a gradient is near 0 its rounding error decides about a whole
 * step of ±lr. Gradients themselves have no such division. PyTorch's own f32 is 7e-6 from its float64 (‖error‖/‖gradient‖,
 * recorded for a UNet of twice the width in the case unet), and the recordings' limit for gradients there is 1e-3. The global
 * norm and exp_avg are linear in the gradients, so they take the same; exp_avg_sq is quadratic, (1 + e)² ≈ 1 + 2e: twice it.
 * Later steps take their gradients at parameters that are off too, by some 1e-5 of an update of about lr: far less.
 */
const GRADIENT: Limit = { relL2: 1e-3 };
const SQUARE: Limit = { relL2: 2e-3 };

export async function verifyDreambooth(
  { device, root, recording, inputs, outputs }: Subject,
  report: Report,
): Promise<void> {
  const { weights, hyper, param_order_for_all_param_norms: order } = fields.parse(recording);
  const unet = await loadUNet(device, path.join(root, weights));
  const schedule = await readSchedule(path.join(root, weights, '..', 'scheduler'), 'ddpm');
  const arena = new Arena({ '': unet });
  const optimizer = new AdamW(arena, {
    betas: [hyper.beta1, hyper.beta2],
    epsilon: hyper.eps,
    weightDecay: hyper.weight_decay,
    maxNorm: hyper.max_grad_norm,
  });
  const read = async (name: string): Promise<Float32Array> => {
    const parameter = arena.parameters.get(name);
    if (!parameter) throw new Error(`the recording has the parameter ${name}, the model has not`);
    return (await parameter.read()) as Float32Array;
  };
  const initial = new Map<string, Float32Array>();
  for (const name of arena.parameters.keys()) initial.set(name, await read(name));
  const difference = (a: ArrayLike<number>, b: ArrayLike<number>) => Float64Array.from(a, (x, i) => x - b[i]!);

  const update = report.limit('update');
  const updateSpread = report.spread('step3_update_worst_rel_l2');
  const losses = {
    loss: [] as number[],
    instance_loss: [] as number[],
    prior_loss: [] as number[],
    grad_norm: [] as number[],
  };
  for (let step = 0; step < hyper.steps; step++) {
    const [latents, noise, context] = await Promise.all(
      ['latents', 'noise', 'encoder_hidden_states'].map(async (name) => {
        const [, ...shape] = inputs.info(name).shape;
        return tensor(device, await row(inputs.floats(name), step, inputs.info(name).shape[0]!), shape);
      }),
    ) as [Tensor, Tensor, Tensor]; // prettier-ignore
    const times = Array.from(await row(inputs.read('timesteps'), step, inputs.info('timesteps').shape[0]!));
    const batch = times.length;
    const half = batch / 2; // the subject's pictures first, then the class's
    const results = scope(device, () => {
      const shares = times.map((t) => schedule.noising(t));
      const [signal, sigma] = [shares.map((share) => share.signal), shares.map((share) => share.noise)];
      const noisy = addNoise(latents, noise, tensor(device, signal), tensor(device, sigma));
      const predicted = unet.forward(noisy, times, context);
      const sampleWeights = times.map((_, n) => (n < half ? 1 : hyper.prior_loss_weight) / half);
      const loss = mse(predicted, noise, { weights: tensor(device, sampleWeights) });
      const part = (from: number, to: number) =>
        noGrad(device, () => mse(slice(predicted, 0, from, to), slice(noise, 0, from, to)));
      const parts = [part(0, half), part(half, batch)] as const;
      backward(loss);
      return [loss, ...parts] as const;
    });
    const gradients = new Map<string, Float32Array>();
    for (const key of outputs.tensors.keys()) {
      const name = new RegExp(`^step${step + 1}\\.clipped_grad\\.(.*)$`).exec(key)?.[1];
      if (name !== undefined) gradients.set(name, (await arena.parameters.get(name)?.grad?.read()) as Float32Array);
    }
    const square = scope(device, () => optimizer.step(hyper.lr));
    const gradNorm = Math.sqrt((await square.read())[0]!);
    for (const [i, key] of (['loss', 'instance_loss', 'prior_loss'] as const).entries())
      losses[key].push((await results[i]!.read())[0]!);
    losses.grad_norm.push(gradNorm);
    const clip = Math.min(1, hyper.max_grad_norm / (gradNorm + 1e-6));
    for (const [name, gradient] of gradients) {
      const key = `step${step + 1}.clipped_grad.${name}`;
      const clipped = gradient?.map((value) => value * clip) ?? [];
      report.compare(key, clipped, await outputs.floats(key), GRADIENT);
    }
    await compareParameters(step + 1);
    release(latents, noise, context, square, ...results);
  }
  for (const [key, values] of Object.entries(losses))
    if (outputs.tensors.has(key)) {
      const own = key !== 'grad_norm';
      const limit = own ? report.limit('loss') : GRADIENT;
      report.compare(key, values, await outputs.floats(key), limit, own ? report.spread('loss') : 0);
    }
  for (const [key, buffers, limit] of [
    ['exp_avg', optimizer.first, GRADIENT],
    ['exp_avg_sq', optimizer.second, SQUARE],
  ] as const) {
    const moments = arena.windows(buffers);
    for (const name of outputs.tensors.keys())
      if (name.startsWith(`${key}.`)) {
        const moment = moments.get(name.slice(key.length + 1));
        report.compare(name, (await moment?.read()) ?? [], await outputs.floats(name), limit);
      }
    release(...moments.values());
  }
  skipOthers(report, outputs, /^(loss|instance_loss|prior_loss|grad_norm|exp_avg\..*|exp_avg_sq\..*|step\d+\..*)$/);
  optimizer.release();
  arena.release();
  unet.release();

  /** Compares the updates p_k − p_0, and the norms of all parameters. */
  async function compareParameters(step: number): Promise<void> {
    for (const key of outputs.tensors.keys()) {
      const name = new RegExp(`^step${step}\\.(?!clipped_grad\\.|all_param_norms$)(.*)$`).exec(key)?.[1];
      if (name === undefined) continue;
      const before = initial.get(name) ?? (await read(name)); // throws where there is none
      const expected = difference(await outputs.floats(key), before);
      report.compare(`${key}, update`, difference(await read(name), before), expected, update, updateSpread);
    }
    const key = `step${step}.all_param_norms`;
    if (!outputs.tensors.has(key)) return;
    const expected = await outputs.floats(key);
    const actual: number[] = [];
    const slack: number[] = [];
    for (const name of order) {
      const values = await read(name);
      actual.push(norm(values));
      // A norm is off by no more than the update is, plus the rounding of a recorded f32 norm.
      slack.push(Math.max(update.relL2 ?? 0, 10 * updateSpread) * norm(difference(values, initial.get(name)!)) + 1e-6 * norm(values)); // prettier-ignore
    }
    // In units of each one's slack, so that one limit serves all.
    report.compare(
      (worst) => `${key} over its slack, worst ${order[worst]}`,
      actual.map((value, i) => (value - expected[i]!) / slack[i]!),
      new Float64Array(expected.length),
      { atol: 1 },
    );
  }
}

/** Row `i` of `rows` equal ones. */
async function row<T extends Float32Array | Int32Array>(values: Promise<T>, i: number, rows: number): Promise<T> {
  const all = await values;
  const size = all.length / rows;
  return all.slice(i * size, (i + 1) * size) as T;
}
