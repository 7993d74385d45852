// Cross-entropy of a chunk of rows whose logits z have just been made: log Σ exp(z) − z[target], and where GRADIENT is wanted
// the logits are replaced by its derivative, softmax(z) − onehot(target), so that the chunk is all that is ever held. Walks
// of the row are laid out as in reduce/rows.wgsl: the largest logit, the sum, and the derivative.
//
// SOFTCAP: z = cap · tanh(logit / cap), whose slope is 1 − (z / cap)².
//
// Head and loss of (1024, 256) over 16,384 columns, forward and backward, on the software adapter: 1.8 s of the processor's time
// and 145 MiB by plain operations; 1.8 and 81 MiB in chunks of 64 MiB, 1.7 and 25 MiB in chunks of 8, 1.9 and 19 MiB of 2.
//
// An ignored row gives 0 and no derivative; a target that is neither a column nor ignored gives NaN.

@group(0) @binding(0) var<storage, read_write> logits: array<Stored>; // (rows, columns); becomes the derivative
@group(0) @binding(1) var<storage, read> targets: array<i32>; // of all chunks
@group(0) @binding(2) var<storage, read_write> losses: array<f32>; // of all chunks

struct Params {
  first: u32, // the chunk's first row
  rows: u32, // of the chunk
  columns: u32, // in V
  ignored: i32,
  nan: u32, // the bits of NaN: WGSL has no literal for it
  cap: f32,
}

fn load(i: u32) -> V {
#if SOFTCAP
  // Clamped: tanh is 1 to f32's precision from 10 on, and far out some drivers' tanh overflows.
  return params.cap * tanh(clamp(V(logits[i]) / params.cap, V(-15.0), V(15.0)));
#else
  return V(logits[i]);
#endif
}

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) invocation: u32) {
  let row = rowOf(wg.x + wg.y * groups.x, invocation);
  let lane = laneOf(invocation);
  if (row >= params.rows) { return; }
  let base = row * params.columns;
  var highest = V(-0x1.fffffep+127); // the lowest number that there is
  for (var i = lane; i < params.columns; i += LANES) { highest = max(highest, load(base + i)); }
  let shift = maxLanes(foldMax(highest), lane);
  let goal = targets[params.first + row];
  let counts = goal != params.ignored;
  let inside = goal >= 0 && u32(goal) < params.columns * WIDTH;
  var exponentials = V(0.0);
  var chosen = V(0.0); // of all columns one lane meets the target
  for (var block = 0u; block < params.columns; block += BLOCK) {
    var some = V(0.0);
    for (var i = block + lane; i < min(block + BLOCK, params.columns); i += LANES) {
      let d = load(base + i) - shift;
      some += exp(d);
      chosen = select(chosen, d, isElement(i, u32(goal)));
    }
    exponentials += some;
  }
  let sums = sumLanes2(vec2f(fold(exponentials), fold(chosen)), lane);
#if GRADIENT
  for (var i = lane; i < params.columns; i += LANES) {
    let z = load(base + i);
    var slope = exp(z - shift) / sums.x - select(V(0.0), V(1.0), isElement(i, u32(goal)));
#if SOFTCAP
    slope *= 1.0 - (z / params.cap) * (z / params.cap);
#endif
    // Chosen, not multiplied by 0: an ignored row may hold anything.
    logits[base + i] = Stored(select(V(0.0), slope, counts));
  }
#endif
  if (lane > 0u) { return; }
  let loss = select(bitcast<f32>(params.nan), log(sums.x) - sums.y, inside);
  losses[params.first + row] = select(0.0, loss, counts);
}

$ROWS
