// The weights' step of a 3×3 convolution by Winograd's F(2×2, 3×3): U = G g Gᵀ. See winograd.ts.
//
//   G = 1  0  0
//       ½  ½  ½
//       ½ −½  ½
//       0  0  1
//
// FLIP turns each filter by 180°, as the gradient by inputs needs it. With GRADIENT it is the transform's adjoint: the
// filters' gradient Gᵀ dU G from that of U. A thread makes four filters, one in each component of its vectors: their 36
// weights are nine vec4.
//
// Registers only. 96 × 96 filters take a software adapter 0.10 ms either way.

#if GRADIENT
@group(0) @binding(0) var<storage, read> u: array<vec4f>; // (16, rows, channels)
@group(0) @binding(1) var<storage, read_write> filters: array<vec4<$T>>; // (parts, rows, channels, 3, 3)
#else
@group(0) @binding(0) var<storage, read> filters: array<vec4<$T>>; // (rows, channels, 3, 3)
@group(0) @binding(1) var<storage, read_write> u: array<vec4f>; // (16, rows, channels)
#endif

struct Params {
  quads: u32, // rows · channels / 4
#if GRADIENT
  part: u32, // which of the results is written
#endif
}

#if GRADIENT
fn transformed(u: array<vec4f, 4>) -> array<vec4f, 3> {
  let s = 0.5 * (u[1] + u[2]);
  return array(u[0] + s, 0.5 * (u[1] - u[2]), s + u[3]);
}
#else
fn transformed(g: array<vec4f, 3>) -> array<vec4f, 4> {
  let s = 0.5 * (g[0] + g[2]);
  let t = 0.5 * g[1];
  return array(g[0], s + t, s - t, g[2]);
}
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + thread;
  if (i >= params.quads) { return; }
#if GRADIENT
  var d: array<array<vec4f, 3>, 4>; // (column, row)
  for (var k = 0u; k < 4u; k++) {
    d[k] = transformed(array(
      u[i + k * params.quads], u[i + (4u + k) * params.quads], u[i + (8u + k) * params.quads], u[i + (12u + k) * params.quads]));
  }
  let a = transformed(array(d[0][0], d[1][0], d[2][0], d[3][0]));
  let b = transformed(array(d[0][1], d[1][1], d[2][1], d[3][1]));
  let c = transformed(array(d[0][2], d[1][2], d[2][2], d[3][2]));
  let at = 9u * (params.part * params.quads + i);
  filters[at] = vec4<$T>(vec4f(a[0].x, a[1].x, a[2].x, b[0].x));
  filters[at + 1u] = vec4<$T>(vec4f(b[1].x, b[2].x, c[0].x, c[1].x));
  filters[at + 2u] = vec4<$T>(vec4f(c[2].x, a[0].y, a[1].y, a[2].y));
  filters[at + 3u] = vec4<$T>(vec4f(b[0].y, b[1].y, b[2].y, c[0].y));
  filters[at + 4u] = vec4<$T>(vec4f(c[1].y, c[2].y, a[0].z, a[1].z));
  filters[at + 5u] = vec4<$T>(vec4f(a[2].z, b[0].z, b[1].z, b[2].z));
  filters[at + 6u] = vec4<$T>(vec4f(c[0].z, c[1].z, c[2].z, a[0].w));
  filters[at + 7u] = vec4<$T>(vec4f(a[1].w, a[2].w, b[0].w, b[1].w));
  filters[at + 8u] = vec4<$T>(vec4f(b[2].w, c[0].w, c[1].w, c[2].w));
#else
  let p = vec4f(filters[9u * i]);
  let q = vec4f(filters[9u * i + 1u]);
  let r = vec4f(filters[9u * i + 2u]);
  let s = vec4f(filters[9u * i + 3u]);
  let t = vec4f(filters[9u * i + 4u]);
  let e = vec4f(filters[9u * i + 5u]);
  let f = vec4f(filters[9u * i + 6u]);
  let g = vec4f(filters[9u * i + 7u]);
  let h = vec4f(filters[9u * i + 8u]);
  // row by row
  let a = array(vec4f(p.x, r.y, t.z, f.w), vec4f(p.y, r.z, t.w, g.x), vec4f(p.z, r.w, e.x, g.y));
  let b = array(vec4f(p.w, s.x, e.y, g.z), vec4f(q.x, s.y, e.z, g.w), vec4f(q.y, s.z, e.w, h.x));
  let c = array(vec4f(q.z, s.w, f.x, h.y), vec4f(q.w, t.x, f.y, h.z), vec4f(r.x, t.y, f.z, h.w));
#if FLIP
  let d = array(
    transformed(array(c[2], b[2], a[2])), transformed(array(c[1], b[1], a[1])), transformed(array(c[0], b[0], a[0])));
#else
  let d = array(
    transformed(array(a[0], b[0], c[0])), transformed(array(a[1], b[1], c[1])), transformed(array(a[2], b[2], c[2])));
#endif
  for (var j = 0u; j < 4u; j++) {
    let row = transformed(array(d[0][j], d[1][j], d[2][j]));
    for (var k = 0u; k < 4u; k++) { u[i + (4u * j + k) * params.quads] = row[k]; }
  }
#endif
}
