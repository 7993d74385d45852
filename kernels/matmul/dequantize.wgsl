// out = the values that a storage format stands for, four to an invocation.

$X
@group(0) @binding(1) var<storage, read_write> out: array<vec4f>;

struct Params {
  size: u32, // in vec4
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i < params.size) { out[i] = load_x(i); }
}
