// Gradient of the mean cross-entropy: (softmax(logits) − onehot(target)) · grad / count, 0 in ignored rows; the probabilities
// come from the saved largest logit and sum. One workgroup a row.

@group(0) @binding(0) var<storage, read> logits: array<T>; // (rows, columns)
@group(0) @binding(1) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(2) var<storage, read> stats: array<vec2f>; // (rows): max, 1 / Σ exp(logits − max)
@group(0) @binding(3) var<storage, read> count: array<f32>; // (1)
@group(0) @binding(4) var<storage, read> grad: array<f32>; // (1)
@group(0) @binding(5) var<storage, read_write> dlogits: array<T>; // (rows, columns)

struct Params {
  rows: u32,
  columns: u32, // in T
  ignored: i32,
}

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x + wg.y * groups.x;
  if (row >= params.rows) { return; }
  let base = row * params.columns;
  let goal = targets[row];
  let scale = select(grad[0] / count[0], 0.0, goal == params.ignored);
  for (var i = lane; i < params.columns; i += LANES) {
    let p = exp(logits[base + i] - stats[row].x) * stats[row].y;
#if VEC4
    let hit = vec4i(i32(i * 4u)) + vec4i(0, 1, 2, 3) == vec4i(goal);
#else
    let hit = i32(i) == goal;
#endif
    dlogits[base + i] = (p - select(T(0.0), T(1.0), hit)) * scale;
  }
}

$ROWS
