// How fast memory is: copies vec4s, one an invocation. Neither input nor result stays in a cache (64 MiB each).

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4f>;

struct Params {
  size: u32, // in vec4
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i < params.size) { out[i] = x[i]; }
}
