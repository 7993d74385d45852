// 2-D convolution as an implicit matrix product, for adapters with fast workgroup memory.
//
//   out[row, position] = Σ over taps (ky, kx) and channels c of weight[row, c, ky, kx] · x[n, c, y, x of tap and position]
//
// A workgroup makes a square tile: 64 rows × 64 positions by 16×8 threads, each 8×4 in registers; or, where a sample gives a
// GPU fewer than 16 such tiles, 32×32 by 8×8 threads of 4×4. Positions run through the whole batch (n, oy, ox). In each step
// 16 channels of one tap are staged in workgroup memory as f32, as vec4 of four rows and of four positions, so that a thread
// reads two or three vec4 for 32 or 16 multiply-adds. A thread stages the same four positions all along: where they
// look is worked out once for a tap. Rows of the tiles are one vec4 longer than they need be, against bank conflicts.
// Loads are scalar: a tap's neighbours are not aligned, and a row's channels lie kh · kw apart. Groups are products of their
// own.
//
// With TRANSPOSED it is the adjoint: rows are input channels, c runs over output channels, and a position looks at the
// outputs that it contributed to. Which taps those are depends on the position's phase, its remainder by the stride, alone;
// so positions go phase by phase, and a tile walks its own taps only: with a stride of 2 a quarter of them.
//
// Its speed on a GPU has not been measured. On a software adapter, where workgroup memory is no faster than any other and a
// barrier is dear, 3×3 with 128 channels, 16×16, batch 4 runs at 6.2 GFLOP/s, against 35 of conv2d_subgroup.wgsl.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (batch, groups · channels, h, w)
@group(0) @binding(1) var<storage, read> weight: array<$T>; // (groups · rows, channels, kh, kw); TRANSPOSED: (groups · channels, rows, kh, kw)
@group(0) @binding(2) var<storage, read_write> out: array<$T>; // (batch, groups · rows, oh, ow)
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<$T>; // (groups · rows)
#endif

#include ./geometry.wgsl

const TILE: u32 = $TILE; // 64 or 32
const QUADS = TILE / 4u;
const BLOCKS = TILE / 32u; // of four rows, to a thread
const DEPTH = 16u;
const THREADS = 2u * TILE;

const QUAD = vec4u(0u, 1u, 2u, 3u);

var<workgroup> tile_w: array<array<vec4f, QUADS + 1u>, DEPTH>; // (channel, four rows)
var<workgroup> tile_x: array<array<vec4f, QUADS + 1u>, DEPTH>; // (channel, four positions)

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

  // the positions that this thread stages and computes
  let p = thread % QUADS;
  let position = first + 4u * p + QUAD;
  let n = position / (high * wide);
  let py = position % (high * wide) / wide;
  let px = position % wide;
#if TRANSPOSED
  let oy = py * stride.y + offset.y;
  let ox = px * stride.x + offset.x;
#else
  let oy = py;
  let ox = px;
#endif
  let present = (n < vec4u(params.batch)) & (oy < vec4u(params.oh)) & (ox < vec4u(params.ow));
  let start = (n * params.groups + group) * params.channels * plane;
  let r = thread / QUADS * BLOCKS; // the quads of rows that it computes

  var acc0: array<vec4f, BLOCKS>; // row 4·(r + l)
  var acc1: array<vec4f, BLOCKS>; // row 4·(r + l) + 1
  var acc2: array<vec4f, BLOCKS>;
  var acc3: array<vec4f, BLOCKS>;
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
    let inside = present & (iy < vec4u(params.h)) & (ix < vec4u(params.w));
    let seen = select(vec4u(), start + iy * params.w + ix, inside);
    for (var c = 0u; c < params.channels; c += DEPTH) {
      for (var i = thread; i < QUADS * DEPTH; i += THREADS) {
        // Neighbouring threads load what lies closest together.
#if TRANSPOSED
        let rw = i % QUADS; let cw = i / QUADS;
        let rows = row + 4u * rw + QUAD;
        let at = ((group * params.channels + c + cw) * params.rows + rows) * kernel + tap;
#else
        let rw = i / DEPTH; let cw = i % DEPTH;
        let rows = row + 4u * rw + QUAD;
        let at = ((group * params.rows + rows) * params.channels + c + cw) * kernel + tap;
#endif
        tile_w[cw][rw] = weights(at, (rows < vec4u(params.rows)) & vec4<bool>(c + cw < params.channels));
        let cx = i / QUADS;
        tile_x[cx][p] = pixels(seen + (c + cx) * plane, inside & vec4<bool>(c + cx < params.channels));
      }
      workgroupBarrier();
      for (var i = 0u; i < DEPTH; i++) {
        let y = tile_x[i][p];
        for (var l = 0u; l < BLOCKS; l++) {
          let w = tile_w[i][r + l];
          acc0[l] = fma(vec4f(w.x), y, acc0[l]);
          acc1[l] = fma(vec4f(w.y), y, acc1[l]);
          acc2[l] = fma(vec4f(w.z), y, acc2[l]);
          acc3[l] = fma(vec4f(w.w), y, acc3[l]);
        }
      }
      workgroupBarrier();
    }
  }

  let result = n * params.groups * params.rows * area + oy * params.ow + ox;
  for (var l = 0u; l < BLOCKS; l++) {
    let sums = array(acc0[l], acc1[l], acc2[l], acc3[l]);
    for (var i = 0u; i < 4u; i++) {
      let at_row = row + 4u * (r + l) + i;
      if (at_row >= params.rows) { continue; }
      let out_row = group * params.rows + at_row;
      var value = sums[i];
#if BIAS
      value += f32(bias[out_row]);
#endif
      for (var j = 0u; j < 4u; j++) {
        if (present[j]) { out[result[j] + out_row * area] = $T(value[j]); }
      }
    }
  }
}

fn weights(at: vec4u, valid: vec4<bool>) -> vec4f {
  let a = select(vec4u(), at, valid);
  return select(vec4f(), vec4f(vec4<$T>(weight[a.x], weight[a.y], weight[a.z], weight[a.w])), valid);
}

fn pixels(at: vec4u, valid: vec4<bool>) -> vec4f {
  let a = select(vec4u(), at, valid);
  return select(vec4f(), vec4f(vec4<$T>(x[a.x], x[a.y], x[a.z], x[a.w])), valid);
}
