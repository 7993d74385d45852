// The mean of the rows' losses over those that are not ignored (0 where all are), and their number: one workgroup, whose
// invocations each add every 64th row, and the first adds up what they found.

@group(0) @binding(0) var<storage, read> losses: array<f32>; // (rows)
@group(0) @binding(1) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // (1)
@group(0) @binding(3) var<storage, read_write> count: array<f32>; // (1)

struct Params {
  rows: u32,
  ignored: i32,
}

var<workgroup> found: array<vec2f, 64>; // losses, rows

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sums = vec2f(0.0);
  for (var i = lane; i < params.rows; i += 64u) {
    sums += vec2f(losses[i], select(1.0, 0.0, targets[i] == params.ignored));
  }
  found[lane] = sums;
  workgroupBarrier();
  if (lane > 0u) { return; }
  for (var other = 1u; other < 64u; other++) { sums += found[other]; }
  count[0] = max(sums.y, 1.0);
  out[0] = sums.x / count[0];
}
