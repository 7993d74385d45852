/** Latents of pictures in a file (Node): what takes long to encode or to draw is kept. */
import { openSafetensors, saveSafetensors } from '../nn/files.ts';
import type { Latents } from './training.ts';

/** Both fields of latents in files: (pictures, values). */
const FIELDS = ['mean', 'deviation'] as const;

/** The latents of `count` pictures of one size; null where the file is missing, cut short, or holds another number. */
export async function readLatents(file: string, count: number): Promise<Latents[] | null> {
  const open = await openSafetensors(file).catch(() => null);
  if (!open) return null;
  try {
    if (FIELDS.some((field) => open.tensors.get(field)?.shape[0] !== count)) return null;
    const [means, deviations] = [await open.floats('mean'), await open.floats('deviation')];
    const size = means.length / count;
    return Array.from({ length: count }, (_, i) => ({
      mean: means.subarray(i * size, (i + 1) * size),
      deviation: deviations.subarray(i * size, (i + 1) * size),
    }));
  } finally {
    await open.close();
  }
}

/** Writes the latents of at least one picture, all of one size. */
export async function writeLatents(file: string, latents: readonly Latents[]): Promise<void> {
  const size = latents[0]!.mean.length;
  const joined = (field: (typeof FIELDS)[number]) => {
    const data = new Float32Array(latents.length * size);
    latents.forEach((one, i) => data.set(one[field], i * size));
    return { dtype: 'F32', shape: [latents.length, size], data } as const;
  };
  await saveSafetensors(file, new Map(FIELDS.map((field) => [field, joined(field)])));
}
