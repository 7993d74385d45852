// y = (x − mean) · rstd · weight + bias over each row; then SiLU where it is fused. RMS norm has neither mean nor bias:
// y = x · rstd · (offset + weight), rstd = 1 / √(mean(x²) + eps).
//
// A row is (channels, inner), contiguous. Group norm: the row is one sample's group, each channel of `inner` pixels has one
// weight. LAYER: one channel, each of its `inner` elements has a weight. The row's lanes stand `across` along a channel,
// and the runs of so many lanes take the channels in turn: a group of many small channels leaves no lane idle.
//
// Two walks of the row: one for mean and variance, one for the result. E[x²] − E[x]² would cancel where the mean is large,
// so each V's own mean and squared deviations are merged into those of what came before (Chan, Golub & LeVeque 1983,
// "Algorithms for computing the sample variance"). A second walk for the variance instead was 1.1 to 1.8 times as slow on a
// software adapter, whose loads are what costs: (1024, 320) 1.24 ms and 1.01 ms, (1024, 1024) 3.6 and 2.1.
// All this is relative to a value of the row, of which the differences are exact where σ is small beside the mean; the mean
// stays a sum of two floats, since rounded to one it would be off by much of such a σ.

@group(0) @binding(0) var<storage, read> x: array<Stored>; // (rows, channels, inner)
#if LAYER
@group(0) @binding(1) var<storage, read> weight: array<Stored>; // (inner)
#else
@group(0) @binding(1) var<storage, read> weight: array<$T>; // (groups, channels)
#endif
@group(0) @binding(2) var<storage, read_write> out: array<Stored>; // (rows, channels, inner)
@group(0) @binding(3) var<storage, read_write> stats: array<Stats>; // (rows)
#if !RMS
#if LAYER
@group(0) @binding(4) var<storage, read> bias: array<Stored>; // (inner)
#else
@group(0) @binding(4) var<storage, read> bias: array<$T>; // (groups, channels)
#endif
#endif

struct Stats {
  mean: f32, // a value of the row
  rest: f32, // the mean of the differences from it
  rstd: f32, // 1 / √(variance + eps)
}

struct Params {
  rows: u32,
  groups: u32,
  channels: u32,
  inner: u32, // in V
  across: u32, // lanes along a channel, a power of two
  eps: f32,
  offset: f32, // what is added to the weight
}

fn load(i: u32) -> V { return V(x[i]); }

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) invocation: u32) {
  let row = rowOf(wg.x + wg.y * groups.x, invocation);
  let lane = laneOf(invocation);
  if (row >= params.rows) { return; }
  let length = params.channels * params.inner;
  let base = row * length;

#if RMS
  let mean = 0.0;
  let rest = 0.0;
  var squares = V(0.0);
  for (var block = 0u; block < length; block += BLOCK) {
    var some = V(0.0);
    for (var i = block + lane; i < min(block + BLOCK, length); i += LANES) {
      let v = load(base + i);
      some += v * v;
    }
    squares += some;
  }
  let rstd = inverseSqrt(sumLanes(fold(squares), lane) / f32(length * WIDTH) + params.eps);
#else
  let mean = fold(load(base)) / f32(WIDTH);
  var found = Moments(0.0, 0.0, 0.0);
  for (var i = lane; i < length; i += LANES) {
    let d = load(base + i) - mean;
    let middle = fold(d) / f32(WIDTH);
    found = merge(found, Moments(f32(WIDTH), middle, fold((d - middle) * (d - middle))));
  }
  found = mergeLanes(found, lane);
  let rest = found.mean;
  let rstd = inverseSqrt(found.squares / found.count + params.eps);
#endif
  if (lane == 0u) { stats[row] = Stats(mean, rest, rstd); }

  let first = (row % params.groups) * params.channels;
  for (var c = lane / params.across; c < params.channels; c += LANES / params.across) {
    let begin = base + c * params.inner;
#if !LAYER
    let w = f32(weight[first + c]);
    let b = f32(bias[first + c]);
#endif
    for (var i = lane % params.across; i < params.inner; i += params.across) {
#if LAYER
      let w = V(weight[i]);
#if !RMS
      let b = V(bias[i]);
#endif
#endif
#if RMS
      let z = load(begin + i) * rstd * (w + params.offset);
#else
      let z = ((load(begin + i) - mean) - rest) * rstd * w + b;
#endif
#if SILU
      out[begin + i] = Stored(z / (1.0 + exp(-z)));
#else
      out[begin + i] = Stored(z);
#endif
    }
  }
}

#if !RMS
// Of so many values: their mean and Σ (value − mean)².
struct Moments {
  count: f32,
  mean: f32,
  squares: f32,
}

// Of the values of both.
fn merge(a: Moments, b: Moments) -> Moments {
  let count = a.count + b.count;
  let share = b.count / max(count, 1.0);
  let d = b.mean - a.mean;
  return Moments(count, a.mean + d * share, a.squares + b.squares + d * d * a.count * share);
}

#if LANE
fn mergeLanes(own: Moments, lane: u32) -> Moments { return own; }
#else
var<workgroup> laneMoments: array<Moments, LANES>;

fn mergeLanes(own: Moments, lane: u32) -> Moments {
  laneMoments[lane] = own;
  workgroupBarrier();
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    if (lane < reach) { laneMoments[lane] = merge(laneMoments[lane], laneMoments[lane + reach]); }
    workgroupBarrier();
  }
  return laneMoments[0];
}
#endif
#endif

$ROWS
