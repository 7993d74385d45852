// 2-D convolution as an implicit matrix product, for adapters with fast workgroup memory.
//
//   out[row, position] = Σ over taps (ky, kx) and channels c of weight[row, c, ky, kx] · x[n, c, y, x of tap and position]
//
// The tile is that of matmul.wgsl: 16×8 threads make 64 rows × 64 positions, 8×4 a thread, from steps of 16 channels of one
// tap staged in workgroup memory. Positions run through the whole batch (n, oy, ox). A thread stages a single position
// (neighbouring threads neighbouring ones), so where it looks is worked out once for a tap.
//
// With TRANSPOSED it is the gradient with respect to the input: rows are input channels, c runs over output channels, and
// a position looks at the outputs that it contributed to.

@group(0) @binding(0) var<storage, read> x: array<f32>; // (batch, channels, h, w)
@group(0) @binding(1) var<storage, read> weight: array<f32>; // (rows, channels, kh, kw); TRANSPOSED: (channels, rows, kh, kw)
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // (batch, rows, oh, ow)
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>; // (rows)
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

var<workgroup> tile_w: array<array<f32, 68>, 16>; // (channel, row), rows padded against bank conflicts
var<workgroup> tile_x: array<array<f32, 68>, 16>; // (channel, position)

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let area = params.oh * params.ow;
  let plane = params.h * params.w;
  let taps = params.kh * params.kw;
  let positions = params.batch * area;
  let down = (params.rows + TILE - 1u) / TILE;
  let group = wg.x + wg.y * groups.x;
  let row = group % down * TILE;
  let first = group / down * TILE;
  if (first >= positions) { return; }

  // the position that this thread stages
  let position = first + thread % TILE;
  let n = position / area;
  let oy = position % area / params.ow;
  let ox = position % params.ow;
  let start = n * params.channels * plane;
  // the rows and positions that it computes
  let r = thread / 16u * 8u;
  let p = thread % 16u * 4u;

  var acc: array<vec4f, 8>;
  for (var tap = 0u; tap < taps; tap++) {
    // Coordinates below 0 wrap to huge ones, which are outside too.
#if TRANSPOSED
    let ty = oy + params.top - tap / params.kw;
    let tx = ox + params.left - tap % params.kw;
    let iy = ty / params.stride_y;
    let ix = tx / params.stride_x;
    let inside = position < positions && iy < params.h && ix < params.w && iy * params.stride_y == ty && ix * params.stride_x == tx;
#else
    let iy = oy * params.stride_y + tap / params.kw - params.top;
    let ix = ox * params.stride_x + tap % params.kw - params.left;
    let inside = position < positions && iy < params.h && ix < params.w;
#endif
    let seen = start + iy * params.w + ix;
    for (var c = 0u; c < params.channels; c += DEPTH) {
      for (var i = thread; i < TILE * DEPTH; i += THREADS) {
#if TRANSPOSED
        let rw = i % TILE; let cw = i / TILE;
        let at = ((c + cw) * params.rows + row + rw) * taps + tap;
#else
        let rw = i / DEPTH; let cw = i % DEPTH;
        let at = ((row + rw) * params.channels + c + cw) * taps + tap;
#endif
        tile_w[cw][rw] = 0.0;
        if (row + rw < params.rows && c + cw < params.channels) { tile_w[cw][rw] = weight[at]; }
        let cx = i / TILE;
        tile_x[cx][thread % TILE] = 0.0;
        if (inside && c + cx < params.channels) { tile_x[cx][thread % TILE] = x[seen + (c + cx) * plane]; }
      }
      workgroupBarrier();
      for (var i = 0u; i < DEPTH; i++) {
        let y = vec4f(tile_x[i][p], tile_x[i][p + 1u], tile_x[i][p + 2u], tile_x[i][p + 3u]);
        for (var j = 0u; j < 8u; j++) { acc[j] = fma(vec4f(tile_w[i][r + j]), y, acc[j]); }
      }
      workgroupBarrier();
    }
  }

  for (var i = 0u; i < 4u; i++) {
    let at = first + p + i;
    if (at >= positions) { continue; }
    let result = at / area * params.rows * area + at % area;
    for (var j = 0u; j < 8u; j++) {
      let at_row = row + r + j;
      if (at_row >= params.rows) { continue; }
      var value = acc[j][i];
#if BIAS
      value += bias[at_row];
#endif
      out[result + at_row * area] = value;
    }
  }
}
