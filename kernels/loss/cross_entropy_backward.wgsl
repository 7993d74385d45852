// Gradient of the mean cross-entropy: (softmax(logits) − (1 − ε) · onehot(target) − ε / columns) · grad / count, 0 in
// ignored rows; the probabilities come from the saved largest logit and sum.
// One walk of the row, laid out as in reduce/rows.wgsl; the logits are the only thing of their size that is read.

@group(0) @binding(0) var<storage, read> logits: array<Stored>; // (rows, columns)
@group(0) @binding(1) var<storage, read> targets: array<i32>; // (rows)
@group(0) @binding(2) var<storage, read> stats: array<vec2f>; // (rows): max, 1 / Σ exp(logits − max)
@group(0) @binding(3) var<storage, read> count: array<f32>; // (1)
@group(0) @binding(4) var<storage, read> grad: array<f32>; // (1)
@group(0) @binding(5) var<storage, read_write> dlogits: array<Stored>; // (rows, columns)

struct Params {
  rows: u32,
  columns: u32, // in V
  ignored: i32,
  smoothing: f32,
}

fn load(i: u32) -> V { return V(logits[i]); }

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) invocation: u32) {
  let row = rowOf(wg.x + wg.y * groups.x, invocation);
  let lane = laneOf(invocation);
  if (row >= params.rows) { return; }
  let base = row * params.columns;
  let goal = targets[row];
  let counts = goal != params.ignored;
  let scale = grad[0] / count[0];
  let others = params.smoothing / f32(params.columns * WIDTH);
  for (var i = lane; i < params.columns; i += LANES) {
    let p = exp(load(base + i) - stats[row].x) * stats[row].y;
    let hit = select(V(0.0), V(1.0 - params.smoothing), isElement(i, u32(goal)));
    // Chosen, not multiplied by 0: an ignored row may hold anything.
    dlogits[base + i] = Stored(select(V(0.0), (p - hit - others) * scale, counts));
  }
}

$ROWS
