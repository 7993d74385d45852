// The second pass of a gradient that was computed in parts: their sum, in their order, which the shape of a sample fixes.
// An invocation a weight.

@group(0) @binding(0) var<storage, read> parts: array<f32>; // (count, size)
@group(0) @binding(1) var<storage, read_write> out: array<$T>; // (size)

struct Params {
  count: u32,
  size: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + thread;
  if (i >= params.size) { return; }
  var total = 0.0;
  for (var part = 0u; part < params.count; part++) { total += parts[part * params.size + i]; }
  out[i] = $T(total);
}
