// Angles as words: a turn is 2³², so that sums and products wrap at whole turns by themselves and lose nothing. WGSL lets cos
// and sin err by 2⁻¹¹ (and SwiftShader does); here quarter turns are taken off in integers, and the rest, an eighth of a turn at
// most, goes through the Taylor series, which err by less than 2⁻²⁵.

// (cos, sin) of 2π · turn / 2³².
fn circle(turn: u32) -> vec2f {
  let quarters = (turn + 0x20000000u) >> 30u;
  let rest = f32(bitcast<i32>(turn - (quarters << 30u))) * 0x1.921fb6p-30f; // [−π/4, π/4)
  let z = rest * rest;
  let c = 1.0 + z * (-1.0 / 2.0 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z / 40320.0)));
  let s = rest * (1.0 + z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z / 362880.0))));
  let turned = select(vec2f(c, s), vec2f(-s, c), (quarters & 1u) == 1u);
  return select(turned, -turned, (quarters & 2u) == 2u);
}

// The upper word of a · b, put together from 16-bit halves: WGSL has no 64-bit product.
fn mul_high(a: u32, b: u32) -> u32 {
  let a0 = a & 0xffffu; let a1 = a >> 16u;
  let b0 = b & 0xffffu; let b1 = b >> 16u;
  let first = a1 * b0 + ((a0 * b0) >> 16u); // < 2³²
  let second = a0 * b1 + (first & 0xffffu); // < 2³²
  return a1 * b1 + (first >> 16u) + (second >> 16u);
}
