/** What a browser must be able to do with the shipped model besides single operations; Node does the same for comparison. */
import { backward, HostRandom, noGrad, randomKey, release, scope, tensor } from '../../engine/index.ts';
import type { StableDiffusion } from '../../diffusion/model.ts';
import type { Picture } from '../../diffusion/pictures.ts';
import { encode, generate } from '../../diffusion/pipeline.ts';
import { diffusionLoss, noiseBatch } from '../../diffusion/training.ts';
import { AdamW } from '../../nn/adamw.ts';
import { Arena } from '../../nn/arena.ts';

/** Draws one picture, with guidance, in a few steps: SwiftShader takes a second for each. */
export async function drawPicture(model: StableDiffusion): Promise<Picture> {
  const [picture] = await generate(model, { prompts: ['a crying cat'], seeds: [1], steps: 12, scale: 5 });
  return picture!;
}

/**
 * Trains the UNet and the text encoder for one step on one noised picture (noise itself: what is learnt does not matter).
 * Returns the loss, the gradients' norm, and the loss of the same batch after the step.
 */
export async function trainOneStep(model: StableDiffusion): Promise<{ loss: number; norm: number; after: number }> {
  const { unet, textEncoder, vae } = model;
  const { device } = unet;
  vae.setTrainable(false);
  const arena = new Arena({ unet, text_encoder: textEncoder });
  const optimizer = new AdamW(arena, { maxNorm: 1 });
  const side = unet.config.sample_size!;
  const size = unet.config.in_channels * side * side;
  const mean = new HostRandom(randomKey(1, 'picture')).normal(size);
  const example = { ids: encode(model, 'a crying cat'), crops: [{ mean, deviation: new Float32Array(size) }] };
  const batch = noiseBatch([example], [1], model.schedule(), 1, 0);
  const evaluate = () => diffusionLoss(unet, textEncoder.forward(batch.ids).lastHidden, batch, [side, side]).loss;
  const [loss, norm] = scope(device, () => {
    const loss = evaluate();
    backward(loss, tensor(device, [1], loss.shape));
    return [loss, optimizer.step(1e-3)] as const;
  });
  const after = noGrad(device, () => scope(device, evaluate));
  const [squares, strange] = await norm.read();
  if (strange !== 0) throw new Error(`${strange} gradient values are not finite`);
  const result = { loss: await loss.item(), norm: Math.sqrt(squares!), after: await after.item() };
  release(loss, norm, after);
  return result;
}
