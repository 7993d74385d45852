// out[n] = a[n] · x[n] + b[n] · y[n]: each sample of a batch has its own two coefficients.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (N, inner)
@group(0) @binding(1) var<storage, read> y: array<$T>; // (N, inner)
@group(0) @binding(2) var<storage, read> a: array<$T>; // (N,)
@group(0) @binding(3) var<storage, read> b: array<$T>; // (N,)
@group(0) @binding(4) var<storage, read_write> out: array<$T>;

struct Params { size: u32, inner: u32 }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let sample = i / params.inner;
  out[i] = $T(f32(a[sample]) * f32(x[i]) + f32(b[sample]) * f32(y[i]));
}
