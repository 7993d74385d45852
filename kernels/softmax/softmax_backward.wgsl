// dx = y · (grad − Σ grad · y) over each row; LOG: dx = grad − exp(y) · Σ grad. Two walks of the row (reduce/rows.wgsl), from the
// saved result: no exponentials are computed again, except for LOG. (1024, 1024) takes a software adapter 1.4 ms.

@group(0) @binding(0) var<storage, read> y: array<Stored>; // (rows, columns): what the forward pass gave
@group(0) @binding(1) var<storage, read> grad: array<Stored>; // (rows, columns)
@group(0) @binding(2) var<storage, read_write> dx: array<Stored>; // (rows, columns)

struct Params {
  rows: u32,
  columns: u32, // in V
}

fn load(i: u32) -> V { return V(grad[i]); }

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) invocation: u32) {
  let row = rowOf(wg.x + wg.y * groups.x, invocation);
  let lane = laneOf(invocation);
  if (row >= params.rows) { return; }
  let base = row * params.columns;
  var sums = V(0.0);
#if LOG
  for (var i = lane; i < params.columns; i += LANES) { sums += load(base + i); }
  let total = sumLanes(fold(sums), lane);
  for (var i = lane; i < params.columns; i += LANES) {
    dx[base + i] = Stored(load(base + i) - exp(V(y[base + i])) * total);
  }
#else
  for (var i = lane; i < params.columns; i += LANES) { sums += load(base + i) * V(y[base + i]); }
  let along = sumLanes(fold(sums), lane);
  for (var i = lane; i < params.columns; i += LANES) {
    dx[base + i] = Stored(V(y[base + i]) * (load(base + i) - along));
  }
#endif
}

$ROWS
