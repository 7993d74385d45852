// target += share · (source − target), in place: the step of an exponential moving average. A share over a half is taken
// from the other end, so that small sources are not lost in the difference to large targets: a share of 1 gives the source.

@group(0) @binding(0) var<storage, read_write> data: array<vec4f>;
@group(0) @binding(1) var<storage, read> source: array<vec4f>;

struct Params { size: u32, share: f32 }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i * 4u >= params.size) { return; }
  let old = data[i];
  let way = source[i] - old;
  data[i] = select(source[i] - (1.0 - params.share) * way, old + params.share * way, params.share < 0.5);
}
