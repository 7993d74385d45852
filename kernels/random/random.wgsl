// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// Element i takes word i mod 4 of the block with counter (i / 4, sample, step, 0): a function of i, the counter and the key
// alone, whatever the launch. Each invocation makes one block, so four neighbouring elements. WGSL has no 64-bit
// product, so the high word is put together from 16-bit halves.

#if WORDS
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
#else
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
#endif
#if DROPOUT
@group(0) @binding(1) var<storage, read> x: array<f32>;
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

fn mul_high(a: u32, b: u32) -> u32 {
  let a0 = a & 0xffffu; let a1 = a >> 16u;
  let b0 = b & 0xffffu; let b1 = b >> 16u;
  let first = a1 * b0 + ((a0 * b0) >> 16u); // < 2³²
  let second = a0 * b1 + (first & 0xffffu); // < 2³²
  return a1 * b1 + (first >> 16u) + (second >> 16u);
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

// Box & Muller (1958): two words give two independent standard normal values.
fn normals(radius: u32, angle: u32) -> vec2f {
  // (word + ½) / 2³² lies in (0, 1], so the logarithm is finite and values reach ±6.8.
  let u = (f32(radius) + 0.5) * 0x1p-32f;
  let phi = f32(bitcast<i32>(angle)) * 0x1.921fb6p-30f; // [−π, π)
  // Near u = 1 an adapter's log may err above 0.
  return sqrt(max(0.0, -2.0 * log(u))) * vec2f(cos(phi), sin(phi));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let block = (wg.x + wg.y * groups.x) * 64u + lane;
  let first = block * 4u;
  if (first >= params.size) { return; }
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
  for (var i = 0u; i < min(4u, params.size - first); i++) {
#if DROPOUT
    out[first + i] = x[first + i] * values[i];
#else
    out[first + i] = values[i];
#endif
  }
}
