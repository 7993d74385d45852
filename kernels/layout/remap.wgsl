// out[o, j, i] = x[o, f(j), i]: along one axis, each place takes the element that a map f names. The map is a formula,
// chosen by a define, so that no list of places is made or read:
//
//   CONSTANT   j − at, and `fill` where that lies outside       pad
//   REPLICATE  j − at, limited to the axis                      pad
//   REFLECT    j − at, mirrored at both ends                    pad
//   WRAP       (j + at) mod n                                   roll, tile
//   FLIP       n − 1 − j                                        flip
//
// Elements are moved as words (see copy.wgsl), one to an invocation. The gradient is remap_backward.wgsl. CONSTANT reads in any
// case, and chooses the value after: with a branch around the load a software adapter took 157 ms instead of 54.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (outer, n, inner)
@group(0) @binding(1) var<storage, read_write> out: array<$T>; // (outer, length, inner)

struct Params {
  size: u32, // outer · length · inner, in T like inner
  n: i32,
  length: i32,
  inner: u32,
  at: i32,
#if CONSTANT
  fill: u32, // a word of the value
#endif
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (wg.x + wg.y * groups.x) * 64u + lane;
  if (index >= params.size) { return; }
  let row = index / params.inner;
  let j = i32(row % u32(params.length));
  let last = params.n - 1;
#if CONSTANT
  let k = clamp(j - params.at, 0, max(last, 0));
#endif
#if REPLICATE
  let k = clamp(j - params.at, 0, last);
#endif
#if REFLECT
  let k = last - abs(last - abs(j - params.at));
#endif
#if WRAP
  let k = (j + params.at) % params.n;
#endif
#if FLIP
  let k = last - j;
#endif
  let line = row / u32(params.length) * u32(params.n) + u32(k);
#if CONSTANT
  // Read in any case, and chosen after: a branch costs a software adapter more. Of an empty axis, anything.
  let value = x[select(line * params.inner + index % params.inner, 0u, params.n == 0)];
#if F16
  let fill = bitcast<vec2<f16>>(params.fill).x;
#else
  let fill = $T(params.fill);
#endif
  out[index] = select(fill, value, k == j - params.at && params.n > 0);
#else
  out[index] = x[line * params.inner + index % params.inner];
#endif
}
