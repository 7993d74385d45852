// Sums, or largest values, of contiguous rows: each is cut into pieces of fixed length, lanes walk a piece (rows.wgsl), and
// the host repeats until one piece is left. The order of additions is so a matter of the shape alone, and the error that of
// a tree over pieces.

// `load(i)` of x (rows, n): from memory, or a chain of element-wise operations computed on the way (elementwise/chain.ts).
$OPERAND

$OUT_AT var<storage, read_write> out: array<$OUT>; // (rows, pieces)

struct Params {
  rows: u32, // times pieces
  n: u32, // in V
  pieces: u32,
  piece: u32, // of n, in V
  scale: f32, // 1, or in the last pass what the result is multiplied by
  $FIELDS
}

// What is added up: the element, its square, …
fn map(v: V) -> V { return $MAP; }

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) invocation: u32) {
  let row = rowOf(wg.x + wg.y * groups.x, invocation);
  let lane = laneOf(invocation);
  if (row >= params.rows) { return; }
  let base = (row / params.pieces) * params.n;
  let begin = (row % params.pieces) * params.piece;
  let end = base + min(begin + params.piece, params.n);
#if MAX
  var highest = map(load(base + begin));
  for (var i = base + begin + lane; i < end; i += LANES) { highest = max(highest, map(load(i))); }
  let result = maxLanes(foldMax(highest), lane);
#else
  var sums = V(0.0);
  for (var block = base + begin; block < end; block += BLOCK) {
    var some = V(0.0);
    for (var i = block + lane; i < min(block + BLOCK, end); i += LANES) { some += map(load(i)); }
    sums += some;
  }
  let result = sumLanes(fold(sums), lane);
#endif
  if (lane == 0u) { out[row] = $OUT(result * params.scale); }
}

$ROWS
