// Gradient of norm.wgsl for x, one workgroup a row. With h = grad through SiLU, x̂ = (x − mean) · rstd and n the row's length:
//   dx = rstd · (h · weight − Σ(h · weight) / n − x̂ · Σ(h · weight · x̂) / n)
// Group norm sums h and h · x̂ by channel on the way: these are the sample's shares of the gradients of bias and weight.

@group(0) @binding(0) var<storage, read> x: array<T>; // (rows, channels, inner)
#if LAYER
@group(0) @binding(1) var<storage, read> weight: array<T>; // (inner)
#else
@group(0) @binding(1) var<storage, read> weight: array<f32>; // (groups, channels)
#endif
@group(0) @binding(2) var<storage, read> stats: array<Stats>; // (rows)
@group(0) @binding(3) var<storage, read> grad: array<T>; // (rows, channels, inner)
@group(0) @binding(4) var<storage, read_write> dx: array<T>; // (rows, channels, inner)
#if !LAYER
@group(0) @binding(5) var<storage, read_write> shares: array<f32>; // (2, rows, channels): of weight, of bias
#if SILU
@group(0) @binding(6) var<storage, read> bias: array<f32>; // (groups, channels)
#endif
#endif

struct Stats {
  mean: f32, // rounded
  rest: f32, // what the rounding left
  rstd: f32,
}

struct Params {
  rows: u32,
  groups: u32,
  channels: u32,
  inner: u32, // in T
}

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x + wg.y * groups.x;
  if (row >= params.rows) { return; }
  let length = params.channels * params.inner;
  let first = (row % params.groups) * params.channels;
  let mean = stats[row].mean;
  let rest = stats[row].rest;
  let rstd = stats[row].rstd;

  var total = vec2f(0.0); // Σ(h · weight), Σ(h · weight · x̂)
  for (var c = 0u; c < params.channels; c++) {
    let begin = row * length + c * params.inner;
    var h1 = T(0.0);
    var hx = T(0.0);
    for (var i = lane; i < params.inner; i += LANES) {
      let normal = ((x[begin + i] - mean) - rest) * rstd;
#if LAYER
      let h = grad[begin + i] * weight[i];
#else
      let h = unactivated(grad[begin + i], normal, first + c);
#endif
      h1 += h;
      hx += h * normal;
    }
    let sums = sumLanes2(vec2f(fold(h1), fold(hx)), lane);
#if LAYER
    total += sums;
#else
    total += sums * weight[first + c];
    if (lane == 0u) {
      shares[row * params.channels + c] = sums.y;
      shares[(params.rows + row) * params.channels + c] = sums.x;
    }
#endif
  }

  let shift = total / f32(length * WIDTH);
  for (var c = 0u; c < params.channels; c++) {
    let begin = row * length + c * params.inner;
    for (var i = lane; i < params.inner; i += LANES) {
      let normal = ((x[begin + i] - mean) - rest) * rstd;
#if LAYER
      let h = grad[begin + i] * weight[i];
#else
      let h = unactivated(grad[begin + i], normal, first + c) * weight[first + c];
#endif
      dx[begin + i] = rstd * (h - shift.x - normal * shift.y);
    }
  }
}

#if !LAYER
// The gradient in front of the activation.
fn unactivated(g: T, normal: T, channel: u32) -> T {
#if SILU
  let z = normal * weight[channel] + bias[channel];
  let s = 1.0 / (1.0 + exp(-z));
  return g * s * (1.0 + z * (1.0 - s));
#else
  return g;
#endif
}
#endif

$ROWS
