// 2-D convolution as an implicit matrix product, one subgroup a workgroup: the variant for software adapters.
//
//   out[row, position] = Σ over taps (ky, kx) and channels c of weight[row, c, ky, kx] · x[n, c, y, x of tap and position]
//
// The product is that of matmul_subgroup.wgsl: each lane loads 4 rows × 4 channels of the weights and 4 channels × 4
// positions of the picture, and round l broadcasts lane l's weights. Positions run through the whole batch (n, oy, ox), so
// that small pictures fill the tile. Taps are the outer loop: where a lane's four positions look is worked out once for
// a tap, and serves all channels. Nothing is gathered into memory beforehand. Groups are products of their own.
//
// With TRANSPOSED it is the adjoint: rows are input channels, c runs over output channels, and a position looks at the
// outputs that it contributed to. Which taps those are depends on the position's phase, its remainder by the stride, alone;
// so positions go phase by phase, and a tile walks its own taps only: with a stride of 2 a quarter of them, 2.6 ms where
// walking all of them took 8.7 (96 channels, 8×16×16).
//
// 3×3, 128 channels, 16×16, batch 4 ran at 37–40 GFLOP/s where the bare product of that size takes 48–54; weights laid
// out tap by tap for vec4 loads gave 44–46, not worth a second layout. Where there are 32 channels and more on both sides,
// 3×3 convolutions of stride 1 are Winograd's (winograd.ts), twice as fast.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (batch, groups · channels, h, w)
@group(0) @binding(1) var<storage, read> weight: array<$T>; // (groups · rows, channels, kh, kw); TRANSPOSED: (groups · channels, rows, kh, kw)
@group(0) @binding(2) var<storage, read_write> out: array<$T>; // (batch, groups · rows, oh, ow)
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<$T>; // (groups · rows)
#endif

#include ./geometry.wgsl

const QUAD = vec4u(0u, 1u, 2u, 3u);

fn weights(row_at: u32, at: vec4u, valid: vec4<bool>) -> vec4f {
  let w = vec4<$T>(weight[row_at + at.x], weight[row_at + at.y], weight[row_at + at.z], weight[row_at + at.w]);
  return select(vec4f(), vec4f(w), valid);
}

fn pixels(at: vec4u, valid: vec4<bool>) -> vec4f {
  return select(vec4f(), vec4f(vec4<$T>(x[at.x], x[at.y], x[at.z], x[at.w])), valid);
}

// Element l of an array that must stay in registers, where the compiler can't know l.
fn pick(values: ptr<function, array<vec4f, $ROUNDS>>, l: u32) -> vec4f {
  var value = vec4f();
  for (var i = 0u; i < $ROUNDS; i++) { value = select(value, values[i], i == l); }
  return value;
}

@compute @workgroup_size($SUBGROUP)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  const ROWS = 4u * $ROUNDS;
  const POSITIONS = 4u * $SUBGROUP;
  let channels = params.channels;
  let rows = params.rows;
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
  let down = (rows + ROWS - 1u) / ROWS;
  let across = (params.batch * high * wide + POSITIONS - 1u) / POSITIONS;
  let tile = wg.x + wg.y * groups.x;
  let group = tile / (down * across * phases);
  if (group >= params.groups) { return; }
  let row = tile % down * ROWS;

  let position = tile / down % across * POSITIONS + 4u * lane + QUAD;
  let n = position / (high * wide);
  let py = position % (high * wide) / wide;
  let px = position % wide;
#if TRANSPOSED
  let phase = tile / (down * across) % phases;
  let corner = vec2u(phase % stride.x + params.left, phase / stride.x + params.top);
  let oy = py * stride.y + phase / stride.x;
  let ox = px * stride.x + phase % stride.x;
  let present = (n < vec4u(params.batch)) & (oy < vec4u(params.oh)) & (ox < vec4u(params.ow));
  let taps_x = taps_of(corner.x % stride.x, params.kw, params.dilation_x, stride.x);
  let taps_y = taps_of(corner.y % stride.y, params.kh, params.dilation_y, stride.y);
#else
  let oy = py;
  let ox = px;
  let present = n < vec4u(params.batch);
  let taps_x = vec3u(0u, 1u, params.kw);
  let taps_y = vec3u(0u, 1u, params.kh);
#endif
  let start = (n * params.groups + group) * channels * plane;
  let r = min(row + 4u * lane + QUAD, vec4u(rows - 1u));
#if TRANSPOSED
  let weight_start = (group * channels * rows + r) * kernel;
  let weight_step = rows * kernel;
#else
  let weight_start = (group * rows + r) * channels * kernel;
  let weight_step = kernel;
#endif

  var acc0: array<vec4f, $ROUNDS>; // row + 4·l
  var acc1: array<vec4f, $ROUNDS>; // row + 4·l + 1
  var acc2: array<vec4f, $ROUNDS>;
  var acc3: array<vec4f, $ROUNDS>;
#if BIAS
  let b = group * rows + r;
  let offset = vec4f(vec4<$T>(bias[b.x], bias[b.y], bias[b.z], bias[b.w])); // of this lane's rows
  for (var l = 0u; l < $ROUNDS; l++) {
    let o = subgroupShuffle(offset, l);
    acc0[l] = vec4f(o.x);
    acc1[l] = vec4f(o.y);
    acc2[l] = vec4f(o.z);
    acc3[l] = vec4f(o.w);
  }
#endif
  let taps = taps_y.z * taps_x.z;
  for (var i = 0u; i < taps; i++) {
    let ky = taps_y.x + i / taps_x.z * taps_y.y;
    let kx = taps_x.x + i % taps_x.z * taps_x.y;
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
    let tap = ky * params.kw + kx;
    for (var c = 0u; c < channels; c += 4u) {
      let channel = c + QUAD;
      let valid = channel < vec4u(channels);
      let at = min(channel, vec4u(channels - 1u));
      let weight_at = at * weight_step + tap;
      var w = mat4x4f();
      if (lane < $ROUNDS) {
        w = mat4x4f(
          weights(weight_start.x, weight_at, valid), weights(weight_start.y, weight_at, valid),
          weights(weight_start.z, weight_at, valid), weights(weight_start.w, weight_at, valid));
      }
      let y = mat4x4f(
        pixels(seen + at.x * plane, inside & vec4<bool>(valid.x)), pixels(seen + at.y * plane, inside & vec4<bool>(valid.y)),
        pixels(seen + at.z * plane, inside & vec4<bool>(valid.z)), pixels(seen + at.w * plane, inside & vec4<bool>(valid.w)));
      for (var l = 0u; l < $ROUNDS; l++) {
        acc0[l] += y * subgroupShuffle(w[0], l);
        acc1[l] += y * subgroupShuffle(w[1], l);
        acc2[l] += y * subgroupShuffle(w[2], l);
        acc3[l] += y * subgroupShuffle(w[3], l);
      }
    }
  }

  let result = (n * params.groups + group) * rows * area + oy * params.ow + ox;
  let rounds = (min(rows, row + ROWS) - row + 3u) / 4u; // not to be unrolled: see matmul_subgroup.wgsl
  for (var l = 0u; l < rounds; l++) {
    let sums = array(pick(&acc0, l), pick(&acc1, l), pick(&acc2, l), pick(&acc3, l));
    for (var i = 0u; i < 4u; i++) {
      let at_row = row + 4u * l + i;
      for (var j = 0u; j < 4u; j++) {
        if (at_row < rows && present[j]) { out[result[j] + at_row * area] = $T(sums[i][j]); }
      }
    }
  }
}
