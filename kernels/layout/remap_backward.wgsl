// Gradient of remap.wgsl: dx[o, k, i] = Σ grad[o, j, i] over the places j with f(j) = k, which the inverse of the map names,
// in rising order, so that sums have one order. Every element of dx is written once.
// An invocation gathers one element (four with VEC4); scattering would need atomics, and sums would have no order.

#if VEC4
alias T = vec4<$T>;
alias F = vec4f;
#else
alias T = $T;
alias F = f32;
#endif

@group(0) @binding(0) var<storage, read> grad: array<T>; // (outer, length, inner)
@group(0) @binding(1) var<storage, read_write> dx: array<T>; // (outer, n, inner)

struct Params {
  size: u32, // outer · n · inner, in T like inner
  n: i32,
  length: i32,
  inner: u32,
  at: i32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (wg.x + wg.y * groups.x) * 64u + lane;
  if (index >= params.size) { return; }
  let row = index / params.inner;
  let k = i32(row % u32(params.n));
  let origin = row / u32(params.n) * u32(params.length) * params.inner + index % params.inner;
  let last = params.n - 1;
  // The places are first, first + step, … below end.
  var first = k + params.at;
  var step = 1;
  var end = first + 1;
#if REPLICATE
  if (k == last) { end = params.length; }
  if (k == 0) { first = 0; }
#endif
#if WRAP
  first = (k + params.n - params.at) % params.n;
  step = params.n;
  end = params.length;
#endif
#if FLIP
  first = last - k;
  end = first + 1;
#endif
  var sum = F(0.0);
#if REFLECT
  // Mirrored before the start: k of 1 … at. Mirrored behind the end: what reaches back to k.
  if (k > 0 && k <= params.at) { sum += F(grad[origin + u32(params.at - k) * params.inner]); }
#endif
  for (var j = first; j < end; j += step) { sum += F(grad[origin + u32(j) * params.inner]); }
#if REFLECT
  let mirrored = params.at + 2 * last - k;
  if (k < last && mirrored < params.length) { sum += F(grad[origin + u32(mirrored) * params.inner]); }
#endif
  dx[index] = T(sum);
}
