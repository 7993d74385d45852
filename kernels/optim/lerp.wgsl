// target += share · (source − target), in place: the step of an exponential moving average.

@group(0) @binding(0) var<storage, read_write> data: array<vec4f>;
@group(0) @binding(1) var<storage, read> source: array<vec4f>;

struct Params { size: u32, share: f32 }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i * 4u >= params.size) { return; }
  data[i] += params.share * (source[i] - data[i]);
}
