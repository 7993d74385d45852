import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  hostStep,
  NoiseSchedule,
  parseSchedulerConfig,
  samplingSteps,
  type SamplerName,
} from '../../diffusion/schedule.ts';
import { openSafetensors } from '../../nn/files.ts';
import type { Safetensors } from '../../nn/safetensors.ts';

const folder = new URL('../goldens/schedulers/', import.meta.url).pathname;
const load = async (run: string, sampler?: SamplerName) => {
  const file = `${folder}${run}/scheduler_config.json`;
  return new NoiseSchedule(parseSchedulerConfig(await readFile(file, 'utf8'), file, sampler));
};
const schedule = (options: Record<string, unknown>) =>
  new NoiseSchedule(parseSchedulerConfig(JSON.stringify({ _class_name: 'DDIMScheduler', ...options }), 'test.json'));
const STABLE_DIFFUSION = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear', clip_sample: false };

/** |a − b| ≤ atol·max|b| + rtol·|b|, the recordings' own limit for two implementations. */
function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, rtol: number, atolOfMax: number): void {
  const atol = atolOfMax * Math.max(...Array.from(expected, Math.abs));
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i] - expected[i]);
    if (!(error <= atol + rtol * Math.abs(expected[i]))) expect.fail(`${actual[i]} for ${expected[i]} at ${i}`);
  }
}

describe('against diffusers', () => {
  let inputs: Safetensors;
  let outputs: Safetensors;
  beforeAll(async () => {
    inputs = await openSafetensors(`${folder}inputs.safetensors`);
    outputs = await openSafetensors(`${folder}outputs.safetensors`);
  });
  afterAll(() => Promise.all([inputs.close(), outputs.close()]));

  const runs: [string, number, number][] = [
    ['ddim_eta0', 10, 0],
    ['ddim_eta0', 30, 0],
    ['ddim_eta1', 10, 1],
    ['ddim_eta1', 30, 1],
    ['ddim_clip_alpha1', 10, 0],
    ['ddim_vpred_trailing_zsnr', 10, 0],
    ['ddpm_step', 10, 0],
  ];
  it.each(runs)('%s, %i steps', async (run, count, eta) => {
    const steps = samplingSteps(await load(run), { steps: count, eta });
    expect(steps.map((step) => step.timestep)).toEqual([...(await outputs.integers(`${run}.${count}.timesteps`))]);
    const trajectory = await outputs.floats(`${run}.${count}.trajectory`);
    const modelOutputs = await inputs.floats('model_outputs');
    const noise = await inputs.floats('variance_noise');
    let sample: ArrayLike<number> = await inputs.floats('sample');
    const n = sample.length;
    expect(trajectory.length).toBe((count + 1) * n);
    for (let i = 0; i < count; i++) {
      const row = (of: Float32Array, at: number) => of.subarray(at * n, (at + 1) * n);
      sample = hostStep(steps[i], sample, row(modelOutputs, i), row(noise, i));
      expectClose(sample, row(trajectory, i + 1), 1e-4, 1e-4);
    }
  });

  it('betas, alphas, noise and velocity', async () => {
    const schedule = await load('ddpm');
    // The recordings are f32: ᾱ is a chain of up to 1000 products, whose roundings add up to about √1000·2⁻²⁴ ≈ 2e-6.
    expectClose(schedule.betas, await outputs.floats('ddpm.betas'), 1e-6, 0);
    expectClose(schedule.alphasCumprod, await outputs.floats('ddpm.alphas_cumprod'), 2e-6, 0);
    const x0 = await inputs.floats('ddpm.x0');
    const noise = await inputs.floats('ddpm.noise');
    const times = await inputs.integers('ddpm.t');
    const mix = (rule: (t: number) => { signal: number; noise: number }) =>
      Float64Array.from(x0, (x, i) => {
        const { signal, noise: n } = rule(times[Math.floor(i / (x0.length / times.length))]);
        return signal * x + n * noise[i];
      });
    expectClose(
      mix((t) => schedule.noising(t)),
      await outputs.floats('ddpm.add_noise'),
      1e-5,
      1e-6,
    );
    expectClose(
      mix((t) => schedule.velocity(t)),
      await outputs.floats('ddpm.get_velocity'),
      1e-5,
      1e-6,
    );
  });
});

