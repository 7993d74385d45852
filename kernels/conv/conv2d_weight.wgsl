// Gradient of a 2-D convolution with respect to its weight, for adapters with fast workgroup memory.
//
//   out[row, (c, ky, kx)] = Σ over n, oy, ox of grad[n, row, oy, ox] · x[n, c, oy·stride + ky·dilation − top, ox·… − left]
//
// The tile is that of matmul.wgsl with positions (oy, ox) of one sample as its inner dimension: 16×8 threads make 64 rows ×
// 64 columns (c, ky, kx), 8×4 a thread, from steps of 16 positions staged in workgroup memory as f32. Where that gives a GPU
// fewer than 16 tiles, 8×8 threads make 32×32, 4×4 a thread. A thread stages one of the 16 positions for eight
// columns, neighbouring threads neighbouring positions. The order of additions is that of the samples in the batch.
// Groups are products of their own.
//
// With PARTS, for weights of few tiles, workgroups along z each have an equal run of positions of one sample, and
// parts.wgsl adds their results in that order.
//
// Its speed on a GPU has not been measured.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (batch, groups · channels, h, w)
@group(0) @binding(1) var<storage, read> grad: array<$T>; // (batch, groups · rows, oh, ow)
@group(0) @binding(2) var<storage, read_write> out: array<$OUT>; // (groups · rows, channels, kh, kw), with PARTS (parts, …)

#include ./geometry.wgsl

const TILE = $TILE;
const ROWS = $ROWS; // of a thread
const DEPTH = 16u;
const THREADS = TILE / ROWS * TILE / 4u;

var<workgroup> tile_g: array<array<f32, TILE + 4u>, DEPTH>; // (position, row), rows padded against bank conflicts
var<workgroup> tile_x: array<array<f32, TILE + 4u>, DEPTH>; // (position, column)

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

  // the columns that this thread stages: where they begin in a sample, and their tap
  var begin: array<u32, 8>;
  var dy: array<u32, 8>; // wraps below 0; so does the coordinate, back into the picture or out of it
  var dx: array<u32, 8>;
  for (var i = 0u; i < 8u; i++) {
    let column = min(first + thread / DEPTH + THREADS / DEPTH * i, columns - 1u);
    begin[i] = (group * params.channels + column / taps) * plane;
    dy[i] = column % taps / params.kw * params.dilation_y - params.top;
    dx[i] = column % taps % params.kw * params.dilation_x - params.left;
  }
  // the rows and columns that it computes
  let r = thread / (TILE / 4u) * ROWS;
  let c = thread % (TILE / 4u) * 4u;

  var acc: array<vec4f, ROWS>;
  for (var n = samples.x; n < samples.y; n++) {
    let start = n * params.groups * params.channels * plane;
    for (var p = positions.x; p < positions.y; p += DEPTH) {
      let position = p + thread % DEPTH;
      let oy = position / params.ow * params.stride_y;
      let ox = position % params.ow * params.stride_x;
      for (var i = 0u; i < 8u; i++) {
        let line = thread / DEPTH + THREADS / DEPTH * i; // the row, and the column, of the tile
        tile_g[thread % DEPTH][line] = 0.0;
        if (position < positions.y && row + line < params.rows) {
          let at_row = (n * params.groups + group) * params.rows + row + line;
          tile_g[thread % DEPTH][line] = f32(grad[at_row * area + position]);
        }
        let iy = oy + dy[i];
        let ix = ox + dx[i];
        tile_x[thread % DEPTH][line] = 0.0;
        if (position < positions.y && iy < params.h && ix < params.w) {
          tile_x[thread % DEPTH][line] = f32(x[start + begin[i] + iy * params.w + ix]);
        }
      }
      workgroupBarrier();
      for (var i = 0u; i < DEPTH; i++) {
        let y = vec4f(tile_x[i][c], tile_x[i][c + 1u], tile_x[i][c + 2u], tile_x[i][c + 3u]);
        for (var j = 0u; j < ROWS; j++) { acc[j] = fma(vec4f(tile_g[i][r + j]), y, acc[j]); }
      }
      workgroupBarrier();
    }
  }

  for (var j = 0u; j < ROWS; j++) {
    if (row + r + j >= params.rows) { continue; }
    var at = (group * params.rows + row + r + j) * columns;
#if PARTS
    at += wg.z * params.groups * params.rows * columns;
#endif
    for (var i = 0u; i < 4u; i++) {
      if (first + c + i < columns) { out[at + first + c + i] = $OUT(acc[j][i]); }
    }
  }
}
