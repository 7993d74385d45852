// out[i] = table[ids[i]], row by row. An id that is no row gives NaN instead of a read out of bounds.

@group(0) @binding(0) var<storage, read> table: array<T>; // (rows, width)
@group(0) @binding(1) var<storage, read> ids: array<i32>; // (positions)
@group(0) @binding(2) var<storage, read_write> out: array<T>; // (positions, width)

struct Params {
  size: u32, // positions · width
  rows: u32,
  width: u32, // in T
  nan: u32, // the bits of NaN: WGSL has no literal for it
}

#if VEC4
alias T = vec4f;
#else
alias T = f32;
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let id = ids[i / params.width];
  if (id < 0 || u32(id) >= params.rows) {
    out[i] = T(bitcast<f32>(params.nan));
  } else {
    out[i] = table[u32(id) * params.width + i % params.width];
  }
}
