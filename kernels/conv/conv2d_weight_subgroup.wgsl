// Gradient of a 2-D convolution with respect to its weight, one subgroup a workgroup: the variant for software adapters.
//
//   out[row, (c, ky, kx)] = Σ over n, oy, ox of grad[n, row, oy, ox] · x[n, c, oy·stride + ky·dilation − top, ox·… − left]
//
// The product is that of matmul_subgroup.wgsl with positions as its inner dimension: each lane loads 4 rows × 4 positions of the
// upstream gradient and 4 positions × 4 columns (c, ky, kx) of the picture. Positions go row by row of the picture, four
// neighbours a step, so that all but the horizontal coordinate is worked out once for a row. The order of additions is
// that of the samples in the batch. Groups are products of their own.
//
// Nothing is staged: blocks and sums are in registers, as in matmul_subgroup.wgsl. 3×3 with 96 channels 8×16×16, 192 channels
// 8×8×8 and 48 channels 8×16×16 run at 36, 30 and 31 GFLOP/s on a software adapter (winograd.ts).

@group(0) @binding(0) var<storage, read> x: array<$T>; // (batch, groups · channels, h, w)
@group(0) @binding(1) var<storage, read> grad: array<$T>; // (batch, groups · rows, oh, ow)
@group(0) @binding(2) var<storage, read_write> out: array<$T>; // (groups · rows, channels, kh, kw)

#include ./geometry.wgsl

const QUAD = vec4u(0u, 1u, 2u, 3u);

fn upstream(row_at: u32, at: vec4u, valid: vec4<bool>) -> vec4f {
  let g = vec4<$T>(grad[row_at + at.x], grad[row_at + at.y], grad[row_at + at.z], grad[row_at + at.w]);
  return select(vec4f(), vec4f(g), valid);
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
  const COLUMNS = 4u * $SUBGROUP;
  let batch = params.batch;
  let rows = params.rows;
  let edge = vec2u(params.w, params.h);
  let size = vec2u(params.ow, params.oh);
  let stride = vec2u(params.stride_x, params.stride_y);
  let area = size.x * size.y;
  let plane = edge.x * edge.y;
  let taps = params.kh * params.kw;
  let columns = params.channels * taps;
  let down = (rows + ROWS - 1u) / ROWS;
  let across = (columns + COLUMNS - 1u) / COLUMNS;
  let tile = wg.x + wg.y * groups.x;
  let group = tile / (down * across);
  if (group >= params.groups) { return; }
  let row = tile % down * ROWS;

  let r = group * rows + min(row + 4u * lane + QUAD, vec4u(rows - 1u));
  let col = tile / down % across * COLUMNS + 4u * lane;
  let column = min(col + QUAD, vec4u(columns - 1u));
  let tap = column % taps;
  // Wraps below 0; so does the coordinate, back into the picture or out of it.
  let dy = tap / params.kw * params.dilation_y - params.top;
  let dx = tap % params.kw * params.dilation_x - params.left;
  let channel = (group * params.channels + column / taps) * plane;
  let sample = params.groups * params.channels * plane;
  let grad_sample = params.groups * rows;

  var acc0: array<vec4f, $ROUNDS>; // row + 4·l
  var acc1: array<vec4f, $ROUNDS>; // row + 4·l + 1
  var acc2: array<vec4f, $ROUNDS>;
  var acc3: array<vec4f, $ROUNDS>;
  for (var n = 0u; n < batch; n++) {
    for (var oy = 0u; oy < size.y; oy++) {
      let iy = oy * stride.y + dy;
      let inside_y = iy < vec4u(edge.y);
      let start = n * sample + channel + iy * edge.x;
      let grad_start = (n * grad_sample + r) * area + oy * size.x;
      for (var ox = 0u; ox < size.x; ox += 4u) {
        let valid = ox + QUAD < vec4u(size.x);
        let at = min(ox + QUAD, vec4u(size.x - 1u));
        var g = mat4x4f();
        if (lane < $ROUNDS) {
          g = mat4x4f(
            upstream(grad_start.x, at, valid), upstream(grad_start.y, at, valid),
            upstream(grad_start.z, at, valid), upstream(grad_start.w, at, valid));
        }
        let ix0 = at.x * stride.x + dx;
        let ix1 = at.y * stride.x + dx;
        let ix2 = at.z * stride.x + dx;
        let ix3 = at.w * stride.x + dx;
        let e = vec4u(edge.x);
        let y = mat4x4f(
          pixels(start + ix0, inside_y & (ix0 < e) & vec4<bool>(valid.x)), pixels(start + ix1, inside_y & (ix1 < e) & vec4<bool>(valid.y)),
          pixels(start + ix2, inside_y & (ix2 < e) & vec4<bool>(valid.z)), pixels(start + ix3, inside_y & (ix3 < e) & vec4<bool>(valid.w)));
        for (var l = 0u; l < $ROUNDS; l++) {
          acc0[l] += y * subgroupShuffle(g[0], l);
          acc1[l] += y * subgroupShuffle(g[1], l);
          acc2[l] += y * subgroupShuffle(g[2], l);
          acc3[l] += y * subgroupShuffle(g[3], l);
        }
      }
    }
  }

  let rounds = (min(rows, row + ROWS) - row + 3u) / 4u; // not to be unrolled: see matmul_subgroup.wgsl
  for (var l = 0u; l < rounds; l++) {
    let sums = array(pick(&acc0, l), pick(&acc1, l), pick(&acc2, l), pick(&acc3, l));
    for (var i = 0u; i < 4u; i++) {
      let at_row = row + 4u * l + i;
      for (var j = 0u; j < 4u; j++) {
        if (at_row < rows && col + j < columns) { out[(group * rows + at_row) * columns + col + j] = $T(sums[i][j]); }
      }
    }
  }
}
