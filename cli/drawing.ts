/** Pictures of prompts as files: drawn once, found again by whoever asks for the same. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import type { StableDiffusion } from '../diffusion/folder.ts';
import { DRAWN_AT_ONCE, drawingSteps, generate, pictureSize } from '../diffusion/pipeline.ts';
import { encodePng, loadPicture } from '../diffusion/pictures.ts';
import type { Picture } from '../diffusion/pictures.ts';
import type { SamplerName } from '../diffusion/schedule.ts';
import { makeFolder, writeFileAtomic } from '../nn/files.ts';
import { Progress } from '../nn/progress.ts';

export interface Wanted {
  readonly prompt: string;
  /** The prompt without the subject, against which emphasis works; the prompt itself by default, which has none. */
  readonly plain?: string;
  readonly seed: number;
  readonly file: string;
}

export interface Drawing {
  readonly steps: number;
  readonly scale: number;
  readonly emphasis?: number;
  readonly sampler: SamplerName;
}

/** A file name for the n-th picture of some: prompts that differ in nothing that a file name can hold differ in n. */
export function pictureName(n: number, prompt: string, seed: number): string {
  const words = prompt.replace(/[^\p{L}\p{M}\p{N}_ -]/gu, '').slice(0, 60);
  return `${String(n).padStart(2, '0')} ${words}, seed ${seed}.png`;
}

/**
 * The pictures, drawn where there is no file yet. They are used as the files give them, so that a run that was stopped
 * and goes on judges by the same ones. `what` is said before drawing.
 */
export async function drawFiles(
  model: StableDiffusion,
  wanted: readonly Wanted[],
  { steps, scale, emphasis = 0, sampler }: Drawing,
  what: string,
): Promise<Picture[]> {
  const missing = wanted.filter(({ file }) => !existsSync(file));
  if (missing.length > 0) {
    for (const folder of new Set(missing.map(({ file }) => path.dirname(file)))) await makeFolder(folder);
    const stepsFor = (pictures: number) => drawingSteps(model, pictures, { steps, sampler });
    const progress = new Progress(stepsFor(missing.length), 0, { unit: 'drawing step' });
    progress.line(`Drawing ${missing.length} ${what}`);
    // Written as they come: a run that is stopped keeps them.
    for (let from = 0; from < missing.length; from += DRAWN_AT_ONCE) {
      const part = missing.slice(from, from + DRAWN_AT_ONCE);
      const before = stepsFor(from);
      const plain = part.map((one) => one.plain ?? one.prompt);
      const emphasised = emphasis !== 0 && part.some(({ prompt }, i) => plain[i] !== prompt);
      const pictures = await generate(model, {
        prompts: part.map(({ prompt }) => prompt),
        ...(emphasised ? { emphasis: { plain, strength: emphasis } } : {}),
        seeds: part.map(({ seed }) => seed),
        steps,
        scale,
        sampler,
        onStep: (done) => progress.update(before + done, {}, model.unet.device.memory.peak),
      });
      for (const [i, picture] of pictures.entries()) await writeFileAtomic(part[i]!.file, [await encodePng(picture)]);
    }
    progress.stop();
  }
  const size = pictureSize(model);
  return Promise.all(wanted.map(({ file }) => loadPicture(file, size)));
}
