// Nearest neighbour: out[y, x] = in[⌊y · inH / outH⌋, ⌊x · inW / outW⌋] in each plane (sample and channel).
//
// TWICE: both extents double, the width is even; each invocation reads two pixels and writes them to four columns of two
// rows. Rows and their doubles lie in the same order, so that one division finds the place (a software adapter divides
// lane by lane). (8, 96, 32, 32) to 64×64 takes it 3.0 ms so, and to 63×63, one by one, 25.

#if TWICE
@group(0) @binding(0) var<storage, read> x: array<vec2<$T>>; // (lines, width)
@group(0) @binding(1) var<storage, read_write> out: array<vec4<$T>>; // (lines, 2, width)

struct Params {
  size: u32, // lines · width, where lines are the rows of all planes
  width: u32, // in vec2, equally of the output in vec4
}
#else
@group(0) @binding(0) var<storage, read> x: array<$T>; // (planes, inH, inW)
@group(0) @binding(1) var<storage, read_write> out: array<$T>; // (planes, outH, outW)

struct Params {
  size: u32, // planes · outH · outW
  inH: u32,
  inW: u32,
  outH: u32,
  outW: u32,
}
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
#if TWICE
  let place = i + (i / params.width) * params.width; // line · 2 width + column
  let pixels = x[i].xxyy;
  out[place] = pixels;
  out[place + params.width] = pixels;
#else
  let column = i % params.outW;
  let row = i / params.outW;
  let line = (row / params.outH) * params.inH + (row % params.outH) * params.inH / params.outH;
  out[i] = x[line * params.inW + column * params.inW / params.outW];
#endif
}