describe('noise schedule', () => {
  it('has the figures of Stable Diffusion', () => {
    const { alphasCumprod } = schedule(STABLE_DIFFUSION);
    expect([0, 499, 999].map((t) => alphasCumprod[t].toPrecision(5))).toEqual(['0.99915', '0.27767', '0.0046601']);
  });

  it('ends in pure noise where it is rescaled to, and begins unchanged', () => {
    const plain = schedule(STABLE_DIFFUSION);
    const rescaled = schedule({ ...STABLE_DIFFUSION, rescale_betas_zero_snr: true });
    expect(rescaled.alphasCumprod[999]).toBe(0);
    expect(rescaled.alphasCumprod[0]).toBeCloseTo(plain.alphasCumprod[0], 14);
    expect(rescaled.noising(999)).toEqual({ signal: 0, noise: 1 });
  });

  it('takes betas as they are given', () => {
    const given = schedule({ trained_betas: [0.1, 0.5] });
    expect(given.length).toBe(2);
    expect([...given.alphasCumprod]).toEqual([0.9, 0.45]);
  });

  it('refuses timesteps that are not there', () => {
    for (const t of [-1, 1000, 0.5, NaN]) expect(() => schedule({}).noising(t)).toThrow(/timestep .* from 0 to 999/);
  });
});

describe('samplers', () => {
  it('visit the timesteps of each spacing', () => {
    const visit = (options: Record<string, unknown>, steps: number) =>
      samplingSteps(schedule({ ...STABLE_DIFFUSION, ...options }), { steps }).map((step) => step.timestep);
    // 30 does not divide 1000: exactly 30 steps all the same.
    expect(visit({ steps_offset: 1 }, 30).length).toBe(30);
    expect(visit({ steps_offset: 1 }, 4)).toEqual([751, 501, 251, 1]);
    expect(visit({ timestep_spacing: 'trailing' }, 4)).toEqual([999, 749, 499, 249]);
    expect(visit({ timestep_spacing: 'linspace' }, 4)).toEqual([999, 666, 333, 0]);
    expect(visit({ timestep_spacing: 'trailing' }, 16)[3]).toBe(811); // 812.5 rounds to even
    expect(visit({}, 1)).toEqual([0]);
    expect(visit({ timestep_spacing: 'linspace' }, 1)).toEqual([0]);
  });

  it('recover the clean sample from a perfect model', () => {
    // With the true ε (or v) DDIM moves along x_t = √ᾱ·x₀ + √(1−ᾱ)·ε exactly, and its last step to ᾱ = 1 gives x₀.
    const cases = fc.record({
      prediction_type: fc.constantFrom('epsilon', 'v_prediction'),
      timestep_spacing: fc.constantFrom('leading', 'trailing', 'linspace'),
      clip_sample: fc.boolean(),
      steps: fc.integer({ min: 1, max: 60 }),
      x0: fc.double({ min: -1, max: 1, noNaN: true }),
      noise: fc.double({ min: -3, max: 3, noNaN: true }),
    });
    fc.assert(
      fc.property(cases, ({ steps, x0, noise, ...options }) => {
        const s = schedule({ ...STABLE_DIFFUSION, ...options });
        const plan = samplingSteps(s, { steps });
        const at = (t: number, rule = s.noising(t)) => rule.signal * x0 + rule.noise * noise;
        let sample = at(plan[0].timestep);
        for (const step of plan) {
          const previous = step.timestep - Math.floor(1000 / steps);
          [sample] = hostStep(step, [sample], [at(step.timestep, s.target(step.timestep))]);
          const expected = previous < 0 ? x0 : at(previous);
          if (Math.abs(sample - expected) > 1e-10) return false;
          // The step's model time is the next plan entry's, which differs from t − stride for linspace and trailing.
          const next = plan[plan.indexOf(step) + 1];
          if (next) sample = at(next.timestep);
        }
        return true;
      }),
    );
  });

  it('with eta 1 have the variance of DDPM', () => {
    const ddim = samplingSteps(schedule(STABLE_DIFFUSION), { steps: 20, eta: 1 });
    const ddpm = samplingSteps(schedule({ ...STABLE_DIFFUSION, _class_name: 'DDPMScheduler' }), { steps: 20 });
    for (let i = 0; i < 19; i++) {
      for (const key of ['sample', 'output', 'noise'] as const) expect(ddim[i][key]).toBeCloseTo(ddpm[i][key], 12);
    }
    expect(ddpm[19]).toMatchObject({ timestep: 0, noise: 0 });
  });

  it('refuse what cannot be done', () => {
    const run = (options: Record<string, unknown>, sampling: { steps: number; eta?: number }) => () =>
      samplingSteps(schedule({ ...STABLE_DIFFUSION, ...options }), sampling);
    expect(run({}, { steps: 0 })).toThrow('[sampler] steps is 0, it must be an integer from 1 to the 1000');
    expect(run({}, { steps: 2.5 })).toThrow('steps is 2.5');
    expect(run({}, { steps: 1001 })).toThrow('steps is 1001');
    expect(run({ steps_offset: 1 }, { steps: 1000 })).toThrow('begin at timestep 1000, past the last, 999');
    expect(run({}, { steps: 10, eta: 1.5 })).toThrow('eta is 1.5');
    expect(run({ _class_name: 'DDPMScheduler' }, { steps: 10, eta: 1 })).toThrow("eta is DDIM's");
    expect(run({ rescale_betas_zero_snr: true, timestep_spacing: 'trailing' }, { steps: 10 })).toThrow(
      'timestep 999 is pure noise',
    );
  });
});

