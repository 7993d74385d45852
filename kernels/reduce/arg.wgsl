// Where the largest element along the middle of (outer, n, inner) stands; with sign −1, the smallest. Each invocation walks
// down a piece of n and keeps value and place; further passes walk over the pieces' results. The first of equals stays.
// Nothing is shared between invocations. (1024, 1024) takes a software adapter 0.9 ms along rows, where the sum takes 0.4.

#if FIRST
@group(0) @binding(0) var<storage, read> values: array<$T>; // (outer, n, inner)
#else
@group(0) @binding(0) var<storage, read> values: array<f32>; // (outer, n, inner): of the pass before
@group(0) @binding(3) var<storage, read> places: array<i32>; // (outer, n, inner)
#endif
@group(0) @binding(1) var<storage, read_write> best: array<f32>; // (outer, pieces, inner): sign · value
@group(0) @binding(2) var<storage, read_write> place: array<i32>; // (outer, pieces, inner)

struct Params {
  outputs: u32, // outer · pieces · inner
  n: u32,
  inner: u32,
  pieces: u32,
  piece: u32, // of n
  sign: f32,
}

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
  var highest = f32(values[base + begin * params.inner]) * params.sign;
  var at = begin;
  for (var i = begin + 1u; i < end; i++) {
    let value = f32(values[base + i * params.inner]) * params.sign;
    if (value > highest) {
      highest = value;
      at = i;
    }
  }
  best[index] = highest;
#if FIRST
  place[index] = i32(at);
#else
  place[index] = places[base + at * params.inner];
#endif
}
