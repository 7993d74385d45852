// The mean of the rows' losses over those that are not ignored (0 where all are), and their number; one workgroup.

@group(0) @binding(0) var<storage, read> losses: array<f32>; // (rows)
@group(0) @binding(1) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // (1)
@group(0) @binding(3) var<storage, read_write> count: array<f32>; // (1)

struct Params {
  rows: u32,
  ignored: i32,
}

@compute @workgroup_size($LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sums = vec2f(0.0); // losses, rows
  for (var i = lane; i < params.rows; i += LANES) {
    sums += vec2f(losses[i], select(1.0, 0.0, targets[i] == params.ignored));
  }
  let total = sumLanes2(sums, lane);
  if (lane == 0u) {
    count[0] = max(total.y, 1.0);
    out[0] = total.x / count[0];
  }
}

$ROWS
