import { preprocess, wgsl } from '../../engine/index.ts';
import type { Defines, Device } from '../../engine/index.ts';

const source = wgsl(import.meta.url, './rows.wgsl');
const variants = new Map<string, Defines>();

/** Lanes of a row that several subgroups share: a workgroup on a GPU. */
const WORKGROUP = 128;
/** Up to this many elements a lane, one subgroup is enough for a row on a GPU. */
const PER_LANE = 32;

/**
 * Defines for kernels in which one workgroup walks one row of `length` elements: `LANES`, and `ROWS`, the functions of
 * `rows.wgsl` that combine the lanes' values. `vec4` says that rows are read four elements at a time.
 */
export function rowDefines({ profile }: Device, length: number, vec4: boolean): Defines {
  const subgroups = profile.subgroupSize > 0 && (profile.software || length <= PER_LANE * profile.subgroupSize);
  const lanes = subgroups ? profile.subgroupSize : WORKGROUP;
  const key = `${lanes} ${subgroups} ${vec4}`;
  let defines = variants.get(key);
  if (!defines) {
    const choice = { SUBGROUPS: subgroups, VEC4: vec4, LANES: lanes };
    defines = { ...choice, ROWS: preprocess(source.name, source.text!, choice) };
    variants.set(key, defines);
  }
  return defines;
}
