// Each row's cross-entropy: log Σ exp(z) − (1 − ε) · z[target] − ε · mean(z), with logits z and label smoothing ε. Two walks
// of the row (reduce/rows.wgsl): the largest logit, then the sums. The largest logit and 1 / Σ are kept for the gradient, so
// that probabilities are never stored (the log-sum-exp alone would lose digits where logits are large). An ignored row
// gives 0; a target that is neither a column nor ignored gives NaN. (512, 8192) takes a software adapter 3.5 ms, and 5.5 to
// write log-probabilities alone.

@group(0) @binding(0) var<storage, read> logits: array<Stored>; // (rows, columns)
@group(0) @binding(1) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(2) var<storage, read_write> losses: array<f32>; // (rows)
@group(0) @binding(3) var<storage, read_write> stats: array<vec2f>; // (rows): max, 1 / Σ exp(logits − max)

struct Params {
  rows: u32,
  columns: u32, // in V
  ignored: i32,
  nan: u32, // the bits of NaN: WGSL has no literal for it
  smoothing: f32,
}

fn load(i: u32) -> V { return V(logits[i]); }

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) invocation: u32) {
  let row = rowOf(wg.x + wg.y * groups.x, invocation);
  let lane = laneOf(invocation);
  if (row >= params.rows) { return; }
  let base = row * params.columns;
  var highest = V(-0x1.fffffep+127); // the lowest number that there is: masks are made with it
  for (var i = lane; i < params.columns; i += LANES) { highest = max(highest, load(base + i)); }
  let shift = maxLanes(foldMax(highest), lane);
  var exponentials = V(0.0);
  var distances = V(0.0);
  for (var block = 0u; block < params.columns; block += BLOCK) {
    var some = V(0.0);
    var far = V(0.0);
    for (var i = block + lane; i < min(block + BLOCK, params.columns); i += LANES) {
      let d = load(base + i) - shift;
      some += exp(d);
      far += d;
    }
    exponentials += some;
    distances += far;
  }
  let sums = sumLanes2(vec2f(fold(exponentials), fold(distances)), lane);
  if (lane > 0u) { return; }
  stats[row] = vec2f(shift, 1.0 / sums.x);
  let goal = targets[row];
  if (goal == params.ignored) {
    losses[row] = 0.0;
  } else if (goal < 0 || u32(goal) >= params.columns * WIDTH) {
    losses[row] = bitcast<f32>(params.nan);
  } else {
    let at = u32(goal);
#if VEC4
    let chosen = load(base + at / 4u)[at % 4u] - shift;
#else
    let chosen = load(base + at) - shift;
#endif
    var others = 0.0; // not touched without smoothing: a logit of −∞ would make it NaN
    if (params.smoothing > 0.0) { others = params.smoothing * sums.y / f32(params.columns * WIDTH); }
    losses[row] = log(sums.x) - (1.0 - params.smoothing) * chosen - others;
  }
}

$ROWS
