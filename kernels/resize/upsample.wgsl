// Nearest neighbour: out[y, x] = in[⌊y · inH / outH⌋, ⌊x · inW / outW⌋] in each plane (sample and channel).
//
// TWICE: the width doubles and is a multiple of four; each invocation reads two pixels and writes four.

#if TWICE
@group(0) @binding(0) var<storage, read> x: array<vec2f>; // (planes, inH, inW / 2)
@group(0) @binding(1) var<storage, read_write> out: array<vec4f>; // (planes, outH, outW / 4)
#else
@group(0) @binding(0) var<storage, read> x: array<f32>; // (planes, inH, inW)
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // (planes, outH, outW)
#endif

// Widths of TWICE count its vec2 and vec4.
struct Params {
  size: u32, // planes · outH · outW
  inH: u32,
  inW: u32,
  outH: u32,
  outW: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let column = i % params.outW;
  let row = i / params.outW;
  let line = (row / params.outH) * params.inH + (row % params.outH) * params.inH / params.outH;
#if TWICE
  out[i] = x[line * params.inW + column].xxyy;
#else
  out[i] = x[line * params.inW + column * params.inW / params.outW];
#endif
}
