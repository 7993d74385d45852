/** Checks of noise schedules, samplers and the whole way from a prompt to a picture. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { affine, addNoise, guidedStep } from '../../kernels/index.ts';
import { noGrad, release, scope, tensor } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { loadStableDiffusion } from '../../diffusion/folder.ts';
import { decodeLatents, denoise, encode, encodePrompts } from '../../diffusion/pipeline.ts';
import { initialScale, samplingSteps } from '../../diffusion/samplers.ts';
import { NoiseSchedule, parseSchedulerConfig, SAMPLERS } from '../../diffusion/schedule.ts';
import type { SamplerName } from '../../diffusion/schedule.ts';
import { compareTensor, skipOthers, upload } from './models.ts';
import type { Subject } from './recordings.ts';
import { EXACT } from './report.ts';
import type { Report } from './report.ts';

export async function readSchedule(folder: string, sampler?: SamplerName): Promise<NoiseSchedule> {
  const file = path.join(folder, 'scheduler_config.json');
  return new NoiseSchedule(parseSchedulerConfig(await readFile(file, 'utf8'), file, sampler));
}

const runs = z.record(
  z.string(),
  z.looseObject({
    cls: z.string(),
    config_dir: z.string(),
    step_kwargs: z.looseObject({ eta: z.number().optional() }).default({}),
  }),
);

export async function verifySchedulers(subject: Subject, report: Report): Promise<void> {
  const { root, recording, outputs } = subject;
  const classes: string[] = Object.values(SAMPLERS).map(({ _class_name }) => _class_name);
  const [skipped, run] = [new Set<string>(), new Set<string>()];
  for (const [name, { cls, config_dir: folder, step_kwargs: options }] of Object.entries(runs.parse(recording.runs))) {
    const unknown = Object.keys(options).find((key) => key !== 'eta');
    if (!classes.includes(cls)) report.skip(name, `the sampler ${cls} is not known`);
    else if (unknown !== undefined) report.skip(name, `the sampler's option ${unknown} is not known`);
    else run.add(name);
    if (!run.has(name)) skipped.add(name);
    else {
      // A run is recorded for several numbers of steps.
      const counts = new Set<string>();
      for (const key of outputs.tensors.keys()) {
        const [of, count] = splitKey(key);
        if (of === name && count) counts.add(count);
      }
      if (counts.size === 0) report.fail(name, 'nothing of it is recorded');
      try {
        const schedule = await readSchedule(path.join(root, folder));
        for (const count of counts)
          await verifyRun(subject, report, schedule, `${name}.${count}`, Number(count), options.eta);
      } catch (error) {
        report.fail(name, (error as Error).message);
      }
    }
  }
  for (const name of await verifyNoise(subject, report)) run.add(name);
  const known =
    /\.(timesteps|init_noise_sigma|sigmas|scaled_inputs|trajectory|add_noise|get_velocity|alphas_cumprod|betas)$/;
  for (const key of outputs.tensors.keys()) {
    const [name] = splitKey(key);
    if (!skipped.has(name) && !(run.has(name) && known.test(key))) report.skip(key, 'the quantity is not known');
  }
}

/** `ddim_eta0.10.timesteps` → `ddim_eta0`, `10` */
function splitKey(key: string): [name: string, count: string | undefined] {
  const [, name = '', count] = /^(.*?)(?:\.(\d+))?\.[^.]*$/.exec(key) ?? [];
  return [name, count];
}

/**
 * A timestep between two is found by its σ. In the recordings' f32 ln σ is off by some 3e-6 where 1 − ᾱ is small, and changes
 * by 0.01 from one timestep to the next there: 3e-4 of a timestep.
 */
const BETWEEN_TIMESTEPS = { atol: 1e-3 };

