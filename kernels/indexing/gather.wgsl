// out[o, k, i] = x[o, index, i] with index = indices[o, k, i], or, where they are SHARED by all lines, indices[k]: gather,
// indexSelect and embedding. An index that is no place of x gives `missing` (NaN, or 0 for whole numbers) instead of a read
// out of bounds. Elements are moved as words, whatever they stand for; see layout/copy.wgsl. The load is made in any case, and
// its value chosen after: with a branch around it, indexSelect took a software adapter 29 ms instead of 15.
//
// SCATTER is the way back for indices that are distinct along a line: out[o, index, i] = x[o, k, i]; places that no index names
// are left as they are.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (outer, n, inner); SCATTER: (outer, count, inner)
@group(0) @binding(1) var<storage, read> indices: array<i32>; // (outer, count, inner) or (count)
@group(0) @binding(2) var<storage, read_write> out: array<$T>; // the other of x's two shapes

struct Params {
  size: u32, // outer · count · inner, in T like inner
  n: u32,
  count: u32,
  inner: u32,
#if !SCATTER
  missing: u32, // a word of the value
#endif
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let row = i / params.inner; // outer · count + k
#if SHARED
  let index = indices[row % params.count];
#else
  let index = indices[i];
#endif
  let known = index >= 0 && u32(index) < params.n;
  let place = (row / params.count * params.n + u32(index)) * params.inner + i % params.inner;
#if SCATTER
  if (known) { out[place] = x[i]; }
#else
  // Read in any case, from a place that exists: a branch around a load costs a software adapter more.
  let value = x[select(0u, place, known)];
#if F16
  let missing = bitcast<vec2<f16>>(params.missing).x;
#else
  let missing = $T(params.missing);
#endif
  out[i] = select(missing, value, known);
#endif
}
