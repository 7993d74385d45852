// dx = y · (grad − Σ grad · y) over each row, one workgroup a row.

@group(0) @binding(0) var<storage, read> y: array<T>; // (rows, columns)
@group(0) @binding(1) var<storage, read> grad: array<T>; // (rows, columns)
@group(0) @binding(2) var<storage, read_write> dx: array<T>; // (rows, columns)

struct Params {
  rows: u32,
  columns: u32, // in T
}

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x + wg.y * groups.x;
  if (row >= params.rows) { return; }
  let base = row * params.columns;
  var sum = T(0.0);
  for (var i = lane; i < params.columns; i += LANES) { sum += grad[base + i] * y[base + i]; }
  let along = sumLanes(fold(sum), lane);
  for (var i = lane; i < params.columns; i += LANES) { dx[base + i] = y[base + i] * (grad[base + i] - along); }
}

$ROWS
