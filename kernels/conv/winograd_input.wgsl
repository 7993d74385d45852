// The first step of a 3×3 convolution by Winograd's F(2×2, 3×3): tiles of 4×4 pixels, V = Bᵀ d B. See winograd.ts.
//
//   Bᵀ = 1  0 −1  0
//        0  1  1  0
//        0 −1  1  0
//        0  1  0 −1
//
// Tiles overlap: each makes 2×2 results, so the next one begins two pixels on. A thread makes four tiles, one in each
// component of its vectors, and stores sixteen vec4: 0.87 ms where a thread a tile takes 1.06 (8×96×16²; software adapter).
// With QUAD the four are neighbours in a row and fill it with others of their like: their ten pixels a line are two vec4
// and one pixel at either side, and it takes 0.55.

#if QUAD
@group(0) @binding(0) var<storage, read> x: array<vec4<$T>>; // (N, channels, h, w)
#else
@group(0) @binding(0) var<storage, read> x: array<$T>; // (N, channels, h, w)
#endif
@group(0) @binding(1) var<storage, read_write> v: array<vec4f>; // (16, channels, tiles)

struct Params {
  first: u32, // sample that the tiles begin with
  samples: u32,
  channels: u32,
  h: u32,
  w: u32,
  top: u32,
  left: u32,
  down: u32, // tiles in a column of the picture
  across: u32, // tiles in a row
  tiles: u32, // samples · down · across, rounded up to fours
}

fn transformed(d: array<vec4f, 4>) -> array<vec4f, 4> {
  return array(d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let quads = params.tiles / 4u;
  let i = (wg.x + wg.y * groups.x) * 64u + thread;
  if (i >= params.channels * quads) { return; }
  let each = params.down * params.across;

  var d: array<array<vec4f, 4>, 4>; // (column, row) of four tiles
  // Coordinates below 0 wrap to huge ones, which are outside too.
#if QUAD
  let tile = 4u * (i % quads);
  let n = tile / each;
  let y = 2u * (tile % each / params.across) - params.top;
  let col = 2u * (tile % params.across);
  let start = ((params.first + n) * params.channels + i / quads) * params.h;
  for (var j = 0u; j < 4u; j++) {
    let inside = n < params.samples && y + j < params.h;
    let at = select(0u, ((start + y + j) * params.w + col) / 4u, inside);
    let before = inside && col > 0u;
    let after = inside && col + 8u < params.w;
    let l = select(0.0, f32(x[select(0u, at - 1u, before)].w), before);
    let p = select(vec4f(), vec4f(x[at]), inside);
    let q = select(vec4f(), vec4f(x[at + 1u]), inside);
    let r = select(0.0, f32(x[select(0u, at + 2u, after)].x), after);
    d[0][j] = vec4f(l, p.y, p.w, q.y);
    d[1][j] = vec4f(p.xz, q.xz);
    d[2][j] = vec4f(p.yw, q.yw);
    d[3][j] = vec4f(p.z, q.xz, r);
  }
#else
  let tile = 4u * (i % quads) + vec4u(0u, 1u, 2u, 3u);
  let n = tile / each;
  let y = 2u * (tile % each / params.across) - params.top;
  let start = ((params.first + n) * params.channels + i / quads) * params.h;
  for (var k = 0u; k < 4u; k++) {
    let col = 2u * (tile % params.across) - params.left + k;
    for (var j = 0u; j < 4u; j++) {
      let inside = (n < vec4u(params.samples)) & (y + j < vec4u(params.h)) & (col < vec4u(params.w));
      let at = select(vec4u(), (start + y + j) * params.w + col, inside);
      d[k][j] = select(vec4f(), vec4f(vec4<$T>(x[at.x], x[at.y], x[at.z], x[at.w])), inside);
    }
  }
#endif

  let step = params.channels * quads;
  let c0 = transformed(d[0]);
  let c1 = transformed(d[1]);
  let c2 = transformed(d[2]);
  let c3 = transformed(d[3]);
  for (var j = 0u; j < 4u; j++) {
    let row = transformed(array(c0[j], c1[j], c2[j], c3[j]));
    for (var k = 0u; k < 4u; k++) { v[i + (4u * j + k) * step] = row[k]; }
  }
}