/** One sampler on recorded model outputs, whatever the sample: every sample on the way. */
async function verifyRun(
  { device, inputs, outputs }: Subject,
  report: Report,
  schedule: NoiseSchedule,
  key: string,
  count: number,
  eta: number | undefined,
): Promise<void> {
  const plan = samplingSteps(schedule, eta === undefined ? { steps: count } : { steps: count, eta });
  const scale = initialScale(schedule, plan);
  const timesteps = plan.map((step) => step.timestep);
  const exact = timesteps.every(Number.isInteger) ? EXACT : BETWEEN_TIMESTEPS;
  report.compare(`${key}.timesteps`, timesteps, await outputs.read(`${key}.timesteps`), exact);
  const alphaBars = [...plan.map((step) => step.from), plan.at(-1)!.to];
  // diffusers' Euler walks x/√ᾱ.
  const euler = schedule.config._class_name === 'EulerDiscreteScheduler';
  const divisors = alphaBars.map((alphaBar) => (euler ? Math.sqrt(alphaBar) : 1));
  const compare = async (quantity: string, actual: ArrayLike<number>, allowed = report.limit('output')) => {
    if (outputs.tensors.has(`${key}.${quantity}`))
      report.compare(`${key}.${quantity}`, actual, await outputs.floats(`${key}.${quantity}`), allowed);
  };
  await compare('init_noise_sigma', [scale / divisors[0]!], euler ? report.limit('output') : EXACT);
  const sigmas = alphaBars.map((alphaBar) => Math.sqrt((1 - alphaBar) / alphaBar));
  await compare('sigmas', sigmas);
  const shape = inputs.info('sample').shape;
  const modelOutputs = await inputs.floats('model_outputs');
  const noise = await inputs.floats('variance_noise');
  const first = (await inputs.floats('sample')).map((value) => scale * value);
  const size = first.length;
  const row = (of: Float32Array, i: number) => tensor(device, of.subarray(i * size, (i + 1) * size), shape);
  const samples = [tensor(device, first, shape)];
  for (const [i, step] of plan.entries())
    samples.push(
      scope(device, () => {
        const outputs = step.past.map((_, k) => row(modelOutputs, i - 1 - k));
        const history = i === 0 ? undefined : { sample: samples[i - 1]!, outputs };
        const fresh = step.noise === 0 ? null : row(noise, i);
        return guidedStep(samples[i]!, row(modelOutputs, i), fresh, { scale: 1, step, history });
      }),
    );
  const trajectory = await Promise.all(samples.map((sample) => sample.read()));
  release(...samples);
  const inputsOf = trajectory.slice(0, -1).flatMap((values) => [...values]);
  await compare('scaled_inputs', inputsOf);
  report.compare(
    (worst) => `${key}.trajectory, worst at step ${Math.floor(worst / size)}`,
    trajectory.flatMap((values, i) => Array.from(values, (value) => value / divisors[i]!)),
    await outputs.floats(`${key}.trajectory`),
    report.limit('output'),
  );
}

/** Adding noise to samples: for every set of `<name>.x0`, `.noise` and `.t`. Returns the names. */
async function verifyNoise({ device, folder, inputs, outputs }: Subject, report: Report): Promise<string[]> {
  const names = [...inputs.tensors.keys()].filter((key) => key.endsWith('.x0')).map((key) => key.slice(0, -3));
  for (const name of names) {
    const schedule = await readSchedule(path.join(folder, name));
    const times = Array.from(await inputs.read(`${name}.t`));
    const [x0, noise] = [await upload(device, inputs, `${name}.x0`), await upload(device, inputs, `${name}.noise`)];
    const mixed = (shares: (t: number) => { signal: number; noise: number }) =>
      scope(device, () =>
        addNoise(
          x0,
          noise,
          tensor(
            device,
            times.map((t) => shares(t).signal),
          ),
          tensor(
            device,
            times.map((t) => shares(t).noise),
          ),
        ),
      );
    const results = {
      add_noise: mixed((t) => schedule.noising(t)),
      get_velocity: mixed((t) => schedule.velocity(t)),
    };
    for (const [key, result] of Object.entries(results)) {
      if (outputs.tensors.has(`${name}.${key}`))
        await compareTensor(report, `${name}.${key}`, result, await outputs.floats(`${name}.${key}`), 'output');
      release(result);
    }
    for (const [key, values] of [
      ['alphas_cumprod', schedule.alphasCumprod],
      ['betas', schedule.betas],
    ] as const)
      if (outputs.tensors.has(`${name}.${key}`))
        report.compare(`${name}.${key}`, values, await outputs.floats(`${name}.${key}`), report.limit('output'));
    release(x0, noise);
  }
  return names;
}

const pipelineFields = z.looseObject({
  prompts: z.array(z.string()).min(1),
  negative_prompts: z.array(z.string()),
  num_inference_steps: z.int().min(1),
  guidance_scale: z.number(),
});

