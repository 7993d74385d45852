// 2-D convolution as an implicit matrix product, for adapters with fast workgroup memory.
//
//   out[row, position] = Σ over taps (ky, kx) and channels c of weight[row, c, ky, kx] · x[n, c, y, x of tap and position]
//
// The tile is that of matmul.wgsl: 16×8 threads make 64 rows × 64 positions, 8×4 a thread, from steps of 16 channels of one
// tap staged in workgroup memory as f32. Where a sample gives a GPU fewer than 16 such tiles, 8×8 threads make 32×32, 4×4 a
// thread. Positions run through the whole batch (n, oy, ox). A thread stages a single position (neighbouring threads
// neighbouring ones), so where it looks is worked out once for a tap. Loads are scalar: a tap's four neighbours are not
// aligned, and a row's channels lie kh · kw apart. Groups are products of their own.
//
// With TRANSPOSED it is the adjoint: rows are input channels, c runs over output channels, and a position looks at the
// outputs that it contributed to. Which taps those are depends on the position's phase, its remainder by the stride, alone;
// so positions go phase by phase, and a tile walks its own taps only: with a stride of 2 a quarter of them.
//
// Its speed on a GPU has not been measured.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (batch, groups · channels, h, w)
@group(0) @binding(1) var<storage, read> weight: array<$T>; // (groups · rows, channels, kh, kw); TRANSPOSED: (groups · channels, rows, kh, kw)
@group(0) @binding(2) var<storage, read_write> out: array<$T>; // (batch, groups · rows, oh, ow)
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<$T>; // (groups · rows)
#endif

#include ./geometry.wgsl

const TILE = $TILE;
const ROWS = $ROWS; // of a thread
const DEPTH = 16u;
const THREADS = TILE / ROWS * TILE / 4u;

var<workgroup> tile_w: array<array<f32, TILE + 4u>, DEPTH>; // (channel, row), rows padded against bank conflicts
var<workgroup> tile_x: array<array<f32, TILE + 4u>, DEPTH>; // (channel, position)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let plane = params.h * params.w;
  let area = params.oh * params.ow;
  let kernel = params.kh * params.kw;
  let stride = vec2u(params.stride_x, params.stride_y);
#if TRANSPOSED
  let phases = stride.x * stride.y;
  let wide = (params.ow + stride.x - 1u) / stride.x;
  let high = (params.oh + stride.y - 1u) / stride.y;
#else
  let phases = 1u;
  let wide = params.ow;
  let high = params.oh;
#endif
  let down = (params.rows + TILE - 1u) / TILE;
  let across = (params.batch * high * wide + TILE - 1u) / TILE;
  let tile = wg.x + wg.y * groups.x;
  let group = tile / (down * across * phases);
  if (group >= params.groups) { return; }
  let row = tile % down * TILE;
  let first = tile / down % across * TILE;
#if TRANSPOSED
  let phase = tile / (down * across) % phases;
  let offset = vec2u(phase % stride.x, phase / stride.x);
  let corner = offset + vec2u(params.left, params.top);
  let taps_x = taps_of(corner.x % stride.x, params.kw, params.dilation_x, stride.x);
  let taps_y = taps_of(corner.y % stride.y, params.kh, params.dilation_y, stride.y);
#else
  let taps_x = vec3u(0u, 1u, params.kw);
  let taps_y = vec3u(0u, 1u, params.kh);
#endif

  // the position that this thread stages
  let position = first + thread % TILE;
  let n = position / (high * wide);
  let py = position % (high * wide) / wide;
  let px = position % wide;
  let start = (n * params.groups + group) * params.channels * plane;
  // the rows and positions that it computes
  let r = thread / (TILE / 4u) * ROWS;
  let p = thread % (TILE / 4u) * 4u;

  var acc: array<vec4f, ROWS>;
  let taps = taps_y.z * taps_x.z;
  for (var t = 0u; t < taps; t++) {
    let ky = taps_y.x + t / taps_x.z * taps_y.y;
    let kx = taps_x.x + t % taps_x.z * taps_x.y;
    let tap = ky * params.kw + kx;
    // Coordinates below 0 wrap to huge ones, which are outside too.
#if TRANSPOSED
    let iy = py + u32(i32(corner.y - ky * params.dilation_y) / i32(stride.y));
    let ix = px + u32(i32(corner.x - kx * params.dilation_x) / i32(stride.x));
#else
    let iy = py * stride.y + ky * params.dilation_y - params.top;
    let ix = px * stride.x + kx * params.dilation_x - params.left;
#endif
    let inside = n < params.batch && iy < params.h && ix < params.w;
    let seen = start + iy * params.w + ix;
    for (var c = 0u; c < params.channels; c += DEPTH) {
      for (var i = thread; i < TILE * DEPTH; i += THREADS) {
#if TRANSPOSED
        let rw = i % TILE; let cw = i / TILE;
        let at = ((group * params.channels + c + cw) * params.rows + row + rw) * kernel + tap;
#else
        let rw = i / DEPTH; let cw = i % DEPTH;
        let at = ((group * params.rows + row + rw) * params.channels + c + cw) * kernel + tap;
#endif
        tile_w[cw][rw] = 0.0;
        if (row + rw < params.rows && c + cw < params.channels) { tile_w[cw][rw] = f32(weight[at]); }
        let cx = i / TILE;
        tile_x[cx][thread % TILE] = 0.0;
        if (inside && c + cx < params.channels) { tile_x[cx][thread % TILE] = f32(x[seen + (c + cx) * plane]); }
      }
      workgroupBarrier();
      for (var i = 0u; i < DEPTH; i++) {
        let y = vec4f(tile_x[i][p], tile_x[i][p + 1u], tile_x[i][p + 2u], tile_x[i][p + 3u]);
        for (var j = 0u; j < ROWS; j++) { acc[j] = fma(vec4f(tile_w[i][r + j]), y, acc[j]); }
      }
      workgroupBarrier();
    }
  }

  for (var i = 0u; i < 4u; i++) {
    let at = first + p + i;
    let sample = at / (high * wide);
    var oy = at % (high * wide) / wide;
    var ox = at % wide;
#if TRANSPOSED
    oy = oy * stride.y + offset.y;
    ox = ox * stride.x + offset.x;
#endif
    if (sample >= params.batch || oy >= params.oh || ox >= params.ow) { continue; }
    for (var j = 0u; j < ROWS; j++) {
      if (row + r + j >= params.rows) { continue; }
      let out_row = group * params.rows + row + r + j;
      var value = acc[j][i];
#if BIAS
      value += f32(bias[out_row]);
#endif
      out[(sample * params.groups * params.rows + out_row) * area + oy * params.ow + ox] = $T(value);
    }
  }
}
