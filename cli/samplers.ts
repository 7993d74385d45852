/** `node cli/samplers.js [prompt…]`: how near few steps come to many, from the same noise. */
import path from 'node:path';
import { Command } from 'commander';
import { HostRandom, randomKey, release, tensor } from '../engine/index.ts';
import type { Tensor } from '../engine/index.ts';
import { loadStableDiffusion } from '../diffusion/folder.ts';
import type { StableDiffusion } from '../diffusion/folder.ts';
import { distance, thumbnail } from '../diffusion/measures.ts';
import { grid } from '../diffusion/pictures.ts';
import type { Picture } from '../diffusion/pictures.ts';
import { decodeLatents, denoise, encode, encodePrompts, latentSide } from '../diffusion/pipeline.ts';
import { initialScale, samplingSteps } from '../diffusion/samplers.ts';
import { NoiseSchedule } from '../diffusion/schedule.ts';
import type { SamplerName, SchedulerConfig } from '../diffusion/schedule.ts';
import { openNodeDevice } from '../engine/node.ts';
import { writeFileAtomic } from '../nn/files.ts';
import { main } from './errors.ts';
import { resolvePath } from './run.ts';

/** A sampler, with other options than the model's configuration gives it. */
interface Walk {
  readonly name: string;
  readonly sampler: SamplerName;
  readonly options?: object;
}

const DDIM: Walk = { name: 'DDIM', sampler: 'ddim' };
const EULER: Walk = { name: 'Euler', sampler: 'euler' };
const PNDM: Walk = { name: 'PNDM', sampler: 'pndm' };
const DPM: Walk = { name: 'DPM++ 2M', sampler: 'dpmpp2m' };
const TRAILING: Walk = { name: 'DPM++ 2M, trailing', sampler: 'dpmpp2m-trailing' };
const KARRAS: Walk = { name: 'DPM++ 2M, Karras', sampler: 'dpmpp2m', options: { use_karras_sigmas: true } };
const SHORT: Walk = { name: 'DPM++ 2M, Karras to 0.2', sampler: 'dpmpp2m-karras' };

const WALKS: readonly (readonly [Walk, number])[] = [
  [DDIM, 30],
  [DDIM, 15],
  [DDIM, 8],
  [EULER, 8],
  [PNDM, 8],
  [DPM, 8],
  [KARRAS, 8],
  [SHORT, 8],
  [TRAILING, 6],
  [TRAILING, 8],
  [TRAILING, 10],
  [TRAILING, 15],
];

interface SamplerResult {
  readonly name: string;
  readonly steps: number;
  /** Passes of the UNet. */
  readonly evaluations: number;
  /** RMS distance of the latents, and of pictures averaged to 16×16 in [−1, 1], from the reference's. */
  readonly latents: number;
  readonly thumbnails: number;
  readonly pictures: readonly Picture[];
}

interface Shots {
  readonly prompts: readonly string[];
  readonly seeds: readonly number[];
  readonly scale: number;
}

/** Draws every shot with every sampler, the reference (DDIM in 100 steps) first; pictures are those of `generate`. */
async function compareSamplers(
  model: StableDiffusion,
  { prompts, seeds, scale }: Shots,
  onResult: (result: SamplerResult) => void,
): Promise<SamplerResult[]> {
  const { device } = model.unet;
  const side = latentSide(model);
  const shape = [prompts.length, model.unet.config.in_channels, side, side];
  const size = shape.slice(1).reduce((product, extent) => product * extent, 1);
  const noise = seeds.flatMap((seed) => [...new HostRandom(randomKey(seed, 'latents'), 0, 0).normal(size)]);
  const context = encodePrompts(
    model,
    prompts.map((prompt) => encode(model, prompt)),
  );
  const without = encodePrompts(
    model,
    prompts.map(() => encode(model, '')),
  );
  const results: SamplerResult[] = [];
  let reference: { latents: Float32Array; pictures: readonly Picture[] } | undefined;
  for (const [walk, steps] of [[DDIM, 100] as const, ...WALKS]) {
    const schedule = new NoiseSchedule({ ...model.schedule(walk.sampler).config, ...walk.options } as SchedulerConfig);
    const plan = samplingSteps(schedule, { steps });
    const first = initialScale(schedule, plan);
    const start: Tensor = tensor(
      device,
      noise.map((value) => first * value),
      shape,
    );
    const end = await denoise(model.unet, start, context, without, plan, { scale });
    const latents = (await end.read()) as Float32Array;
    const pictures = await decodeLatents(model, end);
    release(start, end);
    reference ??= { latents, pictures };
    const small = (of: readonly Picture[]) => of.flatMap(({ data, width }) => [...thumbnail(data, width)]);
    results.push({
      name: walk.name,
      steps,
      evaluations: plan.length,
      latents: distance(latents, reference.latents),
      thumbnails: distance(small(pictures), small(reference.pictures)),
      pictures,
    });
    onResult(results.at(-1)!);
  }
  release(context, without);
  return results;
}

const PROMPTS = [
  'cat face',
  'grinning face',
  'crying cat',
  'bear',
  'red heart',
  'dog face',
  'rabbit face',
  'angry face',
];

const command = new Command('node cli/samplers.js')
  .description(
    'Draws the same pictures by several samplers in few steps, and says how far they are from DDIM in 100: RMS over the ' +
      'latents, and over the pictures averaged to 16×16, in [−1, 1]. Writes a sheet of them.',
  )
  .argument('[prompt...]', 'what to draw, with the seeds 0, 1, …', PROMPTS)
  .option('--model <folder>', 'the model', 'assets/base')
  .option('--out <file>', 'the sheet', 'runs/few-steps.png');

await main(async () => {
  command.parse();
  const prompts = command.processedArgs[0] as string[];
  const { model: folder, out } = command.opts<{ model: string; out: string }>();
  const device = await openNodeDevice();
  const model = await loadStableDiffusion(device, resolvePath(folder));
  const row = (name: string, ...cells: string[]) =>
    console.log(name.padEnd(30) + cells.map((c) => c.padStart(9)).join(''));
  row('sampler, steps', 'UNet', 'latents', '16×16');
  const results = await compareSamplers(
    model,
    { prompts, seeds: prompts.map((_, i) => i), scale: 4 },
    ({ name, steps, evaluations, latents, thumbnails }) =>
      row(`${name}, ${steps}`, `${evaluations}`, latents.toFixed(3), thumbnails.toFixed(3)),
  );
  const sheet = await grid(
    results.flatMap(({ pictures }) => pictures),
    {
      columns: prompts.length,
      columnLabels: prompts,
      rowLabels: results.map(({ name, steps }) => `${name}, ${steps}`),
      cell: 64,
    },
  );
  await writeFileAtomic(path.resolve(out), [sheet]);
  console.log(`The sheet: ${out}`);
});
