import type { Device } from '../../engine/index.ts';
import type { Config } from '../config.ts';
import type { TaskContext } from '../run.ts';
import { trainDiffusion } from './diffusion.ts';
import { trainDreamBooth } from './dreambooth.ts';
import { trainLm } from './lm.ts';
import { trainVae } from './vae.ts';

/** Runs a configuration's task. `prepare` makes the run folder; tasks call it when their inputs are found to be good. */
export async function run(config: Config, device: Device, prepare: () => Promise<TaskContext>): Promise<void> {
  if (config.task === 'dreambooth') await trainDreamBooth(config, device, prepare);
  else if (config.task === 'vae') await trainVae(config, await prepare());
  else if (config.task === 'lm') await trainLm(config, device, prepare);
  else await trainDiffusion(config, await prepare());
}
