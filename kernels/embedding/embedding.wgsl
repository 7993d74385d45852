// out[i] = table[ids[i]], row by row, widened to f32 and rounded to T where the table is stored in another format. An id that
// is no row gives NaN instead of a read out of bounds.
//
// A table larger than what can be bound at once comes in windows of rows, a dispatch each: every position is written by the
// window that has its row, ids that are no row by the first. The gradient is the sum of indexing/add_runs.wgsl.
//
// An invocation moves four neighbouring elements (VEC4) or one, without a branch around the load: a software adapter pays more
// for the branch. 2048 rows of 128 out of 49408 take it 0.9 ms.

@group(0) @binding(0) var<storage, read> ids: array<i32>; // (positions)
#if VEC4
alias Out = vec4<$T>;
$TABLE // (rows, width): load_table(i) gives elements 4·i … 4·i + 3
#else
alias Out = $T;
@group(0) @binding(1) var<storage, read> table: array<$T>; // (rows, width)
fn load_table(i: u32) -> f32 { return f32(table[i]); }
#endif
@group(0) @binding(2) var<storage, read_write> out: array<Out>; // (positions, width)

struct Params {
  size: u32, // positions · width
  first: i32, // the row of the whole table with which this window begins
  rows: i32, // of this window
  total: i32, // rows of the whole table
  width: u32, // in Out
  nan: u32, // the bits of NaN: WGSL has no literal for it
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let id = ids[i / params.width];
  let known = id >= 0 && id < params.total;
  let row = id - params.first;
  let here = known && row >= 0 && row < params.rows;
  if (!here && (known || params.first > 0)) { return; } // another window's
  let value = load_table(select(0u, u32(row) * params.width + i % params.width, here));
  out[i] = select(Out($T(bitcast<f32>(params.nan))), Out(value), here);
}
