// y = (x − mean) · rstd · weight + bias over each row, one workgroup a row; then SiLU where it is fused.
//
// A row is (channels, inner), contiguous. Group norm: the row is one sample's group, each channel of `inner` pixels has one
// weight, read at an address that all lanes share (which is cheap where others cost a branch a lane). Layer norm: one
// channel, each of its `inner` elements has a weight.
//
// The variance takes a second pass over the row: E[x²] − E[x]² would cancel where the mean is large. The rest of the mean
// that the first pass rounded off is corrected in the second (Chan, Golub & LeVeque 1983, "Algorithms for computing the
// sample variance", the corrected two-pass algorithm). The mean is kept as that sum of two floats: rounded to one, it would
// be off by much of σ where σ is small beside the mean.

@group(0) @binding(0) var<storage, read> x: array<T>; // (rows, channels, inner)
#if LAYER
@group(0) @binding(1) var<storage, read> weight: array<T>; // (inner)
@group(0) @binding(2) var<storage, read> bias: array<T>;
#else
@group(0) @binding(1) var<storage, read> weight: array<f32>; // (groups, channels)
@group(0) @binding(2) var<storage, read> bias: array<f32>;
#endif
@group(0) @binding(3) var<storage, read_write> out: array<T>; // (rows, channels, inner)
@group(0) @binding(4) var<storage, read_write> stats: array<Stats>; // (rows)

struct Stats {
  mean: f32, // rounded
  rest: f32, // what the rounding left
  rstd: f32, // 1 / √(variance + eps)
}

struct Params {
  rows: u32,
  groups: u32,
  channels: u32,
  inner: u32, // in T
  eps: f32,
}

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x + wg.y * groups.x;
  if (row >= params.rows) { return; }
  let length = params.channels * params.inner;
  let base = row * length;
  let count = f32(length * WIDTH);

  var sum = T(0.0);
  for (var i = lane; i < length; i += LANES) { sum += x[base + i]; }
  let mean = sumLanes(fold(sum), lane) / count;
  var d1 = T(0.0);
  var d2 = T(0.0);
  for (var i = lane; i < length; i += LANES) {
    let d = x[base + i] - mean;
    d1 += d;
    d2 += d * d;
  }
  let moments = sumLanes2(vec2f(fold(d1), fold(d2)), lane) / count;
  let rest = moments.x;
  let rstd = inverseSqrt(max(moments.y - rest * rest, 0.0) + params.eps);
  if (lane == 0u) { stats[row] = Stats(mean, rest, rstd); }

  let first = (row % params.groups) * params.channels;
  for (var c = 0u; c < params.channels; c++) {
    let begin = base + c * params.inner;
    for (var i = lane; i < params.inner; i += LANES) {
#if LAYER
      let z = ((x[begin + i] - mean) - rest) * rstd * weight[i] + bias[i];
#else
      let z = ((x[begin + i] - mean) - rest) * rstd * weight[first + c] + bias[first + c];
#endif
#if SILU
      out[begin + i] = z / (1.0 + exp(-z));
#else
      out[begin + i] = z;
#endif
    }
  }
}

$ROWS
