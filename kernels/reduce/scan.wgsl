// Cumulative sums along the middle of (outer, n, inner): each invocation walks down a piece of n, with VEC4 of four
// neighbouring columns, beginning with the sum of the pieces before it. Those sums are made by reduce_columns.wgsl and
// scanned by this kernel in turn, so that the order of additions is a matter of the shape alone (Blelloch 1990, "Prefix
// sums and their applications", with pieces in place of pairs). In reverse everything runs from the end.
//
// Two passes over memory, and a third over the few sums: (1024, 1024) takes a software adapter 1.1 ms down the columns, by vec4,
// and 2.0 along rows, where an invocation reads its piece one by one.

#if VEC4
alias V = vec4f;
alias Stored = vec4<$T>;
#else
alias V = f32;
alias Stored = $T;
#endif

@group(0) @binding(0) var<storage, read> x: array<Stored>; // (outer, n, inner)
@group(0) @binding(1) var<storage, read_write> out: array<Stored>; // (outer, n, inner)
#if CARRY
@group(0) @binding(2) var<storage, read> carries: array<V>; // (outer, pieces, inner): cumulative sums of the pieces
#endif

struct Params {
  walks: u32, // outer · pieces · inner, in V
  n: u32,
  inner: u32, // in V
  pieces: u32,
  piece: u32, // of n
  reverse: u32,
}

fn load(i: u32) -> V { return V(x[i]); }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (wg.x + wg.y * groups.x) * 64u + lane;
  if (index >= params.walks) { return; }
  let column = index % params.inner;
  let part = (index / params.inner) % params.pieces;
  let outer = index / (params.inner * params.pieces);
  let begin = part * params.piece;
  let count = min(params.piece, params.n - begin);
  let base = outer * params.n * params.inner + column;
  let reverse = params.reverse != 0u;
  var total = V(0.0);
#if CARRY
  if (reverse) {
    if (part + 1u < params.pieces) { total = carries[index + params.inner]; }
  } else if (part > 0u) {
    total = carries[index - params.inner];
  }
#endif
  for (var k = 0u; k < count; k++) {
    let at = base + (begin + select(k, count - 1u - k, reverse)) * params.inner;
    total += load(at);
    out[at] = Stored(total);
  }
}
