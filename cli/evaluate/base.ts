/**
 * What the base model can do, against the floors of `diffusion/measures.ts`: how well its autoencoder keeps pictures that it
 * never saw, whether it composes a name and a style that it never saw together, and a sheet to look at.
 */
import path from 'node:path';
import { modelHash } from '../../diffusion/dreambooth.ts';
import type { StableDiffusion } from '../../diffusion/folder.ts';
import {
  FEATURES,
  featuresOf,
  FLOORS,
  foregroundPsnr,
  interval,
  mean,
  NEAREST,
  psnr,
  rank,
} from '../../diffusion/measures.ts';
import type { Feature, Features } from '../../diffusion/measures.ts';
import { grid } from '../../diffusion/pictures.ts';
import type { Picture } from '../../diffusion/pictures.ts';
import { reconstruct } from '../../diffusion/pretrain_vae.ts';
import { validate } from '../../diffusion/pretrain_unet.ts';
import { encodePictures } from '../../diffusion/training.ts';
import { captionOf, spread } from '../../diffusion/world.ts';
import type { World, WorldPicture } from '../../diffusion/world.ts';
import { writeFileAtomic } from '../../nn/files.ts';
import { reporter } from '../../nn/progress.ts';
import { ConfigError } from '../config.ts';
import { drawFiles, pictureName } from '../drawing.ts';
import { writeText } from '../run.ts';
import type { Evaluation } from './config.ts';
import { claim, writeJson } from './folder.ts';
import { FEATURE_NAMES, figure, table } from './report.ts';

/** Columns of the sheet. */
const COLUMNS = 8;
/** Pictures whose features are taken between two lines of progress. */
const TOGETHER = 64;

type Sheet = Evaluation['base']['sheets'][string];

/** Shares of held-out pairs whose true picture is among the nearest real ones. */
interface Composition {
  /** 1 or 0 for each pair, drawn with its style and without, and the true picture through the autoencoder. */
  readonly styled: readonly number[];
  readonly plain: readonly number[];
  readonly ceiling: readonly number[];
}

export interface BaseResult {
  readonly psnr: { readonly mean: number; readonly pooled: number; readonly foreground: number };
  readonly composition: Readonly<Record<Feature, Composition>>;
  readonly chance: number;
  /** Mean squared error of the predicted noise on all held-out pictures. */
  readonly error: number;
}

/** Judges a model in `folder`; draws only what is not there yet. `origin` says what the model was trained on. */
export async function evaluateBase(
  model: StableDiffusion,
  world: World,
  config: Evaluation,
  folder: string,
  origin: string,
): Promise<BaseResult> {
  const { pairs, sheets, ...settings } = config.base;
  const sheet = sheets[config.world];
  if (sheet) checkSheet(sheet, world, config.world);
  await claim(path.join(folder, 'base'), { ...settings, world: world.key, model: await modelHash(model) });

  const truths = world.heldOut.map(({ picture }) => picture());
  const restored = await reconstruct(model.vae, truths);
  const quality = { ...psnr(truths, restored), foreground: foregroundPsnr(truths, restored) };

  const indices = spread([...world.heldOut.keys()], pairs);
  const draw = async (name: string, styled: boolean): Promise<Picture[]> => {
    const wanted = indices.map((i) => {
      const [prompt, seed] = [captionOf(world.heldOut[i]!, styled), settings.seed + i];
      return { prompt, seed, file: path.join(folder, 'base', name, pictureName(i, prompt, seed)) };
    });
    return drawFiles(model, wanted, settings, `held-out pairs ${styled ? 'with' : 'without'} their style`);
  };
  const [styled, plain] = [await draw('styled', true), await draw('plain', false)];
  const real = await seen(model, [...world.training, ...world.heldOut]);
  const truthsSeen = real.slice(world.training.length);
  const drawn = {
    styled: await featuresOf(model.vae, styled),
    plain: await featuresOf(model.vae, plain),
    ceiling: await featuresOf(model.vae, indices.map((i) => restored[i]!)), // prettier-ignore
  };
  const hits = (pictures: readonly Features[], feature: Feature) =>
    pictures.map((one, k) => Number(rank(one, truthsSeen[indices[k]!]!, real, feature) < NEAREST));
  const composition = Object.fromEntries(
    FEATURES.map((feature) => [
      feature,
      {
        styled: hits(drawn.styled, feature),
        plain: hits(drawn.plain, feature),
        ceiling: hits(drawn.ceiling, feature),
      },
    ]),
  ) as unknown as BaseResult['composition'];
  const latents = await encodePictures(model.vae, truths);
  const items = world.heldOut.map((one, i) => ({ styled: captionOf(one, true), latents: latents[i]! }));
  const { mse: error } = await validate(model, items, 0);
  const result = { psnr: quality, composition, chance: NEAREST / real.length, error };
  if (sheet) await drawSheet(model, sheet, config, folder);
  await writeJson(path.join(folder, 'base.json'), { model: config.model, origin, settings: config.base, ...result });
  const text = describe(result, config, origin, { real: real.length, heldOut: truths.length }, sheet !== undefined);
  await writeText(path.join(folder, 'base.md'), text);
  console.log(`\n${text}`);
  return result;
}

