// Classifier-free guidance (Ho & Salimans, 2022) and a sampler's step in one pass over the sample:
//
//   m = u + scale · (c − u)            u: output without the prompt (first half of the batch), c: with it (second half)
//   next = sample · x + output · m + noise · ε + clean · clamp(clean_sample · x + clean_output · m, −clip, clip)
//          + before · x₋₁ + past1 · m₋₁ + … + past4 · m₋₄       where PAST: what the steps before had

@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read> model: array<$T>; // (2N, …) where GUIDED, else (N, …)
@group(0) @binding(2) var<storage, read_write> next: array<$T>;
#if PAST
@group(0) @binding(3) var<storage, read> last: array<$T>; // x₋₁
@group(0) @binding(4) var<storage, read> model1: array<$T>; // of m₋₁, laid out as `model`
@group(0) @binding(5) var<storage, read> model2: array<$T>;
@group(0) @binding(6) var<storage, read> model3: array<$T>;
@group(0) @binding(7) var<storage, read> model4: array<$T>;
#endif
#if NOISE
@group(0) @binding($FRESH) var<storage, read> fresh: array<$T>;
#endif

struct Params {
  size: u32,
  scale: f32,
  sample: f32,
  output: f32,
  noise: f32,
  clean: f32,
  clean_sample: f32,
  clean_output: f32,
  clip: f32,
  before: f32,
  past1: f32,
  past2: f32,
  past3: f32,
  past4: f32,
}

#if PAST
fn past(i: u32) -> f32 {
  return params.past1 * f32(model1[i]) + params.past2 * f32(model2[i]) + params.past3 * f32(model3[i]) + params.past4 * f32(model4[i]);
}
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
#if GUIDED
  let without = f32(model[i]);
  let m = without + params.scale * (f32(model[params.size + i]) - without);
#else
  let m = f32(model[i]);
#endif
  var value = params.sample * f32(x[i]) + params.output * m;
  value += params.clean * clamp(params.clean_sample * f32(x[i]) + params.clean_output * m, -params.clip, params.clip);
#if PAST
  value += params.before * f32(last[i]);
#if GUIDED
  // Guidance is linear, so that it may follow the combination.
  let past_without = past(i);
  value += past_without + params.scale * (past(params.size + i) - past_without);
#else
  value += past(i);
#endif
#endif
#if NOISE
  value += params.noise * f32(fresh[i]);
#endif
  next[i] = $T(value);
}
