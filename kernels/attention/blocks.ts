/** Which blocks of keys a tile of queries visits, as data: runs of neighbouring blocks, made on the host. */
import { keep, tensor } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';

/**
 * Any pattern of blocks, e.g. block-sparse attention. Queries and keys are cut into blocks of `size`, a multiple of 32,
 * and `visible[i]` lists the key blocks that query block i sees; a causal mask or window still applies inside them.
 * Lists made from it are kept as long as the device, by the object's identity: make it once, and don't change it.
 */
export interface BlockPattern {
  readonly size: number;
  readonly visible: readonly (readonly number[])[];
}

/** A pair (query i, key j) is seen where behind < j − i ≤ ahead, and where the blocks they lie in are. */
export interface Pattern {
  readonly queries: number;
  readonly keys: number;
  readonly ahead: number;
  readonly behind: number;
  readonly blocks: BlockPattern | null;
}

/** Stands for no bound: larger than any distance, and safe to add to one in 32 bits. */
const UNBOUNDED = 2 ** 30;

/** Causal: key j ≤ i + Tk − Tq; with a window of W, the last W of those. */
export function pattern(
  queries: number,
  keys: number,
  causal: boolean,
  window: number | null,
  blocks: BlockPattern | null,
): Pattern {
  const ahead = causal ? keys - queries : UNBOUNDED;
  return { queries, keys, ahead, behind: window === null ? -UNBOUNDED : ahead - window, blocks };
}

/**
 * For each tile of `tile` queries, the runs of key blocks of `block` keys that hold a seen pair; `transposed`: for each
 * tile of keys, the runs of query blocks. Layout: where each tile's runs begin (tiles + 1 places in this array), then the
 * runs: first block, end · 2 + 1 where a pair inside is hidden or past the end (the kernel then compares element by
 * element), else + 0; then one empty run, because kernels look one ahead.
 */
export function blockRuns(pattern: Pattern, tile: number, block: number, transposed = false): Uint32Array<ArrayBuffer> {
  const { queries, keys, ahead, behind, blocks } = pattern;
  const [rows, columns] = transposed ? [keys, queries] : [queries, keys];
  // Row r sees columns low(r) … high(r) − 1; both ends never fall as r grows.
  const low = (r: number) => Math.max(0, transposed ? r - ahead : r + behind + 1);
  const high = (r: number) => Math.min(columns, transposed ? r - behind : r + ahead + 1);
  const seen = blocks && new Set(blocks.visible.flatMap((list, i) => list.map((j) => `${i},${j}`)));
  const inPattern = (r: number, c: number) => {
    if (!seen) return true;
    const [i, j] = transposed ? [c, r] : [r, c];
    return seen.has(`${Math.floor(i / blocks!.size)},${Math.floor(j / blocks!.size)}`);
  };
  const tiles = Math.ceil(rows / tile);
  const begins = [tiles + 1];
  const runs: number[] = [];
  for (let t = 0; t < tiles; t++) {
    const firstRow = t * tile;
    const lastRow = Math.min(firstRow + tile, rows) - 1;
    let previous = -1; // the end of the last run and its flag, to join neighbours
    for (let b = Math.floor(low(firstRow) / block); b * block < high(lastRow); b++) {
      if (!inPattern(firstRow, b * block)) continue;
      const full = b * block >= low(lastRow) && (b + 1) * block <= high(firstRow);
      const flag = full ? 0 : 1;
      if (previous === b * 2 + flag) runs[runs.length - 1] = (b + 1) * 2 + flag;
      else runs.push(b, (b + 1) * 2 + flag);
      previous = (b + 1) * 2 + flag;
    }
    begins.push(tiles + 1 + runs.length);
  }
  return Uint32Array.from([...begins, ...runs, 0, 0]);
}

const cache = new WeakMap<Device, Map<string, Tensor>>();
const identities = new WeakMap<BlockPattern, number>();
let nextIdentity = 1;

/** `blockRuns` on the device, made once for each pattern and tile. */
export function deviceRuns(device: Device, pattern: Pattern, tile: number, block: number, transposed = false): Tensor {
  const { queries, keys, ahead, behind, blocks } = pattern;
  if (blocks && !identities.has(blocks)) identities.set(blocks, nextIdentity++);
  const identity = blocks ? identities.get(blocks)! : 0;
  const key = [queries, keys, ahead, behind, identity, tile, block, transposed].join();
  let lists = cache.get(device);
  if (!lists) cache.set(device, (lists = new Map<string, Tensor>()));
  let list = lists.get(key);
  if (!list) {
    const runs = blockRuns(pattern, tile, block, transposed);
    // Kept: a tensor made in a scope is released with it.
    list = tensor(device, runs, [runs.length], { tag: 'attention lists' });
    if (device.scope) keep(list);
    lists.set(key, list);
  }
  return list;
}
