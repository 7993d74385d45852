/** Which blocks of keys a tile of queries visits, as data on the device: runs of neighbouring blocks. */
import { empty, keep, noGrad, scope, tensor, wgsl } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';

const listsSource = wgsl(import.meta.url, './attention_lists.wgsl');
const selectionSource = wgsl(import.meta.url, './attention_selection.wgsl');

/**
 * Any pattern of blocks: queries and keys are cut into blocks of `size`, a multiple of 32, and `visible` says which key
 * blocks each query block sees; a causal mask or window still applies inside them. Documents packed into one sequence, each
 * from a multiple of `size` on, are such a pattern too.
 */
export interface BlockPattern {
  readonly size: number;
  /**
   * `visible[i]` lists the key blocks of query block i. Lists made from it are kept as long as the device, by the object's
   * identity: make it once, and don't change it. Or a u32 tensor (B or 1, KV or 1, query blocks, n) of key blocks, in any
   * order, made by the program as it runs; what is past the last key block fills up shorter lists.
   */
  readonly visible: readonly (readonly number[])[] | Tensor;
}

/** Who sees whom: query i key j where j − i lies between two bounds or j is a sink, and where their blocks are selected. */
export interface Pattern {
  readonly queries: number;
  readonly keys: number;
  readonly causal: boolean;
  /** 0 where there is none. */
  readonly window: number;
  /** The window begins at a multiple of it. */
  readonly windowBlock: number;
  readonly sinks: number;
  readonly blocks: BlockPattern | null;
  /** How many queries and keys of each sequence count: (B), u32. */
  readonly queryLengths: Tensor | null;
  readonly keyLengths: Tensor | null;
}

/** How rows (queries, or keys when `transposed`) and columns are cut. */
export interface Tiling {
  readonly tile: number;
  readonly block: number;
  readonly transposed: boolean;
}

/** Lists on the device and how kernels find theirs: parameters of attention_shared.wgsl. */
export interface Lists {
  readonly tensor: Tensor;
  readonly params: { listTiles: number; listWords: number; listHeads: number; listBatches: number };
}

/** A bit for each selected key block: (batches, heads, query blocks, words). */
function selectionBits(device: Device, { queries, keys, blocks }: Pattern): Tensor {
  const { size, visible } = blocks!;
  let ids: Tensor;
  if (Array.isArray(visible)) {
    const listed = Math.max(1, ...visible.map((list) => list.length));
    const padded = (visible as number[][]).flatMap((list) => Array.from({ length: listed }, (_, i) => list[i] ?? -1));
    ids = tensor(device, Uint32Array.from(padded), [1, 1, visible.length, listed]);
  } else ids = visible as Tensor;
  const [batches, heads, , listed] = ids.shape as [number, number, number, number];
  const [rows, words] = [Math.ceil(queries / size), Math.ceil(keys / size / 32)];
  const bits = empty(device, [batches, heads, rows, words], 'u32');
  const lists = batches * heads * rows;
  device.run(device.kernel(selectionSource), [ids, bits], { lists, listed, words }, Math.ceil((lists * words) / 64));
  return bits;
}

function makeLists(device: Device, pattern: Pattern, { tile, block, transposed }: Tiling): Lists {
  const { queries, keys, causal, window, windowBlock, sinks, blocks, queryLengths, keyLengths } = pattern;
  const bits = blocks ? selectionBits(device, pattern) : null;
  const [selectedBatches, selectedHeads] = bits ? [bits.shape[0]!, bits.shape[1]!] : [1, 1];
  const batches = queryLengths?.size ?? keyLengths?.size ?? selectedBatches;
  // With a selection, the tiles of a selected block share a list: there may be many runs in it.
  const size = blocks?.size ?? tile;
  const [rowCount, columnCount] = transposed ? [keys, queries] : [queries, keys];
  const count = Math.ceil(rowCount / size);
  const runs = 6 + (blocks ? Math.ceil(columnCount / size) : 0); // at most: between five places, and the selected blocks
  const words = 6 + 2 * (runs + 1);
  const lists = empty(device, [batches, selectedHeads, count, words], 'u32', 'attention lists');
  const data = [lists];
  const binding = (given: Tensor | null) => given !== null && data.push(given) - 1;
  const defines = {
    TRANSPOSED: transposed,
    QUERY_LENGTHS: binding(queryLengths),
    KEY_LENGTHS: binding(keyLengths),
    SELECTION: binding(bits),
  };
  const params = {
    batches, heads: selectedHeads, count, words, rows: size, block, queries, keys, causal: Number(causal), window,
    windowBlock, sinks, size, bitWords: bits?.shape[3] ?? 0, selectedBatches, selectedHeads,
  }; // prettier-ignore
  device.run(device.kernel(listsSource, defines), data, params, Math.ceil((batches * selectedHeads * count) / 64));
  return {
    tensor: lists,
    params: { listTiles: size / tile, listWords: words, listHeads: selectedHeads, listBatches: batches },
  };
}

/**
 * Lists that several calls share: layers whose lengths and selected blocks are the same tensors, with the same content. They
 * belong to the scope in which this was made.
 */
export class AttentionLists {
  readonly #device: Device;
  readonly #scope: Device['scope'];
  readonly #made = new Map<string, { lists: Lists; from: readonly unknown[] }>();

  constructor(device: Device) {
    this.#device = device;
    this.#scope = device.scope;
    if (!this.#scope) throw new Error('[attention] lists that calls share belong to a scope; make them in one');
  }

  get(key: string, from: readonly unknown[], make: () => Lists): Lists {
    const known = this.#made.get(key);
    if (known?.from.every((value, i) => value === from[i])) return known.lists;
    const inner = this.#device.scope;
    this.#device.scope = this.#scope;
    try {
      const lists = make();
      this.#made.set(key, { lists, from });
      return lists;
    } finally {
      this.#device.scope = inner;
    }
  }
}

const cache = new WeakMap<Device, Map<string, Lists>>();
const identities = new WeakMap<BlockPattern, number>();
let nextIdentity = 1;

/** The lists of a pattern: made once where nothing of it lies on the device, or once for all calls with these `shared`. */
export function blockLists(device: Device, pattern: Pattern, tiling: Tiling, shared: AttentionLists | null): Lists {
  const { queries, keys, causal, window, windowBlock, sinks, blocks, queryLengths, keyLengths } = pattern;
  const make = () => noGrad(device, () => scope(device, () => makeLists(device, pattern, tiling)));
  const key = [queries, keys, causal, window, windowBlock, sinks, ...Object.values(tiling)].join();
  if (queryLengths || keyLengths || (blocks && !Array.isArray(blocks.visible))) {
    const from = [queryLengths, keyLengths, blocks?.size, blocks?.visible];
    return shared ? shared.get(key, from, make) : make();
  }
  if (blocks && !identities.has(blocks)) identities.set(blocks, nextIdentity++);
  const fixed = `${key},${blocks ? identities.get(blocks)! : 0}`;
  let known = cache.get(device);
  if (!known) cache.set(device, (known = new Map<string, Lists>()));
  let lists = known.get(fixed);
  if (!lists) {
    lists = make();
    // Kept: a tensor made in a scope is released with it.
    if (device.scope) keep(lists.tensor);
    known.set(fixed, lists);
  }
  return lists;
}
