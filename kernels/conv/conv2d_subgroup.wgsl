// 2-D convolution as an implicit matrix product, one subgroup a workgroup: the variant for software adapters.
//
//   out[row, position] = Σ over taps (ky, kx) and channels c of weight[row, c, ky, kx] · x[n, c, y, x of tap and position]
//
// The product is that of matmul_subgroup.wgsl: each lane loads 4 rows × 4 channels of the weights and 4 channels × 4
// positions of the picture, and round l broadcasts lane l's weights. Positions run through the whole batch (n, oy, ox), so
// that small pictures fill the tile. Taps are the outer loop: where a lane's four positions look is worked out once for
// a tap, and serves all channels. Nothing is gathered into memory beforehand.
//
// With TRANSPOSED it is the gradient with respect to the input: rows are input channels, c runs over output channels, and
// a position looks at the outputs that it contributed to.
//
// 3×3, 128 channels, 16×16, batch 4 ran at 37–40 GFLOP/s where the bare product of that size takes 48–54; weights laid
// out tap by tap for vec4 loads gave 44–46, not worth a second layout.

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

const QUAD = vec4u(0u, 1u, 2u, 3u);

fn weights(row_at: u32, at: vec4u, valid: vec4<bool>) -> vec4f {
  return select(vec4f(), vec4f(weight[row_at + at.x], weight[row_at + at.y], weight[row_at + at.z], weight[row_at + at.w]), valid);
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
  const POSITIONS = 4u * $SUBGROUP;
  let area = params.oh * params.ow;
  let plane = params.h * params.w;
  let taps = params.kh * params.kw;
  let down = (params.rows + ROWS - 1u) / ROWS;
  let group = wg.x + wg.y * groups.x;
  let row = group % down * ROWS;
  let position = group / down * POSITIONS + 4u * lane + QUAD;
  if (group / down * POSITIONS >= params.batch * area) { return; }

  let n = position / area;
  let present = n < vec4u(params.batch);
  let oy = position % area / params.ow;
  let ox = position % params.ow;
  let start = n * params.channels * plane;
  let r = min(row + 4u * lane + QUAD, vec4u(params.rows - 1u));
#if TRANSPOSED
  let weight_start = r * taps;
  let weight_step = params.rows * taps;
#else
  let weight_start = r * params.channels * taps;
  let weight_step = taps;
#endif

  var acc0: array<vec4f, $ROUNDS>; // row + 4·l
  var acc1: array<vec4f, $ROUNDS>; // row + 4·l + 1
  var acc2: array<vec4f, $ROUNDS>;
  var acc3: array<vec4f, $ROUNDS>;
#if BIAS
  let offset = vec4f(bias[r.x], bias[r.y], bias[r.z], bias[r.w]); // of this lane's rows
  for (var l = 0u; l < $ROUNDS; l++) {
    let o = subgroupShuffle(offset, l);
    acc0[l] = vec4f(o.x);
    acc1[l] = vec4f(o.y);
    acc2[l] = vec4f(o.z);
    acc3[l] = vec4f(o.w);
  }
#endif
  for (var tap = 0u; tap < taps; tap++) {
    // Coordinates below 0 wrap to huge ones, which are outside too.
#if TRANSPOSED
    let ty = oy + params.top - tap / params.kw;
    let tx = ox + params.left - tap % params.kw;
    let iy = ty / params.stride_y;
    let ix = tx / params.stride_x;
    let inside = present & (iy < vec4u(params.h)) & (ix < vec4u(params.w))
      & (iy * params.stride_y == ty) & (ix * params.stride_x == tx);
#else
    let iy = oy * params.stride_y + tap / params.kw - params.top;
    let ix = ox * params.stride_x + tap % params.kw - params.left;
    let inside = present & (iy < vec4u(params.h)) & (ix < vec4u(params.w));
#endif
    let seen = select(vec4u(), start + iy * params.w + ix, inside);
    for (var c = 0u; c < params.channels; c += 4u) {
      let channel = c + QUAD;
      let valid = channel < vec4u(params.channels);
      let at = min(channel, vec4u(params.channels - 1u));
      let weight_at = at * weight_step + tap;
      var w: mat4x4f;
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

  let result = n * params.rows * area + position % area;
  let rounds = (min(params.rows, row + ROWS) - row + 3u) / 4u; // not to be unrolled: see matmul_subgroup.wgsl
  for (var l = 0u; l < rounds; l++) {
    let sums = array(pick(&acc0, l), pick(&acc1, l), pick(&acc2, l), pick(&acc3, l));
    for (var i = 0u; i < 4u; i++) {
      let at_row = row + 4u * l + i;
      for (var j = 0u; j < 4u; j++) {
        if (at_row < params.rows && present[j]) { out[result[j] + at_row * area] = sums[i][j]; }
      }
    }
  }
}
