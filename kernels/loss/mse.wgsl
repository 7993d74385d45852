// Each sample's share of the loss: weight · mean((a − b)²), one workgroup a sample.

@group(0) @binding(0) var<storage, read> a: array<T>; // (samples, length)
@group(0) @binding(1) var<storage, read> b: array<T>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // (samples)
#if WEIGHTS
@group(0) @binding(3) var<storage, read> weights: array<f32>; // (samples)
#endif

struct Params {
  samples: u32,
  length: u32, // in T
  scale: f32, // 1 / elements of a sample; with equal weights times 1 / samples
}

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let sample = wg.x + wg.y * groups.x;
  if (sample >= params.samples) { return; }
  let base = sample * params.length;
  var squares = T(0.0);
  for (var i = lane; i < params.length; i += LANES) {
    let d = a[base + i] - b[base + i];
    squares += d * d;
  }
  let total = sumLanes(fold(squares), lane) * params.scale;
#if WEIGHTS
  if (lane == 0u) { out[sample] = total * weights[sample]; }
#else
  if (lane == 0u) { out[sample] = total; }
#endif
}

$ROWS
