// target += addend, in place: a buffer cannot be bound both to read and to write, so this needs a kernel of its own.

@group(0) @binding(0) var<storage, read_write> data: array<$T>;
@group(0) @binding(1) var<storage, read> addend: array<$T>;

struct Params { size: u32 }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = ((wg.x + wg.y * groups.x) * 64u + lane) * 4u;
  for (var i = first; i < min(first + 4u, params.size); i++) {
    data[i] += addend[i];
  }
}
