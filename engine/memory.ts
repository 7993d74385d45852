/**
 * GPU memory: buffers from a pool with size classes, counted by tag.
 *
 * Buffers are never cut into pieces for different holders: WebGPU forbids binding two windows of one buffer as read and
 * read-write in one dispatch. What may share a buffer is what is always used alike (the parameters of an arena).
 */

/** WebGPU's bindings start at multiples of this many bytes (the guaranteed `minStorageBufferOffsetAlignment`). */
export const ALIGNMENT = 256;
/** Guard words behind each buffer of a device that is opened with `guard`. */
export const GUARD_BYTES = 64;
const GUARD_WORD = 0x7fc0dead; // a NaN with a payload that nothing computes: marks guard words and poisons recycled memory

/** A GPU buffer of the pool, used by one storage after another. */
export interface Block {
  readonly id: number;
  /** Usable bytes: a size class. */
  readonly bytes: number;
  readonly raw: GPUBuffer;
  /** The command batch that used the buffer last: a host write must not overtake recorded work. */
  batch: number;
  /** Bytes that the present holder asked for; what lies behind them is nobody's. */
  used: number;
  /** Guard words lie behind its end. */
  readonly guarded: boolean;
  /** Storages whose content will be computed from this block's: they must be, before it is written again. */
  readonly readers: Set<Storage>;
  /** The captured step that it belongs to. */
  reservation: Reservation | null;
  /** Holds host values that a captured step reads at each replay: it is not given to others. */
  constant: boolean;
}

/** The memory of a captured step: blocks that no one else is given. */
export interface Reservation {
  readonly blocks: Set<Block>;
  /** Those not in use, by size. */
  readonly free: Map<number, Block[]>;
  /** Those not in use that hold the host's values. */
  readonly constants: Block[];
  released: boolean;
}

/** How a storage's content comes to be when it is first needed; see `Pool.defer`. */
export interface Pending {
  /** Records the work that fills the storage, which has its memory now. */
  make(): void;
  /** The content will never be needed. */
  discard(): void;
}

/** Which block a storage is given; see `Pool.allocate`. */
interface Taking {
  readonly unused?: boolean;
  readonly exact?: boolean;
}

/** Of storages whose content is nobody's yet; see `Pool.declare`. */
const UNWRITTEN: Pending = { make: () => {}, discard: () => {} };

/**
 * Memory with a count of its holders (a scope, the tape, an owner); its block returns to the pool when nobody holds it.
 * A *pending* storage has no block yet: asking for it computes the content.
 */
export class Storage {
  readonly bytes: number;
  readonly tag: string;
  readonly #pool: Pool;
  #holders = 1;
  #block: Block | null = null;
  #pending: Pending | null;

  constructor(pool: Pool, bytes: number, tag: string, pending: Pending | null, how: Taking = {}) {
    this.#pool = pool;
    this.bytes = bytes;
    this.tag = tag;
    this.#pending = pending;
    if (pending === UNWRITTEN) return;
    if (pending) pool.pendings.add(this);
    else this.#block = pool.take(bytes, tag, how);
  }

  get block(): Block {
    if (!this.#block) {
      const block = this.#pool.take(this.bytes, this.tag);
      this.#block = block;
      try {
        this.#pending!.make();
      } catch (error) {
        this.#block = null; // pending as before
        this.#pool.recycle(block, this.tag);
        throw error;
      }
      this.#pending = null;
      this.#pool.pendings.delete(this);
    }
    return this.#block;
  }

  get pending(): Pending | null {
    return this.#pending;
  }

  get released(): boolean {
    return this.#holders === 0;
  }

  retain(): void {
    if (this.released) throw new Error('[memory] a released tensor cannot be held again');
    this.#holders++;
  }

