import type { Kernel } from './kernel.ts';
import type { Block } from './memory.ts';

/** Dispatches recorded before the stream submits by itself, so that the adapter works while the host records on. */
const BATCH = 64;
/** Bind groups kept. Each costs the driver memory (on lavapipe a mapping, of which a process may have 65,530). */
const MAX_BIND_GROUPS = 8192;
const RING_BYTES = 1 << 20;
const RING_STEP = 256; // the guaranteed minUniformBufferOffsetAlignment

/** A buffer's window as a kernel sees it. */
export interface Window {
  block: Block;
  offset: number; // bytes, a multiple of 256
  bytes: number;
}

/** Before a block is written: computes what is still to be computed from its present content. */
function settleReaders({ readers }: Block): void {
  if (readers.size > 0) for (const storage of [...readers]) void storage.block;
}

/**
 * The command stream: operations record into one open compute pass; it is submitted when a copy, a read or enough work
 * calls for it. The queue keeps the order, so a buffer may be reused as soon as its last command is recorded.
 */
export class Stream {
  readonly #gpu: GPUDevice;
  #encoder: GPUCommandEncoder | null = null;
  #pass: GPUComputePassEncoder | null = null;
  #pending = 0;
  /** Identifies the commands recorded but not submitted; see `Block.batch`. */
  #batch = 0;
  #pipeline: GPUComputePipeline | null = null;
  readonly #scratch = new DataView(new ArrayBuffer(64));
  #ring: { buffer: GPUBuffer; mirror: Uint8Array<ArrayBuffer>; view: DataView; used: number } | null = null;
  dispatches = 0;
  submits = 0;
  /** Bind groups created so far: constant in a steady training step. */
  bindGroups = 0;
  /** The kernels of the bind groups that are cached now. */
  #cached: Kernel[] = [];

  constructor(gpu: GPUDevice) {
    this.#gpu = gpu;
  }

  /** Records one dispatch. */
  dispatch(
    kernel: Kernel,
    windows: readonly Window[],
    params: Readonly<Record<string, number>>,
    groups: readonly [number, number, number],
  ): void {
    for (const i of kernel.writes) settleReaders(windows[i]!.block);
    const bytes = kernel.fields.length * 4;
    const uniform = bytes > 0 && !kernel.immediate;
    let offset = 0;
    if (uniform) {
      offset = this.#reserve(); // may submit, so before the pass is taken
      kernel.pack(this.#ring!.view, offset, params);
    } else kernel.pack(this.#scratch, 0, params);
    const pass = this.#openPass();
    if (this.#pipeline !== kernel.pipeline) {
      this.#pipeline = kernel.pipeline;
      pass.setPipeline(kernel.pipeline);
    }
    pass.setBindGroup(0, this.#bindGroup(kernel, windows, uniform), uniform ? [offset] : []);
    if (bytes > 0 && !uniform) pass.setImmediates!(0, this.#scratch.buffer, 0, bytes);
    pass.dispatchWorkgroups(groups[0], groups[1], groups[2]);
    for (const window of windows) window.block.batch = this.#batch;
    this.dispatches++;
    if (++this.#pending >= BATCH) this.flush();
  }

  copy(source: Window, target: Window, bytes: number): void {
    settleReaders(target.block);
    this.#openEncoder().copyBufferToBuffer(source.block.raw, source.offset, target.block.raw, target.offset, bytes);
    source.block.batch = target.block.batch = this.#batch;
    this.#pending++;
  }

  /** Fills a window with zeros. */
  clear(window: Window): void {
    settleReaders(window.block);
    this.#openEncoder().clearBuffer(window.block.raw, window.offset, window.bytes);
    window.block.batch = this.#batch;
    this.#pending++;
  }

  /** Writes host data at once; submits first where recorded commands still use the buffer. */
  write(window: Window, data: ArrayBufferView<ArrayBuffer>): void {
    settleReaders(window.block);
    this.beforeHostWrite(window.block);
    this.#gpu.queue.writeBuffer(window.block.raw, window.offset, data.buffer, data.byteOffset, data.byteLength);
  }

  beforeHostWrite(block: Block): void {
    if (block.batch === this.#batch) this.flush();
  }

  /** Copies a window into a buffer that the host can map, and submits. */
  stage(window: Window, staging: GPUBuffer, bytes: number): void {
    this.#openEncoder().copyBufferToBuffer(window.block.raw, window.offset, staging, 0, bytes);
    this.#pending++;
    this.flush();
  }

  /** Empties the caches of bind groups: their buffers are about to go, or there are too many. */
  forgetBindGroups(): void {
    for (const kernel of this.#cached) kernel.bindGroups.clear();
    this.#cached = [];
  }

  get cachedBindGroups(): number {
    return this.#cached.length;
  }

  /** Submits what is recorded. */
  flush(): void {
    if (!this.#encoder) return;
    this.#pass?.end();
    if (this.#ring && this.#ring.used > 0) {
      this.#gpu.queue.writeBuffer(this.#ring.buffer, 0, this.#ring.mirror, 0, this.#ring.used);
      this.#ring.used = 0;
    }
    this.#gpu.queue.submit([this.#encoder.finish()]);
    this.submits++;
    this.#encoder = this.#pass = this.#pipeline = null;
    this.#pending = 0;
    this.#batch++;
  }

  #openEncoder(): GPUCommandEncoder {
    this.#pass?.end();
    this.#pass = this.#pipeline = null;
    return (this.#encoder ??= this.#gpu.createCommandEncoder());
  }

  #openPass(): GPUComputePassEncoder {
    this.#encoder ??= this.#gpu.createCommandEncoder();
    return (this.#pass ??= this.#encoder.beginComputePass());
  }

  #reserve(): number {
    if (!this.#ring) {
      const buffer = this.#gpu.createBuffer({
        size: RING_BYTES,
        usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
      });
      const mirror = new Uint8Array(RING_BYTES);
      this.#ring = { buffer, mirror, view: new DataView(mirror.buffer), used: 0 };
    }
    if (this.#ring.used === RING_BYTES) this.flush();
    const offset = this.#ring.used;
    this.#ring.used += RING_STEP;
    return offset;
  }

  #bindGroup(kernel: Kernel, windows: readonly Window[], uniform: boolean): GPUBindGroup {
    let key = '';
    for (const window of windows) key += `${window.block.id}:${window.offset}:${window.bytes} `;
    let group = kernel.bindGroups.get(key);
    if (!group) {
      if (windows.length !== kernel.bindings.length)
        throw new Error(`[kernel] ${kernel.label} binds ${kernel.bindings.length} buffers, got ${windows.length}`);
      const entries: GPUBindGroupEntry[] = windows.map((window, binding) => ({
        binding,
        resource: { buffer: window.block.raw, offset: window.offset, size: window.bytes },
      }));
      if (uniform)
        entries.push({
          binding: windows.length,
          resource: { buffer: this.#ring!.buffer, size: kernel.fields.length * 4 },
        });
      group = this.#gpu.createBindGroup({ label: kernel.label, layout: kernel.layout, entries });
      this.bindGroups++;
      if (this.#cached.length >= MAX_BIND_GROUPS) this.forgetBindGroups();
      this.#cached.push(kernel);
      kernel.bindGroups.set(key, group);
    }
    return group;
  }
}
