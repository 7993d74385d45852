// Gradient of upsample.wgsl: each input pixel adds the gradients of the pixels that copied it, those y with
// ⌊y · inH / outH⌋ equal to its row, hence from ⌈row · outH / inH⌉ to ⌈(row + 1) · outH / inH⌉ − 1, and columns alike.
// TWICE adds 2×2 pixels out of two vec4.

#if TWICE
@group(0) @binding(0) var<storage, read> grad: array<vec4<$T>>; // (lines, 2, width)
@group(0) @binding(1) var<storage, read_write> dx: array<vec2<$T>>; // (lines, width)

struct Params {
  size: u32, // lines · width, where lines are the rows of all planes
  width: u32, // in vec2, equally of the output in vec4
}
#else
@group(0) @binding(0) var<storage, read> grad: array<$T>; // (planes, outH, outW)
@group(0) @binding(1) var<storage, read_write> dx: array<$T>; // (planes, inH, inW)

struct Params {
  size: u32, // planes · inH · inW
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
  let rows = vec4f(grad[place]) + vec4f(grad[place + params.width]);
  dx[i] = vec2<$T>(rows.xz + rows.yw);
#else
  let column = i % params.inW;
  let row = i / params.inW;
  let plane = (row / params.inH) * params.outH;
  let top = first(row % params.inH, params.inH, params.outH);
  let bottom = first(row % params.inH + 1u, params.inH, params.outH);
  let left = first(column, params.inW, params.outW);
  let right = first(column + 1u, params.inW, params.outW);
  var sum = 0.0;
  for (var y = plane + top; y < plane + bottom; y++) {
    for (var x = left; x < right; x++) { sum += f32(grad[y * params.outW + x]); }
  }
  dx[i] = $T(sum);
#endif
}

// ⌈i · large / small⌉: the first place in the output that copies input place i (or a later one).
fn first(i: u32, small: u32, large: u32) -> u32 { return (i * large + small - 1u) / small; }
