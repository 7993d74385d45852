/** One training step and one sampling step of the default DreamBooth, measured whole. */
import { backward, HostRandom, randomKey, release, scope, sizeOf, tensor } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { chooseTrained, DreamBooth } from '../../diffusion/dreambooth.ts';
import type { StableDiffusion } from '../../diffusion/folder.ts';
import { denoise, encode, encodePrompts, latentSide } from '../../diffusion/pipeline.ts';
import { samplingSteps } from '../../diffusion/samplers.ts';
import type { Example } from '../../diffusion/training.ts';
import { AdamW } from '../../nn/adamw.ts';
import { Arena } from '../../nn/arena.ts';
import type { Config } from '../config.ts';
import { textFlops, unetFlops } from './flops.ts';
import { measure } from './measure.ts';
import type { Measurement, Task } from './measure.ts';
import { profile } from './profile.ts';
import type { Dispatch } from './profile.ts';

/** What is counted of a whole step beside its time; counts are of one steady step. */
export interface StepCounts {
  readonly dispatches: number;
  readonly submits: number;
  /** Pipelines compiled by the first step: what a model of this kind needs, less what ran before in this process. */
  readonly compiled: number;
  /** Pipelines compiled, buffers created and bind groups made: 0 when everything is found again. */
  readonly pipelines: number;
  readonly buffers: number;
  readonly bindGroups: number;
  /** Milliseconds until the host has recorded the step, the device working meanwhile: the least of all runs. */
  readonly host: number;
  /** Bytes at most, in all and by tag. */
  readonly peak: number;
  readonly tags: Readonly<Record<string, number>>;
}

export interface StepResult {
  readonly measurement: Measurement;
  readonly first: number;
  readonly counts: StepCounts;
  /** One more step's, where it was to be profiled. */
  readonly dispatches: readonly Dispatch[] | null;
}

export interface StepOptions {
  readonly seconds: number;
  readonly profiled: boolean;
  /** Called after the very first step. */
  readonly onFirst?: () => void;
}

type DreamBoothConfig = Config<'dreambooth'>;

/** A step as `node cli/train.js` takes it: batch, loss, gradients, clipping, AdamW. Changes the model's weights. */
export async function trainingStep(
  device: Device,
  model: StableDiffusion,
  config: DreamBoothConfig,
  options: StepOptions,
): Promise<StepResult> {
  const { unet, textEncoder } = model;
  const { batch, optimizer: settings } = config;
  const parts = chooseTrained(model, config.train, config.data.token);
  for (const part of [unet, textEncoder]) part.setCheckpointing(config.memory.checkpointing);
  const task = new DreamBooth(model, examples(model, 'a sks cat', 4), examples(model, 'a cat', config.prior.pictures), {
    seed: config.seed,
    subjectBatch: batch.subject,
    priorBatch: batch.prior,
    priorWeight: config.prior.weight,
  });
  const arena = new Arena({ unet, text_encoder: textEncoder }, { parts });
  const { betas, eps: epsilon, decay: weightDecay, clip: maxNorm } = settings;
  const optimizer = new AdamW(arena, { betas, epsilon, weightDecay, maxNorm });
  const samples = batch.subject + batch.prior;
  const tokens = encode(model, '').length;
  const [picture, text] = [unetFlops(unet, latentSide(model), tokens), textFlops(textEncoder, tokens)];
  // Gradients by inputs and by weights each take as many operations as the forward pass.
  const flops = samples * (picture * (config.train.unet ? 3 : 2) + text * (config.train.text ? 3 : 1));
  let pass = 0;
  const run = () =>
    scope(device, () => {
      backward(task.loss(pass++).loss);
      optimizer.step(settings.lr);
    });
  const name = `training step, batch ${batch.subject}+${batch.prior}`;
  const result = await measureStep(device, { name, flops, run }, options);
  optimizer.release();
  arena.release();
  return result;
}

/**
 * A step of the sampler with guidance, as `node cli/sample.js` takes it. Copying the start and joining the texts, once a
 * batch there, are in it: two dispatches.
 */
export async function samplingStep(
  device: Device,
  model: StableDiffusion,
  pictures: number,
  options: StepOptions,
): Promise<StepResult> {
  const { unet } = model;
  const side = latentSide(model);
  const shape = [pictures, unet.config.in_channels, side, side];
  const start = tensor(device, new HostRandom(randomKey(0, 'start')).normal(sizeOf(shape)), shape);
  const ids = encode(model, 'a cat');
  const texts = encodePrompts(model, Array<Int32Array>(pictures).fill(ids));
  const plan = samplingSteps(model.schedule('ddim'), { steps: 20 }).slice(0, 1);
  const flops = 2 * pictures * unetFlops(unet, side, ids.length);
  const run = async () => release(await denoise(unet, start, texts, texts, plan, { scale: 4 }));
  const name = `sampling step, ${pictures} pictures with guidance`;
  const result = await measureStep(device, { name, flops, run }, options);
  release(start, texts);
  return result;
}

/** Examples of random latents: no step takes longer or shorter for what a picture shows. */
function examples(model: StableDiffusion, prompt: string, count: number): Example[] {
  const size = model.unet.config.in_channels * latentSide(model) ** 2;
  return Array.from({ length: count }, (_, i) => ({
    ids: encode(model, prompt),
    crops: [{ mean: new HostRandom(randomKey(i, prompt)).normal(size), deviation: new Float32Array(size).fill(0.05) }],
  }));
}

async function measureStep(
  device: Device,
  task: Task,
  { seconds, profiled, onFirst }: StepOptions,
): Promise<StepResult> {
  const { memory, stream } = device;
  const now = () => ({
    dispatches: stream.dispatches,
    submits: stream.submits,
    pipelines: device.pipelines,
    buffers: memory.created,
    bindGroups: stream.bindGroups,
  });
  let before = now();
  const { pipelines } = before;
  let host = Infinity;
  const run = async () => {
    const began = performance.now();
    await task.run();
    host = Math.min(host, performance.now() - began);
  };
  const onWarm = () => {
    before = now();
    host = Infinity;
    memory.resetPeak();
  };
  const { measurement, first } = await measure(
    device,
    { ...task, run },
    { seconds, onWarm, ...(onFirst && { onFirst }) },
  );
  const after = now();
  const { runs } = measurement;
  const each = (key: keyof typeof after) => (after[key] - before[key]) / runs;
  const counts: StepCounts = {
    dispatches: each('dispatches'),
    submits: each('submits'),
    compiled: before.pipelines - pipelines,
    pipelines: each('pipelines'),
    buffers: each('buffers'),
    bindGroups: each('bindGroups'),
    host,
    peak: memory.peak,
    tags: Object.fromEntries([...memory.usage].map(([tag, { peak }]) => [tag, peak])),
  };
  return { measurement, first, counts, dispatches: profiled ? await profile(device, task.run) : null };
}