/** Features of the world's pictures. */
async function seen({ vae }: StableDiffusion, pictures: readonly WorldPicture[]): Promise<Features[]> {
  const report = reporter('Real pictures encoded');
  const all: Features[] = [];
  for (let from = 0; from < pictures.length; from += TOGETHER) {
    const part = pictures.slice(from, from + TOGETHER);
    all.push(...(await featuresOf(vae, part.map(({ picture }) => picture())))); // prettier-ignore
    report(all.length, pictures.length);
  }
  return all;
}

/** Throws where a prompt of the sheet is not what it is listed as. */
function checkSheet(sheet: Sheet, world: World, name: string): void {
  const captions = (pictures: readonly WorldPicture[]) =>
    new Set(pictures.flatMap((one) => [captionOf(one, false), captionOf(one, true)]));
  const shown = captions(world.training);
  const heldOut = new Set(world.heldOut.map((one) => captionOf(one, true)));
  const right = {
    shown: [(prompt: string) => shown.has(prompt), 'no caption of training'],
    heldOut: [(prompt: string) => heldOut.has(prompt), 'no held-out pair'],
    composed: [(prompt: string) => !shown.has(prompt) && !heldOut.has(prompt), 'a caption of the world'],
  } as const;
  for (const [kind, [holds, what]] of Object.entries(right)) {
    const wrong = sheet[kind as keyof Sheet].find((prompt) => !holds(prompt));
    if (wrong !== undefined) throw new ConfigError(`base.sheets.${name}.${kind}: "${wrong}" is ${what}`);
  }
}

async function drawSheet(
  model: StableDiffusion,
  { shown, heldOut, composed }: Sheet,
  { base }: Evaluation,
  folder: string,
): Promise<void> {
  const prompts = [...shown, ...heldOut, ...composed];
  const wanted = prompts.map((prompt, i) => {
    const seed = base.seed + i;
    return { prompt, seed, file: path.join(folder, 'base', 'sheet', pictureName(i, prompt, seed)) };
  });
  const png = await grid(await drawFiles(model, wanted, base, 'pictures for the sheet'), {
    columns: COLUMNS,
    cell: 112,
    title: `The first ${shown.length}: captions that training showed; then ${heldOut.length} pairs held out; then ${composed.length} new combinations`,
    captions: prompts,
  });
  await writeFileAtomic(path.join(folder, 'base-sheet.png'), [png]);
}

function describe(
  { psnr: { mean: each, pooled, foreground }, composition, chance, error }: BaseResult,
  { model, base }: Evaluation,
  origin: string,
  counts: { real: number; heldOut: number },
  sheet: boolean,
): string {
  const verdict = (value: number, floor: number) => [`at least ${floor}`, value >= floor ? 'yes' : '**no**'];
  const share = (hits: readonly number[]) => figure(interval(hits), 2);
  const rows = [
    ['autoencoder, dB: mean of each picture’s own, on white', each.toFixed(2), ...verdict(each, FLOORS.psnr), ''],
    ['all pixels pooled', pooled.toFixed(2), '', '', ''],
    ['foreground alone, mean of each picture’s own', foreground.toFixed(2), '', '', ''],
    ...FEATURES.map((feature) => {
      const { styled, plain, ceiling } = composition[feature];
      const beside = `chance ${chance.toFixed(3)}; without the style ${share(plain)}; the true picture through the autoencoder ${mean(ceiling).toFixed(2)}`;
      const name = `composition: the true one among the nearest ${NEAREST} (${FEATURE_NAMES[feature]})`;
      return [name, share(styled), ...verdict(mean(styled), FLOORS.composition), beside];
    }),
    ['squared error of the predicted noise', error.toFixed(4), '', '', ''],
  ];
  const drawn = composition.latents.styled.length;
  return `# The base model: ${model}

${table(['measure', 'value', 'floor', 'holds', 'beside it'], rows)}

Trained on: ${origin}. The autoencoder and the noise are measured on ${counts.heldOut} pictures held out; ${drawn} held-out pairs were drawn, one picture each from its caption with the style (${base.sampler}, ${base.steps} steps, guidance ${base.scale}, seeds from ${base.seed}), and looked for among all ${counts.real} real pictures. Shares with their 95 % intervals.
${sheet ? '\n![what it draws](base-sheet.png)\n' : ''}`;
}
