// Each row's log(Σ exp(logits)) − logits[target], one workgroup a row; the largest logit and 1 / Σ are kept for the
// gradient, so that probabilities are never stored (the log-sum-exp alone would lose digits where logits are large). An ignored row gives 0; a target that is neither a column nor ignored gives NaN.

@group(0) @binding(0) var<storage, read> logits: array<T>; // (rows, columns)
@group(0) @binding(1) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(2) var<storage, read_write> losses: array<f32>; // (rows)
@group(0) @binding(3) var<storage, read_write> stats: array<vec2f>; // (rows): max, 1 / Σ exp(logits − max)

struct Params {
  rows: u32,
  columns: u32, // in T
  ignored: i32,
  nan: u32, // the bits of NaN: WGSL has no literal for it
}

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x + wg.y * groups.x;
  if (row >= params.rows) { return; }
  let base = row * params.columns;
  var highest = T(-3.4e38);
  for (var i = lane; i < params.columns; i += LANES) { highest = max(highest, logits[base + i]); }
  let shift = maxLanes(foldMax(highest), lane);
  var sum = T(0.0);
  for (var i = lane; i < params.columns; i += LANES) { sum += exp(logits[base + i] - shift); }
  let total = sumLanes(fold(sum), lane);
  if (lane > 0u) { return; }
  stats[row] = vec2f(shift, 1.0 / total);
  let goal = targets[row];
  if (goal == params.ignored) {
    losses[row] = 0.0;
  } else if (goal < 0 || u32(goal) >= params.columns * WIDTH) {
    losses[row] = bitcast<f32>(params.nan);
  } else {
#if VEC4
    losses[row] = log(total) + (shift - logits[base + u32(goal) / 4u][u32(goal) % 4u]);
#else
    losses[row] = log(total) + (shift - logits[base + u32(goal)]);
#endif
  }
}

$ROWS
