/** What commands do before long work on a device: the same work on one that computes nothing. */
import { ClipTextModel } from '../diffusion/clip.ts';
import type { StableDiffusion } from '../diffusion/folder.ts';
import { UNet } from '../diffusion/unet.ts';
import { Vae } from '../diffusion/vae.ts';
import { compile, rehearsal } from '../engine/index.ts';
import { Progress } from '../nn/progress.ts';

/**
 * Runs `body` on a copy of the model on a dry device of the same profile: it may throw where it finds that the work does
 * not fit. Then compiles, in parallel, every kernel that it met.
 */
export async function rehearse(
  model: StableDiffusion,
  body: (copy: () => StableDiffusion) => Promise<void>,
): Promise<void> {
  const { device } = model.unet;
  const dry = rehearsal(device);
  const { unet, vae, textEncoder } = model;
  await body(() => ({
    ...model,
    unet: new UNet(dry, unet.config),
    vae: new Vae(dry, vae.config),
    textEncoder: new ClipTextModel(dry, textEncoder.config),
  }));
  let progress: Progress | null = null;
  await compile(device, dry.kernels(), (done, total) => {
    progress ??= new Progress(total, 0, { unit: 'kernel' });
    progress.update(done, {});
  });
  (progress as Progress | null)?.stop();
}
