// Gradient of a 2-D convolution with respect to its weight, for adapters with fast workgroup memory.
//
//   out[row, (c, ky, kx)] = Σ over n, oy, ox of grad[n, row, oy, ox] · x[n, c, oy·stride + ky − top, ox·stride + kx − left]
//
// The tile is that of matmul.wgsl with positions (oy, ox) of one sample as its inner dimension: 16×8 threads make 64 rows ×
// 64 columns (c, ky, kx), 8×4 a thread, from steps of 16 positions staged in workgroup memory. A thread stages one
// of the 16 positions for eight columns, neighbouring threads neighbouring positions. The order of additions is that of
// the samples in the batch.

@group(0) @binding(0) var<storage, read> x: array<f32>; // (batch, channels, h, w)
@group(0) @binding(1) var<storage, read> grad: array<f32>; // (batch, rows, oh, ow)
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // (rows, channels, kh, kw)
#if ROW_SUM
@group(0) @binding(3) var<storage, read_write> row_sum: array<f32>; // (rows): the gradient of the bias
#endif

struct Params {
  batch: u32,
  channels: u32,
  h: u32,
  w: u32,
  rows: u32,
  oh: u32,
  ow: u32,
  kh: u32,
  kw: u32,
  stride_y: u32,
  stride_x: u32,
  top: u32,
  left: u32,
}

const TILE = 64u;
const DEPTH = 16u;
const THREADS = 128u;

var<workgroup> tile_g: array<array<f32, 68>, 16>; // (position, row), rows padded against bank conflicts
var<workgroup> tile_x: array<array<f32, 68>, 16>; // (position, column)

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let area = params.oh * params.ow;
  let plane = params.h * params.w;
  let taps = params.kh * params.kw;
  let columns = params.channels * taps;
  let down = (params.rows + TILE - 1u) / TILE;
  let group = wg.x + wg.y * groups.x;
  let row = group % down * TILE;
  let first = group / down * TILE;
  if (first >= columns) { return; }

  // the columns that this thread stages: where they begin in a sample, and their tap
  var begin: array<u32, 8>;
  var dy: array<u32, 8>; // wraps below 0; so does the coordinate, back into the picture or out of it
  var dx: array<u32, 8>;
  for (var i = 0u; i < 8u; i++) {
    let column = min(first + thread / DEPTH + 8u * i, columns - 1u);
    begin[i] = column / taps * plane;
    dy[i] = column % taps / params.kw - params.top;
    dx[i] = column % taps % params.kw - params.left;
  }
  // the rows and columns that it computes
  let r = thread / 16u * 8u;
  let c = thread % 16u * 4u;

  var acc: array<vec4f, 8>;
#if ROW_SUM
  var total: array<f32, 8>;
#endif
  for (var n = 0u; n < params.batch; n++) {
    for (var p = 0u; p < area; p += DEPTH) {
      let position = p + thread % DEPTH;
      let oy = position / params.ow * params.stride_y;
      let ox = position % params.ow * params.stride_x;
      for (var i = 0u; i < 8u; i++) {
        let line = thread / DEPTH + 8u * i; // the row, and the column, of the tile
        tile_g[thread % DEPTH][line] = 0.0;
        if (position < area && row + line < params.rows) {
          tile_g[thread % DEPTH][line] = grad[(n * params.rows + row + line) * area + position];
        }
        let iy = oy + dy[i];
        let ix = ox + dx[i];
        tile_x[thread % DEPTH][line] = 0.0;
        if (position < area && iy < params.h && ix < params.w) {
          tile_x[thread % DEPTH][line] = x[n * params.channels * plane + begin[i] + iy * params.w + ix];
        }
      }
      workgroupBarrier();
      for (var i = 0u; i < DEPTH; i++) {
        let y = vec4f(tile_x[i][c], tile_x[i][c + 1u], tile_x[i][c + 2u], tile_x[i][c + 3u]);
        for (var j = 0u; j < 8u; j++) {
          let g = tile_g[i][r + j];
          acc[j] = fma(vec4f(g), y, acc[j]);
#if ROW_SUM
          total[j] += g;
#endif
        }
      }
      workgroupBarrier();
    }
  }

  for (var j = 0u; j < 8u; j++) {
    let at_row = row + r + j;
    if (at_row >= params.rows) { continue; }
    for (var i = 0u; i < 4u; i++) {
      if (first + c + i < columns) { out[at_row * columns + first + c + i] = acc[j][i]; }
    }
#if ROW_SUM
    if (first == 0u && c == 0u) { row_sum[at_row] = total[j]; }
#endif
  }
}
