/** What a DreamBooth run draws before and after training: the prompts, their pictures, the sheet and the evidence. */
import path from 'node:path';
import type { SubjectPicture } from '../../diffusion/dreambooth.ts';
import { judge } from '../../diffusion/evidence.ts';
import type { Judged } from '../../diffusion/evidence.ts';
import type { StableDiffusion } from '../../diffusion/folder.ts';
import { grid } from '../../diffusion/pictures.ts';
import type { Picture } from '../../diffusion/pictures.ts';
import { encodePictures } from '../../diffusion/training.ts';
import type { Config } from '../config.ts';
import { drawFiles, pictureName } from '../drawing.ts';
import { writeText } from '../run.ts';

type DreamBoothConfig = Config<'dreambooth'>;

/** A prompt of the final sheet and of the evidence. */
export interface Shot {
  readonly prompt: string;
  /** The same without the subject. */
  readonly plain?: string;
  readonly kind: Judged['kind'];
  /** The subject's own pictures of it. */
  readonly truths: readonly Picture[];
}

const KINDS: Readonly<Record<Shot['kind'], string>> = {
  shown: 'shown',
  unseen: 'not shown',
  class: 'class',
  other: 'other',
};

/** What stands above a shot's column: "a crying cat, sks style (not shown)". */
export const shotLabel = ({ prompt, kind }: Shot): string => `${prompt} (${KINDS[kind]})`;

/** A shot for each different prompt, with all the pictures that it stands for. */
export function shotsOf(
  pictures: readonly SubjectPicture[],
  kind: Shot['kind'],
  promptOf: (one: SubjectPicture) => string,
  plainOf: (one: SubjectPicture) => string,
): Shot[] {
  const prompts = [...new Set(pictures.map(promptOf))];
  return prompts.map((prompt) => {
    const own = pictures.filter((one) => promptOf(one) === prompt);
    return { prompt, plain: plainOf(own[0]!), kind, truths: own.map(({ crops }) => crops[0]!) };
  });
}

/**
 * Every prompt with every seed, by prompt, then seed, as files in `folder` (see `drawFiles`). Prompts of other things are
 * drawn with the first two seeds alone.
 */
export async function drawShots(
  model: StableDiffusion,
  config: DreamBoothConfig,
  shots: readonly Shot[],
  folder: string,
): Promise<Picture[][]> {
  const { seeds } = config.sample;
  const wanted = shots.flatMap(({ prompt, plain = prompt, kind }, i) =>
    (kind === 'other' ? seeds.slice(0, 2) : seeds).map((seed) => ({
      i,
      prompt,
      plain,
      seed,
      file: path.join(folder, pictureName(i, prompt, seed)),
    })),
  );
  const drawn = await drawFiles(model, wanted, config.sample, `pictures ${path.basename(folder)} training`);
  return shots.map((_, i) => drawn.filter((_, k) => wanted[k]!.i === i));
}

/** Real pictures, then before and after with the same seeds. */
export function drawSheet(
  config: DreamBoothConfig,
  shots: readonly Shot[],
  before: Picture[][],
  after: Picture[][],
): Promise<Uint8Array> {
  const seeds = config.sample.seeds.slice(0, 2);
  const rows = [
    shots.map(({ truths }) => truths[0] ?? null),
    ...seeds.map((_, s) => before.map((pictures) => pictures[s] ?? null)),
    ...seeds.map((_, s) => after.map((pictures) => pictures[s] ?? null)),
  ];
  return grid(rows.flat(), {
    columns: shots.length,
    cell: 96,
    title: `${config.name}: before and after ${config.steps} steps on ${shots.filter(({ kind }) => kind === 'shown').flatMap(({ truths }) => truths).length} pictures`,
    columnLabels: shots.map(shotLabel),
    rowLabels: [
      'the real subject',
      ...seeds.map((seed) => `before, seed ${seed}`),
      ...seeds.map((seed) => `after, seed ${seed}`),
    ],
  });
}

/** Prints the evidence and keeps it in the run folder. */
export async function report(
  model: StableDiffusion,
  config: DreamBoothConfig,
  shots: readonly Shot[],
  before: Picture[][],
  after: Picture[][],
  folder: string,
): Promise<void> {
  const latents = async (pictures: readonly Picture[]) =>
    (await encodePictures(model.vae, pictures)).map(({ mean }) => mean);
  const judged: Judged[] = [];
  for (const [i, { kind, truths }] of shots.entries()) {
    if (kind === 'other') continue;
    const [b, a] = [before[i]!, after[i]!];
    judged.push({
      kind,
      truths: (await latents(truths)).map((one, t) => ({ picture: truths[t]!, latents: one })),
      before: (await latents(b)).map((one, s) => ({ picture: b[s]!, latents: one })),
      after: (await latents(a)).map((one, s) => ({ picture: a[s]!, latents: one })),
    });
  }
  const evidence = judge(judged, { grey: config.sample.grey });
  const lines = evidence.map(
    ({ measure, before: b, after: a, wanted, holds }) =>
      `| ${measure} | ${b === null ? '' : b.toFixed(3)} | ${a.toFixed(3)} | ${wanted} | ${holds === null ? '' : holds ? 'yes' : 'no'} |`,
  );
  const table = ['| measure | before | after | wanted | holds |', '|---|---|---|---|---|', ...lines].join('\n');
  const note = `Means over the seeds ${config.sample.seeds.join(', ')}; distances are root mean squares in [−1, 1] units (RGB at 16×16) and in units of the VAE's latents.`;
  await writeText(path.join(folder, 'evidence.md'), `# ${config.name}\n\n${table}\n\n${note}\n`);
  await writeText(
    path.join(folder, 'evidence.json'),
    `${JSON.stringify({ seeds: config.sample.seeds, evidence }, null, 2)}\n`,
  );
  console.log(`\n${table}\n\n${note}`);
}
