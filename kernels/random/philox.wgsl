// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a block of four words from a counter of
// four words and a key of two, as engine/random.ts makes it. Include turns.wgsl
// beside it, which has mul_high.

fn philox(counter: vec4u, stream: vec2u) -> vec4u {
  var c = counter;
  var key = stream;
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

// WGSL lets log err by 2⁻²¹ near 1, and SwiftShader does: normal values were off by 6e-4 there. This one is good to a few units
// of rounding on every adapter, and no slower.
//
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
