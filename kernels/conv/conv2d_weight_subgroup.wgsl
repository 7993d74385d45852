// Gradient of a 2-D convolution with respect to its weight, one subgroup a workgroup: the variant for software adapters.
//
//   out[row, (c, ky, kx)] = Σ over n, oy, ox of grad[n, row, oy, ox] · x[n, c, oy·stride + ky − top, ox·stride + kx − left]
//
// The product is that of matmul_subgroup.wgsl with positions as its inner dimension: each lane loads 4 rows × 4 positions of the
// upstream gradient and 4 positions × 4 columns (c, ky, kx) of the picture. Positions go row by row of the picture, four
// neighbours a step, so that all but the horizontal coordinate is worked out once for a row. The order of additions is
// that of the samples in the batch.

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

const QUAD = vec4u(0u, 1u, 2u, 3u);

fn upstream(row_at: u32, at: vec4u, valid: vec4<bool>) -> vec4f {
  return select(vec4f(), vec4f(grad[row_at + at.x], grad[row_at + at.y], grad[row_at + at.z], grad[row_at + at.w]), valid);
}

fn pixels(at: vec4u, valid: vec4<bool>) -> vec4f {
  return select(vec4f(), vec4f(x[at.x], x[at.y], x[at.z], x[at.w]), valid);
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
  let area = params.oh * params.ow;
  let plane = params.h * params.w;
  let taps = params.kh * params.kw;
  let columns = params.channels * taps;
  let down = (params.rows + ROWS - 1u) / ROWS;
  let group = wg.x + wg.y * groups.x;
  let row = group % down * ROWS;
  let first = group / down * COLUMNS;
  if (first >= columns) { return; }

  let r = min(row + 4u * lane + QUAD, vec4u(params.rows - 1u));
  let col = first + 4u * lane;
  let column = min(col + QUAD, vec4u(columns - 1u));
  let tap = column % taps;
  let dy = tap / params.kw - params.top; // wraps below 0; so does the coordinate, back into the picture or out of it
  let dx = tap % params.kw - params.left;
  let channel = column / taps * plane;

  var acc0: array<vec4f, $ROUNDS>; // row + 4·l
  var acc1: array<vec4f, $ROUNDS>; // row + 4·l + 1
  var acc2: array<vec4f, $ROUNDS>;
  var acc3: array<vec4f, $ROUNDS>;
#if ROW_SUM
  var total = vec4f(); // of this lane's rows
#endif
  for (var n = 0u; n < params.batch; n++) {
    for (var oy = 0u; oy < params.oh; oy++) {
      let iy = oy * params.stride_y + dy;
      let inside_y = iy < vec4u(params.h);
      let start = n * params.channels * plane + channel + iy * params.w;
      let grad_start = (n * params.rows + r) * area + oy * params.ow;
      for (var ox = 0u; ox < params.ow; ox += 4u) {
        let valid = ox + QUAD < vec4u(params.ow);
        let at = min(ox + QUAD, vec4u(params.ow - 1u));
        var g: mat4x4f;
        if (lane < $ROUNDS) {
          g = mat4x4f(
            upstream(grad_start.x, at, valid), upstream(grad_start.y, at, valid),
            upstream(grad_start.z, at, valid), upstream(grad_start.w, at, valid));
        }
        let ix0 = at.x * params.stride_x + dx;
        let ix1 = at.y * params.stride_x + dx;
        let ix2 = at.z * params.stride_x + dx;
        let ix3 = at.w * params.stride_x + dx;
        let edge = vec4u(params.w);
        let y = mat4x4f(
          pixels(start + ix0, inside_y & (ix0 < edge) & vec4<bool>(valid.x)), pixels(start + ix1, inside_y & (ix1 < edge) & vec4<bool>(valid.y)),
          pixels(start + ix2, inside_y & (ix2 < edge) & vec4<bool>(valid.z)), pixels(start + ix3, inside_y & (ix3 < edge) & vec4<bool>(valid.w)));
#if ROW_SUM
        total += vec4f(1.0) * g;
#endif
        for (var l = 0u; l < $ROUNDS; l++) {
          acc0[l] += y * subgroupShuffle(g[0], l);
          acc1[l] += y * subgroupShuffle(g[1], l);
          acc2[l] += y * subgroupShuffle(g[2], l);
          acc3[l] += y * subgroupShuffle(g[3], l);
        }
      }
    }
  }

  let rounds = (min(params.rows, row + ROWS) - row + 3u) / 4u; // not to be unrolled: see matmul_subgroup.wgsl
  for (var l = 0u; l < rounds; l++) {
    let sums = array(pick(&acc0, l), pick(&acc1, l), pick(&acc2, l), pick(&acc3, l));
    for (var i = 0u; i < 4u; i++) {
      let at_row = row + 4u * l + i;
      for (var j = 0u; j < 4u; j++) {
        if (at_row < params.rows && col + j < columns) { out[at_row * columns + col + j] = sums[i][j]; }
      }
    }
  }
#if ROW_SUM
  if (first == 0u && lane < $ROUNDS) {
    for (var i = 0u; i < 4u; i++) {
      if (row + 4u * lane + i < params.rows) { row_sum[row + 4u * lane + i] = total[i]; }
    }
  }
#endif
}
