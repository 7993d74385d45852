// Counter-based random numbers (philox.wgsl).
//
// Element i takes word i mod 4 of the block with counter (i / 4, sample, step, 0): a function of i, the counter and the key
// alone, whatever the launch. Each invocation makes one block, so four neighbouring elements; those past the end are nobody's.
//
// Ten rounds are arithmetic alone, so it costs little more than the store: a million uniform values take a software adapter
// 2.7 ms, normal ones 3.0, where a kernel that reads and writes as many takes 1.8.

#include ./turns.wgsl
#include ./philox.wgsl

@group(0) @binding(0) var<storage, read_write> out: array<vec4<$T>>;
#if DROPOUT
@group(0) @binding(1) var<storage, read> x: array<vec4<$T>>;
#endif

struct Params {
  size: u32,
  sample: u32,
  step: u32,
  low: u32, // the key
  high: u32,
#if UNIFORM
  start: f32,
  span: f32,
#endif
#if DROPOUT
  threshold: u32, // p · 2³²
  scale: f32, // 1 / (1 − p)
#endif
}

#if NORMAL
// Box & Muller (1958): two words give two independent standard normal values, up to ±6.8.
fn normals(radius: u32, angle: u32) -> vec2f {
  return sqrt(-2.0 * log_uniform(radius)) * circle(angle);
}
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let block = (wg.x + wg.y * groups.x) * 64u + lane;
  if (block * 4u >= params.size) { return; }
  let words = philox(vec4u(block, params.sample, params.step, 0u), vec2u(params.low, params.high));
#if WORDS
  let values = words;
#endif
#if UNIFORM
  // 24 bits: every value is exact in f32 and below 1
  let values = params.start + params.span * (vec4f(words >> vec4u(8u)) * 0x1p-24f);
#endif
#if NORMAL
  let values = vec4f(normals(words.x, words.y), normals(words.z, words.w));
#endif
#if DROPOUT
  let values = select(vec4f(0.0), vec4f(params.scale), words >= vec4u(params.threshold));
#endif
#if DROPOUT
  out[block] = vec4<$T>(vec4f(x[block]) * values);
#else
  out[block] = vec4<$T>(values);
#endif
}
