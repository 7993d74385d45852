import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hostStep, initialScale, samplingSteps } from '../../diffusion/samplers.ts';
import { NoiseSchedule, parseSchedulerConfig } from '../../diffusion/schedule.ts';
import type { SamplerName } from '../../diffusion/schedule.ts';
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
    ['pndm', 10, 0],
    ['pndm', 30, 0],
    ['euler', 10, 0],
    ['euler', 30, 0],
    ['euler_linspace', 10, 0],
    ['euler_karras', 10, 0],
    ['euler_vpred', 10, 0],
    ['dpmpp2m', 10, 0],
    ['dpmpp2m', 30, 0],
    ['dpmpp2m_karras', 10, 0],
    ['dpmpp2m_linspace', 10, 0],
    ['dpmpp2m_vpred', 10, 0],
  ];
  it.each(runs)('%s, %i steps', async (run, count, eta) => {
    const schedule = await load(run);
    const steps = samplingSteps(schedule, { steps: count, eta });
    // Timesteps between two come from f32 in the recordings: cli/verify/sampling.ts has the analysis.
    const timesteps = Array.from(await outputs.read(`${run}.${count}.timesteps`));
    expect(steps.length).toBe(timesteps.length);
    steps.forEach((step, i) => expect(Math.abs(step.timestep - timesteps[i])).toBeLessThan(1e-3));
    if (timesteps.every(Number.isInteger)) expect(steps.map((step) => step.timestep)).toEqual(timesteps);
    const trajectory = await outputs.floats(`${run}.${count}.trajectory`);
    const modelOutputs = await inputs.floats('model_outputs');
    const noise = await inputs.floats('variance_noise');
    const samples: ArrayLike<number>[] = [
      (await inputs.floats('sample')).map((value) => initialScale(schedule, steps) * value),
    ];
    const n = samples[0].length;
    const row = (of: Float32Array, at: number) => of.subarray(at * n, (at + 1) * n);
    expect(trajectory.length).toBe((steps.length + 1) * n);
    // The limit is for the trajectory as a whole: the recorded outputs have nothing to do with the sample.
    const atol = 1e-4 * Math.max(...trajectory.map(Math.abs));
    steps.forEach((step, i) => {
      const past = step.past.map((_, k) => row(modelOutputs, i - 1 - k));
      const history = i === 0 ? undefined : { sample: samples[i - 1], outputs: past };
      samples.push(hostStep(step, samples[i], row(modelOutputs, i), row(noise, i), history));
      // diffusers' Euler walks x/√ᾱ.
      const divisor = run.startsWith('euler') ? Math.sqrt(step.to) : 1;
      const actual = Array.from(samples[i + 1], (value) => value / divisor);
      expectClose(actual, row(trajectory, i + 1), 1e-4, atol / Math.max(...row(trajectory, i + 1).map(Math.abs)));
    });
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

  it('on the same timesteps: Euler is DDIM without fresh noise', () => {
    const ddim = samplingSteps(schedule({ ...STABLE_DIFFUSION, set_alpha_to_one: true }), { steps: 10 });
    const options = { _class_name: 'EulerDiscreteScheduler', timestep_spacing: 'leading' };
    const euler = samplingSteps(schedule({ ...STABLE_DIFFUSION, ...options }), { steps: 10 });
    euler.forEach((step, i) => {
      for (const key of ['timestep', 'sample', 'output', 'noise'] as const)
        expect(step[key]).toBeCloseTo(ddim[i][key], 12);
    });
  });

  it('begin Karras’ spacing at σ = 4096 where the noise is pure', () => {
    const options = { rescale_betas_zero_snr: true, prediction_type: 'v_prediction', use_karras_sigmas: true };
    const _class_name = 'DPMSolverMultistepScheduler';
    const plan = samplingSteps(schedule({ ...STABLE_DIFFUSION, ...options, _class_name, sigma_min: 0.5 }), {
      steps: 5,
    });
    const sigmas = plan.map(({ from }) => Math.sqrt((1 - from) / from));
    const [highest, lowest] = [4096 ** (1 / 7), 0.5 ** (1 / 7)];
    // ᾱ = 2⁻²⁴ holds σ to seven digits.
    sigmas.forEach((sigma, i) => expect(sigma / (highest + (i / 4) * (lowest - highest)) ** 7).toBeCloseTo(1, 6));
    expect(plan[0].timestep).toBe(999);
    for (const step of plan)
      for (const value of [step.sample, step.output, step.before, ...step.past])
        expect(Math.abs(value)).toBeLessThan(1e4);
  });

  it('refuse what cannot be done', () => {
    const run = (options: Record<string, unknown>, sampling: { steps: number; eta?: number }) => () =>
      samplingSteps(schedule({ ...STABLE_DIFFUSION, ...options }), sampling);
    expect(run({}, { steps: 0 })).toThrow('[sampler] steps is 0, it must be an integer from 1 to the 1000');
    expect(run({}, { steps: 2.5 })).toThrow('steps is 2.5');
    expect(run({}, { steps: 1001 })).toThrow('steps is 1001');
    expect(run({ steps_offset: 1 }, { steps: 1000 })).toThrow('begin at timestep 1000, past the last, 999');
    expect(run({}, { steps: 10, eta: 1.5 })).toThrow('eta is 1.5');
    expect(run({ _class_name: 'DDPMScheduler' }, { steps: 10, eta: 1 })).toThrow(
      "eta is DDIM's; DDPMScheduler has its own variance",
    );
    expect(run({ _class_name: 'EulerDiscreteScheduler' }, { steps: 10, eta: 1 })).toThrow(
      "eta is DDIM's; EulerDiscreteScheduler adds no noise",
    );
    expect(run({ _class_name: 'DPMSolverMultistepScheduler' }, { steps: 1000 })).toThrow(
      'steps is 1000, it must be an integer from 1 to 999, one less than the training timesteps',
    );
    const _class_name = 'DPMSolverMultistepScheduler';
    expect(run({ _class_name, use_karras_sigmas: true, sigma_min: 20 }, { steps: 10 })).toThrow(
      '[sampler] sigma_min is 20, above 14.6, where sampling begins',
    );
    for (const _class_name of ['EulerDiscreteScheduler', 'DPMSolverMultistepScheduler'])
      expect(run({ _class_name, rescale_betas_zero_snr: true }, { steps: 10 })).toThrow('timestep 999 is pure noise');
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
      's.json: _class_name "HeunDiscreteScheduler" is not supported; DDIMScheduler, DDPMScheduler, PNDMScheduler,',
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
    // DDIM would clip by default; DPM-Solver++ doesn't know of it. Its variance_type is null, which is none of DDPM's.
    expect(taken.config).toMatchObject({ clip_sample: false });
    expect((await load('dpmpp2m', 'ddpm')).config).toMatchObject({ variance_type: 'fixed_small', clip_sample: false });
    const parsed = (json: object, sampler: SamplerName) => parseSchedulerConfig(JSON.stringify(json), 's', sampler);
    expect(parsed({ _class_name: 'DDPMScheduler' }, 'ddim')).toMatchObject({ clip_sample: true });
    expect(parsed({ _class_name: 'HeunDiscreteScheduler', beta_end: 0.5 }, 'pndm')).toMatchObject({ beta_end: 0.5 });
  });

  it('takes that of Stable Diffusion 1.5, and every sampler in its place', () => {
    const file = {
      _class_name: 'PNDMScheduler', _diffusers_version: '0.6.0', beta_end: 0.012, beta_schedule: 'scaled_linear',
      beta_start: 0.00085, num_train_timesteps: 1000, set_alpha_to_one: false, skip_prk_steps: true, steps_offset: 1,
      trained_betas: null, clip_sample: false,
    }; // prettier-ignore
    const visit = (sampler?: SamplerName) =>
      samplingSteps(new NoiseSchedule(parseSchedulerConfig(JSON.stringify(file), 's.json', sampler)), { steps: 4 });
    expect(visit().map((step) => step.timestep)).toEqual([751, 501, 501, 251, 1]);
    expect(visit('ddim').map((step) => step.timestep)).toEqual([751, 501, 251, 1]);
    expect(visit('ddpm').length).toBe(4);
    expect(visit('euler').map((step) => step.timestep)).toEqual([999, 666, 333, 0]);
    expect(visit('dpmpp2m').map((step) => step.timestep)).toEqual([999, 749, 500, 250]);
    expect(visit('dpmpp2m-trailing').map((step) => step.timestep)).toEqual([999, 749, 499, 249]);
    const sigmas = visit('dpmpp2m-karras').map(({ from }) => Math.sqrt((1 - from) / from));
    expect(sigmas[0]).toBeCloseTo(14.6146, 3);
    expect(sigmas[3]).toBeCloseTo(0.2, 12);
    expect(parse(JSON.stringify({ ...file, skip_prk_steps: false }))).toThrow('skip_prk_steps: ');
    expect(parse('{"_class_name":"PNDMScheduler"}')).toThrow('skip_prk_steps: ');
    expect(parse('{"_class_name":"DPMSolverMultistepScheduler","solver_order":3}')).toThrow('solver_order: ');
    expect(parse('{"_class_name":"DPMSolverMultistepScheduler","algorithm_type":"sde-dpmsolver++"}')).toThrow(
      'algorithm_type: ',
    );
  });
});

