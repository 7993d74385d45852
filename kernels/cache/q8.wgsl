// Blocks of 32 neighbours in q8, as engine/formats.ts has them: quants in words of four, and the scale in f16.

// The bits of the scale of a block whose largest magnitude is `most`.
fn scaleOf(most: f32) -> u32 {
  let bits = pack2x16float(vec2f(min(most / 127.0, 65504.0), 0.0));
  // Among subnormal scales the nearest may be so far below that the largest value would be cut.
  return bits + u32(most > 127.5 * unpack2x16float(bits).x);
}

// Four quants as i32.
fn quantsOf(values: vec4f, scale: f32) -> vec4i {
  return vec4i(clamp(round(select(vec4f(0.0), values / scale, scale > 0.0)), vec4f(-127.0), vec4f(127.0)));
}

fn wordOf(quants: vec4i) -> u32 {
  let bytes = bitcast<vec4u>(quants) & vec4u(255u);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
fn quantsIn(word: u32) -> vec4f {
  return vec4f(vec4i(vec4u(word) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u)); // the bytes, with their signs
}

fn largest(most: f32, values: vec4f) -> f32 {
  let a = abs(values);
  return max(most, max(max(a.x, a.y), max(a.z, a.w)));
}
