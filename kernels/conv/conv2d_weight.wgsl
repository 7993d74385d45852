// Gradient of a 2-D convolution with respect to its weight, for adapters with fast workgroup memory.
//
//   out[row, (c, ky, kx)] = Σ over n, oy, ox of grad[n, row, oy, ox] · x[n, c, oy·stride + ky·dilation − top, ox·… − left]
//
// The tile is that of conv2d.wgsl with positions (oy, ox) of one sample as its inner dimension: 64 rows × 64 columns
// (c, ky, kx) by 16×8 threads, each 8×4 in registers, or 32×32 by 8×8 threads of 4×4 where there are fewer than 16 of the
// larger ones. In each step 16 positions are staged in workgroup memory as f32, as vec4 of four rows and of four columns.
// A thread stages one of the 16 positions for eight rows and eight columns, neighbouring threads neighbouring positions.
// The order of additions is that of the samples in the batch. Groups are products of their own.
//
// With PARTS, for weights of few tiles, workgroups along z each have an equal run of positions of one sample, and
// parts.wgsl adds their results in that order.
//
// Its speed on a GPU has not been measured.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (batch, groups · channels, h, w)
@group(0) @binding(1) var<storage, read> grad: array<$T>; // (batch, groups · rows, oh, ow)
@group(0) @binding(2) var<storage, read_write> out: array<$OUT>; // (groups · rows, channels, kh, kw), with PARTS (parts, …)

#include ./geometry.wgsl

const TILE: u32 = $TILE; // 64 or 32
const QUADS = TILE / 4u;
const BLOCKS = TILE / 32u; // of four rows, to a thread
const DEPTH = 16u;
const THREADS = 2u * TILE;

const QUAD = vec4u(0u, 1u, 2u, 3u);

var<workgroup> tile_g: array<array<vec4f, QUADS + 1u>, DEPTH>; // (position, four rows)
var<workgroup> tile_x: array<array<vec4f, QUADS + 1u>, DEPTH>; // (position, four columns)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let area = params.oh * params.ow;
  let plane = params.h * params.w;
  let taps = params.kh * params.kw;
  let columns = params.channels * taps;
  let down = (params.rows + TILE - 1u) / TILE;
  let across = (columns + TILE - 1u) / TILE;
#if PARTS
  let tile = wg.x;
  let each = groups.z / params.batch; // parts of a sample
  let share = (area + each - 1u) / each;
  let samples = vec2u(wg.z / each, wg.z / each + 1u);
  let positions = min(vec2u(area), vec2u(wg.z % each, wg.z % each + 1u) * share);
#else
  let tile = wg.x + wg.y * groups.x;
  let samples = vec2u(0u, params.batch);
  let positions = vec2u(0u, area);
#endif
  let group = tile / (down * across);
  if (group >= params.groups) { return; }
  let row = tile % down * TILE;
  let first = tile / down % across * TILE;

  // The columns that this thread stages: where they begin in a sample, and their tap.
  let line = thread / DEPTH; // quad of rows and of columns; the other one lies THREADS / DEPTH further
  var begin: array<vec4u, 2>;
  var dy: array<vec4u, 2>; // wraps below 0; so does the coordinate, back into the picture or out of it
  var dx: array<vec4u, 2>;
  for (var i = 0u; i < 2u; i++) {
    let column = min(first + 4u * (line + THREADS / DEPTH * i) + QUAD, vec4u(columns - 1u));
    begin[i] = (group * params.channels + column / taps) * plane;
    dy[i] = column % taps / params.kw * params.dilation_y - params.top;
    dx[i] = column % taps % params.kw * params.dilation_x - params.left;
  }
  // the quads of rows, and the quad of columns, that it computes
  let r = thread / QUADS * BLOCKS;
  let c = thread % QUADS;

  var acc0: array<vec4f, BLOCKS>; // row 4·(r + l)
  var acc1: array<vec4f, BLOCKS>; // row 4·(r + l) + 1
  var acc2: array<vec4f, BLOCKS>;
  var acc3: array<vec4f, BLOCKS>;
  for (var n = samples.x; n < samples.y; n++) {
    let start = n * params.groups * params.channels * plane;
    let grad_start = (n * params.groups + group) * params.rows * area;
    for (var p = positions.x; p < positions.y; p += DEPTH) {
      let position = p + thread % DEPTH;
      let present = vec4<bool>(position < positions.y);
      let oy = position / params.ow * params.stride_y;
      let ox = position % params.ow * params.stride_x;
      for (var i = 0u; i < 2u; i++) {
        let quad = line + THREADS / DEPTH * i;
        let rows = row + 4u * quad + QUAD;
        tile_g[thread % DEPTH][quad] = upstream(grad_start + rows * area + position, present & (rows < vec4u(params.rows)));
        let iy = oy + dy[i];
        let ix = ox + dx[i];
        let inside = present & (iy < vec4u(params.h)) & (ix < vec4u(params.w));
        tile_x[thread % DEPTH][quad] = pixels(start + begin[i] + iy * params.w + ix, inside);
      }
      workgroupBarrier();
      for (var i = 0u; i < DEPTH; i++) {
        let y = tile_x[i][c];
        for (var l = 0u; l < BLOCKS; l++) {
          let g = tile_g[i][r + l];
          acc0[l] = fma(vec4f(g.x), y, acc0[l]);
          acc1[l] = fma(vec4f(g.y), y, acc1[l]);
          acc2[l] = fma(vec4f(g.z), y, acc2[l]);
          acc3[l] = fma(vec4f(g.w), y, acc3[l]);
        }
      }
      workgroupBarrier();
    }
  }

  for (var l = 0u; l < BLOCKS; l++) {
    let sums = array(acc0[l], acc1[l], acc2[l], acc3[l]);
    for (var i = 0u; i < 4u; i++) {
      let at_row = row + 4u * (r + l) + i;
      if (at_row >= params.rows) { continue; }
      var at = (group * params.rows + at_row) * columns + first + 4u * c;
#if PARTS
      at += wg.z * params.groups * params.rows * columns;
#endif
      for (var j = 0u; j < 4u; j++) {
        if (first + 4u * c + j < columns) { out[at + j] = $OUT(sums[i][j]); }
      }
    }
  }
}

fn upstream(at: vec4u, valid: vec4<bool>) -> vec4f {
  let a = select(vec4u(), at, valid);
  return select(vec4f(), vec4f(vec4<$T>(grad[a.x], grad[a.y], grad[a.z], grad[a.w])), valid);
}

fn pixels(at: vec4u, valid: vec4<bool>) -> vec4f {
  let a = select(vec4u(), at, valid);
  return select(vec4f(), vec4f(vec4<$T>(x[a.x], x[a.y], x[a.z], x[a.w])), valid);
}
