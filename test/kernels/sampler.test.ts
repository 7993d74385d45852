import { expect, it } from 'vitest';
import { hostStep, NoiseSchedule, parseSchedulerConfig, samplingSteps } from '../../diffusion/schedule.ts';
import { HostRandom, randomKey, scope, tensor } from '../../engine/index.ts';
import { composedGuidedStep, guidedStep } from '../../kernels/index.ts';
import { plainDevice } from '../device.ts';

it.each(['ddim', 'ddpm'] as const)('guidedStep is %s’s step, and equals plain operations', async (sampler) => {
  const device = await plainDevice();
  for (const clip_sample of [true, false]) {
    const config = JSON.stringify({ _class_name: 'DDIMScheduler', clip_sample });
    const schedule = new NoiseSchedule(parseSchedulerConfig(config, 'test', sampler));
    const random = new HostRandom(randomKey(1, sampler));
    const scale = 5;
    for (const step of samplingSteps(schedule, { steps: 5, ...(sampler === 'ddim' ? { eta: 0.5 } : {}) })) {
      const [x, noise] = [random.normal(96), random.normal(96)];
      const output = random.normal(192);
      const results = scope(device, () => {
        const shape = [2, 3, 4, 4];
        const inputs = [
          tensor(device, x, shape),
          tensor(device, output, [4, 3, 4, 4]),
          tensor(device, noise, shape),
        ] as const;
        return [guidedStep(...inputs, { scale, step }), composedGuidedStep(...inputs, { scale, step })];
      });
      const guided = Float64Array.from(x, (_, i) => output[i]! + scale * (output[96 + i]! - output[i]!));
      const expected = hostStep(step, x, guided, noise);
      // Rounding is relative to the terms, which may cancel: at the last timestep 1/√ᾱ is 200.
      const terms = Float64Array.from(x, (value, i) => {
        const m = (1 + 2 * scale) * (Math.abs(output[i]!) + Math.abs(output[96 + i]!));
        const clean = Math.abs(step.clean) * (Math.abs(step.cleanSample * value) + Math.abs(step.cleanOutput) * m);
        return Math.abs(step.sample * value) + Math.abs(step.output) * m + Math.abs(step.noise * noise[i]!) + clean;
      });
      for (const result of results) {
        const values = await result.read();
        result.storage.drop();
        values.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(4 * 2 ** -24 * terms[i]!));
      }
    }
  }
});
