import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { f16ToF32, f32ToF16 } from '../../engine/float16.ts';

const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
const isNaN16 = (bits: number) => (bits & 0x7fff) > 0x7c00;

/** The nearest binary16 of x found by search over all values, ties to the even one: slow and independent. */
const finite = [...all.subarray(0, 0x7c00)].map((bits) => ({ bits, value: f16ToF32(Uint16Array.of(bits))[0] }));
function nearest(x: number): number {
  const magnitude = Math.abs(x);
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  let low = 0;
  let high = finite.length - 1;
  if (magnitude >= 65504) return sign | (magnitude < 65520 ? 0x7bff : 0x7c00);
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (finite[middle].value <= magnitude) low = middle;
    else high = middle;
  }
  const below = magnitude - finite[low].value;
  const above = finite[high].value - magnitude;
  const up = above < below || (above === below && finite[high].bits % 2 === 0);
  return sign | finite[up ? high : low].bits;
}

describe('float16', () => {
  it('widens known values', () => {
    const bits = Uint16Array.of(0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x3555, 0x7c00, 0xfc00);
    expect([...f16ToF32(bits)]).toEqual([0, -0, 1, -2, 65504, 2 ** -14, 2 ** -24, 0.333251953125, Infinity, -Infinity]);
  });

  it('round-trips all 65,536 values', () => {
    const back = f32ToF16(f16ToF32(all));
    for (const bits of all) {
      if (isNaN16(bits)) expect(isNaN16(back[bits])).toBe(true);
      else if (back[bits] !== bits) expect.fail(`${bits.toString(16)} came back as ${back[bits].toString(16)}`);
    }
  });

  it('rounds every midpoint to even and its neighbours to the nearer side', () => {
    const word = new Float32Array(1);
    const view = new Uint32Array(word.buffer);
    for (let i = 0; i + 1 < finite.length; i++) {
      word[0] = (finite[i].value + finite[i + 1].value) / 2; // exact in f32
      const even = finite[i].bits % 2 === 0 ? finite[i].bits : finite[i + 1].bits;
      const middle = view[0];
      const results = [0, -1, 1].map((d) => {
        view[0] = middle + d;
        return f32ToF16(word)[0];
      });
      const expected = [even, finite[i].bits, finite[i + 1].bits];
      if (results.join() !== expected.join()) expect.fail(`at ${finite[i].bits}: ${results} for ${expected}`);
    }
  });

  it('overflows from the middle between the largest value and 2¹⁶', () => {
    const [below, above] = [0x477fefff, 0x477ff000].map((bits) => new Float32Array(Uint32Array.of(bits).buffer)[0]);
    expect(above).toBe(65520);
    const values = Float32Array.of(65504, 65505, below, above, -below, -above, 3e38, -Infinity);
    expect([...f16ToF32(f32ToF16(values))]).toEqual([
      65504,
      65504,
      65504,
      Infinity,
      -65504,
      -Infinity,
      Infinity,
      -Infinity,
    ]);
  });

  it('agrees with a search on any f32', () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true }), (x) => f32ToF16(Float32Array.of(x))[0] === nearest(x)),
      { numRuns: 5000 },
    );
    expect(isNaN16(f32ToF16(Float32Array.of(NaN))[0])).toBe(true);
  });
});
