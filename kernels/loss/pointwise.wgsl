// Losses of two tensors that compare element with element: each sample is cut into pieces, lanes walk a piece
// (reduce/rows.wgsl), and the pieces' sums, times the sample's weight, are added up by a sum. Batches of one so keep a
// whole device busy.
//
// LOSS is the loss of elements a and b, as the body of a function.

@group(0) @binding(0) var<storage, read> a: array<Stored>; // (samples, length)
@group(0) @binding(1) var<storage, read> b: array<Stored>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // (samples, pieces)
#if WEIGHTS
@group(0) @binding(3) var<storage, read> weights: array<$T>; // (samples)
#endif

struct Params {
  rows: u32, // samples · pieces
  length: u32, // in V
  pieces: u32,
  piece: u32, // of length, in V
  scale: f32,
  alpha: f32, // of the loss
}

fn load(i: u32) -> V { return loss(V(a[i]), V(b[i])); }
fn loss(a: V, b: V) -> V { $LOSS }

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) invocation: u32) {
  let row = rowOf(wg.x + wg.y * groups.x, invocation);
  let lane = laneOf(invocation);
  if (row >= params.rows) { return; }
  let sample = row / params.pieces;
  let base = sample * params.length;
  let begin = (row % params.pieces) * params.piece;
  let end = base + min(begin + params.piece, params.length);
  var sums = V(0.0);
  for (var block = base + begin; block < end; block += BLOCK) {
    var some = V(0.0);
    for (var i = block + lane; i < min(block + BLOCK, end); i += LANES) { some += load(i); }
    sums += some;
  }
  let total = sumLanes(fold(sums), lane) * params.scale;
#if WEIGHTS
  if (lane == 0u) { out[row] = total * f32(weights[sample]); }
#else
  if (lane == 0u) { out[row] = total; }
#endif
}

$HELPERS

$ROWS
