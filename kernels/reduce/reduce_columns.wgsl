// Reduces the middle of (outer, n, inner): each invocation walks down a piece of n, with VEC4 of four neighbouring columns,
// so that neighbours read neighbours; the host repeats until one piece is left. As in reduce.wgsl, pieces of fixed length
// make the order a matter of the shape alone. Reading four columns at a time instead of one, (2048, 320) → (320) took
// 1.35 ms instead of 1.75 on a software adapter.

#if VEC4
alias V = vec4f;
alias Result = vec4<$OUT>;
#else
alias V = f32;
alias Result = $OUT;
#endif

// `load(i)` of x (outer, n, inner); see reduce.wgsl.
$OPERAND

$OUT_AT var<storage, read_write> out: array<Result>; // (outer, pieces, inner)

struct Params {
  outputs: u32, // outer · pieces · inner, in V
  n: u32,
  inner: u32, // in V
  pieces: u32,
  piece: u32, // of n
  scale: f32, // 1, or in the last pass what the result is multiplied by
  $FIELDS
}

fn map(v: V) -> V { return $MAP; }
fn combine(a: V, b: V) -> V { return $COMBINE; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (wg.x + wg.y * groups.x) * 64u + lane;
  if (index >= params.outputs) { return; }
  let column = index % params.inner;
  let part = (index / params.inner) % params.pieces;
  let outer = index / (params.inner * params.pieces);
  let begin = part * params.piece;
  let end = min(begin + params.piece, params.n);
  let base = outer * params.n * params.inner + column;
  var found = map(load(base + begin * params.inner));
  for (var i = begin + 1u; i < end; i++) { found = combine(found, map(load(base + i * params.inner))); }
  out[index] = Result(found * params.scale);
}
