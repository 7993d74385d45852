import { describe, expect, it } from 'vitest';
import { trainingStep } from '../../cli/bench/steps.ts';
import { loadConfig } from '../../cli/config.ts';
import { loadStableDiffusion } from '../../diffusion/folder.ts';
import { planTraining, SD15 } from '../../diffusion/plan.ts';
import { openNodeDevice, openNodeDryDevice } from '../../engine/node.ts';

describe('a dry run', () => {
  it('predicts the memory and the dispatches of a step', async () => {
    const real = await openNodeDevice();
    const { profile, gpu } = real;
    const dry = await openNodeDryDevice({ profile, limits: gpu.limits as unknown as Record<string, number> });
    const [measured, predicted] = [await step(real), await step(dry)];
    expect(predicted.dispatches).toBe(measured.dispatches);
    expect(Math.abs(predicted.peak / measured.peak - 1)).toBeLessThan(0.02);
    for (const [tag, bytes] of Object.entries(measured.tags))
      expect(Math.abs(predicted.tags[tag]! - bytes)).toBeLessThanOrEqual(0.02 * measured.peak);
    real.destroy();
  });

  it('knows what freezing and checkpointing save', async () => {
    const device = await openNodeDryDevice();
    const plan = { size: 256, batch: 2, tokens: 77, precision: 'f32', checkpointing: false } as const;
    const all = planTraining(device, SD15, { ...plan, train: { text: true, vae: true } });
    const frozen = planTraining(device, SD15, { ...plan, train: { text: false, vae: false } });
    const saving = planTraining(device, SD15, { ...plan, checkpointing: true, train: { text: false, vae: false } });
    expect(frozen.trained).toBe(859_520_964); // the UNet's, as published
    expect(all.trained + all.frozen).toBe(frozen.trained + frozen.frozen);
    expect(frozen.peak).toBeLessThan(all.peak);
    expect(saving.tags['activations']).toBeLessThan(frozen.tags['activations']!);
    expect(saving.dispatches).toBeGreaterThan(frozen.dispatches);
    expect(device.memory.live).toBeLessThan(2 ** 20); // lists of key blocks, which stay
  });
});

describe('a plan', () => {
  it('says which of its numbers fits the model not', async () => {
    const device = await openNodeDryDevice();
    const plan = { batch: 1, precision: 'f32', checkpointing: false, train: { text: false, vae: false } } as const;
    expect(() => planTraining(device, SD15, { ...plan, size: 63, tokens: 77 })).toThrow(
      '[plan] size (--size) must be a multiple of 8, the pixels of a latent, not 63',
    );
    expect(() => planTraining(device, SD15, { ...plan, size: 100_000, tokens: 77 })).toThrow(
      '[plan] 1 pictures (--subject, --prior) of 100000×100000 (--size) make tensors of more elements',
    );
    expect(() => planTraining(device, SD15, { ...plan, size: 64, tokens: 100 })).toThrow(
      "[plan] tokens (--tokens) must be at most 77, the model's, not 100",
    );
  });
});

async function step(device: Awaited<ReturnType<typeof openNodeDevice>>) {
  const model = await loadStableDiffusion(device, 'assets/base');
  const config = await loadConfig('assets/configs/dreambooth.yaml');
  if (config.task !== 'dreambooth') throw new Error('the default run is DreamBooth');
  const { counts } = await trainingStep(device, model, config, { seconds: 0, profiled: false });
  return counts;
}
