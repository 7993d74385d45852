// The last step of a 3×3 convolution by Winograd's F(2×2, 3×3): each tile's 2×2 results Aᵀ M A. See winograd.ts.
//
//   Aᵀ = 1  1  1  0
//        0  1 −1 −1
//
// With GRADIENT it is the transform's adjoint: A dY Aᵀ, the gradient of M from that of the results. A thread has four tiles,
// one in each component of its vectors. With QUAD they are neighbours in a row, and each line of their results is two
// vec4.
//
// Registers only. 8×96×16² takes a software adapter 0.49 ms with QUAD and 0.62 without; as adjoint 0.43 and 0.54.

#if GRADIENT
@group(0) @binding(0) var<storage, read> out: array<$PIXELS>; // (N, rows, oh, ow)
@group(0) @binding(1) var<storage, read_write> m: array<vec4f>; // (16, rows, tiles)
#else
@group(0) @binding(0) var<storage, read> m: array<vec4f>; // (16, rows, tiles)
@group(0) @binding(1) var<storage, read_write> out: array<$PIXELS>; // (N, rows, oh, ow)
#if BIAS
@group(0) @binding(2) var<storage, read> bias: array<$T>; // (rows)
#endif
#endif

struct Params {
  first: u32, // sample that the tiles begin with
  samples: u32,
  rows: u32,
  oh: u32,
  ow: u32,
  down: u32, // tiles in a column of the picture
  across: u32, // tiles in a row
  tiles: u32, // samples · down · across, rounded up to fours
}

#if GRADIENT
fn transformed(y: array<vec4f, 2>) -> array<vec4f, 4> {
  return array(y[0], y[0] + y[1], y[0] - y[1], -y[1]);
}
#else
fn transformed(m: array<vec4f, 4>) -> array<vec4f, 2> {
  return array(m[0] + m[1] + m[2], m[1] - m[2] - m[3]);
}
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let quads = params.tiles / 4u;
  let i = (wg.x + wg.y * groups.x) * 64u + thread;
  if (i >= params.rows * quads) { return; }
  let each = params.down * params.across;
  let step = params.rows * quads;
#if QUAD
  let tile = 4u * (i % quads);
  let n = tile / each;
  let y = 2u * (tile % each / params.across);
  let at = (((params.first + n) * params.rows + i / quads) * params.oh + y) * params.ow / 4u + tile % params.across / 2u;
  let line = params.ow / 4u;
  let present = n < params.samples;
  let second = present && y + 1u < params.oh;
#else
  let tile = 4u * (i % quads) + vec4u(0u, 1u, 2u, 3u);
  let n = tile / each;
  let y = 2u * (tile % each / params.across);
  let x = 2u * (tile % params.across);
  let at = (((params.first + n) * params.rows + i / quads) * params.oh + y) * params.ow + x;
  let line = params.ow;
  let present = n < vec4u(params.samples);
  let right = present & (x + 1u < vec4u(params.ow));
  let below = present & (y + 1u < vec4u(params.oh));
#endif

#if GRADIENT
  var p: array<array<vec4f, 2>, 2>; // (row, column)
#if QUAD
  if (present) {
    let a = vec4f(out[at]);
    let b = vec4f(out[at + 1u]);
    p[0] = array(vec4f(a.xz, b.xz), vec4f(a.yw, b.yw));
  }
  if (second) {
    let a = vec4f(out[at + line]);
    let b = vec4f(out[at + line + 1u]);
    p[1] = array(vec4f(a.xz, b.xz), vec4f(a.yw, b.yw));
  }
#else
  p[0] = array(pixels(at, present), pixels(at + 1u, right));
  p[1] = array(pixels(at + line, below), pixels(at + line + 1u, right & below));
#endif
  let top = transformed(p[0]);
  let bottom = transformed(p[1]);
  var d: array<array<vec4f, 4>, 4>; // (column, row)
  for (var k = 0u; k < 4u; k++) { d[k] = transformed(array(top[k], bottom[k])); }
  for (var j = 0u; j < 4u; j++) {
    for (var k = 0u; k < 4u; k++) { m[i + (4u * j + k) * step] = d[k][j]; }
  }
#else
  var d: array<array<vec4f, 2>, 4>; // (column, row)
  for (var k = 0u; k < 4u; k++) {
    d[k] = transformed(array(m[i + k * step], m[i + (4u + k) * step], m[i + (8u + k) * step], m[i + (12u + k) * step]));
  }
  var top = transformed(array(d[0][0], d[1][0], d[2][0], d[3][0]));
  var bottom = transformed(array(d[0][1], d[1][1], d[2][1], d[3][1]));
#if BIAS
  let offset = f32(bias[i / quads]);
  for (var k = 0u; k < 2u; k++) {
    top[k] += offset;
    bottom[k] += offset;
  }
#endif
#if QUAD
  if (present) {
    out[at] = vec4<$T>(vec4f(top[0].x, top[1].x, top[0].y, top[1].y));
    out[at + 1u] = vec4<$T>(vec4f(top[0].z, top[1].z, top[0].w, top[1].w));
  }
  if (second) {
    out[at + line] = vec4<$T>(vec4f(bottom[0].x, bottom[1].x, bottom[0].y, bottom[1].y));
    out[at + line + 1u] = vec4<$T>(vec4f(bottom[0].z, bottom[1].z, bottom[0].w, bottom[1].w));
  }
#else
  for (var t = 0u; t < 4u; t++) {
    if (present[t]) { out[at[t]] = $T(top[0][t]); }
    if (right[t]) { out[at[t] + 1u] = $T(top[1][t]); }
    if (below[t]) { out[at[t] + line] = $T(bottom[0][t]); }
    if (right[t] && below[t]) { out[at[t] + line + 1u] = $T(bottom[1][t]); }
  }
#endif
#endif
}

#if GRADIENT
#if !QUAD
fn pixels(at: vec4u, valid: vec4<bool>) -> vec4f {
  let a = select(vec4u(), at, valid);
  return select(vec4f(), vec4f(vec4<$T>(out[a.x], out[a.y], out[a.z], out[a.w])), valid);
}
#endif
#endif
