import { expect, it } from 'vitest';
import { hostStep, samplingSteps } from '../../diffusion/samplers.ts';
import { NoiseSchedule, parseSchedulerConfig } from '../../diffusion/schedule.ts';
import { HostRandom, randomKey, scope, tensor } from '../../engine/index.ts';
import { composedGuidedStep, guidedStep } from '../../kernels/index.ts';
import { plainDevice } from '../device.ts';

it.each(['ddim', 'ddpm', 'pndm', 'euler', 'dpmpp2m'] as const)(
  'guidedStep is %s’s step, and equals plain operations',
  async (sampler) => {
    const device = await plainDevice();
    const clips = sampler === 'ddim' || sampler === 'ddpm';
    for (const clip_sample of clips ? [true, false] : [false]) {
      const config = JSON.stringify({ _class_name: 'DDIMScheduler', clip_sample });
      const schedule = new NoiseSchedule(parseSchedulerConfig(config, 'test', sampler));
      const random = new HostRandom(randomKey(1, sampler));
      const scale = 5;
      const plan = samplingSteps(schedule, { steps: 5, ...(sampler === 'ddim' ? { eta: 0.5 } : {}) });
      for (const step of plan) {
        const [x, noise, last] = [random.normal(96), random.normal(96), random.normal(96)];
        const [output, ...past] = [random.normal(192), ...step.past.map(() => random.normal(192))] as const;
        const results = scope(device, () => {
          const small = (values: Float32Array) => tensor(device, values, [2, 3, 4, 4]);
          const double = (values: Float32Array) => tensor(device, values, [4, 3, 4, 4]);
          const inputs = [small(x), double(output), small(noise)] as const;
          const options = { scale, step, history: { sample: small(last), outputs: past.map(double) } };
          return [guidedStep(...inputs, options), composedGuidedStep(...inputs, options)];
        });
        const guided = (of: Float32Array) => Float64Array.from(x, (_, i) => of[i]! + scale * (of[96 + i]! - of[i]!));
        const expected = hostStep(step, x, guided(output), noise, { sample: last, outputs: past.map(guided) });
        // Rounding is relative to the terms, which may cancel: at the last timestep 1/√ᾱ is 200.
        const terms = Float64Array.from(x, (value, i) => {
          const size = (of: Float32Array) => (1 + 2 * scale) * (Math.abs(of[i]!) + Math.abs(of[96 + i]!));
          const m = size(output);
          const clean = Math.abs(step.clean) * (Math.abs(step.cleanSample * value) + Math.abs(step.cleanOutput) * m);
          const before = past.reduce(
            (sum, of, k) => sum + Math.abs(step.past[k]!) * size(of),
            Math.abs(step.before * last[i]!),
          );
          const own = Math.abs(step.sample * value) + Math.abs(step.output) * m + Math.abs(step.noise * noise[i]!);
          return own + clean + before;
        });
        for (const result of results) {
          const values = await result.read();
          result.storage.drop();
          values.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(4 * 2 ** -24 * terms[i]!));
        }
      }
    }
  },
);
