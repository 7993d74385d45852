// Gradient of mse.wgsl: scale · weight · (a − b) · grad, where scale holds the 2 of the square, the sign and the mean.

@group(0) @binding(0) var<storage, read> a: array<f32>; // (samples, length)
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> grad: array<f32>; // (1)
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // (samples, length)
#if WEIGHTS
@group(0) @binding(4) var<storage, read> weights: array<f32>; // (samples)
#endif

struct Params {
  size: u32,
  length: u32,
  scale: f32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let slope = params.scale * (a[i] - b[i]) * grad[0];
#if WEIGHTS
  out[i] = slope * weights[i / params.length];
#else
  out[i] = slope;
#endif
}
