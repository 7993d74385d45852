// out = u · gelu(v), where u and v are the halves of x's last dimension; gelu is the exact one, by the error function.
// BACKWARD: du = grad · gelu(v), dv = grad · u · gelu′(v), written into the halves of dx.

#if VEC4
alias T = vec4f;
#else
alias T = f32;
#endif

@group(0) @binding(0) var<storage, read> x: array<T>; // (rows, 2 · width)
#if BACKWARD
@group(0) @binding(1) var<storage, read> grad: array<T>; // (rows, width)
@group(0) @binding(2) var<storage, read_write> dx: array<T>; // (rows, 2 · width)
#else
@group(0) @binding(1) var<storage, read_write> out: array<T>; // (rows, width)
#endif

struct Params {
  size: u32, // rows · width
  width: u32, // in T
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let left = i + (i / params.width) * params.width; // row · 2 width + column
  let u = x[left];
  let v = x[left + params.width];
  let phi = 0.5 * (1.0 + each(v * 0.70710678)); // Φ(v)
#if BACKWARD
  dx[left] = grad[i] * v * phi;
  dx[left + params.width] = grad[i] * u * (phi + v * 0.39894228 * exp(-0.5 * v * v));
#else
  out[i] = u * v * phi;
#endif
}

#if VEC4
fn each(v: T) -> T { return vec4f(erf(v.x), erf(v.y), erf(v.z), erf(v.w)); }
#else
fn each(v: T) -> T { return erf(v); }
#endif

$ERF