  drop(): void {
    if (this.released) throw new Error('[memory] a tensor was released more often than it was held');
    if (--this.#holders > 0) return;
    if (this.#block) this.#pool.recycle(this.#block, this.tag);
    else this.#pool.pendings.delete(this);
    this.#pending?.discard();
    this.#pending = null;
  }
}

/** Bytes of one tag (`parameters`, `gradients`, `moments`, `activations`, …). */
export interface Usage {
  live: number;
  peak: number;
}

export interface PoolOptions {
  /** Bytes that may be allocated in all; WebGPU reports no memory size, so the budget is the user's. */
  budget?: number;
  /** Debugging: guard words behind every buffer, recycled buffers poisoned with NaN. */
  guard?: boolean;
}

export const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

export class Pool {
  readonly guard: boolean;
  budget: number;
  /** Tag of what is allocated now; see `withTag`. */
  tag = 'activations';
  readonly usage = new Map<string, Usage>();
  live = 0;
  peak = 0;
  /** Bytes of all buffers that exist, live or waiting for reuse. */
  reserved = 0;
  /** Buffers created so far: constant in a steady training step. */
  created = 0;
  /** Storages whose content is still to be computed. */
  readonly pendings = new Set<Storage>();
  readonly #gpu: GPUDevice;
  readonly #free = new Map<number, Block[]>();
  readonly #all = new Set<Block>();
  #nextId = 0;
  #reservation: Reservation | null = null;
  /** Called before buffers are destroyed: recorded work that uses them is submitted, bind groups that name them forgotten. */
  onTrim: () => void = () => {};
  /** Called before the host writes into a buffer that recorded commands may still use. */
  onHostWrite: (block: Block) => void = () => {};

  constructor(gpu: GPUDevice, options: PoolOptions = {}) {
    this.#gpu = gpu;
    this.budget = options.budget ?? Infinity;
    this.guard = options.guard ?? false;
  }

  /**
   * A buffer of at least `bytes`, held once. Its content is undefined. Throws when the budget does not allow it. `unused`: in a
   * captured step, none that the step has used already. `exact`: of no size class, for what is large and lives long.
   */
  allocate(bytes: number, tag = this.tag, { unused = false, exact = false } = {}): Storage {
    this.#check(bytes);
    return new Storage(this, bytes, tag, null, { unused, exact });
  }

  /** The same, but the memory is taken, and `pending.make()` called, when the content is first asked for. */
  defer(bytes: number, pending: Pending, tag = this.tag): Storage {
    this.#check(bytes);
    return new Storage(this, bytes, tag, pending);
  }

  /**
   * The same, but the memory is taken when it is first bound or written to: a parameter's, before it is known in which format
   * its weights come.
   */
  declare(bytes: number, tag = this.tag): Storage {
    return new Storage(this, bytes, tag, UNWRITTEN);
  }

  /** For storages: a block of at least `bytes`, counted as live. */
  take(bytes: number, tag: string, { unused = false, exact = false }: Taking = {}): Block {
    const size = exact ? Math.max(1, Math.ceil(bytes / ALIGNMENT)) * ALIGNMENT : sizeClass(bytes, this.#limit);
    const reservation = this.#reservation;
    const own = unused ? undefined : reservation?.free.get(size)?.pop();
    const block = own ?? this.#free.get(size)?.pop() ?? this.#create(size, tag);
    if (reservation) {
      block.reservation = reservation;
      reservation.blocks.add(block);
    }
    block.used = bytes;
    this.live += size;
    this.peak = Math.max(this.peak, this.live);
    const usage = this.usage.get(tag) ?? { live: 0, peak: 0 };
    usage.live += size;
    usage.peak = Math.max(usage.peak, usage.live);
    this.usage.set(tag, usage);
    if (this.guard) this.#poison(block);
    return block;
  }

  /** For storages: takes a block back. */
  recycle(block: Block, tag: string): void {
    this.live -= block.bytes;
    this.usage.get(tag)!.live -= block.bytes;
    if (block.constant) block.reservation!.constants.push(block);
    else this.#putBack(block);
  }

  #putBack(block: Block): void {
    const lists = block.reservation?.free ?? this.#free;
    const free = lists.get(block.bytes);
    if (!free) {
      lists.set(block.bytes, [block]);
      return;
    }
    // By falling id, so that `pop` takes the lowest: what a step is given then depends on which blocks are free, not on the
    // order they became so. Steps that repeat meet the same buffers in the same places, and their bind groups are at hand.
    let at = free.length;
    while (at > 0 && free[at - 1]!.id < block.id) at--;
    free.splice(at, 0, block);
  }

  /** Until `endReservation`, memory that is taken belongs to a captured step, also once it is given back. */
  reserve(): Reservation {
    this.settle(); // what waits to be computed from earlier memory is no part of the step
    this.#reservation = { blocks: new Set(), free: new Map(), constants: [], released: false };
    return this.#reservation;
  }

  /** Computes all pending contents that are held. */
  settle(): void {
    for (const storage of [...this.pendings]) void storage.block;
  }

  endReservation(): void {
    this.#reservation = null;
  }

  /** Makes a captured step's memory anybody's. */
  unreserve(reservation: Reservation): void {
    if (reservation.released) return;
    reservation.released = true;
    for (const block of reservation.blocks) {
      block.reservation = null;
      block.constant = false;
    }
    for (const block of [...reservation.free.values(), reservation.constants].flat()) this.#putBack(block);
  }

  /** Runs `body`, which is synchronous, with allocations counted under `tag`. */
  withTag<T>(tag: string, body: () => T): T {
    const before = this.tag;
    this.tag = tag;
    try {
      const result = body();
      if (result instanceof Promise)
        throw new Error('[withTag] the body must be synchronous; await before or after it');
      return result;
    } finally {
      this.tag = before;
    }
  }

  /** Destroys the buffers that wait for reuse. */
  trim(): void {
    this.onTrim();
    for (const list of this.#free.values()) {
      for (const block of list) {
        block.raw.destroy();
        this.#all.delete(block);
        this.reserved -= block.bytes;
      }
    }
    this.#free.clear();
  }

  /** Forgets past peaks, so that the next ones are those of what follows. */
  resetPeak(): void {
    this.peak = this.live;
    for (const usage of this.usage.values()) usage.peak = usage.live;
  }

  /** `parameters 25.1 MiB, activations 3.0 MiB (peak 12.0 MiB)`. */
  describe(): string {
    const used = [...this.usage].filter(([, usage]) => usage.peak > 0);
    const large = used.filter(([, usage]) => usage.peak >= this.peak / 1000); // the others show as 0.0 MiB
    return large
      .map(([tag, { live, peak }]) => `${tag} ${mebibytes(live)}${peak > live ? ` (peak ${mebibytes(peak)})` : ''}`)
      .join(', ');
  }

  /** Every buffer, for the guard check of tests. */
  blocks(): Iterable<Block> {
    return this.#all;
  }

  /** Bytes of the largest buffer that can be had. */
  get #limit(): number {
    return this.#gpu.limits.maxBufferSize - (this.guard ? GUARD_BYTES : 0);
  }

  #check(bytes: number): void {
    if (bytes > this.#limit)
      throw new Error(`[memory] ${mebibytes(bytes)} exceed this adapter's largest buffer, ${mebibytes(this.#limit)}`);
  }

  #create(size: number, tag: string): Block {
    if (this.reserved + size > this.budget) this.trim();
    if (this.reserved + size > this.budget)
      throw new Error(
        `[memory] ${mebibytes(size)} more for ${tag} would exceed the budget of ${mebibytes(this.budget)}; ` +
          `live now: ${this.describe() || 'nothing'}. Lower the batch or raise the budget (memory.budget)`,
      );
    const raw = this.#gpu.createBuffer({
      size: size + (this.guard ? GUARD_BYTES : 0),
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    const block: Block = {
      id: this.#nextId++,
      bytes: size,
      raw,
      batch: -1,
      used: 0,
      guarded: this.guard,
      readers: new Set(),
      reservation: null,
      constant: false,
    };
    this.#all.add(block);
    this.reserved += size;
    this.created++;
    return block;
  }

  #poison(block: Block): void {
    this.onHostWrite(block);
    const words = new Uint32Array((block.bytes + GUARD_BYTES) / 4).fill(GUARD_WORD);
    this.#gpu.queue.writeBuffer(block.raw, 0, words);
  }
}

/**
 * Sizes are rounded up to four classes an octave (…, 1024, 1280, 1536, 1792, 2048, …): at most a quarter is wasted, and a
 * step that repeats finds its buffers again. A class over `limit`, the largest buffer, ends there.
 */
export function sizeClass(bytes: number, limit = Infinity): number {
  const octave = 2 ** Math.max(8, Math.floor(Math.log2(Math.max(bytes, 1))));
  const step = octave / 4;
  return Math.min(bytes <= octave ? octave : Math.ceil(bytes / step) * step, limit);
}

/** For tests: throws when words behind a buffer's end were overwritten; `tail` is what stands there. */
export function checkGuard(block: Block, tail: Uint32Array): void {
  if (tail.some((word) => word !== GUARD_WORD))
    throw new Error(`[memory] a kernel wrote behind the end of buffer ${block.id} (${block.used} bytes in use)`);
}
