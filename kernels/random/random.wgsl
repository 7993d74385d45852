// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// Element i takes word i mod 4 of the block with counter (i / 4, sample, step, 0): a function of i, the counter and the key
// alone, whatever the launch. Each invocation makes one block, so four neighbouring elements; those past the end are nobody's.
//
// Ten rounds are arithmetic alone, so it costs little more than the store: a million uniform values take a software adapter
// 2.7 ms, normal ones 3.0, where a kernel that reads and writes as many takes 1.8.

#include ./turns.wgsl

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

fn philox(counter: vec4u) -> vec4u {
  var c = counter;
  var key = vec2u(params.low, params.high);
  for (var round = 0u; round < 10u; round++) {
    c = vec4u(
      mul_high(0xcd9e8d57u, c.z) ^ c.y ^ key.x,
      0xcd9e8d57u * c.z,
      mul_high(0xd2511f53u, c.x) ^ c.w ^ key.y,
      0xd2511f53u * c.x,
    );
    key += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}

#if NORMAL
// WGSL lets log err by 2⁻²¹ near 1 and cos by 2⁻¹¹, and SwiftShader does: normal values were off by 6e-4 there. This one and
// `circle` are good to a few units of rounding on every adapter, and no slower.

// ln((word + ½) / 2³²): of u = m · 2^exponent, m in [√½, √2), ln m = 2 artanh(f / (2 + f)) with f = m − 1.
fn log_uniform(word: u32) -> f32 {
  let bits = bitcast<i32>((f32(word) + 0.5) * 0x1p-32f);
  let exponent = (bits - 0x3f3504f3) >> 23u; // 0x3f3504f3 is √½
  // Near 1, where u has lost its last bits to rounding, 1 − u has them all.
  let f = select(bitcast<f32>(bits - (exponent << 23u)) - 1.0, -(f32(~word) + 0.5) * 0x1p-32f, exponent == 0);
  let s = f / (2.0 + f);
  let z = s * s; // ≤ 0.03
  return f32(exponent) * 0.693147180559945 + 2.0 * s * (1.0 + z * (1.0 / 3.0 + z * (0.2 + z * (1.0 / 7.0 + z / 9.0))));
}

// Box & Muller (1958): two words give two independent standard normal values, up to ±6.8.
fn normals(radius: u32, angle: u32) -> vec2f {
  return sqrt(-2.0 * log_uniform(radius)) * circle(angle);
}
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let block = (wg.x + wg.y * groups.x) * 64u + lane;
  if (block * 4u >= params.size) { return; }
  let words = philox(vec4u(block, params.sample, params.step, 0u));
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
