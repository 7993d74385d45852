/** For kernels that move elements without computing with them. */
import { f32ToF16 } from '../../engine/index.ts';
import type { Defines, DType } from '../../engine/index.ts';

export interface Words {
  /** `T`: what is moved at once, whatever it stands for. 32-bit dtypes, and f16 where two fit, share their kernels. */
  readonly defines: Defines;
  /** Elements in one. */
  readonly elements: number;
}

const WIDE: Defines = { T: 'vec4<u32>' };
const WORD: Defines = { T: 'u32' };
const HALF: Defines = { T: 'f16', F16: true };

/** The widest words of which all `extents` (in elements) are whole multiples. */
export function wordsOf(dtype: DType, extents: readonly number[]): Words {
  const bytes = dtype === 'f16' ? 2 : 4;
  const whole = (word: number) => extents.every((extent) => (extent * bytes) % word === 0);
  if (whole(16)) return { defines: WIDE, elements: 16 / bytes };
  if (whole(4)) return { defines: WORD, elements: 4 / bytes };
  return { defines: HALF, elements: 1 };
}

const scratch = new DataView(new ArrayBuffer(4));

/** The word (u32) whose every element of `dtype` is `value`: how a kernel that moves words is told what to fill in. */
export function wordWith(dtype: DType, value: number): number {
  if (dtype === 'f16') {
    const half = f32ToF16(Float32Array.of(value))[0]!;
    return half * 0x10001;
  }
  if (dtype === 'f32') scratch.setFloat32(0, value);
  else if (dtype === 'i32') scratch.setInt32(0, value);
  else scratch.setUint32(0, value);
  return scratch.getUint32(0);
}