describe('configurations', () => {
  const parse = (json: string, sampler?: SamplerName) => () => parseSchedulerConfig(json, 's.json', sampler);

  it('refuses a class or option that it does not know', () => {
    expect(parse('{')).toThrow('[scheduler] s.json: it is not JSON');
    expect(parse('{"_class_name":"HeunDiscreteScheduler"}')).toThrow(
      's.json: _class_name "HeunDiscreteScheduler" is not supported; DDIMScheduler, DDPMScheduler are',
    );
    expect(parse('{}')).toThrow('_class_name undefined is not supported');
    expect(parse('{"_class_name":"DDIMScheduler","beta_strat":1}')).toThrow(
      'option "beta_strat" of DDIMScheduler is not known; known are num_train_timesteps, beta_start,',
    );
    expect(parse('{"_class_name":"DDIMScheduler","thresholding":true}')).toThrow('thresholding: ');
    expect(parse('{"_class_name":"DDIMScheduler","beta_schedule":"cosine"}')).toThrow(/beta_schedule: .*scaled_linear/);
    expect(parse('{"_class_name":"DDPMScheduler","variance_type":"learned"}')).toThrow(/variance_type: .*fixed_small/);
    expect(parse('{"_class_name":"DDIMScheduler","num_train_timesteps":0}')).toThrow('num_train_timesteps: ');
  });

  it('takes the noise of another class with a sampler of its own', async () => {
    // This one holds -Infinity, which JSON does not have.
    const taken = await load('dpmpp2m', 'ddim');
    expect(taken.config).toMatchObject({ _class_name: 'DDIMScheduler', beta_end: 0.012, steps_offset: 1 });
    expect([...taken.alphasCumprod]).toEqual([...(await load('ddim_eta0')).alphasCumprod]);
    await expect(load('dpmpp2m')).rejects.toThrow('_class_name "DPMSolverMultistepScheduler" is not supported');
  });
});
