// dtable[id] = Σ grad[i] over the positions i with that id, into a table of zeros. One workgroup a position: the first one
// of each id adds all of them in order, the others have nothing to do. Without atomics the sum has one order; the scans
// over the ids read addresses that all lanes share, and batches have some hundred positions.

@group(0) @binding(0) var<storage, read> ids: array<i32>; // (positions)
@group(0) @binding(1) var<storage, read> grad: array<T>; // (positions, width)
@group(0) @binding(2) var<storage, read_write> dtable: array<T>; // (rows, width)

struct Params {
  positions: u32,
  rows: u32,
  width: u32, // in T
}

#if VEC4
alias T = vec4f;
#else
alias T = f32;
#endif

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let position = wg.x + wg.y * groups.x;
  if (position >= params.positions) { return; }
  let id = ids[position];
  if (id < 0 || u32(id) >= params.rows) { return; }
  for (var i = 0u; i < position; i++) {
    if (ids[i] == id) { return; }
  }
  for (var column = lane; column < params.width; column += 32u) {
    var sum = T(0.0);
    for (var i = position; i < params.positions; i++) {
      if (ids[i] == id) { sum += grad[i * params.width + column]; }
    }
    dtable[u32(id) * params.width + column] = sum;
  }
}
