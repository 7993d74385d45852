// Gradient of norm.wgsl for x. With h = grad through SiLU, x̂ = (x − mean) · rstd and n the row's length:
//   dx = rstd · (h · weight − Σ(h · weight) / n − x̂ · Σ(h · weight · x̂) / n)
// RMS norm has no mean, so its second term is missing, and its weight has the offset added.
// Group norm sums h and h · x̂ by channel on the way: these are the sample's shares of the gradients of bias and weight.
// Two walks of the row; lanes stand as in norm.wgsl.

@group(0) @binding(0) var<storage, read> x: array<Stored>; // (rows, channels, inner)
#if LAYER
@group(0) @binding(1) var<storage, read> weight: array<Stored>; // (inner)
#else
@group(0) @binding(1) var<storage, read> weight: array<$T>; // (groups, channels)
#endif
@group(0) @binding(2) var<storage, read> stats: array<Stats>; // (rows)
@group(0) @binding(3) var<storage, read> grad: array<Stored>; // (rows, channels, inner)
@group(0) @binding(4) var<storage, read_write> dx: array<Stored>; // (rows, channels, inner)
#if !LAYER
@group(0) @binding(5) var<storage, read_write> shares: array<f32>; // (2, rows, channels): of weight, of bias
#if SILU
@group(0) @binding(6) var<storage, read> bias: array<$T>; // (groups, channels)
#endif
#endif

struct Stats {
  mean: f32,
  rest: f32,
  rstd: f32,
}

struct Params {
  rows: u32,
  groups: u32,
  channels: u32,
  inner: u32, // in V
  across: u32, // lanes along a channel, a power of two
  offset: f32, // what is added to the weight
}

fn load(i: u32) -> V { return V(grad[i]); }

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) invocation: u32) {
  let row = rowOf(wg.x + wg.y * groups.x, invocation);
  let lane = laneOf(invocation);
  if (row >= params.rows) { return; }
  let length = params.channels * params.inner;
  let mean = stats[row].mean;
  let rest = stats[row].rest;
  let rstd = stats[row].rstd;
  let along = lane % params.across;
#if !LAYER
  let first = (row % params.groups) * params.channels;
#endif

  var total = vec2f(0.0); // Σ(h · weight), Σ(h · weight · x̂)
  // All lanes go through the same rounds, because they add up together in each.
  for (var round = 0u; round < params.channels; round += LANES / params.across) {
    let c = round + lane / params.across;
    let begin = row * length + c * params.inner;
    var h1 = V(0.0);
    var hx = V(0.0);
    for (var i = along; i < params.inner && c < params.channels; i += params.across) {
      let normal = ((V(x[begin + i]) - mean) - rest) * rstd;
#if LAYER
      let h = load(begin + i) * (V(weight[i]) + params.offset);
#else
      let h = unactivated(load(begin + i), normal, first + c);
#endif
      h1 += h;
      hx += h * normal;
    }
    let own = vec2f(fold(h1), fold(hx));
#if LAYER
    total += own;
#else
    let sums = sumAcross2(own, lane, params.across);
    if (along == 0u && c < params.channels) {
      total += sums * f32(weight[first + c]);
      shares[row * params.channels + c] = sums.y;
      shares[(params.rows + row) * params.channels + c] = sums.x;
    }
#endif
  }

  var shift = sumLanes2(total, lane) / f32(length * WIDTH);
#if RMS
  shift.x = 0.0;
#endif
  for (var c = lane / params.across; c < params.channels; c += LANES / params.across) {
    let begin = row * length + c * params.inner;
    for (var i = along; i < params.inner; i += params.across) {
      let normal = ((V(x[begin + i]) - mean) - rest) * rstd;
#if LAYER
      let h = load(begin + i) * (V(weight[i]) + params.offset);
#else
      let h = unactivated(load(begin + i), normal, first + c) * f32(weight[first + c]);
#endif
      dx[begin + i] = Stored(rstd * (h - shift.x - normal * shift.y));
    }
  }
}

#if !LAYER
// The gradient in front of the activation.
fn unactivated(g: V, normal: V, channel: u32) -> V {
#if SILU
  let z = normal * f32(weight[channel]) + f32(bias[channel]);
  let s = 1.0 / (1.0 + exp(-z));
  return g * s * (1.0 + z * (1.0 - s));
#else
  return g;
#endif
}
#endif

$ROWS
