// Classifier-free guidance (Ho & Salimans, 2022) and a sampler's step in one pass over the sample:
//
//   m = u + scale · (c − u)            u: output without the prompt (first half of the batch), c: with it (second half)
//   next = sample · x + output · m + noise · ε + clean · clamp(clean_sample · x + clean_output · m, −clip, clip)

@group(0) @binding(0) var<storage, read> x: array<$T>;
@group(0) @binding(1) var<storage, read> model: array<$T>; // (2N, …) where GUIDED, else (N, …)
@group(0) @binding(2) var<storage, read_write> next: array<$T>;
#if NOISE
@group(0) @binding(3) var<storage, read> fresh: array<$T>;
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
}

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
#if NOISE
  value += params.noise * f32(fresh[i]);
#endif
  next[i] = $T(value);
}
