// The norm behind the last layer's MLP: x + (offset + w) ∘ y / rms(y), a workgroup a row. Those of the layers before are the
// business of decode_project.wgsl.

$X
@group(0) @binding(1) var<storage, read> vectors: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<$T>>; // (B, C)

struct Params {
  batch: u32,
  width: u32, // C
  eps: f32,
  offset: f32,
  behind: u32, // where vectors begin, in elements
  y: u32, // where it begins behind x, in elements
  gain: f32,
}

#include ./shared.wgsl

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let quads = params.width / 4u;
  find_behind(wg.x, lane);
  for (var i = lane; i < quads; i += LANES) { out[wg.x * quads + i] = vec4<$T>(state(wg.x * quads + i, i, 0u)); }
}
