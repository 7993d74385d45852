// Sums over the middle of (outer, n, inner): each invocation adds one chunk of n serially, and the host repeats until one
// chunk is left. Chunks of fixed length make the order of additions a matter of the shape alone, and the error that of a
// tree over chunks. With inner = 1 and n a multiple of four the loads are vec4.

#if VEC4
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
#else
@group(0) @binding(0) var<storage, read> x: array<f32>;
#endif
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // (outer, chunks, inner)

struct Params {
  outputs: u32, // outer · chunks · inner
  n: u32,
  inner: u32,
  chunks: u32,
  chunk: u32, // elements a chunk, a multiple of four
  scale: f32, // 1, or 1 / count in the last pass of a mean
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (wg.x + wg.y * groups.x) * 64u + lane;
  if (index >= params.outputs) { return; }
  let column = index % params.inner;
  let part = (index / params.inner) % params.chunks;
  let outer = index / (params.inner * params.chunks);
  let begin = part * params.chunk;
  let end = min(begin + params.chunk, params.n);
#if VEC4
  let row = outer * (params.n / 4u);
  var sums = vec4f(0.0);
  for (var i = begin / 4u; i < end / 4u; i++) { sums += x[row + i]; }
  out[index] = ((sums.x + sums.y) + (sums.z + sums.w)) * params.scale;
#else
  let row = outer * params.n * params.inner + column;
  var sum = 0.0;
  for (var i = begin; i < end; i++) { sum += x[row + i * params.inner]; }
  out[index] = sum * params.scale;
#endif
}