/** Tokens, text, every step of guided sampling, and the picture, each from what the model itself made before. */
export async function verifyPipeline(
  { device, folder, recording, inputs, outputs }: Subject,
  report: Report,
): Promise<void> {
  const {
    prompts,
    negative_prompts,
    num_inference_steps: steps,
    guidance_scale: scale,
  } = pipelineFields.parse(recording);
  const model = await loadStableDiffusion(device, folder);
  const plan = samplingSteps(model.schedule(), { steps });
  const spread = report.spread('latents');

  const texts: Tensor[] = [];
  for (const [prefix, list] of [
    ['', prompts],
    ['negative_', negative_prompts],
  ] as const) {
    const ids = list.map((prompt) => encode(model, prompt));
    report.compare(
      `${prefix}input_ids`,
      ids.flatMap((text) => [...text]),
      await inputs.integers(`${prefix}input_ids`),
      EXACT,
    );
    const text = encodePrompts(model, ids);
    // The manifest has no limit for these alone: that of the latents, which they lead to.
    const expected = await inputs.floats(`${prefix}prompt_embeds`);
    await compareTensor(report, `${prefix}prompt_embeds`, text, expected, 'latents', { spread });
    texts.push(text);
  }
  const [context, without] = texts as [Tensor, Tensor];

  const timesteps = plan.map((step) => step.timestep);
  report.compare('timesteps', timesteps, await outputs.read('timesteps'), EXACT);
  const start = await upload(device, inputs, 'latents');
  const walked: number[] = [];
  const latents = await denoise(model.unet, start, context, without, plan, {
    scale,
    onStep: async (_, latents) => void walked.push(...(await latents.read())),
  });
  report.compare(
    (worst) => `latents_steps, worst at step ${Math.floor(worst / latents.size) + 1}`,
    walked,
    await outputs.floats('latents_steps'),
    report.limit('latents'),
    spread,
  );
  await compareTensor(report, 'latents', latents, await outputs.floats('latents'), 'latents', { spread });
  const others = ['guidance1', ...Object.keys(SAMPLERS)].filter((name) => outputs.tensors.has(`latents_${name}`));
  for (const name of others) {
    const schedule = model.schedule(name === 'guidance1' ? undefined : (name as SamplerName));
    const walk = samplingSteps(schedule, { steps });
    const begin = noGrad(device, () => affine(start, initialScale(schedule, walk)));
    const other = await denoise(model.unet, begin, context, without, walk, { scale: name === 'guidance1' ? 1 : scale });
    const expected = await outputs.floats(`latents_${name}`);
    await compareTensor(report, `latents_${name}`, other, expected, 'latents', { spread });
    release(begin, other);
  }

  const decoded = noGrad(device, () =>
    scope(device, () => model.vae.decode(affine(latents, 1 / model.vae.config.scaling_factor))),
  );
  // image = decoded / 2 + 1/2, so that what is allowed there is half of what it is here.
  const { atol = 0, ...limit } = report.limit('image');
  report.compare('decoded', await decoded.read(), await outputs.floats('decoded'), { ...limit, atol: 2 * atol });
  const pictures = await decodeLatents(model, latents);
  const image = pictures.flatMap(({ data }) => Array.from(data, (value) => value / 2 + 0.5)); // (N, 3, H, W)
  report.compare('image', image, await outputs.floats('image'), report.limit('image'));
  const { width, height } = pictures[0]!;
  const size = width * height;
  const bytes = image.map((_, i) => {
    const [n, pixel, channel] = [Math.floor(i / (3 * size)), Math.floor((i % (3 * size)) / 3), i % 3];
    return Math.round(image[(n * 3 + channel) * size + pixel]! * 255); // (N, H, W, 3)
  });
  report.compare('image_u8', bytes, await outputs.integers('image_u8'), report.limit('image_u8'));

  for (const key of outputs.tensors.keys()) {
    const [, name] = /^latents_(?!steps$)(.*)/.exec(key) ?? [];
    if (name !== undefined && !others.includes(name)) report.skip(key, 'the sampler is not known');
  }
  skipOthers(report, outputs, /^(latents.*|timesteps|decoded|image|image_u8)$/);
  release(start, context, without, latents, decoded);
  for (const part of [model.unet, model.vae, model.textEncoder]) part.release();
}
