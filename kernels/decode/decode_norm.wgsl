// x += y · (offset + w) / rms(y), a workgroup a row: the norms that some decoders have behind attention and MLP.

@group(0) @binding(0) var<storage, read> y: array<vec4<$T>>; // (B, C)
@group(0) @binding(1) var<storage, read> weight: array<vec4f>; // (C)
@group(0) @binding(2) var<storage, read_write> x: array<vec4<$T>>; // (B, C)

struct Params {
  batch: u32,
  width: u32, // C
  eps: f32,
  offset: f32,
}

#include ./shared.wgsl

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let quads = params.width / 4u;
  let row = wg.x * quads;
  var own: Dots; // the squares alone
  for (var i = lane; i < quads; i += LANES) { own.squares[0] += dot(vec4f(y[row + i]), vec4f(y[row + i])); }
  let rms = inverseSqrt(add_lanes(own, lane).squares[0] / f32(params.width) + params.eps);
  for (var i = lane; i < quads; i += LANES) {
    let normed = vec4f(y[row + i]) * rms * (weight[i] + params.offset);
    x[row + i] = vec4<$T>(vec4f(x[row + i]) + normed);
  }
}
