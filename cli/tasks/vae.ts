/** The VAE task: an autoencoder from scratch on renders of emoji. */
import { cp, readFile } from 'node:fs/promises';
import path from 'node:path';
import { moduleWeights } from '../../nn/folder.ts';
import { psnr } from '../../diffusion/measures.ts';
import { grid } from '../../diffusion/pictures.ts';
import { latentStatistics, reconstruct, vaeLoss } from '../../diffusion/pretrain_vae.ts';
import { stack } from '../../diffusion/training.ts';
import { Vae } from '../../diffusion/vae.ts';
import { spread } from '../../diffusion/world.ts';
import type { WorldPicture } from '../../diffusion/world.ts';
import { makeFolder, saveSafetensors, writeFileAtomic } from '../../nn/files.ts';
import { DataOrder } from '../../nn/order.ts';
import { Trainer } from '../../nn/trainer.ts';
import type { Config } from '../config.ts';
import { interruptible, recordRun, resolvePath, writeText } from '../run.ts';
import type { TaskContext } from '../run.ts';
import { appendValidation, drawLosses, loadPictures, RunRecord, trainerOptions, withAverages } from './pretraining.ts';
import type { Pictures } from './pretraining.ts';

/** Pictures that the latents' statistics rest on. */
const MEASURED = 256;
/** Pictures of `recon.png`. */
const SHOWN = 32;

export async function trainVae(config: Config<'vae'>, context: TaskContext): Promise<void> {
  await trainVaeOn(await interruptible(context, () => loadPictures(config, config.size)), config, context);
}

/** The same on pictures at hand. */
export async function trainVaeOn(data: Pictures, config: Config<'vae'>, context: TaskContext): Promise<void> {
  const { device, folder } = context;
  const source = resolvePath(config.model);
  const configFile = path.join(source, 'vae', 'config.json');
  const json = JSON.parse(await readFile(configFile, 'utf8')) as Record<string, unknown>;
  const vae = Vae.fromConfig(device, json, configFile);
  vae.initialize(config.seed);
  const inputs = { ...(await recordRun(context, [configFile])), data: data.key };
  const parameters = [...vae.namedParameters().values()].reduce((total, { size }) => total + size, 0);
  const record = await RunRecord.open(folder, { config, data: data.record, parameters });

  const order = new DataOrder(data.training.length, config.seed);
  const pictures = (items: readonly WorldPicture[]) => items.map(({ picture }) => picture());
  const held = pictures(data.heldOut);
  const measured = pictures(spread(data.training, MEASURED));
  const samples = config.batch * config.accumulate; // a step

  /** Saves the VAE as it is, with the scale of its latents. */
  const save = async () => {
    const statistics = await latentStatistics(vae, measured);
    const target = path.join(folder, 'model', 'vae');
    await makeFolder(target);
    await saveSafetensors(path.join(target, 'diffusion_pytorch_model.safetensors'), moduleWeights(vae, 'F32'), {
      format: 'pt',
    });
    await writeText(
      path.join(target, 'config.json'),
      `${JSON.stringify({ ...json, scaling_factor: statistics.scalingFactor }, null, 2)}\n`,
    );
    return statistics;
  };
  const trainer = new Trainer({
    ...trainerOptions(config, context, inputs),
    modules: { vae },
    forward: ({ pass }) =>
      vaeLoss(
        vae,
        stack(vae, pictures(order.batch(pass, config.batch).map((i) => data.training[i]!))),
        config,
        config.seed,
        pass,
      ),
    callbacks: [
      {
        every: config.validation.every,
        run: (step, running) =>
          withAverages(running, async () => {
            const quality = psnr(held, await reconstruct(vae, held));
            await appendValidation(folder, step, { samples: step * samples, ...quality });
            console.log(
              `step ${step}, ${step * samples} samples: ${quality.pooled.toFixed(2)} dB on ${held.length} pictures held out`,
            );
          }),
      },
      {
        every: config.checkpoint.every,
        run: (step, running) =>
          withAverages(running, async () =>
            record.write({ steps: step, samples: step * samples, latents: await save() }),
          ),
      },
    ],
  });
  const { interrupted } = await trainer.run();
  if (!interrupted) {
    trainer.average?.swap();
    const latents = await save();
    const decoded = await reconstruct(vae, held);
    const [originals, reconstructions] = [spread(held, SHOWN), spread(decoded, SHOWN)];
    await writeFileAtomic(path.join(folder, 'recon.png'), [
      await grid(
        Array.from({ length: SHOWN / 8 }, (_, row) =>
          [originals, reconstructions].flatMap((set) => set.slice(8 * row, 8 * row + 8)),
        ).flat(),
        { columns: 8, cell: 96, title: 'held out: originals, and below them their reconstructions' },
      ),
    ]);
    await drawLosses(folder, 'VAE', ['loss', 'l1', 'squares', 'edges']);
    await record.write({ steps: config.steps, samples: config.steps * samples, latents, psnr: psnr(held, decoded) });
    await completeFolder(source, path.join(folder, 'model'));
    console.log(`The VAE is in ${path.join(folder, 'model', 'vae')}; look at ${path.join(folder, 'recon.png')}`);
  }
  trainer.release();
  vae.release();
}

/**
 * Copies what is no weight of a model folder beside the new VAE, so that the diffusion task can be pointed at the result.
 * `model_index.json` comes last and whole: where it is, the task was finished.
 */
async function completeFolder(source: string, target: string): Promise<void> {
  const unlessMissing = (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error; // a folder may hold a VAE alone
  };
  for (const file of ['unet/config.json', 'text_encoder/config.json', 'scheduler', 'tokenizer'])
    await cp(path.join(source, file), path.join(target, file), { recursive: true }).catch(unlessMissing);
  const index = await readFile(path.join(source, 'model_index.json')).catch(unlessMissing);
  if (index) await writeFileAtomic(path.join(target, 'model_index.json'), [index]);
}
