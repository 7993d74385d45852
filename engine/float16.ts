/**
 * IEEE 754 binary16 on the host, as bits in a `Uint16Array` (Node 20 has no `Float16Array`).
 * Widening is exact; narrowing rounds to nearest, ties to even, overflows to infinity and keeps a NaN a NaN.
 */

let widened: Float32Array | undefined;

/** All 65,536 values: a load from a table is several times faster than decoding the fields. */
function wideningTable(): Float32Array {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else table[bits] = sign * (1024 + fraction) * 2 ** (exponent - 25);
  }
  return table;
}

/** binary16 bits → the same values as f32, exactly. */
export function f16ToF32(bits: Uint16Array): Float32Array<ArrayBuffer> {
  widened ??= wideningTable();
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = widened[bits[i]];
  return out;
}

/** f32 → binary16 bits, rounded to nearest, ties to even. */
export function f32ToF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) {
    const sign = (words[i] >>> 16) & 0x8000;
    const magnitude = words[i] & 0x7fffffff;
    if (magnitude > 0x7f800000) {
      out[i] = sign | 0x7e00; // NaN
    } else if (magnitude >= 0x477ff000) {
      out[i] = sign | 0x7c00; // 65,520 and above is nearer to 2¹⁶ than to 65,504
    } else if (magnitude >= 0x38800000) {
      // Normal (≥ 2⁻¹⁴): rebias the exponent from 127 to 15, round away 13 bits; a carry moves into the exponent as it should.
      const odd = (magnitude >>> 13) & 1;
      out[i] = sign | ((magnitude - (112 << 23) + 0xfff + odd) >>> 13);
    } else {
      // Subnormal: a multiple of 2⁻²⁴. Adding ½ in f32 (whose last place is then 2⁻²⁴) does the rounding.
      const shifted = Math.fround(Math.abs(values[i]) + 0.5);
      out[i] = sign | Math.round((shifted - 0.5) * 2 ** 24);
    }
  }
  return out;
}
