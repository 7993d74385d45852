/** How kernels walk contiguous rows: what they have in common, chosen by the adapter and the row's length. */
import { preprocess, typed, wgsl } from '../../engine/index.ts';
import type { Defines, Device, Kernel, KernelSource, Tensor } from '../../engine/index.ts';
import { variant } from '../variants.ts';

const source = wgsl(import.meta.url, './rows.wgsl');

/** Lanes of a workgroup that walks a row: few where that gives each no more than four loads, else many. */
const [FEW, MANY] = [32, 256];
/** Elements of a piece that one lane sums up. */
const LANE_PIECE = 1024;
/** Rows of a workgroup, where one lane walks a row and the adapter has no subgroups of one width. */
const ROWS = 8;

/** A way to walk rows; see rows.wgsl. */
export interface Walk {
  /** Elements that are read at a time: 4 or 1. */
  readonly width: number;
  /** Lanes of a row. */
  readonly lanes: number;
  /** Rows of a workgroup. */
  readonly rows: number;
  /** Elements of the pieces that long sums are cut into, so that a single row keeps a whole device busy. */
  readonly piece: number;
  /** The kernel of `source` that walks so, with more defines of its own. */
  kernel(source: KernelSource, more?: Defines): Kernel;
}

const walks = new WeakMap<Device, Map<string, Walk>>();

/** How a kernel walks rows of `length` elements of `x`; `vec4` says that they may be read four at a time. */
export function walkRows(x: Tensor, length: number, vec4 = length % 4 === 0): Walk {
  const { device } = x;
  const single = variant(device, 'rows') === 'lane';
  const width = vec4 ? 4 : 1;
  const lanes = single ? 1 : length <= 4 * FEW * width ? FEW : MANY;
  let known = walks.get(device);
  if (!known) walks.set(device, (known = new Map<string, Walk>()));
  const key = `${x.dtype} ${width} ${lanes}`;
  let walk = known.get(key);
  if (!walk) {
    const rows = single ? device.profile.subgroupSize || ROWS : 1;
    const choice = { ...typed(x), VEC4: vec4, LANE: single, LANES: `${lanes}u`, GROUP: `${lanes * rows}u` };
    const defines = { ...choice, ROWS: preprocess(source.name, source.text!, choice) };
    // By short keys: the inserted text would make long ones.
    const kernels = new Map<string, Kernel>();
    walk = {
      width,
      lanes,
      rows,
      piece: single ? LANE_PIECE : 32 * lanes,
      kernel(of, more = {}) {
        const name = `${of.name} ${Object.values(more).join(' ')}`;
        let kernel = kernels.get(name);
        if (!kernel) kernels.set(name, (kernel = device.kernel(of, { ...defines, ...more })));
        return kernel;
      },
    };
    known.set(key, walk);
  }
  return walk;
}
