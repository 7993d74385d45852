// out[i, c] = 1 where ids[i] is c, else 0.

@group(0) @binding(0) var<storage, read> ids: array<i32>; // (positions)
@group(0) @binding(1) var<storage, read_write> out: array<$T>; // (positions, classes)

struct Params { size: u32, classes: u32 }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  out[i] = $T(ids[i / params.classes] == i32(i % params.classes));
}
