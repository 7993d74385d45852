// Four neighbouring values of a matrix in any dtype, as f32: load_NAME(i) gives elements 4·i … 4·i + 3. formats.ts inserts
// this text into the kernels that read weights; engine/formats.ts defines the formats.
//
// Four at a time: a product's kernel multiplies blocks of 4×4, and an address costs more than what it leads to on a
// software adapter (eight values of 8 or 4 bits a load gained nothing beyond noise there). f16 is unpacked from words, which
// is twice as fast there as loads of vec4<f16> (1.5 ms and 3.0 for a row times 2048 × 2048), and needs no shader-f16. (64, 1024)
// times (1024, 1024)ᵀ takes 3.0 ms with f32, 2.8 with f16, bf16 and q8, 2.9 with q4: formats save memory there, not time.

#if BLOCKS
@group(0) @binding($BINDING) var<storage, read> $NAME: array<u32>; // quants: four bytes or eight nibbles a word
// Scales are f16, two a word, one for 32 values.
#if INSIDE
fn scale_of_$NAME(i: u32) -> f32 { return unpack2x16float($NAME[scales_at_$NAME() + i / 16u])[i / 8u % 2u]; }
#else
@group(0) @binding($SCALES) var<storage, read> scales_of_$NAME: array<u32>;

fn scale_of_$NAME(i: u32) -> f32 { return unpack2x16float(scales_of_$NAME[i / 16u])[i / 8u % 2u]; }
#endif
#endif
#if Q8
fn load_$NAME(i: u32) -> vec4f {
  let q = vec4i(vec4u($NAME[i]) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u); // the bytes, with their signs
  return vec4f(q) * scale_of_$NAME(i);
}
#endif
#if Q4
fn load_$NAME(i: u32) -> vec4f {
  let q = (vec4u($NAME[i / 2u] >> (i % 2u * 16u)) >> vec4u(0u, 4u, 8u, 12u)) & vec4u(15u);
  return (vec4f(q) - 8.0) * scale_of_$NAME(i);
}
#endif
#if BF16
@group(0) @binding($BINDING) var<storage, read> $NAME: array<vec2u>;

fn load_$NAME(i: u32) -> vec4f {
  let w = $NAME[i];
  return bitcast<vec4f>(vec4u(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u));
}
#endif
#if F16
@group(0) @binding($BINDING) var<storage, read> $NAME: array<vec2u>;

fn load_$NAME(i: u32) -> vec4f {
  let w = $NAME[i];
  return vec4f(unpack2x16float(w.x), unpack2x16float(w.y));
}
#endif
#if F32
@group(0) @binding($BINDING) var<storage, read> $NAME: array<vec4f>;

fn load_$NAME(i: u32) -> vec4f { return $NAME[i]; }
#endif
