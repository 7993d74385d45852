import path from 'node:path';
import type { World } from '../../diffusion/world.ts';
import { ConfigError } from '../config.ts';
import { readJson } from './folder.ts';

/** What a model's record says that it was trained on. Throws where that was another world, whose held-out pictures are others. */
export async function originOf(model: string, world: World, name: string): Promise<string> {
  interface Stage {
    readonly data?: { readonly sha256?: string; readonly world?: string };
  }
  const file = path.join(model, 'record.json');
  const record = await readJson<{ readonly vae?: Stage; readonly diffusion?: Stage }>(file);
  const stages = [record?.vae?.data, record?.diffusion?.data];
  const other = stages.find((data) => data?.sha256 !== undefined && data.sha256 !== world.key);
  if (other)
    throw new ConfigError(
      other.world === name
        ? `${file}: the model was trained on other pictures than these of the world ${name}: were they rendered by the same packages?`
        : `${file}: the model was trained on the world ${other.world}, where other pictures are held out than in ${name}: set world=${other.world}`,
    );
  return stages.every((data) => data?.sha256 === world.key)
    ? `the world ${name}, without what is held out`
    : 'its record does not say on what, so held-out pictures and cats may have been among it';
}
