// out[o, index, i] += Σ source[o, k, i] over the places k that have this index: the sum behind scatterAdd and the gradients of
// gather, indexSelect and embedding. There are no atomics: the indices come sorted (sort/order.ts) with their places, so that
// equal ones are neighbours, in the order of their places. The invocation at the first of such a run adds the whole run, in
// that order, in f32; all others have nothing to do. One write for each index that occurs, and count · inner reads of the
// source in all, but a run is added by one invocation alone: the longest run is the time it takes.
//
// SHARED: all lines have the same indices, and neighbouring elements of a row are added as vec4 where there are four (VEC4).
//
// For 2048 rows of 128 the embedding forward, the sort and this take a software adapter 1.8 ms where all ids differ, 1.7 with
// runs of 64, and 1.6 where all are the same: even a single run is added by 32 invocations, one for four columns. A GPU,
// unmeasured, such a run would leave mostly idle.

#if VEC4
alias T = vec4<$T>;
alias F = vec4f;
#else
alias T = $T;
alias F = f32;
#endif

@group(0) @binding(0) var<storage, read> pairs: array<vec2u>; // (outer · inner or 1, count): index + 2³¹, place
@group(0) @binding(1) var<storage, read> source: array<T>; // (outer, count, inner)
@group(0) @binding(2) var<storage, read_write> out: array<T>; // (outer, n, inner)

struct Params {
  size: u32, // outer · count · inner, in T like inner
  first: i32, // the index of out's first place along the axis: 0, unless out is a window of something larger
  n: u32,
  count: u32,
  inner: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let row = i / params.inner;
  let column = i % params.inner;
  let outer = row / params.count;
  let at = row % params.count; // in the sorted order
#if SHARED
  let line = 0u;
#else
  let line = (outer * params.inner + column) * params.count;
#endif
  let key = pairs[line + at].x;
  let index = bitcast<i32>(key ^ 0x80000000u) - params.first;
  if (index < 0 || u32(index) >= params.n) { return; }
  if (at > 0u && pairs[line + at - 1u].x == key) { return; }
  var sum = F(0.0);
  for (var k = at; k < params.count; k++) {
    let pair = pairs[line + k];
    if (pair.x != key) { break; }
    sum += F(source[(outer * params.count + pair.y) * params.inner + column]);
  }
  let place = (outer * params.n + u32(index)) * params.inner + column;
  out[place] = T(F(out[place]) + sum);
}