/**
 * Data of a normal distribution N(0.7, 0.3²) have the ideal model in closed form: x_t is N(√ᾱ·0.7, ᾱ·0.3² + 1 − ᾱ), of whose
 * score ε is −√(1−ᾱ) times; and the probability flow keeps each sample's place in it, which is the exact solution.
 */
describe('on the probability flow of a normal distribution', () => {
  const [center, width] = [0.7, 0.3];
  const places = [-2, -1, 0, 1, 2];
  const meanAt = (alphaBar: number) => Math.sqrt(alphaBar) * center;
  const varianceAt = (alphaBar: number) => alphaBar * width ** 2 + 1 - alphaBar;
  const exact = (alphaBar: number) => places.map((z) => meanAt(alphaBar) + Math.sqrt(varianceAt(alphaBar)) * z);

  /** RMS error of the last sample. */
  const error = (options: Record<string, unknown>, count: number) => {
    const velocity = options.prediction_type === 'v_prediction';
    const plan = samplingSteps(schedule({ ...STABLE_DIFFUSION, ...options }), { steps: count });
    const samples: ArrayLike<number>[] = [exact(plan[0].from)];
    const outputs: ArrayLike<number>[] = [];
    plan.forEach((step, i) => {
      const { from } = step;
      const output = Array.from(samples[i], (x) => {
        const epsilon = (Math.sqrt(1 - from) * (x - meanAt(from))) / varianceAt(from);
        const x0 = (x - Math.sqrt(1 - from) * epsilon) / Math.sqrt(from);
        return velocity ? Math.sqrt(from) * epsilon - Math.sqrt(1 - from) * x0 : epsilon;
      });
      const history = i === 0 ? undefined : { sample: samples[i - 1], outputs };
      samples.push(hostStep(step, samples[i], output, undefined, history));
      outputs.unshift(output);
    });
    const expected = exact(plan[plan.length - 1].to);
    const squares = expected.map((value, i) => (value - samples[plan.length][i]) ** 2);
    return Math.sqrt(squares.reduce((sum, square) => sum + square, 0) / squares.length);
  };
  /** Order of convergence between two numbers of steps: error ∝ steps^−order. */
  const order = (options: Record<string, unknown>, few: number) =>
    Math.log2(error(options, few) / error(options, 2 * few));

  // Points that are smooth in their number, to the least noise: a last jump to x₀ is of first order, whatever was before.
  const smooth = { use_karras_sigmas: true, final_sigmas_type: 'sigma_min' };
  const euler = { _class_name: 'EulerDiscreteScheduler', ...smooth };
  const solver = { _class_name: 'DPMSolverMultistepScheduler', lower_order_final: false, ...smooth };

  it('DPM-Solver++(2M) is of second order, Euler of first', () => {
    for (const prediction_type of ['epsilon', 'v_prediction']) {
      for (const few of [32, 64, 128]) {
        expect(order({ ...euler, prediction_type }, few)).toBeCloseTo(1, 1);
        expect(Math.abs(order({ ...solver, prediction_type }, few) - 2)).toBeLessThan(0.15);
      }
    }
    // What the model is trained to give makes no difference.
    const velocity = { ...solver, prediction_type: 'v_prediction' };
    expect(error(velocity, 16)).toBeCloseTo(error(solver, 16), 10);
  });

  it('PNDM is at least of second order', () => {
    const pndm = { _class_name: 'PNDMScheduler', skip_prk_steps: true, steps_offset: 1 };
    expect(order(pndm, 32)).toBeGreaterThan(1.8);
  });

  it('DPM-Solver++(2M) with 8 steps is far nearer than DDIM', () => {
    const ddim = error({ steps_offset: 1 }, 8);
    for (const end of [{}, { final_sigmas_type: 'zero' }]) {
      expect(error({ ...solver, ...end }, 8)).toBeLessThan(ddim / 5);
      expect(error({ ...solver, ...end }, 8)).toBeLessThan(error({ ...euler, ...end }, 8) / 5);
    }
  });
});
